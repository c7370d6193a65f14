//! A client that hears its room as server-sent events: it is written to, and only its end is read.

use std::borrow::Cow;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_lite::FutureExt as _;
use http::{Request, StatusCode, Uri, Version};

use crate::config::Config;
use crate::connection::handler::Handler;
use crate::connection::linger::{lingering_close, poll_discard};
use crate::connection::registration::{Admitted, Registered};
use crate::connection::timeouts::{Due, Timeouts};
use crate::disconnect::Disconnect;
use crate::http1::response::Response;
use crate::http1::url::query_of;
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::hub::queue::Phase;
use crate::json;
use crate::memory::budget::Charge;
use crate::net::stream::Transport;
use crate::sse::encoder::Encoder;

/// Bytes that one poll writes, about, before others get their turn.
const WRITE_BUDGET: usize = 64 * 1024;

/// Bytes that a peer may send behind its request, for which there is no use.
const DISCARD_MAX: usize = 64 * 1024;

/// What shows that a stream lives, at its begin and at the ping interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// A comment without the blank line that ends an event. At a blank line, parsers such as
    /// httpx-sse and sseclient hand on an event without data.
    #[default]
    Comment,
    /// An event, for a page that watches its stream: an `EventSource` hides comments.
    Event,
}

impl Heartbeat {
    /// The one that a request asks for: `?probe=1` is for events.
    fn of(uri: &Uri) -> Self {
        if query_of(uri, "probe").as_deref() == Some("1") { Self::Event } else { Self::Comment }
    }

    /// Its bytes. An event says the interval in seconds, rounded up.
    fn text(self, config: &Config) -> Cow<'static, str> {
        match self {
            Self::Comment => ":\n".into(),
            Self::Event => {
                let seconds = config.ping_interval.as_millis().div_ceil(1000);
                format!("event: ping\ndata: {seconds}\n\n").into()
            }
        }
    }
}

/// How a stream of events is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventFormat {
    /// What shows that the stream lives.
    heartbeat: Heartbeat,
    /// The body is chunked. HTTP/1.0 knows no chunks, and ends a body with the connection.
    is_chunked: bool,
}

impl EventFormat {
    /// The one for a request.
    pub(crate) fn of(request: &Request<()>) -> Self {
        let is_chunked = request.version() == Version::HTTP_11;
        Self { heartbeat: Heartbeat::of(request.uri()), is_chunked }
    }
}

/// Milliseconds after which an `EventSource` reconnects, a random one for each. Without it all of a
/// browser's make reconnect after the same time. From a second, since a hub that restarts is away
/// for a moment, and below what users take for broken.
const RETRY: RangeInclusive<u16> = 1_000..=5_000;

/// The head of the response whose body are the events, and the first heartbeat. The body has no
/// length and ends with the connection.
///
/// Clients such as Python's `requests` read an unframed body in blocks, and hand on a block when it
/// is full; of a chunked body they hand on each chunk as it comes.
pub(crate) fn response(format: EventFormat, config: &Config) -> Response {
    let mut first = Encoder::new(Vec::new(), format.is_chunked);
    first.say(format.heartbeat.text(config).as_bytes());
    let response = Response::with_type(StatusCode::OK, "text/event-stream", first.into_text());
    let response = if format.is_chunked {
        response.endless().header("Transfer-Encoding", "chunked")
    } else {
        response.endless()
    };
    response
        // A proxy that compresses holds events back.
        .header("Cache-Control", "no-store, no-transform")
        // Nginx hands on what it gets at once, and need not be told so.
        .header("X-Accel-Buffering", "no")
}

/// Why a connection ends.
enum End {
    /// The hook wishes it.
    Ours(Disconnect),
    /// The manager sealed the queue: a kick or a drain.
    Closing,
    /// The queue overflowed, or the socket took nothing in time.
    Evicted,
    /// The peer is gone: nothing can be said to it.
    Lost(Disconnect),
}

/// Runs a client from its response, encoded in `head`, to its end; returns why it ended.
pub(crate) async fn run<T: Transport, H: Handler>(
    hub: &Hub,
    transport: T,
    admitted: Admitted,
    (head, format): (Vec<u8>, EventFormat),
    handler: &H,
) -> Disconnect {
    let Admitted { registered, client } = admitted;
    // There is no outlet: what is pushed waits until it has been encoded.
    registered.queue.open(None);
    let clock = Timeouts::new(hub);
    let encoder = Encoder::new(head, format.is_chunked);
    let held = hub.memory().charge(encoder.size());
    let held_since = hub.memory().tick();
    let (unflushed, discarded) = (false, 0);
    let mut stream = Stream {
        hub,
        transport,
        registered,
        timeouts: clock,
        encoder,
        heartbeat: format.heartbeat,
        unflushed,
        discarded,
        held,
        held_since,
    };
    let end = stream.serve(&client, handler).await;
    // Boxed, so that the long life before does not carry room for the end.
    Box::pin(finish(stream, end, client, handler)).await
}

/// Ends a connection, and lets the handler know.
async fn finish<T: Transport, H: Handler>(
    mut stream: Stream<'_, T>,
    end: End,
    client: Client,
    handler: &H,
) -> Disconnect {
    let reason = stream.end(end, &client).await;
    let Stream { transport, registered, .. } = stream;
    drop(transport);
    let rooms = registered.leave(client.id()).await;
    drop(registered);
    let client = client.departed(rooms);
    let hook = async { handler.on_disconnect(&client, &reason).await };
    if AssertUnwindSafe(hook).catch_unwind().await.is_err() {
        log::error!("on_disconnect panicked for client {}", client.id());
    }
    reason
}

/// The I/O side of a client that hears events.
struct Stream<'a, T> {
    hub: &'a Hub,
    transport: T,
    /// The client's queue and its place in the registry.
    registered: Registered,
    timeouts: Timeouts<'a>,
    encoder: Encoder,
    /// What it says while no message comes.
    heartbeat: Heartbeat,
    /// Bytes were written that the transport may still hold back.
    unflushed: bool,
    /// Bytes that came from the peer and were thrown away.
    discarded: usize,
    /// The memory of what is encoded and not yet written.
    held: Charge,
    /// The tick since which there has been some all the time.
    held_since: u32,
}

impl<T: Transport> Stream<'_, T> {
    /// Writes until something ends the connection.
    async fn serve<H: Handler>(&mut self, client: &Client, handler: &H) -> End {
        {
            let hook = Box::pin(async { handler.on_connect(client).await });
            let mut hook = AssertUnwindSafe(hook).catch_unwind();
            let ended = poll_fn(|cx| {
                if let Poll::Ready(outcome) = Pin::new(&mut hook).poll(cx) {
                    return Poll::Ready(match outcome {
                        Ok(Ok(())) => None,
                        Ok(Err(disconnect)) => Some(End::Ours(disconnect)),
                        Err(_) => Some(End::Ours(Disconnect::INTERNAL)),
                    });
                }
                self.poll(cx).map(Some)
            });
            if let Some(end) = ended.await {
                return end;
            }
        }
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Writes, looks for the peer's end, keeps time. Ready only with an end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.poll_drain(cx).0 {
                Phase::Handshaking | Phase::Open => {}
                Phase::Closing => return Poll::Ready(End::Closing),
                Phase::Evicted => return Poll::Ready(End::Evicted),
                Phase::Dead => return Poll::Ready(End::Lost(Disconnect::ABNORMAL)),
            }
            if let Poll::Ready(end) = self.poll_read(cx) {
                return Poll::Ready(end);
            }
            match ready!(self.timeouts.poll(cx, &self.hub.shared().config, false, None)) {
                Due::WriteTimeout => {
                    self.registered.queue.evict();
                    return Poll::Ready(End::Evicted);
                }
                // A peer that has gone does not acknowledge it, and the kernel says so in time.
                _ => {
                    let text = self.heartbeat.text(&self.hub.shared().config);
                    self.encoder.say(text.as_bytes());
                    self.timeouts.heard();
                }
            }
        }
    }

    /// Drains the queue into the transport and notes progress; returns the phase, and whether
    /// nothing waits any more.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> (Phase, bool) {
        let Self { transport, encoder, .. } = self;
        let mut progress = false;
        let mut write = |cx: &mut Context<'_>, bytes: &[u8]| {
            let written = Pin::new(&mut *transport).poll_write(cx, bytes);
            progress |= matches!(written, Poll::Ready(Ok(n)) if n > 0);
            written
        };
        // What is no message waits nowhere else.
        let own = encoder.poll_flush(|bytes| write(cx, bytes));
        let drained = self.registered.queue.poll_drain(cx, WRITE_BUDGET, |cx, unsent| {
            encoder.poll_write(unsent, |bytes| write(cx, bytes))
        });
        let mut failed = matches!(own, Poll::Ready(Err(_)));
        self.unflushed |= progress;
        if self.unflushed {
            match Pin::new(&mut self.transport).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                // A stream that keeps what it was given to itself is as good as gone.
                Poll::Ready(Err(_)) => failed = true,
                Poll::Pending => {}
            }
        }
        let empty = drained.empty && self.encoder.settle() && !self.unflushed;
        self.count();
        self.timeouts.wrote(progress, empty);
        (if failed { Phase::Dead } else { drained.phase }, empty)
    }

    /// Counts what is encoded and not yet written. Under a ceiling the client owes it, alone: a
    /// message that many wait for is held once, and encoded for each of them.
    fn count(&mut self) {
        let size = self.encoder.size();
        let memory = self.held.memory();
        if memory.is_limited() && size != self.held.bytes() {
            if self.held.bytes() == 0 {
                self.held_since = memory.tick();
            }
            self.registered.queue.set_private_bytes(size, self.held_since);
        }
        self.held.resize(size);
    }

    /// Throws away what the peer sends; ready when it has left, or sends too much.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            ready!(self.transport.poll_readable(cx));
            match ready!(poll_discard(self.hub, &mut self.transport, cx)) {
                Ok(n) if n > 0 => {
                    self.discarded += n;
                    if self.discarded <= DISCARD_MAX {
                        continue;
                    }
                    let reason = "it sends what nobody reads";
                    let code = Disconnect::POLICY.code();
                    return Poll::Ready(End::Lost(Disconnect::new(code, reason)));
                }
                _ => return Poll::Ready(End::Lost(Disconnect::ABNORMAL)),
            }
        }
    }

    /// Ends the connection as `end` asks for; returns why it ended.
    async fn end(&mut self, end: End, client: &Client) -> Disconnect {
        let reason = match end {
            End::Lost(reason) => {
                self.transport.abort();
                return reason;
            }
            End::Ours(reason) => match self.unregister(client, reason.clone()).await {
                None => reason,
                Some(End::Lost(_)) => {
                    self.transport.abort();
                    return reason;
                }
                Some(_) => return self.cut_off(),
            },
            End::Closing => self.registered.queue.reason().unwrap_or(Disconnect::GOING_AWAY),
            End::Evicted => return self.cut_off(),
        };
        if !self.write_out(None).await || !self.write_out(Some(&reason)).await {
            return self.cut_off();
        }
        if let Err(error) = lingering_close(self.hub, &mut self.transport, &[]).await {
            log::debug!("a peer did not read to the end of its events: {error}");
            self.transport.abort();
        }
        reason
    }

    /// Tells the manager, and waits until it has let the client go; meanwhile the client is written
    /// to, and its deadlines count.
    async fn unregister(&mut self, client: &Client, reason: Disconnect) -> Option<End> {
        let mut told = pin!(self.hub.disconnect(client.id(), reason));
        poll_fn(|cx| {
            if let Poll::Ready(told) = told.as_mut().poll(cx) {
                // An error means that it is out of the registry already.
                drop(told);
                return Poll::Ready(None);
            }
            match ready!(self.poll(cx)) {
                End::Closing => Poll::Ready(None),
                end => Poll::Ready(Some(end)),
            }
        })
        .await
    }

    /// Writes what waits, behind it perhaps the last event, under the write deadline; whether it
    /// has been written.
    async fn write_out(&mut self, last: Option<&Disconnect>) -> bool {
        if let Some(reason) = last {
            self.encoder.end(&close(reason));
        }
        poll_fn(|cx| {
            loop {
                match self.poll_drain(cx) {
                    (Phase::Evicted | Phase::Dead, _) => return Poll::Ready(false),
                    (_, true) => return Poll::Ready(true),
                    _ => {}
                }
                match ready!(self.timeouts.poll(cx, &self.hub.shared().config, false, None)) {
                    Due::WriteTimeout => self.registered.queue.evict(),
                    _ => self.timeouts.heard(),
                }
            }
        })
        .await
    }

    /// Ends without ceremony: one try at the last event, unless another is half written.
    fn cut_off(&mut self) -> Disconnect {
        let reason = self.registered.queue.reason().unwrap_or(Disconnect::ABNORMAL);
        if !self.encoder.is_midway() {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            self.encoder.end(&close(&reason));
            // The peer takes it or not.
            let Self { transport, encoder, .. } = self;
            let _ =
                encoder.poll_flush(|bytes| Pin::new(&mut *transport).poll_write(&mut cx, bytes));
        }
        self.transport.abort();
        reason
    }
}

/// The last event of a stream: what a close frame would say, and after how many milliseconds an
/// `EventSource` reconnects.
fn close(reason: &Disconnect) -> Vec<u8> {
    let mut event = format!("event: close\ndata: {{\"code\":{},\"reason\":", reason.code());
    json::string(&mut event, reason.reason());
    event.push_str(&format!("}}\nretry: {}\n\n", fastrand::u16(RETRY)));
    event.into_bytes()
}
