//! What connections borrow while their peer is saying something.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use async_tungstenite::tungstenite::protocol::WebSocketContext;

use crate::Config;
use crate::message::FRAME_HEADER_MAX;

/// Bytes of one buffer: what one read takes from a socket at most.
pub(crate) const SCRATCH_BYTES: usize = 32 * 1024;

/// Of each kind, how many are kept for the next borrower at most; more than this many threads poll
/// at once rarely.
const KEPT: usize = 8;

/// A pool of read buffers, one in use for each thread that polls a connection just now, and of
/// tungstenites, one in use for each connection that is in the middle of a message.
///
/// So ten thousand idle connections own neither, and a read is still a large one.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "who borrows a tungstenite keeps a pointer, to stay small")]
pub(crate) struct Scratch {
    buffers: Mutex<Vec<Box<[u8]>>>,
    tungstenites: Mutex<Vec<Box<WebSocketContext>>>,
}

impl Scratch {
    /// Takes a buffer of [`SCRATCH_BYTES`]; give it back before the poll ends.
    pub(crate) fn take(&self) -> Box<[u8]> {
        pop(&self.buffers).unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Box<[u8]>) {
        if buffer.len() == SCRATCH_BYTES {
            keep(&self.buffers, buffer);
        }
    }

    /// Takes a tungstenite that knows nothing, if there is one.
    pub(crate) fn take_tungstenite(&self) -> Option<Box<WebSocketContext>> {
        pop(&self.tungstenites)
    }

    /// Gives a tungstenite back that knows nothing: no frame and no message has begun, no frame of
    /// ours is held back.
    pub(crate) fn give_tungstenite(&self, tungstenite: Box<WebSocketContext>) {
        keep(&self.tungstenites, tungstenite);
    }
}

/// The buffer that the last long message has left, for the next.
///
/// An allocator maps pages for a long message and unmaps them behind it: two system calls for each
/// that comes alone, and a fault for every page.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Vec<u8>>);

/// Bytes of a buffer that is kept for the next message: a shorter one shares its pages with others,
/// and the longest is for a message as long as one may be at the defaults.
const SPARE_BYTES: RangeInclusive<usize> = 2048..=Config::MAX_MESSAGE + FRAME_HEADER_MAX;

impl Spare {
    /// Makes an empty buffer with room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        self.find(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// Takes the spare buffer, if that has room for `bytes` and no more than another third.
    pub(crate) fn find(&self, bytes: usize) -> Option<Vec<u8>> {
        if !SPARE_BYTES.contains(&bytes) {
            return None;
        }
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = (bytes..=bytes + bytes / 3).contains(&spare.capacity());
        fits.then(|| mem::take(&mut *spare))
    }

    /// Keeps a buffer that nobody uses any more, in place of the one before.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        if SPARE_BYTES.contains(&buffer.capacity()) {
            buffer.clear();
            let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut *spare, &mut buffer);
        }
    }
}

fn pop<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn keep<T>(pool: &Mutex<Vec<T>>, lent: T) {
    let mut free = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if free.len() < KEPT {
        free.push(lent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_buffer_is_used_again_where_it_fits_and_a_short_one_is_not() {
        let spare = Spare::default();
        let mut buffer = Vec::with_capacity(8000);
        buffer.extend_from_slice(b"a message");
        let pointer = buffer.as_ptr();
        spare.give(buffer);
        for bytes in [1, 2000, 5000, 8001, SPARE_BYTES.end() + 1] {
            let other = spare.take(bytes);
            assert!(other.as_ptr() != pointer && other.capacity() >= bytes, "{bytes}");
        }
        let again = spare.take(7000);
        assert_eq!((again.as_ptr(), again.len()), (pointer, 0));
        let is_empty = || spare.0.lock().expect("nobody panics").capacity() == 0;
        assert!(is_empty());
        for capacity in [1000, SPARE_BYTES.end() + 1] {
            spare.give(Vec::with_capacity(capacity));
            assert!(is_empty(), "{capacity}");
        }
    }
}
