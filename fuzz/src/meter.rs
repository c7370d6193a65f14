//! Checks the memory of a run. Only under the fuzzer, since it needs an allocator of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that a run may hold in addition to those for its input: two read buffers, the largest
/// backlog of the small hub, what the hub compresses and inflates with, and data of the fuzz target.
const FIXED: usize = (192 + 450) * 1024;

/// Bytes of memory that a byte of input may cost. The peer, the hub's input, the message, the
/// frames of the clients and the reference hold a copy each, and a growing vector has spare room.
const PER_BYTE: usize = 40;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Metered;

#[global_allocator]
static METERED: Metered = Metered;

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

/// Runs a target. Fails if it held more memory at once than its input allows.
pub fn bounded(bytes: &[u8], run: impl FnOnce(&[u8])) {
    let before = HELD.get();
    PEAK.set(before);
    run(bytes);
    let peak = (PEAK.get() - before) as usize;
    let allowed = FIXED + PER_BYTE * bytes.len();
    assert!(peak <= allowed, "{} bytes were worth {peak} bytes of memory", bytes.len());
}
