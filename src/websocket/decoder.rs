//! The scan: where in the stream of frames the peer's bytes are, and what becomes of them.
//!
//! It follows frame headers, holds a message to its limits before its bytes have come, takes the
//! masks off, and cuts what it hands on to tungstenite, so that nothing there gathers more than has
//! been sent.

use std::str;
use std::sync::Arc;

use crate::disconnect::{CLOSE, Disconnect, is_sendable};
use crate::frame::{BINARY, FRAME_HEADER_MAX, TEXT};
use crate::memory::budget::MemoryBudget;
use crate::memory::read_buffers::READ_BUFFER_BYTES;
use crate::message::Message;
use crate::time::timer_list::Tick;
use crate::time::timers::Timers;

/// The longest piece of a frame whose end is not there, in bytes of payload. Tungstenite's buffer
/// keeps the length of the longest until the message is whole.
const CHUNK: usize = 4096;

const _: () = assert!(CHUNK > CONTROL_MAX as usize && READ_BUFFER_BYTES <= u16::MAX as usize);

/// The longest frame that tungstenite sees, in bytes of payload: one that came with one read.
pub(crate) const FRAME_MAX: usize = READ_BUFFER_BYTES;

/// The longest header of a masked frame.
const HEADER_MAX: usize = FRAME_HEADER_MAX + 4;

/// The longest payload of a control frame (RFC 6455 5.5).
const CONTROL_MAX: u32 = 125;

/// FIN and the opcode of a pong (RFC 6455 5.2).
const PONG: u8 = 0x8a;

const FIN: u8 = 0x80;

const CONTROL: u8 = 0x08;

const MASKED: u8 = 0x80;

const LENGTH: u8 = 0x7f;

/// What a peer has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message, counted in the hub's account.
    Message(Message),
    /// A ping, which tungstenite answers when it is asked again, or a pong.
    Control,
    Close(Disconnect),
}

/// Follows the frames of a stream (RFC 6455 5.2) and cuts long ones into pieces.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// How far the bytes that were read have been handed on; the wire moves it.
    pub(crate) at: u16,
    /// The longest message, in bytes of payload; at most 2^30, as every limit is.
    pub(crate) message_max: u32,
    /// The most frames of a message.
    fragments_max: u32,
    /// Whether there is a ceiling: what comes behind a message is handed on apart, since the next one
    /// may have to wait, and tungstenite's buffer is kept small.
    pub(crate) parts: bool,
    /// The header that is being collected.
    header: [u8; HEADER_MAX],
    /// How much of it is there. 0 between a header and the next.
    have: u8,
    /// A header of ours on its way to tungstenite: two bytes and a 16-bit length.
    out: [u8; 4],
    out_at: u8,
    out_len: u8,
    /// Payload left of the piece.
    piece: u16,
    /// Payload left of the frame behind the piece.
    rest: u32,
    /// The first byte of the next piece's header, with the FIN of the peer's frame.
    next_first: u8,
    /// The masking key of the frame, turned to its next byte.
    mask: [u8; 4],
    /// Frames of the message so far; 0 between messages.
    fragments: u32,
    /// Payload of the message so far, as announced.
    message: u32,
    /// Whether the frame now is the last of its message.
    last: bool,
    /// When the message began that is not finished; set when a poll ends in the middle of one.
    pub(crate) began: Option<Tick>,
}

/// What one step of handing on came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Bytes taken from the peer's.
    pub(crate) taken: usize,
    /// Bytes given to tungstenite.
    pub(crate) given: usize,
    /// The rule that the peer broke behind them.
    pub(crate) fault: Option<Disconnect>,
}

impl Decoder {
    pub(crate) fn new(message_max: u32, fragments_max: u32) -> Self {
        Self {
            at: 0,
            message_max,
            fragments_max,
            parts: false,
            header: [0; HEADER_MAX],
            have: 0,
            out: [0; 4],
            out_at: 0,
            out_len: 0,
            piece: 0,
            rest: 0,
            next_first: 0,
            mask: [0; 4],
            fragments: 0,
            message: 0,
            last: false,
            began: None,
        }
    }

    /// Takes a message, a pong or a close that lies at the start of `from` in one frame, if it is one
    /// that tungstenite would take; returns how long the frame is as well. Between two messages only.
    ///
    /// Anything else stays what it says, for [`hand_on`](Self::hand_on) and tungstenite to judge.
    pub(crate) fn take_whole(
        &self,
        from: &mut [u8],
        memory: &Arc<MemoryBudget>,
    ) -> Option<(Event, usize)> {
        let (first, header, length) = self.frame_at(from)?;
        let frame = from.get_mut(..header + length)?;
        let (head, payload) = frame.split_at_mut(header);
        // The key stands last in a header. One of zeros says the same of what lies there now.
        let is_ascii = unmask(payload, std::mem::take(head.last_chunk_mut()?));
        let said = match first {
            CLOSE => Event::Close(reason(payload)?),
            PONG => Event::Control,
            TEXT if !is_ascii && str::from_utf8(payload).is_err() => return None,
            _ => Event::Message(Message::encode_with(memory, first, payload)),
        };
        Some((said, frame.len()))
    }

    /// Begins a message of which the header lies at the start of `from`, in one frame, if it breaks no
    /// rule by what it announces; returns the first byte of its frame, the length of its header and of
    /// its payload, which is to be [taken](Self::take_part). Between two messages only.
    pub(crate) fn begin_parts(&mut self, from: &[u8]) -> Option<(u8, usize, usize)> {
        let (first, header, length) = self.frame_at(from)?;
        if first & CONTROL != 0 {
            return None;
        }
        (self.fragments, self.last, self.message, self.rest) =
            (1, true, length as u32, length as u32);
        // Of a text that was found to be none the mask is off already, and zeros stand here.
        self.mask = *from[..header].last_chunk()?;
        Some((first, header, length))
    }

    /// The first byte of a frame at the start of `from`, the length of its header and of its payload, if
    /// it is one that may be taken without tungstenite.
    fn frame_at(&self, from: &[u8]) -> Option<(u8, usize, usize)> {
        debug_assert!(self.is_between());
        let (first, second) = (*from.first()?, *from.get(1)?);
        let most = match first {
            TEXT | BINARY => self.message_max,
            CLOSE | PONG => CONTROL_MAX,
            _ => return None,
        };
        let header = usize::from(header_len(second));
        if second & MASKED == 0 || from.len() < header {
            return None;
        }
        let length = payload_len(from);
        (length <= u64::from(most)).then_some((first, header, length as usize))
    }

    /// Forgets a message of which parts were taken.
    pub(crate) fn abandon(&mut self) {
        self.rest = 0;
        self.end_frame();
    }

    /// Takes `there` bytes of payload, or what is left of it; returns how many, and their mask.
    pub(crate) fn take_part(&mut self, there: usize) -> (usize, [u8; 4]) {
        let taken = there.min(self.rest as usize);
        let mask = self.mask;
        self.mask = turned(mask, taken);
        self.rest -= taken as u32;
        if self.rest == 0 {
            self.end_frame();
        }
        (taken, mask)
    }

    /// Moves bytes on until one side has no more, or to the first fault.
    pub(crate) fn hand_on(&mut self, mut from: &[u8], mut into: &mut [u8]) -> Handed {
        let (from_len, into_len) = (from.len(), into.len());
        let mut fault = None;
        loop {
            let (taken, given) = if self.out_at < self.out_len {
                let header = &self.out[usize::from(self.out_at)..usize::from(self.out_len)];
                let n = header.len().min(into.len());
                into[..n].copy_from_slice(&header[..n]);
                self.out_at += n as u8;
                (0, n)
            } else if self.piece > 0 {
                let n = from.len().min(into.len()).min(usize::from(self.piece));
                into[..n].copy_from_slice(&from[..n]);
                unmask(&mut into[..n], self.mask);
                self.mask = turned(self.mask, n);
                self.piece -= n as u16;
                (n, n)
            } else if self.rest > 0 {
                if from.is_empty() {
                    break;
                }
                self.begin_piece(from.len());
                continue;
            } else {
                if self.parts && self.last && into.len() < into_len {
                    break;
                }
                self.end_frame();
                match self.collect_header(from) {
                    Ok(taken) => (taken, 0),
                    Err(broken) => {
                        fault = Some(broken);
                        break;
                    }
                }
            };
            if taken == 0 && given == 0 {
                break;
            }
            from = &from[taken..];
            into = &mut into[given..];
        }
        Handed { taken: from_len - from.len(), given: into_len - into.len(), fault }
    }

    /// Collects header bytes; begins the frame once its header is whole.
    fn collect_header(&mut self, from: &[u8]) -> Result<usize, Disconnect> {
        let mut taken = 0;
        while taken < from.len() {
            self.header[usize::from(self.have)] = from[taken];
            self.have += 1;
            taken += 1;
            if self.have >= 2 && self.have == header_len(self.header[1]) {
                self.begin_frame()?;
                break;
            }
        }
        Ok(taken)
    }

    fn begin_frame(&mut self) -> Result<(), Disconnect> {
        let [first, second, ..] = self.header;
        let header = &self.header[..usize::from(std::mem::take(&mut self.have))];
        let length = payload_len(header);
        let (true, Some(key)) = (second & MASKED != 0, header.last_chunk()) else {
            // RFC 6455 5.1.
            let code = Disconnect::PROTOCOL_ERROR.code();
            return Err(Disconnect::new(code, "frame without a mask"));
        };
        self.mask = *key;
        if first & CONTROL == 0 {
            self.last = first & FIN != 0;
            self.fragments += 1;
            if self.fragments > self.fragments_max {
                let max = self.fragments_max;
                let code = Disconnect::POLICY.code();
                return Err(Disconnect::new(code, format!("more than {max} fragments")));
            }
            // What is refused does not count as announced: nothing of it is gathered.
            let message = u64::from(self.message).saturating_add(length);
            if message > u64::from(self.message_max) {
                let max = self.message_max;
                let code = Disconnect::TOO_LONG.code();
                return Err(Disconnect::new(code, format!("message longer than {max} bytes")));
            }
            self.message = message as u32;
        } else if length > u64::from(CONTROL_MAX) {
            // RFC 6455 5.5. Refused before any of it is read.
            return Err(Disconnect::new(
                Disconnect::PROTOCOL_ERROR.code(),
                "control frame longer than 125 bytes",
            ));
        }
        self.rest = length as u32;
        self.next_first = first;
        if first & CONTROL != 0 || length == 0 {
            // A control frame is not cut (RFC 6455 5.5), and an empty one has nothing to wait for.
            self.begin_piece(length as usize);
        }
        Ok(())
    }

    /// Writes the header of the next piece of a frame, of which `there` bytes have come: the first
    /// keeps the peer's opcode and reserved bits, the others continue it, the last has the peer's
    /// FIN.
    fn begin_piece(&mut self, there: usize) {
        let rest = self.rest as usize;
        let is_whole = there >= rest && rest <= FRAME_MAX && !self.parts;
        let most = if is_whole { rest } else { CHUNK };
        self.piece = rest.min(most).min(there) as u16;
        self.rest -= u32::from(self.piece);
        let fin = if self.rest == 0 { self.next_first & FIN } else { 0 };
        self.out[0] = fin | (self.next_first & !FIN);
        (self.out_at, self.out_len) = if self.piece <= 125 {
            self.out[1] = self.piece as u8;
            (0, 2)
        } else {
            self.out[1] = 126;
            self.out[2..].copy_from_slice(&self.piece.to_be_bytes());
            (0, 4)
        };
        // Pieces behind the first continue it: opcode 0, no reserved bits.
        self.next_first &= FIN;
    }

    /// Between two frames: forgets the message if it is whole.
    fn end_frame(&mut self) {
        if self.last {
            self.last = false;
            self.fragments = 0;
            self.message = 0;
            self.began = None;
        }
    }

    /// How long the message will become that has begun and is not whole: as its frame says, or as
    /// long as one may be if more frames follow.
    pub(crate) fn announced(&self) -> usize {
        match (self.fragments, self.last) {
            (0, _) => 0,
            (_, false) => self.message_max as usize,
            (_, true) if self.rest > 0 || self.piece > 0 => self.message as usize,
            (_, true) => 0,
        }
    }

    /// Whether no frame and no message has begun.
    pub(crate) fn is_between(&self) -> bool {
        let handed_on = self.out_at == self.out_len && self.piece == 0 && self.rest == 0;
        handed_on && self.have == 0 && self.fragments == 0
    }

    /// Remembers when the message began, if a poll ends in the middle of one.
    pub(crate) fn settle(&mut self, timers: &Timers) {
        let whole = self.last && self.have == 0 && self.piece == 0 && self.rest == 0;
        if whole || self.is_between() {
            self.began = None;
        } else if self.began.is_none() {
            self.began = Some(timers.now());
        }
    }
}

/// What a close frame says, if it may (RFC 6455 5.5.1 and 7.4).
fn reason(payload: &[u8]) -> Option<Disconnect> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return payload.is_empty().then_some(Disconnect::NO_STATUS);
    };
    let code = u16::from_be_bytes(*code);
    let reason = str::from_utf8(reason).ok()?;
    is_sendable(code).then(|| Disconnect::new(code, reason.to_owned()))
}

/// The length of a header, which its second byte tells.
fn header_len(second: u8) -> u8 {
    let length = match second & LENGTH {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & MASKED != 0 { 4 } else { 0 }
}

/// The length of the payload that a header announces.
fn payload_len(header: &[u8]) -> u64 {
    match header[1] & LENGTH {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[2..10]);
            u64::from_be_bytes(bytes)
        }
        length => u64::from(length),
    }
}

/// A masking key behind `bytes` of the payload.
fn turned(mask: [u8; 4], bytes: usize) -> [u8; 4] {
    u32::from_le_bytes(mask).rotate_right(8 * (bytes % 4) as u32).to_le_bytes()
}

/// Takes the mask off a payload where it lies (RFC 6455 5.3), 16 bytes at a time; returns whether
/// it is ASCII, and so needs no other look to be UTF-8.
pub(crate) fn unmask(payload: &mut [u8], [a, b, c, d]: [u8; 4]) -> bool {
    let keys = [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];
    let wide = u128::from_ne_bytes(keys);
    let mut seen = 0;
    let mut blocks = payload.chunks_exact_mut(16);
    for block in blocks.by_ref() {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(block);
        let plain = u128::from_ne_bytes(bytes) ^ wide;
        seen |= plain;
        block.copy_from_slice(&plain.to_ne_bytes());
    }
    let mut last = 0;
    for (byte, key) in blocks.into_remainder().iter_mut().zip(keys) {
        *byte ^= key;
        last |= *byte;
    }
    seen & u128::from_ne_bytes([0x80; 16]) == 0 && last < 0x80
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A masked frame with a mask of 1, 2, 3, 4.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(MASKED | len as u8),
            len @ 126..=0xffff => {
                frame.push(MASKED | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(MASKED | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }
    /// What tungstenite would get for `from`, handed over in steps of `taken` and `given` bytes.
    fn hand_on(
        scan: &mut Decoder,
        from: &[u8],
        step: (usize, usize),
    ) -> Result<Vec<u8>, Disconnect> {
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let mut into = vec![0; step.1];
            let end = from.len().min(at + step.0);
            let handed = scan.hand_on(&from[at..end], &mut into);
            out.extend_from_slice(&into[..handed.given]);
            at += handed.taken;
            if handed == Handed::default() && at == from.len() {
                return Ok(out);
            }
            if let Some(fault) = handed.fault {
                return Err(fault);
            }
        }
    }
    /// Takes unmasked frames apart: for each its first byte and payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (length, after) = match bytes[1] & LENGTH {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                length => (usize::from(length), 2),
            };
            assert_eq!(bytes[1] & MASKED, 0);
            frames.push((bytes[0], bytes[after..after + length].to_vec()));
            bytes = &bytes[after + length..];
        }
        frames
    }
    #[test]
    fn a_mask_comes_off_every_byte_and_one_that_is_not_ascii_is_seen() {
        for len in 0..50 {
            for odd in 0..=len {
                let mut plain = vec![b'x'; len];
                plain.iter_mut().skip(odd).take(1).for_each(|byte| *byte = 0x80);
                let mut masked = frame(0x81, &plain).split_off(6);
                assert_eq!(unmask(&mut masked, [1, 2, 3, 4]), odd == len, "{odd} of {len}");
                assert_eq!(masked, plain);
            }
        }
    }
    #[test]
    fn frames_come_through_whole_and_long_ones_in_pieces() {
        let long: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let mut stream = frame(0x81, b"hello");
        stream.extend(frame(0x82, &[]));
        stream.extend(frame(0x02, &long));
        stream.extend(frame(0x89, b"ping"));
        stream.extend(frame(0x80, &long[..4096]));
        for step in [(1, 1), (7, 3), (3, 1000), (stream.len(), 256), (stream.len(), 65536)] {
            let mut scan = Decoder::new(65536, 1024);
            let out = hand_on(&mut scan, &stream, step).expect("within every limit");
            // What a peer sent, put together again: the opcode, the payload, the last FIN.
            let mut whole: Vec<(u8, Vec<u8>, bool)> = Vec::new();
            for (first, payload) in frames(&out) {
                // What is there with its end is handed on as it is.
                assert!(
                    payload.len() <= if step.0 == stream.len() { 5000 } else { step.0.max(125) }
                );
                let open = whole.iter_mut().rfind(|(opcode, _, fin)| !fin && opcode & CONTROL == 0);
                match (first & 0x0f, open) {
                    (0, Some(message)) => {
                        message.1.extend(payload);
                        message.2 = first & FIN != 0;
                    }
                    (opcode, _) => whole.push((opcode, payload, first & FIN != 0)),
                }
            }
            let both = [&long[..], &long[..4096]].concat();
            let expected = [
                (1, b"hello".to_vec(), true),
                (2, Vec::new(), true),
                (2, both, true),
                (9, b"ping".to_vec(), true),
            ];
            assert!(whole == expected, "{step:?}");
        }
    }
    #[test]
    fn a_frame_that_is_there_is_handed_on_whole_and_under_a_ceiling_in_pieces() {
        let payload: Vec<u8> = (0..FRAME_MAX).map(|n| (n % 251) as u8).collect();
        for (len, ceiling, pieces) in
            [(5000, false, 1), (5000, true, 2), (FRAME_MAX, false, 1), (FRAME_MAX, true, 8)]
        {
            let mut scan = Decoder::new(65536, 1024);
            scan.parts = ceiling;
            let stream = frame(0x82, &payload[..len]);
            let out = hand_on(&mut scan, &stream, (stream.len(), 777)).expect("fine");
            let frames = frames(&out);
            assert_eq!(frames.len(), pieces, "{len} bytes, ceiling: {ceiling}");
            let whole: Vec<u8> = frames.into_iter().flat_map(|(_, payload)| payload).collect();
            assert!(whole == payload[..len]);
        }
    }
    #[test]
    fn a_frame_is_handed_on_as_it_comes() {
        let mut scan = Decoder::new(65536, 1024);
        let stream = frame(0x81, b"hello world");
        let out = hand_on(&mut scan, &stream[..9], (99, 99)).expect("fine");
        assert_eq!(frames(&out), [(0x01, b"hel".to_vec())]);
        let out = hand_on(&mut scan, &stream[9..], (99, 99)).expect("fine");
        assert_eq!(frames(&out), [(0x80, b"lo world".to_vec())]);
    }
    #[test]
    fn what_comes_behind_a_message_can_be_handed_on_apart() {
        let stream = [frame(0x81, b"one"), frame(0x81, b"two")].concat();
        let mut scan = Decoder::new(65536, 1024);
        scan.parts = true;
        let mut into = [0; 99];
        let first = scan.hand_on(&stream, &mut into);
        assert_eq!((first.taken, first.given), (stream.len() / 2, 2 + 3));
        assert_eq!(scan.announced(), 0, "the second has not begun");
        let out = hand_on(&mut scan, &stream[first.taken..], (99, 99)).expect("fine");
        assert_eq!(frames(&out), [(0x81, b"two".to_vec())]);
    }
    #[test]
    fn reserved_bits_and_opcodes_reach_tungstenite() {
        let mut scan = Decoder::new(65536, 1024);
        let out = hand_on(&mut scan, &frame(0xf3, &[0; 5000]), (5000, 9999)).expect("passes");
        assert_eq!(out[0], 0x73, "the first piece has the opcode and the reserved bits");
    }
    #[test]
    fn fragments_are_counted_empty_ones_too_and_each_message_anew() {
        let mut scan = Decoder::new(65536, 3);
        let mut stream = frame(0x01, b"");
        stream.extend(frame(0x00, b""));
        stream.extend(frame(0x8a, b""));
        stream.extend(frame(0x80, b""));
        hand_on(&mut scan, &stream, (9, 9)).expect("three fragments");
        hand_on(&mut scan, &stream, (9, 9)).expect("three more of another message");
        let mut stream = frame(0x01, b"");
        stream.extend([frame(0x00, b""), frame(0x00, b""), frame(0x00, b"")].concat());
        let fault = hand_on(&mut scan, &stream, (9, 9)).expect_err("a fourth");
        assert_eq!(fault.code(), 1008);
    }
    #[test]
    fn what_a_header_announces_is_refused_before_it_comes() {
        for (header, code) in [
            (&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], 1009),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1009),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], 1009),
            (&[0x89, 0xfe, 0, 126], 1002),
            (&[0x88, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 1002),
            (&[0x82, 5], 1002),
        ] {
            let mut scan = Decoder::new(65536, 1024);
            let stream = [header, &[0; 4]].concat();
            let fault = hand_on(&mut scan, &stream, (99, 99)).expect_err("announces too much");
            assert_eq!(scan.announced(), 0, "nothing is set aside for it");
            assert_eq!(fault.code(), code, "{header:?}");
        }
        // The limit holds for a message, however it is cut.
        let mut scan = Decoder::new(10, 1024);
        let stream = [frame(0x02, &[0; 6]), frame(0x80, &[0; 5])].concat();
        assert_eq!(hand_on(&mut scan, &stream, (99, 99)).expect_err("11 bytes").code(), 1009);
    }
    #[test]
    fn what_came_before_a_fault_is_handed_on() {
        let mut scan = Decoder::new(10, 1024);
        let stream = [frame(0x81, b"hello"), frame(0x82, &[0; 11])].concat();
        let handed = scan.hand_on(&stream, &mut [0; 99]);
        assert_eq!((handed.given, handed.fault.map(|fault| fault.code())), (2 + 5, Some(1009)));
    }
    #[test]
    fn a_message_is_timed_from_its_first_byte_to_its_last() {
        let (mut scan, timers) = (Decoder::new(65536, 1024), Timers::new());
        let stream = frame(0x81, b"hello");
        hand_on(&mut scan, &stream[..1], (9, 9)).expect("fine");
        scan.settle(&timers);
        let began = scan.began.expect("a byte of a header begins a message");
        hand_on(&mut scan, &stream[1..8], (9, 9)).expect("fine");
        scan.settle(&timers);
        assert_eq!(scan.began, Some(began), "more bytes do not start it anew");
        hand_on(&mut scan, &stream[8..], (9, 9)).expect("fine");
        scan.settle(&timers);
        assert_eq!(scan.began, None);
        hand_on(&mut scan, &frame(0x01, b"first"), (99, 99)).expect("fine");
        scan.settle(&timers);
        assert!(scan.began.is_some(), "a message that awaits its next fragment is not finished");
        hand_on(&mut scan, &frame(0x89, b"ping"), (99, 99)).expect("fine");
        scan.settle(&timers);
        assert!(scan.began.is_some(), "a control frame between does not finish it");
    }
}
