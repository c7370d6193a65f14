//! The label of a message: the line ahead of its payload that names its room, for a client that
//! hears several rooms.
//!
//! The line is the name of the room, percent-encoded as in a path, and a line feed. Of a message
//! that is for no room, as one for a user, the line is empty.

use std::borrow::Cow;

use crate::name::{NAME_BYTES_MAX, is_dots, is_name};
use crate::percent::{is_plain, percent_decode, percent_encode};

/// The longest label: each byte of a name takes three, and the line feed one.
pub(crate) const LABEL_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 1;

/// The label for a room; empty is no room.
pub(crate) fn label(room: &str) -> Vec<u8> {
    let mut label = Vec::with_capacity(label_bytes(room));
    percent_encode(&mut label, room);
    label.push(b'\n');
    label
}

/// Bytes of the label for a room.
pub(crate) fn label_bytes(room: &str) -> usize {
    1 + room.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum::<usize>()
}

/// Where the payload begins behind a label: behind the line feed that ends it.
pub(crate) fn label_end(payload: &[u8]) -> Option<usize> {
    let within = &payload[..payload.len().min(LABEL_BYTES_MAX)];
    within.iter().position(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The room that a label names, and what stands behind it; the room is empty for the label of no
/// room. `None` if there is no label: no line feed in time, or a line that is no name, or one that no
/// path has, `.` and `..`.
pub(crate) fn split_label(payload: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let (line, rest) = payload.split_at(label_end(payload)?);
    let line = std::str::from_utf8(&line[..line.len() - 1]).ok()?;
    let room = percent_decode(line)?;
    let is_room = room.is_empty() || (is_name(&room) && !is_dots(&room));
    is_room.then_some((room, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_made() {
        let longest = "\u{e9}".repeat(64);
        for room in ["news", "sensor/1", "a*", "caf\u{e9}", "", &longest] {
            let mut payload = label(room);
            assert_eq!(payload.len(), label_bytes(room), "{room}");
            assert!(payload.len() <= LABEL_BYTES_MAX);
            payload.extend_from_slice(b"two\nlines");
            let (named, rest) = split_label(&payload).expect(room);
            assert_eq!((&*named, rest), (room, &b"two\nlines"[..]));
        }
        assert_eq!(split_label(b"a/b\n"), Some(("a/b".into(), &b""[..])));
        assert_eq!(label(&longest).len(), LABEL_BYTES_MAX);
    }
    #[test]
    fn what_is_no_label_is_refused() {
        let late = [&[b'a'; LABEL_BYTES_MAX][..], b"\n"].concat();
        let long = [&[b'a'; 129][..], b"\n"].concat();
        for payload in
            [&b""[..], b"news", b"a%\n", b"a%ff\n", b"\xff\n", b"a\tb\n", b"%2e.\n", &late, &long]
        {
            assert_eq!(split_label(payload), None, "{payload:?}");
        }
    }
}
