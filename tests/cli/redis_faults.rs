//! Servers that misbehave: how long hubs wait, and what they do meanwhile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::redis::{get, hub, is_up, metric, post};
use crate::redis_server::RedisServer;
use crate::support::{Peer, Server, eventually, number};

type Client = Peer<TcpStream>;

/// A command: its words.
type Words = Vec<String>;

/// Reads a command.
fn read_command(stream: &mut BufReader<TcpStream>) -> Option<Words> {
    let mut line = String::new();
    let mut number = |stream: &mut BufReader<TcpStream>| -> Option<usize> {
        line.clear();
        stream.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse().ok()
    };
    let count = number(stream)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(stream)? + 2];
        stream.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

/// A push of the server.
fn push(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!(">{}\r\n{}", words.len(), words.concat())
}

/// The answer of a server that does what it is told, and hears nothing.
fn answer(words: &Words) -> String {
    match &*words[0] {
        "HELLO" => "%2\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n".to_owned(),
        "INFO" => "$10\r\nrun_id:abc\r\n".to_owned(),
        "SUBSCRIBE" => words[1..].iter().map(|one| push(&["subscribe", one, "1"])).collect(),
        "UNSUBSCRIBE" => words[1..].iter().map(|one| push(&["unsubscribe", one, "1"])).collect(),
        "PUBLISH" | "DEL" | "EXPIRE" | "HSET" => ":1\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}

/// Serves connections, one after another, each with the number that it has: `answer` says what is
/// sent for a command, or that the connection ends. Returns the URL, and what comes: when a
/// connection was made, and each command.
fn serve(
    mut answer: impl FnMut(usize, &Words) -> Option<String> + Send + 'static,
) -> (String, Receiver<(Instant, Option<Words>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("bound"));
    let (sender, events) = channel();
    thread::spawn(move || {
        for (nth, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            if sender.send((Instant::now(), None)).is_err() {
                return;
            }
            let mut stream = BufReader::new(stream);
            while let Some(words) = read_command(&mut stream) {
                let _ = sender.send((Instant::now(), Some(words.clone())));
                let Some(answer) = answer(nth, &words) else { break };
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (url, events)
}

/// The time of the next connection.
fn connection(events: &Receiver<(Instant, Option<Words>)>) -> Instant {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let (when, None) = events.recv_timeout(left).expect("a connection") {
            return when;
        }
    }
}

/// The pauses between tries are 250 ms, twice that, and so on up to 5 s; half of each is chance.
/// The log says so once.
#[test]
fn the_pauses_between_tries_double_up_to_five_seconds() {
    let (url, events) = serve(|_, _| None);
    let (mut server, address) = Server::start(&["--redis", &url]);
    let mut last = connection(&events);
    for pause in [250, 500, 1000, 2000, 4000, 5000, 5000].map(Duration::from_millis) {
        let now = connection(&events);
        let waited = now - last;
        last = now;
        // A machine with other work adds to it.
        let longest = pause + Duration::from_millis(1500);
        assert!((pause / 2..longest).contains(&waited), "{waited:?} in place of {pause:?}");
    }
    server.logged("is away");
    let more: Vec<_> = server.stderr.try_iter().collect();
    assert!(more.is_empty(), "one line: {more:?}");
    assert_eq!(get(&address, "/health").status, 503);
}

/// A server that is connected, answers everything and has forgotten the subscriptions is noticed:
/// 10 s of silence, then a probe to the hub's own channel of which nothing comes within 10 s.
#[test]
fn a_server_that_is_deaf_is_lost() {
    let (url, events) = serve(|_, words| Some(answer(words)));
    let (mut server, address) = Server::start(&["--redis", &url]);
    is_up(&address);
    eventually("lost, and back", || metric(&address, "hublet_redis_gaps_total") == 1);
    assert!(server.logged("is away").contains("nothing is heard"));
    let events: Vec<_> = events.try_iter().collect();
    let connections: Vec<_> = events.iter().filter(|(_, words)| words.is_none()).collect();
    let time = |event: &(Instant, _)| (event.0 - connections[0].0).as_secs();
    assert!((19..30).contains(&time(connections[1])), "{events:?}");
    let is = |command: &str, words: &Words| words[0] == command && words[1].contains("\u{1}hub:");
    let find = |command: &str| {
        let is = |words: &Option<Words>| words.as_ref().is_some_and(|words| is(command, words));
        events.iter().find(|(_, words)| is(words)).expect(command)
    };
    let (own, probe) = (find("SUBSCRIBE"), find("PUBLISH"));
    let channel = |event: &(Instant, Option<Words>)| event.1.as_ref().map(|words| words[1].clone());
    assert_eq!(channel(own), channel(probe), "to its own channel");
    assert!((9..15).contains(&time(probe)), "{events:?}");
}

/// The probe goes to the hub's own channel after 10 s in which nothing was heard, and any message is
/// as good as one.
#[test]
fn a_silent_connection_is_probed() {
    let Some(redis) = RedisServer::start("probe", &[]) else { return };
    let (_server, _address) = hub(&redis, &[]);
    let begin = Instant::now();
    let publishes = || {
        let stats = redis.ask("INFO commandstats");
        number(&stats, "cmdstat_publish:calls=").unwrap_or(0)
    };
    eventually("a probe", || publishes() == 1);
    let first = begin.elapsed();
    assert!((8..15).contains(&first.as_secs()), "{first:?}");
    eventually("another", || publishes() == 2);
    let second = begin.elapsed() - first;
    assert!((9..15).contains(&second.as_secs()), "{second:?}");
}

/// A reader that counts is closed before it hears what comes behind a gap: it would take that for
/// the next message.
#[test]
fn a_reader_that_counts_hears_nothing_behind_a_gap() {
    let (confirm, confirmed) = channel::<()>();
    let (url, _events) = serve(move |nth, words| {
        let is_rooms = words[0] == "SUBSCRIBE" && words.iter().any(|word| word == "hublet:news");
        match nth {
            // The first connection ends with the first message.
            0 if words[0] == "PUBLISH" => None,
            1 if is_rooms => {
                // One room is subscribed, and a message comes before the other one is.
                let early = push(&["message", "hublet:news", "behind"]);
                let all = push(&["subscribe", "hublet:news", "1"]) + &early;
                let other = words[1..].iter().filter(|word| *word != "hublet:news");
                let others: String = other.map(|one| push(&["subscribe", one, "1"])).collect();
                let _ = confirmed.recv();
                Some(all + &others)
            }
            _ => Some(answer(words)),
        }
    });
    let (_server, address) = Server::start(&["--redis", &url]);
    is_up(&address);
    let mut reader = Client::connect(&address, "/ws/news?since=now");
    reader.receive();
    let mut plain = Client::connect(&address, "/ws/news");
    let _other = Client::connect(&address, "/ws/other");
    assert_eq!(post(&address, "/pub/news", "lost").status, 500);
    confirm.send(()).expect("the server waits");
    assert_eq!(reader.is_closed(4109), "gap");
    plain.hears("behind");
}

/// A join that the server does not confirm is refused within the handshake deadline, and leaves no
/// subscription behind.
#[test]
fn a_join_that_is_not_confirmed_is_refused() {
    let Some(redis) = RedisServer::start("unconfirmed", &[]) else { return };
    let (_server, address) = hub(&redis, &["--handshake-timeout", "1s"]);
    redis.signal(Signal::STOP);
    let begin = Instant::now();
    assert_eq!(Client::ask(&address, "/ws/news").1, 503);
    assert_eq!(get(&address, "/sse/news").status, 503);
    let waited = begin.elapsed();
    assert!((1900..8000).contains(&waited.as_millis()), "{waited:?}");
    redis.signal(Signal::CONT);
    eventually("unsubscribed", || redis.ask("PUBSUB NUMSUB hublet:news").ends_with(":0\r\n"));
    let mut client = Client::connect(&address, "/ws/news");
    post(&address, "/pub/news", "hello");
    client.hears("hello");
}

/// A server that becomes a replica carries messages to no other server: the hub leaves it.
#[test]
fn a_server_that_becomes_a_replica_is_left() {
    let Some(redis) = RedisServer::start("replica", &[]) else { return };
    let (mut server, address) = hub(&redis, &[]);
    let mut client = Client::connect(&address, "/ws/news");
    assert_eq!(redis.ask("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    assert!(server.logged("is away").contains("replica"));
    assert_eq!(metric(&address, "hublet_redis_connected"), 0);
    assert_eq!(redis.ask("REPLICAOF NO ONE"), "+OK\r\n");
    is_up(&address);
    post(&address, "/pub/news", "hello");
    client.hears("hello");
}

/// Any node of a cluster carries messages. It keeps no keys for the hub, and the log says nothing.
#[test]
fn a_node_of_a_cluster_carries_messages() {
    let Some(redis) = RedisServer::start("node", &["--cluster-enabled", "yes"]) else { return };
    let (mut server, address) = hub(&redis, &[]);
    server.logged("connected to");
    let (_other, other) = hub(&redis, &[]);
    let mut clients = [&address, &other].map(|address| Client::connect(address, "/ws/news"));
    assert_eq!(post(&other, "/pub/news", "hello").body, r#"{"recipients":1,"hubs":2}"#);
    clients.iter_mut().for_each(|client| client.hears("hello"));
    let rooms = r#"{"hubs":1,"seconds_old":10,"rooms":[{"room":"news","members":1}],"next":null}"#;
    assert_eq!(get(&address, "/rooms").body, rooms);
    let errors: Vec<_> = server.stderr.try_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// More than the server may owe a client that hears channels: what rooms keep is read in portions.
#[test]
fn rooms_that_keep_much_are_read_without_a_cut() {
    const ROOMS: usize = 60;
    let Some(redis) = RedisServer::start("much", &[]) else { return };
    let (mut server, address) = hub(&redis, &["--history", "4", "--log", "warn"]);
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 8mb 0 0"];
    redis.try_query(&limit).expect("set");
    let text = "x".repeat(60_000);
    let mut clients = Vec::new();
    for nth in 0..ROOMS {
        for _ in 0..4 {
            assert_eq!(post(&address, &format!("/pub/much-{nth}"), &text).status, 202);
        }
        clients.push(Client::connect(&address, &format!("/ws/much-{nth}?since=now")));
        clients[nth].receive();
    }
    redis.ask("CLIENT KILL TYPE pubsub");
    eventually("lost", || metric(&address, "hublet_redis_gaps_total") == 1);
    is_up(&address);
    post(&address, "/pub/much-0", "hello");
    clients[0].hears("hello");
    assert!(server.logged("is away").contains("redis://"));
    let more: Vec<_> = server.stderr.try_iter().collect();
    assert!(more.is_empty(), "cut once: {more:?}");
}

/// What becomes of a message that is acknowledged over the server.
#[test]
fn acknowledgements_are_those_of_this_hub() {
    for flags in [&["--history", "3"][..], &[]] {
        let Some(redis) = RedisServer::start("acked", &[]) else { return };
        let hub = |more: &[&str]| hub(&redis, &[flags, more].concat());
        let (_one, a) = hub(&["--queue", "4", "--write-timeout", "1m", "--ping-interval", "1h"]);
        let (_two, b) = hub(&[]);
        let mut here = Client::connect(&a, "/ws/news");
        let mut there = Client::connect(&b, "/ws/news");
        let told = |address: &str, path: &str, text: &str| {
            let answer = post(address, path, text);
            assert_eq!(answer.status, 202, "{}", answer.body);
            let names = ["recipients", "hubs", "delivered", "late", "lost"];
            let number = |name| number(&answer.body, &format!("\"{name}\":")).expect(name);
            assert_eq!(answer.body.contains("\"position\":"), !flags.is_empty(), "{}", answer.body);
            names.map(number)
        };
        assert_eq!(told(&a, "/pub/news?wait=60s", "one"), [1, 2, 1, 0, 0]);
        assert_eq!(told(&b, "/pub/news?wait=60s", "two"), [1, 2, 1, 0, 0]);
        assert_eq!(told(&a, "/pub/empty?wait=60s", "none")[0..1], [0]);
        for client in [&mut here, &mut there] {
            client.hears("one");
            client.hears("two");
        }
        // A client that does not read: it gets what the kernels take, then nothing, and is evicted.
        let mut slow = Client::dial_narrow(&a);
        assert_eq!(slow.request(&crate::peer::upgrade("/ws/news")).status, 101);
        let text = "x".repeat(20_000);
        let mut seen = [0; 2];
        eventually("late, and lost", || {
            let [recipients, hubs, delivered, late, lost] = told(&a, "/pub/news?wait=100ms", &text);
            assert_eq!((delivered + late + lost, hubs), (recipients, 2));
            for client in [&mut here, &mut there] {
                client.hears(&text);
            }
            seen = [seen[0] + late, seen[1] + lost];
            recipients == 1
        });
        assert!(seen[0] > 0, "some wait with the client: {seen:?}");
        let mut redis = redis;
        redis.kill();
        eventually("the hub is away", || metric(&a, "hublet_redis_connected") == 0);
        let begin = Instant::now();
        assert_eq!(post(&a, "/pub/news?wait=60s", "no").status, 503);
        assert!((900..5000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    }
}
