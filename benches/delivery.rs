//! The cost of a delivery and of an idle client, counted and not timed.
//!
//! `cargo bench --bench delivery -- [--gate] [BINARY]`
//!
//! Counts user-space instructions and system calls for each delivery to one of 100 clients, and the
//! heap of an idle client. BINARY (default: the binary of this build) runs under valgrind and
//! strace, which must be installed. The difference of two runs is taken, so that start, handshakes
//! and end do not count. The heap is always that of the binary of this build, since valgrind cannot
//! follow the allocator of a static one. With `--gate` a figure over its budget fails.
//!
//! A busy machine changes little here.

mod server;

use server::count::{CLIENTS, Case, Counting, Report};
use server::{Options, Outcome, Server};

// A budget is the current figure and a little more, since another compiler inlines differently. The
// aims are 400 and 1,000 instructions and 1.03 system calls, one at a time.
const CASES: [Case; 4] = [
    Case::SHORT.at_most(PLAIN_MAX, 1.03),
    Case {
        name: "the same, history on",
        flags: &["--history", "100"],
        ..Case::SHORT.at_most(PLAIN_MAX + HISTORY_MAX, 1.03)
    },
    Case::BURSTS.at_most(48.0, 0.06),
    Case::LONG.at_most(400.0, 1.04),
];

/// Instructions for each delivery of a short message that is sent alone.
const PLAIN_MAX: f64 = 264.0;

/// Instructions for each delivery that history may add.
const HISTORY_MAX: f64 = 60.0;

/// Bytes on the heap for each idle client, at most.
const HEAP_MAX: f64 = 1040.0;
/// Allocations for each idle client, at most.
const BLOCKS_MAX: f64 = 9.0;

fn main() -> Outcome<()> {
    let options = Options::parse(CLIENTS)?;
    let counting =
        Counting { options: &options, flags: &[], connect: Server::connect, report: Report::new() };
    let figures = counting.print(&CASES)?;
    let [bytes, blocks] = counting.print_heap()?;
    let history = figures[1][0] - figures[0][0];
    println!("for each delivery history adds {history:.0} instructions");
    options.gate("instructions that history adds", history, HISTORY_MAX)?;
    options.gate_cases(&CASES, &figures)?;
    options.gate("bytes on the heap", bytes, HEAP_MAX)?;
    options.gate("allocations", blocks, BLOCKS_MAX)
}
