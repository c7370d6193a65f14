//! Hubs that share a Redis server, as clients see them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::redis_server::RedisServer;
use crate::support::{
    BINARY, DEADLINE, Folder, Peer, Server, ask, eventually, free_port, hublet, metrics, number,
    run,
};
use crate::tools::file;

type Client = Peer<TcpStream>;

/// The answer to a request: its status, its head and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

fn request(address: &str, method: &str, path: &str, body: &str) -> Answer {
    let (status, head, body) = ask(address, method, path, "", body);
    Answer { status, head, body: body.trim_end().to_owned() }
}

pub(crate) fn post(address: &str, path: &str, body: &str) -> Answer {
    request(address, "POST", path, body)
}

pub(crate) fn get(address: &str, path: &str) -> Answer {
    request(address, "GET", path, "")
}

/// The value of a metric.
pub(crate) fn metric(address: &str, name: &str) -> u64 {
    number(&metrics(address), &format!("\n{name} ")).expect(name)
}

pub(crate) fn is_up(address: &str) {
    eventually("connected", || metric(address, "hublet_redis_connected") == 1);
}

/// Starts a hub that is connected to a server.
pub(crate) fn hub(redis: &RedisServer, flags: &[&str]) -> (Server, String) {
    let url = redis.url();
    let (server, address) = Server::start(&[&["--redis", &url], flags].concat());
    is_up(&address);
    (server, address)
}

#[test]
fn a_room_is_one_on_all_hubs() {
    let Some(redis) = RedisServer::start("one", &[]) else { return };
    let hubs: Vec<_> = (0..3).map(|_| hub(&redis, &[])).collect();
    let [a, b, c] = [0, 1, 2].map(|nth| hubs[nth].1.as_str());
    let mut here = Client::connect(a, "/ws/news");
    let mut too = Client::connect(a, "/ws/news");
    let mut quiet = Client::connect(b, "/ws/news?echo=0");
    let mut there = Client::connect(c, "/ws/sports");
    assert_eq!(post(a, "/pub/news", "one").body, r#"{"recipients":2,"hubs":2}"#);
    assert_eq!(post(b, "/pub/news", "two").body, r#"{"recipients":1,"hubs":2}"#);
    assert_eq!(post(c, "/pub/news", "three").body, r#"{"recipients":0,"hubs":2}"#);
    assert_eq!(post(c, "/pub/empty", "no").body, r#"{"recipients":0,"hubs":0}"#);
    for client in [&mut here, &mut too, &mut quiet] {
        ["one", "two", "three"].iter().for_each(|text| client.hears(text));
    }
    // Without an echo the sender hears nothing of it, on whatever hub it is.
    quiet.send(BINARY, &[0, 255]);
    for client in [&mut here, &mut too] {
        assert_eq!(client.receive(), (BINARY, vec![0, 255]));
    }
    here.say("four");
    for client in [&mut here, &mut too, &mut quiet] {
        client.hears("four");
    }
    there.say("goal");
    there.hears("goal");
}

#[test]
fn any_program_publishes_to_a_room() {
    let Some(redis) = RedisServer::start("any", &[]) else { return };
    let (_server, address) = hub(&redis, &["--redis-prefix", "p.1", "--max-message", "100"]);
    let mut client = Client::connect(&address, "/ws/news");
    assert_eq!(redis.ask("PUBLISH p.1:news hello"), ":1\r\n");
    client.hears("hello");
    // A byte that no text begins with, and no whole header behind it.
    redis.ask("PUBLISH p.1:news \u{1}");
    client.hears("\u{1}");
    // Longer than the longest message.
    let long = "x".repeat(100_000);
    for long in [&long[..101], &long[..200], &long] {
        redis.ask(&format!("PUBLISH p.1:news {long}"));
    }
    redis.ask(&format!("PUBLISH p.1:news {}", &long[..100]));
    client.hears(&long[..100]);
    assert_eq!(metric(&address, "hublet_redis_dropped_total"), 3);
    assert_eq!(metric(&address, "hublet_redis_connected"), 1);
}

#[test]
fn all_hubs_hear_a_room_in_one_order() {
    let Some(redis) = RedisServer::start("order", &[]) else { return };
    let hubs: Vec<_> = (0..3).map(|_| hub(&redis, &["--queue", "1000"])).collect();
    let mut clients: Vec<_> =
        hubs.iter().map(|(_, address)| Client::connect(address, "/ws/news")).collect();
    const EACH: usize = 200;
    for nth in 0..EACH {
        for (hub, client) in clients.iter_mut().enumerate() {
            client.say(&format!("{hub} {nth}"));
        }
    }
    let heard: Vec<Vec<_>> = clients
        .iter_mut()
        .map(|client| (0..3 * EACH).map(|_| client.receive().1).collect())
        .collect();
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
    // What one client says stays in its order.
    for hub in 0..3 {
        let begin = format!("{hub} ");
        let of_one = heard[0].iter().filter(|text| text.starts_with(begin.as_bytes()));
        let all: Vec<_> = (0..EACH).map(|nth| format!("{hub} {nth}").into_bytes()).collect();
        assert!(of_one.eq(&all));
    }
}

#[test]
fn rooms_are_added_up() {
    let Some(redis) = RedisServer::start("rooms", &[]) else { return };
    let (_one, a) = hub(&redis, &[]);
    let _clients = ["/ws/news", "/ws/news", "/ws/a"].map(|path| Client::connect(&a, path));
    let (_two, b) = hub(&redis, &[]);
    let _client = Client::connect(&b, "/ws/news");
    // The first hub says its rooms within 10 s.
    let all = r#"{"hubs":2,"seconds_old":10,"rooms":[{"room":"a","members":1},{"room":"news","members":3}],"next":null}"#;
    eventually("the sum of both", || get(&b, "/rooms").body == all);
    let page = get(&b, "/rooms?limit=1").body;
    assert!(page.ends_with(r#""rooms":[{"room":"a","members":1}],"next":"a"}"#), "{page}");
    let members = get(&b, "/rooms/news").body;
    assert_eq!(members.matches("\"id\"").count(), 1, "{members}");
    assert!(redis.ask("TTL hublet:\u{1}hub:x").starts_with(":-2"));
}

#[test]
fn an_empty_room_is_unsubscribed_a_second_later() {
    let Some(redis) = RedisServer::start("empty", &[]) else { return };
    let (_server, address) = hub(&redis, &[]);
    let subscribers = || redis.ask("PUBSUB NUMSUB hublet:news").ends_with(":1\r\n");
    let client = Client::connect(&address, "/ws/news");
    assert!(subscribers());
    let begin = Instant::now();
    drop(client);
    eventually("unsubscribed", || !subscribers());
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    // A client that comes and goes within the second leaves the subscription in place.
    drop(Client::connect(&address, "/ws/news"));
    let _client = Client::connect(&address, "/ws/news");
    assert!(subscribers());
}

/// Redis is not there at the start: the hub serves, waits, and goes on when it comes.
#[test]
fn a_hub_waits_for_a_server_that_is_away() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let (mut server, address) = Server::start(&["--redis", &url]);
    server.logged("is away");
    assert_eq!(get(&address, "/health").status, 200, "not for 5 s yet");
    assert_eq!(Client::ask(&address, "/ws/news").1, 503);
    assert_eq!(get(&address, "/sse/news").status, 503);
    let begin = Instant::now();
    let refused = post(&address, "/pub/news", "hello");
    let waited = begin.elapsed();
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("\r\nRetry-After: 1\r\n"), "{}", refused.head);
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(5), "{waited:?}");
    eventually("ill", || get(&address, "/health").status == 503);
    assert_eq!(metric(&address, "hublet_redis_connected"), 0);
    let Some(_redis) = RedisServer::at(port, "late", Vec::new()) else { return };
    server.logged("connected to");
    let mut client = Client::connect(&address, "/ws/news");
    assert_eq!(post(&address, "/pub/news", "hello").body, r#"{"recipients":1,"hubs":1}"#);
    client.hears("hello");
    assert_eq!(get(&address, "/health").status, 200);
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 0, "there was no client to miss any");
}

#[test]
fn a_server_that_refuses_the_first_connection_ends_the_hub() {
    let Some(redis) = RedisServer::start("refuses", &["--requirepass", "hush"]) else { return };
    let port = redis.port;
    for (url, says) in [
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://stranger:hush@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://:hush@127.0.0.1:{port}/99"), "DB index"),
    ] {
        let output = run(hublet(&["--listen", "127.0.0.1:0"]).args(["--redis", &url]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(!stderr.contains("hush") && !stderr.contains("wrong"), "{stderr}");
    }
    for url in ["redis://h/x", "rediss://sesame@h", "redis://:sesame@"] {
        let output = run(&mut hublet(&["--redis", url]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(!stderr.contains("sesame"), "{stderr}");
    }
    // The URL from a file, and from a Unix socket.
    let path = redis.folder.0.join("url");
    fs::write(&path, format!("redis://:hush@127.0.0.1:{port}/3\n")).expect("written");
    let path = path.display().to_string();
    let (mut server, address) = Server::start(&["--redis-file", &path]);
    assert!(server.logged("connected to").contains("redis://:***@127.0.0.1"), "masked");
    is_up(&address);
}

/// The name of a host is resolved in a thread that ends with the answer. Nothing else of the
/// connection needs a thread.
#[cfg(target_os = "linux")]
#[test]
fn the_thread_of_a_host_name_ends() {
    let Some(redis) = RedisServer::start("name", &[]) else { return };
    let url = format!("redis://localhost:{}", redis.port);
    let (mut server, address) = Server::start(&["--redis", &url]);
    server.logged("connected to redis://localhost");
    is_up(&address);
    let tasks = format!("/proc/{}/task", server.child.id());
    eventually("one thread", || fs::read_dir(&tasks).expect("it runs").count() == 1);
}

/// The server dies, and comes back with nothing.
#[test]
fn clients_stay_while_the_server_is_gone() {
    let Some(mut redis) = RedisServer::start("killed", &[]) else { return };
    let (mut server, address) = hub(&redis, &["--write-timeout", "1s"]);
    let mut reader = Client::connect(&address, "/ws/news");
    let mut sender = Client::connect(&address, "/ws/news");
    let mut other = Client::connect(&address, "/ws/news");
    sender.say("before");
    for client in [&mut reader, &mut sender, &mut other] {
        client.hears("before");
    }
    redis.kill();
    server.logged("is away");
    let begin = Instant::now();
    sender.say("lost");
    assert_eq!(Client::ask(&address, "/ws/news").1, 503, "although the room is subscribed");
    assert_eq!(post(&address, "/pub/news", "no").status, 503);
    sender.is_closed(1013);
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    assert_eq!(get(&address, "/rooms").status, 503);
    redis.restart();
    is_up(&address);
    assert_eq!(post(&address, "/pub/news", "after").body, r#"{"recipients":2,"hubs":1}"#);
    for client in [&mut reader, &mut other] {
        client.hears("after");
    }
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 1);
    server.logged("has restarted");
    Client::connect(&address, "/ws/news");
}

/// A server that stands still is noticed after 10 s of silence and 10 s more.
#[test]
fn a_server_that_stands_still_is_lost() {
    let Some(redis) = RedisServer::start("still", &[]) else { return };
    let (mut server, address) = hub(&redis, &["--write-timeout", "2s"]);
    let mut reader = Client::connect(&address, "/ws/news");
    let begin = Instant::now();
    redis.signal(Signal::STOP);
    let unknown = post(&address, "/pub/news", "perhaps");
    assert!([500, 503].contains(&unknown.status), "{}", unknown.head);
    assert!(server.logged("is away").contains("nothing is heard"));
    let lost = begin.elapsed();
    assert!((15..30).contains(&lost.as_secs()), "{lost:?}");
    redis.signal(Signal::CONT);
    is_up(&address);
    // What the server had taken before it stood still may come now or not at all.
    post(&address, "/pub/news", "after");
    while reader.receive().1 != b"after" {}
}

/// A short pause is a pause, no more.
#[test]
fn a_short_pause_of_the_server_delays_publishers_only() {
    let Some(redis) = RedisServer::start("pause", &[]) else { return };
    let (_server, address) = hub(&redis, &[]);
    let mut client = Client::connect(&address, "/ws/news");
    assert_eq!(redis.ask("CLIENT PAUSE 1500 WRITE"), "+OK\r\n");
    let begin = Instant::now();
    client.say("late");
    assert_eq!(get(&address, "/health").status, 200);
    assert!(get(&address, "/rooms/news").body.contains("\"id\""));
    assert!(begin.elapsed() < Duration::from_millis(1400));
    client.hears("late");
    assert!(begin.elapsed() >= Duration::from_millis(1000), "{:?}", begin.elapsed());
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 0);
}

/// A hub that does not read is cut by the server, and connects again.
#[test]
fn a_connection_that_the_server_cuts_is_made_again() {
    let Some(redis) = RedisServer::start("cut", &[]) else { return };
    let (mut server, address) = hub(&redis, &[]);
    let mut client = Client::connect(&address, "/ws/news");
    redis.ask("CLIENT KILL TYPE pubsub");
    server.logged("is away");
    server.logged("connected to");
    eventually("a client joins", || Client::ask(&address, "/ws/news").1 == 101);
    post(&address, "/pub/news", "after");
    client.hears("after");
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 1);
    // One message is more than the buffer may hold.
    redis
        .try_query(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 20000 20000 0"])
        .expect("set");
    let burst = "y".repeat(15_000);
    let script = "for i = 1, 200 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end return 1";
    redis.try_query(&["EVAL", script, "1", "hublet:news", &burst]).expect("run");
    server.logged("is away");
    is_up(&address);
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 2);
}

/// A client that counts is closed after a loss, and told that its number is none; a stream of events
/// stays and is told of the gap.
#[test]
fn readers_that_count_are_told_of_a_loss() {
    let Some(redis) = RedisServer::start("gap", &[]) else { return };
    let (_server, address) = hub(&redis, &[]);
    let number = |client: &mut Client| -> u64 {
        String::from_utf8(client.receive().1).expect("digits").parse().expect("a number")
    };
    let mut counting = Client::connect(&address, "/ws/news?since=now");
    let before = number(&mut counting);
    let mut plain = Client::connect(&address, "/ws/news");
    let mut events = TcpStream::connect(&address).expect("it accepts");
    events.set_read_timeout(Some(2 * DEADLINE)).expect("set");
    events.write_all(b"GET /sse/news HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut events = BufReader::new(events);
    let mut until = |end: &str| {
        let (mut text, mut line) = (String::new(), String::new());
        while events.read_line(&mut line).expect("it goes on") > 0 && !line.starts_with(end) {
            text.push_str(&std::mem::take(&mut line));
        }
        text
    };
    until(":");
    let posted = post(&address, "/pub/news", "one").body;
    assert!(!posted.contains("position"), "it would say nothing to another hub: {posted}");
    counting.hears("one");
    plain.hears("one");
    assert!(until("data: one").contains(&format!("id: {}", before + 1)));
    redis.ask("CLIENT KILL TYPE pubsub");
    assert_eq!(counting.is_closed(4109), "gap");
    let told = until("data: unknown");
    assert!(told.contains("event: gap\n"), "{told}");
    eventually("a client joins", || Client::ask(&address, "/ws/news").1 == 101);
    let mut again = Client::connect(&address, &format!("/ws/news?since={}", before + 1));
    let now = number(&mut again);
    assert_ne!(now, before + 1, "what came meanwhile is not known");
    post(&address, "/pub/news", "two");
    for client in [&mut plain, &mut again] {
        client.hears("two");
    }
    assert!(until("data: two").contains(&format!("id: {}", now + 1)));
    assert_eq!(metric(&address, "hublet_redis_gaps_total"), 1);
    // A room without a member here is not heard: its count ends.
    drop((plain, again, until));
    drop(events);
    eventually("unsubscribed", || redis.ask("PUBSUB NUMSUB hublet:news").ends_with(":0\r\n"));
    redis.ask("PUBLISH hublet:news unheard");
    let mut late = Client::connect(&address, &format!("/ws/news?since={}", now + 1));
    assert_ne!(number(&mut late), now + 1);
}

#[test]
fn a_password_that_changes_is_waited_for() {
    let Some(redis) = RedisServer::start("password", &["--requirepass", "old"]) else { return };
    let url = format!("redis://:old@127.0.0.1:{}", redis.port);
    let (mut server, address) = Server::start(&["--redis", &url]);
    is_up(&address);
    let _reader = Client::connect(&address, "/ws/news");
    let admin = |password: &str, words: &str| {
        let script =
            format!("exec redis-cli --no-auth-warning -p {} -a {password} {words}", redis.port);
        let output = std::process::Command::new("sh").args(["-c", &script]).output();
        assert!(output.expect("redis-cli").status.success());
    };
    admin("old", "CONFIG SET requirepass new");
    admin("new", "CLIENT KILL TYPE pubsub");
    assert!(server.logged("is away").contains("***"));
    assert_eq!(metric(&address, "hublet_redis_connected"), 0);
    admin("new", "CONFIG SET requirepass old");
    is_up(&address);
}

/// A server without memory still publishes.
#[test]
fn a_server_without_memory_still_carries_messages() {
    let Some(redis) = RedisServer::start("oom", &[]) else { return };
    redis.ask("CONFIG SET maxmemory 1");
    let (_server, address) = hub(&redis, &[]);
    let mut client = Client::connect(&address, "/ws/news");
    assert_eq!(post(&address, "/pub/news", "hello").body, r#"{"recipients":1,"hubs":1}"#);
    client.hears("hello");
    assert_eq!(get(&address, "/rooms").status, 200);
}

/// A relay that keeps every byte for 50 ms, in both directions.
fn slow_relay(port: u16) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).expect("it accepts");
            let pairs = [(stream.try_clone(), server.try_clone()), (Ok(server), Ok(stream))];
            for (from, to) in pairs {
                let (mut from, mut to) = (from.expect("a socket"), to.expect("a socket"));
                let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
                thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(n) = from.read(&mut buffer) {
                        let due = Instant::now() + Duration::from_millis(50);
                        if n == 0 || sender.send((due, buffer[..n].to_vec())).is_err() {
                            break;
                        }
                    }
                });
                thread::spawn(move || {
                    for (due, bytes) in receiver {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        if to.write_all(&bytes).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    address.port()
}

#[test]
fn a_slow_network_delays_messages_and_loses_none() {
    let Some(redis) = RedisServer::start("slow", &[]) else { return };
    let url = format!("redis://127.0.0.1:{}", slow_relay(redis.port));
    let (_far, far) = Server::start(&["--redis", &url, "--queue", "1000"]);
    is_up(&far);
    let (_near, near) = hub(&redis, &["--queue", "1000"]);
    let (mut a, mut b) = (Client::connect(&far, "/ws/news"), Client::connect(&near, "/ws/news"));
    let begin = Instant::now();
    // More than may be in flight at once.
    (0..600).for_each(|nth| a.say(&nth.to_string()));
    for client in [&mut a, &mut b] {
        (0..600).for_each(|nth| client.hears(&nth.to_string()));
    }
    assert!(begin.elapsed() >= Duration::from_millis(100), "there and back");
    let begin = Instant::now();
    assert_eq!(post(&far, "/pub/news", "x").body, r#"{"recipients":1,"hubs":2}"#);
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

/// More rooms than one SUBSCRIBE has.
#[test]
fn two_thousand_rooms_are_subscribed_again() {
    const ROOMS: usize = 2000;
    let Some(redis) = RedisServer::start("many", &[]) else { return };
    let flags = ["--max-rooms", "3000", "--log", "warn"];
    let (_server, address) = hub(&redis, &flags);
    let mut clients: Vec<_> =
        (0..ROOMS).map(|nth| Client::connect(&address, &format!("/ws/room-{nth}"))).collect();
    let channels = || redis.ask("PUBSUB CHANNELS hublet:room-*").starts_with("*2000\r\n");
    assert!(channels());
    redis.ask("CONFIG RESETSTAT");
    let begin = Instant::now();
    redis.ask("CLIENT KILL TYPE pubsub");
    eventually("lost", || metric(&address, "hublet_redis_gaps_total") == 1);
    is_up(&address);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(channels());
    let used = redis.ask("INFO commandstats");
    assert_eq!(number(&used, "cmdstat_subscribe:calls="), Some(1 + 4), "of 512 channels at most");
    for nth in [0, 511, 512, 1023, 1999] {
        post(&address, &format!("/pub/room-{nth}"), "hello");
        clients[nth].hears("hello");
    }
}

/// The access list in the documents is enough, and the hub uses each of its commands.
#[test]
fn the_documented_access_list_is_enough_and_no_more() {
    let text = fs::read_to_string(file("docs/scaling.md")).expect("the page");
    let rule = text.lines().find(|line| line.starts_with("user hublet on ")).expect("a rule");
    let folder = Folder::new("acl");
    let path = folder.0.join("users.acl");
    fs::write(&path, format!("{rule}\nuser default on nopass ~* &* +@all\n")).expect("written");
    let path = path.display().to_string();
    let Some(redis) = RedisServer::start("acl", &["--aclfile", &path]) else { return };
    let password = rule.split(" >").nth(1).and_then(|rest| rest.split(' ').next());
    let url = format!("redis://hublet:{}@127.0.0.1:{}/1", password.expect("one"), redis.port);
    let start = |flags: &[&str]| {
        let (server, address) = Server::start(&[&["--redis", &url], flags].concat());
        is_up(&address);
        (server, address)
    };
    let hubs = [start(&["--history", "kept=3"]), start(&["--history", "kept=3"])];
    let [a, b] = [0, 1].map(|nth: usize| &*hubs[nth].1);
    let mut clients = ["/ws/news", "/ws/kept?since=0"].map(|path| Client::connect(a, path));
    clients[1].receive();
    assert_eq!(post(b, "/pub/news", "hello").body, r#"{"recipients":0,"hubs":1}"#);
    for _ in 0..2 {
        // With the script and by its name.
        assert!(post(b, "/pub/kept", "hello").body.contains("\"position\":"));
        clients[1].hears("hello");
    }
    clients[0].hears("hello");
    assert_eq!(get(b, "/pub/kept").body, "hello");
    // What a hub says of its rooms, within 10 s.
    eventually("the rooms of both", || get(b, "/rooms").body.contains("\"news\",\"members\":1"));
    drop(clients);
    eventually("unsubscribed", || redis.ask("PUBSUB NUMSUB hublet:news").ends_with(":0\r\n"));
    assert_eq!(redis.ask("ACL LOG"), "*0\r\n", "the server refused nothing");
    let used = redis.ask("INFO commandstats");
    for command in rule.split(" +").skip(1).map(str::trim) {
        assert!(used.contains(&format!("\r\ncmdstat_{command}:")), "{command} is not used");
    }
}
