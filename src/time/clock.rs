//! The clock: the only file in which the library reads the time and waits for it.
//!
//! Tests replace it by a virtual clock, so that hours pass in milliseconds and every run is the
//! same.

#[cfg(not(test))]
pub(crate) use real::{Timer, now};

#[cfg(test)]
pub(crate) use super::virtual_time::{Timer, now};

/// The wall clock, in seconds since 1970; 0 if it is set to an earlier time.
pub(crate) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(not(test))]
mod real {
    use std::time::Instant;

    pub(crate) use smol::Timer;

    /// The monotonic clock.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
