//! A second reader of RFC 6455 and RFC 7692, written for simplicity: it reads a whole stream, without buffers.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Behind a compressed payload: the stored block that its sender left out (RFC 7692 7.2.2), and an
/// empty last one.
const TAIL: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// The meaning of a stream of client frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The whole messages: whether each is text, and its payload.
    pub messages: Vec<(bool, Vec<u8>)>,
    /// Payloads of the pings.
    pub pings: Vec<Vec<u8>>,
    /// The close codes that may end the connection: a frame can break several rules at once.
    pub ends: Vec<u16>,
}

/// The limits that apply to the stream.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub message: u64,
    pub fragments: usize,
}

struct Frame {
    first: u8,
    masked: bool,
    /// The announced length.
    length: u64,
    /// The bytes of the payload in the stream, unmasked.
    payload: Vec<u8>,
    /// Bytes of the frame in the stream.
    taken: usize,
}

impl Frame {
    fn is_whole(&self) -> bool {
        self.payload.len() as u64 == self.length
    }
}

/// The frame at the start of a stream, if its header is complete.
fn frame(stream: &[u8]) -> Option<Frame> {
    let (&first, &second) = (stream.first()?, stream.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(stream.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(stream.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let mut key = [0; 4];
    if masked {
        key.copy_from_slice(stream.get(at..at + 4)?);
        at += 4;
    }
    let come = (stream.len() - at).min(usize::try_from(length).unwrap_or(usize::MAX));
    let payload = stream[at..at + come].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k);
    Some(Frame { first, masked, length, payload: payload.collect(), taken: at + come })
}

/// Whether bytes can be the start of a text.
fn may_be_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Reads a stream to its end or to its first fault.
pub fn read(mut stream: &[u8], limits: Limits) -> Meaning {
    let mut meaning = Meaning::default();
    // The unfinished message: whether it is text, and its payload. Then its frames and length.
    let mut open: Option<(bool, Vec<u8>)> = None;
    let (mut fragments, mut announced) = (0, 0_u64);
    loop {
        let Some(frame) = frame(stream) else {
            meaning.ends = vec![1006];
            return meaning;
        };
        let (opcode, fin) = (frame.first & 0x0f, frame.first & 0x80 != 0);
        let control = opcode & 8 != 0;
        let mut faults = Vec::new();
        let broken = frame.first & 0x70 != 0
            || !frame.masked
            || matches!(opcode, 3..=7 | 11..)
            || (control && (!fin || frame.length > 125))
            || (opcode == 0 && open.is_none())
            || (matches!(opcode, 1 | 2) && open.is_some());
        if broken {
            faults.push(1002);
        }
        if !control {
            fragments += 1;
            announced = announced.saturating_add(frame.length);
            if fragments > limits.fragments {
                faults.push(1008);
            }
            if announced > limits.message {
                faults.push(1009);
            }
            let mut text = Vec::new();
            if let Some((_, before)) = &open {
                text.extend_from_slice(before);
            }
            text.extend_from_slice(&frame.payload);
            let is_text = opcode == 1 || open.as_ref().is_some_and(|open| open.0);
            let whole = fin && frame.is_whole();
            if is_text && (!may_be_text(&text) || (whole && std::str::from_utf8(&text).is_err())) {
                faults.push(1007);
            }
        }
        if !frame.is_whole() {
            // The stream ends inside this frame.
            faults.push(1006);
        }
        if !faults.is_empty() {
            meaning.ends = faults;
            return meaning;
        }
        stream = &stream[frame.taken..];
        match opcode {
            8 => {
                meaning.ends = close(&frame.payload);
                return meaning;
            }
            9 => meaning.pings.push(frame.payload),
            10 => {}
            _ => {
                let (_, payload) = open.get_or_insert((opcode == 1, Vec::new()));
                payload.extend_from_slice(&frame.payload);
                if fin {
                    meaning.messages.extend(open.take());
                    (fragments, announced) = (0, 0);
                }
            }
        }
    }
}

/// The close codes that may follow from the payload of a close frame (RFC 6455 7.4).
fn close(payload: &[u8]) -> Vec<u16> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return vec![if payload.is_empty() { 1005 } else { 1002 }];
    };
    let code = u16::from_be_bytes(*code);
    let mut ends = match code {
        1000..=1003 | 1007..=1011 | 3000..=4999 => vec![code],
        // Some readers refuse the codes that were registered later.
        1012..=1014 => vec![code, 1002],
        _ => vec![1002],
    };
    if std::str::from_utf8(reason).is_err() {
        ends = vec![1002, 1007];
    }
    ends
}

/// What a compressed payload stands for, at most `most` bytes, or the close codes of what is wrong
/// with it.
pub fn inflated(payload: &[u8], most: usize) -> Result<Vec<u8>, Vec<u16>> {
    // No payload may be that much longer than its message.
    let is_long = payload.len() > most + most / 16 + 64;
    let stream = [payload, &TAIL].concat();
    let (mut rest, mut all) = (&stream[..], Vec::new());
    // A stream may end inside the payload, and another one begin; at its end, nothing must follow.
    while !rest.is_empty() {
        let (mut state, mut out) = (Box::new(DecompressorOxide::new()), vec![0; most + 2]);
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, written) = decompress(&mut state, rest, &mut out, 0, flags);
        all.extend_from_slice(&out[..written]);
        rest = &rest[read..];
        if status != TINFLStatus::Done {
            let is_longer = all.len() > most;
            return Err(match status {
                TINFLStatus::HasMoreOutput => vec![1009],
                _ if is_long || is_longer => vec![1007, 1009],
                _ => vec![1007],
            });
        }
        if rest.len() == TAIL.len() {
            break;
        }
    }
    if is_long || all.len() > most { Err(vec![1009]) } else { Ok(all) }
}
