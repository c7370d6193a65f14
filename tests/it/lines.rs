//! Streams of lines: each line of a body is a message as it comes, for as long as the request lasts.

use std::convert::Infallible;
use std::future::pending;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future::block_on;
use hublet::http::{Request, StatusCode};
use hublet::{Client, Config, Disconnect, Handler, Message, Peer as Source, Target};

use crate::peer::{BINARY, Peer, TEXT};
use crate::support::{TestHub, until};

/// Allows everything, until the other end of the channel is dropped.
struct Open(Option<Receiver<Infallible>>);

impl Handler for Open {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, to: &Target) -> Result<(), StatusCode> {
        let forbidden = Target::Room("forbidden".into());
        if *to == forbidden { Err(StatusCode::FORBIDDEN) } else { Ok(()) }
    }

    async fn publish_until(&self, _: &Request<()>, _: &Source, _: &Target) -> StatusCode {
        let Some(permission) = &self.0 else { return pending().await };
        let _ = permission.recv().await;
        StatusCode::UNAUTHORIZED
    }
}

fn open(config: Config) -> TestHub {
    TestHub::serving(config.http(true), Open(None))
}

/// What curl sends for `curl -T - 'http://hub/pub/news?lines'`.
const CURL: &str = "PUT /pub/news?lines HTTP/1.1\r\nHost: hub\r\nUser-Agent: curl/7.88.1\r\n\
    Accept: */*\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";

/// Begins a stream as curl does.
#[track_caller]
fn begin(hub: &TestHub, head: &str) -> Peer<TcpStream> {
    let mut peer = hub.dial();
    if head.contains("Expect") {
        assert_eq!(peer.request(head).status, 100);
    } else {
        peer.write(head.as_bytes());
    }
    peer
}

#[track_caller]
fn send(peer: &mut Peer<TcpStream>, bytes: &str) {
    peer.write(format!("{:x}\r\n{bytes}\r\n", bytes.len()).as_bytes());
}

/// Reads the answer: its status and its body.
#[track_caller]
fn answer(peer: &mut Peer<TcpStream>) -> (u16, String) {
    let response = peer.response();
    (response.status, peer.body_text(&response))
}

#[test]
fn each_line_is_a_message_as_it_comes() {
    let hub = open(Config::default());
    let mut here = hub.join_at("/ws/news");
    let mut log = begin(&hub, CURL);
    send(&mut log, "one\ntwo\r\n\n\r\nth");
    here.hears("one");
    here.hears("two");
    send(&mut log, "ree\n");
    here.hears("three");
    send(&mut log, "the last has no end");
    log.write(b"0\r\n\r\n");
    here.hears("the last has no end");
    let (status, body) = answer(&mut log);
    assert_eq!((status, &*body), (202, "{\"messages\":4,\"recipients\":4}\n"));
    // The connection stays for the next request.
    assert_eq!(log.request("GET /health HTTP/1.1\r\nHost: hub\r\n\r\n").status, 200);
    drop((here, log));
    hub.empties();
}

/// What requests sends for `requests.post(url, data=file)`, and with `json` lines.
#[test]
fn bodies_of_known_length_are_streams_too() {
    let hub = open(Config::default().max_message(10));
    let mut here = hub.join_at("/ws/news");
    let post = |path: &str, kind: &str, body: &str| {
        let mut peer = hub.dial();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: hub\r\nUser-Agent: python-requests/2.34.2\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
             Content-Length: {}\r\n{kind}\r\n{body}",
            body.len()
        );
        peer.write(request.as_bytes());
        answer(&mut peer)
    };
    let ndjson = "Content-Type: application/x-ndjson; charset=utf-8\r\n";
    let done = (202, "{\"messages\":2,\"recipients\":2}\n".to_owned());
    assert_eq!(post("/pub/news", ndjson, "{\"a\":1}\n{\"b\":2}\n"), done);
    here.hears("{\"a\":1}");
    here.hears("{\"b\":2}");
    // All together are longer than a message may be.
    assert_eq!(post("/pub/news?lines=1", "", "0123456789\r\n0123456789"), done);
    here.hears("0123456789");
    here.hears("0123456789");
    let binary = "Content-Type: application/octet-stream\r\n";
    assert_eq!(post("/pub/news?lines", binary, "a\nb").0, 202);
    assert_eq!(here.receive(), (BINARY, b"a".to_vec()));
    assert_eq!(here.receive(), (BINARY, b"b".to_vec()));
    let (_, answer) = post("/pub/news?lines=0", ndjson, "a\nb");
    assert!(answer.starts_with("{\"recipients\":1,\"position\":"), "{answer}");
    assert_eq!(here.receive(), (TEXT, b"a\nb".to_vec()));
    let nothing = (202, "{\"messages\":0,\"recipients\":0}\n".to_owned());
    assert_eq!(post("/pub/news?lines", "", ""), nothing);
    assert_eq!(post("/pub/news?lines", "", "\n\n\r\n"), nothing);
    assert_eq!(post("/pub/news?lines=yes", "", "a").0, 400);
    assert_eq!(post("/pub/forbidden?lines", "", "a").0, 403);
    assert_eq!(post("/pub/news?lines", "Content-Encoding: gzip\r\n", "a").0, 415);
    assert_eq!(post("/user/ada?lines", "", "a\n").1, "{\"messages\":1,\"recipients\":0}\n");
}

#[test]
fn line_that_is_too_long_ends_the_stream_with_its_number() {
    let hub = open(Config::default().max_message(10));
    let mut here = hub.join_at("/ws/news");
    for (bytes, ends) in [("a\n\n0123456789x\nb\n", true), ("a\n\n0123456789xyz", false)] {
        let mut log = begin(&hub, CURL);
        send(&mut log, bytes);
        here.hears("a");
        let expected = "{\"messages\":1,\"recipients\":1,\
            \"error\":\"line 3 is longer than the limit of 10 bytes\"}\n";
        assert_eq!(answer(&mut log), (413, expected.into()), "the line ends: {ends}");
        log.ends();
    }
    // A line end of two bytes is no part of the line.
    let mut log = begin(&hub, CURL);
    send(&mut log, "0123456789\r");
    send(&mut log, "\n");
    here.hears("0123456789");
}

#[test]
fn stream_takes_the_place_of_a_client_and_no_handshake() {
    let hub = open(Config::default().handshakes(1).max_clients(Some(1)).max_clients_per_ip(None));
    let mut log = begin(&hub, CURL);
    send(&mut log, "a\n");
    // The only handshake is free, and the only place is not.
    let mut other = hub.dial();
    assert_eq!(other.request("GET /health HTTP/1.1\r\nHost: hub\r\n\r\n").status, 200);
    drop(other);
    let mut second = hub.dial();
    assert_eq!(second.request(&CURL.replace("Expect: 100-continue\r\n", "")).status, 503);
    log.write(b"0\r\n\r\n");
    assert_eq!(answer(&mut log).0, 202);
    drop((log, second));
    hub.join_at("/ws/news");
    hub.empties();
}

#[test]
fn streams_of_one_address_are_limited_as_clients_are() {
    let hub = open(Config::default().max_clients_per_ip(Some(1)));
    let mut log = begin(&hub, CURL);
    let mut second = hub.dial();
    assert_eq!(second.request(&CURL.replace("Expect: 100-continue\r\n", "")).status, 503);
    log.write(b"0\r\n\r\n");
    assert_eq!(answer(&mut log).0, 202);
}

#[test]
fn end_of_a_permission_ends_the_stream_with_the_count() {
    let (permission, until) = async_channel::bounded(1);
    let hub = TestHub::serving(Config::default().http(true), Open(Some(until)));
    let mut here = hub.join_at("/ws/news");
    let mut log = begin(&hub, CURL);
    send(&mut log, "a\nb\nhalf of a li");
    here.hears("a");
    here.hears("b");
    drop(permission);
    let (status, body) = answer(&mut log);
    let said = "{\"messages\":2,\"recipients\":2,\"error\":\"a valid token is required\"}\n";
    assert_eq!((status, &*body), (401, said));
    log.ends();
}

#[test]
fn drain_ends_the_stream_with_the_count() {
    let hub = open(Config::default().drain(Duration::ZERO));
    let mut log = begin(&hub, CURL);
    send(&mut log, "a\nb\n");
    until("both are sent", || hub.hub.stats().messages_dispatched == 2);
    thread::scope(|scope| {
        scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        let (status, body) = answer(&mut log);
        let said = "{\"messages\":2,\"recipients\":0,\"error\":\"the hub is shutting down\"}\n";
        assert_eq!((status, &*body), (503, said));
        drop(log);
    });
    hub.empties();
}

/// Far more than the inbox and the queue hold, as fast as it goes: every line is counted, and a
/// client that reads gets all of them in order.
#[test]
fn stream_that_comes_fast_is_slowed_down_and_loses_nothing() {
    const LINES: usize = 20_000;
    let hub = open(Config::default().inbox(4).overflow(hublet::Overflow::Disconnect));
    let mut here = hub.join_at("/ws/news");
    let lines: String = (0..LINES).map(|n| format!("line {n}\n")).collect();
    let mut log = begin(&hub, CURL);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..LINES {
                here.hears(&format!("line {n}"));
            }
        });
        send(&mut log, &lines);
        log.write(b"0\r\n\r\n");
        let (status, body) = answer(&mut log);
        let said = format!("{{\"messages\":{LINES},\"recipients\":{LINES}}}\n");
        assert_eq!((status, body), (202, said));
    });
}

#[test]
fn malformed_chunk_ends_the_stream_with_the_count() {
    let hub = open(Config::default());
    let mut log = begin(&hub, CURL);
    send(&mut log, "a\n");
    log.write(b"x\r\n");
    let (status, body) = answer(&mut log);
    assert_eq!(status, 400);
    assert!(body.starts_with("{\"messages\":1,\"recipients\":0,\"error\":"), "{body}");
}

#[test]
fn peer_that_leaves_ends_its_stream() {
    let hub = open(Config::default());
    let mut log = begin(&hub, CURL);
    send(&mut log, "a\nhalf of a li");
    until("it is sent", || hub.hub.stats().messages_dispatched == 1);
    drop(log);
    hub.empties();
    assert_eq!(hub.hub.stats().messages_dispatched, 1, "half a line is no message");
}
