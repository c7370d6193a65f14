//! Rates: a client that sends too fast is read slower, and a request to publish is refused.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, Message, Peer as Source, Rate, Target, room_of,
};

use crate::http;
use crate::peer::{Peer, Response};
use crate::support::TestHub;

/// Sends what a client says to its room. The user `backend` has no limit, nor has a request with its
/// header.
struct Rooms;

impl Handler for Rooms {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        Ok(match &*room {
            "backend" => Admission::user("backend").room("news").rate(Rate::UNLIMITED),
            "slow" => Admission::user("slow").room("news").rate(Rate::messages(2)),
            _ => Admission::anonymous().room(room),
        })
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    fn is_rate_limited(&self, request: &Request<()>, _: &Source) -> bool {
        !request.headers().contains_key("backend")
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        Ok(client.hub().publish("news", message).await.map(drop)?)
    }
}

fn hub(config: Config) -> TestHub {
    TestHub::serving(config.http(true), Rooms)
}

/// Sends so many messages at once; returns when each of them has come back.
fn echoed(mut peer: Peer<TcpStream>, messages: usize) -> Vec<Duration> {
    let begun = Instant::now();
    (0..messages).for_each(|_| peer.say("hello"));
    let times = (0..messages).map(|_| {
        peer.hears("hello");
        begun.elapsed()
    });
    let times = times.collect();
    peer.say("it is not cut");
    peer.hears("it is not cut");
    times
}

#[test]
fn a_client_that_sends_faster_is_read_slower_and_not_cut() {
    let hub = hub(Config::default().max_rate(Some(4)));
    let times = echoed(hub.join_at("/ws/news"), 6);
    assert!(times[5] >= Duration::from_millis(490), "{times:?}");
    assert!(hub.hub.stats().rate_pauses > 0);
}

#[test]
fn the_admission_of_a_client_sets_another_rate() {
    let hub = hub(Config::default().max_rate(Some(1)));
    // At the rate of the others, the last would come after 199 seconds.
    let times = echoed(hub.join_at("/ws/backend"), 200);
    assert!(times[199] < Duration::from_secs(100), "{times:?}");
    assert_eq!(hub.hub.stats().rate_pauses, 0);
    let times = echoed(hub.join_at("/ws/slow"), 3);
    assert!(times[2] >= Duration::from_millis(490), "{times:?}");
}

/// Sends a request on a connection of its own.
#[track_caller]
fn post(hub: &TestHub, path: &str, headers: &str, body: &str) -> (Response, String) {
    let mut peer = hub.dial();
    let response = peer.request(&http::post(path, headers, body));
    let body = peer.body_text(&response);
    (response, body)
}

#[test]
fn a_post_past_the_rate_of_its_address_is_429() {
    // So slow that no second message fits into the time of the test.
    let hub = hub(Config::default().max_post_rate(Some(1)));
    let begun = Instant::now();
    assert_eq!(post(&hub, "/pub/news", "", "hello").0.status, 202);
    let (refused, sentence) = post(&hub, "/pub/news", "", "hello");
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!((refused.status, refused.header("Retry-After")), (429, Some("1")), "{sentence}");
        assert!(sentence.contains("1 messages a second"), "{sentence}");
        assert!(hub.hub.stats().posts_over_rate > 0);
    }
    for _ in 0..20 {
        assert_eq!(post(&hub, "/pub/news", "Backend: yes\r\n", "hello").0.status, 202);
    }
    let paths = ["/user/ada", "/pub/other?wait=0s", "/pub/news?lines"];
    let begun = Instant::now();
    let statuses = paths.map(|path| post(&hub, path, "", "hello\n").0.status);
    if begun.elapsed() < Duration::from_secs(1) {
        assert!(statuses.iter().filter(|status| **status == 429).count() >= 2, "{statuses:?}");
    }
}

#[test]
fn a_stream_of_lines_is_read_slower() {
    let hub = hub(Config::default().max_post_rate(Some(4)));
    let begun = Instant::now();
    let mut peer = hub.dial();
    let head =
        "POST /pub/news?lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    peer.write(head.as_bytes());
    peer.write(b"c\r\na\nb\nc\nd\ne\nf\n\r\n2\r\ng\n\r\n0\r\n\r\n");
    let response = peer.response();
    assert_eq!(response.status, 202);
    assert!(peer.body_text(&response).starts_with("{\"messages\":7,"));
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(post(&hub, "/pub/news", "", "hello").0.status, 202, "they are paid for");
}
