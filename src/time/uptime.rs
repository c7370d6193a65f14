//! How long something has been there.

use std::time::Instant;

use crate::time::clock::now;

/// The time since this was made.
#[derive(Debug)]
pub(crate) struct Uptime(Instant);

impl Uptime {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    /// Nanoseconds, enough for five centuries.
    pub(crate) fn nanos(&self) -> u64 {
        now().saturating_duration_since(self.0).as_nanos() as u64
    }
}
