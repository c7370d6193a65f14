//! Clients that hear the newest message of their room, at most so often: `?every=2s`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use hublet::{Config, Disconnect, Relay};

use crate::peer::{BINARY, Peer};
use crate::sse::{chunk, listen, request};
use crate::support::{TestHub, until};

fn hub(config: Config) -> TestHub {
    TestHub::serving(config.http(true), Relay::new())
}

/// Publishes texts to room a, each once the one before it was dispatched.
fn publish(hub: &TestHub, texts: &[&'static str]) {
    for text in texts {
        assert!(hub.ask(hub.hub.publish("a", *text)) <= 2);
    }
}

/// Ends the one client: what waits for its time goes ahead of that.
fn disconnect(hub: &TestHub) {
    let member = hub.ask(hub.hub.presence("a"))[0].id;
    hub.ask(hub.hub.disconnect(member, Disconnect::new(4000, "enough")));
}

/// Reads an event with its position.
#[track_caller]
fn event(peer: &mut Peer<TcpStream>) -> (u64, String) {
    let event = chunk(peer);
    let id = event.lines().find_map(|line| line.strip_prefix("id: ")).expect("a position");
    let line = format!("id: {id}\n");
    (id.parse().expect("a number"), event.replacen(&line, "", 1))
}

#[test]
fn a_websocket_hears_the_first_message_at_once_and_the_newest_in_the_end() {
    let hub = hub(Config::default());
    let mut display = hub.join_at("/ws/a?every=1h");
    let mut other = hub.join_at("/ws/a");
    publish(&hub, &["1"]);
    display.hears("1");
    publish(&hub, &["2", "3", "4"]);
    for text in ["1", "2", "3", "4"] {
        other.hears(text);
    }
    let stats = hub.hub.stats();
    assert_eq!((stats.recipients, stats.messages_dropped), (8, 2), "each counts as recipient");
    drop(other);
    until("one is left", || hub.hub.stats().clients == 1);
    disconnect(&hub);
    display.hears("4");
    display.is_closed(4000);
    until("it is delivered", || hub.hub.stats().messages_delivered == 6);
}

#[test]
fn a_message_waits_for_the_interval_and_no_longer() {
    let hub = hub(Config::default());
    let mut display = hub.join_at("/ws/a?every=300ms");
    let begun = Instant::now();
    for text in ["1", "2", "3"] {
        // Its time begins with the one before it, however late this is.
        publish(&hub, &[text]);
        display.hears(text);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(600), "{took:?}");
}

#[test]
fn what_the_client_asks_and_what_is_for_its_user_does_not_wait() {
    let hub = hub(Config::default());
    let mut display = hub.join_at("/ws/a?every=1h&probe=1");
    display.say("1");
    display.hears("1");
    display.say("2");
    display.send(BINARY, b"");
    assert_eq!(display.receive(), (BINARY, Vec::new()), "the answer overtakes what waits");
    disconnect(&hub);
    display.hears("2");
}

#[test]
fn without_echo_a_client_hears_the_newest_of_the_others() {
    let hub = hub(Config::default());
    let mut display = hub.join_at("/ws/a?every=1h&echo=0");
    let mut other = hub.join_at("/ws/a");
    other.say("1");
    display.hears("1");
    other.say("2");
    other.hears("1");
    other.hears("2");
    display.say("3");
    other.hears("3");
    drop(other);
    until("one is left", || hub.hub.stats().clients == 1);
    disconnect(&hub);
    display.hears("2");
}

#[test]
fn a_stream_of_events_is_told_how_many_were_left_out() {
    let hub = hub(Config::default());
    let mut display = listen(&hub, "/sse/a?every=1h");
    publish(&hub, &["1"]);
    let (first, text) = event(&mut display);
    assert_eq!(text, "data: 1\n\n");
    publish(&hub, &["2", "3", "4"]);
    // To all, which counts in each room.
    hub.broadcast("5");
    disconnect(&hub);
    let (fifth, text) = event(&mut display);
    // The gap and what follows it are one chunk.
    assert_eq!(fifth, first + 3);
    let rest = format!("event: gap\ndata: 3\n\nid: {}\ndata: 5\n\n", first + 4);
    assert_eq!(text, rest);
    assert!(chunk(&mut display).starts_with("event: close\ndata: {\"code\":4000,"));
}

#[test]
fn a_stream_that_comes_back_hears_the_newest_that_is_kept_behind_one_gap() {
    let hub = hub(Config::default().history(vec!["10".parse().expect("a rule")]));
    publish(&hub, &["1", "2", "3", "4"]);
    let newest = hub.ask(hub.hub.position("a")).expect("it keeps messages");
    for (query, missed) in [("since=0", Some(3)), ("since=-1", None), ("since=0&poll=1", Some(3))] {
        let mut display = hub.dial();
        let response = display.request(&request(&format!("/sse/a?every=1h&{query}")));
        assert_eq!(response.status, 200);
        assert_eq!(chunk(&mut display), ":\n");
        match missed {
            Some(missed) => {
                let (position, text) = event(&mut display);
                assert_eq!(
                    (position, text),
                    (newest - 1, format!("event: gap\ndata: {missed}\n\n"))
                );
            }
            None => assert_eq!(chunk(&mut display), format!("id: {}\n\n", newest - 1)),
        }
        assert_eq!(event(&mut display), (newest, "data: 4\n\n".to_owned()), "{query}");
        if query.contains("poll") {
            assert_eq!(display.read_rest(), b"0\r\n\r\n");
        }
    }
}

#[test]
fn an_interval_out_of_bounds_and_one_for_several_rooms_are_refused_with_400() {
    let hub = hub(Config::default());
    for query in [
        "/a?every=99ms",
        "/a?every=61m",
        "/a?every=2",
        "/a?every=",
        "?room=a&room=b&every=2s",
        "?room=a*&every=2s",
    ] {
        assert_eq!(Peer::ask(&hub.address, &format!("/ws{query}")).1, 400, "{query}");
        let mut peer = hub.dial();
        let response = peer.request(&request(&format!("/sse{query}")));
        assert_eq!(response.status, 400, "{query}");
        assert!(peer.body_text(&response).contains("every is a time from 100ms to 1h"), "{query}");
    }
    assert_eq!(Peer::ask(&hub.address, "/ws/a?every=2s&since=now").1, 400);
    assert_eq!(hub.hub.stats().clients, 0);
}

#[test]
fn a_publisher_that_waits_hears_of_what_was_left_out() {
    let hub = hub(Config::default());
    let mut display = hub.join_at("/ws/a?every=1h");
    let wait = Duration::from_millis(20);
    let acked = |text: &'static str, wait| hub.ask(hub.hub.publish_acked("a", text, wait));
    let first = acked("1", Duration::from_secs(30));
    assert_eq!((first.delivered, first.late, first.lost), (1, 0, 0));
    display.hears("1");
    let second = acked("2", wait);
    assert_eq!((second.delivered, second.late, second.lost), (0, 1, 0), "it waits for its time");
}
