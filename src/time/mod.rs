//! Time: the clock, and the timers of all connections of a hub.

pub(crate) mod clock;
pub(crate) mod timer_list;
pub(crate) mod timers;
#[cfg(test)]
pub(crate) mod virtual_time;
