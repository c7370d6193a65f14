//! A writer that a push may use at once.

use std::io::IoSlice;
use std::{fmt, io};

/// Where a queue may write without waiting.
pub(crate) trait DirectWriter: fmt::Debug + Send + Sync {
    /// Writes as much as fits now, in order; `WouldBlock` when nothing does.
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize>;
}
