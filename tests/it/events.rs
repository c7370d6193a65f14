//! `GET /events`: what happens in the hub, as server-sent events.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_channel::Receiver;
use hublet::http::{Request, StatusCode};
use hublet::{Client, ClientId, Config, Disconnect, Handler, Message, Overflow, Peer as Source};

use crate::peer::Peer;
use crate::sse::{HEARTBEAT, chunk, listen, request, routed};
use crate::support::{Chat, TestHub, until};

/// Reads an event: its name, and its data without the time, which is that of this hour.
#[track_caller]
fn event(peer: &mut Peer<impl Read + Write>) -> (String, String) {
    let text = chunk(peer);
    let (name, data) = text.split_once("\ndata: ").expect("two fields");
    let (data, time) = data.rsplit_once("\"time\":").expect("a time");
    let time: u64 =
        time.strip_suffix("}\n\n").and_then(|time| time.parse().ok()).expect("a number");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(now.expect("after 1970").as_secs().abs_diff(time) < 3600);
    (name.strip_prefix("event: ").expect("a name").to_owned(), data.to_owned())
}

#[track_caller]
fn hears(peer: &mut Peer<impl Read + Write>, name: &str, data: &str) {
    assert_eq!(event(peer), (name.to_owned(), data.to_owned()));
}

/// The id of the only member of a room.
#[track_caller]
fn only(hub: &TestHub, room: &str) -> ClientId {
    hub.ask(hub.hub.presence(room))[0].id
}

#[test]
fn clients_that_come_and_go_are_told_with_their_rooms() {
    let hub = routed(Config::default());
    let mut events = listen(&hub, "/events");
    let mut ada = hub.join_at("/ws/news");
    let id = only(&hub, "news");
    hears(&mut events, "room", "{\"room\":\"news\",\"state\":\"made\",");
    let joined = format!("{{\"room\":\"news\",\"client\":\"{id}\",\"user\":null,");
    hears(&mut events, "join", &joined);
    hub.ask(hub.hub.join(id, "more \"news\""));
    hears(&mut events, "room", "{\"room\":\"more \\\"news\\\"\",\"state\":\"made\",");
    assert_eq!(event(&mut events).0, "join");
    hub.ask(hub.hub.leave(id, "more \"news\""));
    let left = format!("{{\"room\":\"more \\\"news\\\"\",\"client\":\"{id}\",\"user\":null,");
    hears(&mut events, "leave", &left);
    hears(&mut events, "room", "{\"room\":\"more \\\"news\\\"\",\"state\":\"gone\",");
    ada.send(0x88, &4000_u16.to_be_bytes());
    hears(&mut events, "leave", &format!("{joined}\"code\":4000,\"reason\":\"\","));
    hears(&mut events, "room", "{\"room\":\"news\",\"state\":\"gone\",");
    drop(ada);
    // It is no client.
    assert_eq!(hub.hub.stats().clients, 0);
    drop(events);
    hub.empties();
}

#[test]
fn an_eviction_is_told_before_its_leave() {
    let hub = routed(Config::default().queue(1).queue_bytes(70_000).overflow(Overflow::Disconnect));
    let mut events = listen(&hub, "/events?room=ma*");
    let slow = hub.join_narrow();
    let _other = hub.join_at("/ws/elsewhere");
    let id = only(&hub, "main");
    for name in ["room", "join"] {
        assert_eq!(event(&mut events).0, name);
    }
    let text = "x".repeat(60_000);
    until("it is evicted", || {
        hub.ask(hub.hub.publish("main", text.as_str()));
        hub.hub.stats().clients == 1
    });
    let (name, evicted) = event(&mut events);
    assert_eq!(name, "evicted");
    let evicted_client =
        format!("{{\"room\":\"main\",\"client\":\"{id}\",\"user\":null,\"code\":4108,");
    assert!(
        evicted.starts_with(&format!("{evicted_client}\"reason\":\"too slow: missed ")),
        "{evicted}"
    );
    hears(&mut events, "leave", &evicted);
    hears(&mut events, "room", "{\"room\":\"main\",\"state\":\"gone\",");
    drop(slow);
}

#[test]
fn a_filter_is_one_room_or_a_prefix() {
    let hub = routed(Config::default());
    let (mut one, mut some) =
        (listen(&hub, "/events?room=a%2F1"), listen(&hub, "/events?room=a%2F*"));
    let _clients = ["b", "a", "a%2F2", "a%2F1"].map(|room| hub.join_at(&format!("/ws/{room}")));
    let told = |reader: &mut Peer<TcpStream>, room: &str| {
        let begin = format!("{{\"room\":\"{room}\",");
        for name in ["room", "join"] {
            let (heard, data) = event(reader);
            assert_eq!(heard, name);
            assert!(data.starts_with(&begin), "{data}");
        }
    };
    told(&mut one, "a/1");
    told(&mut some, "a/2");
    told(&mut some, "a/1");
    for query in ["room=", "room=*a", "room=a*b"] {
        assert_eq!(hub.dial().request(&request(&format!("/events?{query}"))).status, 400);
    }
    let head = "HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(hub.dial().request(head).status, 405);
}

/// The manager does not wait for a reader that takes nothing.
#[test]
fn a_reader_that_is_behind_is_told_of_the_gap() {
    let hub = routed(Config::default().queue(8));
    let mut peer = Peer::dial_narrow(&hub.address);
    assert_eq!(peer.request(&request("/events")).status, 200);
    let _stays = hub.join_at("/ws/stays");
    let id = only(&hub, "stays");
    // About as many bytes as sockets take, and more.
    let rooms = 60_000;
    for n in 0..rooms {
        let room = format!("{n} {}", "r".repeat(100));
        hub.ask(hub.hub.join(id, &room));
        hub.ask(hub.hub.leave(id, &room));
    }
    chunk(&mut peer);
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < 4 * rooms + 2 {
        let (name, data) = event(&mut peer);
        if name == "gap" {
            let number = data.strip_prefix("{\"missed\":").and_then(|data| data.split(',').next());
            missed += number.and_then(|number| number.parse::<u64>().ok()).expect("a number");
        } else {
            heard += 1;
        }
    }
    assert_eq!(heard + missed, 4 * rooms + 2, "every event is heard or missed");
    assert!(missed > 0 && heard > 8, "{heard} heard, {missed} missed");
}

#[test]
fn readers_have_4_places_and_none_of_a_client() {
    let hub = routed(Config::default().max_clients(Some(1)).handshakes(1));
    let mut readers: Vec<_> = (0..4).map(|_| listen(&hub, "/events")).collect();
    let client = hub.join_at("/ws/a");
    let refused = hub.dial().request(&request("/events"));
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("5")));
    drop(readers.pop());
    until("a place is free", || hub.dial().request(&request("/events")).status == 200);
    drop((client, readers));
    hub.empties();
}

#[test]
fn a_drain_ends_the_stream_with_a_word() {
    let hub = routed(Config::default());
    let mut events = listen(&hub, "/events");
    let (draining, reason) = (hub.hub.clone(), Disconnect::RESTART);
    let drain = hub.spawn(async move { draining.drain(reason).await });
    let last = String::from_utf8(events.read_rest()).expect("text");
    assert!(last.contains("event: close\ndata: {\"code\":1001,"), "{last}");
    assert!(last.ends_with("\r\n0\r\n\r\n"), "{last}");
    drop(events);
    futures_lite::future::block_on(drain);
}

/// Allows reading until the other end of the channel is dropped.
struct Watch(Receiver<Infallible>);

impl Handler for Watch {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        Chat.on_message(client, message).await
    }

    async fn inspect_until(&self, _: &Request<()>, _: &Source) -> StatusCode {
        let _ = self.0.recv().await;
        StatusCode::UNAUTHORIZED
    }
}

#[test]
fn a_stream_ends_with_its_token() {
    let (permission, until) = async_channel::bounded(1);
    let hub = TestHub::serving(Config::default().http(true), Watch(until));
    let mut events = listen(&hub, "/events");
    drop(permission);
    let last = String::from_utf8(events.read_rest()).expect("text");
    assert!(last.contains("event: close\ndata: {\"code\":1008,"), "{last}");
}

#[test]
fn a_silent_stream_shows_that_it_lives() {
    let hub = routed(Config::default().ping_interval(Duration::from_millis(50)));
    let mut events = listen(&hub, "/events");
    assert_eq!(chunk(&mut events), HEARTBEAT);
}
