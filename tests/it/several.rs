//! Clients in several rooms: each message has a label, in both directions.

use hublet::{Config, Relay};

use crate::deflate::{DEFLATED_TEXT, inflated, offering};
use crate::peer::{BINARY, Peer, TEXT};
use crate::sse::{chunk, listen, request};
use crate::support::{TestHub, until};

fn relay(config: Config) -> TestHub {
    TestHub::serving(config.http(true), Relay::new())
}

#[test]
fn each_message_says_its_room_and_one_goes_to_the_room_that_it_says() {
    let hub = relay(Config::default());
    let mut both = hub.join_at("/ws?room=a&room=caf%C3%A9%2F1");
    let (mut a, mut cafe) = (hub.join_at("/ws/a"), hub.join_at("/ws/caf%C3%A9%2F1"));
    a.say("to a");
    a.hears("to a");
    both.hears("a\nto a");
    cafe.say("two\nlines");
    cafe.hears("two\nlines");
    both.hears("caf%C3%A9%2F1\ntwo\nlines");
    // Its own comes back with the label, and has none for the others.
    both.say("caf%c3%a9/1\nfrom both");
    both.hears("caf%C3%A9%2F1\nfrom both");
    cafe.hears("from both");
    both.send(BINARY, b"a\n\0\xff");
    assert_eq!(both.receive(), (BINARY, b"a\n\0\xff".to_vec()));
    assert_eq!(a.receive(), (BINARY, b"\0\xff".to_vec()));
    // An empty payload, and what is for no room.
    both.say("a\n");
    both.hears("a\n");
    a.hears("");
    assert_eq!(hub.broadcast("to all"), 3);
    both.hears("\nto all");
    a.hears("to all");
    cafe.hears("to all");
    assert_eq!(hub.ask(hub.hub.publish("a", "counted")), 2);
    both.hears("a\ncounted");
    drop((both, a, cafe));
    hub.empties();
}

#[test]
fn a_client_that_asks_for_one_room_has_no_label() {
    let hub = relay(Config::default());
    let (mut path, mut query) = (hub.join_at("/ws/a"), hub.join_at("/ws?room=a&room=a"));
    query.say("b\nno label");
    path.hears("b\nno label");
    query.hears("b\nno label");
    path.say("hello");
    query.hears("hello");
}

#[test]
fn without_echo_a_client_does_not_hear_itself_in_any_room() {
    let hub = relay(Config::default());
    let mut both = hub.join_at("/ws?room=a&room=b&echo=0");
    let (mut a, mut b) = (hub.join_at("/ws/a"), hub.join_at("/ws/b"));
    both.say("a\none");
    a.hears("one");
    both.say("b\ntwo");
    b.hears("two");
    a.say("three");
    both.hears("a\nthree");
}

#[test]
fn a_question_is_answered_without_a_label() {
    let hub = relay(Config::default());
    let mut both = hub.join_at("/ws?room=a&room=b&probe=1");
    both.send(BINARY, b"");
    assert_eq!(both.receive(), (BINARY, Vec::new()));
}

#[test]
fn what_has_no_label_or_another_room_in_it_closes_the_client() {
    let hub = relay(Config::default());
    let endless = "x".repeat(1000);
    for (said, code, reason) in [
        ("hello", 1007, "has to name its room"),
        ("", 1007, "has to name its room"),
        ("100%\nhello", 1007, "has to name its room"),
        ("%ff\nhello", 1007, "has to name its room"),
        ("..\nhello", 1007, "has to name its room"),
        (&endless, 1007, "has to name its room"),
        ("c\nhello", 1008, "was not asked for"),
        ("\nhello", 1008, "was not asked for"),
        ("A\nhello", 1008, "was not asked for"),
    ] {
        let mut both = hub.join_at("/ws?room=a&room=b");
        both.send(TEXT, said.as_bytes());
        let told = both.is_closed(code);
        assert!(told.contains(reason), "{said}: {told}");
    }
}

#[test]
fn rooms_that_no_client_may_ask_for_are_refused_with_400() {
    let hub = relay(Config::default());
    let nine = (0..9).map(|n| format!("room={n}&")).collect::<String>();
    for query in [
        "/a?room=b",
        "?room=",
        "?room=%",
        "?room=a&room=%00",
        "?room=a&room=b&since=now",
        &format!("?{nine}"),
    ] {
        assert_eq!(Peer::ask(&hub.address, &format!("/ws{query}")).1, 400, "{query}");
        assert_eq!(hub.dial().request(&request(&format!("/sse{query}"))).status, 400, "{query}");
    }
    assert_eq!(hub.dial().request(&request("/sse?room=a&room=b&poll=1")).status, 400);
    let eight = hub.join_at(&format!("/ws?{}", &nine[..8 * "room=0&".len()]));
    drop(eight);
}

#[test]
fn events_have_the_label_as_the_first_line_of_their_data() {
    let hub = relay(Config::default());
    let mut events = listen(&hub, "/sse?room=a%2F1&room=b");
    assert_eq!(hub.ask(hub.hub.publish("a/1", "two\nlines")), 1);
    assert_eq!(chunk(&mut events), "data: a%2F1\ndata: two\ndata: lines\n\n");
    assert_eq!(hub.ask(hub.hub.publish("b", &b"\0\xff"[..])), 1);
    assert_eq!(chunk(&mut events), "event: binary\ndata: b\ndata: AP8=\n\n");
    // In pieces.
    let long = vec![7u8; 60_000];
    assert_eq!(hub.ask(hub.hub.publish("b", long.clone())), 1);
    let mut event = String::new();
    while !event.ends_with("\n\n") {
        event.push_str(&chunk(&mut events));
    }
    let encoded = data_encoding(&long);
    assert_eq!(event, format!("event: binary\ndata: b\ndata: {encoded}\n\n"));
    assert_eq!(hub.broadcast("to all"), 1);
    assert_eq!(chunk(&mut events), "data: \ndata: to all\n\n");
    drop(events);
    // A browser that comes back sends the position that it has from another stream.
    for rooms in ["room=a&room=b", "room=a&room=s/*", "room=s/*"] {
        let head =
            format!("GET /sse?{rooms} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 5\r\n\r\n");
        assert_eq!(hub.dial().request(&head).status, 200, "{rooms}");
    }
    hub.empties();
}

fn data_encoding(bytes: &[u8]) -> String {
    use base64ct::{Base64, Encoding as _};
    Base64::encode_string(bytes)
}

/// A message with a label is compressed where the one without is.
#[test]
fn a_label_is_compressed_with_its_message() {
    let hub = relay(Config::default().deflate(Some(20)));
    let mut plain = hub.join_at("/ws?room=a&room=b");
    let offer = "permessage-deflate";
    let mut deflating = hub.dial();
    assert_eq!(deflating.request(&offering("/ws?room=a&room=b", offer)).status, 101);
    let text = "to be or not to be, ".repeat(20);
    assert_eq!(hub.ask(hub.hub.publish("a", text.as_str())), 2);
    plain.hears(&format!("a\n{text}"));
    let (first, payload) = deflating.receive();
    assert_eq!(first, DEFLATED_TEXT);
    assert!(payload.len() < text.len() / 4);
    assert_eq!(inflated(payload), format!("a\n{text}").into_bytes());
    assert_eq!(hub.ask(hub.hub.publish("a", "short")), 2);
    deflating.hears("a\nshort");
    plain.hears("a\nshort");
}

#[test]
fn a_client_with_a_prefix_hears_every_room_under_it_once() {
    let hub = relay(Config::default());
    let mut all = hub.join_at("/ws?room=sensor/*&room=sensor/1&room=sensor/1*&room=door");
    assert_eq!(hub.ask(hub.hub.publish("sensor/1", "member")), 1);
    all.hears("sensor%2F1\nmember");
    assert_eq!(hub.ask(hub.hub.publish("sensor/12", "two prefixes")), 1);
    all.hears("sensor%2F12\ntwo prefixes");
    assert_eq!(hub.ask(hub.hub.publish("door", "open")), 1);
    all.hears("door\nopen");
    assert_eq!(hub.ask(hub.hub.publish("sensor", "not under it")), 0);
    // A room is one while it has a member.
    let names = |hub: &TestHub| {
        let rooms = hub.ask(hub.hub.rooms());
        rooms.iter().map(|room| room.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&hub), ["door", "sensor/1"]);
    let mut two = hub.join_at("/ws/sensor%2F2");
    assert_eq!(names(&hub), ["door", "sensor/1", "sensor/2"]);
    two.say("from two");
    two.hears("from two");
    all.hears("sensor%2F2\nfrom two");
    // It may send to any room under its prefix, and hears itself.
    all.say("sensor%2F2\nfrom all");
    two.hears("from all");
    all.hears("sensor%2F2\nfrom all");
    all.say("sensor%2F3\nto no member");
    all.hears("sensor%2F3\nto no member");
    drop(two);
    all.say("window\nno");
    all.is_closed(1008);
    drop(all);
    hub.empties();
    assert!(names(&hub).is_empty());
}

#[test]
fn without_echo_a_client_with_a_prefix_does_not_hear_itself() {
    let hub = relay(Config::default());
    let mut all = hub.join_at("/ws?room=*&echo=0");
    let mut a = hub.join_at("/ws/a");
    all.say("a\none");
    a.hears("one");
    a.say("two");
    all.hears("a\ntwo");
    let mut events = listen(&hub, "/sse?room=*");
    all.say("b\nthree");
    assert_eq!(chunk(&mut events), "data: b\ndata: three\n\n");
}

#[test]
fn a_star_is_at_the_end_or_in_a_path() {
    let hub = relay(Config::default());
    for query in ["?room=a*b", "?room=**", "?room=*a", "?room=a*&since=now", "/a?room=b*"] {
        assert_eq!(Peer::ask(&hub.address, &format!("/ws{query}")).1, 400, "{query}");
    }
    let mut star = hub.join_at("/ws/a*");
    assert_eq!(hub.ask(hub.hub.publish("ab", "elsewhere")), 0);
    assert_eq!(hub.ask(hub.hub.publish("a*", "here")), 1);
    star.hears("here");
    let mut prefix = hub.join_at("/ws?room=a*");
    assert_eq!(hub.ask(hub.hub.publish("a*", "both")), 2);
    star.hears("both");
    prefix.hears("a*\nboth");
}

#[test]
fn a_hub_has_at_most_64_prefixes() {
    let hub = relay(Config::default());
    let mut peers: Vec<_> = (0..8)
        .map(|peer| {
            let query: Vec<_> = (0..8).map(|n| format!("room={peer}-{n}*")).collect();
            hub.join_at(&format!("/ws?{}", query.join("&")))
        })
        .collect();
    let refused = Peer::ask(&hub.address, "/ws?room=main&room=9*");
    assert_eq!(refused.1, 503);
    // One that is there has places for more clients.
    let mut more = hub.join_at("/ws?room=7-7*");
    assert_eq!(hub.ask(hub.hub.publish("7-7", "both")), 2);
    more.hears("7-7\nboth");
    peers.pop();
    until("a prefix is free", || Peer::ask(&hub.address, "/ws?room=9*").1 == 101);
}

/// Clients of one prefix, some of them members too, in slices and with a sender that does not hear it.
#[test]
fn readers_by_prefix_count_among_the_recipients() {
    let hub = relay(Config::default());
    let mut by_prefix: Vec<_> = (0..150).map(|_| hub.join_at("/ws?room=a*")).collect();
    let mut members: Vec<_> = (0..150).map(|_| hub.join_at("/ws/ab")).collect();
    let mut both = hub.join_at("/ws?room=ab&room=a*");
    assert_eq!(hub.ask(hub.hub.publish("ab", "x")), 301);
    both.say("ab\ny");
    for peer in &mut by_prefix {
        peer.hears("ab\nx");
        peer.hears("ab\ny");
    }
    members.iter_mut().for_each(|peer| peer.hears("x"));
    members.iter_mut().for_each(|peer| peer.hears("y"));
    drop((by_prefix, members, both));
    hub.empties();
}

#[test]
fn beside_redis_a_prefix_is_refused() {
    let redis = "redis://127.0.0.1".parse().expect("a URL");
    let hub = relay(Config::default().redis(Some(redis)));
    let (mut peer, status) = Peer::ask(&hub.address, "/ws?room=a*");
    let sentence = String::from_utf8(peer.read_rest()).expect("text");
    assert_eq!(status, 400);
    assert_eq!(sentence.trim_end(), "a hub with Redis has rooms and no prefixes");
    // Several rooms are not, and wait for the server, which is away.
    assert_eq!(Peer::ask(&hub.address, "/ws?room=a&room=b").1, 503);
}
