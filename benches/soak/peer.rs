//! A well-behaved WebSocket client, and HTTP requests.

// `tests/peer` is a blocking client, and has the parts that both use.
#[path = "../../tests/peer/mod.rs"]
mod blocking;

use std::net::{SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType, sockopt};
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) use blocking::{BINARY, CLOSE, PING, PONG, TEXT, frame, upgrade};

use crate::{Outcome, within};

pub(crate) async fn dial(address: &str) -> Outcome<Async<TcpStream>> {
    let address: SocketAddr = address.parse()?;
    Ok(within("a connection", Async::<TcpStream>::connect(address)).await??)
}

/// As [`dial`], with the smallest receive buffer that the kernel allows.
pub(crate) fn dial_narrow(address: &str) -> Outcome<Async<TcpStream>> {
    let address: SocketAddr = address.parse()?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, 1)?;
    rustix::net::connect(&socket, &address)?;
    Ok(Async::new(TcpStream::from(socket))?)
}

pub(crate) struct Peer {
    stream: Async<TcpStream>,
    /// Bytes that were read ahead.
    buffer: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(address: &str, path: &str) -> Outcome<Self> {
        Self::over(dial(address).await?, path).await
    }

    pub(crate) async fn over(stream: Async<TcpStream>, path: &str) -> Outcome<Self> {
        let mut peer = Self { stream, buffer: Vec::new() };
        peer.write(upgrade(path).as_bytes()).await?;
        let head = within("a head", peer.up_to("\r\n\r\n")).await??;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(format!("{path}: {head:?} instead of an upgrade").into());
        }
        Ok(peer)
    }

    pub(crate) fn into_stream(self) -> Async<TcpStream> {
        self.stream
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(within("a write", self.stream.write_all(bytes)).await??)
    }

    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) -> Outcome<()> {
        self.write(&frame(first, payload)).await
    }

    /// Reads more bytes. Cancel safe.
    async fn fill(&mut self) -> Outcome<()> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes).await? {
            0 => Err("the end of the stream".into()),
            n => {
                self.buffer.extend_from_slice(&bytes[..n]);
                Ok(())
            }
        }
    }

    /// Receives text up to `end`, without a deadline.
    async fn up_to(&mut self, end: &str) -> Outcome<String> {
        loop {
            let found = self.buffer.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + end.len());
                return Ok(String::from_utf8(std::mem::replace(&mut self.buffer, rest))?);
            }
            self.fill().await?;
        }
    }

    /// Receives a line of server-sent events.
    pub(crate) async fn line(&mut self) -> Outcome<String> {
        Ok(self.up_to("\n").await?.trim_end().to_owned())
    }

    /// Receives a frame, without a deadline. Cancel safe.
    async fn receive(&mut self) -> Outcome<(u8, Vec<u8>)> {
        loop {
            if let Some((header, len)) = header(&self.buffer) {
                if self.buffer.len() >= header + len {
                    let rest = self.buffer.split_off(header + len);
                    let mut payload = std::mem::replace(&mut self.buffer, rest);
                    let first = payload[0];
                    payload.drain(..header);
                    return Ok((first, payload));
                }
            }
            self.fill().await?;
        }
    }

    /// Receives the next frame that is no ping, and answers pings.
    pub(crate) async fn message(&mut self) -> Outcome<(u8, Vec<u8>)> {
        loop {
            match self.receive().await? {
                (PING, payload) => self.send(PONG, &payload).await?,
                frame => return Ok(frame),
            }
        }
    }

    /// Closes as RFC 6455 requires, and discards bytes until the end.
    pub(crate) async fn leave(mut self) -> Outcome<()> {
        self.send(CLOSE, &1000u16.to_be_bytes()).await?;
        while within("a close frame", self.message()).await??.0 != CLOSE {}
        let end = async {
            while self.stream.read(&mut [0; 512]).await? > 0 {}
            Outcome::Ok(())
        };
        within("the end of a stream", end).await?
    }
}

/// Lengths of a frame's header and payload, once the header is complete. A server does not mask.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        len => Some((2, len.into())),
    }
}

/// Sends a request and returns the body of the answer, whose status must be a success.
pub(crate) async fn request(address: &str, request: &str) -> Outcome<String> {
    let mut stream = dial(address).await?;
    within("a request", stream.write_all(request.as_bytes())).await??;
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole head")?;
    if !head.starts_with("HTTP/1.1 20") {
        return Err(format!("{request:?} was answered {head:?}").into());
    }
    Ok(body.to_owned())
}

pub(crate) async fn get(address: &str, path: &str) -> Outcome<String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    request(address, &head).await
}

/// Subscribes to a room by server-sent events, and reads the head.
pub(crate) async fn events(address: &str, room: &str) -> Outcome<Peer> {
    let mut peer = Peer { stream: dial(address).await?, buffer: Vec::new() };
    let request = format!("GET /sse/{room} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.write(request.as_bytes()).await?;
    let head = within("a head", peer.up_to("\r\n\r\n")).await??;
    if head.starts_with("HTTP/1.1 200 ") { Ok(peer) } else { Err(head.into()) }
}
