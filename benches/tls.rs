//! What TLS costs: a delivery and an idle client, counted, and the processor time of a handshake and of
//! a delivery with one thread and with two.
//!
//! `cargo bench --features tls --bench tls -- [--gate] [--clients N] [BINARY]`
//!
//! BINARY (default: the binary of this build) is a `hublet-tls`. The first part is that of the bench
//! `delivery`, with clients over TLS 1.3: AES-128-GCM with what valgrind knows of the processor. Then N
//! idle clients (default 2,000) join, for the memory and the processor time of each. With `--gate` a figure
//! over its budget fails.
//!
//! The processor time of a delivery is that of the process, whatever else runs beside it. What the busier of
//! two threads needs of it bounds what two cores carry: the manager pushes, and it runs in one thread at
//! a time.

mod server;

use std::time::Duration;

use server::count::{CLIENTS, Case, Counting, Report, deliver};
use server::tls::Pair;
use server::{Options, Outcome, Server, cpu, cpu_by_thread, rss};

const CASES: [Case; 3] = [
    Case::SHORT.at_most(3_700.0, 1.03),
    Case::BURSTS.at_most(350.0, 0.06),
    Case { messages: 64, ..Case::LONG.at_most(55_000.0, 1.1) },
];

/// Bytes on the heap for each idle client, at most.
const HEAP_MAX: f64 = 4_750.0;
/// Allocations for each idle client, at most.
const BLOCKS_MAX: f64 = 18.0;
/// Bytes resident for each idle client, at most.
const CLIENT_MAX: f64 = 6.0 * 1024.0;
/// Clients that connect before the memory of a client is measured: the code and the buffers that the
/// first of them need are no part of a client.
const FIRST: usize = 100;

/// What the threads carry.
const LOAD: Case = Case { name: "1 KiB", size: 1024, messages: 1_000, burst: 4, ..Case::SHORT };

fn main() -> Outcome<()> {
    let options = Options::parse(2_000)?;
    server::raise_fd_limit();
    let pair = Pair::new()?;
    let flags = pair.flags();
    let flags = flags.each_ref().map(String::as_str);
    let counting = Counting {
        options: &options,
        flags: &flags,
        connect: Server::connect_encrypted,
        report: Report::new(),
    };
    let figures = counting.print(&CASES)?;
    let [bytes, blocks] = counting.print_heap()?;
    let start = |more: &[&str]| Server::start(&[&[&*options.binary], &flags[..], more].concat());
    let [resident, handshake] = idle(&start(&[])?, options.clients)?;
    println!("resident per idle TLS client  {resident:.0} bytes, {} clients", options.clients);
    println!("a handshake  {handshake:.0} us of the processor");
    let one = threads(&start(&[])?)?;
    let two = threads(&start(&["--threads", "2"])?)?;
    for (name, Load { time, share }) in [("one thread", &one), ("two threads", &two)] {
        let share = share * 100.0;
        println!("a delivery of {}, {name}  {time:.2} us, {share:.0} % in the busier", LOAD.name);
    }
    let most = one.time / (two.time * two.share);
    println!("two threads carry at most {most:.1} times what one carries");
    options.gate_cases(&CASES, &figures)?;
    options.gate("bytes on the heap", bytes, HEAP_MAX)?;
    options.gate("allocations", blocks, BLOCKS_MAX)?;
    options.gate("resident per idle TLS client", resident, CLIENT_MAX)
}

/// Bytes resident and microseconds of the processor for each idle client that joins.
fn idle(server: &Server, clients: usize) -> Outcome<[f64; 2]> {
    let now = || {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
            rss(&server.child)?,
            cpu(&server.child)?,
        ))
    };
    let mut open = server.connect_encrypted(FIRST)?;
    let (resident, time) = now()?;
    // The TLS state of a client is larger than that of the server.
    let others = clients.saturating_sub(FIRST).max(1);
    let mut sockets = Vec::new();
    for _ in 0..others {
        sockets.extend(server.connect_encrypted(1)?.into_iter().map(|client| client.sock));
    }
    let (resident_with, time_with) = now()?;
    open.clear();
    let each = |more: f64| more / others as f64;
    Ok([
        each(resident_with.saturating_sub(resident) as f64),
        each(time_with.saturating_sub(time).as_secs_f64() * 1e6),
    ])
}

/// What a delivery takes.
struct Load {
    /// Microseconds of the processor.
    time: f64,
    /// Of them, the part of the busier thread.
    share: f64,
}

fn threads(server: &Server) -> Outcome<Load> {
    let mut clients = server.connect_encrypted(CLIENTS)?;
    let before = cpu_by_thread(&server.child)?;
    deliver(&mut clients, &LOAD, LOAD.messages)?;
    let after = cpu_by_thread(&server.child)?;
    if before.len() != after.len() {
        return Err("the threads of the server have changed".into());
    }
    let spent: Vec<Duration> =
        after.iter().zip(before).map(|(after, before)| *after - before).collect();
    let all = spent.iter().sum::<Duration>().as_secs_f64();
    let most = spent.iter().max().map_or(0.0, Duration::as_secs_f64);
    Ok(Load { time: all * 1e6 / (LOAD.messages * CLIENTS) as f64, share: most / all })
}
