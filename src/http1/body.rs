//! Reading the body of a request.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use futures_lite::io::AsyncWriteExt as _;

use crate::http1::chunked::{Chunked, too_large};
use crate::http1::head::Framing;
use crate::http1::response::{Response, request_timeout, short_of_memory};
use crate::http1::slot::Slot;
use crate::http1::stream::{Failure, HttpStream};
use crate::memory::budget::allocation;
use crate::net::stream::Transport;
use crate::time::clock::now;

/// A body as it comes: its bytes are the first of the buffer.
enum Body {
    Sized(usize),
    Chunked(Chunked),
}

impl Body {
    fn new(framing: Framing, max: usize) -> Result<Self, Response> {
        match framing {
            Framing::Unknown => Ok(Self::Sized(0)),
            Framing::Length(len) if len <= max as u64 => Ok(Self::Sized(len as usize)),
            Framing::Length(_) => Err(too_large(max)),
            Framing::Chunked => Ok(Self::Chunked(Chunked::new(max))),
        }
    }

    /// Decodes what has come; returns the length of the body once it is whole.
    fn decode(&mut self, buffer: &mut Vec<u8>) -> Result<Option<usize>, Response> {
        match self {
            Self::Sized(len) => Ok((buffer.len() >= *len).then_some(*len)),
            Self::Chunked(chunked) => Ok(chunked.decode(buffer)?.then_some(chunked.len())),
        }
    }

    /// Bytes to read next, while the body is not whole. Of a body of known length no byte behind it
    /// is read.
    fn wanted(&self, buffered: usize) -> usize {
        match self {
            Self::Sized(len) => len - buffered,
            Self::Chunked(chunked) => chunked.wanted(),
        }
    }
}

impl<T: Transport> HttpStream<'_, T> {
    /// Reads a body of at most `max` bytes and returns its length: it is at the front of the buffer
    /// then.
    ///
    /// A body may be slow as long as it makes progress. It is late if no byte comes for the time of a
    /// handshake, or if it is not whole in the time that any message has
    /// ([`Config::message_timeout`](crate::Config#structfield.message_timeout), 30 s). Its slot among
    /// the handshakes it keeps no longer than a handshake may: a peer that trickles bytes keeps no
    /// other out.
    pub(crate) async fn read_body(
        &mut self,
        framing: Framing,
        max: usize,
        expects_continue: bool,
        slot: &mut Slot<'_>,
    ) -> Result<usize, Failure> {
        let mut body = Body::new(framing, max)?;
        self.check_memory()?;
        if expects_continue && !matches!(body, Body::Sized(0)) {
            self.send_continue(slot).await?;
        }
        let shared = self.hub.shared();
        let (timers, patience) = (&shared.timers, shared.config.handshake_timeout);
        let last = timers.tick_of(now() + shared.config.message_timeout.max(patience));
        let mut progress = timers.after(patience);
        loop {
            if let Some(len) = body.decode(&mut self.buffer)? {
                return Ok(len);
            }
            let wanted = body.wanted(self.buffer.len());
            self.reserve(wanted)?;
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.poll_fill(cx, wanted) {
                    return Poll::Ready(Some(read));
                }
                let is_over = Pin::new(&mut progress).poll(cx).is_ready();
                if is_over || slot.poll_lost(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            });
            if read.await.ok_or_else(request_timeout)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let next = timers.tick_of(now() + patience);
            progress.set(if next.is_before(last) { next } else { last });
        }
    }

    /// Asks for a body that the peer holds back until it is asked. A body that has begun to come needs
    /// no asking for it (RFC 9110 10.1.1).
    pub(crate) async fn send_continue(&mut self, slot: &mut Slot<'_>) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            slot.within(async {
                self.transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                self.transport.flush().await
            })
            .await
            .ok_or_else(request_timeout)??;
        }
        Ok(())
    }

    /// Counts the memory that the buffer takes with `wanted` more bytes; it doubles. Of a body of
    /// known length that is all of it, so that it can come when memory is short.
    fn reserve(&mut self, wanted: usize) -> Result<(), Response> {
        let bytes = allocation(self.buffer.capacity().max(2 * (self.buffer.len() + wanted)));
        if bytes > self.charge.bytes() {
            self.check_memory()?;
            self.charge.resize(bytes);
        }
        Ok(())
    }

    /// Refuses to begin what needs memory while that is short.
    fn check_memory(&self) -> Result<(), Response> {
        if !self.hub.memory().is_high() {
            return Ok(());
        }
        // A request is refused rather than delayed, so the manager is asked for an eviction at once.
        // A newcomer never causes one.
        self.hub.memory().set_time(now());
        self.hub.want_eviction();
        Err(short_of_memory())
    }
}
