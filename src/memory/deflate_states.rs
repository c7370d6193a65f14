//! What messages are compressed and inflated with.
//!
//! A state is borrowed for one call, so there is one for each thread that compresses or inflates,
//! made at first use, and none for a client.

use std::sync::{Mutex, PoisonError};

use crate::deflate::compressor::Compressor;
use crate::deflate::inflater::{Flaw, Inflater};

/// States of each kind that are kept for the next borrower at most; more threads than these
/// compress at once rarely.
const KEPT_MAX: usize = 8;

/// Bytes of its output that a compressor keeps for the next message.
const OUTPUT_MAX: usize = 64 * 1024;

/// Bytes that a compressor takes with its output, and an inflater.
pub(super) const COMPRESSOR_BYTES: usize = 316 * 1024 + OUTPUT_MAX;
pub(super) const INFLATER_BYTES: usize = 12 * 1024;

/// The states of a hub that are free.
#[derive(Debug, Default)]
pub(crate) struct DeflateStates {
    compressors: Free<(Compressor, Vec<u8>)>,
    inflaters: Free<Box<Inflater>>,
}

/// States of one kind that are free.
#[derive(Debug)]
struct Free<T>(Mutex<Vec<T>>);

impl<T> Default for Free<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Free<T> {
    /// Borrows a state, of which `reserve` hears when it is made (0, `bytes`) and when it is freed.
    fn borrow<R>(
        &self,
        bytes: usize,
        reserve: impl Fn(usize, usize),
        make: impl FnOnce() -> T,
        work: impl FnOnce(&mut T) -> R,
    ) -> R {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = free.unwrap_or_else(|| {
            reserve(0, bytes);
            make()
        });
        let result = work(&mut state);
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT_MAX {
            free.push(state);
        } else {
            reserve(bytes, 0);
        }
        result
    }
}

impl DeflateStates {
    /// Compresses `input` to a payload of less than `less_than` bytes, for `take`; `None` if it does
    /// not become that short. `reserve` hears of the memory of states.
    pub(crate) fn compress<T>(
        &self,
        input: &[u8],
        less_than: usize,
        reserve: impl Fn(usize, usize),
        take: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let make = || (Compressor::new(), Vec::new());
        self.compressors.borrow(COMPRESSOR_BYTES, reserve, make, |(compressor, out)| {
            out.clear();
            let taken = compressor.compress(input, out, less_than).then(|| take(out));
            if out.capacity() > OUTPUT_MAX {
                *out = Vec::new();
            }
            taken
        })
    }

    /// Appends to `out` what `compressed` stands for, at most `most` bytes; `grown` hears how many
    /// bytes `out` has whenever it grows, and `reserve` of the memory of states.
    pub(crate) fn inflate(
        &self,
        compressed: &[u8],
        most: usize,
        out: &mut Vec<u8>,
        reserve: impl Fn(usize, usize),
        grown: impl FnMut(usize),
    ) -> Result<(), Flaw> {
        self.inflaters.borrow(INFLATER_BYTES, reserve, Inflater::new, |inflater| {
            inflater.inflate(compressed, most, out, grown)
        })
    }
}
