//! A hublet to measure, and minimal clients.
#![allow(dead_code, reason = "each of the benches uses its part")]

pub(crate) mod client;
pub(crate) mod count;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long anything may take before the run fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The headers of an opening handshake, but for `Host`.
pub(crate) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The command line of a bench.
pub(crate) struct Options {
    /// The binary to measure. The default is the one of this build.
    pub(crate) binary: String,
    pub(crate) clients: usize,
    /// How often the hub restarts.
    pub(crate) restarts: usize,
    /// Whether a figure over its budget fails.
    pub(crate) gate: bool,
}

impl Options {
    pub(crate) fn parse(clients: usize) -> Outcome<Self> {
        let binary = env!("CARGO_BIN_EXE_hublet").to_owned();
        let mut options = Self { binary, clients, restarts: 20, gate: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo passes this to every bench.
                "--bench" => {}
                "--gate" => options.gate = true,
                "--clients" => {
                    options.clients = args.next().ok_or("--clients needs a number")?.parse()?;
                }
                "--restarts" => {
                    options.restarts = args.next().ok_or("--restarts needs a number")?.parse()?;
                }
                _ => options.binary = arg,
            }
        }
        Ok(options)
    }

    /// Fails if a figure is over its budget and `--gate` is set.
    pub(crate) fn gate(&self, name: &str, value: f64, max: f64) -> Outcome<()> {
        if self.gate && value > max {
            return Err(format!("{name}: {value} is over the budget of {max}").into());
        }
        Ok(())
    }

    /// The same for the instructions and system calls of each case.
    pub(crate) fn gate_cases(&self, cases: &[count::Case], figures: &[[f64; 2]]) -> Outcome<()> {
        for (case, [instructions, calls]) in cases.iter().zip(figures) {
            let name = case.name;
            self.gate(&format!("instructions, {name}"), *instructions, case.instructions_max)?;
            self.gate(&format!("system calls, {name}"), *calls, case.system_calls_max)?;
        }
        Ok(())
    }
}

/// A server, killed when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Starts `command`, which may be a tool with its flags and then a hublet, on a free port.
    pub(crate) fn start(command: &[&str]) -> Outcome<Self> {
        let mut hublet = Command::new(command[0]);
        hublet.args(&command[1..]).args(["--listen", "127.0.0.1:0", "--log", "warn"]);
        Self::of(&mut hublet)
    }

    /// Starts a program that prints where it listens, as a hublet does.
    pub(crate) fn of(command: &mut Command) -> Outcome<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{:?} cannot be started: {error}", command.get_program()))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut server = Self { child, address: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").ok_or("no line of the listener")?;
        server.address = address.to_owned();
        Ok(server)
    }

    /// Opens WebSocket clients one after another.
    pub(crate) fn connect(&self, clients: usize) -> Outcome<Vec<TcpStream>> {
        self.connect_with(clients, "")
    }

    /// The same with further headers.
    pub(crate) fn connect_with(&self, clients: usize, more: &str) -> Outcome<Vec<TcpStream>> {
        self.open(clients, "/ws", &format!("{UPGRADE}{more}"), "101")
    }

    /// Opens a WebSocket client in a room.
    pub(crate) fn join(&self, room: &str) -> Outcome<TcpStream> {
        self.open_one(&format!("/ws/{room}"), UPGRADE, "101")
    }

    /// Opens connections one after another, each with a request whose answer has this status; what
    /// comes behind its head is not read.
    pub(crate) fn open(
        &self,
        connections: usize,
        path: &str,
        headers: &str,
        status: &str,
    ) -> Outcome<Vec<TcpStream>> {
        let open = || self.open_one(path, headers, status);
        (0..connections)
            .map(|nth| open().map_err(|error| format!("connection {nth}: {error}").into()))
            .collect()
    }

    fn open_one(&self, path: &str, headers: &str, status: &str) -> Outcome<TcpStream> {
        self.open_through(Ok, path, headers, status)
    }

    /// Opens a connection through what `wrap` makes of its socket, with a request whose answer has this
    /// status.
    pub(crate) fn open_through<S: Read + Write>(
        &self,
        wrap: impl FnOnce(TcpStream) -> Outcome<S>,
        path: &str,
        headers: &str,
        status: &str,
    ) -> Outcome<S> {
        let address = &self.address;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        Ok(ask(wrap(stream)?, &request, status)?)
    }
}

/// Sends a request whose answer has this status, and reads the head of it; what comes behind it is
/// not read.
pub(crate) fn ask<S: Read + Write>(mut stream: S, request: &str, status: &str) -> io::Result<S> {
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    match head.starts_with(format!("HTTP/1.1 {status} ").as_bytes()) {
        true => Ok(stream),
        false => Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())),
    }
}

/// A frame of a client that begins with `first`, with a mask of zeros.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The value that `share` of sorted values do not exceed.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: f64) -> T {
    let index = (sorted.len() as f64 * share) as usize;
    sorted[index.min(sorted.len() - 1)]
}

/// A number in the status of a process, from /proc.
pub(crate) fn status(child: &Child, name: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {name} in its status"))?.parse()?)
}

/// Resident bytes of a process.
pub(crate) fn rss(child: &Child) -> Outcome<u64> {
    Ok(status(child, "VmRSS")? * 1024)
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(child: &Child) -> Outcome<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", child.id()))?.count())
}

/// How long the threads of a process have run, with the kernel's part, as Linux counts it.
pub(crate) fn cpu(child: &Child) -> Outcome<Duration> {
    Ok(cpu_by_thread(child)?.iter().sum())
}

/// The same for each thread.
pub(crate) fn cpu_by_thread(child: &Child) -> Outcome<Vec<Duration>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", child.id()))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let nanoseconds = text.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
        threads.push(Duration::from_nanos(nanoseconds));
    }
    Ok(threads)
}

/// Lets this process open as many connections as it may.
#[cfg(unix)]
pub(crate) fn raise_fd_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // If it cannot be raised, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(not(unix))]
pub(crate) fn raise_fd_limit() {}
