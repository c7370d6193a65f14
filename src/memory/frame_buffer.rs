//! The buffer that a long message is made in.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use crate::frame::FRAME_HEADER_MAX;

/// Bytes of the spare buffer. Of as many a C library asks the system for pages of their own, so that
/// the buffer keeps no others from being given back; those that no message has reached are not there.
const BUFFER_BYTES: usize = 128 * 1024;

/// Bytes of a frame that is made in it: a shorter one shares its pages with others, and the longest
/// is that of a message as long as one may be at the defaults.
const REUSED_FOR: RangeInclusive<usize> = 2048..=64 * 1024 + FRAME_HEADER_MAX;

/// A hub's buffer for one long message at a time, used again for the next.
///
/// An allocator maps pages for a long message and unmaps them behind it: two system calls for each
/// that comes alone, and a fault for every page. Others that are there at the same time have buffers
/// of their own.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The buffer; without capacity while it is lent, and before the first long message.
    buffer: Vec<u8>,
    /// Where it lies, here or lent; 0 before there is one.
    address: usize,
}

impl FrameBuffer {
    /// Makes an empty buffer with room for `bytes`.
    pub(crate) fn acquire(&self, bytes: usize) -> Vec<u8> {
        self.try_acquire(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// Lends the spare buffer, if `bytes` are long and nobody has it.
    pub(crate) fn try_acquire(&self, bytes: usize) -> Option<Vec<u8>> {
        if !REUSED_FOR.contains(&bytes) {
            return None;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.address == 0 {
            let buffer = Vec::with_capacity(BUFFER_BYTES);
            state.address = buffer.as_ptr() as usize;
            return Some(buffer);
        }
        (state.buffer.capacity() > 0).then(|| mem::take(&mut state.buffer))
    }

    /// Takes a buffer back if it is the one that was lent.
    pub(crate) fn release(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() >= BUFFER_BYTES {
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
        let frame_buffer = FrameBuffer::default();
        let first = frame_buffer.acquire(3000);
        assert_eq!(first.capacity(), BUFFER_BYTES);
        let pointer = first.as_ptr();
        let meanwhile = frame_buffer.acquire(3000);
        assert!(meanwhile.capacity() < BUFFER_BYTES, "it is lent");
        frame_buffer.release(meanwhile);
        frame_buffer.release(Vec::with_capacity(BUFFER_BYTES));
        assert!(frame_buffer.try_acquire(3000).is_none(), "and another is none");
        frame_buffer.release(first);
        for bytes in [0, 2047, REUSED_FOR.end() + 1] {
            assert!(
                frame_buffer.try_acquire(bytes).is_none()
                    && frame_buffer.acquire(bytes).capacity() >= bytes
            );
        }
        let mut again = frame_buffer.acquire(*REUSED_FOR.end());
        assert_eq!((again.as_ptr(), again.len()), (pointer, 0));
        again.push(1);
        frame_buffer.release(again);
        assert_eq!(frame_buffer.acquire(2048), []);
    }
}
