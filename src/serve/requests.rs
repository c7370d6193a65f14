//! A connection before it is a client: one request after another, each under one deadline.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::FutureExt as _;
use futures_lite::future::{Future as _, or, yield_now};
use futures_lite::io::AsyncWriteExt;
use http::{Method, StatusCode};

use super::handshake::{self, Upgraded, draining};
use super::http::{Head, Response, parse};
use super::routes::{Route, route};
use super::time::{Timer, now};
use super::transport::Transport;
use super::{Handler, Peer};
use crate::error::Kind;
use crate::hub::{Handshake, Idle, add};
use crate::{Error, Hub};

/// How long a peer may stay silent while others wait for its place among the handshakes.
const SILENCE: Duration = Duration::from_secs(1);

/// Bytes that one read of a request takes at most.
const READ: usize = 1024;

/// Bytes that are read and thrown away after a last response, so that it arrives: four bodies of
/// the longest message at the defaults.
const DISCARD_MAX: usize = 256 * 1024;

/// A connection whose peer asks and is answered.
pub(crate) struct Requests<'a, T, H> {
    hub: &'a Hub,
    transport: &'a mut T,
    /// Where the connection comes from.
    peer: &'a Peer,
    handler: &'a H,
    /// What was read and not yet understood; without capacity while the connection is idle.
    buffer: Vec<u8>,
}

/// What follows a request that was answered.
enum Next {
    /// A client.
    Client(Upgraded),
    /// The next request, in a place for idle connections; the last one had this status.
    Request(Idle, StatusCode),
}

/// What is known of a request so far.
#[derive(Default)]
struct Seen {
    /// It is HEAD: the response has no body.
    head_only: bool,
    /// Another request may follow.
    keeps_alive: bool,
    /// Bytes of its body that were announced and not read.
    unread: u64,
}

/// What a request leads to.
pub(crate) enum Answer {
    /// A client.
    Client(Upgraded),
    /// A response, and perhaps the next request.
    Response(Response),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The request is refused with this.
    With(Response),
    /// Its time is over.
    Late,
    /// The peer never spoke, or left before it had finished.
    Silently,
    /// The stream failed.
    Io(io::Error),
}

impl From<Response> for Ended {
    fn from(response: Response) -> Self {
        Self::With(response)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<'a, T: Transport, H: Handler> Requests<'a, T, H> {
    pub(crate) fn new(hub: &'a Hub, transport: &'a mut T, peer: &'a Peer, handler: &'a H) -> Self {
        Self { hub, transport, peer, handler, buffer: Vec::new() }
    }

    /// Answers requests until one of them makes the peer a client; `Err` when none does.
    ///
    /// `place` is held while a request is under way; a connection that waits for its next one has
    /// a place that no client needs instead.
    pub(crate) async fn run(mut self, place: Handshake) -> Result<Upgraded, Error> {
        let gate = &self.hub.shared().gate;
        let mut place = Some(place);
        loop {
            // Boxed, so that a connection that waits has no room for what a request needs.
            let (idle, status) = match Box::pin(self.exchange()).await? {
                Next::Client(upgraded) => return Ok(upgraded),
                Next::Request(idle, status) => (idle, status),
            };
            if self.buffer.is_empty() {
                drop(place.take());
                if !self.wait(idle).await {
                    let sentence = Cow::Borrowed("the last request was answered");
                    return Err(Error::new(Kind::Refused(status, sentence)));
                }
                place = Some(gate.handshake().await);
            } else {
                // Who sends many requests at once does not keep others waiting.
                yield_now().await;
            }
        }
    }

    /// Waits for the first bytes of the next request; `false` if there will be none: the peer has
    /// left, time is over, the hub ends, or a client needs the place.
    async fn wait(&mut self, mut idle: Idle) -> bool {
        self.buffer = Vec::new();
        let mut timer = Timer::after(self.hub.shared().config.idle_timeout);
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_read(cx) {
                return Poll::Ready(read.is_ok_and(|n| n > 0));
            }
            if Pin::new(&mut timer).poll(cx).is_ready() || idle.poll_leave(cx).is_ready() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// Reads a request and answers it, all of it under one deadline, however the bytes trickle.
    async fn exchange(&mut self) -> Result<Next, Error> {
        let hub = self.hub;
        let shared = hub.shared();
        let deadline = now() + shared.config.handshake_timeout;
        let mut seen = Seen::default();
        let late = async {
            Timer::at(deadline).await;
            Err(Ended::Late)
        };
        let response = match or(self.answer(&mut seen), late).await {
            Ok(Answer::Client(upgraded)) => {
                add(&shared.counters.upgrades_accepted, 1);
                return Ok(Next::Client(upgraded));
            }
            Ok(Answer::Response(response)) | Err(Ended::With(response)) => response,
            Err(Ended::Late) => {
                seen.keeps_alive = false;
                Response::new(StatusCode::REQUEST_TIMEOUT, "the request took too long")
            }
            Err(Ended::Silently) => {
                add(&shared.counters.upgrades_refused, 1);
                return Err(Error::new(Kind::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            Err(Ended::Io(error)) => {
                add(&shared.counters.upgrades_refused, 1);
                return Err(error.into());
            }
        };
        let status = response.status;
        if status.is_client_error() || status.is_server_error() {
            add(&shared.counters.upgrades_refused, 1);
            log::debug!("{} refused: {} {}", self.peer, status.as_u16(), response.body);
        }
        // Where a body was not read, nobody knows that the next request begins behind it.
        let next = (seen.keeps_alive && seen.unread == 0).then(|| shared.gate.idle()).flatten();
        let bytes = response.encode(seen.head_only, next.is_some());
        match next {
            Some(idle) => {
                self.write(&bytes).await?;
                Ok(Next::Request(idle, status))
            }
            None => {
                self.say_goodbye(&bytes).await;
                Err(Error::new(Kind::Refused(status, response.body)))
            }
        }
    }

    async fn answer(&mut self, seen: &mut Seen) -> Result<Answer, Ended> {
        let head = self.read_head().await?;
        seen.head_only = head.request.method() == Method::HEAD;
        seen.keeps_alive = head.keeps_alive();
        seen.unread = head.content_length.unwrap_or(0);
        let shared = self.hub.shared();
        let closed = shared.gate.is_closed();
        Ok(Answer::Response(match route(&head, &shared.config)? {
            _ if closed => draining(),
            Route::Health => Response::new(StatusCode::OK, "ok"),
            Route::Page(page) => Response::page(page),
            Route::Upgrade => {
                // Frames may be on their way, which are no requests.
                seen.keeps_alive = false;
                let early = std::mem::take(&mut self.buffer);
                let request = &head.request;
                let (hub, peer, handler) = (self.hub, self.peer, self.handler);
                let upgraded =
                    handshake::upgrade(hub, self.transport, peer, handler, request, early);
                return upgraded.await.map(Answer::Client);
            }
        }))
    }

    /// Reads a head; what came behind it stays in the buffer.
    async fn read_head(&mut self) -> Result<Head, Ended> {
        let mut searched = 0;
        loop {
            if self.buffer.len() > searched {
                if let Some(head) = parse(&self.buffer, searched)? {
                    self.buffer.drain(..head.len);
                    return Ok(head);
                }
                searched = self.buffer.len();
            }
            let silent = self.buffer.is_empty();
            let gate = &self.hub.shared().gate;
            let crowded_out = async {
                loop {
                    Timer::after(SILENCE).await;
                    if silent && gate.is_crowded() {
                        return Ok(0);
                    }
                }
            };
            let read = poll_fn(|cx| self.poll_read(cx));
            if or(read, crowded_out).await? == 0 {
                return Err(Ended::Silently);
            }
        }
    }

    /// Reads what is there into the buffer, at most [`READ`] bytes and a head's length.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; READ];
        let n = ready!(Pin::new(&mut *self.transport).poll_read(cx, &mut bytes))?;
        self.buffer.extend_from_slice(&bytes[..n.min(READ)]);
        Poll::Ready(Ok(n))
    }

    /// Writes a response that others may follow.
    async fn write(&mut self, response: &[u8]) -> io::Result<()> {
        let timeout = self.hub.shared().config.write_timeout;
        let written = async {
            self.transport.write_all(response).await?;
            self.transport.flush().await
        };
        written.or(timed_out(timeout)).await
    }

    /// Writes a last response and lets the peer read it: a socket that is closed with unread bytes
    /// resets the connection and may destroy what was sent.
    async fn say_goodbye(&mut self, response: &[u8]) {
        let timeout = self.hub.shared().config.close_timeout;
        let goodbye = async {
            self.transport.write_all(response).await?;
            self.transport.flush().await?;
            self.transport.close().await?;
            let mut discarded = 0;
            while discarded < DISCARD_MAX {
                self.buffer.clear();
                match poll_fn(|cx| self.poll_read(cx)).await? {
                    0 => break,
                    n => discarded += n,
                }
            }
            Ok(())
        };
        if let Err(error) = goodbye.or(timed_out(timeout)).await {
            log::debug!("a response did not reach its peer: {error}");
        }
    }
}

/// Fails after `wait`.
async fn timed_out(wait: Duration) -> io::Result<()> {
    Timer::after(wait).await;
    Err(io::ErrorKind::TimedOut.into())
}
