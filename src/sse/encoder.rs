//! Messages as server-sent events (the HTML standard, section 9.2), in bounded pieces.

use std::io;
use std::io::IoSlice;
use std::task::{Poll, ready};

use base64ct::{Base64, Encoding as _};

use crate::frame::payload;
use crate::memory::budget::allocation;

/// Bytes of events that are written at once, about, and that one client's buffer holds at most.
const BATCH: usize = 16 * 1024;

/// Bytes of a binary message that are encoded at a time: a multiple of 3, so that the pieces of
/// base64 make one.
const PIECE: usize = 6 * 1024;

const _: () = assert!(PIECE % 3 == 0 && PIECE < BATCH);

/// What begins a line of a message.
const DATA: &[u8] = b"data: ";

/// Turns the frames of a queue into events, and keeps what the stream has not taken of them.
///
/// The queue is told that bytes of a frame are written when what they became is, and of a frame
/// that has begun to be written at least one, so that it keeps the frame and counts it rightly.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// What is to be written, the first `at` bytes of it written.
    out: Vec<u8>,
    at: usize,
    /// Bytes of the frame that `out` ends in or with, of which the queue is still to be told.
    owed: usize,
    /// Where in a message the frame goes on; `None` between two.
    middle: Option<Middle>,
}

/// What a frame, or a piece of one, became.
#[derive(Debug, Clone, Copy)]
struct Event {
    /// Where it ends in the buffer.
    end: usize,
    /// Bytes of the frame that it stands for.
    taken: usize,
    /// Where the message goes on behind it.
    middle: Option<Middle>,
}

/// Where a message goes on that was begun.
#[derive(Debug, Clone, Copy)]
enum Middle {
    /// In its text, behind a CR or not: an LF there belongs to it.
    Text { after_cr: bool },
    /// In its bytes.
    Binary,
}

impl Encoder {
    /// Begins with something that is no message.
    pub(crate) fn new(first: Vec<u8>) -> Self {
        Self { out: first, ..Self::default() }
    }

    /// The memory that the buffer takes.
    pub(crate) fn size(&self) -> usize {
        if self.out.capacity() == 0 { 0 } else { allocation(self.out.capacity()) }
    }

    /// Whether nothing is left to write; gives the buffer back then.
    pub(crate) fn settle(&mut self) -> bool {
        let empty = self.at == self.out.len();
        if empty {
            self.out = Vec::new();
            self.at = 0;
        }
        empty
    }

    /// Whether an event is half written, or waits to be.
    pub(crate) fn is_midway(&self) -> bool {
        self.owed > 0 || self.middle.is_some() || self.at < self.out.len()
    }

    /// Adds what is no message, if no event is half written.
    pub(crate) fn say(&mut self, text: &[u8]) {
        if self.owed == 0 && self.middle.is_none() {
            self.out.extend_from_slice(text);
        }
    }

    /// Writes what is left of earlier events.
    pub(crate) fn poll_flush(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            match ready!(write(&self.out[self.at..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.at += n,
            }
        }
        self.out.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes frames of a queue as events, the first of them perhaps the rest of one; ready with
    /// how many of their bytes are written.
    pub(crate) fn poll_write(
        &mut self,
        frames: &[IoSlice<'_>],
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(&mut write))?;
        if self.owed > 0 {
            return Poll::Ready(Ok(std::mem::take(&mut self.owed)));
        }
        let begun = self.middle.is_some();
        let events = self.encode_all(frames);
        let written = match write(&self.out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => Some(written?),
            Poll::Pending => None,
        };
        let told = self.keep_rest(written.unwrap_or(0), &events, begun);
        if told > 0 {
            return Poll::Ready(Ok(told));
        }
        if written.is_some() {
            // It took a part of what the queue knows to have begun. Only a stream that has just
            // said that it is full wakes us, so it is asked until it does.
            ready!(self.poll_flush(&mut write))?;
            return Poll::Ready(Ok(std::mem::take(&mut self.owed)));
        }
        Poll::Pending
    }

    /// Encodes frames, the first of them perhaps the rest of one, as far as the buffer goes.
    fn encode_all(&mut self, frames: &[IoSlice<'_>]) -> Vec<Event> {
        let mut events = Vec::new();
        for frame in frames {
            let taken = self.encode(frame);
            events.push(Event { end: self.out.len(), taken, middle: self.middle });
            if taken < frame.len() || self.out.len() >= BATCH {
                break;
            }
        }
        events
    }

    /// Keeps of the buffer what belongs to the event of which `written` bytes end in the middle, and
    /// forgets the events behind it; returns what the queue is to be told.
    ///
    /// `begun` is whether the queue knows that the first one has been begun.
    fn keep_rest(&mut self, written: usize, events: &[Event], begun: bool) -> usize {
        let whole = events.iter().take_while(|event| event.end <= written).count();
        let told = events[..whole].iter().map(|event| event.taken).sum();
        let begins = events[..whole].last().map_or(0, |event| event.end);
        let Some(event) = events.get(whole) else {
            self.out.clear();
            return told;
        };
        let is_known = whole == 0 && begun;
        if written == begins && !is_known {
            self.out.clear();
            self.middle = None;
            return told;
        }
        // It is half written: what follows it may still be dropped. Its rest waits in as much memory
        // as it needs.
        self.out.truncate(event.end);
        self.out.drain(..written);
        self.out.shrink_to_fit();
        self.middle = event.middle;
        let telling = usize::from(!is_known);
        self.owed = event.taken - telling;
        told + telling
    }

    /// Encodes a frame, or the rest of one, as far as the buffer goes; returns how far.
    fn encode(&mut self, frame: &[u8]) -> usize {
        let (middle, mut rest) = match self.middle {
            Some(middle) => (middle, frame),
            None => {
                let (is_text, payload) = payload(frame);
                if !is_text {
                    self.out.extend_from_slice(b"event: binary\n");
                }
                self.out.extend_from_slice(DATA);
                (if is_text { Middle::Text { after_cr: false } } else { Middle::Binary }, payload)
            }
        };
        self.middle = Some(middle);
        while self.out.len() < BATCH && !rest.is_empty() {
            rest = match &mut self.middle {
                Some(Middle::Text { after_cr }) => text(rest, after_cr, &mut self.out),
                _ => binary(rest, &mut self.out),
            };
        }
        if rest.is_empty() {
            self.out.extend_from_slice(b"\n\n");
            self.middle = None;
        }
        frame.len() - rest.len()
    }
}

/// Encodes a line of text and the line end behind it, or a part of it; returns the rest.
///
/// An event has one `data` field for each line, and CR, LF and CR LF all end one.
fn text<'a>(mut text: &'a [u8], after_cr: &mut bool, out: &mut Vec<u8>) -> &'a [u8] {
    if std::mem::take(after_cr) && text.starts_with(b"\n") {
        text = &text[1..];
    }
    let piece = &text[..text.len().min(PIECE)];
    let end = piece.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let Some(end) = end else {
        out.extend_from_slice(piece);
        return &text[piece.len()..];
    };
    out.extend_from_slice(&text[..end]);
    out.push(b'\n');
    out.extend_from_slice(DATA);
    *after_cr = text[end] == b'\r';
    &text[end + 1..]
}

/// Encodes a piece of binary; returns the rest.
fn binary<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
    out.extend_from_slice(Base64::encode_string(piece).as_bytes());
    rest
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::message::Message;

    /// The events of messages, written in one go.
    fn events(messages: &[Message]) -> String {
        let mut out = Vec::new();
        let mut encoder = Encoder::default();
        let mut queue: VecDeque<&[u8]> = messages.iter().map(Message::frame).collect();
        while !queue.is_empty() {
            let frames: Vec<_> = queue.iter().map(|frame| IoSlice::new(frame)).collect();
            let told = encoder.poll_write(&frames, |bytes| {
                out.extend_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            });
            let Poll::Ready(Ok(told)) = told else { panic!("everything is taken") };
            advance(&mut queue, told);
        }
        String::from_utf8(out).expect("text")
    }
    fn advance(queue: &mut VecDeque<&[u8]>, mut told: usize) {
        while told > 0 {
            let frame = queue.pop_front().expect("no more than there is");
            if told < frame.len() {
                queue.push_front(&frame[told..]);
                return;
            }
            told -= frame.len();
        }
    }
    #[test]
    fn each_line_of_a_text_is_a_line_of_data() {
        for (text, event) in [
            ("hello", "data: hello\n\n"),
            ("", "data: \n\n"),
            (" a", "data:  a\n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n"),
            ("\n\r\n\r\r", "data: \ndata: \ndata: \ndata: \ndata: \n\n"),
            ("data: x\nevent: y", "data: data: x\ndata: event: y\n\n"),
        ] {
            assert_eq!(events(&[text.into()]), event, "{text:?}");
        }
    }
    #[test]
    fn bytes_are_base64_under_a_name() {
        let long = vec![7u8; 100_001];
        for bytes in [&b""[..], b"\0\xff", &long] {
            let event = events(&[bytes.into()]);
            let encoded = Base64::encode_string(bytes);
            assert_eq!(event, format!("event: binary\ndata: {encoded}\n\n"));
        }
    }
    /// However a stream takes the events, they come out the same, a frame that has begun is never
    /// told as untouched, no buffer grows with a message that encodes badly, and nobody waits for a
    /// stream that has not said that it is full.
    #[test]
    fn streams_that_take_little_make_no_difference() {
        let newlines = "\r\n".repeat(30_000);
        let messages: Vec<Message> = vec![
            "one\ntwo".into(),
            vec![1u8; 20_000].into(),
            newlines.as_str().into(),
            "".into(),
            Message::binary([]),
            "x".repeat(60_000).into(),
            "last\r".into(),
        ];
        let expected = events(&messages);
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut out = Vec::new();
            let mut encoder = Encoder::default();
            let mut queue: VecDeque<&[u8]> = messages.iter().map(Message::frame).collect();
            while !queue.is_empty() {
                let frames: Vec<_> = queue.iter().map(|frame| IoSlice::new(frame)).collect();
                let before = out.len();
                let mut full = false;
                let told = encoder.poll_write(&frames, |bytes| {
                    assert!(!full, "seed {seed}: asked again before it can have room");
                    let most = if random.bool() { 7 } else { 9_000 };
                    let n = random.usize(..=bytes.len().min(most));
                    out.extend_from_slice(&bytes[..n]);
                    full = n == 0;
                    if full { Poll::Pending } else { Poll::Ready(Ok(n)) }
                });
                assert!(encoder.out.len() < 2 * BATCH, "{}", encoder.out.len());
                match told {
                    Poll::Ready(told) => advance(&mut queue, told.expect("no error")),
                    // What is untouched may be dropped by the queue.
                    Poll::Pending => {
                        assert!(full, "seed {seed}: nothing is armed");
                        let untouched = messages.iter().any(|m| {
                            Some(m.frame().len()) == queue.front().map(|f| f.len())
                                && std::ptr::eq(m.frame(), queue[0])
                        });
                        assert!(!untouched || out.len() == before, "seed {seed}");
                    }
                }
            }
            while encoder
                .poll_flush(|bytes| {
                    out.extend_from_slice(bytes);
                    Poll::Ready(Ok(bytes.len()))
                })
                .is_pending()
            {}
            assert!(out == expected.as_bytes(), "seed {seed}");
        }
    }
    /// Many short events are encoded at once, and of those one is half written.
    #[test]
    fn what_waits_takes_no_more_memory_than_it_needs() {
        let mut encoder = Encoder::default();
        let message = Message::from("x".repeat(100));
        let frames = [(); 64].map(|()| IoSlice::new(message.frame()));
        let mut taken = 0;
        let told = encoder.poll_write(&frames, |_| {
            taken += 1;
            if taken == 1 { Poll::Ready(Ok(1_000)) } else { Poll::Pending }
        });
        // Nine whole frames of 102 bytes, and the first byte of the tenth.
        assert!(matches!(told, Poll::Ready(Ok(919))));
        assert!(!encoder.settle(), "the rest of the tenth event");
        assert!(encoder.size() < allocation(108), "{} bytes", encoder.size());
    }
    #[test]
    fn a_stream_that_takes_nothing_has_failed() {
        let message = Message::from("x".repeat(60_000));
        let mut encoder = Encoder::default();
        let write = |encoder: &mut Encoder, at: usize, takes_all: bool| {
            let frames = [IoSlice::new(&message.frame()[at..])];
            encoder
                .poll_write(&frames, |out| Poll::Ready(Ok(if takes_all { out.len() } else { 0 })))
        };
        let failed = |told| match told {
            Poll::Ready(Err(error)) => io::Error::kind(&error) == io::ErrorKind::WriteZero,
            _ => false,
        };
        assert!(failed(write(&mut Encoder::default(), 0, false)), "where a message begins");
        let Poll::Ready(Ok(at)) = write(&mut encoder, 0, true) else { panic!("it takes all") };
        assert!(failed(write(&mut encoder, at, false)), "where it goes on");
    }
    #[test]
    fn a_word_of_our_own_never_falls_into_an_event() {
        let mut encoder = Encoder::new(b"head".to_vec());
        encoder.say(b": comment\n\n");
        let message = Message::from("hello");
        let frames = [IoSlice::new(message.frame())];
        let mut out = Vec::new();
        let mut take = |most: usize, encoder: &mut Encoder| {
            encoder.poll_write(&frames, |bytes| {
                let n = bytes.len().min(most);
                out.extend_from_slice(&bytes[..n]);
                Poll::Ready(Ok(n))
            })
        };
        assert!(matches!(take(100, &mut encoder), Poll::Ready(Ok(7))));
        assert!(!encoder.is_midway());
        let mut taken = 0;
        let half = encoder.poll_write(&frames, |bytes| {
            taken += 1;
            if taken == 1 { Poll::Ready(Ok(bytes.len() / 2)) } else { Poll::Pending }
        });
        assert!(matches!(half, Poll::Ready(Ok(1))), "begun, so the queue must keep it");
        assert!(encoder.is_midway());
        encoder.say(b": comment\n\n");
        assert!(!encoder.out.ends_with(b": comment\n\n"));
        assert!(out.starts_with(b"head: comment\n\ndata: hello\n\n"));
    }
}
