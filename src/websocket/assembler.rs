//! A message whose frame comes with more than one read: the frame as it will go out, as far as it
//! has come.

use std::str;
use std::sync::Arc;

use crate::frame::{TEXT, header};
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::websocket::decoder::unmask;

/// A message in one frame, of which a part has come.
#[derive(Debug)]
pub(crate) struct Assembler {
    /// The unmasked header, and the payload so far.
    frame: Vec<u8>,
    /// How long the frame becomes.
    total: usize,
    /// How much of a text was found to be UTF-8, its header taken for such.
    checked: usize,
    /// Where the buffer may be from.
    memory: Arc<MemoryBudget>,
}

impl Assembler {
    /// For a payload of `length` bytes, of which `there` have come.
    pub(crate) fn begin(
        memory: &Arc<MemoryBudget>,
        first: u8,
        length: usize,
        there: usize,
    ) -> Self {
        let header = header(first, length);
        let (checked, total) = (header.len(), header.len() + length);
        let memory = Arc::clone(memory);
        let mut begun = Self { frame: Vec::new(), total, checked, memory };
        begun.make_room(header.len() + there.min(length));
        begun.frame.extend_from_slice(&header);
        begun
    }

    /// Makes room for `len` bytes, and for as many again at most: in the hub's spare buffer, if nobody
    /// has that and a third of the frame is there.
    fn make_room(&mut self, len: usize) {
        if len <= self.frame.capacity() {
            return;
        }
        let frame_buffer = if 3 * len >= self.total {
            self.memory.frame_buffer().try_acquire(self.total)
        } else {
            None
        };
        if let Some(mut frame_buffer) = frame_buffer {
            frame_buffer.extend_from_slice(&self.frame);
            self.frame = frame_buffer;
        } else {
            let room = len.max(2 * self.frame.capacity()).min(self.total);
            self.frame.reserve_exact(room - self.frame.len());
        }
    }

    /// Appends what has come of the payload; `false` if that is of a text and no UTF-8.
    pub(crate) fn add(&mut self, masked: &[u8], mask: [u8; 4]) -> bool {
        let before = self.frame.len();
        let len = before + masked.len();
        self.make_room(len);
        self.frame.extend_from_slice(masked);
        let is_ascii = unmask(&mut self.frame[before..], mask);
        if self.frame[0] != TEXT {
            return true;
        }
        if is_ascii && self.checked == before {
            self.checked = len;
            return true;
        }
        match str::from_utf8(&self.frame[self.checked..]) {
            Ok(_) => self.checked = len,
            Err(error) => {
                self.checked += error.valid_up_to();
                // The rest of a character may still come.
                return error.error_len().is_none() && len < self.total;
            }
        }
        true
    }

    /// Makes the message, once all of it is there.
    pub(crate) fn finish(mut self) -> Message {
        debug_assert_eq!(self.frame.len(), self.total);
        Message::from_frame(std::mem::take(&mut self.frame), &self.memory)
    }
}

impl Drop for Assembler {
    fn drop(&mut self) {
        self.memory.frame_buffer().release(std::mem::take(&mut self.frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::BINARY;

    #[test]
    fn no_more_is_allocated_than_twice_what_has_come_and_at_the_end_what_is_there() {
        let memory = Arc::<MemoryBudget>::default();
        let payload = [7; 70_000];
        let mut gathering = Assembler::begin(&memory, BINARY, payload.len(), 100);
        let mut come = 0;
        for part in payload.chunks(100) {
            assert!(gathering.add(part, [0; 4]));
            come += part.len();
            assert!(gathering.frame.capacity() <= 2 * (come + 10), "{come}");
        }
        assert_eq!(gathering.frame.capacity(), gathering.total);
        assert_eq!(gathering.finish(), Message::binary(payload));
    }
    #[test]
    fn a_text_is_refused_with_the_first_part_that_cannot_be_one() {
        let memory = Arc::<MemoryBudget>::default();
        let text = "sch\u{f6}n \u{1f980}".as_bytes();
        for cut in 0..text.len() {
            let mut gathering = Assembler::begin(&memory, TEXT, text.len(), 1);
            assert!(gathering.add(&text[..cut], [0; 4]) && gathering.add(&text[cut..], [0; 4]));
            assert_eq!(gathering.finish().as_bytes(), text);
        }
        let mut gathering = Assembler::begin(&memory, TEXT, 100, 1);
        assert!(gathering.add(b"sch\xc3", [0; 4]));
        assert!(!gathering.add(b"n", [0; 4]));
        let mut gathering = Assembler::begin(&memory, TEXT, 4, 1);
        assert!(!gathering.add(b"sch\xc3", [0; 4]), "it ends within a character");
    }
    #[test]
    fn who_never_finishes_gives_the_spare_buffer_back() {
        let memory = Arc::<MemoryBudget>::default();
        for _ in 0..2 {
            let early = Assembler::begin(&memory, BINARY, 60_000, 10_000);
            assert!(early.frame.capacity() < 60_000, "hardly anything has come");
            let mut gathering = Assembler::begin(&memory, BINARY, 60_000, 10_000);
            assert!(gathering.add(&[7; 30_000], [0; 4]));
            assert!(
                gathering.frame.capacity() > 60_000
                    && memory.frame_buffer().try_acquire(60_000).is_none()
            );
        }
        assert!(memory.frame_buffer().try_acquire(60_000).is_some());
    }
}
