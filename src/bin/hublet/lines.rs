//! Messages as lines of text, in both directions.

use base64ct::{Base64, Encoding as _};
use hublet::Message;

/// Bytes that stay allocated for the next line.
const KEEP: usize = 32 * 1024;

/// Splits a stream of bytes into lines. Holds one line at most, and none that is too long.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The longest line, in bytes without its end.
    max: usize,
    /// The bytes of the current line so far; empty once it is too long.
    partial: Vec<u8>,
    /// Length of the current line so far, in bytes.
    len: u64,
    /// Lines before the current one.
    number: u64,
}

/// A line that exceeds the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// The number of the line, from 1.
    pub(crate) number: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

impl Lines {
    #[cfg(test)]
    fn new(max: usize) -> Self {
        Self::resume(max, (0, 0), Vec::new())
    }

    /// Goes on in a line that another process has begun.
    pub(crate) fn resume(max: usize, (number, len): (u64, u64), partial: Vec<u8>) -> Self {
        Self { max, partial, len, number }
    }

    /// The lines so far, the length of the current one, and what is held of it.
    pub(crate) fn parts(&self) -> (u64, u64, &[u8]) {
        (self.number, self.len, &self.partial)
    }

    /// Removes bytes from the front of `bytes` up to the end of a line; `None` if all are removed
    /// and the line continues.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Result<Message, TooLong>> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        self.hold(&bytes[..end.unwrap_or(bytes.len())]);
        *bytes = end.map_or(&[], |end| &bytes[end + 1..]);
        end.map(|_| self.finish())
    }

    /// The last line, if the stream ended without a line break.
    pub(crate) fn last(&mut self) -> Option<Result<Message, TooLong>> {
        (self.len > 0).then(|| self.finish())
    }

    fn hold(&mut self, part: &[u8]) {
        self.len += part.len() as u64;
        // One byte more, since a CR before the LF is not part of the line.
        if self.len <= self.max as u64 + 1 {
            self.partial.extend_from_slice(part);
        } else {
            self.partial = Vec::new();
        }
    }

    fn finish(&mut self) -> Result<Message, TooLong> {
        self.number += 1;
        let len = std::mem::take(&mut self.len);
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let message = if self.partial.len() as u64 != len || line.len() > self.max {
            Err(TooLong { number: self.number, len })
        } else {
            Ok(message(line))
        };
        self.partial.clear();
        self.partial.shrink_to(KEEP);
        message
    }
}

/// The message of a line.
pub(crate) fn message(line: &[u8]) -> Message {
    match std::str::from_utf8(line) {
        Ok(text) => Message::text(text),
        Err(_) => Message::binary(line),
    }
}

/// Appends a message as exactly one line, so that no message looks like two.
///
/// A line break at the end of a text is removed, and every other becomes a space. A binary message
/// is written in base64, as in server-sent events.
pub(crate) fn append(message: &Message, to: &mut Vec<u8>) {
    let bytes = message.as_bytes();
    if message.is_text() {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let is_break = |byte| matches!(byte, b'\n' | b'\r');
        to.extend(text.iter().map(|&byte| if is_break(byte) { b' ' } else { byte }));
    } else {
        to.extend_from_slice(Base64::encode_string(bytes).as_bytes());
    }
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes.
    fn cut(input: &[u8], max: usize, step: usize) -> Vec<Result<Message, TooLong>> {
        let mut lines = Lines::new(max);
        let mut cut = Vec::new();
        for mut piece in input.chunks(step) {
            while let Some(line) = lines.next(&mut piece) {
                cut.push(line);
            }
            assert!(lines.partial.len() <= max + 1, "it holds more than a line");
        }
        cut.extend(lines.last());
        cut
    }

    #[test]
    fn lines_do_not_depend_on_how_the_stream_is_split() {
        let input =
            b"one\n\ntwo\r\n12345678\r\n123456789\n12345678\n\xff\xfe\r\nlong long line\nend";
        let text = |text: &str| Ok(Message::text(text));
        let expected = [
            text("one"),
            text(""),
            text("two"),
            text("12345678"),
            Err(TooLong { number: 5, len: 9 }),
            text("12345678"),
            Ok(Message::binary(b"\xff\xfe")),
            Err(TooLong { number: 8, len: 14 }),
            text("end"),
        ];
        for step in 1..=input.len() {
            assert_eq!(cut(input, 8, step), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn stream_that_ends_with_a_line_break_has_no_further_line() {
        assert_eq!(cut(b"one\n", 8, 64), [Ok(Message::text("one"))]);
        assert_eq!(cut(b"", 8, 64), []);
    }

    #[test]
    fn endless_line_takes_no_memory() {
        let mut lines = Lines::new(100);
        let endless = vec![b'x'; 1024];
        for _ in 0..1024 {
            assert!(lines.next(&mut &endless[..]).is_none());
            assert_eq!(lines.partial.capacity(), 0);
        }
        let end = lines.next(&mut &b"\n"[..]);
        assert_eq!(end, Some(Err(TooLong { number: 1, len: 1024 * 1024 })));
        assert_eq!(lines.next(&mut &b"next\n"[..]), Some(Ok(Message::text("next"))));
    }

    #[test]
    fn every_message_is_one_line() {
        for (message, line) in [
            (Message::text("plain"), "plain\n"),
            (Message::text(""), "\n"),
            (Message::text("{\n  \"a\": 1\r\n}\r\n"), "{   \"a\": 1  }\n"),
            (Message::text("ends twice\n\n"), "ends twice \n"),
            (Message::binary(b"a\nb"), "YQpi\n"),
            (Message::binary(b""), "\n"),
        ] {
            let mut written = b"before\n".to_vec();
            append(&message, &mut written);
            assert_eq!(String::from_utf8_lossy(&written), format!("before\n{line}"));
        }
    }
}
