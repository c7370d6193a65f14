//! The hub's timers on a clock that a model moves.

pub(crate) mod clock;
#[path = "../../../src/time/timer_list.rs"]
mod timer_list;
#[path = "../../../src/time/timers.rs"]
pub(crate) mod timers;
