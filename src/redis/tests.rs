//! The script and the driver against a real server, which is skipped where none is installed. The
//! tests of the binary have the rest.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::future::or;
use smol::{Executor, Timer, block_on};

use crate::config::Config;
use crate::connection::admission::Admission;
use crate::history_rule::HistoryRule;
use crate::hub::handle::Hub;
use crate::hub::history_config::HistoryConfig;
use crate::hub::since::Since;
use crate::message::Message;
use crate::redis::envelope::{Envelope, Names};
use crate::redis::incoming::{Answer, Incoming, Reader};
use crate::redis::resp;
use crate::redis::script::Script;

/// How long a server may take for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server, which dropping this kills.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `None` if it is not installed.
    fn start() -> Option<Self> {
        let name = std::env::var("HUBLET_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let spawned = Command::new(&name)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            println!("skipped: {name} is not installed");
            return None;
        };
        let log = BufReader::new(child.stdout.take().expect("piped"));
        let is_ready = |line: &String| line.contains("Ready to accept connections");
        log.lines().map_while(Result::ok).find(is_ready).expect("it starts");
        Some(Self { child, port })
    }

    /// Runs a command of words; returns the first line of its answer without its kind.
    fn query(&self, words: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it accepts");
        stream.write_all(format!("{words}\r\nQUIT\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.lines().next().unwrap_or_default()[1..].to_owned()
    }

    fn number(&self, words: &str) -> i64 {
        self.query(words).parse().expect(words)
    }
}

/// A connection that runs the script for the room `news`.
struct Runner {
    stream: TcpStream,
    /// What has come of later answers.
    bytes: Vec<u8>,
    script: Script,
    reader: Reader,
}

/// The keys of the room.
const COUNT: &str = "p:\u{1}count:run:news";
const LOG: &str = "p:\u{1}log:run:news";

impl Runner {
    fn new(server: &Server, config: Config) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(b"HELLO 3\r\n").expect("sent");
        let config = config.history(vec![HistoryRule::new("*", 3)]);
        let script = Script::new(HistoryConfig::new(&config, None));
        let (names, memory) = (Names::new("p", 7), Arc::default());
        let reader = Reader { names, hub: 7, memory, message_max: 1000 };
        let mut runner = Self { stream, bytes: Vec::new(), script, reader };
        runner.answer();
        runner
    }

    /// The next answer.
    fn answer(&mut self) -> Incoming {
        let mut buffer = [0; 4096];
        loop {
            if let Some((value, length)) = resp::parse(&self.bytes).expect("well formed") {
                let incoming = Incoming::read(&value, &self.reader);
                self.bytes.drain(..length);
                return incoming;
            }
            let n = self.stream.read(&mut buffer).expect("an answer");
            assert!(n > 0, "the server ends the connection");
            self.bytes.extend_from_slice(&buffer[..n]);
        }
    }

    fn run(&mut self, write: impl FnOnce(&Script, &mut Vec<u8>, (&Names, &str))) -> Answer {
        let mut command = Vec::new();
        write(&self.script, &mut command, (&self.reader.names, "run"));
        self.stream.write_all(&command).expect("sent");
        match self.answer() {
            Incoming::Answer(answer) => answer,
            _ => panic!("no answer"),
        }
    }

    /// Publishes a message; returns its position.
    fn publish(&mut self, text: &str, is_whole: bool) -> u64 {
        let message = Message::text(text);
        let envelope = Envelope::of(7, None, &message);
        let answer = self.run(|script, out, of| {
            script.publish(out, of, "news", (&envelope, &message), is_whole);
        });
        match answer {
            Answer::Positioned { hubs: 0, position } => position,
            Answer::Error(error) => panic!("{error}"),
            _ => panic!("it has no position"),
        }
    }

    /// Reads what the room keeps: the position of its newest message, and each message.
    fn read(&mut self, is_member: bool) -> (u64, Vec<(u64, String)>) {
        let answer = self.run(|script, out, of| match is_member {
            true => script.read(out, of, "news"),
            false => script.peek(out, of, "news", usize::MAX),
        });
        let Answer::Kept { top, messages } = answer else { panic!("no answer of the script") };
        let message = |incoming| match incoming {
            Incoming::Message { position, message, .. } => {
                (position, message.as_text().expect("text").to_owned())
            }
            _ => panic!("no message"),
        };
        (top, messages.into_iter().map(message).collect())
    }
}

#[test]
fn the_script_counts_and_keeps() {
    let Some(server) = Server::start() else { return };
    let mut runner = Runner::new(&server, Config::default());
    assert_eq!(runner.read(false), (0, Vec::new()));
    assert_eq!(server.number("DBSIZE"), 0, "a reader that is no member leaves nothing");
    let first = runner.publish("0", true);
    for nth in 1..5 {
        assert_eq!(runner.publish(&nth.to_string(), false), first + nth, "by its name");
    }
    let kept: Vec<_> = (2..5).map(|nth| (first + nth, nth.to_string())).collect();
    assert_eq!(runner.read(true), (first + 4, kept.clone()));
    assert_eq!(runner.read(false), (first + 4, kept));
    assert_eq!(server.number(&format!("XLEN \"{LOG}\"")), 3);
    // A count that is lost begins another life, which keeps nothing of the one before.
    server.query(&format!("DEL \"{COUNT}\""));
    let anew = runner.publish("anew", false);
    assert_eq!(runner.read(true), (anew, vec![(anew, "anew".to_owned())]));
}

/// Lua prints 14 digits of a number. Positions have 16.
#[test]
fn the_script_has_every_digit() {
    let Some(server) = Server::start() else { return };
    let mut runner = Runner::new(&server, Config::default());
    let large = (1 << 52) - 1;
    server.query(&format!("SET \"{COUNT}\" {large}"));
    assert_eq!(runner.publish("a", true), large + 1);
    assert_eq!(runner.publish("b", true), large + 2);
    let kept = vec![(large + 1, "a".to_owned()), (large + 2, "b".to_owned())];
    assert_eq!(runner.read(true), (large + 2, kept));
}

#[test]
fn the_script_reads_no_more_bytes_than_it_may() {
    let Some(server) = Server::start() else { return };
    let mut runner = Runner::new(&server, Config::default().history_bytes(250));
    let (text, mut last) = ("x".repeat(100), 0);
    (0..3).for_each(|_| last = runner.publish(&text, true));
    // With their headers two have 254 bytes.
    assert_eq!(runner.read(true), (last, vec![(last, text)]));
}

/// Messages and members keep a room, readers that are no members do not.
#[test]
fn the_script_has_rooms_forgotten_at_their_age() {
    let Some(server) = Server::start() else { return };
    let mut runner = Runner::new(&server, Config::default());
    let left = |key: &str| server.number(&format!("PTTL \"{key}\""));
    let is_whole = |key: &str| (3_500_000..=3_600_000).contains(&left(key));
    let shorten = || [COUNT, LOG].map(|key| server.query(&format!("PEXPIRE \"{key}\" 60000")));
    runner.publish("a", true);
    assert!(is_whole(COUNT) && is_whole(LOG), "an hour");
    shorten();
    runner.read(false);
    assert!(left(COUNT) <= 60_000 && left(LOG) <= 60_000);
    runner.read(true);
    assert!(is_whole(COUNT) && is_whole(LOG), "a member has come");
    shorten();
    let mut command = Vec::new();
    let commands = runner.script.keep(&mut command, (&runner.reader.names, "run"), "news");
    runner.stream.write_all(&command).expect("sent");
    (0..commands).for_each(|_| drop(runner.answer()));
    assert!(is_whole(COUNT) && is_whole(LOG), "a member is there");
    let config = Config::default().history_age(Duration::ZERO);
    let mut never = Runner::new(&server, config);
    server.query("FLUSHALL");
    never.publish("a", true);
    assert_eq!((left(COUNT), left(LOG)), (-1, -1), "never");
}

/// Two hubs on a server, with a room that keeps messages.
#[test]
fn hubs_follow_a_room_on_the_server() {
    let Some(server) = Server::start() else { return };
    let executor = Executor::new();
    let redis = format!("redis://127.0.0.1:{}", server.port).parse::<crate::redis_config::Redis>();
    let config = Config::default()
        .redis(Some(redis.expect("a URL")))
        .history(vec![HistoryRule::new("*", 10)]);
    let hubs = [0, 1].map(|_| {
        let (hub, manager) = Hub::new(config.clone()).expect("valid");
        executor.spawn(manager).detach();
        executor.spawn(hub.connect_redis()).detach();
        hub
    });
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        let end = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < end, "never: {what}");
            Timer::after(Duration::from_millis(10)).await;
        }
    };
    block_on(executor.run(async {
        let [a, b] = &hubs;
        let publish = async |hub: &Hub, text: &str| hub.publish("news", text).await.expect(text);
        publish(a, "one").await;
        // The server forgets the script, and is told it again.
        server.query("SCRIPT FLUSH");
        publish(a, "two").await;
        let since = |since| Admission::anonymous().room("news").since(since);
        let mut reader = b.subscribe(since(Since::Oldest)).await.expect("a permit");
        for text in ["one", "two"] {
            let late = async { Err(Timer::after(DEADLINE).await) };
            let heard = or(async { Ok(reader.next().await) }, late).await.expect("in time");
            assert_eq!(heard.expect("connected").as_text(), Some(text));
        }
        // A message that passes a hub unheard is read when the next one comes.
        let run = server.query("EVAL \"return redis.call('KEYS', '*count*')[1]\" 0");
        assert!(run.starts_with(|first: char| first.is_ascii_digit()), "{run}");
        let position = reader.position().expect("it is told");
        let heard = a.subscribe(since(Since::Position(position))).await.expect("a permit");
        assert_eq!(heard.position(), Some(position), "nothing was missed");
        drop(heard);
        let keys = "EVAL \"for _, k in ipairs(redis.call('KEYS', '*news')) do \
                    redis.call('PEXPIRE', k, 60000) end return 0\" 0";
        drop(reader);
        server.query(keys);
        let left = "EVAL \"local n = 0 for _, k in ipairs(redis.call('KEYS', '*news')) do \
                    if redis.call('PTTL', k) > 3500000 then n = n + 1 end end return n\" 0";
        until("the last member keeps the room for its age", &|| server.number(left) == 2).await;
        until("unsubscribed", &|| {
            server.number("EVAL \"return #redis.call('PUBSUB', 'CHANNELS', '*news')\" 0") == 0
        })
        .await;
    }));
}
