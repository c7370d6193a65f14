//! What a Redis server between hubs costs.
//!
//! `cargo bench --bench redis -- [BINARY]`
//!
//! Starts `redis-server` and hubs of BINARY (default: the binary of this build) on free ports of
//! 127.0.0.1. Prints, beside a hub alone: the time from a message to the client that hears it; the
//! messages that pass in a second with one, two and three hubs, and the CPU time of a message in
//! the hubs and in the server; and what 2,000 rooms cost, and their return. `skipped` without
//! `redis-server`. Linux.

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

    fn hub(&self, binary: &str) -> Outcome<Server> {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let hub = Server::start(&[binary, "--redis", &url, "--max-rooms", "4096"])?;
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

/// Prints the time from a message to the client that hears it.
fn latency(name: &str, from: &Server, to: &Server) -> Outcome<()> {
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
    let at = |share| percentile(&times, share).as_micros();
    println!("{name:<34} p50 {:>4} us, p99 {:>5} us", at(0.5), at(0.99));
    Ok(())
}

/// Floods a room: a client of each hub sends, and hears all of it.
fn flood(name: &str, hubs: &[&Server], redis: Option<&Redis>) -> Outcome<()> {
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
    let each = |time: Duration| time.as_nanos() as f64 / 1000.0 / total as f64;
    println!(
        "{name:<34} {:>7.0} messages/s, CPU of a message: hubs {:.1} us, Redis {:.1} us",
        total as f64 / took.as_secs_f64(),
        each(after.0 - before.0),
        each(after.1 - before.1)
    );
    Ok(())
}

/// Prints what many rooms cost, and how long their return takes.
fn rooms(redis: &Redis, binary: &str) -> Outcome<()> {
    let hub = redis.hub(binary)?;
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
    let alone = Server::start(&[&options.binary])?;
    latency("latency, a hub alone", &alone, &alone)?;
    let hubs = [(); 3].map(|()| redis.hub(&options.binary));
    let [first, second, third] = hubs;
    let (first, second, third) = (first?, second?, third?);
    latency("latency, Redis, the same hub", &first, &first)?;
    latency("latency, Redis, another hub", &first, &second)?;
    flood("a hub alone", &[&alone], None)?;
    flood("Redis, 1 hub", &[&first], Some(&redis))?;
    flood("Redis, 2 hubs", &[&first, &second], Some(&redis))?;
    flood("Redis, 3 hubs", &[&first, &second, &third], Some(&redis))?;
    drop((first, second, third));
    rooms(&redis, &options.binary)
}
