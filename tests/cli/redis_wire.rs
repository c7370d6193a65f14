//! What hubs write to a Redis server, byte by byte, and what they take from it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::redis::{get, hub, is_up, metric, post};
use crate::redis_server::RedisServer;
use crate::support::{BINARY, Folder, KEY, Peer, Server, TEXT, eventually, number, sign};

type Client = Peer<TcpStream>;

/// The numbers of a header: the hub, its client, the kind and the position.
fn header(bytes: &[u8]) -> (u64, u64, u8, u64) {
    assert_eq!(bytes[..2], [0xff, 1], "the mark and the version");
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight"));
    (number(2), number(10), bytes[18], number(19))
}

/// The identifiers of the hubs, as their channels name them.
fn hub_ids(redis: &RedisServer) -> Vec<u64> {
    let channels = redis.ask("PUBSUB CHANNELS hublet:\u{1}hub:*");
    let ids = channels.split("\u{1}hub:").skip(1);
    ids.map(|rest| u64::from_str_radix(&rest[..16], 16).expect("an identifier")).collect()
}

#[test]
fn a_message_has_the_documented_header() {
    let Some(redis) = RedisServer::start("header", &[]) else { return };
    let flags = ["--history", "kept*=3", "--jwt-secret", KEY];
    let (_server, address) = hub(&redis, &flags);
    let [this] = hub_ids(&redis)[..] else { panic!("one hub") };
    let mut ear = redis.listen("hublet:*");
    let token = sign(r#"{"sub":"ada","publish":"*"}"#);
    let path = |room: &str, more: &str| format!("/ws/{room}?token={token}{more}");
    let mut ada = Client::connect(&address, &path("news", ""));
    let mut quiet = [0, 1].map(|_| Client::connect(&address, &path("news", "&echo=0")));
    let mut expect = |channel: &str, payload: &[u8]| {
        let (heard, bytes) = ear.hears();
        let (hub, client, kind, position) = header(&bytes);
        assert_eq!((&*heard, hub, &bytes[27..]), (channel, this, payload));
        (client, kind, position)
    };
    const NO_CLIENT: u64 = u64::MAX;
    let post = |path: &str, text: &str| post(&address, &format!("{path}?token={token}"), text);
    post("/pub/news", "text");
    assert_eq!(expect("hublet:news", b"text"), (NO_CLIENT, 1, 0));
    ada.send(BINARY, &[0, 255]);
    assert_eq!(expect("hublet:news", &[0, 255]), (NO_CLIENT, 0, 0));
    post("/user/ada", "to ada");
    assert_eq!(expect("hublet:\u{1}user:ada", b"to ada"), (NO_CLIENT, 1, 0));
    let body = post("/pub/kept", "kept").body;
    let position = number(&body, "\"position\":").expect("a position");
    assert_eq!(expect("hublet:kept", b"kept"), (NO_CLIENT, 1, position));
    // A client without an echo is named, so that it is left out.
    quiet[0].say("one");
    let (one, ..) = expect("hublet:news", b"one");
    quiet[1].say("two");
    let (two, ..) = expect("hublet:news", b"two");
    assert!(one != two && one != NO_CLIENT && two != NO_CLIENT);
}

#[test]
fn what_another_hub_or_program_says_is_taken_as_documented() {
    let Some(redis) = RedisServer::start("taken", &[]) else { return };
    let (_server, address) = hub(&redis, &[]);
    let [this] = hub_ids(&redis)[..] else { panic!("one hub") };
    let mut client = Client::connect(&address, "/ws/news");
    let mut says = |bytes: &[u8], kind: u8, payload: &[u8]| {
        let heard = redis.try_query_bytes(&[b"PUBLISH", b"hublet:news", bytes]).expect("published");
        assert_eq!(heard, ":1\r\n");
        let (first, heard) = client.receive();
        assert_eq!((first, &*heard), (kind, payload), "{bytes:?}");
    };
    let with = |hub: u64, kind: u8, payload: &[u8]| {
        let parts = [&[0xff, 1][..], &hub.to_be_bytes(), &[0; 8], &[kind], &[0; 8], payload];
        parts.concat()
    };
    // The client with the number 0 of another hub is none of this one.
    says(&with(!this, 1, b"text"), TEXT, b"text");
    says(&with(!this, 0, b"text"), BINARY, b"text");
    says(&with(!this, 1, b""), TEXT, b"");
    says(&with(!this, 1, b"\xff"), BINARY, b"\xff");
    // Anything that does not begin so is a payload.
    for other in [&b"\xff"[..], b"\xff\x01", &with(!this, 1, b"")[..26], b"\x00\x01", b"\xff\x02"] {
        let is_text = std::str::from_utf8(other).is_ok();
        says(other, if is_text { TEXT } else { BINARY }, other);
    }
    says(b"", TEXT, b"");
    says(r#"{"text":"ü"}"#.as_bytes(), TEXT, r#"{"text":"ü"}"#.as_bytes());
    assert_eq!(metric(&address, "hublet_redis_dropped_total"), 0);
}

#[test]
fn the_clients_of_a_user_are_reached_on_all_hubs() {
    let Some(redis) = RedisServer::start("user", &[]) else { return };
    let flags = ["--jwt-secret", KEY];
    let hubs = [hub(&redis, &flags), hub(&redis, &flags)];
    let [a, b] = [0, 1].map(|nth: usize| &*hubs[nth].1);
    let subscribers = |expected: u32| {
        let channel = "hublet:\u{1}user:ada";
        redis.ask(&format!("PUBSUB NUMSUB {channel}")).ends_with(&format!(":{expected}\r\n"))
    };
    let path = |room: &str, user: &str| {
        format!("/ws/{room}?token={}", sign(&format!("{{\"sub\":\"{user}\"}}")))
    };
    let publisher = sign(r#"{"publish":"*"}"#);
    let post = |address: &str, user: &str, text: &str| {
        post(address, &format!("/user/{user}?token={publisher}"), text).body
    };
    assert!(subscribers(0));
    let mut here = [Client::connect(a, &path("x", "ada")), Client::connect(a, &path("y", "ada"))];
    assert!(subscribers(1), "at the first client of the user");
    let mut there = Client::connect(b, &path("z", "ada"));
    let mut eve = Client::connect(b, &path("z", "eve"));
    assert!(subscribers(2));
    assert_eq!(post(b, "ada", "hello"), r#"{"recipients":1,"hubs":2}"#);
    for client in here.iter_mut().chain([&mut there]) {
        client.hears("hello");
    }
    assert_eq!(post(a, "bob", "hello"), r#"{"recipients":0,"hubs":0}"#);
    post(a, "eve", "to eve");
    eve.hears("to eve");
    drop(here);
    let begin = Instant::now();
    eventually("unsubscribed", || subscribers(1));
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[test]
fn hubs_of_another_prefix_are_apart() {
    let Some(redis) = RedisServer::start("apart", &[]) else { return };
    let (_one, a) = hub(&redis, &["--redis-prefix", "a"]);
    let (_two, b) = hub(&redis, &["--redis-prefix", "b"]);
    let mut here = Client::connect(&a, "/ws/news");
    let mut there = Client::connect(&b, "/ws/news");
    assert_eq!(post(&a, "/pub/news", "to a").body, r#"{"recipients":1,"hubs":1}"#);
    assert_eq!(post(&b, "/pub/news", "to b").body, r#"{"recipients":1,"hubs":1}"#);
    here.hears("to a");
    there.hears("to b");
    assert!(get(&a, "/rooms").body.starts_with(r#"{"hubs":1,"#));
    // Every name begins with the prefix and a colon.
    let channels = redis.ask("PUBSUB CHANNELS");
    let names: Vec<_> = channels.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("a:") || name.starts_with("b:")));
}

/// The value of a line of INFO.
fn info(redis: &RedisServer, section: &str, name: &str) -> String {
    let info = redis.ask(&format!("INFO {section}"));
    let value = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    value.unwrap_or_default().to_owned()
}

#[test]
fn keys_have_the_documented_names_and_ages() {
    let Some(redis) = RedisServer::start("keys", &[]) else { return };
    let (_server, address) = hub(&redis, &["--history", "3", "--history-age", "1h"]);
    let [this] = hub_ids(&redis)[..] else { panic!("one hub") };
    let run = info(&redis, "server", "run_id");
    let _clients =
        ["/ws/news", "/ws/news", "/ws/sports"].map(|path| Client::connect(&address, path));
    let mut last = None;
    for nth in 0..5 {
        last = number(&post(&address, "/pub/news", &nth.to_string()).body, "\"position\":");
    }
    let last = last.expect("a position");
    let count = format!("hublet:\u{1}count:{run}:news");
    let log = format!("hublet:\u{1}log:{run}:news");
    assert_eq!(redis.ask(&format!("GET {count}")).lines().nth(1), Some(&*last.to_string()));
    assert_eq!(redis.ask(&format!("XLEN {log}")), ":3\r\n");
    let newest = redis.ask(&format!("XREVRANGE {log} + - COUNT 1"));
    assert!(newest.contains(&format!("\r\n{last}-0\r\n")), "{newest}");
    for key in [&count, &log] {
        let age = number(&redis.ask(&format!("PTTL {key}")), ":").expect("an age");
        assert!((3_500_000..=3_600_000).contains(&age), "{age} ms");
    }
    // What the hub says of its rooms, within 10 s.
    let own = format!("hublet:\u{1}hub:{this:016x}");
    let says = "*4\r\n$4\r\nnews\r\n$1\r\n2\r\n$6\r\nsports\r\n$1\r\n1\r\n";
    eventually("the hub says its rooms", || redis.ask(&format!("HGETALL {own}")) == says);
    let left =
        || number(&redis.ask(&format!("TTL {own}")), ":").expect("it is forgotten some time");
    assert!((15..=30).contains(&left()));
    // It stays while nothing changes.
    eventually("time passes", || left() < 28);
    eventually("it is kept", || left() >= 29);
}

/// A room is kept on the server while it has members, and its age longer.
#[test]
fn a_room_outlives_its_members_by_its_age() {
    let Some(redis) = RedisServer::start("age", &[]) else { return };
    let (_server, address) = hub(&redis, &["--history", "3", "--history-age", "1s"]);
    let client = Client::connect(&address, "/ws/news");
    let begin = Instant::now();
    post(&address, "/pub/news", "one");
    let keys = |room: &str| redis.ask(&format!("KEYS *:{room}")).matches(room).count();
    while begin.elapsed() < Duration::from_millis(2500) {
        assert_eq!(keys("news"), 2, "it has a member");
    }
    let begin = Instant::now();
    drop(client);
    // Requests without a member keep no room.
    eventually("forgotten", || {
        get(&address, "/pub/news");
        keys("news") == 0
    });
    let stayed = begin.elapsed();
    assert!(
        stayed >= Duration::from_millis(1900),
        "a second of no member, and the age: {stayed:?}"
    );
    // Without members a message counts.
    post(&address, "/pub/lone", "one");
    let begin = Instant::now();
    eventually("forgotten", || keys("lone") == 0);
    assert!(begin.elapsed() >= Duration::from_millis(900));
}

#[test]
fn a_database_and_a_unix_socket_are_used() {
    let Some(redis) = RedisServer::start("unix", &["--unixsocket", "redis.sock"]) else { return };
    let url = format!("unix:{}", redis.folder.0.join("redis.sock").display());
    let (mut server, address) = Server::start(&["--redis", &url]);
    assert!(server.logged("connected to").contains(&url));
    is_up(&address);
    let (_other, other) =
        Server::start(&["--redis", &format!("{}/3", redis.url()), "--history", "1"]);
    is_up(&other);
    let mut client = Client::connect(&address, "/ws/news");
    // Channels are those of all databases.
    post(&other, "/pub/news", "hello");
    client.hears("hello");
    assert!(info(&redis, "keyspace", "db3").starts_with("keys="));
}

/// The password is in no line of the log, whatever happens.
#[test]
fn the_log_masks_the_password() {
    let Some(mut redis) = RedisServer::start("mask", &["--requirepass", "hush"]) else { return };
    let folder = Folder::new("mask-url");
    let path = folder.0.join("url");
    std::fs::write(&path, format!("redis://:hush@127.0.0.1:{}\n", redis.port)).expect("written");
    let flags = ["--redis-file", &path.display().to_string(), "--log", "debug"];
    let (mut server, address) = Server::start(&flags);
    is_up(&address);
    redis.kill();
    server.logged("is away");
    redis.restart();
    is_up(&address);
    server.logged("connected to");
    assert!(server.log.iter().any(|line| line.contains("redis://:***@127.0.0.1")));
    assert!(!server.log.iter().any(|line| line.contains("hush")), "{:?}", server.log);
}
