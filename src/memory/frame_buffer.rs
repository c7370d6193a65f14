//! The buffer that a long message is made in.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use crate::frame::FRAME_HEADER_MAX;

/// Bytes of the spare buffer. Of as many a C library asks the system for pages of their own, so that
/// the buffer keeps no others from being given back; those that no message has reached are not there.
const SPARE_BYTES: usize = 128 * 1024;

/// Bytes of a frame that is made in it: a shorter one shares its pages with others, and the longest
/// is that of a message as long as one may be at the defaults.
const LONG: RangeInclusive<usize> = 2048..=64 * 1024 + FRAME_HEADER_MAX;

/// A hub's buffer for one long message at a time, used again for the next.
///
/// An allocator maps pages for a long message and unmaps them behind it: two system calls for each
/// that comes alone, and a fault for every page. Others that are there at the same time have buffers
/// of their own.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The buffer; without capacity while it is lent, and before the first long message.
    buffer: Vec<u8>,
    /// Where it lies, here or lent; 0 before there is one.
    address: usize,
}

impl Spare {
    /// Makes an empty buffer with room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        self.find(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// Lends the spare buffer, if `bytes` are long and nobody has it.
    pub(crate) fn find(&self, bytes: usize) -> Option<Vec<u8>> {
        if !LONG.contains(&bytes) {
            return None;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.address == 0 {
            let buffer = Vec::with_capacity(SPARE_BYTES);
            state.address = buffer.as_ptr() as usize;
            return Some(buffer);
        }
        (state.buffer.capacity() > 0).then(|| mem::take(&mut state.buffer))
    }

    /// Takes a buffer back if it is the one that was lent.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() >= SPARE_BYTES {
            buffer.clear();
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if buffer.as_ptr() as usize == state.address {
                mem::swap(&mut state.buffer, &mut buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_share_one_buffer_one_after_another() {
        let spare = Spare::default();
        let first = spare.take(3000);
        assert_eq!(first.capacity(), SPARE_BYTES);
        let pointer = first.as_ptr();
        let meanwhile = spare.take(3000);
        assert!(meanwhile.capacity() < SPARE_BYTES, "it is lent");
        spare.give(meanwhile);
        spare.give(Vec::with_capacity(SPARE_BYTES));
        assert!(spare.find(3000).is_none(), "and another is none");
        spare.give(first);
        for bytes in [0, 2047, LONG.end() + 1] {
            assert!(spare.find(bytes).is_none() && spare.take(bytes).capacity() >= bytes);
        }
        let mut again = spare.take(*LONG.end());
        assert_eq!((again.as_ptr(), again.len()), (pointer, 0));
        again.push(1);
        spare.give(again);
        assert_eq!(spare.take(2048), []);
    }
}
