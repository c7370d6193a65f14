//! How much memory a run takes at most. Only under the fuzzer: it needs an allocator of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a run may hold at once beside what its bytes are worth: two read buffers, the largest
/// backlog of the small hub, and the fuzz target's own notes.
const FIXED: usize = 192 * 1024;

/// What a byte may cost: it is held by the peer, on its way in, as a message, as a frame for each
/// of the few clients, and by the reference, and a vector that grows has room to spare.
const PER_BYTE: usize = 40;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Metered;

#[global_allocator]
static METERED: Metered = Metered;

// SAFETY: every call is handed to the system's allocator as it came.
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

/// Runs a target, and fails if it ever held more memory than its bytes are worth.
pub fn bounded(bytes: &[u8], run: impl FnOnce(&[u8])) {
    let before = HELD.get();
    PEAK.set(before);
    run(bytes);
    let peak = (PEAK.get() - before) as usize;
    let allowed = FIXED + PER_BYTE * bytes.len();
    assert!(peak <= allowed, "{} bytes were worth {peak} bytes of memory", bytes.len());
}
