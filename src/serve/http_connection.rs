//! A connection before it is a client: one request after another, each in a slot of its own.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_lite::future::yield_now;
use http::{Method, Request, StatusCode};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::connection::refuse::count_refusal;
use crate::connection::registration::{
    Admitted, ClientKind, Registering, register, registration_timeout,
};
use crate::connection::respond::{LastResponse, write_response};
use crate::error::{Error, Kind};
use crate::http1::client_address::client_address;
use crate::http1::head::{Framing, HEAD_READ_BYTES, Head};
use crate::http1::response::{Response, draining, request_timeout};
use crate::http1::slot::Slot;
use crate::http1::stream::{Failure, HttpStream};
use crate::http1::{cors, origin};
use crate::hub::client_id::Target;
use crate::hub::handle::Hub;
use crate::limits::admission::{HandshakePermit, KeepAlivePermit};
use crate::message::Encoding;
use crate::net::stream::Transport;
use crate::peer::Peer;
use crate::serve::acked::publish_acked;
use crate::serve::event_stream::stream_events;
use crate::serve::exchange::Exchange;
use crate::serve::health::health;
use crate::serve::lines::publish_lines;
use crate::serve::post_rate::admit_post;
use crate::serve::publish::publish;
use crate::serve::routes::{Route, route};
use crate::serve::{acts, endpoint, kept, metrics, rooms};
use crate::sse::connection;
use crate::sse::events_query::EventsQuery;
use crate::stats::{RefusalReason, Requested, add};
use crate::websocket::extension::Agreement;
use crate::websocket::upgrade::{AcceptKey, PendingUpgrade, accept_key, check_protocol};

/// A connection whose peer sends requests and reads responses.
pub(crate) struct HttpConnection<'a, T, H> {
    stream: HttpStream<'a, T>,
    handler: &'a H,
}

/// What a connection becomes with its last request.
pub(crate) enum Outcome<'a> {
    /// A WebSocket, once its client is in the registry.
    WebSocket(Box<PendingUpgrade<'a>>),
    /// A stream of events, the head of its response, which is still to be written, and what its
    /// request says of it.
    Events(Admitted, (Vec<u8>, EventsQuery)),
}

/// A connection that stays for its next request.
struct KeepAlive {
    idle: KeepAlivePermit,
    /// The slot of the last request.
    permit: Option<HandshakePermit>,
    /// The status of the last response.
    status: StatusCode,
}

/// A client on its way into the registry.
struct Joining<'a> {
    registering: Registering<'a>,
    /// Of a WebSocket: the answer to its key.
    key: Option<AcceptKey>,
    /// Of a WebSocket: the subprotocol that is answered.
    protocol: Option<Arc<str>>,
    /// Of a WebSocket: what was agreed on of its offers to compress.
    agreement: Option<Agreement>,
}

impl<'a> Joining<'a> {
    /// Begins to register a client that was admitted: a stream of events, or else a WebSocket.
    fn begin(
        hub: &'a Hub,
        request: &Request<()>,
        peer: &Peer,
        mut admission: Admission,
        events: Option<EventsQuery>,
    ) -> Result<Self, Response> {
        // With labels there are several rooms, or may be: `Last-Event-ID` is not of one of them.
        let is_one_room = admission.rooms.len() == 1 && !admission.has_labels;
        let since = events.and_then(|query| query.since).filter(|_| is_one_room);
        admission.since = admission.since.or(since);
        check_protocol(request, admission.protocol.as_deref())?;
        let protocol = admission.protocol.clone();
        let (kind, key) = match events {
            Some(query) => (ClientKind::Events { ends: query.ends }, None),
            None => (ClientKind::WebSocket, Some(accept_key(request))),
        };
        let agreement = if key.is_some() && hub.shared().config.deflate.is_some() {
            Agreement::of(request.headers())
        } else {
            None
        };
        let encoding = agreement.map_or(Encoding::Plain, Agreement::encoding);
        let registering = register(hub, *peer, admission, kind, encoding)?;
        Ok(Self { registering, key, protocol, agreement })
    }
}

impl<'a, T: Transport, H: Handler> HttpConnection<'a, T, H> {
    /// Makes the stream, and answers requests until one of them makes the peer a client; returns
    /// what carries its bytes. `Err` when none does.
    ///
    /// A permit is held while a request is under way. A connection that waits for its next one has
    /// an idle permit instead.
    // Not an `async fn`, which would keep memory for every argument.
    pub(crate) fn run(
        hub: &'a Hub,
        accepting: impl Future<Output = io::Result<T>> + Send,
        peer: Peer,
        handler: &'a H,
        permit: HandshakePermit,
    ) -> impl Future<Output = Result<(Outcome<'a>, T), Error>> + Send {
        let accepted = Box::pin(Self::accept(hub, accepting, peer, handler, permit));
        async move {
            // A slot is moved into its request at once: it is no part of a connection that waits.
            let (mut connection, slot) = accepted.await?;
            // Boxed, so that a connection that waits has no room for what a request needs.
            let mut serving = Box::pin(connection.serve_request(slot));
            loop {
                // What is kept is taken out here: what is matched around an await stays.
                let (mut idle, permit, status) = match serving.await? {
                    ControlFlow::Continue(kept) => (kept.idle, kept.permit, kept.status),
                    ControlFlow::Break(outcome) => {
                        return Ok((outcome, connection.stream.transport));
                    }
                };
                let mut permit = connection.pipelined(permit);
                if permit.is_some() {
                    // The other connections run between two requests of a client.
                    yield_now().await;
                } else if !connection.stream.buffer.is_empty() || connection.wait(&mut idle).await {
                    // A client that pipelines has given its permit back: it keeps no other out. The
                    // idle permit is kept until the next permit is there: without either, nothing would
                    // count the connection.
                    permit = Box::pin(acquire_handshake(connection.stream.hub)).await;
                }
                drop(idle);
                let Some(permit) = permit else {
                    let sentence = Cow::Borrowed("the last request was answered");
                    return Err(Error::new(Kind::Refused(status, sentence)));
                };
                let slot = Slot::new(connection.stream.hub, permit);
                serving = Box::pin(connection.serve_request(slot));
            }
        }
    }

    /// Makes the stream, in the slot of the first request and under its deadline.
    async fn accept(
        hub: &'a Hub,
        accepting: impl Future<Output = io::Result<T>> + Send,
        peer: Peer,
        handler: &'a H,
        permit: HandshakePermit,
    ) -> Result<(Self, Slot<'a>), Error> {
        let mut slot = Slot::new(hub, permit);
        let (reason, error) = match slot.within(accepting).await {
            Some(Ok(transport)) => {
                return Ok((Self { stream: HttpStream::new(hub, transport, peer), handler }, slot));
            }
            Some(Err(error)) => (RefusalReason::Left, error),
            None => {
                log::debug!("TLS failed: the handshake of {peer} was not over in time");
                (RefusalReason::Late, io::ErrorKind::TimedOut.into())
            }
        };
        hub.shared().counters.refuse(Requested::default(), reason);
        Err(error.into())
    }

    /// Leaves the permit of the last request to the next, if that has come and no other waits.
    fn pipelined(&mut self, permit: Option<HandshakePermit>) -> Option<HandshakePermit> {
        self.stream.skip_empty_lines();
        let has_begun = !self.stream.buffer.is_empty();
        permit.filter(|_| has_begun && !self.stream.hub.shared().admissions.is_crowded())
    }

    /// Waits for the first bytes of the next request; `false` if there will be none: the peer has
    /// left, time is over, the hub ends, or a client needs the permit.
    // Not an `async fn`: an idle connection is mostly this, and would keep its arguments twice.
    fn wait(&mut self, idle: &mut KeepAlivePermit) -> impl Future<Output = bool> {
        let stream = &mut self.stream;
        stream.buffer = Vec::new();
        stream.charge.resize(0);
        let shared = stream.hub.shared();
        let mut over = shared.timers.after(shared.config.idle_timeout);
        poll_fn(move |cx| {
            while let Poll::Ready(read) = stream.poll_begin(cx, HEAD_READ_BYTES) {
                // An empty line is no request.
                if !(stream.skip_empty_lines() && stream.buffer.is_empty()) {
                    return Poll::Ready(read.is_ok_and(|n| n > 0));
                }
            }
            let is_over = Pin::new(&mut over).poll(cx).is_ready() || idle.poll_leave(cx).is_ready();
            if is_over { Poll::Ready(false) } else { Poll::Pending }
        })
    }

    /// Reads a request and answers it.
    ///
    /// Each phase has a deadline. The head and the hooks share the slot's, and so does all of a
    /// handshake. A body has its own, by progress; the manager's answer and the response as well.
    async fn serve_request(
        &mut self,
        slot: Slot<'a>,
    ) -> Result<ControlFlow<Outcome<'a>, KeepAlive>, Error> {
        let hub = self.stream.hub;
        let counters = &hub.shared().counters;
        let mut exchange = Exchange::new(slot, self.stream.peer);
        let response = match self.answer(&mut exchange).await {
            Ok(ControlFlow::Break(Joining {
                registering,
                key: Some(key),
                protocol,
                agreement,
            })) => {
                let upgrade = PendingUpgrade {
                    registering,
                    key,
                    protocol,
                    agreement,
                    early: std::mem::take(&mut self.stream.buffer),
                    _charge: std::mem::replace(&mut self.stream.charge, hub.memory().charge(0)),
                    deadline: exchange.slot.deadline,
                    _permit: exchange.slot.permit,
                    allow_origin: exchange.allow_origin,
                    client_address: exchange.client_address,
                };
                return Ok(ControlFlow::Break(Outcome::WebSocket(Box::new(upgrade))));
            }
            Ok(ControlFlow::Break(Joining { registering, key: None, .. })) => {
                match exchange.slot.within(registering).await {
                    Some(Ok(admitted)) => {
                        add(&counters.upgrades_accepted, 1);
                        let query = exchange.events_query;
                        let config = &hub.shared().config;
                        let response = connection::response(query.format, config);
                        let head = cors::with_cors(response, exchange.allow_origin);
                        let begin = (head.encode(false, None), query);
                        return Ok(ControlFlow::Break(Outcome::Events(admitted, begin)));
                    }
                    Some(Err(response)) => response,
                    None => registration_timeout(hub),
                }
            }
            Ok(ControlFlow::Continue(response)) | Err(Failure::Refused(response)) => response,
            Err(Failure::Ended) => {
                let sentence = Cow::Borrowed("the stream of events has ended");
                return Err(Error::new(Kind::Refused(StatusCode::OK, sentence)));
            }
            Err(Failure::Io(error)) => {
                // A peer that never sent a byte was not refused anything. It is told nothing: its
                // next request would take that for its answer.
                if exchange.has_begun {
                    counters.refuse(exchange.requested, RefusalReason::Left);
                }
                return Err(error.into());
            }
        };
        self.respond(response, exchange).await.map(ControlFlow::Continue)
    }

    /// Reads a head and finds the answer to the request, or the client that it makes.
    async fn answer(
        &mut self,
        exchange: &mut Exchange<'a>,
    ) -> Result<ControlFlow<Joining<'a>, Response>, Failure> {
        let head = match exchange.slot.within(self.stream.read_head()).await {
            Some(Ok(head)) => head,
            Some(Err(failure)) => {
                exchange.has_begun = !self.stream.buffer.is_empty();
                return Err(failure);
            }
            None if self.stream.buffer.is_empty() => {
                exchange.has_begun = false;
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            None => return Err(request_timeout().into()),
        };
        self.stream.be_patient(false);
        // Boxed, so that a client that waits for the manager has no room for a request.
        Box::pin(self.dispatch(head, exchange)).await
    }

    /// Has a request done by its endpoint.
    async fn dispatch(
        &mut self,
        head: Head,
        exchange: &mut Exchange<'a>,
    ) -> Result<ControlFlow<Joining<'a>, Response>, Failure> {
        let route = self.find_route(&head, exchange)?;
        let drains = self.stream.hub.shared().admissions.is_closed();
        if exchange.slot.is_late() || (matches!(route, Route::Health) && drains) {
            return Err(draining().into());
        }
        if matches!(route, Route::Endpoint) {
            exchange.requested = Requested::Other;
            // Boxed, since it is rare.
            let stream = &mut self.stream;
            let answered = Box::pin(endpoint::answer(stream, self.handler, &head, exchange)).await;
            return answered.map(ControlFlow::Continue);
        }
        if let Route::Read(room) = route {
            // Boxed, since it may wait long, and few do.
            let stream = &mut self.stream;
            let answered = Box::pin(kept::answer(stream, self.handler, head, room, exchange)).await;
            return answered.map(ControlFlow::Continue);
        }
        if route.is_admin() {
            exchange.requested = Requested::Admin;
        }
        if matches!(route, Route::HubEvents) {
            // Boxed, since it is rare and lasts.
            let (stream, handler) = (&mut self.stream, self.handler);
            return Err(Box::pin(stream_events(stream, handler, head, exchange)).await);
        }
        let peer = exchange.client_address;
        if matches!(route, Route::Events) {
            exchange.events_query = EventsQuery::of(&head.request)?;
        }
        let query = exchange.events_query;
        let answered = exchange.slot.within(self.call_hook(&head, &peer, &route, query)).await;
        Ok(match (answered.ok_or_else(request_timeout)??, route) {
            (ControlFlow::Break(joining), _) => ControlFlow::Break(joining),
            (ControlFlow::Continue(None), Route::Publish(target)) => {
                ControlFlow::Continue(publish(&mut self.stream, head, target, exchange).await?)
            }
            (ControlFlow::Continue(None), Route::PublishAcked(target, wait)) => {
                // Boxed, since it may wait long, and few do.
                let (stream, handler) = (&mut self.stream, self.handler);
                let acked =
                    Box::pin(publish_acked(stream, handler, head, (target, wait), exchange));
                ControlFlow::Continue(acked.await?)
            }
            (ControlFlow::Continue(None), Route::PublishLines(target)) => {
                // Boxed, so that other requests have no room for a stream.
                let (stream, handler) = (&mut self.stream, self.handler);
                let lines = Box::pin(publish_lines(stream, handler, head, target, exchange));
                ControlFlow::Continue(lines.await?)
            }
            (ControlFlow::Continue(response), _) => {
                ControlFlow::Continue(response.unwrap_or_else(draining))
            }
        })
    }

    /// Finds the route of a request, or the response that refuses it, and notes what the response
    /// depends on.
    fn find_route(&self, head: &Head, exchange: &mut Exchange<'a>) -> Result<Route<'a>, Response> {
        let (request, config) = (&head.request, &self.stream.hub.shared().config);
        exchange.head_only = request.method() == Method::HEAD;
        exchange.has_unread_body = !matches!(head.framing, Framing::Unknown | Framing::Length(0));
        exchange.client_address =
            client_address(&self.stream.peer, request.headers(), &config.trusted_proxies);
        exchange.requested =
            if config.http { Requested::of(request) } else { Requested::WebSocket };
        let route = route(head, config, &mut exchange.allow_origin);
        // Frames may follow an upgrade, and a body whose length is unknown a POST: neither is a
        // request.
        let has_end = head.framing != Framing::Unknown
            || !matches!(*request.method(), Method::POST | Method::PUT);
        let is_upgrade = matches!(route, Ok(Route::Upgrade));
        exchange.keeps_alive = !is_upgrade && has_end && head.keeps_alive();
        route
    }

    /// Has the hook of a route decide, and does what needs no body.
    async fn call_hook(
        &mut self,
        head: &Head,
        peer: &Peer,
        route: &Route<'_>,
        query: EventsQuery,
    ) -> Result<ControlFlow<Joining<'a>, Option<Response>>, Response> {
        let (hub, request) = (self.stream.hub, &head.request);
        let reason = |status| self.handler.on_refusal(request, status);
        match route {
            Route::Publish(target @ Target::All)
            | Route::PublishAcked(target @ Target::All, _)
            | Route::PublishLines(target @ Target::All)
            | Route::Disconnect { target, .. } => {
                let hook = self.handler.on_act(request, peer, target);
                run_request_hook(hook, reason).await?;
                if !matches!(route, Route::Disconnect { .. }) {
                    return Ok(ControlFlow::Continue(None));
                }
            }
            Route::Publish(target)
            | Route::PublishAcked(target, _)
            | Route::PublishLines(target) => {
                let hook = self.handler.on_publish(request, peer, target);
                run_request_hook(hook, reason).await?;
                if hub.shared().post_rates.is_some() {
                    let messages = usize::from(!matches!(route, Route::PublishLines(_)));
                    admit_post(hub, self.handler, request, peer, messages)?;
                }
                return Ok(ControlFlow::Continue(None));
            }
            Route::Events | Route::Upgrade => {
                let hook = self.handler.on_upgrade(request, peer);
                let admission = run_request_hook(hook, reason).await?;
                let events = matches!(route, Route::Events).then_some(query);
                let joining = Joining::begin(hub, request, peer, admission, events)?;
                return Ok(ControlFlow::Break(joining));
            }
            Route::Metrics | Route::Rooms | Route::Members(_) => {
                run_request_hook(self.handler.on_inspect(request, peer), reason).await?;
            }
            Route::Health
            | Route::Page(_)
            | Route::Options(_)
            | Route::Read(_)
            | Route::HubEvents
            | Route::Endpoint => {}
        }
        Ok(ControlFlow::Continue(Some(match route {
            Route::Page(page) => Response::page(page, origin::host(request)),
            Route::Options(methods) => cors::options(methods, request),
            Route::Metrics => metrics::response(hub),
            Route::Rooms => rooms::rooms(hub, request.uri()).await?,
            Route::Members(room) => rooms::members(hub, request.uri(), room.clone()).await?,
            Route::Disconnect { target, room } => acts::disconnect(hub, target, room).await?,
            // All others have been answered.
            _ => health(hub).await,
        })))
    }

    /// Writes a response; `Err` if it is the last of the connection.
    async fn respond(
        &mut self,
        response: Response,
        mut exchange: Exchange<'a>,
    ) -> Result<KeepAlive, Error> {
        let hub = self.stream.hub;
        let shared = hub.shared();
        let response = cors::with_cors(response, exchange.allow_origin);
        let status = response.status;
        count_refusal(hub, exchange.requested, &exchange.client_address, &response);
        // What is behind a body that was not read, or behind a request that is late, is no request.
        let keeps_alive = exchange.keeps_alive
            && !exchange.has_unread_body
            && status != StatusCode::REQUEST_TIMEOUT;
        let slot = &mut exchange.slot;
        let has_idle_permit = keeps_alive && slot.takes_idle_permit();
        let idle_timeout = has_idle_permit.then_some(shared.config.idle_timeout);
        let mut bytes = response.encode(exchange.head_only, idle_timeout);
        let shared_body = response.shared_body(exchange.head_only);
        if !has_idle_permit {
            bytes.extend_from_slice(shared_body);
        }
        self.stream.be_patient(bytes.len() + shared_body.len() > LONG_RESPONSE_BYTES);
        let transport = &mut self.stream.transport;
        let last = LastResponse { bytes: &bytes, has_unread_body: exchange.has_unread_body };
        if has_idle_permit {
            write_response(hub, transport, &bytes, Some(&mut *slot)).await?;
            if !shared_body.is_empty() {
                // Boxed, since it is rare.
                Box::pin(write_response(hub, transport, shared_body, Some(&mut *slot))).await?;
            }
            if let Some(idle) = slot.keep_alive.take() {
                return Ok(KeepAlive { idle, permit: exchange.slot.permit, status });
            }
            // A response that took long has left its permit to a client.
            last.end(hub, transport, Some(slot)).await;
        } else {
            last.write(hub, transport, Some(slot)).await;
        }
        Err(response.into_error())
    }
}

/// Bytes of a response that a peer's host takes at once, about: the first window of TCP, which a peer
/// reads within the time of a client even at 1 KiB/s.
const LONG_RESPONSE_BYTES: usize = 16 * 1024;

/// Waits for a permit; `None` if none is free in the time of a handshake.
async fn acquire_handshake(hub: &Hub) -> Option<HandshakePermit> {
    let shared = hub.shared();
    let mut deadline = shared.timers.after(shared.config.handshake_timeout);
    deadline.within(shared.admissions.handshake()).await
}
