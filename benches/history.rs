//! What kept messages cost: memory for clients that are behind, and processor time of a publish.
//!
//! `cargo bench --bench history -- [--gate] [--clients N] [BINARY]`
//!
//! N clients (default 1,000) of a room with history read nothing, while 1,000 messages of 1 KiB are
//! published: with `--overflow replay`, where the room takes the place of their queues, and with
//! queues that hold as much. The room is full before, so its own memory does not count. Below a memory
//! ceiling the sockets have small buffers: without it the kernel would take all of it.
//! Then two servers, one with history, take messages to a room of 100 clients in turns.
//! With `--gate` a client that replays may take 1,024 bytes, and history 1.25 times the time.

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use server::{Options, Outcome, Server, UPGRADE, ask, cpu, masked, rss};

/// Clients that are behind.
const CLIENTS: usize = 1_000;
/// Messages that they are behind by, less what the kernel takes for them.
const MESSAGES: usize = 1_000;
/// Bytes of each.
const SIZE: usize = 1024;
/// Bytes that a client's kernel takes for it, about.
const WINDOW: usize = 4096;
/// Messages of each client that the kernels take, at most: the others wait in the hub.
const TAKEN_MAX: u64 = MESSAGES as u64 / 2;
/// Bytes for each client that is behind and replays, at most.
const BEHIND_MAX: f64 = 1024.0;

/// Clients of the room whose messages are timed.
const ROOM: usize = 100;
/// Messages of a round, and rounds of each server.
const ROUND: usize = 200;
const ROUNDS: usize = 31;
/// Processor time of a message with history, over that of one without, at most. On a machine that
/// others use too the ratio differs from run to run: this finds what makes a message much dearer, and
/// `delivery` counts the instructions exactly.
const TIMES_MAX: f64 = 1.25;

const KEEPS: [&str; 6] = ["--history", "1000", "--history-bytes", "8m", "--history-memory", "8m"];
const CEILING: [&str; 2] = ["--max-memory", "1024m"];
const REPLAYS: [&str; 2] = ["--overflow", "replay"];
const QUEUES: [&str; 4] = ["--queue", "2000", "--queue-bytes", "8m"];

fn main() -> Outcome<()> {
    let options = Options::parse(CLIENTS)?;
    server::raise_fd_limit();
    let replays = behind(&options, &REPLAYS)?;
    println!("resident per client that is behind   {replays:>7} bytes with --overflow replay");
    let queues = behind(&options, &QUEUES)?;
    println!("resident per client that is behind   {queues:>7} bytes with a queue");
    let times = times(&options)?;
    println!("processor time of a message          {times:>7.3} times that without history");
    options.gate("resident per client that is behind", replays as f64, BEHIND_MAX)?;
    options.gate("processor time with history, over that without", times, TIMES_MAX)
}

/// Bytes that the hub takes for each client that is behind by [`MESSAGES`].
fn behind(options: &Options, flags: &[&str]) -> Outcome<i64> {
    let server = Server::start(&[&[&*options.binary][..], &KEEPS, &CEILING, flags].concat())?;
    let mut publisher = TcpStream::connect(&server.address)?;
    publish(&server, &mut publisher)?;
    let clients: Vec<_> =
        (0..options.clients).map(|_| server.join("lag")).collect::<Outcome<_>>()?;
    for client in &clients {
        set_socket_recv_buffer_size(client, WINDOW)?;
    }
    let before = rss(&server.child)?;
    publish(&server, &mut publisher)?;
    let after = rss(&server.child)?;
    let waiting = count(&server, "recipients_total")? - count(&server, "messages_delivered_total")?;
    let least = (MESSAGES as u64 - TAKEN_MAX) * options.clients as u64;
    if waiting < least {
        return Err(format!("only {waiting} messages wait").into());
    }
    Ok((after as i64 - before as i64) / options.clients as i64)
}

/// Publishes [`MESSAGES`] to the room, one after another.
fn publish(server: &Server, publisher: &mut TcpStream) -> Outcome<()> {
    let body = "x".repeat(SIZE);
    let request = format!(
        "POST /pub/lag HTTP/1.1\r\nHost: {}\r\nContent-Length: {SIZE}\r\n\r\n{body}",
        server.address
    );
    for _ in 0..MESSAGES {
        drop(ask(publisher.try_clone()?, &request, "202")?);
        let mut byte = [0];
        while byte != *b"\n" {
            publisher.read_exact(&mut byte)?;
        }
    }
    Ok(())
}

/// A counter of the hub.
fn count(server: &Server, name: &str) -> Outcome<u64> {
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address);
    let mut metrics = String::new();
    ask(TcpStream::connect(&server.address)?, &request, "200")?.read_to_string(&mut metrics)?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("hublet_")?.strip_prefix(name));
    Ok(line.ok_or_else(|| format!("no {name}"))?.trim().parse()?)
}

/// The processor time of a message to [`ROOM`] clients with history, over that without: the median of
/// rounds that the two servers take in turns.
fn times(options: &Options) -> Outcome<f64> {
    let flags: [&[&str]; 2] = [&[], &["--history", "100"]];
    let mut rooms = Vec::new();
    for flags in flags {
        let server = Server::start(&[&[&*options.binary][..], flags].concat())?;
        let clients = server.open(ROOM, "/ws/room", UPGRADE, "101")?;
        rooms.push((server, clients));
    }
    let mut ratios = Vec::new();
    for nth in 0..=ROUNDS {
        let mut taken = [0.0; 2];
        for ((server, clients), taken) in rooms.iter_mut().zip(&mut taken) {
            let before = cpu(&server.child)?;
            round(clients)?;
            *taken = (cpu(&server.child)? - before).as_secs_f64();
        }
        // The first round warms up.
        if nth > 0 {
            ratios.push(taken[1] / taken[0]);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    Ok(ratios[ratios.len() / 2])
}

/// One client speaks, and all hear each message.
fn round(clients: &mut [TcpStream]) -> Outcome<()> {
    let frame = masked(0x81, &[b'x'; 64]);
    for _ in 0..ROUND {
        clients[0].write_all(&frame)?;
        for client in clients.iter_mut() {
            client.read_exact(&mut [0; 66])?;
        }
    }
    Ok(())
}
