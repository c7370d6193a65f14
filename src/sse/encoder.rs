//! Messages as server-sent events (the HTML standard, section 9.2), in bounded pieces.

use std::borrow::Cow;
use std::io;
use std::task::{Poll, ready};

use base64ct::{Base64, Encoding as _};

use crate::hub::since::{Begin, Missed};
use crate::hub::unsent::{Progress, Unsent};
use crate::label::label_end;
use crate::memory::budget::allocation;
use crate::message::Message;

/// Bytes of events that are written at once, about, and that one client's buffer holds at most.
const BATCH: usize = 16 * 1024;

/// Bytes of a binary message that are encoded at a time: a multiple of 3, so that the pieces of
/// base64 make one.
const PIECE: usize = 6 * 1024;

const _: () = assert!(PIECE % 3 == 0 && PIECE < BATCH);

/// What begins a line of a message.
const DATA: &[u8] = b"data: ";

/// The line ahead of a chunk, before the size is known: leading zeros are allowed (RFC 9112 7.1).
const CHUNK_SIZE: &[u8] = b"0000\r\n";

/// The last chunk and the end of the body (RFC 9112 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The longest chunk, one piece of an event, has a size of four digits: base64 is the longer
/// encoding, and what is not part of the payload takes less than 1 KiB.
const _: () = assert!(BATCH + PIECE / 3 * 4 + 1024 < 0x1_0000);

/// Turns the messages of a queue into events, and keeps what the stream has not taken of them.
///
/// A message stays in the queue until the last byte of its event is written.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// What is to be written, the first `at` bytes of it written.
    out: Vec<u8>,
    at: u32,
    /// The stream is a chunked body. Each event is a chunk of its own, or several: clients that
    /// hand on a chunk as it comes hand on an event as it comes.
    is_chunked: bool,
    /// How far the queue's first message is encoded, once a part of its event is written.
    begun: Option<Position>,
    /// The position that the peer was told last, or 0 if it is told none.
    last_position: u64,
    /// Whether each message begins with a label.
    has_labels: bool,
}

/// An offset in a message, and what the bytes before it mean for those behind.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    /// Bytes of the payload that are encoded.
    payload: usize,
    /// The last of them is the CR of a text: an LF behind it belongs to the same line end.
    after_cr: bool,
    /// The end of the event is encoded too.
    is_end: bool,
}

/// The event of a message, or a piece of it.
#[derive(Debug, Clone, Copy)]
struct Event {
    /// Where it ends in the buffer.
    end: usize,
    /// Where it ends in the message.
    position: Position,
    /// The position that the peer was told last, with this one.
    last_position: u64,
}

impl Encoder {
    /// Begins with a response and what its body begins with.
    pub(crate) fn new(first: Vec<u8>, is_chunked: bool) -> Self {
        Self { out: first, is_chunked, ..Self::default() }
    }

    /// Has the peer told positions, the first behind this one, and what it has missed before.
    pub(crate) fn number(&mut self, begin: Begin) {
        self.last_position = begin.position;
        if begin.missed != Missed::Nothing {
            self.say(gap(begin.missed, begin.position).as_bytes());
        }
    }

    /// Has the label of a binary message stand ahead of the base64 of its payload.
    pub(crate) fn split_labels(&mut self) {
        self.has_labels = true;
    }

    /// Tells a peer that comes back where it stands: it may lose its connection before a message has
    /// told it. Such a block is no event to browsers, which take the id from it.
    pub(crate) fn stand(&mut self, position: u64) {
        self.say(format!("id: {position}\n\n").as_bytes());
    }

    /// What has been said, as text.
    pub(crate) fn into_text(self) -> Cow<'static, str> {
        String::from_utf8(self.out).unwrap_or_default().into()
    }

    /// Adds the event of a gap, if messages before the one behind `position` were left out, and no
    /// event is half written; returns whether it did.
    pub(crate) fn say_gap(&mut self, position: u64) -> bool {
        let has_gap = self.begun.is_none() && self.last_position != position;
        if has_gap {
            self.say(gap(between(self.last_position, position), position).as_bytes());
            self.last_position = position;
        }
        has_gap
    }

    /// The memory that the buffer takes.
    pub(crate) fn size(&self) -> usize {
        if self.out.capacity() == 0 { 0 } else { allocation(self.out.capacity()) }
    }

    /// Whether nothing is left to write; gives the buffer back then.
    pub(crate) fn end_drain(&mut self) -> bool {
        let empty = self.at as usize == self.out.len();
        if empty {
            self.out = Vec::new();
            self.at = 0;
        }
        empty
    }

    /// Whether an event is half written, or waits to be.
    pub(crate) fn is_midway(&self) -> bool {
        self.begun.is_some() || (self.at as usize) < self.out.len()
    }

    /// Adds what is no message, if no event is half written.
    pub(crate) fn say(&mut self, text: &[u8]) {
        if self.begun.is_none() {
            let chunk = self.begin_chunk();
            self.out.extend_from_slice(text);
            self.end_chunk(chunk);
        }
    }

    /// Adds the last event, if there is one, and the end of the body.
    pub(crate) fn end(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.say(text);
        }
        if self.is_chunked && self.begun.is_none() {
            self.out.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Returns where the chunk begins.
    fn begin_chunk(&mut self) -> usize {
        if self.is_chunked {
            self.out.extend_from_slice(CHUNK_SIZE);
        }
        self.out.len()
    }

    /// Sets the size of the chunk that begins at `start`, which holds at least a byte: a chunk
    /// without any would end the body.
    fn end_chunk(&mut self, start: usize) {
        if !self.is_chunked {
            return;
        }
        let size = self.out.len() - start;
        debug_assert!((1..0x1_0000).contains(&size), "a chunk of {size} bytes");
        let digits = &mut self.out[start - CHUNK_SIZE.len()..start - 2];
        for (digit, shift) in digits.iter_mut().zip([12, 8, 4, 0]) {
            *digit = b"0123456789abcdef"[size >> shift & 0xf];
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Writes what is left of earlier events.
    pub(crate) fn poll_flush(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while (self.at as usize) < self.out.len() {
            match ready!(write(&self.out[self.at as usize..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                // The buffer is far shorter than 4 GiB.
                n => self.at += n as u32,
            }
        }
        self.out.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes a queue's messages as events; ready with how far that went.
    pub(crate) fn poll_write(
        &mut self,
        unsent: &Unsent<'_>,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<Progress>> {
        debug_assert_eq!(unsent.has_begun(), self.begun.is_some());
        ready!(self.poll_flush(&mut write))?;
        if self.begun.is_some_and(|position| position.is_end) {
            self.begun = None;
            return Poll::Ready(Ok(self.progress(1)));
        }
        let events = self.encode_all(unsent.messages(), unsent.positions());
        let written = match write(&self.out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        let whole = self.keep_rest(written, &events);
        // After a part was taken the queue asks again: only a stream that has just said that it is
        // full wakes the task.
        if written > 0 { Poll::Ready(Ok(self.progress(whole))) } else { Poll::Pending }
    }

    /// Tells the queue of whole messages, and whether the next one has begun.
    fn progress(&self, messages: usize) -> Progress {
        Progress { messages, head_written: self.begun.is_some().into(), control: 0 }
    }

    /// Encodes messages, the first of them perhaps from the middle on, as far as the buffer goes.
    ///
    /// A message that follows a gap has the event of the gap before its own.
    fn encode_all<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a Message>,
        mut positions: impl Iterator<Item = u64>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let (mut begun, mut last_position) = (self.begun, self.last_position);
        for message in messages {
            let at = positions.next().unwrap_or(0);
            let position = self.encode(message, begun.take(), (last_position, at));
            last_position = if at > 0 { at } else { last_position };
            events.push(Event { end: self.out.len(), position, last_position });
            if !position.is_end || self.out.len() >= BATCH {
                break;
            }
        }
        events
    }

    /// Keeps of the buffer what belongs to the event of which `written` bytes end in the middle,
    /// and forgets the events behind it; returns how many messages are written whole.
    fn keep_rest(&mut self, written: usize, events: &[Event]) -> usize {
        let is_whole = |event: &&Event| event.end <= written && event.position.is_end;
        let whole = events.iter().take_while(is_whole).count();
        let begins = events[..whole].last().map_or(0, |event| event.end);
        let has_begun = written > begins || whole == 0 && self.begun.is_some();
        self.begun = events.get(whole).filter(|_| has_begun).map(|event| event.position);
        let last = events[..whole + usize::from(self.begun.is_some())].last();
        self.last_position = last.map_or(self.last_position, |event| event.last_position);
        if self.begun.is_some() {
            // What follows it may still be dropped. Its rest waits in as much memory as it needs.
            self.out.truncate(events[whole].end);
            self.out.drain(..written);
            self.out.shrink_to_fit();
        } else {
            self.out.clear();
        }
        whole
    }

    /// Encodes a message, or the rest of one that has `begun`, as far as the buffer goes. `at` is its
    /// position, or 0; `last_position` is the position that the peer was told before.
    fn encode(
        &mut self,
        message: &Message,
        begun: Option<Position>,
        (last_position, at): (u64, u64),
    ) -> Position {
        let (is_text, payload) = (message.is_text(), message.as_bytes());
        let chunk = self.begin_chunk();
        let mut position = begun.unwrap_or_else(|| {
            if at > 0 && last_position + 1 != at {
                self.out.extend_from_slice(gap(between(last_position, at - 1), at - 1).as_bytes());
            }
            if at > 0 {
                self.out.extend_from_slice(format!("id: {at}\n").as_bytes());
            }
            if !is_text {
                self.out.extend_from_slice(b"event: binary\n");
            }
            self.out.extend_from_slice(DATA);
            let label = if self.has_labels && !is_text { label_end(payload) } else { None };
            if let Some(end) = label {
                self.out.extend_from_slice(&payload[..end]);
                self.out.extend_from_slice(DATA);
            }
            Position { payload: label.unwrap_or(0), ..Position::default() }
        });
        let mut rest = &payload[position.payload..];
        while self.out.len() < BATCH && !rest.is_empty() {
            rest = if is_text {
                text(rest, &mut position.after_cr, &mut self.out)
            } else {
                binary(rest, &mut self.out)
            };
        }
        position.payload = payload.len() - rest.len();
        position.is_end = rest.is_empty();
        if position.is_end {
            self.out.extend_from_slice(b"\n\n");
        }
        self.end_chunk(chunk);
        position
    }
}

/// Positions that lie further apart belong to different lives of a room, which begin anywhere.
const APART: u64 = 1 << 32;

/// What a peer has missed behind the position that it was told, up to another one.
fn between(last_position: u64, position: u64) -> Missed {
    match position.checked_sub(last_position) {
        Some(count) if count < APART => Missed::Messages(count),
        _ => Missed::Unknown,
    }
}

/// The event of a gap, and what it sets the peer's last event id to: the position before the next
/// message.
fn gap(missed: Missed, position: u64) -> String {
    format!("event: gap\nid: {position}\ndata: {missed}\n\n")
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
mod tests;
