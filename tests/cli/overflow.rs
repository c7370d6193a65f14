//! Clients that are behind, by policy, and kept messages when memory is short.

use std::net::TcpStream;

use crate::peer::upgrade;
use crate::support::{CLOSE, Peer, Server, TEXT, ask, eventually, metrics, number};

type Client = Peer<TcpStream>;

/// Bytes of a message: a few fill what the kernels take for a client that does not read.
const SIZE: usize = 8_000;

/// A message that begins with its number.
fn message(nth: usize) -> String {
    format!("{nth} {}", "x".repeat(SIZE))
}

/// The number of a message.
fn nth(text: &str) -> usize {
    text.split(' ').next().and_then(|nth| nth.parse().ok()).expect("a number")
}

/// Starts a hub with short queues, where a client may read nothing for a minute.
fn hub(flags: &[&str]) -> (Server, String) {
    let patient = ["--queue", "4", "--write-timeout", "1m", "--ping-interval", "1h"];
    Server::start(&[&patient, flags].concat())
}

/// Publishes messages to the room, each dispatched before the next.
fn publish(address: &str, numbers: std::ops::Range<usize>) {
    for nth in numbers {
        let (status, _, body) = ask(address, "POST", "/pub/news", "", &message(nth));
        assert_eq!(status, 202, "{body}");
    }
}

/// A WebSocket with a narrow window.
fn slow_socket(address: &str, path: &str) -> Client {
    let mut client = Client::dial_narrow(address);
    assert_eq!(client.request(&upgrade(path)).status, 101);
    client
}

/// The next text of a WebSocket; `Err` with the code of a close frame.
fn heard(client: &mut Client) -> Result<String, u16> {
    let (kind, payload) = client.receive();
    if kind == CLOSE {
        return Err(u16::from_be_bytes([payload[0], payload[1]]));
    }
    assert_eq!(kind, TEXT);
    Ok(String::from_utf8(payload).expect("text"))
}

/// A stream of events with a narrow window, and what of it was read and is no whole event.
struct Events(Client, String);

impl Events {
    fn open(address: &str) -> Self {
        let mut client = Client::dial_narrow(address);
        let response = client.request("GET /sse/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(response.status, 200);
        Self(client, String::new())
    }

    /// The next event that has data: its kind if it has one, its position and its data.
    fn next(&mut self) -> (Option<String>, u64, String) {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                let found = field("data: ").map(|data| {
                    let id = field("id: ").and_then(|id| id.parse().ok()).expect("a position");
                    (field("event: "), id, data)
                });
                self.1 = rest.to_owned();
                match found {
                    Some(found) => return found,
                    None => continue,
                }
            }
            let mut length = Vec::new();
            while !length.ends_with(b"\r\n") {
                length.extend(self.0.read(1));
            }
            let digits = String::from_utf8(length).expect("a chunk");
            let length = usize::from_str_radix(digits.trim(), 16).expect("a length");
            self.1 += &String::from_utf8(self.0.read(length)).expect("text");
            assert_eq!(self.0.read(2), b"\r\n");
        }
    }
}

/// Clients that the hub has evicted, for whatever reason.
fn evictions(address: &str) -> u64 {
    let metrics = metrics(address);
    let lines = metrics.lines().filter(|line| line.starts_with("hublet_evictions_total{"));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let counts: Vec<_> = counts.collect();
    assert_eq!(counts.len(), 3, "{metrics}");
    counts.iter().sum()
}

#[test]
fn with_replay_a_slow_client_misses_nothing_that_its_room_keeps() {
    const ALL: usize = 300;
    let flags = ["--overflow", "replay", "--history", "400", "--history-bytes", "4m"];
    let (_server, address) = hub(&flags);
    let mut plain = slow_socket(&address, "/ws/news");
    let mut counting = slow_socket(&address, "/ws/news?since=now");
    heard(&mut counting).expect("its position");
    let mut events = Events::open(&address);
    publish(&address, 0..ALL);
    let before = metrics(&address);
    let figure = |name| number(&before, &format!("\nhublet_{name}_total")).expect("a counter");
    let waiting = figure("recipients") - figure("messages_delivered");
    // A queue has room for four: if fewer wait, no client has to read its room.
    assert!(waiting > 3 * 4, "only {waiting} messages wait for the three clients");
    for client in [&mut plain, &mut counting] {
        for expected in 0..ALL {
            assert_eq!(nth(&heard(client).expect("a message")), expected);
        }
    }
    let (_, first, _) = events.next();
    for expected in 1..ALL {
        let (kind, position, data) = events.next();
        let told = (kind, position, nth(&data));
        assert_eq!(told, (None, first + expected as u64, expected));
    }
    let metrics = metrics(&address);
    for none in ["dropped_total", "lost_total"] {
        assert_eq!(number(&metrics, &format!("\nhublet_messages_{none}")), Some(0));
    }
}

#[test]
fn with_replay_a_client_that_its_room_overtakes_is_told() {
    const ALL: usize = 600;
    let (_server, address) = hub(&["--overflow", "replay", "--history", "5"]);
    let mut sockets = ["/ws/news", "/ws/news?since=now"].map(|path| slow_socket(&address, path));
    heard(&mut sockets[1]).expect("its position");
    let mut events = Events::open(&address);
    publish(&address, 0..ALL);
    for client in &mut sockets {
        let mut expected = 0;
        let code = loop {
            match heard(client) {
                Ok(text) => assert_eq!(nth(&text), expected),
                Err(code) => break code,
            }
            expected += 1;
        };
        assert_eq!(code, 4108);
        assert!(expected < ALL);
    }
    // The stream goes on behind the gap, with the oldest message that is kept.
    let (mut last, mut missed) = (None, 0);
    loop {
        let (kind, position, data) = events.next();
        if kind.as_deref() == Some("gap") {
            missed += data.parse::<u64>().expect("their number");
            last = last.map(|last: u64| last + data.parse::<u64>().expect("their number"));
            assert_eq!(last, Some(position), "the position before the next message");
            continue;
        }
        assert!(last.is_none_or(|last| last + 1 == position), "no gap was told");
        last = Some(position);
        if nth(&data) == ALL - 1 {
            break;
        }
    }
    assert!(missed > 0);
}

#[test]
fn with_latest_a_client_that_is_behind_gets_the_newest_message() {
    const ALL: usize = 600;
    let (_server, address) = hub(&["--overflow", "latest"]);
    let mut plain = slow_socket(&address, "/ws/news");
    let mut counting = slow_socket(&address, "/ws/news?since=now");
    heard(&mut counting).expect("its position");
    let mut events = Events::open(&address);
    publish(&address, 0..ALL);
    let mut texts = 0;
    while nth(&heard(&mut plain).expect("it stays")) < ALL - 1 {
        texts += 1;
    }
    assert!(texts < ALL / 2, "{texts} messages came before the newest");
    publish(&address, ALL..ALL + 1);
    assert_eq!(nth(&heard(&mut plain).expect("it stays")), ALL, "it is live again");
    // A client that counts may lose nothing. Its buffers are full, so the close frame may not fit.
    while let Ok((kind, payload)) = counting.try_receive() {
        if kind == CLOSE {
            assert_eq!(payload[..2], 4108_u16.to_be_bytes());
            break;
        }
    }
    assert_eq!(evictions(&address), 1);
    let (mut last, mut missed) = (None, 0);
    loop {
        let (kind, position, data) = events.next();
        if kind.as_deref() == Some("gap") {
            missed += 1;
            last = Some(position);
            continue;
        }
        assert!(last.is_none_or(|last: u64| last + 1 == position), "no gap was told");
        last = Some(position);
        if nth(&data) >= ALL - 1 {
            break;
        }
    }
    assert!(missed > 0);
}

/// Kept messages go before any client is refused or evicted, and the last value of a quiet room is
/// among the last to go.
#[test]
fn kept_messages_are_shed_before_a_client_is_evicted() {
    let (_server, address) = Server::start(&[
        "--max-memory",
        "16m",
        "--max-clients",
        "20",
        "--history",
        "noisy=10000",
        "--history",
        "quiet=1",
        "--history-bytes",
        "64m",
        "--history-memory",
        "64m",
        "--queue",
        "5000",
        "--queue-bytes",
        "64m",
        "--write-timeout",
        "1m",
    ]);
    let figure = |name: &str| number(&metrics(&address), &format!("\nhublet_{name}"));
    let post = |room: &str, text: &str| {
        let (status, _, body) = ask(&address, "POST", &format!("/pub/{room}"), "", text);
        assert_eq!(status, 202, "{body}");
    };
    let quiet = || ask(&address, "GET", "/pub/quiet", "", "").2;
    let long = "x".repeat(60_000);
    post("quiet", "the last value");
    // Past a quarter of what is for messages, which is less than the ceiling.
    let is_shed = (0..(16 << 20) / long.len()).any(|_| {
        post("noisy", &long);
        figure("history_shed_total").expect("a counter") > 0
    });
    assert!(is_shed, "the hub keeps more than its ceiling allows");
    assert_eq!(quiet(), "the last value");
    let mut slow = Client::dial_narrow(&address);
    assert_eq!(slow.request(&upgrade("/ws/slow")).status, 101);
    let kept = figure("history_bytes").expect("a gauge");
    assert!(kept > 1 << 20, "{kept} bytes are kept");
    eventually("the noisy room has no two messages", || {
        assert_eq!(evictions(&address), 0, "while messages are kept");
        post("slow", &long);
        figure("history_bytes").is_some_and(|bytes| bytes < 70_000)
    });
    assert_eq!(evictions(&address), 0);
}
