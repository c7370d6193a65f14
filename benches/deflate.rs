//! What compression costs and saves: bytes on the wire and processor time for each delivery, plain
//! and compressed.
//!
//! `cargo bench --bench deflate -- [--rounds N] [BINARY]`
//!
//! One client sends JSON of 200 B, 1 KiB and 16 KiB as plain frames, and 10 or 100 clients receive
//! each message. BINARY (default: the binary of this build) runs with `--deflate 1`; the clients
//! of one run negotiate compression, those of the next one do not. Every figure is the least of N
//! rounds (default 7), in turns, since the work is the same in each and a busy machine adds to it.
//! The processor time is that of the server, with the kernel's part, as Linux counts it.
//!
//! Where Go and gorilla/websocket are installed (on Debian golang-go and
//! golang-github-gorilla-websocket-dev), the chat server on its `PreparedMessage` stands beside it.

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use server::{Outcome, Server, cpu, masked};

/// Bytes of the messages.
const SIZES: [usize; 3] = [200, 1024, 16 * 1024];

/// Clients that receive each message.
const MEMBERS: [usize; 2] = [10, 100];

/// Deliveries of a run at least.
const DELIVERIES: usize = 3_000;

/// The Go packages of Debian.
const GORILLA: &str = "/usr/share/gocode/src/github.com/gorilla/websocket";

/// The least cost of a delivery so far.
#[derive(Debug, Clone, Copy)]
struct Cost {
    bytes: f64,
    microseconds: f64,
}

fn main() -> Outcome<()> {
    let (mut binary, mut rounds) = (env!("CARGO_BIN_EXE_hublet").to_owned(), 7);
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            _ => binary = arg,
        }
    }
    let gorilla = build_gorilla()?;
    println!(
        "{:<8} {:>7} {:>8} {:>10} {:>10} {:>10} {:>10} {:>6}",
        "", "members", "message", "B plain", "B deflate", "us plain", "us deflate", "ratio"
    );
    for members in MEMBERS {
        for size in SIZES {
            let hublet = || Server::start(&[&binary, "--deflate", "1"]);
            compare("hublet", hublet, members, size, rounds)?;
            if let Some(path) = &gorilla {
                // It loses clients on a machine that is busy.
                compare(
                    "gorilla",
                    || Server::of(Command::new(path).args(["0", "deflate"])),
                    members,
                    size,
                    rounds,
                )
                .unwrap_or_else(|error| println!("gorilla is left out: {error}"));
            }
        }
    }
    Ok(())
}

/// Measures one server with and without compression, in turns, and prints a row.
fn compare(
    name: &str,
    start: impl Fn() -> Outcome<Server>,
    members: usize,
    size: usize,
    rounds: usize,
) -> Outcome<()> {
    let mut least = [Cost { bytes: f64::MAX, microseconds: f64::MAX }; 2];
    for _ in 0..rounds {
        for (compressed, least) in [false, true].into_iter().zip(&mut least) {
            let cost = run(&start()?, members, size, compressed)?;
            least.bytes = least.bytes.min(cost.bytes);
            least.microseconds = least.microseconds.min(cost.microseconds);
        }
    }
    let [plain, deflate] = least;
    println!(
        "{name:<8} {members:>7} {size:>8} {:>10.0} {:>10.0} {:>10.2} {:>10.2} {:>6.2}",
        plain.bytes,
        deflate.bytes,
        plain.microseconds,
        deflate.microseconds,
        deflate.microseconds / plain.microseconds
    );
    Ok(())
}

/// One client sends messages, one at a time, and all receive them.
fn run(server: &Server, members: usize, size: usize, compressed: bool) -> Outcome<Cost> {
    let extension = if compressed {
        "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; \
         server_no_context_takeover\r\n"
    } else {
        ""
    };
    let mut clients = server.connect_with(members, extension)?;
    let messages = DELIVERIES.div_ceil(members);
    let (mut bytes, mut before) = (0, Duration::ZERO);
    // The first messages warm up, and are not counted.
    for nth in 0..messages + messages / 10 {
        if nth == messages / 10 {
            (bytes, before) = (0, cpu(&server.child)?);
        }
        clients[0].write_all(&masked(0x81, json(size, nth).as_bytes()))?;
        for client in &mut clients {
            bytes += receive(client, compressed)?;
        }
    }
    let deliveries = (messages * members) as f64;
    let used = cpu(&server.child)? - before;
    Ok(Cost {
        bytes: bytes as f64 / deliveries,
        microseconds: used.as_secs_f64() * 1e6 / deliveries,
    })
}

/// A JSON document of `size` bytes, another one for each message.
fn json(size: usize, nth: usize) -> String {
    const NAMES: [&str; 6] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"];
    let mut rng = fastrand::Rng::with_seed(nth as u64);
    let mut text = String::from(r#"{"type":"update","room":"market","items":["#);
    while text.len() < size {
        let (id, cents, volume) = (rng.u32(..100_000), rng.u32(..100_000), rng.u32(..5_000));
        let (name, active, second) = (NAMES[rng.usize(..6)], rng.bool(), rng.u32(..60));
        text.push_str(&format!(
            r#"{{"id":{id},"name":"{name}","price":{}.{:02},"volume":{volume},"active":{active},"time":"2026-11-30T09:15:{second:02}.{:03}Z"}},"#,
            cents / 100,
            cents % 100,
            rng.u32(..1000),
        ));
    }
    text.truncate(size - 2);
    text + "]}"
}

/// Receives a message; returns the bytes of its frame.
fn receive(client: &mut TcpStream, compressed: bool) -> Outcome<usize> {
    let mut head = [0; 2];
    client.read_exact(&mut head)?;
    while head[0] == 0x89 {
        // A ping, which needs no answer before the run is over.
        let mut payload = vec![0; usize::from(head[1])];
        client.read_exact(&mut payload)?;
        client.read_exact(&mut head)?;
    }
    let expected = if compressed { 0xc1 } else { 0x81 };
    if head[0] != expected {
        return Err(format!("a frame begins with {:#x}, not with {expected:#x}", head[0]).into());
    }
    let (header, len) = match head[1] {
        126 => {
            let mut len = [0; 2];
            client.read_exact(&mut len)?;
            (4, usize::from(u16::from_be_bytes(len)))
        }
        len => (2, usize::from(len)),
    };
    let mut payload = vec![0; len];
    client.read_exact(&mut payload)?;
    Ok(header + len)
}

/// Builds the server of gorilla/websocket, where that is installed.
fn build_gorilla() -> Outcome<Option<String>> {
    if !Path::new(GORILLA).is_dir() {
        println!(
            "gorilla is left out: apt-get install golang-go golang-github-gorilla-websocket-dev"
        );
        return Ok(None);
    }
    let root = env!("CARGO_MANIFEST_DIR");
    let path = format!("{root}/target/gorilla");
    let built = Command::new("go")
        .args(["build", "-ldflags=-s -w", "-o", &path, &format!("{root}/benches/peers/gorilla.go")])
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", format!("{root}/target/gocache"))
        .env("CGO_ENABLED", "0")
        .status()?;
    Ok(built.success().then_some(path))
}
