//! What a Redis server between hubs costs.
//!
//! `cargo bench --bench redis -- [BINARY]`
//!
//! Starts `redis-server` and hubs of BINARY (default: the binary of this build) on free ports of
//! 127.0.0.1. Prints, beside a hub alone, the table of `docs/scaling.md`: the time from a message to
//! the client that hears it; the messages that pass in a second with one, two and three hubs, and
//! the CPU time of a message in the hubs and in the server; each of them without history and with
//! it. Then what 2,000 rooms cost, and their return. `skipped` without `redis-server`. Linux.

mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use server::{Options, Outcome, PATIENCE, Server, ask, cpu, masked, percentile, rss};

/// Messages of a measurement of latency, one after another.
const ROUNDS: usize = 2_000;

/// Messages of each sender in a flood, and how many it is ahead of what it hears.
const FLOOD: usize = 50_000;
const AHEAD: usize = 128;

/// Rooms with a client each.
const ROOMS: usize = 2_000;

/// Bytes of a payload; the first eight are its number.
const PAYLOAD: usize = 64;

/// The flags of hubs whose rooms keep messages.
const HISTORY: [&str; 2] = ["--history", "100"];

/// A Redis server, killed when it is dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Redis {
    /// `None` if it is not installed.
    fn start() -> Outcome<Option<Self>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let spawned = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::piped())
            .spawn();
        let Ok(child) = spawned else { return Ok(None) };
        let mut redis = Self { child, port };
        let log = redis.child.stdout.take().ok_or("no standard output")?;
        let is_ready = |line: &String| line.contains("Ready to accept connections");
        BufReader::new(log)
            .lines()
            .map_while(Result::ok)
            .find(is_ready)
            .ok_or("redis-server does not start")?;
        Ok(Some(redis))
    }

    /// Runs a command; returns its answer.
    fn command(&self, words: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(format!("{words}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn hub(&self, binary: &str, flags: &[&str]) -> Outcome<Server> {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let hub = [binary, "--redis", &url, "--max-rooms", "4096"];
        let hub = Server::start(&[&hub, flags].concat())?;
        // The hub answers a publisher once it is connected.
        let publisher = TcpStream::connect(&hub.address)?;
        publisher.set_read_timeout(Some(PATIENCE))?;
        let post = "POST /pub/up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nup";
        ask(publisher, post, "202")?;
        Ok(hub)
    }
}

/// A message as a client sends it.
fn message(number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(PAYLOAD, b'x');
    masked(0x82, &payload)
}

fn hear(client: &mut TcpStream) -> Outcome<()> {
    let mut frame = [0; 2 + PAYLOAD];
    client.read_exact(&mut frame)?;
    if frame[..2] == [0x82, PAYLOAD as u8] { Ok(()) } else { Err("another frame".into()) }
}

/// The median time from a message to the client that hears it, in microseconds.
fn latency(from: &Server, to: &Server) -> Outcome<String> {
    let (mut sender, mut reader) = (from.join("news")?, to.join("news")?);
    let mut times = Vec::new();
    for nth in 0..ROUNDS {
        let begin = Instant::now();
        sender.write_all(&message(nth as u64))?;
        hear(&mut reader)?;
        times.push(begin.elapsed());
        hear(&mut sender)?;
        thread::sleep(Duration::from_micros(200));
    }
    times.sort_unstable();
    Ok(format!("{} us", percentile(&times, 0.5).as_micros()))
}

/// What one flood says: messages in a second, and the CPU time of a message in all hubs and in the
/// server.
type Flood = [String; 3];

/// Floods a room: a client of each hub sends, and hears all of it.
fn flood(hubs: &[&Server], redis: Option<&Redis>) -> Outcome<Flood> {
    let total = FLOOD * hubs.len();
    let used = |children: &[&Child]| -> Outcome<Duration> {
        children.iter().map(|child| cpu(child)).sum::<Outcome<Duration>>()
    };
    let of_hubs: Vec<_> = hubs.iter().map(|hub| &hub.child).collect();
    let of_redis: Vec<_> = redis.iter().map(|redis| &redis.child).collect();
    let clients: Vec<_> = hubs.iter().map(|hub| hub.join("flood")).collect::<Outcome<_>>()?;
    let before = (used(&of_hubs)?, used(&of_redis)?);
    let begin = Instant::now();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let count = hubs.len();
            thread::spawn(move || -> Outcome<()> {
                let mut sent = 0;
                for heard in 0..FLOOD * count {
                    while sent < FLOOD && sent * count < heard + AHEAD {
                        client.write_all(&message(sent as u64))?;
                        sent += 1;
                    }
                    hear(&mut client)?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a client panicked")??;
    }
    let took = begin.elapsed();
    let after = (used(&of_hubs)?, used(&of_redis)?);
    let each = |time: Duration| format!("{:.1} us", time.as_nanos() as f64 / 1000.0 / total as f64);
    let rate = format!("{:.0}", total as f64 / took.as_secs_f64());
    Ok([rate, each(after.0 - before.0), each(after.1 - before.1)])
}

/// Prints the table: each measurement without history and with it, for a hub alone and for one, two
/// and three hubs.
fn table(redis: &Redis, binary: &str) -> Outcome<()> {
    println!("| | a hub alone | one hub | two hubs | three hubs |");
    println!("|---|---|---|---|---|");
    for (flags, more) in [(&[][..], ""), (&HISTORY[..], ", with history")] {
        let alone = Server::start(&[&[binary], flags].concat())?;
        let hubs: Vec<_> = (0..3).map(|_| redis.hub(binary, flags)).collect::<Outcome<Vec<_>>>()?;
        let hubs: Vec<_> = hubs.iter().collect();
        let [first, second] = [hubs[0], hubs[1]];
        let times = [latency(&alone, &alone)?, latency(first, first)?, latency(first, second)?];
        row(&format!("from a message to the client that hears it, median{more}"), &times);
        let mut floods = vec![flood(&[&alone], None)?];
        for count in 1..=3 {
            floods.push(flood(&hubs[..count], Some(redis))?);
        }
        for (nth, name) in [
            "messages of 64 bytes in a second",
            "processor time of one of them, all hubs",
            "processor time of one of them, server",
        ]
        .iter()
        .enumerate()
        {
            let values: Vec<_> = floods.iter().map(|flood| flood[nth].clone()).collect();
            row(&format!("{name}{more}"), &values);
        }
    }
    Ok(())
}

/// Prints a row; the values that it does not have are empty.
fn row(name: &str, values: &[String]) {
    let value = |nth: usize| values.get(nth).map_or("", String::as_str);
    println!("| {name} | {} | {} | {} | {} |", value(0), value(1), value(2), value(3));
}

/// Prints what many rooms cost, and how long their return takes.
fn rooms(redis: &Redis, binary: &str) -> Outcome<()> {
    let hub = redis.hub(binary, &[])?;
    let before = (rss(&hub.child)?, rss(&redis.child)?);
    let begin = Instant::now();
    let mut clients: Vec<_> =
        (0..ROOMS).map(|nth| hub.join(&format!("room-{nth}"))).collect::<Outcome<_>>()?;
    let joined = begin.elapsed();
    let after = (rss(&hub.child)?, rss(&redis.child)?);
    let cpu_before = (cpu(&hub.child)?, cpu(&redis.child)?);
    let begin = Instant::now();
    redis.command("CLIENT KILL TYPE pubsub")?;
    // A message that is published before the hub is back has no subscriber.
    let last = format!("PUBLISH hublet:room-{} x", ROOMS - 1);
    while !redis.command(&last)?.starts_with(":1") {
        if begin.elapsed() > PATIENCE {
            return Err("the rooms do not return".into());
        }
    }
    let back = begin.elapsed();
    let mut frame = [0; 3];
    clients[ROOMS - 1].read_exact(&mut frame)?;
    let cpu_after = (cpu(&hub.child)?, cpu(&redis.child)?);
    println!(
        "{ROOMS} rooms with a client each: joined in {} ms; {} B of a hub and {} B of Redis a room",
        joined.as_millis(),
        (after.0 - before.0) / ROOMS as u64,
        after.1.saturating_sub(before.1) / ROOMS as u64
    );
    println!(
        "their return after a cut connection: {} ms, the first pause included; CPU: hub {} ms, \
         Redis {} ms",
        back.as_millis(),
        (cpu_after.0 - cpu_before.0).as_millis(),
        (cpu_after.1 - cpu_before.1).as_millis()
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let options = Options::parse(0)?;
    server::raise_fd_limit();
    let Some(redis) = Redis::start()? else {
        println!("skipped: redis-server is not installed");
        return Ok(());
    };
    table(&redis, &options.binary)?;
    rooms(&redis, &options.binary)
}
