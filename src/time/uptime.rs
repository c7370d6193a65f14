//! How long something has been there.

use std::time::Instant;

use crate::time::clock::now;

/// The time since this was made.
#[derive(Debug)]
pub(crate) struct Uptime {
    begin: Instant,
    /// Nanoseconds before that, in another process.
    before: u64,
}

impl Uptime {
    pub(crate) fn start() -> Self {
        Self::resume(0)
    }

    /// Goes on at so many nanoseconds.
    pub(crate) fn resume(before: u64) -> Self {
        Self { begin: now(), before }
    }

    /// Nanoseconds, enough for five centuries.
    pub(crate) fn nanos(&self) -> u64 {
        let since = now().saturating_duration_since(self.begin).as_nanos() as u64;
        self.before.saturating_add(since)
    }
}
