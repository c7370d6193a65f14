//! The buffers that connections borrow for a poll, to read into.

use std::sync::{Mutex, PoisonError};

/// Bytes of one buffer: what one read takes from a socket at most.
pub(crate) const READ_BUFFER_BYTES: usize = 32 * 1024;

/// One buffer, behind a thin pointer.
pub(crate) type ReadBuffer = [u8; READ_BUFFER_BYTES];

/// Buffers that are kept for the next borrower at most; more threads than these poll at once rarely.
const KEPT_MAX: usize = 8;

/// A pool of read buffers, one in use for each thread that polls a connection just now.
///
/// So ten thousand idle connections own none, and a read is still a large one.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers(Mutex<Vec<Box<ReadBuffer>>>);

impl ReadBuffers {
    /// Takes a buffer; give it back before the poll ends.
    pub(crate) fn acquire(&self) -> Box<ReadBuffer> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Box::new([0; READ_BUFFER_BYTES]))
    }

    /// Gives a buffer back.
    pub(crate) fn release(&self, buffer: Box<ReadBuffer>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT_MAX {
            free.push(buffer);
        }
    }
}
