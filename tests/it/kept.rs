//! Reading a room by `GET /pub/{room}`: the last value, and the next message, for which a request may
//! wait.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, HistoryRule, Message, Peer as Source, Since,
    Target, room_of,
};

use crate::peer::{Peer, Response};
use crate::support::{TestHub, until};

/// Admits each request into the room of its path, but into none that is called `secret`.
#[derive(Default)]
struct Rooms {
    /// When a token ends, in seconds of Unix time; 0 for never.
    until: Arc<AtomicU64>,
}

impl Handler for Rooms {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        match &*room {
            "secret" => return Err(StatusCode::UNAUTHORIZED),
            "elsewhere" => return Ok(Admission::anonymous().room("news")),
            "newest" => return Ok(Admission::anonymous().room("news").since(Since::Now)),
            "both" => return Ok(Admission::anonymous().room("news").room("both")),
            "none" => return Ok(Admission::anonymous()),
            _ => {}
        }
        let admission = Admission::anonymous().room(room);
        Ok(match self.until.load(Ordering::Relaxed) {
            0 => admission,
            end => admission.until(end),
        })
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        Ok(client.hub().broadcast(message).await.map(drop)?)
    }
}

fn keeping(messages: usize) -> Config {
    Config::default().http(true).history(vec![HistoryRule::new("*", messages)])
}

fn hub(config: Config) -> TestHub {
    TestHub::serving(config, Rooms::default())
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// Reads an answer and its body.
#[track_caller]
fn answer(peer: &mut Peer<TcpStream>) -> (Response, Vec<u8>) {
    let response = peer.response();
    let has_body = response.header("Content-Length").is_some();
    let body = if has_body { peer.body(&response) } else { Vec::new() };
    (response, body)
}

/// Sends a request and reads its answer.
#[track_caller]
fn ask(peer: &mut Peer<TcpStream>, path: &str, headers: &str) -> (Response, Vec<u8>) {
    peer.write(get(path, headers).as_bytes());
    answer(peer)
}

/// Sends a request on a connection of its own and returns once the manager has it as one that waits.
///
/// The hub must have one handshake at a time: the request holds it until it waits, so the hub answers
/// the next connection after that. The hub has one thread, and tells the manager in the step in which
/// it gives the handshake back.
#[track_caller]
fn waiting(hub: &TestHub, path: &str) -> Peer<TcpStream> {
    let mut peer = hub.dial();
    peer.write(get(path, "").as_bytes());
    assert_eq!(ask(&mut hub.dial(), "/pub/other", "").0.status, 204);
    peer
}

#[track_caller]
fn number(response: &Response, header: &str) -> u64 {
    response.header(header).and_then(|number| number.parse().ok()).expect(header)
}

/// Publishes by the program; returns the position.
#[track_caller]
fn publish(hub: &TestHub, room: &str, message: impl Into<Message>) -> u64 {
    hub.ask(hub.hub.publish(room, message));
    hub.ask(hub.hub.position(room)).expect("the room is there")
}

#[test]
fn the_last_value_is_raw_with_the_type_that_it_was_published_with() {
    let hub = hub(keeping(1));
    let mut peer = hub.dial();
    let (none, body) = ask(&mut peer, "/pub/news", "");
    assert_eq!((none.status, &*body, none.header("Hublet-Position")), (204, &b""[..], None));
    for (message, kind) in [
        (Message::text("hello"), "text/plain; charset=utf-8"),
        (Message::text("two\nlines\n"), "text/plain; charset=utf-8"),
        (Message::binary([0, 255]), "application/octet-stream"),
        (Message::binary(b"text"), "application/octet-stream"),
        (Message::text(""), "text/plain; charset=utf-8"),
        (Message::text("x".repeat(60_000)), "text/plain; charset=utf-8"),
    ] {
        let position = publish(&hub, "news", message.clone());
        let (last, body) = ask(&mut peer, "/pub/news", "");
        assert_eq!((last.status, &*body), (200, message.as_bytes()));
        assert_eq!(number(&last, "Hublet-Position"), position);
        for (name, value) in [
            ("Content-Type", Some(kind)),
            ("ETag", Some(&*format!("\"{position}\""))),
            ("Cache-Control", Some("private, no-cache")),
            ("Vary", Some("Origin, Authorization")),
            ("X-Content-Type-Options", Some("nosniff")),
            ("Hublet-Missed", None),
            ("Access-Control-Expose-Headers", None),
        ] {
            assert_eq!(last.header(name), value, "{name}");
        }
        // HEAD says the same and has no body.
        let length = last.header("Content-Length").map(str::to_owned);
        let head = peer.request(&get("/pub/news", "").replace("GET", "HEAD"));
        assert_eq!(head.status, 200);
        for name in ["Content-Type", "ETag", "Hublet-Position", "Vary"] {
            assert_eq!(head.header(name), last.header(name), "{name}");
        }
        assert_eq!(head.header("Content-Length").map(str::to_owned), length);
        let (same, body) =
            ask(&mut peer, "/pub/news", &format!("If-None-Match: \"1\", W/\"{position}\"\r\n"));
        assert_eq!((same.status, body.len()), (304, 0));
        assert_eq!(
            (number(&same, "Hublet-Position"), same.header("ETag")),
            (position, last.header("ETag"))
        );
        let (other, _) = ask(&mut peer, "/pub/news", "If-None-Match: \"1\"\r\n");
        assert_eq!(other.status, 200);
    }
    let (main, _) = ask(&mut peer, "/pub", "");
    assert_eq!(main.status, 204, "another room");
}

#[test]
fn since_asks_for_the_next_and_a_gap_is_told_with_the_oldest_that_is_kept() {
    let hub = hub(keeping(3));
    let positions: Vec<_> =
        (0..5).map(|nth| publish(&hub, "news", format!("message {nth}"))).collect();
    assert!(positions.windows(2).all(|pair| pair[1] == pair[0] + 1), "{positions:?}");
    let newest = positions[4];
    let mut peer = hub.dial();
    for (since, text, missed) in [
        ("0".to_owned(), Some(2), None),
        ("-1".to_owned(), Some(4), None),
        ("-2".to_owned(), Some(3), None),
        ("-99".to_owned(), Some(2), None),
        ("now".to_owned(), None, None),
        (newest.to_string(), None, None),
        ((newest - 1).to_string(), Some(4), None),
        ((newest - 3).to_string(), Some(2), None),
        ((newest - 4).to_string(), Some(2), Some("1")),
        ((newest - 5).to_string(), Some(2), Some("2")),
        ((newest - 6).to_string(), Some(2), Some("unknown")),
        ((newest + 1).to_string(), Some(2), Some("unknown")),
        ("99999999999999999999999".to_owned(), Some(2), Some("unknown")),
    ] {
        // A gap is told at once, whatever the request would wait.
        let wait = if text.is_some() { "&wait=60s" } else { "" };
        let (next, body) = ask(&mut peer, &format!("/pub/news?since={since}{wait}"), "");
        let expected = text.map(|nth| format!("message {nth}")).unwrap_or_default();
        let status = if text.is_some() { 200 } else { 204 };
        assert_eq!((next.status, String::from_utf8(body)), (status, Ok(expected)), "{since}");
        assert_eq!(next.header("Hublet-Missed"), missed, "{since}");
        let position = text.map_or(newest, |nth| positions[nth]);
        assert_eq!(number(&next, "Hublet-Position"), position, "{since}");
    }
    for query in ["since=", "since=x", "since=-0", "wait=61s", "wait=25", "since=0&wait=x"] {
        let (wrong, _) = ask(&mut peer, &format!("/pub/news?{query}"), "");
        assert_eq!(wrong.status, 400, "{query}");
        peer = hub.dial();
    }
}

/// A reader that follows a room needs nothing but the position of the last answer.
#[test]
fn a_long_poll_hears_every_message_once() {
    let hub = hub(keeping(10));
    let first = publish(&hub, "news", "0");
    let mut peer = hub.dial();
    let (mut position, mut heard) = (first - 1, 0);
    while heard < 40 {
        peer.write(get(&format!("/pub/news?since={position}&wait=25s"), "").as_bytes());
        if heard % 4 == 3 {
            // It waits, or does not yet.
            publish(&hub, "news", (heard + 1).to_string());
            if heard % 8 == 3 {
                for more in 2..5 {
                    publish(&hub, "news", (heard + more).to_string());
                }
            }
        }
        let (next, body) = answer(&mut peer);
        assert_eq!((next.status, next.header("Hublet-Missed")), (200, None));
        assert_eq!(String::from_utf8(body), Ok(heard.to_string()));
        position += 1;
        assert_eq!(number(&next, "Hublet-Position"), position);
        heard += 1;
        if position == hub.ask(hub.hub.position("news")).expect("there") {
            publish(&hub, "news", heard.to_string());
        }
    }
}

#[test]
fn a_request_waits_for_a_room_that_is_not_there_and_makes_none() {
    let config = Config::default().http(true).history(vec![HistoryRule::new("news", 1)]);
    let hub = hub(config.max_rooms(1).handshakes(1));
    let mut peers =
        ["/pub/news?wait=30s", "/pub/news?since=now&wait=30s", "/pub/news?since=5&wait=30s"]
            .map(|path| waiting(&hub, path));
    let mut live = waiting(&hub, "/pub/live?wait=30s");
    assert_eq!((hub.hub.stats().rooms, hub.hub.stats().clients), (0, 0), "in no listing");
    assert_eq!(hub.ask(hub.hub.clients()), []);
    let position = publish(&hub, "news", "hello");
    assert_eq!(hub.hub.stats().recipients, 0, "a reader that waits is no client");
    for (peer, missed) in peers.iter_mut().zip([None, None, Some("unknown")]) {
        let (next, body) = answer(peer);
        assert_eq!((next.status, &*body), (200, &b"hello"[..]));
        assert_eq!(
            (number(&next, "Hublet-Position"), next.header("Hublet-Missed")),
            (position, missed)
        );
    }
    // A room without history and without a member too: its count says nothing to the next request.
    assert_eq!(hub.ask(hub.hub.publish("live", "one")), 0);
    let (next, body) = answer(&mut live);
    assert_eq!((next.status, &*body), (200, &b"one"[..]));
    assert_eq!(hub.ask(hub.hub.position("live")), None);
    let told = number(&next, "Hublet-Position");
    let mut live = waiting(&hub, &format!("/pub/live?since={told}&wait=30s"));
    let member = hub.join_at("/ws/live");
    assert_eq!(hub.broadcast("to all"), 1);
    let (next, body) = answer(&mut live);
    assert_eq!((next.status, &*body), (200, &b"to all"[..]));
    assert_eq!(next.header("Hublet-Missed"), Some("unknown"));
    assert!(next.header("ETag").is_some());
    drop(member);
}

#[test]
fn a_wait_is_over_in_time_and_says_where_the_reader_stands() {
    let hub = hub(keeping(1));
    let position = publish(&hub, "news", "old");
    let mut peer = hub.dial();
    for (room, expected) in [("news", Some(position)), ("nothing", None)] {
        let begun = Instant::now();
        let (nothing, _) = ask(&mut peer, &format!("/pub/{room}?since=now&wait=100ms"), "");
        assert_eq!(nothing.status, 204, "{room}");
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        let said =
            nothing.header("Hublet-Position").map(|position| position.parse().expect("a number"));
        assert_eq!(said, expected, "{room}");
        assert_eq!(nothing.header("Connection"), None, "the connection goes on");
    }
}

#[test]
fn a_reader_without_history_is_told_of_its_loss_at_once() {
    let hub = hub(Config::default().http(true));
    let member = hub.join_at("/ws/live");
    let position = publish(&hub, "live", "one");
    publish(&hub, "live", "two");
    let mut peer = hub.dial();
    let (gap, _) = ask(&mut peer, &format!("/pub/live?since={position}&wait=30s"), "");
    assert_eq!((gap.status, gap.header("Hublet-Missed")), (204, Some("1")));
    assert_eq!(number(&gap, "Hublet-Position"), position + 1);
    drop(member);
}

/// The answer without a message has a position, and the last member leaves before the next request.
#[test]
fn a_room_keeps_the_count_that_a_request_was_told() {
    for (config, status, missed) in
        [(keeping(1), 200, None), (Config::default().http(true), 204, Some("1"))]
    {
        let hub = hub(config);
        for (room, query) in [("waits", "?since=now&wait=1ms"), ("asks", "")] {
            let member = hub.join_at(&format!("/ws/{room}"));
            let mut peer = hub.dial();
            let (nothing, _) = ask(&mut peer, &format!("/pub/{room}{query}"), "");
            assert_eq!(nothing.status, 204);
            let told = number(&nothing, "Hublet-Position");
            drop(member);
            until("the member has left", || hub.hub.stats().clients == 0);
            assert_eq!(publish(&hub, room, "first"), told + 1);
            let (next, _) = ask(&mut peer, &format!("/pub/{room}?since={told}&wait=30s"), "");
            assert_eq!((next.status, next.header("Hublet-Missed")), (status, missed), "{room}");
            assert_eq!(number(&next, "Hublet-Position"), told + 1);
        }
    }
}

#[test]
fn a_wait_takes_a_clients_place_and_gives_its_handshake_back() {
    let hub = hub(keeping(1).max_clients(Some(2)).handshakes(1));
    publish(&hub, "news", "old");
    // The only handshake is free again, or no other connection would have its turn.
    let waits = [(); 2].map(|()| waiting(&hub, "/pub/news?since=now&wait=60s"));
    let (refused, _) = ask(&mut hub.dial(), "/pub/news?since=now&wait=1ms", "");
    assert_eq!(refused.status, 503, "both places are taken");
    let (last, body) = ask(&mut hub.dial(), "/pub/news", "");
    assert_eq!((last.status, &*body), (200, &b"old"[..]), "the last value needs no place");
    // A peer that leaves gives its place back.
    let [first, mut second] = waits;
    drop(first);
    until("a place is free", || {
        let mut other = hub.dial();
        ask(&mut other, "/pub/news?since=now&wait=1ms", "").0.status == 204
    });
    publish(&hub, "news", "new");
    assert_eq!(answer(&mut second).1, b"new");
    drop(second);
    until("nothing is left", || hub.is_empty());
}

#[test]
fn a_wait_counts_per_address() {
    let hub = hub(keeping(1).max_clients_per_ip(Some(1)).handshakes(1));
    let mut first = waiting(&hub, "/pub/news?wait=60s");
    let (refused, _) = ask(&mut hub.dial(), "/pub/news?wait=1ms", "");
    assert_eq!(refused.status, 503, "the place of the address is taken");
    publish(&hub, "news", "hello");
    assert_eq!(answer(&mut first).1, b"hello");
}

#[test]
fn a_drain_ends_a_wait() {
    let hub = hub(keeping(1).handshakes(1));
    let position = publish(&hub, "news", "old");
    let mut peer = waiting(&hub, "/pub/news?since=now&wait=60s");
    let draining = hub.hub.clone();
    let drain = hub.spawn(async move { draining.drain(Disconnect::RESTART).await });
    let (ended, _) = answer(&mut peer);
    assert_eq!((ended.status, number(&ended, "Hublet-Position")), (204, position));
    assert_eq!(ended.header("Connection"), Some("close"));
    peer.ends();
    futures_lite::future::block_on(drain);
}

#[test]
fn a_wait_ends_with_its_token() {
    let handler = Rooms::default();
    let end = Arc::clone(&handler.until);
    let hub = TestHub::serving(keeping(1), handler);
    let seconds = std::time::UNIX_EPOCH.elapsed().expect("a clock that was set").as_secs();
    end.store(seconds + 1, Ordering::Relaxed);
    let begun = Instant::now();
    let (over, body) = ask(&mut hub.dial(), "/pub/news?wait=60s", "");
    assert_eq!((over.status, &*body), (401, &b"token expired\n"[..]));
    assert!(over.header("WWW-Authenticate").is_some());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    end.store(seconds + 600, Ordering::Relaxed);
    let (nothing, _) = ask(&mut hub.dial(), "/pub/news?wait=1ms", "");
    assert_eq!(nothing.status, 204);
}

#[test]
fn the_hook_of_listeners_decides_which_room_is_read() {
    let hub = hub(keeping(1));
    for room in ["news", "secret", "both"] {
        publish(&hub, room, room);
    }
    for method in ["GET", "HEAD"] {
        for (path, status) in [
            ("/pub/secret", 401),
            ("/pub/secret?wait=1s", 401),
            ("/pub/%73ecret", 401),
            ("/pub/news", 200),
            ("/pub/none", 500),
            ("/pub/newest", 204),
        ] {
            let request = get(path, "").replace("GET", method);
            assert_eq!(hub.dial().request(&request).status, status, "{method} {path}");
        }
    }
    let body = |path: &str| ask(&mut hub.dial(), path, "").1;
    assert_eq!((body("/pub/elsewhere"), body("/pub/both")), (b"news".to_vec(), b"both".to_vec()));
    for method in ["get", "Get", "DELETE", "PATCH"] {
        let request = get("/pub/secret", "").replace("GET", method);
        assert_eq!(hub.dial().request(&request).status, 405, "{method}");
    }
    let foreign = "Origin: https://evil.example\r\n";
    assert_eq!(ask(&mut hub.dial(), "/pub/news", foreign).0.status, 403);
    let blindly = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    assert_eq!(ask(&mut hub.dial(), "/pub/news", blindly).0.status, 403);
}

#[test]
fn a_page_of_a_listed_origin_reads_the_position() {
    let hub = hub(keeping(1).origins(vec!["https://app.example".into()]).hosts(Vec::new()));
    publish(&hub, "news", "hello");
    let headers = "Origin: https://app.example\r\n";
    let (last, _) = ask(&mut hub.dial(), "/pub/news", headers);
    for (name, value) in [
        ("Access-Control-Allow-Origin", "https://app.example"),
        ("Access-Control-Expose-Headers", "Hublet-Position, Hublet-Missed, ETag"),
        ("Vary", "Origin, Authorization"),
    ] {
        assert_eq!(last.header(name), Some(value), "{name}");
    }
    let elsewhere = get("/pub/news", "").replace("localhost", "rebound.example");
    assert_eq!(hub.dial().request(&elsewhere).status, 421);
}

/// A pipelined request waits for the answer to the one before it, and is not lost.
#[test]
fn a_request_behind_one_that_waits_has_its_turn() {
    let hub = hub(keeping(2));
    let mut peer = hub.dial();
    let both = [get("/pub/news?wait=60s", ""), get("/health", "")].concat();
    peer.write(both.as_bytes());
    peer.is_left_alone_for(Duration::from_millis(50));
    publish(&hub, "news", "hello");
    assert_eq!(answer(&mut peer).1, b"hello");
    assert_eq!(answer(&mut peer).1, b"ok\n");
}

/// Many readers of one room hear its next message, and leave nothing behind.
#[test]
fn many_waits_end_with_one_message() {
    const READERS: usize = 300;
    let hub = hub(keeping(1));
    let mut peers: Vec<_> = (0..READERS).map(|_| hub.dial()).collect();
    for peer in &mut peers {
        peer.write(get("/pub/news?wait=60s", "").as_bytes());
    }
    until("all are there", || hub.hub.stats().connections == READERS);
    let position = publish(&hub, "news", "hello");
    for peer in &mut peers {
        let (next, body) = answer(peer);
        assert_eq!(
            (next.status, &*body, number(&next, "Hublet-Position")),
            (200, &b"hello"[..], position)
        );
    }
    drop(peers);
    until("nothing is left", || hub.is_empty());
}
