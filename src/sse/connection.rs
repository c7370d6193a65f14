//! A client that hears its room as server-sent events: it is written to, and only its end is read.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::FutureExt as _;
use http::StatusCode;

use crate::config::Config;
use crate::connection::end::{End, Ending, depart, finish};
use crate::connection::handler::Handler;
use crate::connection::outgoing::{Encode, Outgoing, Output};
use crate::connection::park::{Details, park_client};
use crate::connection::registration::Admitted;
use crate::connection::timeouts::Due;
use crate::disconnect::Disconnect;
use crate::http1::response::Response;
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::hub::holding::Parking;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Drained;
use crate::hub::since::{Begin, Missed};
use crate::hub::unsent::{Progress, Unsent};
use crate::json;
use crate::memory::budget::Charge;
use crate::net::stream::Transport;
use crate::sse::discarded::Discarded;
use crate::sse::encoder::Encoder;
use crate::sse::events_query::{EventFormat, EventsQuery, Heartbeat};

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
    let mut first = format.encoder(Vec::new());
    first.say(format.heartbeat(config).as_bytes());
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
        // A browser does not guess another type of what clients published.
        .header("X-Content-Type-Options", "nosniff")
}

/// Runs a client from its response, encoded in `head`, to its end; returns why it ended.
// Not an `async fn`, which would keep its arguments beside what becomes of them.
pub(crate) fn run<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    admitted: Admitted,
    (head, query): (Vec<u8>, EventsQuery),
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    let Admitted { registered, client, begin, .. } = admitted;
    // Nothing is written past the task: what is pushed waits until it has been encoded.
    registered.queue.open(None);
    let mut encoder = query.format.encoder(head);
    if registered.queue.has_labels() {
        encoder.split_labels();
    }
    let outgoing = Outgoing::new(hub, registered);
    if let Some(begin) = begin {
        encoder.number(begin);
        let comes_back = query.since.is_some() && !query.ends;
        if comes_back && begin.missed == Missed::Nothing {
            encoder.stand(begin.position);
            if query.format.heartbeat == Heartbeat::Event {
                // A page learns the id from an event only.
                encoder.say(query.format.heartbeat(&hub.shared().config).as_bytes());
            }
        }
    }
    let events = Events::new(encoder, hub);
    run_stream(
        Stream { hub, transport, outgoing, events, query, discarded: Discarded::default() },
        client,
        handler,
    )
}

/// Runs a client that another process had, to its end; `idle` is for how long its stream has said
/// nothing.
pub(crate) fn resume<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    admitted: Admitted,
    (format, idle): (EventFormat, Duration),
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    let Admitted { registered, client, .. } = admitted;
    let mut encoder = format.encoder(Vec::new());
    if let Some(position) = registered.queue.last_position() {
        encoder.number(Begin { position, missed: Missed::Nothing });
    }
    if registered.queue.has_labels() {
        encoder.split_labels();
    }
    registered.queue.open(None);
    let mut outgoing = Outgoing::new(hub, registered);
    outgoing.timeouts.heard_before(idle);
    let query = EventsQuery { format, ..EventsQuery::default() };
    let (events, discarded) = (Events::new(encoder, hub), Discarded::default());
    run_stream(Stream { hub, transport, outgoing, events, query, discarded }, client, handler)
}

/// Runs a client whose queue is open, to its end.
#[expect(clippy::manual_async_fn, reason = "as run says")]
fn run_stream<'a, T: Transport + 'a, H: Handler>(
    mut stream: Stream<'a, T>,
    client: Client,
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    async move {
        let end = stream.serve(&client, handler).await;
        // Boxed, so that the long life before has no room for the end.
        Box::pin(async {
            let reason = finish(&mut stream, end, &client).await;
            let Stream { transport, outgoing, .. } = stream;
            drop(transport);
            depart(outgoing.registered, &client, &reason, handler).await;
            reason
        })
        .await
    }
}

/// What waits in the queue leaves as events.
struct Events {
    encoder: Encoder,
    /// The memory of what is encoded and not yet written.
    charge: Charge,
    /// The tick since which there has been some all the time.
    pinned_since: u32,
}

impl Events {
    fn new(encoder: Encoder, hub: &Hub) -> Self {
        let memory = hub.memory();
        Self { charge: memory.charge(encoder.size()), pinned_since: memory.tick(), encoder }
    }
}

impl Encode for Events {
    fn poll_rest<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Output<'_, T>,
    ) -> Poll<io::Result<()>> {
        self.encoder.poll_flush(|bytes| output.poll_write(cx, bytes))
    }

    fn poll_write<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        unsent: &Unsent<'_>,
        output: &mut Output<'_, T>,
    ) -> Poll<io::Result<Progress>> {
        self.encoder.poll_write(unsent, |bytes| output.poll_write(cx, bytes))
    }

    fn say_gap(&mut self, position: u64) -> bool {
        self.encoder.say_gap(position)
    }

    /// Under a ceiling the client pins what is encoded, alone: a message that many wait for is held
    /// once, and encoded for each of them.
    fn end_drain(&mut self, queue: &Queue) -> bool {
        let is_empty = self.encoder.end_drain();
        let size = self.encoder.size();
        let memory = self.charge.memory();
        if memory.is_limited() && size != self.charge.bytes() {
            if self.charge.bytes() == 0 {
                self.pinned_since = memory.tick();
            }
            queue.set_private_bytes(size, self.pinned_since);
        }
        self.charge.resize(size);
        is_empty
    }
}

/// The I/O side of a client that hears events.
struct Stream<'a, T> {
    hub: &'a Hub,
    transport: T,
    outgoing: Outgoing<'a>,
    events: Events,
    /// What its request says of it.
    query: EventsQuery,
    /// What came from the peer.
    discarded: Discarded,
}

impl<T: Transport> Stream<'_, T> {
    /// Writes until something ends the connection.
    async fn serve<H: Handler>(&mut self, client: &Client, handler: &H) -> End {
        {
            let hook = Box::pin(async { handler.on_connect(client).await });
            let mut hook = AssertUnwindSafe(hook).catch_unwind();
            let ended = poll_fn(|cx| match Pin::new(&mut hook).poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(End::of_hook(outcome)),
                Poll::Pending => self.poll(cx).map(Err),
            });
            if let Err(end) = ended.await {
                return end;
            }
        }
        let mut parked = None;
        poll_fn(|cx| {
            let ended = self.poll(cx);
            let holding = &self.hub.shared().holding;
            if !holding.is_held() {
                parked = None;
            } else if ended.is_pending() && parked.is_none() && !self.outgoing.timeouts.is_writing()
            {
                parked = self.park(client, handler);
            }
            ended
        })
        .await
    }

    /// Says that the connection is clean: what comes from now on waits in the queue until it is
    /// written.
    fn park<'c, H: Handler>(&self, client: &'c Client, handler: &H) -> Option<Parking<'c>> {
        let idle = self.outgoing.timeouts.idle();
        let (socket, events) = (self.transport.handle(), Some(self.query.format.number()));
        park_client(socket.as_ref(), client, handler, Details { idle, events })
    }

    /// Writes, looks for the peer's end, keeps time. Ready only with an end. While the hub is held
    /// the stream says nothing of its own, and the peer is not read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let is_held = self.hub.shared().holding.is_held();
        loop {
            let drained = self.poll_drain(cx);
            if let Poll::Ready(end) = End::of(drained.phase) {
                return Poll::Ready(end);
            }
            if !is_held {
                let left = self.discarded.poll_end(cx, self.hub, &mut self.transport);
                if let Poll::Ready(reason) = left {
                    return Poll::Ready(End::Lost(reason));
                }
            }
            let config = &self.hub.shared().config;
            match ready!(self.outgoing.timeouts.poll(cx, config, None, (None, drained.due))) {
                // The drain that follows writes it.
                Due::Message => {}
                Due::WriteTimeout => {
                    self.outgoing.queue().evict();
                    return Poll::Ready(End::Evicted);
                }
                // A peer that has gone does not acknowledge it, and the kernel says so in time.
                _ if is_held => self.outgoing.timeouts.heard(),
                _ => {
                    self.events.encoder.say(self.query.format.heartbeat(config).as_bytes());
                    self.outgoing.timeouts.heard();
                }
            }
        }
    }
}

impl<'a, T: Transport> Ending<'a> for Stream<'a, T> {
    type Stream = T;

    fn parts(&mut self) -> (&'a Hub, &mut T, &mut Outgoing<'a>) {
        (self.hub, &mut self.transport, &mut self.outgoing)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Drained {
        self.outgoing.poll_drain(cx, &mut self.transport, &mut self.events)
    }

    fn poll_until_closed(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.poll(cx)
    }

    /// The last event, unless another, or this one, is half written or waits to be.
    fn push_close(&mut self, reason: &Disconnect) {
        // One that asked for what is kept has it, and is not to come back.
        let has_all = self.query.ends && *reason == Disconnect::NORMAL;
        let last = if has_all { Vec::new() } else { close(reason) };
        let encoder = &mut self.events.encoder;
        if !encoder.is_midway() {
            encoder.end(&last);
        }
    }
}

/// The last event of a stream: what a close frame would say, and after how many milliseconds an
/// `EventSource` reconnects.
pub(crate) fn close(reason: &Disconnect) -> Vec<u8> {
    let mut event = format!("event: close\ndata: {{\"code\":{},\"reason\":", reason.code());
    json::string(&mut event, reason.reason());
    event.push_str(&format!("}}\nretry: {}\n\n", fastrand::u16(RETRY)));
    event.into_bytes()
}
