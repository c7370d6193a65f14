//! A connection before it is a client: one request after another, each under one deadline.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::FutureExt as _;
use futures_lite::future::{or, yield_now};
use futures_lite::io::AsyncWriteExt as _;
use http::{HeaderMap, Method, StatusCode, header};

use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::connection::linger::timed_out;
use crate::connection::refuse::{count_refusal, write_last_response};
use crate::connection::registration::{Admitted, Registering, register};
use crate::error::{Error, Kind};
use crate::http1::head::{Head, parse};
use crate::http1::origin;
use crate::http1::origin::AllowOrigin;
use crate::http1::response::{Response, draining, request_timeout, short_of_memory, unavailable};
use crate::hub::handle::Hub;
use crate::limits::admission::{HandshakePermit, KeepAlivePermit};
use crate::memory::budget::{Charge, allocation};
use crate::message::Message;
use crate::net::peer::Peer;
use crate::net::stream::Transport;
use crate::serve::routes::{Route, route};
use crate::serve::{metrics, rooms};
use crate::sse::connection;
use crate::stats::{RefusalReason, add};
use crate::time::clock::now;
use crate::websocket::upgrade::{AcceptKey, PendingUpgrade, accept_key, check_protocol};

/// How long a peer may stay silent while others wait for its place among the handshakes.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long `/health` waits for the manager: less than those who ask wait for `/health`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that one read of a head takes at most, of what comes behind it too.
const HEAD_READ_BYTES: usize = 1024;

/// A connection whose peer asks and is answered.
pub(crate) struct HttpConnection<'a, T, H> {
    hub: &'a Hub,
    transport: T,
    /// Where the connection comes from.
    peer: Peer,
    handler: &'a H,
    /// What was read and not yet understood; without capacity while the connection is idle.
    buffer: Vec<u8>,
    /// The memory of `buffer`, and of the rest of a body that has begun to come.
    held: Charge,
}

/// What a connection becomes with its last request.
pub(crate) enum Outcome<'a> {
    /// A WebSocket, once its client is in the registry.
    WebSocket(Box<PendingUpgrade<'a>>),
    /// A stream of events, and the head of its response, which is still to be written.
    Events(Admitted, Vec<u8>),
}

/// What follows a request that was answered.
enum AfterRequest<'a> {
    /// A client.
    Client(Outcome<'a>),
    /// The next request, in a place for idle connections; the last one had this status.
    Request(KeepAlivePermit, StatusCode),
}

/// What is known of a request so far.
#[derive(Default)]
struct Exchange {
    /// It is HEAD: the response has no body.
    head_only: bool,
    /// Another request may follow.
    keeps_alive: bool,
    /// Bytes of its body that were announced and not read.
    unread: usize,
    /// All of its body has come.
    is_whole: bool,
    /// Who may read the response, whatever it is.
    reader: AllowOrigin,
    /// Who asks, where a trusted proxy has said so.
    client_address: Option<Peer>,
}

/// What a request leads to.
enum Answer<'a> {
    /// A WebSocket: its client on its way, the answer to its key, and its subprotocol.
    WebSocket(Registering<'a>, AcceptKey, Option<Arc<str>>),
    /// A client that hears events.
    Events(Admitted),
    /// A response, and perhaps the next request.
    Response(Response),
}

/// What a request is found to ask for.
enum Found<'a> {
    /// Nothing more than a response.
    Response(Response),
    /// That a client is let in: a WebSocket's, if there is an answer to its key; and with this
    /// subprotocol.
    Client(Registering<'a>, Option<AcceptKey>, Option<Arc<str>>),
}

/// Why there is no answer.
#[derive(Debug)]
enum Ended {
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

impl<'a, T: Transport, H: Handler> HttpConnection<'a, T, H> {
    pub(crate) fn new(hub: &'a Hub, transport: T, peer: Peer, handler: &'a H) -> Self {
        let held = hub.memory().charge(0);
        Self { hub, transport, peer, handler, buffer: Vec::new(), held }
    }

    /// Answers requests until one of them makes the peer a client, and returns what carries its
    /// bytes; `Err` when none does.
    ///
    /// `place` is held while a request is under way; a connection that waits for its next one has
    /// a place that no client needs instead.
    pub(crate) fn run(
        mut self,
        place: HandshakePermit,
    ) -> impl Future<Output = Result<(Outcome<'a>, T), Error>> + Send {
        let mut place = Some(place);
        async move {
            let admissions = &self.hub.shared().admissions;
            loop {
                // Boxed, so that a connection that waits has no room for what a request needs.
                let (mut idle, status) = match Box::pin(self.serve_request(&mut place)).await? {
                    AfterRequest::Client(begun) => return Ok((begun, self.transport)),
                    AfterRequest::Request(idle, status) => (idle, status),
                };
                if !self.buffer.is_empty() && !admissions.is_crowded() {
                    // Who sends many requests at once does not keep others waiting.
                    yield_now().await;
                    continue;
                }
                // Who sends the next request with the last keeps nobody out.
                drop(place.take());
                // Until it has another it keeps the one of the idle: without any, nobody would
                // count it.
                if !self.buffer.is_empty() || self.wait(&mut idle).await {
                    place = Box::pin(acquire_handshake(self.hub)).await;
                }
                if place.is_none() {
                    let sentence = Cow::Borrowed("the last request was answered");
                    return Err(Error::new(Kind::Refused(status, sentence)));
                }
            }
        }
    }

    /// Waits for the first bytes of the next request; `false` if there will be none: the peer has
    /// left, time is over, the hub ends, or a client needs the place.
    async fn wait(&mut self, idle: &mut KeepAlivePermit) -> bool {
        self.buffer = Vec::new();
        self.held.resize(0);
        let shared = self.hub.shared();
        let mut over = shared.timers.after(shared.config.idle_timeout);
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_read(cx, HEAD_READ_BYTES) {
                return Poll::Ready(read.is_ok_and(|n| n > 0));
            }
            if Pin::new(&mut over).poll(cx).is_ready() || idle.poll_leave(cx).is_ready() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// Reads a request and answers it, all of it under one deadline, however the bytes trickle.
    ///
    /// `place` is its own among the handshakes, which a WebSocket takes along.
    async fn serve_request(
        &mut self,
        place: &mut Option<HandshakePermit>,
    ) -> Result<AfterRequest<'a>, Error> {
        let hub = self.hub;
        let shared = hub.shared();
        let mut deadline = shared.timers.after(shared.config.handshake_timeout);
        let mut seen = Exchange::default();
        let posted = AtomicBool::new(false);
        let late = place.as_ref().is_none_or(HandshakePermit::is_late);
        let overdue = async {
            Pin::new(&mut deadline).await;
            // What the inbox has is done, and soon, since the manager waits for no peer. To say that
            // it was not would have it sent twice.
            if posted.load(Ordering::Relaxed) {
                shared.timers.after(shared.config.handshake_timeout).await;
                return Err(Ended::With(outcome_unknown()));
            }
            Err(Ended::Late)
        };
        let response = match or(self.answer(&mut seen, &posted, late), overdue).await {
            Ok(Answer::WebSocket(registering, key, protocol)) => {
                return Ok(AfterRequest::Client(Outcome::WebSocket(Box::new(PendingUpgrade {
                    registering,
                    key,
                    protocol,
                    early: std::mem::take(&mut self.buffer),
                    _held: std::mem::replace(&mut self.held, hub.memory().charge(0)),
                    deadline,
                    _permit: place.take(),
                    allow_origin: seen.reader,
                    client_address: seen.client_address.unwrap_or(self.peer),
                }))));
            }
            Ok(Answer::Events(admitted)) => {
                add(&shared.counters.upgrades_accepted, 1);
                let head =
                    origin::with_cors(connection::response(), seen.reader).encode(false, false);
                return Ok(AfterRequest::Client(Outcome::Events(admitted, head)));
            }
            Ok(Answer::Response(response)) | Err(Ended::With(response)) => response,
            Err(Ended::Late) => {
                seen.keeps_alive = false;
                if seen.is_whole {
                    // It waits for us: the inbox is full, or a hook takes its time.
                    unavailable("the request was not done in time")
                } else {
                    request_timeout()
                }
            }
            Err(Ended::Silently) => {
                shared.counters.refuse(RefusalReason::Left);
                return Err(Error::new(Kind::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            Err(Ended::Io(error)) => {
                shared.counters.refuse(RefusalReason::Left);
                return Err(error.into());
            }
        };
        let response = origin::with_cors(response, seen.reader);
        count_refusal(hub, seen.client_address.as_ref().unwrap_or(&self.peer), &response);
        // Where a body was not read, nobody knows that the next request begins behind it.
        let next =
            (seen.keeps_alive && seen.unread == 0).then(|| shared.admissions.idle()).flatten();
        let Some(idle) = next else {
            return Err(
                write_last_response(hub, &mut self.transport, response, seen.head_only).await
            );
        };
        let bytes = response.encode(seen.head_only, true);
        add(&shared.counters.bytes_sent, bytes.len() as u64);
        self.write(&bytes).await?;
        Ok(AfterRequest::Request(idle, response.status))
    }

    /// `posted` becomes true when it is too late to refuse the request.
    async fn answer(
        &mut self,
        seen: &mut Exchange,
        posted: &AtomicBool,
        late: bool,
    ) -> Result<Answer<'a>, Ended> {
        let head = self.read_head().await?;
        // Boxed, so that who waits to be let in has no room for a request.
        match Box::pin(self.dispatch(head, seen, posted, late)).await? {
            Found::Response(response) => Ok(Answer::Response(response)),
            Found::Client(registering, Some(key), protocol) => {
                Ok(Answer::WebSocket(registering, key, protocol))
            }
            Found::Client(registering, None, _) => Ok(Answer::Events(registering.await?)),
        }
    }

    /// Finds out what a request asks for, and does it unless that is to let a client in.
    async fn dispatch(
        &mut self,
        head: Head,
        seen: &mut Exchange,
        posted: &AtomicBool,
        late: bool,
    ) -> Result<Found<'a>, Ended> {
        seen.head_only = head.request.method() == Method::HEAD;
        // A body whose length nobody told may follow a POST, and is no request.
        let has_end = head.content_length.is_some() || head.request.method() != Method::POST;
        let length = head.content_length.unwrap_or(0);
        seen.unread = usize::try_from(length).unwrap_or(usize::MAX);
        let (hub, request) = (self.hub, &head.request);
        let shared = hub.shared();
        let peer =
            origin::client_address(&self.peer, request.headers(), &shared.config.trusted_proxies);
        seen.client_address = Some(peer);
        let route = route(&head, &shared.config, &mut seen.reader);
        // Behind an upgrade frames may be on their way, which are no requests.
        let upgrades = matches!(route, Ok(Route::Upgrade));
        seen.keeps_alive = !upgrades && has_end && head.keeps_alive();
        let route = route?;
        let reason = |status| self.handler.on_refusal(request, status);
        if late || (matches!(route, Route::Health) && shared.admissions.is_closed()) {
            return Err(draining().into());
        }
        Ok(Found::Response(match route {
            Route::Health => {
                seen.is_whole = true;
                health(hub).await
            }
            Route::Page(page) => Response::page(page),
            Route::Options(methods) => origin::options(methods, request),
            Route::Metrics | Route::Rooms | Route::Members(_) => {
                run_request_hook(self.handler.on_inspect(request, &peer), reason).await?;
                match route {
                    Route::Rooms => rooms::rooms(hub, request.uri()).await?,
                    Route::Members(room) => rooms::members(hub, request.uri(), room).await?,
                    _ => metrics::response(hub),
                }
            }
            Route::Publish(target) => {
                run_request_hook(self.handler.on_publish(request, &peer, &target), reason).await?;
                let message = self.read_message(&head, seen).await?;
                add(&shared.counters.messages_received, 1);
                match hub.post(target, message).await {
                    Ok(answer) => {
                        posted.store(true, Ordering::Relaxed);
                        answer.await.map_or_else(outcome_unknown, published)
                    }
                    Err(_) => draining(),
                }
            }
            Route::Events | Route::Upgrade => {
                let admission =
                    run_request_hook(self.handler.on_upgrade(request, &peer), reason).await?;
                check_protocol(request, admission.protocol.as_deref())?;
                let key = upgrades.then(|| accept_key(request));
                let protocol = admission.protocol.clone();
                let registering = register(hub, peer.network(), admission)?;
                return Ok(Found::Client(registering, key, protocol));
            }
        }))
    }

    /// Reads a head; what came behind it stays in the buffer.
    async fn read_head(&mut self) -> Result<Head, Ended> {
        let mut searched = 0;
        loop {
            if self.buffer.len() > searched {
                if let Some(head) = parse(&self.buffer, searched)? {
                    self.buffer = self.buffer.split_off(head.len);
                    self.held.resize(allocation(self.buffer.capacity()));
                    return Ok(head);
                }
                searched = self.buffer.len();
            }
            let silent = self.buffer.is_empty();
            let shared = self.hub.shared();
            let crowded_out = async {
                loop {
                    shared.timers.after(SILENCE_MAX).await;
                    if silent && shared.admissions.is_crowded() {
                        return Ok(0);
                    }
                }
            };
            let read = poll_fn(|cx| self.poll_read(cx, HEAD_READ_BYTES));
            if or(read, crowded_out).await? == 0 {
                return Err(Ended::Silently);
            }
            self.held.resize(allocation(self.buffer.capacity()));
        }
    }

    /// Reads a body of at most the longest message, and makes a message of it.
    async fn read_message(&mut self, head: &Head, seen: &mut Exchange) -> Result<Message, Ended> {
        let len = seen.unread;
        if self.hub.memory().is_high() {
            // Who posts does not wait, as a client does, so it has the manager look at once for
            // somebody who has owed some for too long. For newcomers nobody has to go.
            self.hub.memory().set_time(now());
            self.hub.want_eviction();
            return Err(short_of_memory().into());
        }
        // All of it at once, so that it can come when memory is short; the buffer doubles.
        self.held.resize(allocation(self.buffer.capacity().max(2 * len)));
        // What has begun to come needs no asking for it (RFC 9110 10.1.1).
        if self.buffer.is_empty() && len > 0 && head.expects_continue() {
            self.transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            self.transport.flush().await?;
        }
        while self.buffer.len() < len {
            let rest = len - self.buffer.len();
            if poll_fn(|cx| self.poll_read(cx, rest)).await? == 0 {
                return Err(Ended::Silently);
            }
        }
        seen.unread = 0;
        seen.is_whole = true;
        let message = message(&self.buffer[..len], head.request.headers());
        message.charge(self.hub.memory());
        self.buffer = self.buffer.split_off(len);
        self.held.resize(allocation(self.buffer.capacity()));
        Ok(message)
    }

    /// Reads what is there into the buffer, at most `most` bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
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

    /// Writes a response that others may follow.
    async fn write(&mut self, response: &[u8]) -> io::Result<()> {
        let timeout = self.hub.shared().config.write_timeout;
        let written = async {
            self.transport.write_all(response).await?;
            self.transport.flush().await
        };
        written.or(timed_out(self.hub, timeout)).await
    }
}

/// Waits for a place among the handshakes; `None` if none is free in the time of a handshake.
async fn acquire_handshake(hub: &Hub) -> Option<HandshakePermit> {
    let shared = hub.shared();
    let place = async { Some(shared.admissions.handshake().await) };
    let too_late = async {
        shared.timers.after(shared.config.handshake_timeout).await;
        None
    };
    or(place, too_late).await
}

/// The message that a body makes: text, unless it is not UTF-8 or its type says otherwise.
fn message(body: &[u8], headers: &HeaderMap) -> Message {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().trim_ascii_start().to_ascii_lowercase();
    let binary = ["application/octet-stream", "image/", "audio/", "video/"];
    match std::str::from_utf8(body) {
        Ok(text) if !binary.iter().any(|binary| kind.starts_with(binary)) => Message::text(text),
        _ => Message::binary(body),
    }
}

/// The answer to whether the hub serves: it does if its manager answers.
async fn health(hub: &Hub) -> Response {
    let answers = async {
        // A room that nobody can be in: the answer is short.
        hub.presence("").await.is_ok()
    };
    let too_late = async {
        hub.shared().timers.after(HEALTH_TIMEOUT).await;
        false
    };
    if or(answers, too_late).await {
        Response::new(StatusCode::OK, "ok")
    } else {
        unavailable("the manager does not answer in time")
    }
}

/// The answer to a message of which nobody can say whether it was dispatched. It says nothing of
/// trying again, which could send it twice.
fn outcome_unknown() -> Response {
    let sentence = "the hub cannot say whether the message was sent";
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
}

/// The answer to a message that was dispatched.
fn published(recipients: usize) -> Response {
    let body = format!("{{\"recipients\":{recipients}}}");
    Response::with_type(StatusCode::ACCEPTED, "application/json", body.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastrand::Rng;
    use futures_lite::future::block_on;
    use http::Request;
    use smol::{Executor, Task};

    use super::*;
    use crate::config::Config;
    use crate::connection::handler::Admission;
    use crate::connection::registration::admit;
    use crate::disconnect::Disconnect;
    use crate::hub::client::Client;
    use crate::hub::client_id::Target;
    use crate::memory::budget::AGING_TICK;
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    struct Open;
    impl Handler for Open {
        async fn on_publish(
            &self,
            _: &Request<()>,
            _: &Peer,
            _: &Target,
        ) -> Result<(), StatusCode> {
            Ok(())
        }

        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    const POST: &str = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    /// A peer that has asked something, served by `connections`.
    fn ask_for(request: &str, hub: &Hub, connections: &Executor<'static>) -> Arc<Line> {
        let line = Line::new(usize::MAX, usize::MAX, Rng::with_seed(1));
        line.send(request.as_bytes());
        let (serving, socket) = (hub.clone(), Socket::new(&line, false));
        let connection =
            async move { drop(serving.serve_connection(socket, Peer::unix(), &Open).await) };
        connections.spawn(connection).detach();
        line
    }
    /// A peer that has asked something, and a manager that runs when the test lets it.
    struct Stage {
        time: VirtualTime,
        hub: Hub,
        manager: Option<Task<()>>,
        managers: Executor<'static>,
        connections: Executor<'static>,
        line: Arc<Line>,
    }
    impl Stage {
        /// `before` is how many commands wait in an inbox of two.
        fn new(before: usize, request: &str) -> Self {
            let (time, managers) = (VirtualTime::start(), Executor::new());
            let (hub, manager) = Hub::new(Config::default().http(true).inbox(2)).expect("valid");
            for _ in 0..before {
                hub.try_publish("main", "before").expect("there is room");
            }
            let connections = Executor::new();
            let line = ask_for(request, &hub, &connections);
            let manager = Some(managers.spawn(manager));
            let stage = Self { time, hub, manager, managers, connections, line };
            stage.wait(Duration::ZERO);
            stage
        }

        /// Lets time pass, and all run but the manager.
        fn wait(&self, wait: Duration) {
            self.time.advance(wait);
            while self.connections.try_tick() {}
        }

        /// Lets the manager run too.
        fn manage(&self) {
            while self.managers.try_tick() || self.connections.try_tick() {}
        }

        #[track_caller]
        fn is_answered(&self, status: u16, retry_after: bool) {
            let answer = String::from_utf8(self.line.lock().taken.clone()).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(answer.contains("Retry-After"), retry_after, "{answer}");
        }

        #[track_caller]
        fn is_not_answered(&self) {
            assert_eq!(self.line.lock().taken, b"");
        }
    }
    #[test]
    fn a_message_in_the_inbox_is_answered_for_when_it_is_dispatched() {
        let stage = Stage::new(1, POST);
        stage.wait(Config::HANDSHAKE_TIMEOUT);
        stage.is_not_answered();
        stage.manage();
        stage.is_answered(202, false);
        assert_eq!(stage.hub.stats().messages_dispatched, 2);
    }
    #[test]
    fn a_message_that_finds_no_room_in_time_is_refused_and_never_sent() {
        let stage = Stage::new(2, POST);
        stage.wait(Config::HANDSHAKE_TIMEOUT);
        stage.is_answered(503, true);
        stage.manage();
        assert_eq!(stage.hub.stats().messages_dispatched, 2);
    }
    #[test]
    fn of_a_message_that_was_in_the_inbox_at_the_end_nothing_is_claimed() {
        let mut stage = Stage::new(0, POST);
        drop(stage.manager.take());
        stage.manage();
        stage.is_answered(500, false);
    }
    /// What nobody gives back will not come by itself.
    #[test]
    fn who_posts_while_memory_is_short_has_the_debtor_evicted() {
        let (time, executor) = (VirtualTime::start(), Executor::new());
        let config = Config::default().http(true).max_memory(Some(4 << 20)).queue_bytes(4 << 20);
        let (hub, manager) = Hub::new(config).expect("enough");
        executor.spawn(manager).detach();
        let run = || while executor.try_tick() {};
        hub.memory().set_time(now());
        let admission = Admission::anonymous().room("main");
        let _debtor = block_on(executor.run(admit(&hub, admission))).expect("a place");
        while !hub.memory().is_high() {
            let message = Message::from(vec![7; Config::MAX_MESSAGE]);
            hub.try_publish("main", message).expect("the inbox is empty");
            run();
        }
        let post = || {
            let line = ask_for(POST, &hub, &executor);
            run();
            let answer = String::from_utf8(line.lock().taken.clone()).expect("text");
            (answer[9..12].to_owned(), hub.stats().clients)
        };
        assert_eq!(post(), ("503".into(), 1), "it has owed for a moment only");
        time.advance(2 * AGING_TICK);
        assert_eq!(post(), ("503".into(), 0));
        // Those who were refused leave their places.
        time.advance(Config::CLOSE_TIMEOUT);
        run();
        assert_eq!(post(), ("202".into(), 0));
    }
    #[test]
    fn a_hub_is_healthy_if_its_manager_answers_in_time() {
        const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let stage = Stage::new(2, HEALTH);
        stage.is_not_answered();
        stage.manage();
        stage.is_answered(200, false);
        drop(stage);
        for before in [0, 2] {
            let stage = Stage::new(before, HEALTH);
            stage.wait(HEALTH_TIMEOUT - Duration::from_millis(1));
            stage.is_not_answered();
            stage.wait(Duration::from_millis(1));
            stage.is_answered(503, true);
        }
        let mut ended = Stage::new(0, HEALTH);
        drop(ended.manager.take());
        ended.manage();
        ended.is_answered(503, true);
    }
    /// Its goodbye is not over, and takes as long as its peer likes.
    #[test]
    fn who_came_too_late_keeps_nobody_out_of_the_inbox() {
        let stage = Stage::new(2, UPGRADE);
        stage.wait(Config::HANDSHAKE_TIMEOUT);
        stage.is_answered(408, false);
        stage.manage();
        assert_eq!(stage.hub.stats().messages_dispatched, 2, "the inbox is empty");
        stage.hub.try_publish("main", "at once").expect("nobody waits for room");
        stage.manage();
        assert_eq!(stage.hub.stats().messages_dispatched, 3);
    }
    #[test]
    fn who_came_too_late_has_no_place() {
        let stage = Stage::new(1, UPGRADE);
        stage.wait(Config::HANDSHAKE_TIMEOUT);
        stage.is_answered(408, false);
        stage.manage();
        assert_eq!(stage.hub.stats().clients, 0);
        stage.hub.shared().admissions.client(None).expect("a place");
    }
}
