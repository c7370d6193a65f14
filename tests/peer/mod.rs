//! The peer in tests: a WebSocket client that sends any bytes, right or wrong.
#![allow(dead_code, reason = "each of the test binaries uses its part")]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// A step of a test that takes longer than this fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

// First bytes of frames: FIN and the opcode (RFC 6455 5.2).
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// The opening handshake for a path.
pub(crate) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A masked frame: `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// An answer to a request: its status, and its head in full.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
}

impl Response {
    /// The value of a header, which must not occur twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} occurs twice: {}", self.head);
        value
    }
}

/// A WebSocket client, well-behaved or not.
pub(crate) struct Peer<S>(BufReader<S>);

impl Peer<TcpStream> {
    /// Connects, and says nothing yet.
    pub(crate) fn dial(address: &str) -> Self {
        Self::over(TcpStream::connect(address).expect("it accepts"))
    }

    /// As [`dial`](Self::dial), with the smallest receive buffer that the kernel allows, which is
    /// soon full if the test does not read.
    pub(crate) fn dial_narrow(address: &str) -> Self {
        let address: SocketAddr = address.parse().expect("an address");
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        sockopt::set_socket_recv_buffer_size(&socket, 1).expect("set");
        rustix::net::connect(&socket, &address).expect("it accepts");
        Self::over(socket.into())
    }

    /// Connects to a path and upgrades.
    pub(crate) fn connect(address: &str, path: &str) -> Self {
        Self::dial(address).join(path)
    }

    /// Requests an upgrade; returns the status of the answer.
    pub(crate) fn ask(address: &str, path: &str) -> (Self, u16) {
        let mut peer = Self::dial(address);
        let status = peer.request(&upgrade(path)).status;
        (peer, status)
    }

    /// A peer with a socket that is connected already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_write_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("set");
        Self(BufReader::with_capacity(4096, stream))
    }

    /// Asserts that neither a byte nor the end comes within `wait`.
    #[track_caller]
    pub(crate) fn is_left_alone_for(&mut self, wait: Duration) {
        self.stream().set_read_timeout(Some(wait)).expect("set");
        let error = self.0.fill_buf().expect_err("nothing comes");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        self.stream().set_read_timeout(Some(DEADLINE)).expect("set");
    }

    /// Resets the connection instead of closing it.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO)).expect("set");
    }
}

impl Peer<UnixStream> {
    /// Connects, and says nothing yet.
    pub(crate) fn dial(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self(BufReader::new(stream))
    }

    pub(crate) fn connect(path: &Path) -> Self {
        Self::dial(path).join("/ws")
    }
}

impl<S: Read + Write> Peer<S> {
    /// A peer with any stream, whose reads and writes must have deadlines.
    pub(crate) fn at(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) fn stream(&self) -> &S {
        self.0.get_ref()
    }

    /// Returns the stream. Nothing must have been read ahead.
    pub(crate) fn into_stream(self) -> S {
        assert_eq!(self.0.buffer(), [], "bytes were read ahead");
        self.0.into_inner()
    }

    /// Upgrades at a path.
    #[track_caller]
    pub(crate) fn join(mut self, path: &str) -> Self {
        let response = self.request(&upgrade(path));
        assert_eq!(response.status, 101, "{path}: {response:?}");
        self
    }

    /// Sends a request; returns the answer.
    #[track_caller]
    pub(crate) fn request(&mut self, request: &str) -> Response {
        self.write(request.as_bytes());
        self.response()
    }

    /// Reads the head of an answer.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let n = self.0.read_line(&mut head).expect("a line of a head");
            assert_ne!(n, 0, "the end of the stream after {head:?}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Response { status: status.expect("a status line"), head }
    }

    /// Reads `n` bytes as they are.
    #[track_caller]
    pub(crate) fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Reads the body behind a head, which says its length.
    #[track_caller]
    pub(crate) fn body(&mut self, response: &Response) -> Vec<u8> {
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        self.read(length.expect("a length"))
    }

    /// As [`body`](Self::body), of text.
    #[track_caller]
    pub(crate) fn body_text(&mut self, response: &Response) -> String {
        String::from_utf8(self.body(response)).expect("text")
    }

    /// Reads the rest up to the end, orderly or not.
    pub(crate) fn read_rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.0.read_to_end(&mut rest);
        rest
    }

    /// Writes bytes as they are.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// Sends a frame.
    #[track_caller]
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&frame(first, payload));
    }

    #[track_caller]
    pub(crate) fn say(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
    }

    /// Receives a frame: its first byte and its payload.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        self.try_receive().expect("a frame")
    }

    /// As [`receive`](Self::receive), if the hub may be gone.
    pub(crate) fn try_receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let [first, short] = self.bytes()?;
        let len = match short {
            0..=125 => short.into(),
            126 => u16::from_be_bytes(self.bytes()?).into(),
            127 => usize::try_from(u64::from_be_bytes(self.bytes()?)).map_err(io::Error::other)?,
            _ => return Err(io::Error::other("a masked frame")),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload)?;
        Ok((first, payload))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    #[track_caller]
    pub(crate) fn hears(&mut self, text: &str) {
        let (first, payload) = self.receive();
        assert_eq!((first, String::from_utf8_lossy(&payload).as_ref()), (TEXT, text));
    }

    /// Receives a close frame with `code`; returns its reason.
    #[track_caller]
    pub(crate) fn is_closed(&mut self, code: u16) -> String {
        let (first, payload) = self.receive();
        assert_eq!(first, CLOSE, "{payload:?} instead of a close frame");
        assert!(payload.len() >= 2, "no code instead of {code}");
        let (sent, reason) = payload.split_at(2);
        assert_eq!(u16::from_be_bytes([sent[0], sent[1]]), code);
        String::from_utf8(reason.to_vec()).expect("RFC 6455 5.5.1")
    }

    /// Waits for the end of the stream. No byte must come before it.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest, [], "nothing more is expected");
    }

    /// Answers a close frame and waits for the end of the stream.
    #[track_caller]
    pub(crate) fn goodbye(mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
        self.ends();
    }

    /// Discards bytes until the connection has ended, in any way.
    #[track_caller]
    pub(crate) fn is_gone(&mut self) {
        match io::copy(&mut self.0, &mut io::sink()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
