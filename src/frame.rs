//! The frame that carries a message: its header and its payload (RFC 6455 5.2).

use std::ops::Deref;

/// The longest header of an unmasked frame: two bytes and a 64-bit length (RFC 6455 5.2).
pub(crate) const FRAME_HEADER_MAX: usize = 10;

/// FIN and the opcode of a text frame (RFC 6455 5.2).
pub(crate) const TEXT: u8 = 0x81;

/// FIN and the opcode of a binary frame (RFC 6455 5.2).
pub(crate) const BINARY: u8 = 0x82;

/// RSV1 in the first byte of a frame: its message is compressed (RFC 7692 6).
pub(crate) const COMPRESSED: u8 = 0x40;

/// The unmasked header of a message's one frame (RFC 6455 5.2).
pub(crate) fn header(first: u8, len: usize) -> Header {
    let mut bytes = [0; FRAME_HEADER_MAX];
    bytes[0] = first;
    let used = match len {
        0..=125 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
            FRAME_HEADER_MAX
        }
    };
    Header { bytes, used }
}

/// A header, as many bytes as it takes.
pub(crate) struct Header {
    bytes: [u8; FRAME_HEADER_MAX],
    used: usize,
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// Where the payload begins in an unmasked frame.
pub(crate) fn payload_at(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => FRAME_HEADER_MAX,
        _ => 2,
    }
}
