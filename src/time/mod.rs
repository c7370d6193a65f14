//! Time: the clock, and the timers of all connections of a hub.

#[cfg(target_os = "linux")]
pub(crate) mod alarms;
pub(crate) mod clock;
#[cfg(target_os = "linux")]
pub(crate) mod kernel_timer;
pub(crate) mod timer_list;
pub(crate) mod timers;
pub(crate) mod uptime;
#[cfg(test)]
pub(crate) mod virtual_time;
pub(crate) mod wake;
