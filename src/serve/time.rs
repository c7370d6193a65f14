//! The time: the one place where serving asks for it and waits for it.
//!
//! A simulation puts its own in its place, so that a run of hours takes milliseconds and comes out
//! the same every time.

#[cfg(not(test))]
pub(crate) use real::{Timer, now};

#[cfg(test)]
pub(crate) use super::sim::time::{Timer, now};

#[cfg(not(test))]
mod real {
    use std::time::Instant;

    pub(crate) use smol::Timer;

    /// The time, by the clock that no one sets.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
