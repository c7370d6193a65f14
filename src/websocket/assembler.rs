//! The assembler: a message that comes in fragments or with more than one read, as the frame that
//! will go out, as far as it has come.

use std::mem;
use std::str;
use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::frame::{TEXT, header};
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::websocket::mask::unmask;

/// A message of which a part has come.
#[derive(Debug)]
pub(crate) struct Assembler {
    /// The unmasked header of the frame that goes out, and the payload so far.
    frame: Vec<u8>,
    /// The first byte of that frame: the kind of the message.
    first: u8,
    /// Bytes of the header in `frame`, before the first [`announce`](Self::announce) none.
    header: usize,
    /// Bytes of payload that were found to be UTF-8. Only a text is checked.
    checked: usize,
    /// Bytes of the frame as far as the peer has announced it.
    total: usize,
    /// Bytes of the frame at most.
    most: usize,
    /// Whether `frame` is the hub's frame buffer.
    is_lent: bool,
    /// Lends the frame buffer, and counts the message.
    memory: Arc<MemoryBudget>,
}

impl Assembler {
    /// For a message with this first byte of its frame.
    pub(crate) fn new(memory: &Arc<MemoryBudget>, first: u8) -> Self {
        let memory = Arc::clone(memory);
        let (frame, is_lent) = (Vec::new(), false);
        Self { frame, first, header: 0, checked: 0, total: 0, most: 0, is_lent, memory }
    }

    /// A frame of the peer has begun, with which the payload has `length` bytes, and at the end of
    /// the message `most` at most. `there` of them have come and will be [added](Self::add) next.
    pub(crate) fn announce(&mut self, length: usize, most: usize, there: usize) {
        let wider = header(self.first, length);
        let (before, payload) = (self.header, self.frame.len() - self.header);
        self.header = wider.len();
        self.total = wider.len() + length;
        self.most = header(self.first, most).len() + most;
        self.make_room((wider.len() + payload + there).min(self.total));
        // A longer header moves the payload: behind 125 bytes, and behind 64 KiB.
        self.frame.splice(..before, wider.iter().copied());
    }

    /// Makes room for `len` bytes: in the hub's frame buffer, if it is free and a third of the frame
    /// is there, and otherwise for as many again at most.
    fn make_room(&mut self, len: usize) {
        if len <= self.frame.capacity() {
            return;
        }
        let is_near = 3 * len >= self.total;
        let lent = is_near.then(|| self.memory.frame_buffer().try_acquire(self.total)).flatten();
        self.is_lent = lent.is_some();
        let room = len.max(2 * self.frame.capacity()).min(self.most);
        let mut larger = lent.unwrap_or_else(|| Vec::with_capacity(room));
        larger.extend_from_slice(&self.frame);
        self.memory.frame_buffer().release(mem::replace(&mut self.frame, larger));
    }

    /// Appends what has come of the payload; `false` if a text is no UTF-8.
    pub(crate) fn add(&mut self, masked: &[u8], mask: [u8; 4]) -> bool {
        let before = self.frame.len();
        self.make_room(before + masked.len());
        self.frame.extend_from_slice(masked);
        let is_ascii = unmask(&mut self.frame[before..], mask);
        if self.first != TEXT {
            return true;
        }
        if is_ascii && self.header + self.checked == before {
            self.checked += masked.len();
            return true;
        }
        let unchecked = &self.frame[self.header + self.checked..];
        match str::from_utf8(unchecked) {
            Ok(_) => self.checked += unchecked.len(),
            Err(error) => {
                self.checked += error.valid_up_to();
                // The rest of a character may still come.
                return error.error_len().is_none();
            }
        }
        true
    }

    /// The payload as far as it has come.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.frame[self.header..]
    }

    /// Makes the message, once all of it is there; an error for a text that ends within a character.
    pub(crate) fn finish(mut self) -> Result<Message, Disconnect> {
        debug_assert_eq!(self.frame.len(), self.total);
        if self.first == TEXT && self.header + self.checked < self.total {
            return Err(Disconnect::INVALID_TEXT);
        }
        if !self.is_lent {
            // Fragments announce themselves one by one, so there may be room for more of them.
            self.frame.shrink_to_fit();
        }
        Ok(Message::from_frame(mem::take(&mut self.frame), &self.memory))
    }
}

impl Drop for Assembler {
    fn drop(&mut self) {
        self.memory.frame_buffer().release(mem::take(&mut self.frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::BINARY;
    use crate::message::Encoding;

    /// A message of one frame with `length` bytes of payload, of which `there` have come.
    fn begun(memory: &Arc<MemoryBudget>, first: u8, length: usize, there: usize) -> Assembler {
        let mut assembler = Assembler::new(memory, first);
        assembler.announce(length, length, there);
        assembler
    }
    #[test]
    fn no_more_is_allocated_than_twice_what_has_come_and_at_the_end_what_is_there() {
        let memory = Arc::<MemoryBudget>::default();
        let payload = [7; 70_000];
        let mut assembler = begun(&memory, BINARY, payload.len(), 100);
        let mut come = 0;
        for part in payload.chunks(100) {
            assert!(assembler.add(part, [0; 4]));
            come += part.len();
            assert!(assembler.frame.capacity() <= 2 * (come + 10), "{come}");
        }
        assert_eq!(assembler.frame.capacity(), assembler.total);
        assert_eq!(assembler.finish(), Ok(Message::binary(payload)));
    }
    /// A longer header moves the payload, and the room for it doubles whatever the fragments announce.
    #[test]
    fn fragments_of_any_length_become_one_frame() {
        let memory = Arc::<MemoryBudget>::default();
        let payload: Vec<u8> = (0..70_000u32).map(|n| n as u8).collect();
        for length in [1, 2, 63, 125, 126, 2000, 30_000, 65_535, 65_536] {
            let mut assembler = Assembler::new(&memory, BINARY);
            let (mut come, mut grown, mut capacity) = (0, 0, 0);
            for fragment in payload.chunks(length) {
                come += fragment.len();
                assembler.announce(come, 70_000, fragment.len());
                assert!(assembler.add(fragment, [0; 4]));
                assert!(assembler.is_lent || assembler.frame.capacity() <= 2 * (come + 10));
                grown += u32::from(assembler.frame.capacity() != capacity);
                capacity = assembler.frame.capacity();
            }
            assert!(grown <= 18, "{grown} times for fragments of {length}");
            assert_eq!(assembler.finish(), Ok(Message::binary(&payload)), "{length}");
        }
    }
    #[test]
    fn a_message_keeps_no_room_for_fragments_that_did_not_come() {
        let memory = Arc::<MemoryBudget>::default();
        let _lent = memory.frame_buffer().try_acquire(60_000);
        let mut assembler = Assembler::new(&memory, TEXT);
        for come in (0..=4000).step_by(500) {
            assembler.announce(come, 60_000, 500);
            assert!(assembler.add(&[b'x'; 500][..if come == 0 { 0 } else { 500 }], [0; 4]));
        }
        assert!(assembler.frame.capacity() > assembler.total);
        let frame = assembler.finish().expect("a text").frame(Encoding::Plain).to_vec();
        assert_eq!(frame, Message::text("x".repeat(4000)).frame(Encoding::Plain));
    }
    #[test]
    fn the_frame_buffer_goes_back_from_a_message_that_outgrows_it() {
        let memory = Arc::<MemoryBudget>::default();
        let mut assembler = Assembler::new(&memory, BINARY);
        for come in [60_000, 200_000] {
            assembler.announce(come, 300_000, come);
            assert!(assembler.add(&vec![7; come - assembler.frame.len().min(60_000)], [0; 4]));
            assert_eq!(assembler.is_lent, come == 60_000);
        }
        assert!(memory.frame_buffer().try_acquire(60_000).is_some());
    }
    #[test]
    fn a_text_is_refused_with_the_first_part_that_cannot_be_one() {
        let memory = Arc::<MemoryBudget>::default();
        let text = "sch\u{f6}n \u{1f980}".as_bytes();
        for cut in 0..text.len() {
            let mut assembler = begun(&memory, TEXT, text.len(), 1);
            assert!(assembler.add(&text[..cut], [0; 4]) && assembler.add(&text[cut..], [0; 4]));
            assert_eq!(assembler.finish().expect("a text").as_bytes(), text);
        }
        let mut assembler = begun(&memory, TEXT, 100, 1);
        assert!(assembler.add(b"sch\xc3", [0; 4]));
        assert!(!assembler.add(b"n", [0; 4]));
        let mut assembler = begun(&memory, TEXT, 4, 1);
        assert!(assembler.add(b"sch\xc3", [0; 4]));
        assert_eq!(assembler.finish(), Err(Disconnect::INVALID_TEXT), "it ends within a character");
    }
    #[test]
    fn a_message_that_is_never_finished_gives_the_frame_buffer_back() {
        let memory = Arc::<MemoryBudget>::default();
        for _ in 0..2 {
            let early = begun(&memory, BINARY, 60_000, 10_000);
            assert!(early.frame.capacity() < 60_000, "hardly anything has come");
            let mut assembler = begun(&memory, BINARY, 60_000, 10_000);
            assert!(assembler.add(&[7; 30_000], [0; 4]));
            assert!(
                assembler.frame.capacity() > 60_000
                    && memory.frame_buffer().try_acquire(60_000).is_none()
            );
        }
        assert!(memory.frame_buffer().try_acquire(60_000).is_some());
    }
}
