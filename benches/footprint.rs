//! The cost of the binary: size, memory at start, memory per idle client of each kind, and the time
//! of one message to all.
//!
//! `cargo bench --bench footprint -- [--gate] [--clients N] [BINARY]`
//!
//! Starts BINARY (default: the binary of this build) on a free port of 127.0.0.1 and opens N idle
//! WebSocket clients (default 10,000). One of them sends a message, which must reach all of them.
//! Then all close. Two more servers have N idle SSE clients, and N idle keep-alive connections; two
//! with compression have 2,000 idle clients that negotiate it, and 2,000 that do not.
//! With `--gate` a figure over its budget fails.

mod server;

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use server::{Options, Outcome, PATIENCE, Server, descriptors, rss, status};

/// Bytes of the static binary, at most.
const BINARY_MAX: f64 = 1_340_000.0;
/// Bytes resident at start, at most. The system maps the code around a place that is used in pieces of
/// 64 KiB, and where the pieces begin depends on the address that the binary has in this run: a start
/// may take 60 KB more than another.
const START_MAX: f64 = 860_000.0;
/// How often the start is measured, for the largest and the smallest.
const STARTS: usize = 20;
/// Of them, bytes of no file, at most: 160 to 172 KiB, by how much of the stack is used, for which the
/// environment of the process counts too. Two pages of 4 KiB more.
const START_OWN_MAX: f64 = 184_320.0;
/// Clients that connect before the memory of a client is measured: the code that the first of them
/// needs is no part of a client.
const FIRST: usize = 100;
/// Bytes resident per idle WebSocket client, at most: the current figure and a little more, as
/// below. The aim is 1 KiB.
const CLIENT_MAX: f64 = 1_230.0;
/// Bytes resident per idle reader of server-sent events, at most.
const EVENTS_MAX: f64 = 1_600.0;
/// Bytes resident per idle connection that waits for its next request, at most.
const KEPT_MAX: f64 = 1_060.0;
/// Bytes resident per idle client that negotiated compression, at most, over one that did not.
const DEFLATING_MAX: f64 = 64.0;
/// The clients of both kinds, and what one of them says.
const DEFLATING: usize = 2_000;
const EXTENSION: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
/// Bytes resident when all have left, less those with the first clients, at most.
const LEFT_MAX: f64 = 1_048_576.0;
/// The message to all clients: a frame with a mask of zeros, and the frame that clients receive.
const SENT: &[u8] = b"\x81\x85\0\0\0\0hello";
const RECEIVED: &[u8] = b"\x81\x05hello";

fn main() -> Outcome<()> {
    let options = Options::parse(10_000)?;
    server::raise_fd_limit();
    let size = fs::metadata(&options.binary)?.len();
    let (least, at_start, own) = starts(&options)?;
    let server = Server::start(&[&options.binary])?;
    let mut clients = server.connect(FIRST)?;
    let with_first = rss(&server.child)?;
    let others = options.clients.saturating_sub(FIRST).max(1);
    clients.extend(server.connect(others)?);
    let full = rss(&server.child)?;
    let per_client = full.saturating_sub(with_first) / others as u64;

    let begin = Instant::now();
    clients[0].write_all(SENT)?;
    let mut reached = 0;
    for client in &mut clients {
        let mut frame = [0; RECEIVED.len()];
        client.read_exact(&mut frame)?;
        reached += usize::from(frame == RECEIVED);
    }
    let last = begin.elapsed();
    drop(clients);
    let after = settle(&server)?;
    drop(server);
    let per_reader = idle(&options, "/sse")?;
    let per_kept = idle(&options, "/health")?;
    let per_plain = idle_deflate(&options, "")?;
    let per_deflating = idle_deflate(&options, EXTENSION)?;

    let clients = FIRST + others;
    println!("binary                        {size:>9} bytes");
    println!("resident at start             {at_start:>9} bytes, the least of {STARTS} {least}");
    println!("  of no file                  {own:>9} bytes");
    println!("resident per idle client      {per_client:>9} bytes, {clients} clients");
    println!("resident per idle SSE client  {per_reader:>9} bytes, {clients} clients");
    println!("resident per idle keep-alive  {per_kept:>9} bytes, {clients} connections");
    println!(
        "resident per idle deflating   {per_deflating:>9} bytes, {per_plain} if not negotiated"
    );
    println!("one message to all            {reached:>9} reached, the last after {last:.1?}");
    println!("resident when all left        {after:>9} bytes");
    if reached != clients {
        return Err(format!("only {reached} of {clients} were reached").into());
    }
    options.gate("binary", size as f64, BINARY_MAX)?;
    options.gate("resident at start", at_start as f64, START_MAX)?;
    options.gate("resident at start, of no file", own as f64, START_OWN_MAX)?;
    options.gate("resident per idle client", per_client as f64, CLIENT_MAX)?;
    options.gate("resident per idle SSE client", per_reader as f64, EVENTS_MAX)?;
    options.gate("resident per idle keep-alive", per_kept as f64, KEPT_MAX)?;
    let more = per_deflating as f64 - per_plain as f64;
    options.gate("resident per idle deflating client, over plain", more, DEFLATING_MAX)?;
    let left = after.saturating_sub(with_first);
    options.gate("resident when all left, over the first clients", left as f64, LEFT_MAX)
}

/// Bytes resident at start: the least and the most of several starts, and the most of no file.
fn starts(options: &Options) -> Outcome<(u64, u64, u64)> {
    let (mut least, mut most, mut own) = (u64::MAX, 0, 0);
    for _ in 0..STARTS {
        let server = Server::start(&[&options.binary])?;
        let resident = rss(&server.child)?;
        (least, most) = (least.min(resident), most.max(resident));
        own = own.max(status(&server.child, "RssAnon")? * 1024);
    }
    Ok((least, most, own))
}

/// Bytes resident per idle connection after a request for `path`, on a new server.
fn idle(options: &Options, path: &str) -> Outcome<u64> {
    let server = Server::start(&[&options.binary])?;
    let others = options.clients.saturating_sub(FIRST).max(1);
    let mut open = Vec::new();
    let mut resident = [0; 2];
    for (connections, resident) in [FIRST, others].into_iter().zip(&mut resident) {
        let mut more = server.open(connections, path, "", "200")?;
        for stream in &mut more {
            // The bytes after the head show that the whole answer was written.
            stream.read_exact(&mut [0; 2])?;
        }
        open.extend(more);
        *resident = rss(&server.child)?;
    }
    Ok(resident[1].saturating_sub(resident[0]) / others as u64)
}

/// Bytes resident per idle WebSocket client with these headers, on a new server that compresses.
fn idle_deflate(options: &Options, headers: &str) -> Outcome<u64> {
    let server = Server::start(&[&options.binary, "--deflate", "200"])?;
    let at_start = rss(&server.child)?;
    let clients = server.connect_with(DEFLATING, headers)?;
    let resident = rss(&server.child)?.saturating_sub(at_start);
    drop(clients);
    Ok(resident / DEFLATING as u64)
}

/// How long the memory of a server must stay the same before it is measured.
const CALM: Duration = Duration::from_secs(1);

/// Waits until the server has closed its clients' descriptors and its memory is stable. Returns the
/// memory.
fn settle(server: &Server) -> Outcome<u64> {
    let begin = Instant::now();
    let mut last = (rss(&server.child)?, begin);
    loop {
        let fds = descriptors(&server.child)?;
        let resident = rss(&server.child)?;
        if resident != last.0 || fds >= 64 {
            last = (resident, Instant::now());
        }
        if last.1.elapsed() > CALM || begin.elapsed() > PATIENCE {
            return Ok(resident);
        }
        std::thread::yield_now();
    }
}
