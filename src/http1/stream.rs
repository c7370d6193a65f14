//! The stream of a connection that speaks HTTP, and what was read of it and not yet understood.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::http1::response::Response;
use crate::hub::handle::Hub;
use crate::hub::holding::{Along, Holding, Parked, Parking};
use crate::memory::budget::{Charge, allocation};
use crate::net::stream::Transport;
use crate::peer::Peer;
use crate::stats::add;

/// A stream and the bytes read ahead of it.
pub(crate) struct HttpStream<'a, T> {
    pub(crate) hub: &'a Hub,
    pub(crate) transport: T,
    /// Where the connection comes from.
    pub(crate) peer: Peer,
    /// Bytes read and not yet understood; without capacity while the connection is idle.
    pub(crate) buffer: Vec<u8>,
    /// The memory of `buffer`, and of the rest of a body that has begun to come.
    pub(crate) charge: Charge,
    /// Empty lines that were skipped since the last request.
    pub(crate) empty_lines: u8,
    /// The hub is held, and knows that this connection is clean.
    parked: Option<Parking<'a>>,
    /// The peer has the time of a response to take what was written.
    is_patient: bool,
}

/// Says that a connection is clean that waits for a request.
pub(crate) fn park_idle<'a>(
    holding: &'a Holding,
    transport: &impl Transport,
    peer: &Peer,
) -> Option<Parking<'a>> {
    let along = transport.handle().map(|socket| Along {
        socket: Arc::downgrade(&socket),
        peer: *peer,
        client: None,
    });
    holding.park(Parked { client: None, along })
}

/// Empty lines ahead of a request that are skipped at most. Old clients send one behind a body, which
/// is no part of it (RFC 9112 2.2).
const EMPTY_LINES_MAX: u8 = 2;

/// Why a request has no answer of its own.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is refused with this response.
    Refused(Response),
    /// The stream failed, or ended before the request did.
    Io(io::Error),
    /// The response was a stream of its own, and the connection has ended with it.
    Ended,
}

impl From<Response> for Failure {
    fn from(response: Response) -> Self {
        Self::Refused(response)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<'a, T: Transport> HttpStream<'a, T> {
    pub(crate) fn new(hub: &'a Hub, transport: T, peer: Peer) -> Self {
        Self {
            hub,
            transport,
            peer,
            buffer: Vec::new(),
            charge: hub.memory().charge(0),
            empty_lines: 0,
            parked: None,
            is_patient: false,
        }
    }

    /// As [`poll_fill`](Self::poll_fill), between two requests: while the hub is held none begins.
    pub(crate) fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let holding = &self.hub.shared().holding;
        if !(holding.is_held() && self.buffer.is_empty()) {
            self.parked = None;
            return self.poll_fill(cx, most);
        }
        if self.parked.is_none() {
            self.be_patient(false);
            self.parked = park_idle(holding, &self.transport, &self.peer);
        }
        // The task waits for a deadline too, and the hub wakes it when it goes on.
        Poll::Pending
    }

    /// Gives the peer's host the time of a response, or that of a client.
    pub(crate) fn be_patient(&mut self, patient: bool) {
        if self.is_patient != patient {
            self.is_patient = patient;
            self.transport.be_patient(patient);
        }
    }

    /// Reads what is there into the buffer, at most `most` bytes; 0 at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let pool = &self.hub.shared().read_buffers;
        let mut bytes = pool.acquire();
        let most = most.min(bytes.len());
        let read = Pin::new(&mut self.transport).poll_read(cx, &mut bytes[..most]);
        if let Poll::Ready(Ok(n)) = &read {
            add(&self.hub.shared().counters.bytes_received, *n as u64);
            self.buffer.extend_from_slice(&bytes[..*n.min(&most)]);
        }
        pool.release(bytes);
        read
    }

    /// Takes empty lines off the front of the buffer; returns whether there was any.
    pub(crate) fn skip_empty_lines(&mut self) -> bool {
        let before = self.empty_lines;
        while self.empty_lines < EMPTY_LINES_MAX && self.buffer.starts_with(b"\r\n") {
            self.buffer.drain(..2);
            self.empty_lines += 1;
        }
        self.empty_lines > before
    }

    /// Takes what was understood, `len` bytes, off the front of the buffer.
    pub(crate) fn consume(&mut self, len: usize) {
        self.buffer = self.buffer.split_off(len);
        self.charge_buffer();
    }

    /// Gives the memory of an empty buffer back.
    pub(crate) fn release_buffer(&mut self) {
        debug_assert!(self.buffer.is_empty(), "bytes are lost");
        self.buffer = Vec::new();
        self.charge.resize(0);
    }

    /// Counts the memory of the buffer, and of nothing else any more.
    pub(crate) fn charge_buffer(&mut self) {
        self.charge.resize(allocation(self.buffer.capacity()));
    }
}
