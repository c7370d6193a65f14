//! Large buffers that connections borrow for the length of one poll.

use std::sync::{Mutex, PoisonError};

/// Bytes of one buffer: what one read takes from a socket at most.
pub(crate) const SCRATCH_BYTES: usize = 32 * 1024;

/// Buffers kept for the next borrower at most; more than this many threads poll at once rarely.
const KEPT: usize = 8;

/// A pool of read buffers, one in use for each thread that polls a connection just now.
///
/// So ten thousand idle connections own no buffer at all, and a read is still a large one.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Scratch {
    /// Takes a buffer of [`SCRATCH_BYTES`]; give it back before the poll ends.
    pub(crate) fn take(&self) -> Box<[u8]> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Box<[u8]>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT && buffer.len() == SCRATCH_BYTES {
            free.push(buffer);
        }
    }
}
