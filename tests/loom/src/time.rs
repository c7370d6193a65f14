//! The hub's timers, and those of its reactor, on a clock that a model moves.

#[path = "../../../src/time/alarms.rs"]
pub(crate) mod alarms;
pub(crate) mod clock;
pub(crate) mod kernel_timer;
#[path = "../../../src/time/timer_list.rs"]
pub(crate) mod timer_list;
#[path = "../../../src/time/timers.rs"]
pub(crate) mod timers;
#[path = "../../../src/time/wake.rs"]
mod wake;
#[path = "../../../src/time/uptime.rs"]
pub(crate) mod uptime;
