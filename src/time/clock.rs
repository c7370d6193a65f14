//! The time: the one place where the library asks for it and waits for it.
//!
//! A simulation puts its own in its place, so that a run of hours takes milliseconds and comes out
//! the same every time.

#[cfg(not(test))]
pub(crate) use real::{Timer, now};

#[cfg(test)]
pub(crate) use super::virtual_time::{Timer, now};

/// The time of the world, in seconds since 1970; 0 where the clock stands before.
pub(crate) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(not(test))]
mod real {
    use std::time::Instant;

    pub(crate) use smol::Timer;

    /// The time, by the clock that no one sets.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
