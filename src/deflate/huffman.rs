//! Huffman codes: the fixed ones, and those that are best for a block (RFC 1951 3.2).

use crate::deflate::bits::BitWriter;

/// The longest code of a literal, a length or a distance (RFC 1951 3.2.7).
const CODE_MAX: u32 = 15;

/// The longest code of a code length.
const LENGTH_CODE_MAX: u32 = 7;

/// The order in which the lengths of code lengths are written (RFC 1951 3.2.7).
const LENGTHS_ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Symbols at most: the literals, the end of a block and the lengths (RFC 1951 3.2.5), and two that
/// no block has, but that have fixed codes.
const SYMBOLS_MAX: usize = 288;

/// The codes of RFC 1951 3.2.6.
pub(crate) const FIXED_LITERALS: Codes = Codes::new(&fixed_literals());
pub(crate) const FIXED_DISTANCES: Codes = Codes::new(&[5; 30]);

const fn fixed_literals() -> [u8; SYMBOLS_MAX] {
    let mut lengths = [8; SYMBOLS_MAX];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
}

/// A code for each symbol; a symbol with a length of 0 has none. Of one size for literals, distances
/// and code lengths, so that there is one function for all of them.
#[derive(Debug)]
pub(crate) struct Codes {
    lengths: [u8; SYMBOLS_MAX],
    /// The codes, with their first bit lowest.
    codes: [u16; SYMBOLS_MAX],
}

impl Codes {
    /// The codes that follow from their lengths (RFC 1951 3.2.2).
    const fn new(given: &[u8]) -> Self {
        let mut lengths = [0; SYMBOLS_MAX];
        let mut symbol = 0;
        while symbol < given.len() {
            lengths[symbol] = given[symbol];
            symbol += 1;
        }
        let mut next = [0; CODE_MAX as usize + 2];
        symbol = 0;
        while symbol < given.len() {
            if lengths[symbol] > 0 {
                next[lengths[symbol] as usize + 1] += 1;
            }
            symbol += 1;
        }
        let mut length = 1;
        while length < next.len() {
            next[length] = (next[length] + next[length - 1]) << 1;
            length += 1;
        }
        let mut codes = [0; SYMBOLS_MAX];
        symbol = 0;
        while symbol < given.len() {
            let length = lengths[symbol] as usize;
            if length > 0 {
                let code: u16 = next[length];
                codes[symbol] = code.reverse_bits() >> (16 - length);
                next[length] += 1;
            }
            symbol += 1;
        }
        Self { lengths, codes }
    }

    /// Codes of at most `longest` bits that are best for symbols that are this frequent.
    fn of(frequencies: &[u32], longest: u32) -> Self {
        let mut lengths = [0; SYMBOLS_MAX];
        code_lengths(frequencies, longest, &mut lengths);
        Self::new(&lengths[..frequencies.len()])
    }

    /// Bits of the codes of symbols that are this frequent.
    pub(crate) fn cost(&self, frequencies: &[u32]) -> u32 {
        let lengths = self.lengths.iter().map(|&length| u32::from(length));
        frequencies.iter().zip(lengths).map(|(n, length)| n * length).sum()
    }

    pub(crate) fn write(&self, bits: &mut BitWriter<'_>, symbol: usize) {
        bits.put(self.codes[symbol].into(), self.lengths[symbol].into());
    }

    /// Writes a symbol and its `extra` bits, which are `more`.
    pub(crate) fn write_with(
        &self,
        bits: &mut BitWriter<'_>,
        symbol: usize,
        extra: u32,
        more: u32,
    ) {
        let length = u32::from(self.lengths[symbol]);
        bits.put(u32::from(self.codes[symbol]) | more << length, length + extra);
    }

    /// The lengths up to the last that is not 0, at least `least` of them.
    fn used(&self, least: usize) -> &[u8] {
        let last = self.lengths.iter().rposition(|&length| length > 0);
        &self.lengths[..last.map_or(0, |last| last + 1).max(least)]
    }
}

/// The runs of a block at most: each length by itself.
const RUNS_MAX: usize = SYMBOLS_MAX + 30;

/// The codes of a block, and how they are told (RFC 1951 3.2.7).
#[derive(Debug)]
pub(crate) struct DynamicCodes {
    pub(crate) literals: Codes,
    pub(crate) distances: Codes,
    /// The lengths of both, run by run: symbol, extra bits and their value.
    runs: Vec<(u8, u8, u8)>,
    runs_codes: Codes,
}

impl DynamicCodes {
    /// The best codes for symbols that are this frequent.
    pub(crate) fn new(literals: &[u32], distances: &[u32]) -> Self {
        let (literals, distances) = (Codes::of(literals, CODE_MAX), Codes::of(distances, CODE_MAX));
        let mut runs = Vec::with_capacity(RUNS_MAX);
        // A run may go on from one to the other, which is not used here.
        push_runs(literals.used(257), &mut runs);
        push_runs(distances.used(1), &mut runs);
        let mut frequencies = [0; 19];
        runs.iter().for_each(|run| frequencies[usize::from(run.0)] += 1);
        let runs_codes = Codes::of(&frequencies, LENGTH_CODE_MAX);
        Self { literals, distances, runs, runs_codes }
    }

    /// Bits of the codes themselves, and of all symbols without their extra bits.
    pub(crate) fn cost(&self, literals: &[u32], distances: &[u32]) -> u32 {
        let runs = self.runs.iter().map(|&(symbol, extra, _)| {
            u32::from(self.runs_codes.lengths[usize::from(symbol)] + extra)
        });
        let told = 14 + 3 * self.told().len() as u32 + runs.sum::<u32>();
        told + self.literals.cost(literals) + self.distances.cost(distances)
    }

    /// Writes the codes.
    pub(crate) fn write(&self, bits: &mut BitWriter<'_>) {
        let told = self.told();
        bits.put(self.literals.used(257).len() as u32 - 257, 5);
        bits.put(self.distances.used(1).len() as u32 - 1, 5);
        bits.put(told.len() as u32 - 4, 4);
        for &symbol in told {
            bits.put(self.runs_codes.lengths[usize::from(symbol)].into(), 3);
        }
        for &(symbol, extra, more) in &self.runs {
            self.runs_codes.write(bits, symbol.into());
            bits.put(more.into(), extra.into());
        }
    }

    /// The symbols of runs whose lengths are told.
    fn told(&self) -> &'static [u8] {
        let is_used = |&symbol: &u8| self.runs_codes.lengths[usize::from(symbol)] > 0;
        let last = LENGTHS_ORDER.iter().rposition(is_used);
        &LENGTHS_ORDER[..last.map_or(0, |last| last + 1).max(4)]
    }
}

/// Appends lengths as runs: the symbol, its extra bits, and their value (RFC 1951 3.2.7).
fn push_runs(lengths: &[u8], runs: &mut Vec<(u8, u8, u8)>) {
    for same in lengths.chunk_by(|a, b| a == b) {
        let (length, mut rest) = (same[0], same.len());
        if length > 0 {
            runs.push((length, 0, 0));
            rest -= 1;
        }
        while rest > 0 {
            let (run, symbol, extra, least) = match (length, rest) {
                (_, ..3) => (1, length, 0, 1),
                (0, 3..11) => (rest, 17, 3, 3),
                (0, _) => (rest.min(138), 18, 7, 11),
                _ => (rest.min(6), 16, 2, 3),
            };
            runs.push((symbol, extra, (run - least) as u8));
            rest -= run;
        }
    }
}

/// Finds the lengths of the best codes of at most `longest` bits.
fn code_lengths(frequencies: &[u32], longest: u32, lengths: &mut [u8]) {
    let (mut leaves, mut used) = ([0u32; SYMBOLS_MAX], 0);
    for (symbol, &frequency) in frequencies.iter().enumerate().filter(|(_, n)| **n > 0) {
        leaves[used] = frequency << 16 | symbol as u32;
        used += 1;
    }
    let leaves = &mut leaves[..used];
    if used < 2 {
        // A code of one symbol is not complete, which not every peer takes.
        if let Some(&leaf) = leaves.first() {
            let symbol = (leaf & 0xffff) as usize;
            lengths[symbol] = 1;
            lengths[usize::from(symbol == 0)] = 1;
        }
        return;
    }
    leaves.sort_unstable();
    let mut counts = depths(leaves, longest);
    limit(&mut counts, longest as usize);
    // The rarest symbols have the longest codes.
    let by_length =
        (0..counts.len()).rev().flat_map(|length| (0..counts[length]).map(move |_| length));
    for (leaf, length) in leaves.iter().zip(by_length) {
        lengths[(leaf & 0xffff) as usize] = length as u8;
    }
}

/// How many leaves of Huffman's tree have each depth; those below `longest` count as that deep.
fn depths(leaves: &[u32], longest: u32) -> [u32; CODE_MAX as usize + 1] {
    const NODES: usize = 2 * SYMBOLS_MAX - 1;
    let (mut weights, mut parents) = ([0u32; NODES], [0u16; NODES]);
    let n = leaves.len();
    let root = 2 * n - 2;
    weights.iter_mut().zip(leaves).for_each(|(weight, leaf)| *weight = leaf >> 16);
    // Leaves and inner nodes are both in the order of their weights.
    let (mut leaf, mut inner) = (0, n);
    for node in n..=root {
        for _ in 0..2 {
            let is_leaf = leaf < n && (inner == node || weights[leaf] <= weights[inner]);
            let next = if is_leaf { &mut leaf } else { &mut inner };
            weights[node] += weights[*next];
            parents[*next] = node as u16;
            *next += 1;
        }
    }
    let (mut depths, mut counts) = ([0u8; NODES], [0; CODE_MAX as usize + 1]);
    for node in (0..root).rev() {
        depths[node] = depths[usize::from(parents[node])] + 1;
        if node < n {
            counts[u32::from(depths[node]).min(longest) as usize] += 1;
        }
    }
    counts
}

/// Makes a complete code of what is too much for one: for each code of the longest that has no place
/// a shorter one becomes longer, and its sister's place is free.
fn limit(counts: &mut [u32], longest: usize) {
    let total: u32 = (1..=longest).map(|length| counts[length] << (longest - length)).sum();
    for _ in 1 << longest..total {
        counts[longest] -= 1;
        let shorter = (1..longest).rev().find(|&length| counts[length] > 0).unwrap_or(1);
        counts[shorter] -= 1;
        counts[shorter + 1] += 2;
    }
}
