//! The inflater: the payload of a compressed message back into what it was (RFC 7692 7.2.2).

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// The length of the stored block that the sender has left out (RFC 7692 7.2.2), and behind it an
/// empty last block: a stream that ends with that was whole.
const TAIL: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// The whole output lies in one piece, and more input may follow.
const FLAGS: u32 = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
    | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;

/// Bytes of the output that there is room for at the least, before it grows.
const ROOM_MIN: usize = 512;

/// What a thread inflates with: its Huffman tables.
pub(crate) struct Inflater(DecompressorOxide);

/// Why a payload became no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is no deflate stream, or a part of one.
    Corrupt,
    /// It becomes longer than it may.
    TooLong,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was read of it.
    Begins,
    /// It goes on with more input.
    Open,
    /// It goes on with more room for its output.
    Full,
    /// Its last block has ended.
    Ended,
}

/// What is written, and how long it may become.
struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    /// Where the output begins in `bytes`: nothing may be repeated from before it.
    start: usize,
    /// Where what is written ends.
    end: usize,
    /// Bytes of `bytes` at most: one more than there may be, so that a stream that just fits is not
    /// taken for a longer one.
    limit: usize,
}

impl Inflater {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self(DecompressorOxide::new()))
    }

    /// Appends to `out` what `compressed` stands for, at most `most` bytes.
    ///
    /// `out` grows as the output does: it is doubled, and `grown` hears how many bytes it has then.
    /// It begins with four times what has come.
    pub(crate) fn inflate(
        &mut self,
        compressed: &[u8],
        most: usize,
        out: &mut Vec<u8>,
        mut grown: impl FnMut(usize),
    ) -> Result<(), Flaw> {
        let start = out.len();
        let mut out = Output { bytes: out, start, end: start, limit: start + most + 1 };
        out.grow((4 * compressed.len()).max(ROOM_MIN), &mut grown);
        let mut progress = self.feed(compressed, Progress::Begins, &mut out, &mut grown)?;
        // A sender may end the stream, without the empty block behind (RFC 7692 7.2.3.4).
        if progress != Progress::Ended {
            progress = self.feed(&TAIL, progress, &mut out, &mut grown)?;
        }
        out.bytes.truncate(out.end);
        match progress {
            Progress::Ended if out.end < out.limit => Ok(()),
            Progress::Ended => Err(Flaw::TooLong),
            _ => Err(Flaw::Corrupt),
        }
    }

    /// Reads all of `input`.
    fn feed(
        &mut self,
        mut input: &[u8],
        mut progress: Progress,
        out: &mut Output<'_>,
        grown: &mut impl FnMut(usize),
    ) -> Result<Progress, Flaw> {
        while !input.is_empty() || progress == Progress::Full {
            match progress {
                // Behind a stream that has ended another may follow.
                Progress::Begins | Progress::Ended => self.0.init(),
                Progress::Full if out.bytes.len() == out.limit => return Err(Flaw::TooLong),
                Progress::Full => out.grow(2 * out.bytes.len(), grown),
                Progress::Open => {}
            }
            let output = &mut out.bytes[out.start..];
            let (status, read, written) =
                decompress(&mut self.0, input, output, out.end - out.start, FLAGS);
            input = &input[read..];
            out.end += written;
            progress = match status {
                TINFLStatus::NeedsMoreInput => Progress::Open,
                TINFLStatus::HasMoreOutput => Progress::Full,
                TINFLStatus::Done => Progress::Ended,
                _ => return Err(Flaw::Corrupt),
            };
        }
        Ok(progress)
    }
}

impl Output<'_> {
    fn grow(&mut self, len: usize, grown: &mut impl FnMut(usize)) {
        let len = len.min(self.limit);
        self.bytes.resize(len, 0);
        grown(len);
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}
