//! Server-sent events: the same rooms and limits as for WebSocket clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use futures_lite::future::block_on;
use hublet::{Config, Disconnect, Message, Peer as Source};

use crate::peer::Peer;
use crate::pipe::pipe;
use crate::support::{Chat, TestHub, until};

pub(crate) fn routed(config: Config) -> TestHub {
    TestHub::with(config.http(true))
}

pub(crate) fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Subscribes, and reads the first comment.
#[track_caller]
pub(crate) fn listen(hub: &TestHub, path: &str) -> Peer<TcpStream> {
    begin(hub.dial(), path)
}

#[track_caller]
fn begin(mut peer: Peer<TcpStream>, path: &str) -> Peer<TcpStream> {
    let response = peer.request(&request(path));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(response.header("Cache-Control"), Some("no-store, no-transform"));
    assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(response.header("Content-Length"), None);
    assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(chunk(&mut peer), HEARTBEAT);
    peer
}

/// A comment. It has no blank line, at which parsers such as httpx-sse hand on an event.
pub(crate) const HEARTBEAT: &str = ":\n";

/// Reads a chunk: an event, a comment, or a part of a long event.
#[track_caller]
pub(crate) fn chunk(peer: &mut Peer<impl Read + Write>) -> String {
    let size = String::from_utf8(peer.read(6)).expect("text");
    let size = size.strip_suffix("\r\n").and_then(|size| usize::from_str_radix(size, 16).ok());
    let size = size.expect("four digits");
    let mut chunk = peer.read(size + 2);
    assert_eq!(chunk.split_off(size), b"\r\n");
    String::from_utf8(chunk).expect("text")
}

/// Reads a whole event, and leaves out its position: the count of a room begins at a random number.
#[track_caller]
fn event(peer: &mut Peer<impl Read + Write>) -> String {
    let mut event = String::new();
    while !event.ends_with("\n\n") {
        event.push_str(&chunk(peer));
    }
    without_position(&event).to_owned()
}

/// An event without the line of its position, if it has one.
fn without_position(event: &str) -> &str {
    event
        .strip_prefix("id: ")
        .and_then(|rest| rest.split_once('\n'))
        .map_or(event, |(_, rest)| rest)
}

#[test]
fn messages_of_a_room_arrive_as_events() {
    let hub = routed(Config::default());
    let mut events = listen(&hub, "/sse/a");
    let mut speaker = hub.join_at("/ws/a");
    speaker.say("one\ntwo");
    assert_eq!(event(&mut events), "data: one\ndata: two\n\n");
    assert_eq!(hub.ask(hub.hub.publish("a", &b"\0\xff"[..])), 2);
    assert_eq!(event(&mut events), "event: binary\ndata: AP8=\n\n");
    assert_eq!(hub.ask(hub.hub.publish("b", "elsewhere")), 0);
    drop((events, speaker));
    hub.empties();
}

/// Messages that are encoded in many pieces, through streams that take a part of each: a client
/// that reads gets all of them. A lost wake would leave it waiting for minutes.
#[test]
fn client_that_reads_a_narrow_stream_gets_everything() {
    let minutes = Duration::from_secs(600);
    let hub = routed(Config::default().write_timeout(minutes).ping_interval(minutes));
    let text = "x".repeat(60_000);
    let lines = "\n".repeat(20_000);
    for room in [100, 4096, 10_000, 50_000] {
        let (stream, end) = pipe(room);
        let serving = hub.hub.clone();
        let connection = hub
            .spawn(async move { serving.serve_connection(stream, Source::unknown(), &Chat).await });
        let mut events = Peer::at(end);
        assert_eq!(events.request(&request("/sse")).status, 200);
        assert_eq!(chunk(&mut events), HEARTBEAT);
        for message in [text.as_str(), lines.as_str(), "short"] {
            hub.broadcast(message);
        }
        assert_eq!(event(&mut events), format!("data: {text}\n\n"));
        assert_eq!(event(&mut events), "data: \n".repeat(20_001) + "\n");
        assert_eq!(event(&mut events), "data: short\n\n");
        drop(events);
        block_on(connection).expect("it was a client");
    }
    hub.empties();
}

#[test]
fn http_1_0_clients_get_events_without_chunks() {
    let hub = routed(Config::default());
    let mut peer = hub.dial();
    let response = peer.request("GET /sse HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.header("Transfer-Encoding")), (200, None));
    assert_eq!(peer.read(HEARTBEAT.len()), HEARTBEAT.as_bytes());
    hub.broadcast("hello");
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        event.extend(peer.read(1));
    }
    assert_eq!(without_position(&String::from_utf8(event).expect("text")), "data: hello\n\n");
}

#[test]
fn a_comment_comes_at_the_ping_interval() {
    let hub = routed(Config::default().ping_interval(Duration::from_millis(50)));
    let mut events = listen(&hub, "/sse");
    for _ in 0..3 {
        assert_eq!(chunk(&mut events), HEARTBEAT);
    }
}

/// A page cannot see comments, so one that watches its stream asks for events.
#[test]
fn an_event_comes_at_the_ping_interval_to_a_client_that_asks_for_it() {
    let hub = routed(Config::default().ping_interval(Duration::from_millis(50)));
    let mut peer = hub.dial();
    assert_eq!(peer.request(&request("/sse?probe=1")).status, 200);
    for _ in 0..3 {
        // The interval in seconds, rounded up.
        assert_eq!(event(&mut peer), "event: ping\ndata: 1\n\n");
    }
}

#[test]
fn end_of_a_client_is_noticed() {
    let hub = routed(Config::default());
    drop(listen(&hub, "/sse"));
    hub.empties();
    listen(&hub, "/sse").reset();
    hub.empties();
}

#[test]
fn drain_sends_the_reason_after_queued_messages() {
    let hub = routed(Config::default().drain(Duration::ZERO));
    let mut events = listen(&hub, "/sse");
    hub.broadcast("last words");
    thread::scope(|scope| {
        scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        assert_eq!(event(&mut events), "data: last words\n\n");
        let close = "event: close\ndata: {\"code\":1012,\"reason\":\"restarting\"}\n";
        assert!(event(&mut events).starts_with(close));
        assert_eq!(events.read(5), b"0\r\n\r\n", "the end of the body");
        events.ends();
        drop(events);
    });
    hub.empties();
}

#[test]
fn disconnect_sends_its_reason_on_one_line() {
    let hub = routed(Config::default());
    let mut events = listen(&hub, "/sse/a");
    let id = hub.ask(hub.hub.presence("a"))[0].id;
    hub.ask(hub.hub.disconnect(id, Disconnect::new(4000, "go\n\ndata: \"x\"")));
    let close =
        "event: close\ndata: {\"code\":4000,\"reason\":\"go\\u000a\\u000adata: \\\"x\\\"\"}\n";
    let event = event(&mut events);
    let retry = event.strip_prefix(close).expect("the reason");
    assert!(retry.starts_with("retry: ") && retry.lines().count() == 2, "{event}");
}

#[test]
fn a_drain_tells_each_reader_another_time_to_reconnect_after() {
    let hub = routed(Config::default().drain(Duration::ZERO));
    let mut readers: Vec<_> = (0..20).map(|_| listen(&hub, "/sse")).collect();
    let mut waits = thread::scope(|scope| {
        scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        // Each leaves as it has read, so that the drain ends.
        let waits = readers.drain(..).map(|mut reader| {
            let close = event(&mut reader);
            let wait = close.lines().find_map(|line| line.strip_prefix("retry: "));
            wait.expect("a line of its own").parse::<u16>().expect("milliseconds")
        });
        waits.collect::<Vec<_>>()
    });
    assert!(waits.iter().all(|wait| (1_000..=5_000).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    // Twenty draws from 4,001 values are seldom equal.
    assert!(waits.len() >= 15, "{waits:?}");
}

#[test]
fn client_that_does_not_read_is_evicted_and_others_get_everything() {
    let hub = routed(Config::default());
    let mut slow = begin(Peer::dial_narrow(&hub.address), "/sse");
    let mut quick = listen(&hub, "/sse");
    let long = Message::from("x".repeat(60_000));
    let mut sent = 0;
    while hub.hub.stats().clients_evicted == 0 {
        hub.broadcast(long.clone());
        sent += 1;
        assert_eq!(event(&mut quick).len(), "data: \n\n".len() + 60_000);
        assert!(sent < 1000, "the queue is bounded");
    }
    until("it is removed", || hub.hub.stats().clients == 1);
    // A partial event may be the last, but no other event follows it.
    let rest = unchunked(&String::from_utf8(slow.read_rest()).expect("text"));
    assert!(
        rest.split("\n\n").all(|event| event.is_empty()
            || event.starts_with("id: ")
            || event.starts_with("event: close")),
        "{rest:.200}"
    );
    drop((quick, long));
    hub.empties();
}

/// What chunks hold, the last of them perhaps cut off.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        text.push_str(&rest[..size.min(rest.len())]);
        body = rest.get(size + 2..).unwrap_or("");
    }
    text
}

#[test]
fn client_whose_socket_takes_nothing_in_time_is_evicted() {
    let config = Config::default().write_timeout(Duration::from_millis(200)).queue(1000);
    let hub = routed(config.queue_bytes(64 * 1024 * 1024));
    let _slow = begin(Peer::dial_narrow(&hub.address), "/sse");
    for _ in 0..100 {
        hub.broadcast("x".repeat(60_000));
    }
    until("it is evicted", || hub.hub.stats().clients_stuck == 1);
    hub.empties();
}

#[test]
fn bytes_after_the_request_are_ignored_up_to_a_limit() {
    let hub = routed(Config::default());
    let mut events = listen(&hub, "/sse");
    events.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    hub.broadcast("still here");
    assert_eq!(event(&mut events), "data: still here\n\n");
    let mut stream = events.stream();
    let flood = [b'x'; 4096];
    // Until the hub closes the connection.
    while std::io::Write::write_all(&mut stream, &flood).is_ok() {}
    drop(events);
    hub.empties();
}

/// The peer vanishes as if it lost its power or its network: no FIN, no reset, no acknowledgement.
#[cfg(target_os = "linux")]
#[test]
fn peer_that_vanishes_silently_is_noticed() {
    use std::time::Instant;

    use socket2::{SockFilter, SockRef};

    /// The filter that passes nothing (BPF_RET | BPF_K, 0): the kernel drops every segment for the
    /// socket before it acknowledges it.
    const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    let ping = Duration::from_secs(1);
    let hub = routed(Config::default().ping_interval(ping));
    let gone = listen(&hub, "/sse");
    let mut here = listen(&hub, "/sse");
    SockRef::from(gone.stream()).attach_filter(&[NOTHING]).expect("set");
    let begin = Instant::now();
    while hub.hub.stats().clients == 2 {
        assert_eq!(chunk(&mut here), HEARTBEAT);
        // Up to 1.1 intervals until the heartbeat, and the kernel counts from its first resend.
        // This loop checks once an interval, on a machine that may be busy.
        let late = begin.elapsed().saturating_sub(5 * ping);
        assert!(late < Duration::from_secs(20), "it is not noticed");
    }
    let after = begin.elapsed();
    assert!(after > Duration::from_secs(20), "{after:?}: it was not the kernel that ended it");
    assert_eq!(hub.hub.stats().clients_evicted, 0, "its window was open");
    drop(here);
    hub.empties();
    drop(gone);
}
