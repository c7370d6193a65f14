//! The hub restarts again and again, while clients are connected and messages go on.
//!
//! `cargo bench --bench restart -- [--gate] [--clients N] [--restarts N] [BINARY]`
//!
//! N WebSockets (default 2,000) and 100 readers of server-sent events are in 100 rooms. 500 messages a
//! second are published, in each second room by a client and in the others by POST. Every 3 s the
//! process becomes the binary anew (default 20 times). No client may see a close, and each must hear
//! every message of its room once and in order. With `--gate` the longest time from a message's write
//! to its arrival may be 100 ms for 999 of 1,000, and memory, descriptors and threads must not grow.
//!
//! Clients and hub share the machine: the times include those of the clients of the bench.

mod server;

use std::cell::Cell;
use std::io::{BufRead as _, BufReader as SyncReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::AsyncBufReadExt;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt, BufReader, WriteHalf};
use rustix::process::{Pid, Signal, kill_process};
use server::client::{Reader, frame, head, join, text, within};
use server::{
    Options, Outcome, PATIENCE, Server, UPGRADE, cpu, descriptors, masked, percentile, rss, status,
};
use smol::net::TcpStream;
use smol::{LocalExecutor, Timer, Unblock};

/// WebSockets, at the defaults.
const CLIENTS: usize = 2_000;
/// Rooms that they are spread over. Each has a reader of events too.
const ROOMS: usize = 100;
/// The time between two messages, each in the next room.
const PACE: Duration = Duration::from_millis(2);
/// The time between two restarts.
const BETWEEN: Duration = Duration::from_secs(3);
/// Milliseconds that a message may take at most, for 999 of 1,000.
const LATE_MAX: f64 = 100.0;
/// How much more memory the last program may take than the first, in percent.
const GROWTH_MAX: f64 = 10.0;
/// The last message of each room.
const END: &str = "end";

fn main() -> Outcome<()> {
    let options = Options::parse(CLIENTS)?;
    server::raise_fd_limit();
    let mut command = Command::new(&options.binary);
    command.args(["--listen", "127.0.0.1:0", "--log", "info"]).stderr(Stdio::piped());
    let server = Server::of(&mut command)?;
    let executor = LocalExecutor::new();
    let bench = Rc::new(Bench::new(server.address.clone()));
    let ran = bench.run(&executor, server, (options.clients, options.restarts));
    let Outcomes { mut latencies, messages, restarts } = smol::block_on(executor.run(ran))?;
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |share| percentile(&latencies, share);
    println!(
        "{messages} messages, {} deliveries over {} restarts: no close, nothing lost, nothing twice",
        latencies.len(),
        restarts.len()
    );
    println!(
        "a message took {:.1} ms (median), {:.1} ms (999 of 1,000), {:.1} ms (longest)",
        at(0.5),
        at(0.999),
        at(1.0)
    );
    let sorted = |time: fn(&Restart) -> f64| {
        let mut times: Vec<_> = restarts.iter().map(time).collect();
        times.sort_unstable_by(f64::total_cmp);
        (percentile(&times, 0.5), percentile(&times, 1.0))
    };
    let (median, longest) = sorted(|restart| restart.took);
    println!(
        "a restart took {median:.1} ms (median), {longest:.1} ms (longest), with the question to the new \
         binary"
    );
    let (median, longest) = sorted(|restart| restart.computed);
    println!("of it the hub computed {median:.1} ms (median), {longest:.1} ms (longest)");
    let (Some(first), Some(last)) = (restarts.first(), restarts.last()) else { return Ok(()) };
    for (when, held) in [("first", first), ("last", last)] {
        let Restart { rss, descriptors, threads, .. } = held;
        println!(
            "after the {when}: {rss} bytes resident, {descriptors} descriptors, {threads} threads"
        );
    }
    let growth = (last.rss as f64 / first.rss as f64 - 1.0) * 100.0;
    options.gate("ms of 999 messages of 1,000", at(0.999), LATE_MAX)?;
    options.gate("growth of memory in percent", growth, GROWTH_MAX)?;
    options.gate("descriptors more", last.descriptors as f64 - first.descriptors as f64, 0.0)?;
    options.gate("threads more", last.threads as f64 - first.threads as f64, 0.0)
}

/// What a restart took, and what the process holds after it.
struct Restart {
    /// Milliseconds from the signal to the line of the new program.
    took: f64,
    /// Of these, those in which the hub has run on a processor.
    computed: f64,
    rss: u64,
    descriptors: usize,
    threads: u64,
}

struct Outcomes {
    /// Of each message at each client, in milliseconds.
    latencies: Vec<f64>,
    messages: u64,
    restarts: Vec<Restart>,
}

/// What the tasks share.
struct Bench {
    address: String,
    begun: Instant,
    /// Whether no further message comes.
    is_over: Cell<bool>,
}

/// How a client hears its room.
enum Kind {
    Events,
    /// With what answers pings, if any come.
    WebSocket(Option<WriteHalf<TcpStream>>),
}

/// The publisher of a room.
enum Speaker {
    Client(WriteHalf<TcpStream>),
    /// A connection that posts, and how many clients must get each message.
    Post(TcpStream, usize),
}

impl Bench {
    fn new(address: String) -> Self {
        Self { address, begun: Instant::now(), is_over: Cell::new(false) }
    }

    async fn run(
        self: Rc<Self>,
        executor: &LocalExecutor<'_>,
        server: Server,
        (clients, restarts): (usize, usize),
    ) -> Outcome<Outcomes> {
        let (mut speakers, mut hearing, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for room in 0..ROOMS {
            let mut speaker = None;
            let members = clients / ROOMS + usize::from(room < clients % ROOMS);
            for _ in 0..members {
                let request =
                    format!("GET /ws/room{room} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
                let (reader, writer) = join(&self.address, &request, "101").await?;
                // A client that speaks is not pinged.
                let pongs = match (room % 2, &speaker) {
                    (0, None) => {
                        speaker = Some(Speaker::Client(writer));
                        None
                    }
                    _ => Some(writer),
                };
                hearing.push(executor.spawn(Rc::clone(&self).hear(
                    room,
                    reader,
                    Kind::WebSocket(pongs),
                )));
            }
            let request = format!("GET /sse/room{room} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (reader, writer) = join(&self.address, &request, "200").await?;
            idle.push(writer);
            hearing.push(executor.spawn(Rc::clone(&self).hear(room, reader, Kind::Events)));
            let post = TcpStream::connect(&*self.address).await?;
            post.set_nodelay(true)?;
            speakers.push(speaker.unwrap_or(Speaker::Post(post, members + 1)));
        }
        let speaking: Vec<_> = speakers
            .into_iter()
            .enumerate()
            .map(|(room, speaker)| executor.spawn(Rc::clone(&self).speak(room, speaker)))
            .collect();
        let held = self.restart_all(server, restarts).await?;
        self.is_over.set(true);
        // The speakers stay connected until all have heard the last message.
        let (mut messages, mut kept) = (0, Vec::new());
        for speaker in speaking {
            let (said, speaker) = speaker.await?;
            messages += said;
            kept.push(speaker);
        }
        let mut latencies = Vec::new();
        for client in hearing {
            latencies.extend(client.await?);
        }
        let (mut server, restarts) = held;
        if server.child.try_wait()?.is_some() {
            return Err("the process has ended".into());
        }
        drop((kept, idle));
        Ok(Outcomes { latencies, messages, restarts })
    }

    /// Restarts the hub at a steady pace. Each time the next program says that it goes on.
    async fn restart_all(
        &self,
        mut server: Server,
        restarts: usize,
    ) -> Outcome<(Server, Vec<Restart>)> {
        let stderr = server.child.stderr.take().ok_or("no log")?;
        let mut log = Unblock::new(SyncReader::new(stderr));
        let pid = Pid::from_child(&server.child);
        let (begun, mut held) = (Instant::now(), Vec::new());
        for nth in 1..=restarts as u32 {
            Timer::at(begun + BETWEEN * nth).await;
            let (signalled, ran) = (Instant::now(), cpu(&server.child)?);
            kill_process(pid, Signal::USR2)?;
            let until = |log: &mut SyncReader<_>| -> Outcome<()> {
                let mut line = String::new();
                while !line.contains("restarted as ") {
                    line.clear();
                    if log.read_line(&mut line)? == 0 || line.contains("not restarted") {
                        return Err(format!("no restart: {line}").into());
                    }
                }
                Ok(())
            };
            log.with_mut(until).await?;
            let took = signalled.elapsed().as_secs_f64() * 1_000.0;
            held.push(Restart {
                took,
                computed: (cpu(&server.child)? - ran).as_secs_f64() * 1_000.0,
                rss: rss(&server.child)?,
                descriptors: descriptors(&server.child)?,
                threads: status(&server.child, "Threads")?,
            });
        }
        Timer::at(begun + BETWEEN * (restarts as u32 + 1)).await;
        Ok((server, held))
    }

    /// Publishes to a room at a steady pace until it is over; returns how many messages.
    async fn speak(self: Rc<Self>, room: usize, mut speaker: Speaker) -> Outcome<(u64, Speaker)> {
        let begun = Instant::now() + PACE * room as u32;
        let mut said = 0;
        while !self.is_over.get() {
            // A message that is late does not delay the others.
            Timer::at(begun + PACE * ROOMS as u32 * said as u32).await;
            said += 1;
            let text = format!("{said} {}", self.begun.elapsed().as_nanos());
            let said_it = self.say(room, &mut speaker, &text).await;
            said_it.map_err(|error| format!("room {room}, saying {said}: {error}"))?;
        }
        self.say(room, &mut speaker, END).await?;
        Ok((said, speaker))
    }

    async fn say(&self, room: usize, speaker: &mut Speaker, text: &str) -> Outcome<()> {
        match speaker {
            Speaker::Client(writer) => writer.write_all(&masked(0x81, text.as_bytes())).await?,
            Speaker::Post(stream, members) => {
                let request = format!(
                    "POST /pub/room{room} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                stream.write_all(request.as_bytes()).await?;
                let mut reader = BufReader::new(stream);
                let length = within(PATIENCE, "an answer", head(&mut reader, "202")).await??;
                let mut body = vec![0; length];
                reader.read_exact(&mut body).await?;
                let body = String::from_utf8(body)?;
                if !body.starts_with(&format!("{{\"recipients\":{members},")) {
                    return Err(format!("room {room}: {body} instead of {members}").into());
                }
            }
        }
        Ok(())
    }

    /// Hears a room to its last message; returns how long each took, in milliseconds.
    async fn hear(
        self: Rc<Self>,
        room: usize,
        mut reader: Reader,
        mut kind: Kind,
    ) -> Outcome<Vec<f64>> {
        let (mut heard, mut latencies) = (0_u64, Vec::new());
        loop {
            let text = match &mut kind {
                Kind::Events => data(&mut reader).await,
                Kind::WebSocket(None) => text(&mut reader).await,
                Kind::WebSocket(Some(pongs)) => text_or_ping(&mut reader, pongs).await,
            };
            let text = text.map_err(|error| format!("room {room} after {heard}: {error}"))?;
            if text == END {
                return Ok(latencies);
            }
            let (number, nanos) = text.split_once(' ').ok_or("no number")?;
            let (number, sent) = (number.parse::<u64>()?, Duration::from_nanos(nanos.parse()?));
            if number != heard + 1 {
                return Err(format!("room {room}: {number} after {heard}").into());
            }
            heard = number;
            let took = self.begun.elapsed().saturating_sub(sent);
            latencies.push(took.as_secs_f64() * 1_000.0);
        }
    }
}

/// Reads a short text, and answers the pings before it.
async fn text_or_ping(reader: &mut Reader, pongs: &mut WriteHalf<TcpStream>) -> Outcome<String> {
    loop {
        match frame(reader).await? {
            (0x81, payload) => return Ok(String::from_utf8(payload)?),
            (0x89, payload) => pongs.write_all(&masked(0x8a, &payload)).await?,
            (first, _) => return Err(format!("a frame that begins with {first:02x}").into()),
        }
    }
}

/// Reads the data of an event.
async fn data(reader: &mut Reader) -> Outcome<String> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).await? == 0 || line.starts_with("event: close") {
            return Err(format!("the stream is closed: {line:?}").into());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return Ok(data.trim_end().to_owned());
        }
    }
}
