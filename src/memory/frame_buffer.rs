//! The buffer that long messages share, one after another.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use crate::frame::FRAME_HEADER_MAX;

/// Bytes of the buffer. Large enough that malloc maps it separately: it pins no heap pages, and
/// pages that no message has touched cost nothing.
const BUFFER_BYTES: usize = 128 * 1024;

/// Lengths of frames that use the buffer. Shorter frames are cheap to allocate. The longest is a
/// message of the default maximum.
const REUSED_FOR: RangeInclusive<usize> = 2048..=64 * 1024 + FRAME_HEADER_MAX;

/// The buffer of a hub for one long message at a time.
///
/// Without it, an allocator maps pages for each long message and unmaps them afterwards: two system
/// calls, and a page fault for every page. Other long messages that exist at the same time get
/// buffers of their own.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The buffer; empty without capacity while a message uses it, and before the first.
    buffer: Vec<u8>,
    /// The address of the buffer, which identifies it when it comes back; 0 before the first use.
    address: usize,
}

impl FrameBuffer {
    /// Returns an empty buffer with room for `bytes`: the shared one, or a new one.
    pub(crate) fn acquire(&self, bytes: usize) -> Vec<u8> {
        self.try_acquire(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// Returns the shared buffer, if `bytes` are long enough and it is free.
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

    /// Takes back a buffer, if it is the shared one.
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
        assert!(meanwhile.capacity() < BUFFER_BYTES, "the shared buffer is in use");
        frame_buffer.release(meanwhile);
        frame_buffer.release(Vec::with_capacity(BUFFER_BYTES));
        assert!(frame_buffer.try_acquire(3000).is_none(), "no other buffer takes its place");
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
