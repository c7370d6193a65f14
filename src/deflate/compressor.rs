//! The compressor: a message as one deflate stream that refers to nothing outside it (RFC 1951).
//!
//! It finds repetitions greedily, with one look for each place, in a window of 4 KiB. Each block has
//! the Huffman codes that make it shortest. Nothing is cleared between two messages, so a short
//! message is cheap.

use std::mem;

use crate::deflate::bits::BitWriter;
use crate::deflate::huffman::{Codes, DynamicCodes, FIXED_DISTANCES, FIXED_LITERALS};

/// The distance of a repetition at most. Python's `websockets` offers 12 bits by default, so one
/// frame serves every client; on JSON a window of 32 KiB saves less than 4 %.
const WINDOW: usize = 1 << WINDOW_BITS;

/// The window as the negotiation names it (RFC 7692 7.1.2).
pub(crate) const WINDOW_BITS: u8 = 12;

/// Bits of a hash: 4,096 places, 16 KiB.
const HASH_BITS: u32 = 12;

/// Bytes that are hashed, and so the shortest repetition that is found. A repetition of three bytes
/// hardly pays.
const MATCH_MIN: usize = 4;

/// The longest repetition that has a code (RFC 1951 3.2.5).
const MATCH_MAX: usize = 258;

/// Literals and repetitions of a block at most: 16 KiB of them, the codes of about 16 KiB of JSON.
const TOKENS_MAX: usize = 4096;

/// Misses in a row after which the search begins to skip bytes, as a power of two: data that cannot
/// be compressed is passed over in a fraction of the time.
const MISSES_BITS: u32 = 6;

/// The symbol that ends a block (RFC 1951 3.2.5).
const END: usize = 256;

/// What a thread compresses with: 36 KiB, nothing of which outlives a message but its memory.
#[derive(Debug)]
pub(crate) struct Compressor {
    /// For each hash the place of its newest bytes, counted from the first message on. A place before
    /// the message's own is from an earlier message, and stands for nothing.
    places: Vec<u32>,
    /// The place of the first byte of the message.
    base: u32,
    /// The literals and repetitions of the block.
    tokens: Vec<Token>,
    /// How often the block has each symbol.
    literals: [u32; 286],
    distances: [u32; 30],
}

/// A literal, or a repetition: the distance in the upper half, above the length.
#[derive(Debug, Clone, Copy)]
struct Token(u32);

impl Token {
    fn literal(byte: u8) -> Self {
        Self(byte.into())
    }

    fn repetition(length: usize, distance: usize) -> Self {
        Self((distance as u32) << 16 | length as u32)
    }

    fn length(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn distance(self) -> usize {
        (self.0 >> 16) as usize
    }
}

impl Compressor {
    pub(crate) fn new() -> Self {
        Self {
            places: vec![0; 1 << HASH_BITS],
            base: 1,
            tokens: Vec::with_capacity(TOKENS_MAX),
            literals: [0; 286],
            distances: [0; 30],
        }
    }

    /// Appends `input` to `out` as the payload of a compressed message (RFC 7692 7.2.1): up to a sync
    /// flush, whose last four bytes are left out. `false` once that has `less_than` bytes, with a
    /// part of it in `out`.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>, less_than: usize) -> bool {
        let mut bits = BitWriter::new(out, less_than);
        let base = self.begin(input.len());
        let (mut at, mut misses) = (0, 0);
        while at < input.len() && bits.is_short() {
            let step = match self.find(input, at, base) {
                Some((length, distance)) => {
                    misses = 0;
                    self.add_repetition(length, distance);
                    // Two of the places inside it, for what repeats a part of it; more hardly find more.
                    self.enter(input, at + 1, base);
                    self.enter(input, at + length - 1, base);
                    length
                }
                None => {
                    let step = (1 + (misses >> MISSES_BITS)).min(input.len() - at);
                    misses += 1;
                    input[at..at + step].iter().for_each(|&byte| self.add_literal(byte));
                    step
                }
            };
            at += step;
            // A step of a miss has at most as many literals as are left.
            if self.tokens.len() >= TOKENS_MAX / 2 {
                self.end_block(&mut bits);
            }
        }
        self.end_block(&mut bits);
        bits.sync_flush();
        bits.is_short()
    }

    /// Lets the places begin anew with one of the next messages.
    #[cfg(test)]
    pub(crate) fn wrap_soon(&mut self) {
        self.base = u32::MAX - 100;
    }

    /// Begins a message: its places lie behind those of all earlier messages, so that none of these is
    /// taken for its own. Returns the place of its first byte.
    fn begin(&mut self, length: usize) -> u32 {
        let length = length as u32;
        if self.base.checked_add(length).is_none() {
            self.places.fill(0);
            self.base = 1;
        }
        let base = self.base;
        self.base += length;
        self.tokens.clear();
        self.literals = [0; 286];
        self.distances = [0; 30];
        base
    }

    /// Finds the longest repetition at `at` of what was there last with the same hash.
    fn find(&mut self, input: &[u8], at: usize, base: u32) -> Option<(usize, usize)> {
        let here = input[at..].first_chunk::<MATCH_MIN>()?;
        let place = mem::replace(&mut self.places[hash(*here)], base + at as u32);
        let then = place.checked_sub(base)? as usize;
        let distance = at - then;
        if distance > WINDOW || input[then..].first_chunk() != Some(here) {
            return None;
        }
        let most = (input.len() - at).min(MATCH_MAX);
        Some((matching(&input[then..], &input[at..at + most]), distance))
    }

    /// Notes a place that no repetition is looked for at.
    fn enter(&mut self, input: &[u8], at: usize, base: u32) {
        if let Some(here) = input[at..].first_chunk() {
            self.places[hash(*here)] = base + at as u32;
        }
    }

    fn add_literal(&mut self, byte: u8) {
        self.literals[usize::from(byte)] += 1;
        self.tokens.push(Token::literal(byte));
    }

    fn add_repetition(&mut self, length: usize, distance: usize) {
        self.literals[length_code(length).0] += 1;
        self.distances[distance_code(distance).0] += 1;
        self.tokens.push(Token::repetition(length, distance));
    }

    /// Writes the block with its own codes or with the fixed ones, whichever is shorter.
    fn end_block(&mut self, bits: &mut BitWriter<'_>) {
        if self.tokens.is_empty() {
            return;
        }
        self.literals[END] = 1;
        let own = DynamicCodes::new(&self.literals, &self.distances);
        let fixed = FIXED_LITERALS.cost(&self.literals) + FIXED_DISTANCES.cost(&self.distances);
        if own.cost(&self.literals, &self.distances) < fixed {
            // Not the last block, of dynamic codes (RFC 1951 3.2.3).
            bits.put(0b100, 3);
            own.write(bits);
            self.write_tokens(bits, &own.literals, &own.distances);
        } else {
            // Of fixed codes.
            bits.put(0b010, 3);
            self.write_tokens(bits, &FIXED_LITERALS, &FIXED_DISTANCES);
        }
        self.tokens.clear();
        self.literals = [0; 286];
        self.distances = [0; 30];
    }

    fn write_tokens(&self, bits: &mut BitWriter<'_>, literals: &Codes, distances: &Codes) {
        for token in &self.tokens {
            let (length, distance) = (token.length(), token.distance());
            if distance == 0 {
                literals.write(bits, length);
                continue;
            }
            let (code, extra, more) = length_code(length);
            literals.write_with(bits, code, extra, more);
            let (code, extra, more) = distance_code(distance);
            distances.write_with(bits, code, extra, more);
        }
        literals.write(bits, END);
    }
}

/// The hash of the bytes at a place.
fn hash(bytes: [u8; MATCH_MIN]) -> usize {
    (u32::from_le_bytes(bytes).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes `then` and `now` have in common, eight at a time; at most all of `now`.
fn matching(then: &[u8], now: &[u8]) -> usize {
    let mut length = 0;
    while let (Some(a), Some(b)) =
        (then[length..].first_chunk::<8>(), now[length..].first_chunk::<8>())
    {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return length + (differing.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + now[length..].iter().zip(&then[length..]).take_while(|(a, b)| a == b).count()
}

/// The symbol of a length, how many extra bits it has, and their value (RFC 1951 3.2.5).
fn length_code(length: usize) -> (usize, u32, u32) {
    let more = length as u32 - 3;
    match length {
        ..11 => (length + 254, 0, 0),
        MATCH_MAX => (285, 0, 0),
        _ => {
            let extra = more.ilog2() - 2;
            ((257 + 4 * extra + (more >> extra)) as usize, extra, more & ((1 << extra) - 1))
        }
    }
}

/// The symbol of a distance, how many extra bits it has, and their value (RFC 1951 3.2.5).
fn distance_code(distance: usize) -> (usize, u32, u32) {
    let more = distance as u32 - 1;
    if more < 4 {
        return (more as usize, 0, 0);
    }
    let extra = more.ilog2() - 1;
    ((2 * extra + (more >> extra)) as usize, extra, more & ((1 << extra) - 1))
}
