//! The binary, its clients and its files, for every test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// No step of a test takes longer than this, or the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;

/// The binary with an empty environment, so that the caller's does not change what is tested.
pub(crate) fn hublet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hublet"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs the binary to its end: for what ends by itself.
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

/// A running binary; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stdout: Receiver<String>,
    pub(crate) stderr: Receiver<String>,
    /// What was read of standard output before the end was awaited.
    log: Vec<String>,
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

    /// Waits for the next line that says where connections are accepted.
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
        // For who wants to read it afterwards.
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

/// A WebSocket client, byte by byte.
pub(crate) struct Peer<S>(pub(crate) S);

impl Peer<TcpStream> {
    /// Connects to a path and upgrades.
    pub(crate) fn connect(address: &str, path: &str) -> Self {
        let (peer, status) = Self::ask(address, path);
        assert_eq!(status, 101, "{path}");
        peer
    }

    /// Asks for an upgrade; returns the status of the answer.
    pub(crate) fn ask(address: &str, path: &str) -> (Self, u16) {
        let stream = TcpStream::connect(address).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self(stream).upgrade(path)
    }
}

impl Peer<UnixStream> {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let (peer, status) = Self(stream).upgrade("/ws");
        assert_eq!(status, 101);
        peer
    }
}

impl<S: Read + Write> Peer<S> {
    pub(crate) fn upgrade(mut self, path: &str) -> (Self, u16) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.0.write_all(request.as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (self, status.expect("a status line"))
    }

    /// Sends a masked frame of at most 125 bytes.
    pub(crate) fn send(&mut self, kind: u8, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let len = u8::try_from(payload.len()).expect("short");
        let mut frame = vec![kind, 0x80 | len];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).expect("sent");
    }

    /// Receives a frame of at most 125 bytes: its first byte and its payload.
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        self.0.read_exact(&mut header).expect("a frame");
        assert!(header[1] <= 125, "a short frame, not masked");
        let mut payload = vec![0; header[1].into()];
        self.0.read_exact(&mut payload).expect("a whole frame");
        (header[0], payload)
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    #[track_caller]
    pub(crate) fn hears(&mut self, text: &str) {
        let (kind, payload) = self.receive();
        assert_eq!((kind, String::from_utf8_lossy(&payload).as_ref()), (TEXT, text));
    }

    /// Receives a close frame with `code`.
    #[track_caller]
    pub(crate) fn is_closed(&mut self, code: u16) {
        let (kind, payload) = self.receive();
        assert_eq!((kind, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
    }

    /// Answers a close frame and waits for the end of the stream.
    pub(crate) fn goodbye(mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an orderly end");
        assert!(rest.is_empty(), "nothing follows a close frame");
    }
}

/// A folder of one test; removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        // Not the target folder, whose path may be too long for a Unix socket.
        let path = std::env::temp_dir().join(format!("hublet-{}-{test}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    /// A path in it, and what `--listen` calls it.
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
