//! The binary, its clients and its files, for all tests.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use crate::peer::{BINARY, CLOSE, DEADLINE, Peer, TEXT};

/// The binary.
pub(crate) const HUBLET: &str = env!("CARGO_BIN_EXE_hublet");

/// The binary, with flags.
pub(crate) fn hublet(arguments: &[&str]) -> Command {
    let mut command = alone(HUBLET);
    command.args(arguments);
    command
}

/// A shell that runs a script, which starts the binary by `exec "$0" "$@"`.
pub(crate) fn hublet_by(script: &str, arguments: &[&str]) -> Command {
    let mut command = alone("sh");
    command.args(["-c", script, HUBLET]).args(arguments);
    command
}

/// A program with an empty environment and no input, independent of the caller's.
pub(crate) fn alone(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command
}

/// Has a program take the time of the wall from a file: so many seconds before or behind the real
/// one, as `-60`. Returns `false` if there is no library for that.
#[track_caller]
pub(crate) fn by_clock(command: &mut Command, clock: &Path) -> bool {
    let Some(library) = crate::tools::faketime() else { return false };
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    true
}

/// Sets the clock of [`by_clock`], in one step: the program reads it all the time.
pub(crate) fn set_clock(clock: &Path, text: &str) {
    let new = clock.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, clock).expect("renamed");
}

/// Runs the binary until it ends by itself.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut server = Server::of(command);
    let code = server.exit_code();
    assert!(code.is_some(), "a signal ended it");
    let joined = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
    let stdout: String = joined(&server.stdout);
    let stderr: String = joined(&server.stderr);
    let status = server.child.wait().expect("was waited for");
    Output { status, stdout: stdout.into(), stderr: stderr.into() }
}

/// A token that PyJWT signs, as its `encode` writes header and claims.
pub(crate) fn sign(claims: &str) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding as _};
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let encode = |part: &[u8]| Base64UrlUnpadded::encode_string(part);
    let header = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", encode(claims.as_bytes()));
    let mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("any length will do");
    let signature = encode(&mac.chain_update(&signed).finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// The key of the tokens.
pub(crate) const KEY: &str = "a secret of at least 256 bits, as HS256 wants it";

/// A running binary. Dropping it kills the process.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stdout: Receiver<String>,
    pub(crate) stderr: Receiver<String>,
    /// Lines of standard error that were read so far.
    pub(crate) log: Vec<String>,
}

impl Server {
    /// Starts the binary on a free port; returns it and the address it serves.
    pub(crate) fn start(arguments: &[&str]) -> (Self, String) {
        let mut server = Self::of(hublet(&["--listen", "127.0.0.1:0"]).args(arguments));
        let address = server.listening();
        (server, address)
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command)
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = lines(child.stdout.take());
        let stderr = lines(child.stderr.take());
        Self { child, stdout, stderr, log: Vec::new() }
    }

    /// Waits for the next line with an address that the hub listens on.
    pub(crate) fn listening(&mut self) -> String {
        let line = self.stdout.recv_timeout(DEADLINE);
        let line = line.unwrap_or_else(|_| panic!("no line: {:?}", self.stderr.try_iter().last()));
        line.strip_prefix("listening on ").expect(&line).to_owned()
    }

    /// Reads standard error up to a line that contains `part`; returns that line.
    pub(crate) fn logged(&mut self, part: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("no line with {part:?}: {:?}", self.log));
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for the end, which closes standard error; returns the exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            match self.stderr.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {seen:?}"),
            }
        }
        // The test may read the lines afterwards.
        let (sender, stderr) = channel();
        for line in seen {
            sender.send(line).expect("the receiver is here");
        }
        self.stderr = stderr;
        self.child.wait().expect("its end").code()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.exit_code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, read by a thread that ends with it.
pub(crate) fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Sends a request on a connection of its own, which the hub closes. Returns the status, the head
/// and the body.
#[track_caller]
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let length = body.len();
    let mut peer = Peer::<TcpStream>::dial(address);
    // A backplane that is lost is given up after DEADLINE.
    peer.stream().set_read_timeout(Some(2 * DEADLINE)).expect("set");
    peer.write(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        )
        .as_bytes(),
    );
    let answer = String::from_utf8(peer.read_rest()).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_owned(), body.to_owned())
}

/// The metrics of a hub.
#[track_caller]
pub(crate) fn metrics(address: &str) -> String {
    let (status, _, metrics) = ask(address, "GET", "/metrics", "", "");
    assert_eq!(status, 200, "{metrics}");
    metrics
}

/// The number behind a name.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let digits = text.split(name).nth(1)?.trim_start();
    digits.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// Polls until another process has come so far, for conditions without an event.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + 2 * DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A free port, for a program that cannot choose one and report it.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// A folder of one test. Dropping it removes the folder.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        // Not the target folder, whose path may be too long for a Unix socket.
        let path = std::env::temp_dir().join(format!("hublet-{}-{test}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    /// The path of a socket in the folder, and its form for `--listen`.
    pub(crate) fn socket(&self) -> (PathBuf, String) {
        let path = self.0.join("hub.sock");
        let address = format!("unix:{}", path.display());
        (path, address)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
