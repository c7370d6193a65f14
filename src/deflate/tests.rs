//! Both ways together, and each against what the RFC says.

use fastrand::Rng;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::deflate::compressor::{Compressor, WINDOW_BITS};
use crate::deflate::inflater::{Flaw, Inflater};

/// Data of a kind that messages have: text, numbers, noise, repetitions near and far.
pub(crate) fn data(random: &mut Rng, len: usize) -> Vec<u8> {
    let kinds = [1u8, 2, 4, 26, 255];
    let symbols = kinds[random.usize(..kinds.len())];
    let mut data = Vec::with_capacity(len + 600);
    while data.len() < len {
        if !data.is_empty() && random.u8(..) < 80 {
            let from = random.usize(..data.len());
            let to = (from + random.usize(..600)).min(data.len());
            data.extend_from_within(from..to);
        } else {
            data.extend((0..random.usize(..20)).map(|_| b'a'.wrapping_add(random.u8(..symbols))));
        }
    }
    data.truncate(len);
    data
}
/// What `payload` inflates to, at most `most` bytes.
fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, Flaw> {
    let (mut out, mut largest) = (b"before".to_vec(), 0);
    let result = Inflater::new().inflate(payload, most, &mut out, |len| largest = len);
    assert!(largest <= 6 + most + 1 && out.starts_with(b"before"));
    result.map(|()| out.split_off(6))
}
#[test]
fn what_is_compressed_inflates_to_the_same() {
    let (random, mut compressor) = (&mut Rng::with_seed(1), Compressor::new());
    for round in 0..600 {
        let longest = [10, 300, 5000, 70_000][if round % 40 == 0 { 3 } else { round % 3 }];
        let len = random.usize(..longest);
        let data = data(random, len);
        let mut out = Vec::new();
        assert!(compressor.compress(&data, &mut out, usize::MAX / 2));
        assert!(inflate(&out, data.len()).as_ref() == Ok(&data), "round {round}");
        if !data.is_empty() {
            assert_eq!(inflate(&out, data.len() - 1), Err(Flaw::TooLong), "round {round}");
        }
        // Any part of it is no whole stream.
        let cut = random.usize(..out.len());
        let part = inflate(&out[..cut], data.len());
        assert!(part.as_ref() != Ok(&data), "round {round}: {cut} of {}", out.len());
    }
}
#[test]
fn a_part_of_a_stream_is_corrupt() {
    let mut out = Vec::new();
    assert!(Compressor::new().compress(b"the same words, the same words", &mut out, 100));
    for cut in 1..out.len() {
        assert_eq!(inflate(&out[..cut], 100), Err(Flaw::Corrupt), "{cut} of {}", out.len());
    }
    // A stored block of 100 bytes (RFC 1951 3.2.4), of which three are there.
    assert_eq!(inflate(b"\x00\x64\x00\x9b\xffabc", 1000), Err(Flaw::Corrupt));
}

#[test]
fn a_message_refers_to_nothing_outside_it() {
    let mut compressor = Compressor::new();
    let mut alone = Vec::new();
    assert!(Compressor::new().compress(b"the same words, twice", &mut alone, 100));
    for _ in 0..10 {
        let mut out = Vec::new();
        assert!(compressor.compress(b"the same words, twice", &mut out, 100));
        assert_eq!(out, alone);
    }
}
/// A peer with a window of that size inflates it, in a ring of as many bytes.
#[test]
fn no_repetition_is_farther_away_than_the_window() {
    let random = &mut Rng::with_seed(4);
    for len in [100, 4095, 4096, 4097, 9000, 70_000] {
        let noise: Vec<u8> = (0..5000).map(|_| random.u8(..)).collect();
        let data: Vec<u8> = noise.iter().cycle().take(len).copied().collect();
        let data = [&data[..], &self::data(random, len)].concat();
        let mut payload = Vec::new();
        assert!(Compressor::new().compress(&data, &mut payload, usize::MAX / 2));
        payload.extend([0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
        let (mut ring, mut heard, mut rest) = (vec![0; 1 << WINDOW_BITS], Vec::new(), &payload[..]);
        let mut peer = DecompressorOxide::new();
        loop {
            let at = heard.len() % ring.len();
            let (status, read, written) = decompress(&mut peer, rest, &mut ring, at, 0);
            heard.extend_from_slice(&ring[at..at + written]);
            rest = &rest[read..];
            if status != TINFLStatus::HasMoreOutput {
                assert_eq!(status, TINFLStatus::Done);
                break;
            }
        }
        assert!(heard == data, "{len}");
    }
}
/// Stored blocks, blocks of either codes, and noise in front of text.
#[test]
fn no_piece_needs_more_room_than_there_is() {
    let (random, mut compressor) = (&mut Rng::with_seed(5), Compressor::new());
    for len in (0..200).chain([4000, 4096, 5000, 8192, 20_000]) {
        let mut data: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        data.extend_from_slice(&b"text, ".repeat(len / 100));
        let mut out = Vec::new();
        assert!(compressor.compress(&data, &mut out, usize::MAX / 2), "{len}");
        assert!(inflate(&out, data.len()) == Ok(data), "{len}");
    }
}
#[test]
fn json_becomes_a_third_and_noise_is_given_up() {
    let row = |n: u32| format!(r#"{{"id":{n},"name":"item {}","price":{}.5}},"#, n % 7, n * 13);
    let json: String = (0..200).map(row).collect();
    let (mut compressor, mut out) = (Compressor::new(), Vec::new());
    assert!(compressor.compress(json.as_bytes(), &mut out, json.len()));
    assert!(out.len() * 3 < json.len(), "{} of {}", out.len(), json.len());
    let random = &mut Rng::with_seed(1);
    let noise: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
    out.clear();
    assert!(!compressor.compress(&noise, &mut out, noise.len()));
    assert!(!compressor.compress(b"", &mut Vec::new(), 0));
}
/// The examples of RFC 7692 7.2.3.
#[test]
fn the_examples_of_the_rfc_are_understood() {
    for payload in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        // The last stream, without the byte that should follow.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflate(payload, 5), Ok(b"Hello".to_vec()), "{payload:x?}");
    }
    assert_eq!(inflate(&[0], 0), Ok(Vec::new()), "an empty message");
}
#[test]
fn what_is_no_stream_is_corrupt_and_a_bomb_too_long() {
    // Repetitions of what is not there: the second example of the RFC that needs its context.
    let needs_context = [0xf2, 0x00, 0x11, 0x00, 0x00];
    for payload in [&[][..], &[0xff], &[7, 7, 7], b"Hello", &needs_context] {
        assert_eq!(inflate(payload, 1000), Err(Flaw::Corrupt), "{payload:x?}");
    }
    let mut bomb = Vec::new();
    assert!(Compressor::new().compress(&[0; 1 << 20], &mut bomb, 1 << 20));
    assert!(bomb.len() < 10_000);
    assert_eq!(inflate(&bomb, 65_536), Err(Flaw::TooLong));
    assert_eq!(inflate(&bomb, 1 << 20), Ok(vec![0; 1 << 20]));
}
/// No byte of a peer panics or spins.
#[test]
fn any_bytes_are_inflated_or_refused() {
    let random = &mut Rng::with_seed(2);
    let mut compressor = Compressor::new();
    for _ in 0..3000 {
        let len = random.usize(..400);
        let data = data(random, len);
        let mut payload = Vec::new();
        assert!(compressor.compress(&data, &mut payload, usize::MAX / 2));
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..payload.len());
            payload[at] ^= 1 << random.u32(..8);
        }
        drop(inflate(&payload, 1000));
    }
}
