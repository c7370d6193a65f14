//! Connections that ask over HTTP, on a network and a clock that the test moves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use futures_lite::future::block_on;
use http::{Request, StatusCode};
use smol::{Executor, Task};

use crate::config::{Config, Page};
use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::registration::{ClientKind, admit};
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::client_id::Target;
use crate::hub::handle::Hub;
use crate::memory::budget::AGING_TICK;
use crate::message::Message;
use crate::peer::Peer;
use crate::serve::health::HEALTH_TIMEOUT;
use crate::serve::http_connection::HttpConnection;
use crate::sim::network::{Line, Socket};
use crate::stats::{RefusalReason, Requested};
use crate::time::clock::now;
use crate::time::virtual_time::VirtualTime;

struct Open;
impl Handler for Open {
    async fn on_publish(&self, _: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

const POST: &str = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A peer that has sent a request, served by `connections`.
fn peer(request: &str, hub: &Hub, connections: &Executor<'static>) -> Arc<Line> {
    slow_peer(usize::MAX, request, hub, connections)
}

/// A peer that has sent a request, to which `room` bytes can be written for now.
fn slow_peer(room: usize, request: &str, hub: &Hub, connections: &Executor<'static>) -> Arc<Line> {
    let line = Line::new(room, usize::MAX, Rng::with_seed(1));
    line.send(request.as_bytes());
    let (serving, socket) = (hub.clone(), Socket::new(&line, false));
    let connection =
        async move { drop(serving.serve_connection(socket, Peer::unix(), &Open).await) };
    connections.spawn(connection).detach();
    line
}

/// A peer that has sent a request, and a manager that runs when the test lets it.
struct Stage {
    hub: Hub,
    manager: Option<Task<()>>,
    managers: Executor<'static>,
    connections: Executor<'static>,
    line: Arc<Line>,
    /// Dropped last: the others use its clock while they are dropped, also if a test fails.
    time: VirtualTime,
}

impl Stage {
    /// `before` is how many commands wait in an inbox of two.
    fn new(before: usize, request: &str) -> Self {
        Self::with(Config::default().http(true).inbox(2), before, request)
    }

    fn with(config: Config, before: usize, request: &str) -> Self {
        let (time, managers) = (VirtualTime::start(), Executor::new());
        let (hub, manager) = Hub::new(config).expect("valid");
        for _ in 0..before {
            hub.try_publish("main", "before").expect("there is room");
        }
        let connections = Executor::new();
        let line = peer(request, &hub, &connections);
        let manager = Some(managers.spawn(manager));
        let stage = Self { hub, manager, managers, connections, line, time };
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

    /// How many requests were refused since they were late.
    fn late(&self, requested: Requested) -> u64 {
        let refused = &self.hub.shared().counters.refused[requested as usize];
        refused[RefusalReason::Late as usize].load(Ordering::Relaxed)
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

/// Memory that a stalled client pins does not become free by itself.
#[test]
fn a_post_while_memory_is_short_has_the_client_evicted_that_pins_it() {
    let (time, executor) = (VirtualTime::start(), Executor::new());
    let config = Config::default().http(true).max_memory(Some(4 << 20)).queue_bytes(4 << 20);
    let (hub, manager) = Hub::new(config).expect("enough");
    executor.spawn(manager).detach();
    let run = || while executor.try_tick() {};
    hub.memory().set_time(now());
    let admission = Admission::anonymous().room("main");
    let _stalled =
        block_on(executor.run(admit(&hub, admission, ClientKind::WebSocket))).expect("a place");
    while !hub.memory().is_high() {
        let message = Message::from(vec![7; Config::MAX_MESSAGE]);
        hub.try_publish("main", message).expect("the inbox is empty");
        run();
    }
    let post = || {
        let line = peer(POST, &hub, &executor);
        run();
        let answer = String::from_utf8(line.lock().taken.clone()).expect("text");
        (answer[9..12].to_owned(), hub.stats().clients)
    };
    assert_eq!(post(), ("503".into(), 1), "the client has pinned it for a moment only");
    time.advance(2 * AGING_TICK);
    assert_eq!(post(), ("503".into(), 0));
    // The refused posters give their places back.
    time.advance(Config::CLOSE_TIMEOUT);
    run();
    assert_eq!(post(), ("202".into(), 0));
}

#[test]
fn a_hub_is_healthy_if_its_manager_answers_in_time() {
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

/// Its lingering close is not over, and takes as long as its peer likes.
#[test]
fn a_client_that_came_too_late_keeps_no_other_out_of_the_inbox() {
    let stage = Stage::new(2, UPGRADE);
    stage.wait(Config::HANDSHAKE_TIMEOUT);
    stage.is_answered(408, false);
    stage.manage();
    assert_eq!(stage.hub.stats().messages_dispatched, 2, "the inbox is empty");
    stage.hub.try_publish("main", "at once").expect("no sender waits for room");
    stage.manage();
    assert_eq!(stage.hub.stats().messages_dispatched, 3);
}

#[test]
fn a_client_that_came_too_late_has_no_permit() {
    let stage = Stage::new(1, UPGRADE);
    stage.wait(Config::HANDSHAKE_TIMEOUT);
    stage.is_answered(408, false);
    stage.manage();
    assert_eq!(stage.hub.stats().clients, 0);
    stage.hub.shared().admissions.client(None).expect("a place");
}

const SECOND: Duration = Duration::from_secs(1);
/// The head of a request with a body of 40 bytes.
const SLOW: &str = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n";
impl Stage {
    /// Sends a byte of a body every `gap`, `count` times.
    fn trickle(&self, gap: Duration, count: usize) {
        for _ in 0..count {
            self.wait(gap);
            self.line.send(b"x");
            self.wait(Duration::ZERO);
        }
    }
}

#[test]
fn body_that_makes_progress_is_not_late() {
    let stage = Stage::new(0, SLOW);
    stage.trickle(SECOND / 2, 40);
    stage.manage();
    stage.is_answered(202, false);
}

#[test]
fn body_without_progress_for_the_time_of_a_handshake_is_late() {
    let stage = Stage::new(0, SLOW);
    stage.trickle(4 * SECOND, 2);
    stage.wait(Config::HANDSHAKE_TIMEOUT - SECOND / 10);
    stage.is_not_answered();
    stage.wait(SECOND / 5);
    stage.is_answered(408, false);
}

#[test]
fn body_that_trickles_is_late_when_a_message_would_be() {
    let stage = Stage::new(0, SLOW);
    stage.trickle(4 * SECOND, 7);
    stage.is_not_answered();
    stage.wait(Config::MESSAGE_TIMEOUT - 28 * SECOND);
    stage.wait(SECOND / 10);
    stage.is_answered(408, false);
}

/// A hub with one slot among the handshakes.
fn narrow() -> Config {
    Config::default().http(true).handshakes(1).max_clients(Some(1))
}

#[test]
fn body_that_takes_longer_than_a_handshake_keeps_no_slot() {
    let stage = Stage::with(narrow(), 0, SLOW);
    let other = peer(HEALTH, &stage.hub, &stage.connections);
    stage.trickle(SECOND, 4);
    stage.manage();
    assert_eq!(other.lock().taken, b"", "the slot is taken");
    stage.trickle(SECOND, 1);
    stage.wait(SECOND / 10);
    stage.manage();
    assert!(other.lock().taken.starts_with(b"HTTP/1.1 200 "), "the slot is free");
    stage.trickle(SECOND / 8, 35);
    stage.manage();
    stage.is_answered(202, false);
}

#[test]
fn slow_body_leaves_its_permit_to_a_client() {
    let stage = Stage::with(narrow(), 0, SLOW);
    stage.trickle(SECOND, 6);
    stage.is_not_answered();
    let _client = stage.hub.shared().admissions.client(None).expect("a place");
    stage.wait(Duration::ZERO);
    stage.is_answered(408, false);
    // It has the time to read the answer, also without a place: a reset would destroy that.
    stage.wait(Config::CLOSE_TIMEOUT - SECOND / 10);
    assert!(!stage.line.lock().closed);
    stage.line.end();
    stage.wait(Duration::ZERO);
    assert!(stage.line.lock().closed);
}

#[test]
fn slow_body_without_a_permit_is_late() {
    let stage = Stage::with(narrow(), 0, SLOW);
    let _client = stage.hub.shared().admissions.client(None).expect("a place");
    stage.trickle(SECOND, 4);
    stage.is_not_answered();
    stage.wait(SECOND);
    stage.wait(SECOND / 10);
    stage.is_answered(408, false);
}

/// Nothing that a peer does later keeps a slot whose stream is not made in time.
#[test]
fn stream_that_is_not_made_in_time_ends_the_connection() {
    let stage = Stage::with(narrow(), 0, HEALTH);
    stage.manage();
    let (hub, admissions) = (stage.hub.clone(), &stage.hub.shared().admissions);
    stage.wait(Config::CLOSE_TIMEOUT);
    let permit = block_on(stage.connections.run(admissions.handshake()));
    let never = std::future::pending::<io::Result<Socket>>();
    let connection = async move {
        HttpConnection::run(&hub, never, Peer::unix(), &Open, permit).await.map(drop)
    };
    let connection = stage.connections.spawn(connection);
    stage.wait(Duration::ZERO);
    stage.wait(Config::HANDSHAKE_TIMEOUT - SECOND / 10);
    assert!(!connection.is_finished());
    stage.wait(SECOND / 5);
    assert!(connection.is_finished());
    assert!(block_on(connection).is_err());
    assert!(!admissions.is_full());
    assert_eq!(stage.late(Requested::Other), 1);
}

/// A peer that reads slowly, and has requested [`HEALTH`], or so that no request follows.
struct SlowReader {
    stage: Stage,
    line: Arc<Line>,
}

impl SlowReader {
    /// Bytes that it reads at once.
    const STEP: usize = 16;

    fn new(config: Config, request: &str) -> Self {
        let stage = Stage::with(config, 0, HEALTH);
        stage.manage();
        stage.line.end();
        let line = slow_peer(Self::STEP, request, &stage.hub, &stage.connections);
        let reader = Self { stage, line };
        reader.stage.manage();
        reader
    }

    /// Reads once after each `gap`, at most `count` times; returns whether it has the whole answer.
    fn reads(&self, gap: Duration, count: usize) -> bool {
        let mut left = count;
        while left > 0 && !self.has_all() {
            self.stage.wait(gap);
            self.line.grant(Self::STEP);
            self.stage.manage();
            left -= 1;
        }
        self.has_all()
    }

    fn has_all(&self) -> bool {
        self.line.lock().taken.ends_with(b"ok\n")
    }

    fn is_cut_off(&self) -> bool {
        self.line.lock().closed
    }
}

const LAST_HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn response_that_a_slow_peer_still_reads_is_not_cut_off() {
    for request in [HEALTH, LAST_HEALTH] {
        let reader = SlowReader::new(Config::default().http(true), request);
        assert!(reader.reads(Config::WRITE_TIMEOUT - SECOND, 20), "it has it all: {request}");
        assert!(!reader.is_cut_off(), "it is not closed either");
    }
}

#[test]
fn response_that_makes_no_progress_ends_after_four_write_timeouts() {
    let reader = SlowReader::new(Config::default().http(true), LAST_HEALTH);
    reader.reads(Config::WRITE_TIMEOUT - SECOND, 2);
    reader.stage.wait(4 * Config::WRITE_TIMEOUT - SECOND / 10);
    assert!(!reader.is_cut_off());
    reader.stage.wait(SECOND / 5);
    assert!(reader.is_cut_off());
}

#[test]
fn response_that_trickles_ends_with_its_bound() {
    let reader = SlowReader::new(Config::default().http(true), LAST_HEALTH);
    let left = reader.line.lock().taken.len();
    assert_eq!(left, SlowReader::STEP);
    for _ in 0..74 {
        reader.stage.wait(4 * SECOND);
        reader.line.grant(1);
        reader.stage.manage();
    }
    assert!(!reader.is_cut_off(), "296 s");
    reader.stage.wait(5 * SECOND);
    assert!(reader.is_cut_off(), "301 s");
}

#[test]
fn response_that_takes_longer_than_a_handshake_keeps_no_slot_and_makes_way() {
    for request in [HEALTH, LAST_HEALTH] {
        let reader = SlowReader::new(narrow(), request);
        reader.reads(SECOND, 4);
        let other = peer(HEALTH, &reader.stage.hub, &reader.stage.connections);
        reader.stage.manage();
        assert_eq!(other.lock().taken, b"", "the slot is taken");
        reader.reads(SECOND, 2);
        assert!(other.lock().taken.starts_with(b"HTTP/1.1 200 "), "the slot is free");
        assert!(!reader.is_cut_off());
        let _client = reader.stage.hub.shared().admissions.client(None).expect("a place");
        reader.stage.wait(Duration::ZERO);
        assert!(!reader.is_cut_off(), "it has the write timeout at least");
        reader.stage.wait(4 * SECOND + SECOND / 10);
        assert!(reader.is_cut_off());
    }
}

#[test]
fn response_that_makes_a_websocket_has_the_time_of_the_handshake() {
    for reads in [true, false] {
        let reader = SlowReader::new(Config::default().http(true), UPGRADE);
        let SlowReader { stage, line } = &reader;
        assert_eq!(line.lock().taken.len(), SlowReader::STEP, "a part of it");
        stage.wait(Config::HANDSHAKE_TIMEOUT - SECOND / 10);
        assert!(!reader.is_cut_off());
        if reads {
            line.grant(usize::MAX);
            stage.manage();
            assert!(line.lock().taken.ends_with(b"\r\n\r\n"), "it is whole");
        }
        stage.wait(SECOND / 5);
        stage.manage();
        assert_eq!(reader.is_cut_off(), !reads);
        assert_eq!(stage.hub.stats().clients, usize::from(reads));
        assert_eq!(stage.late(Requested::WebSocket), u64::from(!reads));
    }
}

/// A stream that is no kernel's, and a socket under a ceiling, lose what they hold when they close.
#[test]
fn long_response_is_not_destroyed_while_a_slow_peer_may_read_it() {
    let body = "x".repeat(8 * 1024).leak();
    let page = Page { path: "/", content_type: "text/plain", headers: &[], body };
    let request = LAST_HEALTH.replace("/health", "/");
    let config = || Config::default().http(true);
    for (config, reading) in [(config(), 0), (config().pages(vec![page]), 4)] {
        let stage = Stage::with(config, 0, &request);
        stage.manage();
        assert!(stage.line.lock().shut, "it is written");
        stage.wait(Config::CLOSE_TIMEOUT + reading * SECOND - SECOND / 10);
        assert!(!stage.line.lock().closed);
        stage.wait(SECOND / 5);
        assert!(stage.line.lock().closed);
    }
}
