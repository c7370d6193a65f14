//! What the binary costs: size, memory at start, memory per idle client, and one message to all.
//!
//! `cargo bench --bench footprint -- [--gate] [--clients N] [BINARY]`
//!
//! Starts BINARY (default: the binary of this build) on a free port of 127.0.0.1, opens N idle
//! WebSocket clients (default 10,000), lets one of them send one message, and sees it reach all of
//! them, every second one gone, and then the rest gone. With `--gate` a figure past its budget
//! fails.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the static binary, at most.
const BINARY_MAX: u64 = 850_000;
/// Bytes resident at start, at most.
const START_MAX: u64 = 1_500_000;
/// Bytes resident per idle client, at most.
const CLIENT_MAX: u64 = 4096;
/// How long anything may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The message that goes to all, as a masked frame with a mask of zeros and as it comes back.
const SENT: &[u8] = b"\x81\x85\0\0\0\0hello";
const RECEIVED: &[u8] = b"\x81\x05hello";

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Options {
    binary: String,
    clients: usize,
    gate: bool,
}

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn main() -> Outcome<()> {
    let options = options()?;
    raise_fd_limit();
    let size = fs::metadata(&options.binary)?.len();
    let server = start(&options.binary)?;
    let at_start = rss(&server)?;
    let mut clients = connect(&server.address, options.clients)?;
    let full = rss(&server)?;
    let per_client = full.saturating_sub(at_start) / options.clients as u64;

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
    let after = settle(&server, at_start)?;

    println!("binary                    {size:>9} bytes");
    println!("resident at start         {at_start:>9} bytes");
    println!("resident per idle client  {per_client:>9} bytes, {} clients", options.clients);
    println!("one message to all        {reached:>9} reached, the last after {last:.1?}");
    println!("resident when all left    {after:>9} bytes");
    if reached != options.clients {
        return Err(format!("only {reached} of {} were reached", options.clients).into());
    }
    if options.gate {
        gate("binary", size, BINARY_MAX)?;
        gate("resident at start", at_start, START_MAX)?;
        gate("resident per idle client", per_client, CLIENT_MAX)?;
        gate("resident when all left, over start", after.saturating_sub(at_start), 1_000_000)?;
    }
    Ok(())
}

fn options() -> Outcome<Options> {
    let binary = env!("CARGO_BIN_EXE_hublet").to_owned();
    let mut options = Options { binary, clients: 10_000, gate: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Cargo says so to every bench.
            "--bench" => {}
            "--gate" => options.gate = true,
            "--clients" => {
                options.clients = args.next().ok_or("--clients needs a number")?.parse()?
            }
            _ => options.binary = arg,
        }
    }
    Ok(options)
}

fn gate(name: &str, value: u64, max: u64) -> Outcome<()> {
    if value > max {
        return Err(format!("{name}: {value} bytes is over the budget of {max}").into());
    }
    Ok(())
}

#[cfg(unix)]
fn raise_fd_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // If it cannot be raised, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(not(unix))]
fn raise_fd_limit() {}

fn start(binary: &str) -> Outcome<Server> {
    let mut child = Command::new(binary)
        .args(["--listen", "127.0.0.1:0", "--log", "warn"])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut server = Server { child, address: String::new() };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on ").ok_or("no line of the listener")?;
    server.address = address.to_owned();
    Ok(server)
}

/// Resident bytes of the server, from /proc.
fn rss(server: &Server) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

fn connect(address: &str, clients: usize) -> Outcome<Vec<TcpStream>> {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut streams = Vec::with_capacity(clients);
    for n in 0..clients {
        let mut stream =
            TcpStream::connect(address).map_err(|error| format!("client {n}: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|error| format!("client {n}: {error}"))?;
            response.push(byte[0]);
        }
        if !response.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("client {n}: {}", String::from_utf8_lossy(&response)).into());
        }
        streams.push(stream);
    }
    Ok(streams)
}

/// Waits until the server holds no client's descriptor any more; returns what it then holds.
fn settle(server: &Server, at_start: u64) -> Outcome<u64> {
    let begin = Instant::now();
    loop {
        let fds = fs::read_dir(format!("/proc/{}/fd", server.child.id()))?.count();
        let resident = rss(server)?;
        if fds < 64 && resident < at_start + 1_000_000 || begin.elapsed() > PATIENCE {
            return Ok(resident);
        }
        std::thread::yield_now();
    }
}
