//! What clients and rooms have over restarts: positions, kept messages, cursors, encodings, and the
//! rooms of a Redis server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::peer::upgrade;
use crate::redis::post;
use crate::redis_server::RedisServer;
use crate::restart::{events, hears, start};
use crate::support::{
    BINARY, Folder, HUBLET, Peer, TEXT, ask as request, eventually, metrics, number,
};

/// The next message of a client as a number.
fn number_of<S: Read + Write>(client: &mut Peer<S>) -> u64 {
    String::from_utf8(client.receive().1).expect("digits").parse().expect("a number")
}

/// Reads up to the next message; returns its id, what came before it, and its data.
fn event(events: &mut BufReader<TcpStream>) -> (Option<u64>, String, String) {
    let (mut before, mut line) = (String::new(), String::new());
    while !line.starts_with("data: ") {
        before.push_str(&std::mem::take(&mut line));
        assert!(events.read_line(&mut line).expect("a line in time") > 0);
    }
    (number(&before, "id: "), before, line["data: ".len()..].trim_end().to_owned())
}

/// Positions, cursors and what rooms keep are those of the program before: no reader is told of a
/// gap, and each number is the next one.
#[test]
fn positions_and_kept_messages_go_on() {
    let flags = ["--history", "3", "--history", "plain-*=0", "--overflow", "replay"];
    let (mut server, address) = start(HUBLET.as_ref(), &flags);
    let publish = |room: &str, text: &str| {
        let body = post(&address, &format!("/pub/{room}"), text).body;
        number(&body, "\"position\":").unwrap_or_else(|| panic!("{body}"))
    };
    let first = publish("news", "one");
    // No client is in this room, and it keeps a message that is no text.
    request(&address, "POST", "/pub/last", "Content-Type: application/octet-stream\r\n", "\0\n,%");
    let mut counting = Peer::<TcpStream>::connect(&address, "/ws/news?since=0");
    assert_eq!(number_of(&mut counting), first - 1);
    counting.hears("one");
    let mut lone = Peer::<TcpStream>::connect(&address, "/ws/plain-a?since=now");
    let lone_at = number_of(&mut lone);
    drop(lone);
    let mut reader = events(&address, "/sse/news");
    hears(&mut reader, ":");
    for nth in 1..=3 {
        server.restart();
        assert_eq!(publish("news", "more"), first + nth);
        counting.hears("more");
        let (id, before, data) = event(&mut reader);
        assert_eq!((id, &*data), (Some(first + nth), "more"), "{before}");
        assert!(!before.contains("gap"), "{before}");
        // A reader that comes back asks the new program with the number of the old one.
        let late = first + nth - 1;
        let mut again = Peer::<TcpStream>::connect(&address, &format!("/ws/news?since={late}"));
        assert_eq!(number_of(&mut again), late, "nothing is missed");
        again.hears("more");
    }
    let (status, head, body) = request(&address, "GET", "/pub/last", "", "");
    assert_eq!((status, &*body), (200, "\0\n,%"));
    assert!(head.to_ascii_lowercase().contains("application/octet-stream"), "{head}");
    let mut lone = Peer::<TcpStream>::connect(&address, &format!("/ws/plain-a?since={lone_at}"));
    assert_eq!(number_of(&mut lone), lone_at, "a count without a member or a message goes along");
    let mut oldest = Peer::<TcpStream>::connect(&address, "/ws/news?since=0");
    assert_eq!(number_of(&mut oldest), first, "as many are kept as before");
    drop((counting, reader, lone, oldest));
    assert_eq!(server.stop(), Some(0));
}

/// A client that is behind in a room that keeps messages reads on in the new program.
#[test]
fn a_cursor_that_is_behind_goes_along() {
    const MESSAGES: usize = 4_000;
    let flags = ["--history", "5000", "--history-bytes", "16m", "--history-memory", "32m"];
    let folder = Folder::new("restart-behind");
    let (path, unix) = folder.socket();
    let flags = [&flags[..], &["--overflow", "replay", "--listen", &unix]].concat();
    let (mut server, address) = start(HUBLET.as_ref(), &flags);
    server.listening();
    let mut slow = Peer::<UnixStream>::dial(&path).join("/ws/a?since=now");
    number_of(&mut slow);
    let mut speaker = Peer::<TcpStream>::connect(&address, "/ws/a?echo=0&probe=1");
    let text = |nth: usize| format!("{nth} {}", "x".repeat(2_000));
    (0..MESSAGES).for_each(|nth| speaker.say(&text(nth)));
    // The hub answers this question once it has dispatched the messages before it.
    speaker.send(BINARY, &[]);
    assert_eq!(speaker.receive(), (BINARY, vec![]));
    let dispatched = number(&metrics(&address), "\nhublet_messages_dispatched_total ");
    assert_eq!(dispatched, Some(MESSAGES as u64 + 1), "they and the answer");
    let reader = thread::spawn(move || {
        for nth in 0..MESSAGES {
            // The sleep makes the client slow, so that it is behind over the restarts. It waits for no
            // event.
            if nth % 8 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            slow.hears(&text(nth));
        }
        slow
    });
    for _ in 0..3 {
        server.restart();
    }
    let mut slow = reader.join().expect("each message, once, in order");
    speaker.say("and on");
    slow.hears("and on");
    drop((slow, speaker));
    assert_eq!(server.stop(), Some(0));
}

/// What is compressed stays so, in both directions.
#[test]
fn an_encoding_goes_along() {
    let (mut server, address) = start(HUBLET.as_ref(), &["--deflate", "1"]);
    let head = upgrade("/ws/a?echo=1").replacen(
        "\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
        1,
    );
    let mut peer = Peer::<TcpStream>::dial(&address);
    assert_eq!(peer.request(&head).status, 101);
    let text = "to be or not to be, ".repeat(20);
    for _ in 0..2 {
        post(&address, "/pub/a", &text);
        let (opcode, compressed) = peer.receive();
        assert_eq!(opcode, TEXT | 0x40, "RSV1");
        // It hears what it says itself, compressed, as it was told.
        peer.send(TEXT | 0x40, &compressed);
        assert_eq!(peer.receive(), (TEXT | 0x40, compressed));
        server.restart();
    }
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

/// With Redis the new program is connected before it accepts; where the server keeps messages no
/// reader misses any, and elsewhere those that count are told.
#[test]
fn a_hub_on_redis_connects_anew() {
    let Some(redis) = RedisServer::start("restart", &[]) else { return };
    let flags = ["--redis", &redis.url(), "--history", "kept=100"];
    let (mut server, address) = start(HUBLET.as_ref(), &flags);
    eventually("connected", || metrics(&address).contains("\nhublet_redis_connected 1\n"));
    let mut plain = Peer::<TcpStream>::connect(&address, "/ws/news");
    let mut kept = Peer::<TcpStream>::connect(&address, "/ws/kept?since=now");
    let mut at = number_of(&mut kept);
    for nth in 0..3 {
        let mut counting = Peer::<TcpStream>::connect(&address, "/ws/news?since=now");
        number_of(&mut counting);
        // What was said before is heard before the restart, or after it, and not lost.
        plain.say("before");
        kept.say("before");
        server.restart();
        plain.hears("before");
        kept.hears("before");
        counting.hears("before");
        assert_eq!(counting.is_closed(4109), "gap");
        // Accepted means connected.
        drop(Peer::<TcpStream>::connect(&address, "/ws/news"));
        assert_eq!(post(&address, "/pub/news", "after").status, 202);
        plain.hears("after");
        at += 2;
        let body = post(&address, "/pub/kept", "after").body;
        assert_eq!(number(&body, "\"position\":"), Some(at), "{nth}: {body}");
        kept.hears("after");
        assert_eq!(redis.ask("PUBSUB NUMSUB hublet:news").matches(":1\r\n").count(), 1);
    }
    drop((plain, kept));
    assert_eq!(server.stop(), Some(0));
}
