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

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use server::{Outcome, PATIENCE, Server, ask};

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
                compare("gorilla", || start_gorilla(path), members, size, rounds)
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
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extension}\r\n",
        server.address
    );
    let mut clients = Vec::new();
    for _ in 0..members {
        let stream = TcpStream::connect(&server.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        clients.push(ask(stream, &request, "101")?);
    }
    let messages = DELIVERIES.div_ceil(members);
    let (mut bytes, mut before) = (0, 0);
    // The first messages warm up, and are not counted.
    for nth in 0..messages + messages / 10 {
        if nth == messages / 10 {
            (bytes, before) = (0, cpu(server)?);
        }
        clients[0].write_all(&masked(&json(size, nth)))?;
        for client in &mut clients {
            bytes += receive(client, compressed)?;
        }
    }
    let deliveries = (messages * members) as f64;
    let used = cpu(server)? - before;
    Ok(Cost { bytes: bytes as f64 / deliveries, microseconds: used as f64 / 1000.0 / deliveries })
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

/// A text frame of a client, with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
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

/// Nanoseconds that the threads of a server have run.
fn cpu(server: &Server) -> Outcome<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", server.child.id()))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(sum)
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

/// Starts it on a free port.
fn start_gorilla(path: &str) -> Outcome<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(path);
    command.args([&address.port().to_string(), "deflate"]).stdout(Stdio::null());
    let server = Server { child: command.spawn()?, address: address.to_string() };
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begin.elapsed() > PATIENCE {
            return Err("gorilla does not listen".into());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(server)
}
