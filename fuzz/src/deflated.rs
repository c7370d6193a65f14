//! Fuzzes what clients send compressed: whole messages and fragments with control frames between
//! them, corrupt payloads and bombs. The same messages uncompressed tell what must come of them:
//! the second reader says it, and tungstenite's reader agrees with it.

use miniz_oxide::deflate::compress_to_vec;

use super::connection::{LIMITS, check_deflating};
use super::frames::{agree, push_frame};
use super::reference::{inflated, read};

/// Bytes of a bomb at most.
const BOMB_MAX: usize = 16 * 1024;

/// The mask of every frame.
const KEY: [u8; 4] = [1, 0x80, 0x5a, 0xff];

pub fn run(bytes: &[u8]) {
    let Some((&[flags, seed], mut rest)) = bytes.split_first_chunk::<2>() else { return };
    // What the client sends, and what means the same without compression.
    let (mut sent, mut plain) = (Vec::new(), Vec::new());
    let mut fault = None;
    while let (None, Some((&[kind, shape, way], after))) = (&fault, rest.split_first_chunk::<3>()) {
        let (data, after) = after.split_at(usize::from(shape & 63).min(after.len()));
        rest = after;
        let opcode = 1 + (kind & 1);
        if kind & 14 == 0 {
            push_frame(&mut sent, 0x80 | opcode, data, KEY);
            push_frame(&mut plain, 0x80 | opcode, data, KEY);
            continue;
        }
        let payload = payload(data, kind, way);
        let inflated = inflated(&payload, LIMITS.message as usize);
        fault = match &inflated {
            Ok(text) if opcode == 1 && std::str::from_utf8(text).is_err() => Some(vec![1007]),
            Ok(_) => None,
            Err(codes) => Some(codes.clone()),
        };
        // A message of several fragments, and a ping or a pong between them.
        let fragments = 1 + usize::from(way >> 5) % LIMITS.fragments;
        let whole = inflated.unwrap_or_default();
        for n in 0..fragments {
            let part = |of: &[u8]| {
                let at = |n: usize| of.len() * n / fragments;
                of[at(n)..at(n + 1)].to_vec()
            };
            let fin = if n + 1 == fragments { 0x80 } else { 0 };
            let first = if n == 0 { opcode } else { 0 };
            let rsv1 = if n == 0 { 0x40 } else { 0 };
            push_frame(&mut sent, fin | rsv1 | first, &part(&payload), KEY);
            if fault.is_none() {
                push_frame(&mut plain, fin | first, &part(&whole), KEY);
            }
            if kind & 16 != 0 && fin == 0 {
                let control = if kind & 32 == 0 { 0x89 } else { 0x8a };
                push_frame(&mut sent, control, &[n as u8], KEY);
                push_frame(&mut plain, control, &[n as u8], KEY);
            }
        }
    }
    if fault.is_none() && flags & 128 != 0 {
        push_frame(&mut sent, 0x88, &[3, 0xe8], KEY);
        push_frame(&mut plain, 0x88, &[3, 0xe8], KEY);
    }
    agree(&plain);
    let mut meaning = read(&plain, LIMITS);
    // A plain message may be at fault before it.
    if let (Some(codes), [1006]) = (fault, &meaning.ends[..]) {
        meaning.ends = codes;
    }
    check_deflating(1 + usize::from(flags & 63), flags, seed, &sent, &meaning);
}

/// The payload of a compressed message: of data, of a bomb, of anything, or with a wrong byte.
fn payload(data: &[u8], kind: u8, way: u8) -> Vec<u8> {
    let level = way & 7;
    let of = |data: &[u8]| {
        // A stream that ends, without the byte that may follow it.
        let mut payload = compress_to_vec(data, level);
        if way & 8 != 0 {
            payload.push(0);
        }
        payload
    };
    match kind >> 1 & 7 {
        1 => data.to_vec(),
        2 => of(&vec![data.first().copied().unwrap_or(0); BOMB_MAX >> (way & 15)]),
        3 => {
            let mut payload = of(data);
            let at = usize::from(data.first().copied().unwrap_or(0)) % payload.len();
            payload[at] ^= 1 << (way & 7);
            payload
        }
        4 => of(&data.repeat(1 + usize::from(way & 15))),
        5 => {
            // Two streams, one behind the other.
            [of(data), of(data)].concat()
        }
        _ => of(data),
    }
}
