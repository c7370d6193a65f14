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

    /// Whole milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        now().saturating_duration_since(self.0).as_millis() as u64
    }
}
