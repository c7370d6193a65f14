//! The compressor: a message as one deflate stream that refers to nothing outside it (RFC 1951).

use std::fmt;

use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressionStrategy, CompressorOxide, TDEFLFlush, compress};

/// Bytes of the window. Python's `websockets` offers 12 bits by default, so one frame serves every
/// client. `miniz_oxide` has no smaller window than 32 KiB, so a message is compressed in pieces of
/// this length, and none refers to the one before it: on 16 KiB of JSON that costs a tenth more
/// bytes. A piece is not longer than what one call makes a block of.
const WINDOW: usize = 1 << WINDOW_BITS;

/// The window as the negotiation names it (RFC 7692 7.1.2).
pub(crate) const WINDOW_BITS: u8 = 12;

/// The fastest level that looks for repetitions. For 16 KiB of JSON level 6 takes 2.1 times the time,
/// and saves 18 % of the bytes.
const LEVEL: u8 = 1;

/// Bytes that a piece becomes longer at most: a stored block and the flush take 10.
const ROOM: usize = 64;

/// The length of an empty stored block, which the sender of a message leaves out (RFC 7692 7.2.1).
const TAIL: usize = 4;

/// What a thread compresses with: 320 KB, nothing of which outlives a message but its memory.
pub(crate) struct Compressor(Box<CompressorOxide>);

impl Compressor {
    pub(crate) fn new() -> Self {
        let strategy = CompressionStrategy::Default;
        Self(Box::new(CompressorOxide::with_params(DataFormat::Raw, LEVEL, strategy, 15)))
    }

    /// Appends `input` to `out` as the payload of a compressed message (RFC 7692 7.2.1): up to a sync
    /// flush, whose last four bytes are left out. `false` once that has `less_than` bytes, with a
    /// part of it in `out`.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>, less_than: usize) -> bool {
        let start = out.len();
        if input.is_empty() {
            out.push(0);
            return less_than > 1;
        }
        for piece in input.chunks(WINDOW) {
            let (from, room) = (out.len(), piece.len() + ROOM);
            out.resize(from + room, 0);
            // A full flush: what comes next refers to nothing before it. That costs less than a reset,
            // which clears all of the state.
            let flush = TDEFLFlush::Full;
            let (_, read, written) = compress(&mut self.0, piece, &mut out[from..], flush);
            if read < piece.len() || written == room {
                // A part may be left inside.
                self.0.reset();
                return false;
            }
            out.truncate(from + written);
            if out.len() - start >= less_than + TAIL {
                return false;
            }
        }
        out.truncate(out.len() - TAIL);
        true
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}
