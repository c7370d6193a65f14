//! Clients in several rooms: each message has a label, in both directions.

use hublet::{Config, Relay};

use crate::deflate::{DEFLATED_TEXT, inflated, offering};
use crate::peer::{BINARY, Peer, TEXT};
use crate::sse::{chunk, listen, request};
use crate::support::TestHub;

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
