//! Hubs that share a Redis server which keeps the messages of rooms.

use std::net::TcpStream;
use std::thread;

use crate::redis::{get, hub, metric, post};
use crate::redis_server::RedisServer;
use crate::support::{CLOSE, Peer, eventually, hublet, number, run};

type Client = Peer<TcpStream>;

/// Reads a room since something; returns the position before the next message too.
fn read(address: &str, since: &str) -> (Client, u64) {
    let mut client = Client::connect(address, &format!("/ws/news?since={since}"));
    let (_, digits) = client.receive();
    let position = String::from_utf8(digits).expect("digits").parse().expect("a number");
    (client, position)
}

/// Publishes to the room; returns the position.
fn publish(address: &str, text: &str) -> u64 {
    let body = post(address, "/pub/news", text).body;
    number(&body, "\"position\":").unwrap_or_else(|| panic!("{body}"))
}

#[test]
fn positions_are_those_of_all_hubs() {
    let Some(redis) = RedisServer::start("positions", &[]) else { return };
    let (_one, a) = hub(&redis, &["--history", "3"]);
    let (_two, b) = hub(&redis, &["--history", "3"]);
    // No hub has a member.
    let first = publish(&a, "one");
    assert_eq!(publish(&b, "two"), first + 1);
    let (mut reader, before) = read(&b, "0");
    assert_eq!(before, first - 1);
    ["one", "two"].iter().for_each(|text| reader.hears(text));
    assert_eq!(publish(&a, "three"), first + 2);
    reader.hears("three");
    drop(reader);
    assert_eq!(publish(&b, "four"), first + 3);
    // To another hub, with the number.
    let (mut reader, before) = read(&a, &(first + 2).to_string());
    assert_eq!(before, first + 2, "nothing is missed");
    reader.hears("four");
    let (_, before) = read(&a, &first.to_string());
    assert_eq!(before, first, "three are kept");
    let (_, before) = read(&b, &(first - 1).to_string());
    assert_eq!(before, first, "the first is kept no more");
    // What other programs say has no position.
    let mut plain = Client::connect(&a, "/ws/news");
    redis.ask("PUBLISH hublet:news foreign");
    plain.hears("foreign");
    publish(&b, "five");
    for client in [&mut plain, &mut reader] {
        client.hears("five");
    }
    // A server that has forgotten the script is told it again, and the order stays.
    redis.ask("SCRIPT FLUSH");
    (0..100).for_each(|nth| reader.say(&nth.to_string()));
    for client in [&mut plain, &mut reader] {
        (0..100).for_each(|nth| client.hears(&nth.to_string()));
    }
}

/// Numbers past the digits that Lua prints are formatted whole.
#[test]
fn large_positions_are_exact() {
    let Some(redis) = RedisServer::start("large", &[]) else { return };
    let (_server, address) = hub(&redis, &["--history", "3"]);
    publish(&address, "first");
    let keys = redis.ask("KEYS *count*");
    let key = keys.lines().last().expect("a key").to_owned();
    let large = (1_u64 << 52) - 1;
    redis.ask(&format!("SET {key} {large}"));
    assert_eq!(publish(&address, "a"), large + 1);
    let (mut reader, before) = read(&address, &large.to_string());
    assert_eq!(before, large);
    reader.hears("a");
    assert_eq!(publish(&address, "b"), large + 2);
    reader.hears("b");
}

/// A hub that was cut off reads what came meanwhile; after another life of the server it says so.
#[test]
fn a_loss_is_mended_or_told() {
    let Some(mut redis) = RedisServer::start("mended", &[]) else { return };
    let (mut server, a) = hub(&redis, &["--history", "50"]);
    let (_two, b) = hub(&redis, &["--history", "50"]);
    let (mut reader, _) = read(&a, "now");
    let id = redis.ask("CLIENT LIST TYPE pubsub");
    let id =
        id.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a hub").to_owned();
    redis.ask(&format!("CLIENT KILL ID {id}"));
    (0..30).for_each(|nth| drop(post(&b, "/pub/news", &nth.to_string())));
    server.logged("is away");
    (0..30).for_each(|nth| reader.hears(&nth.to_string()));
    redis.kill();
    server.logged("is away");
    redis.restart();
    assert_eq!(reader.is_closed(4109), "gap");
    eventually("joins", || Client::ask(&a, "/ws/news").1 == 101);
    assert_eq!(metric(&a, "hublet_redis_connected"), 1);
}

/// A server with too little memory refuses messages, and the log says why.
#[test]
fn a_server_without_memory_refuses_what_is_to_be_kept() {
    let Some(redis) = RedisServer::start("oom", &[]) else { return };
    let (mut server, address) = hub(&redis, &["--history", "3"]);
    let (mut reader, before) = read(&address, "now");
    redis.ask("CONFIG SET maxmemory 1");
    assert_eq!(post(&address, "/pub/news", "no").status, 503);
    assert!(server.logged("refuses a command").contains("OOM"));
    (0..20).for_each(|_| assert_eq!(post(&address, "/pub/news", "no").status, 503));
    let more: Vec<_> = server.stderr.try_iter().collect();
    assert!(more.is_empty(), "one line a minute: {more:?}");
    redis.ask("CONFIG SET maxmemory 0");
    assert_eq!(publish(&address, "yes"), before + 1);
    reader.hears("yes");
}

/// Clients move between two hubs while messages come: none is missed, none comes twice.
#[test]
fn clients_move_between_hubs_under_load() {
    const MESSAGES: usize = 2000;
    let Some(redis) = RedisServer::start("move", &[]) else { return };
    let flags = ["--history", "2000", "--queue", "2000"];
    let hubs = [hub(&redis, &flags), hub(&redis, &flags)];
    let addresses = [hubs[0].1.as_str(), hubs[1].1.as_str()];
    let (probe, begin) = read(addresses[0], "now");
    thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|nth| {
                scope.spawn(move || {
                    let (mut position, mut heard, mut moves) = (begin, Vec::new(), nth);
                    while heard.len() < MESSAGES {
                        moves += 1;
                        let (mut client, before) =
                            read(addresses[moves % 2], &position.to_string());
                        assert_eq!(before, position, "a message was missed");
                        let some = 37 + 11 * nth;
                        for _ in 0..some.min(MESSAGES - heard.len()) {
                            let (kind, payload) = client.receive();
                            assert_ne!(kind, CLOSE, "{payload:?}");
                            heard.push(String::from_utf8(payload).expect("text"));
                            position += 1;
                        }
                    }
                    heard
                })
            })
            .collect();
        for (hub, address) in addresses.into_iter().enumerate() {
            let mut sender = Client::connect(address, "/ws/news?echo=0");
            scope.spawn(move || {
                (0..MESSAGES / 2).for_each(|nth| sender.say(&format!("{hub} {nth}")));
                // The sender hears the others until all is said.
                while sender.receive().1 != format!("{} {}", 1 - hub, MESSAGES / 2 - 1).as_bytes() {
                }
            });
        }
        let heard: Vec<_> =
            readers.into_iter().map(|reader| reader.join().expect("heard")).collect();
        for other in &heard {
            assert!(*other == heard[0], "another order");
        }
        let mut sorted = heard[0].clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), MESSAGES);
    });
    drop(probe);
    for address in addresses {
        assert_eq!(metric(address, "hublet_redis_gaps_total"), 0);
        assert_eq!(get(address, "/health").status, 200);
    }
}

/// A hub without a member of the room reads what the server keeps.
#[test]
fn a_last_value_is_read_on_any_hub() {
    let Some(redis) = RedisServer::start("last", &[]) else { return };
    let (_one, a) = hub(&redis, &["--history", "3"]);
    let (_two, b) = hub(&redis, &["--history", "3"]);
    assert_eq!(get(&b, "/pub/news").status, 204);
    assert_eq!(redis.ask("KEYS *count*"), "*0\r\n", "a reader leaves nothing behind");
    let first = publish(&a, "one");
    publish(&a, "two");
    let last = get(&b, "/pub/news");
    assert_eq!((last.status, &*last.body), (200, "two"));
    let next = get(&b, &format!("/pub/news?since={first}"));
    assert_eq!(next.body, "two");
    let none = get(&b, &format!("/pub/news?since={}", first + 1));
    assert_eq!(none.status, 204);
}

/// An old snapshot brings no old position back: another run of the server is another life.
#[test]
fn a_server_with_an_old_snapshot_begins_anew() {
    let Some(mut redis) = RedisServer::start("snapshot", &[]) else { return };
    let (mut server, address) = hub(&redis, &["--history", "9"]);
    publish(&address, "saved");
    assert_eq!(redis.ask("SAVE"), "+OK\r\n");
    let (mut reader, _) = read(&address, "now");
    let lost = publish(&address, "not saved");
    reader.hears("not saved");
    redis.kill();
    server.logged("is away");
    redis.restart();
    assert_eq!(reader.is_closed(4109), "gap");
    eventually("joins", || Client::ask(&address, "/ws/news").1 == 101);
    let (_, before) = read(&address, &lost.to_string());
    assert_ne!(before, lost);
    assert_ne!(publish(&address, "anew"), lost, "the number is given twice");
}

#[test]
fn a_cluster_keeps_no_history() {
    let Some(redis) = RedisServer::start("cluster", &["--cluster-enabled", "yes"]) else { return };
    let url = redis.url();
    let output =
        run(hublet(&["--listen", "127.0.0.1:0"]).args(["--redis", &url, "--history", "3"]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("it is a cluster"), "{stderr}");
}

/// A request that waits on a hub without a member subscribes to the room as a member does.
#[test]
fn a_request_waits_on_a_hub_without_members() {
    for flags in [&["--history", "3"][..], &[]] {
        let Some(redis) = RedisServer::start("wait", &[]) else { return };
        let (_one, a) = hub(&redis, flags);
        let (_two, b) = hub(&redis, flags);
        let subscribers = |expected: &str| {
            eventually("the room is subscribed, or is not", || {
                redis.ask("PUBSUB NUMSUB hublet:news").contains(&format!(":{expected}\r\n"))
            });
        };
        thread::scope(|scope| {
            let waits = scope.spawn(|| get(&b, "/pub/news?since=now&wait=30s"));
            subscribers("1");
            let body = post(&a, "/pub/news", "one").body;
            let heard = waits.join().expect("an answer");
            assert_eq!((heard.status, &*heard.body), (200, "one"));
            let position = number(&body, "\"position\":");
            if flags.is_empty() {
                return;
            }
            assert_eq!(number(&heard.head, "Hublet-Position: "), position);
            assert!(!heard.head.contains("Hublet-Missed"), "{}", heard.head);
            // The next request goes on where this one ended.
            let since = position.expect("a position");
            let b = &b;
            let waits = scope.spawn(move || get(b, &format!("/pub/news?since={since}&wait=30s")));
            subscribers("1");
            publish(&a, "two");
            let heard = waits.join().expect("an answer");
            assert_eq!((heard.status, &*heard.body), (200, "two"));
            assert!(!heard.head.contains("Hublet-Missed"), "{}", heard.head);
        });
        subscribers("0");
        let mut redis = redis;
        redis.kill();
        eventually("the hub is away", || metric(&b, "hublet_redis_connected") == 0);
        let away = get(&b, "/pub/other?wait=30s");
        assert_eq!((away.status, number(&away.head, "Retry-After: ")), (503, Some(1)));
    }
}

/// Many wait for another room, and nothing comes to the room of the one that gives up.
#[test]
fn a_room_is_unsubscribed_after_a_wait_that_heard_nothing() {
    let Some(redis) = RedisServer::start("waited", &[]) else { return };
    let (_server, address) = hub(&redis, &[]);
    let subscribers = |room: &str, expected: &str| {
        eventually("the room is subscribed, or is not", || {
            redis.ask(&format!("PUBSUB NUMSUB hublet:{room}")).contains(&format!(":{expected}\r\n"))
        });
    };
    let wait_for = |room: &str| {
        let mut reader = Client::dial(&address);
        let request = format!("GET /pub/{room}?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n");
        reader.write(request.as_bytes());
        reader
    };
    let _others = [(); 4].map(|()| wait_for("other"));
    subscribers("other", "1");
    let reader = wait_for("news");
    subscribers("news", "1");
    drop(reader);
    subscribers("news", "0");
    subscribers("other", "1");
}
