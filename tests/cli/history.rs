//! Positions, kept messages and `since`, from outside: by WebSocket, by events and by request.

use std::net::TcpStream;

use crate::support::{KEY, Peer, Server, ask, eventually, hublet, metrics, number, run, sign};

/// Publishes; returns the position, if the room exists.
#[track_caller]
fn post(address: &str, room: &str, text: &str) -> Option<u64> {
    let (status, _, answer) = ask(address, "POST", &format!("/pub/{room}"), "", text);
    assert_eq!(status, 202, "{answer}");
    number(&answer, "\"position\":")
}

/// The body of the chunks of a stream of events that has ended.
fn events(address: &str, path: &str, headers: &str) -> String {
    let (status, _, body) = ask(address, "GET", path, headers, "");
    assert_eq!(status, 200, "{body}");
    let mut lines = body.split("\r\n");
    let mut text = String::new();
    while let (Some(_), Some(chunk)) = (lines.next(), lines.next()) {
        text += chunk;
    }
    text
}

/// A WebSocket with `since`, and the position that its first frame says.
#[track_caller]
fn socket(address: &str, path: &str) -> (Peer<TcpStream>, u64) {
    let mut peer = Peer::<TcpStream>::connect(address, path);
    let (kind, first) = peer.receive();
    assert_eq!(kind, 0x81, "the first frame is a text");
    let position = String::from_utf8(first).expect("text").parse().expect("a decimal position");
    (peer, position)
}

const KEEPS: [&str; 2] = ["--history", "3"];

#[test]
fn a_websocket_that_comes_back_hears_what_it_missed_and_is_told_of_a_gap() {
    let (_server, address) = Server::start(&KEEPS);
    let (mut peer, before) = socket(&address, "/ws/news?since=now");
    peer.say("one");
    peer.hears("one");
    drop(peer);
    let two = post(&address, "news", "two").expect("the room is there");
    assert_eq!(two, before + 2);
    let (mut back, position) = socket(&address, &format!("/ws/news?since={}", before + 1));
    assert_eq!(position, before + 1, "nothing was missed");
    back.hears("two");
    assert_eq!(post(&address, "news", "three"), Some(before + 3));
    back.hears("three");
    for text in ["four", "five", "six"] {
        post(&address, "news", text);
    }
    // The ring keeps three: one message is missed, and what is kept comes all the same.
    let (mut late, position) = socket(&address, &format!("/ws/news?since={two}"));
    assert_eq!(position, before + 3);
    ["four", "five", "six"].iter().for_each(|text| late.hears(text));
    // A number of another life of the room.
    let (mut other, position) = socket(&address, "/ws/news?since=4711");
    assert_eq!(position, before + 3);
    other.hears("four");
    for (since, begin) in [("0", 3), ("-1", 5), ("-2", 4), ("now", 6), ("-99", 3)] {
        let (_, position) = socket(&address, &format!("/ws/news?since={since}"));
        assert_eq!(position, before + begin, "{since}");
    }
}

#[test]
fn without_since_there_is_no_number_and_without_history_loss_is_told() {
    let (_server, address) = Server::start(&[]);
    let mut plain = Peer::<TcpStream>::connect(&address, "/ws/news");
    let first = post(&address, "news", "one").expect("it has a member");
    plain.hears("one");
    let (mut counting, position) = socket(&address, "/ws/news?since=0");
    assert_eq!(position, first, "nothing is kept");
    assert_eq!(post(&address, "news", "two"), Some(first + 1));
    counting.hears("two");
    drop((plain, counting));
    // The count stays, so a lone reader that comes back is not told of a loss that was none.
    let (lone, position) = socket(&address, &format!("/ws/news?since={}", first + 1));
    assert_eq!(position, first + 1);
    drop(lone);
    assert_eq!(post(&address, "other", "unheard"), None, "no such room");
    let (_, _, room) = ask(&address, "GET", "/rooms/other", "", "");
    assert_eq!(room, "{\"room\":\"other\",\"members\":[],\"next\":null}\n");
}

#[test]
fn events_carry_positions_and_a_gap_is_their_first() {
    let (_server, address) = Server::start(&KEEPS);
    let positions: Vec<_> =
        (0..5).map(|nth| post(&address, "news", &format!("m{nth}")).expect("kept")).collect();
    let newest = positions[4];
    let kept = |from: usize| -> String {
        (from..5).map(|nth| format!("id: {}\ndata: m{nth}\n\n", positions[nth])).collect()
    };
    let gap = |missed: &str| format!("event: gap\nid: {}\ndata: {missed}\n\n", positions[1]);
    for (query, header, missed, from) in [
        ("poll=1".to_owned(), None, None, 2),
        ("since=0&poll=1".to_owned(), None, None, 2),
        ("since=-1&poll=1".to_owned(), None, None, 4),
        (format!("since={}&poll=1", newest - 1), None, None, 4),
        (format!("since={newest}&poll=1"), None, None, 5),
        (format!("since={}&poll=1", newest - 4), None, Some("1"), 2),
        ("since=4711&poll=1".to_owned(), None, Some("unknown"), 2),
        // The header wins over the query of the old URL.
        ("since=0&poll=1".to_owned(), Some((newest - 1).to_string()), None, 4),
        ("since=x&poll=1".to_owned(), Some(newest.to_string()), None, 5),
        ("poll=1".to_owned(), Some("what is this".to_owned()), Some("unknown"), 2),
        ("poll=1".to_owned(), Some("é".to_owned()), Some("unknown"), 2),
    ] {
        let header = header.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let heard = events(&address, &format!("/sse/news?{query}"), &header);
        let heard = heard.trim_start_matches(":\n");
        let expected = missed.map_or(String::new(), gap) + &kept(from);
        assert_eq!(heard, expected, "{query} {header}");
    }
    for query in ["since=", "since=x", "since=-0", "poll=2"] {
        let (status, _, _) = ask(&address, "GET", &format!("/sse/news?{query}"), "", "");
        assert_eq!(status, 400, "{query}");
    }
}

#[test]
fn what_cannot_count_is_refused() {
    let (_server, address) = Server::start(&KEEPS);
    for query in
        ["since=", "since=x", "since=1.5", "since=-0", "since=0&echo=0", "since=0&every=1s"]
    {
        let (_, status) = Peer::<TcpStream>::ask(&address, &format!("/ws/news?{query}"));
        assert_eq!(status, 400, "{query}");
    }
}

#[test]
fn a_client_that_counts_hears_itself_where_no_other_does() {
    let (_server, address) = Server::start(&["--no-echo", "--history", "3"]);
    let (mut peer, position) = socket(&address, "/ws/news?since=now");
    peer.say("mine");
    peer.hears("mine");
    assert_eq!(post(&address, "news", "theirs"), Some(position + 2));
    peer.hears("theirs");
}

#[test]
fn a_last_value_is_there_before_its_first_reader_and_its_room_is_listed() {
    let (_server, address) = Server::start(&["--history", "sensor-*=1"]);
    let position = post(&address, "sensor-1", "21.5").expect("the message makes its room");
    assert_eq!(post(&address, "chat", "hello"), None);
    let (status, head, body) = ask(&address, "GET", "/pub/sensor-1", "", "");
    assert_eq!((status, &*body), (200, "21.5"));
    assert_eq!(number(&head, "Hublet-Position:"), Some(position));
    assert_eq!(ask(&address, "GET", "/pub/chat", "", "").0, 204);
    let (_, _, rooms) = ask(&address, "GET", "/rooms", "", "");
    assert_eq!(rooms, "{\"rooms\":[{\"room\":\"sensor-1\",\"members\":0}],\"next\":null}\n");
    post(&address, "sensor-1", "22");
    let (_, _, room) = ask(&address, "GET", "/rooms/sensor-1", "", "");
    let newest = position + 1;
    assert_eq!(
        room,
        format!(
            "{{\"room\":\"sensor-1\",\"members\":[],\"position\":{newest},\
             \"oldest\":{newest},\"next\":null}}\n"
        )
    );
    let metrics = metrics(&address);
    assert!(metrics.contains("\nhublet_rooms 1\n"), "{metrics}");
    assert!(number(&metrics, "\nhublet_history_bytes").is_some_and(|bytes| bytes > 0), "{metrics}");
}

#[test]
fn the_longest_pattern_says_how_many_messages_a_room_keeps() {
    let (_server, address) = Server::start(&[
        "--history",
        "1",
        "--history",
        "chat-*=2",
        "--history",
        "chat-7=3",
        "--history",
        "log*=0",
    ]);
    for (room, kept) in [("news", 1), ("chat-1", 2), ("chat-7", 3), ("logs", 0)] {
        for nth in 0..5 {
            post(&address, room, &nth.to_string());
        }
        let heard = if kept > 0 {
            events(&address, &format!("/sse/{room}?poll=1"), "")
        } else {
            String::new()
        };
        assert_eq!(heard.matches("data: ").count(), kept, "{room}");
    }
}

#[test]
fn the_oldest_rooms_and_messages_go_first() {
    let (_server, address) =
        Server::start(&["--history", "9", "--max-rooms", "2", "--history-bytes", "20"]);
    for room in ["a", "b", "c"] {
        post(&address, room, room);
    }
    let status = |room: &str| ask(&address, "GET", &format!("/pub/{room}"), "", "").0;
    assert_eq!([status("a"), status("b"), status("c")], [204, 200, 200]);
    // Two frames of 2 + 8 bytes fit.
    for text in ["12345678", "23456789", "34567890"] {
        post(&address, "c", text);
    }
    let heard = events(&address, "/sse/c?since=0&poll=1", "");
    assert!(!heard.contains("12345678") && heard.contains("23456789"), "{heard}");
    // A message that alone is longer leaves nothing behind, and is counted.
    let long = post(&address, "c", "a message that is longer than 20 bytes").expect("it counts");
    let (status, head, _) = ask(&address, "GET", "/pub/c", "", "");
    assert_eq!((status, number(&head, "Hublet-Position:")), (204, Some(long)));
}

/// A reader may make rooms, and may not make the last values of others go by that.
#[test]
fn a_room_without_a_message_goes_before_one_that_has_a_last_value() {
    let (_server, address) = Server::start(&["--history", "9", "--max-rooms", "3"]);
    let listed = || ask(&address, "GET", "/rooms", "", "").2;
    post(&address, "a", "last");
    post(&address, "b", "value");
    let both = "{\"rooms\":[{\"room\":\"a\",\"members\":0},{\"room\":\"b\",\"members\":0}],\"next\":null}\n";
    for nth in 0..4 {
        drop(Peer::<TcpStream>::connect(&address, &format!("/ws/x{nth}")));
        eventually("its room had no message, and is gone", || listed() == both);
        events(&address, &format!("/sse/y{nth}?since=0&poll=1"), "");
        eventually("what only asks leaves no room", || listed() == both);
    }
    for nth in 0..4 {
        // The count of such a room stays, in the place of the one before it.
        drop(socket(&address, &format!("/ws/z{nth}?since=now")));
        let own = format!("{{\"room\":\"z{nth}\",\"members\":0}}");
        eventually("its reader has left", || listed().contains(&own));
    }
    assert!(listed().contains("\"a\"") && listed().contains("\"b\""), "{}", listed());
}

#[test]
fn a_room_is_forgotten_whole_after_its_age() {
    let (_server, address) = Server::start(&["--history", "9", "--history-age", "300ms"]);
    let position = post(&address, "a", "old").expect("kept");
    assert_eq!(ask(&address, "GET", "/pub/a", "", "").0, 200);
    eventually("the room is forgotten", || ask(&address, "GET", "/pub/a", "", "").0 != 200);
    // Another life has another count.
    let newer = post(&address, "a", "new").expect("kept");
    assert_ne!(newer, position + 1);
    let (_, head, body) = ask(&address, "GET", &format!("/pub/a?since={position}"), "", "");
    assert!(head.contains("\r\nHublet-Missed: unknown\r\n") && body == "new", "{head}");
}

/// A GET of a room is listening: a client that may publish only, may not read.
#[test]
fn reading_a_room_needs_the_right_to_listen_to_it() {
    let flags = ["--history", "3", "--jwt-secret", KEY, "--publish-token", "backend"];
    let (_server, address) = Server::start(&flags);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let (status, _, _) = ask(&address, "POST", "/pub/news", &bearer("backend"), "hello");
    assert_eq!(status, 202);
    let reader = sign(r#"{"rooms":["news"]}"#);
    let stranger = sign(r#"{"rooms":["other"],"publish":["news"]}"#);
    let over = sign(r#"{"rooms":["news"],"exp":1}"#);
    for method in ["GET", "HEAD"] {
        for query in ["", "?since=0", "?since=now&wait=1ms"] {
            let path = format!("/pub/news{query}");
            let status = |headers: &str| ask(&address, method, &path, headers, "").0;
            let found = if query.contains("now") { 204 } else { 200 };
            assert_eq!(status(""), 401, "{method} {path}");
            assert_eq!(status(&bearer("wrong")), 401, "{method} {path}");
            assert_eq!(status(&bearer(&over)), 401, "{method} {path}");
            assert_eq!(status(&bearer(&stranger)), 403, "{method} {path}");
            assert_eq!(status(&bearer(&reader)), found, "{method} {path}");
            assert_eq!(status(&bearer("backend")), found, "{method} {path}");
        }
    }
    let (status, _, body) = ask(&address, "GET", &format!("/pub/news?token={reader}"), "", "");
    assert_eq!((status, &*body), (200, "hello"));
}

#[test]
fn a_host_that_the_hub_does_not_know_reads_nothing() {
    let (_server, address) = Server::start(&KEEPS);
    post(&address, "news", "hello");
    let request = "GET /pub/news HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    assert_eq!(Peer::<TcpStream>::dial(&address).request(request).status, 421);
}

#[test]
fn wrong_flags_are_refused_and_doubtful_ones_are_logged() {
    for (flags, sentence) in [
        (&["--overflow", "replay"][..], "needs a history"),
        (&["--overflow", "replay", "--history", "0"], "needs a history"),
        (&["--room", "a*:overflow=replay"], "--room a*:overflow=replay needs a history"),
        (&["--room", "a:overflow=replay", "--history", "b=9"], "needs a history"),
        (&["--history", "*a=3"], "PATTERN"),
        (&["--history", "a*b=3"], "PATTERN"),
        (&["--history", "a="], "PATTERN"),
        (&["--history", "many"], "PATTERN"),
        (&["--history", "-1"], "PATTERN"),
        (&["--history-bytes", "0"], "bytes"),
        (&["--history-memory", "x"], "bytes"),
        (&["--history-age", "1"], "time"),
        (&["--history-age", "2d"], "time"),
    ] {
        let output = run(&mut hublet(flags));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(sentence), "{flags:?}: {stderr}");
    }
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--history",
        "9",
        "--history-bytes",
        "2m",
        "--history-memory",
        "1m",
    ];
    let mut server = Server::of(&mut hublet(&flags));
    server.listening();
    server.logged("--history-bytes 2m is more than --history-memory: a room keeps 1m at most");
    let flags =
        ["--overflow", "replay", "--history", "9", "--history-age", "0", "--listen", "127.0.0.1:0"];
    Server::of(&mut hublet(&flags)).listening();
    let flags = ["--room", "a*:overflow=replay", "--history", "ab=9", "--listen", "127.0.0.1:0"];
    Server::of(&mut hublet(&flags)).listening();
}
