//! Clients in several rooms: rights for each room, the log, and a restart.

use std::net::TcpStream;

use crate::support::{KEY, Peer, Server, sign};

/// The status of an upgrade, and the sentence with it.
fn refused(address: &str, path: &str) -> (u16, String) {
    let (mut peer, status) = Peer::<TcpStream>::ask(address, path);
    let body = String::from_utf8(peer.read_rest()).expect("text");
    (status, body.trim_end().to_owned())
}

#[test]
fn a_token_has_to_allow_each_room_and_a_message_to_each() {
    let (_server, address) = Server::start(&["--jwt-secret", KEY]);
    let token = sign(r#"{"rooms":["news","chat-*"],"publish":["chat-*"]}"#);
    let (status, why) = refused(&address, &format!("/ws?room=news&room=other&token={token}"));
    assert_eq!(status, 403);
    assert!(
        why.ends_with("the token does not allow to subscribe to each of these rooms and prefixes"),
        "{why}"
    );
    assert_eq!(refused(&address, "/ws?room=news&room=chat-1").0, 401);
    let join =
        |query: &str| Peer::<TcpStream>::connect(&address, &format!("/ws?{query}&token={token}"));
    let (mut both, mut chat) = (join("room=news&room=chat-1"), join("room=chat-1"));
    both.say("chat-1\nhello");
    both.hears("chat-1\nhello");
    chat.hears("hello");
    both.say("news\nhello");
    let reason = both.is_closed(1008);
    assert_eq!(reason, "publishing needs a token that allows it");
}

#[test]
fn a_room_of_the_backend_alone_stays_so_beside_others() {
    let flags = ["--room", "news:publish=backend", "--publish-token", "secret"];
    let (_server, address) = Server::start(&flags);
    let join =
        |query: &str| Peer::<TcpStream>::connect(&address, &format!("/ws?room=a&room=news{query}"));
    let (mut visitor, mut backend) = (join(""), join("&token=secret"));
    backend.say("news\nfrom the backend");
    visitor.hears("news\nfrom the backend");
    visitor.say("news\nno");
    visitor.is_closed(1008);
}

#[test]
fn a_query_that_names_no_rooms_is_refused_with_a_sentence() {
    let (_server, address) = Server::start(&[]);
    for (path, sentence) in [
        ("/ws/a?room=b", "room is for /ws and /sse without a room in the path"),
        ("/ws?room=a&room=b&since=0", "since and poll are for a client that asks for one room"),
        ("/ws?room=a&echo=2", "the parameter echo is 0 or 1"),
    ] {
        let (status, why) = refused(&address, path);
        assert_eq!(status, 400, "{path}");
        assert!(why.ends_with(sentence), "{path}: {why}");
    }
    assert_eq!(refused(&address, "/nothing?room=a").0, 404);
}

#[test]
fn each_room_of_a_client_is_in_the_log() {
    let (mut server, address) = Server::start(&[]);
    let peer = Peer::<TcpStream>::connect(&address, "/ws?room=a&room=b");
    server.logged("joined room \"a\"");
    server.logged("joined room \"b\"");
    drop(peer);
    server.logged("left room \"a\"");
    server.logged("left room \"b\"");
}

#[cfg(target_os = "linux")]
#[test]
fn a_restart_keeps_the_rooms_the_labels_and_the_rights() {
    use crate::restart::{events, hears};
    let (mut server, address) = Server::start(&["--jwt-secret", KEY]);
    let token = sign(r#"{"publish":["a","b"]}"#);
    let query = format!("room=a&room=c%201&room=b&token={token}");
    let mut peer = Peer::<TcpStream>::connect(&address, &format!("/ws?{query}&echo=0"));
    let mut other = Peer::<TcpStream>::connect(&address, &format!("/ws?{query}"));
    let mut reader = events(&address, &format!("/sse?{query}"));
    hears(&mut reader, ":");
    for _ in 0..2 {
        server.restart();
        peer.say("b\nhello");
        other.hears("b\nhello");
        hears(&mut reader, "data: b");
        hears(&mut reader, "data: hello");
        other.send(crate::peer::BINARY, b"a\n\xff");
        assert_eq!(peer.receive(), (crate::peer::BINARY, b"a\n\xff".to_vec()));
        hears(&mut reader, "data: a");
        hears(&mut reader, "data: /w==");
        other.receive();
    }
    peer.say("c%201\nno");
    peer.is_closed(1008);
}

#[test]
fn a_prefix_needs_a_pattern_that_covers_all_of_it() {
    let (_server, address) = Server::start(&["--jwt-secret", KEY]);
    let of = |claims: &str| sign(claims);
    for (claims, room, status) in [
        (r#"{"rooms":["a/*"]}"#, "a/*", 101),
        (r#"{"rooms":["a/*"]}"#, "a/b*", 101),
        (r#"{"rooms":["a/*"]}"#, "a/b", 101),
        (r#"{"rooms":["a/*"]}"#, "a*", 403),
        (r#"{"rooms":["a/b","a/c"]}"#, "a/*", 403),
        (r#"{"rooms":["a/b"]}"#, "a/b*", 403),
        (r#"{"rooms":["a/*"]}"#, "*", 403),
        (r#"{"rooms":["*"]}"#, "*", 101),
        (r#"{}"#, "a*", 101),
        (r#"{"rooms":[]}"#, "a*", 403),
    ] {
        let path = format!("/ws?room={room}&token={}", of(claims));
        assert_eq!(Peer::<TcpStream>::ask(&address, &path).1, status, "{claims} {room}");
    }
    // What a client may send to is kept for it, but not for a stream, which sends nothing.
    let many = (0..65).map(|nth| format!("\"a/{nth}\"")).collect::<Vec<_>>().join(",");
    let token = sign(&format!("{{\"publish\":[{many}]}}"));
    for (route, status) in [("ws", 400), ("sse", 200)] {
        let path = format!("/{route}?room=a/*&token={token}");
        assert_eq!(Peer::<TcpStream>::ask(&address, &path).1, status, "{route}");
    }
    // Rights to send are looked up for each room.
    let token = sign(r#"{"rooms":["a/*"],"publish":["a/1","b"]}"#);
    let mut peer = Peer::<TcpStream>::connect(&address, &format!("/ws?room=a/*&token={token}"));
    peer.say("a%2F1\nhello");
    peer.hears("a%2F1\nhello");
    peer.say("a%2F2\nhello");
    assert_eq!(peer.is_closed(1008), "publishing needs a token that allows it");
}

#[test]
fn an_administrator_sees_and_ends_a_client_with_a_prefix() {
    use crate::support::ask;
    let (mut server, address) = Server::start(&["--admin-token", "boss"]);
    let mut events = std::net::TcpStream::connect(&address).expect("it accepts");
    use std::io::{BufRead as _, BufReader, Write as _};
    let request =
        "GET /events?room=a%2F1 HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer boss\r\n\r\n";
    events.write_all(request.as_bytes()).expect("sent");
    events.set_read_timeout(Some(crate::support::DEADLINE)).expect("a deadline");
    let mut lines = BufReader::new(events).lines().map(|line| line.expect("in time"));
    let mut line = |begin: &str| {
        let line = lines.find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("the stream ends before {begin}"))
    };
    line(":");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws?room=a/*&room=b");
    server.logged("joined room \"a/*\"");
    let join = line("data: ");
    assert!(
        join.starts_with("data: {\"prefix\":\"a/*\",\"client\":\"0-0\",\"user\":null,"),
        "{join}"
    );
    let delete = |room: &str| {
        ask(&address, "DELETE", &format!("/rooms/{room}/0-0"), "Authorization: Bearer boss\r\n", "")
            .2
    };
    assert_eq!(delete("c").trim(), "{\"disconnected\":0}");
    assert_eq!(delete("a%2F1").trim(), "{\"disconnected\":1}");
    peer.is_closed(1008);
    let leave = line("data: ");
    assert!(
        leave.starts_with("data: {\"prefix\":\"a/*\"") && leave.contains("\"code\":1008"),
        "{leave}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_restart_keeps_prefixes_and_the_rights_under_them() {
    let (mut server, address) = Server::start(&["--jwt-secret", KEY]);
    let token = sign(r#"{"publish":["a/1*"]}"#);
    let mut peer =
        Peer::<TcpStream>::connect(&address, &format!("/ws?room=a/*&room=*&token={token}"));
    for _ in 0..2 {
        server.restart();
        peer.say("a%2F12\nhello");
        peer.hears("a%2F12\nhello");
    }
    peer.say("a%2F2\nno");
    peer.is_closed(1008);
}
