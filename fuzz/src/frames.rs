//! Fuzzes a sequence of mostly well-formed frames, so that the fuzzer need not find masks and
//! lengths. The checks are those of `connection`; the second reader there is compared with
//! tungstenite's here.

use std::io::{self, Read, Write};

use async_tungstenite::tungstenite::Error;
use async_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use super::connection::{LIMITS, check};
use super::reference::{Limits, read};

pub fn run(bytes: &[u8]) {
    let Some((&[flags, seed], mut rest)) = bytes.split_first_chunk::<2>() else { return };
    let mut frames = Vec::new();
    while let Some((&[kind, shape], after)) = rest.split_first_chunk::<2>() {
        // The low bits choose an opcode, the high one FIN. An odd kind has a reserved bit.
        let opcode = [0, 1, 2, 8, 9, 10, 1, 0][usize::from(kind & 7)];
        let odd = if kind & 0x78 == 0x78 { 0x40 | kind >> 4 } else { 0 };
        let length = match shape {
            short @ ..192 => usize::from(short & 31),
            long => usize::from(long - 190) * 5,
        };
        let (payload, after) = after.split_at(length.min(after.len()));
        // A control frame is whole and short, except one of an odd kind.
        let control = opcode >= 8;
        let payload =
            if control && odd == 0 { &payload[..payload.len().min(125)] } else { payload };
        let fin = if control && odd == 0 { 0x80 } else { kind & 0x80 };
        push_frame(&mut frames, fin | opcode | odd, payload, [shape, kind, 0x5a, 0xff]);
        rest = after;
    }
    agree(&frames);
    check(flags, seed, &frames);
}

/// Appends a frame of a client that begins with `first`, masked with `key`.
pub fn push_frame(frames: &mut Vec<u8>, first: u8, payload: &[u8], key: [u8; 4]) {
    frames.push(first);
    match payload.len() {
        length @ ..126 => frames.push(0x80 | length as u8),
        length => {
            frames.push(0x80 | 126);
            frames.extend((length as u16).to_be_bytes());
        }
    }
    frames.extend(key);
    frames.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// A stream for tungstenite, which reads what is there and writes to nowhere.
struct Tape<'a>(&'a [u8]);

impl Read for Tape<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares what the second reader makes of frames with what tungstenite makes of them, which does
/// not count fragments.
pub fn agree(frames: &[u8]) {
    let meaning = read(frames, Limits { fragments: usize::MAX, ..LIMITS });
    let limits = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message as usize))
        .max_frame_size(None);
    let mut tungstenite = WebSocketContext::new(Role::Server, Some(limits));
    let (mut tape, mut messages, mut pings) = (Tape(frames), Vec::new(), Vec::new());
    let end = loop {
        match tungstenite.read(&mut tape) {
            Ok(Message::Text(text)) => messages.push((true, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => messages.push((false, bytes.to_vec())),
            Ok(Message::Ping(payload)) => pings.push(payload.to_vec()),
            Ok(Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(close)) => break close.map_or(1005, |close| close.code.into()),
            Err(Error::Utf8(_)) => break 1007,
            Err(Error::Capacity(_)) => break 1009,
            Err(Error::Protocol(error)) if error.to_string().contains("without closing") => {
                break 1006;
            }
            Err(_) => break 1002,
        }
    };
    assert_eq!((&messages, &pings), (&meaning.messages, &meaning.pings), "tungstenite's first");
    assert!(meaning.ends.contains(&end), "tungstenite ends with {end}, none of {meaning:?}");
}
