//! `GET /events`: events of the hub as server-sent events, for as long as the request lasts.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures_lite::FutureExt as _;
use futures_lite::future::{or, poll_once};
use http::Request;

use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::connection::linger::{lingering_close, timed_out};
use crate::connection::registration::event_reader_permit;
use crate::disconnect::Disconnect;
use crate::http1::cors;
use crate::http1::head::Head;
use crate::http1::response::{Response, request_timeout};
use crate::http1::stream::{Failure, HttpStream};
use crate::http1::url::query_of;
use crate::hub::event::{HubEvent, HubEventKind};
use crate::hub::event_queue::RoomFilter;
use crate::hub::handle::Hub;
use crate::json;
use crate::net::stream::Transport;
use crate::peer::Peer;
use crate::serve::exchange::Exchange;
use crate::serve::hub_events::{HubEvents, events_max, read};
use crate::serve::long_request::HEAD_CHARGE;
use crate::sse::connection::{self, close};
use crate::sse::discarded::Discarded;
use crate::sse::encoder::Encoder;
use crate::sse::events_query::EventFormat;
use crate::stats::add;

/// Bytes of events that are written at once, about.
const BATCH: usize = 8 * 1024;

/// Bytes of memory that a stream holds beside the events that wait: the head of its request and what
/// is to be written, at most.
const CHARGE: usize = HEAD_CHARGE + 2 * BATCH;

/// Answers a request for events, once the hook has allowed it. Returns why there is no other answer.
///
/// The request gives its slot among the handshakes back, and has one of the permits for readers of
/// events.
pub(crate) async fn stream_events<T: Transport, H: Handler>(
    stream: &mut HttpStream<'_, T>,
    handler: &H,
    head: Head,
    exchange: &mut Exchange<'_>,
) -> Failure {
    let (hub, request, peer) = (stream.hub, &head.request, exchange.client_address);
    let begun = begin(hub, handler, request, &peer);
    let mut events = match exchange.slot.within(begun).await.ok_or_else(request_timeout) {
        Ok(Ok(events)) => events,
        Ok(Err(refused)) | Err(refused) => return refused.into(),
    };
    exchange.slot.release();
    let _charge = hub.memory().charge(CHARGE);
    let format = EventFormat::of(request);
    let response = connection::response(format, &hub.shared().config);
    let first = cors::with_cors(response, exchange.allow_origin.take()).encode(false, None);
    let mut encoder = format.encoder(first);
    let mut over = pin!(or(drained(hub), forbidden(handler, request, &peer)));
    let reason = follow(stream, &mut events, &mut encoder, format, over.as_mut()).await;
    drop(events);
    let ended = match reason {
        Some(reason) => {
            let mut last = format.encoder(Vec::new());
            last.end(&close(&reason));
            lingering_close(hub, &mut stream.transport, last.into_text().as_bytes(), false).await
        }
        None => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if ended.is_err() {
        stream.transport.abort();
    }
    Failure::Ended
}

/// Asks the hook, and makes the reader.
async fn begin<H: Handler>(
    hub: &Hub,
    handler: &H,
    request: &Request<()>,
    peer: &Peer,
) -> Result<HubEvents, Response> {
    let reason = |status| handler.on_refusal(request, status);
    run_request_hook(handler.on_inspect(request, peer), reason).await?;
    let filter = match query_of(request.uri(), "room") {
        None => RoomFilter::All,
        Some(rooms) => RoomFilter::parse(&rooms).ok_or_else(|| {
            Response::bad_request("room must be the name of a room, or a prefix with a * behind it")
        })?,
    };
    let permit = event_reader_permit(hub, peer.network())?;
    read(hub, filter, permit, events_max(hub)).await
}

/// The end once the hub drains, or another process takes it over.
async fn drained(hub: &Hub) -> Disconnect {
    hub.long_requests_end().await;
    if hub.shared().holding.is_held() { Disconnect::RESTART } else { Disconnect::GOING_AWAY }
}

/// The end once the handler says that the request may read no more.
async fn forbidden<H: Handler>(handler: &H, request: &Request<()>, peer: &Peer) -> Disconnect {
    let until = AssertUnwindSafe(handler.inspect_until(request, peer)).catch_unwind();
    match until.await {
        Ok(status) => {
            let why = handler.on_refusal(request, status);
            let why = why.unwrap_or_else(|| "this is not allowed any more".into());
            Disconnect::new(Disconnect::POLICY.code(), why)
        }
        Err(_) => Disconnect::INTERNAL,
    }
}

/// What a stream waits for.
enum Woken {
    Event(HubEvent),
    Over(Disconnect),
    /// The peer has left, or sends too much.
    Gone,
    /// Nothing has happened for the ping interval.
    Silence,
}

/// Writes events until something ends the stream; returns the reason for its last event, or `None`
/// if the peer cannot be told.
async fn follow<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    events: &mut HubEvents,
    encoder: &mut Encoder,
    format: EventFormat,
    mut over: Pin<&mut impl Future<Output = Disconnect>>,
) -> Option<Disconnect> {
    let (hub, config) = (stream.hub, &stream.hub.shared().config);
    let mut discarded = Discarded::default();
    loop {
        flush(stream, encoder).await.ok()?;
        let mut silence = hub.shared().timers.after(config.ping_interval);
        let woken = poll_fn(|cx| {
            if let Poll::Ready(reason) = over.as_mut().poll(cx) {
                return Poll::Ready(Woken::Over(reason));
            }
            if let Poll::Ready(event) = events.poll_take(cx) {
                let ended = Woken::Over(Disconnect::GOING_AWAY);
                return Poll::Ready(event.map_or(ended, Woken::Event));
            }
            if discarded.poll_end(cx, hub, &mut stream.transport).is_ready() {
                return Poll::Ready(Woken::Gone);
            }
            Pin::new(&mut silence).poll(cx).map(|()| Woken::Silence)
        });
        match woken.await {
            Woken::Event(event) => {
                encoder.say(text(&event).as_bytes());
                // What waits already goes along.
                while encoder.size() < BATCH {
                    let Some(Some(event)) = poll_once(events.next()).await else { break };
                    encoder.say(text(&event).as_bytes());
                }
            }
            Woken::Over(reason) => return Some(reason),
            Woken::Gone => return None,
            Woken::Silence => encoder.say(format.heartbeat(config).as_bytes()),
        }
    }
}

/// Writes what is encoded, under the write timeout. Events that happen meanwhile wait, or are missed.
async fn flush<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    encoder: &mut Encoder,
) -> io::Result<()> {
    let shared = stream.hub.shared();
    let transport = &mut stream.transport;
    let written = poll_fn(|cx| {
        encoder.poll_flush(|bytes| {
            let written = Pin::new(&mut *transport).poll_write(cx, bytes);
            if let Poll::Ready(Ok(n)) = &written {
                add(&shared.counters.bytes_sent, *n as u64);
            }
            written
        })
    });
    let mut deadline = shared.timers.after(shared.config.write_timeout);
    deadline.within(written).await.unwrap_or_else(timed_out)?;
    encoder.end_drain();
    let flushed = poll_fn(|cx| Pin::new(&mut *transport).poll_flush(cx));
    deadline.within(flushed).await.unwrap_or_else(timed_out)
}

/// The event in JSON, as a server-sent event.
fn text(event: &HubEvent) -> String {
    let (name, state) = match event.kind {
        HubEventKind::Join => ("join", None),
        HubEventKind::Leave => ("leave", None),
        HubEventKind::Evicted => ("evicted", None),
        HubEventKind::RoomMade => ("room", Some("made")),
        HubEventKind::RoomGone => ("room", Some("gone")),
        HubEventKind::Gap => ("gap", None),
    };
    let mut text = format!("event: {name}\ndata: {{");
    if let Some(room) = &event.room {
        text.push_str("\"room\":");
        json::string(&mut text, room);
        text.push(',');
    }
    if let Some(prefix) = &event.prefix {
        text.push_str("\"prefix\":");
        json::string(&mut text, &format!("{prefix}*"));
        text.push(',');
    }
    // A string takes whatever is written.
    if let Some(client) = event.client {
        let _ = write!(text, "\"client\":\"{client}\",\"user\":");
        match &event.user {
            Some(user) => json::string(&mut text, user),
            None => text.push_str("null"),
        }
        text.push(',');
    }
    if let Some(reason) = &event.reason {
        let _ = write!(text, "\"code\":{},\"reason\":", reason.code());
        json::string(&mut text, reason.reason());
        text.push(',');
    }
    if let Some(state) = state {
        let _ = write!(text, "\"state\":\"{state}\",");
    }
    if event.kind == HubEventKind::Gap {
        let _ = write!(text, "\"missed\":{},", event.missed);
    }
    let _ = write!(text, "\"time\":{}}}\n\n", event.time);
    text
}
