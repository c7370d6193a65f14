//! Many clients come back at once and replay what they missed, while messages go on.
//!
//! `cargo bench --bench reconnect -- [--gate] [--clients N] [BINARY]`
//!
//! In each of 100 rooms one client stays and speaks: 500 messages a second in all. N clients (default
//! 2,000) come back at the same moment, spread over the rooms. Each asks for the 100 messages that it
//! missed, and hears what is said from then on. Every message must come once and in order. The
//! clients that stayed measure how long a message takes, from its write to its echo, until all have
//! replayed. With `--gate` the 99th percentile may be 100 ms.
//!
//! Clients and hub share the machine: the latency includes that of the clients of the bench.

mod server;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::AsyncBufReadExt;
use futures_lite::io::{AsyncWriteExt, WriteHalf};
use server::client::{self, Reader, text, within};
use server::{Options, Outcome, PATIENCE, Server, UPGRADE, masked, percentile};
use smol::net::TcpStream;
use smol::{LocalExecutor, Timer};

/// Clients that come back.
const CLIENTS: usize = 2_000;
/// Rooms that they are spread over, each with a client that stays.
const ROOMS: usize = 100;
/// Messages that each of them has missed.
const MISSED: u64 = 100;
/// The time between two messages, each in the next room.
const PACE: Duration = Duration::from_millis(2);
/// How long messages go on before the clients come back, and after they have replayed.
const MARGIN: Duration = Duration::from_secs(1);
/// Milliseconds that a message may take at most, for 99 of 100.
const P99_MAX: f64 = 100.0;

fn main() -> Outcome<()> {
    let options = Options::parse(CLIENTS)?;
    server::raise_fd_limit();
    let server = Server::start(&[&options.binary, "--history", "10000"])?;
    let executor = LocalExecutor::new();
    let storm = Storm::new(server.address.clone());
    let (replayed, mut latencies) =
        smol::block_on(executor.run(storm.run(&executor, options.clients)))?;
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |share| percentile(&latencies, share);
    println!(
        "{} clients have replayed {MISSED} messages each after {replayed:.2} s; nothing lost, nothing \
         twice",
        options.clients
    );
    println!(
        "meanwhile {} messages took {:.1} ms (median), {:.1} ms (p99), {:.1} ms (longest)",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    options.gate("p99 in ms of the clients that stayed", at(0.99), P99_MAX)
}

/// Clients that have come so far.
#[derive(Default)]
struct Count {
    clients: Cell<usize>,
    changed: Event,
}

impl Count {
    fn add_one(&self) {
        self.clients.set(self.clients.get() + 1);
        self.changed.notify(1);
    }

    /// Waits until `all` have come; an error if they do not in time.
    async fn reaches(&self, all: usize) -> Outcome<()> {
        let reached = async {
            while self.clients.get() < all {
                // All tasks are on one thread, so none comes between the look and the wait.
                self.changed.listen().await;
            }
        };
        let came = within(PATIENCE, "the last client", reached).await;
        came.map_err(|late| format!("{late}: {} of {all} have come", self.clients.get()).into())
    }
}

/// What the tasks share.
struct Storm {
    address: String,
    begun: Instant,
    /// How many messages each room has had.
    said: Vec<Cell<u64>>,
    /// Clients that stayed and have heard what the others missed.
    ready: Count,
    /// Clients that have come back and have all that they missed.
    replayed: Count,
    /// Whether no further message comes.
    is_over: Cell<bool>,
    /// Whether latencies count.
    counts: Cell<bool>,
}

impl Storm {
    fn new(address: String) -> Rc<Self> {
        Rc::new(Self {
            address,
            begun: Instant::now(),
            said: (0..ROOMS).map(|_| Cell::new(0)).collect(),
            ready: Count::default(),
            replayed: Count::default(),
            is_over: Cell::new(false),
            counts: Cell::new(false),
        })
    }

    /// Runs all of it; returns the seconds until all have replayed, and the latencies meanwhile in
    /// milliseconds.
    async fn run(
        self: Rc<Self>,
        executor: &LocalExecutor<'_>,
        clients: usize,
    ) -> Outcome<(f64, Vec<f64>)> {
        let (mut bases, mut speakers, mut stayed) = (Vec::new(), Vec::new(), Vec::new());
        for room in 0..ROOMS {
            let (mut reader, writer) = self.join(room, "now").await?;
            bases.push(text(&mut reader).await?.parse::<u64>()?);
            speakers.push(writer);
            stayed.push(executor.spawn(Rc::clone(&self).stay(room, reader)));
        }
        // What those miss that are away.
        for _ in 0..MISSED {
            for (room, speaker) in speakers.iter_mut().enumerate() {
                self.say(room, speaker).await?;
            }
        }
        self.ready.reaches(ROOMS).await?;
        let speaking = executor.spawn(Rc::clone(&self).speak(speakers));
        Timer::after(MARGIN).await;
        let storm = Instant::now();
        self.counts.set(true);
        let back: Vec<_> = (0..clients)
            .map(|n| executor.spawn(Rc::clone(&self).come_back(n % ROOMS, bases[n % ROOMS])))
            .collect();
        self.replayed.reaches(clients).await?;
        self.counts.set(false);
        let seconds = storm.elapsed().as_secs_f64();
        Timer::after(MARGIN).await;
        self.is_over.set(true);
        // The speakers stay connected until all have heard the last message.
        let speakers = speaking.await?;
        for client in back {
            client.await?;
        }
        let mut latencies = Vec::new();
        for client in stayed {
            latencies.extend(client.await?);
        }
        drop(speakers);
        Ok((seconds, latencies))
    }

    /// Joins a room.
    async fn join(&self, room: usize, since: &str) -> Outcome<(Reader, WriteHalf<TcpStream>)> {
        let request = format!(
            "GET /ws/room{room}?since={since} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n"
        );
        client::join(&self.address, &request, "101").await
    }

    /// Says the next message of a room: its number and the time.
    async fn say(&self, room: usize, speaker: &mut WriteHalf<TcpStream>) -> Outcome<()> {
        let number = self.said[room].get() + 1;
        self.said[room].set(number);
        let text = format!("{number} {}", self.begun.elapsed().as_nanos());
        Ok(speaker.write_all(&masked(0x81, text.as_bytes())).await?)
    }

    /// Speaks in one room after the other, at a steady pace, until it is over.
    async fn speak(
        self: Rc<Self>,
        mut speakers: Vec<WriteHalf<TcpStream>>,
    ) -> Outcome<Vec<WriteHalf<TcpStream>>> {
        let begun = Instant::now();
        for nth in 0u32.. {
            if self.is_over.get() {
                break;
            }
            // A message that is late does not delay the others.
            Timer::at(begun + PACE * nth).await;
            let room = nth as usize % ROOMS;
            self.say(room, &mut speakers[room]).await?;
        }
        Ok(speakers)
    }

    /// Whether a message is the last of its room.
    fn is_last(&self, room: usize, number: u64) -> bool {
        self.is_over.get() && number == self.said[room].get()
    }

    /// Hears a room from the first message on; returns how long they took, in milliseconds.
    async fn stay(self: Rc<Self>, room: usize, mut reader: Reader) -> Outcome<Vec<f64>> {
        let mut latencies = Vec::new();
        let count = |sent| {
            if self.counts.get() {
                let took = self.begun.elapsed().saturating_sub(sent);
                latencies.push(took.as_secs_f64() * 1_000.0);
            }
        };
        self.hear_all(room, &mut reader, &self.ready, count).await?;
        Ok(latencies)
    }

    /// Comes back to a room that it left at a position.
    async fn come_back(self: Rc<Self>, room: usize, position: u64) -> Outcome<()> {
        let (mut reader, _writer) = self.join(room, &position.to_string()).await?;
        let told = text(&mut reader).await?;
        if told != position.to_string() {
            return Err(format!("room {room}: {told} instead of {position}").into());
        }
        self.hear_all(room, &mut reader, &self.replayed, |_| ()).await
    }

    /// Hears a room from its first message to its last. Counts the client once it has all that
    /// clients miss, and calls `each` with the time of each message.
    async fn hear_all(
        &self,
        room: usize,
        reader: &mut Reader,
        has_missed: &Count,
        mut each: impl FnMut(Duration),
    ) -> Outcome<()> {
        let mut heard = 0;
        while !self.is_last(room, heard) {
            let Some((number, sent)) = self.hear(room, heard, reader).await? else { continue };
            heard = number;
            if heard == MISSED {
                has_missed.add_one();
            }
            each(sent);
        }
        Ok(())
    }

    /// Hears the next message, which must be the one after `heard`; `None` if it may have been the
    /// last one and none came for a moment.
    async fn hear(
        &self,
        room: usize,
        heard: u64,
        reader: &mut Reader,
    ) -> Outcome<Option<(u64, Duration)>> {
        let quiet = async {
            Timer::after(MARGIN).await;
            Ok(None)
        };
        // What waits takes nothing, so nothing is lost when it is dropped.
        let next = async { reader.fill_buf().await.map(|_| Some(())) };
        if futures_lite::future::or(next, quiet).await?.is_none() {
            return Ok(None);
        }
        let text = text(reader).await?;
        let (number, nanos) = text.split_once(' ').ok_or("no number")?;
        let (number, nanos) = (number.parse::<u64>()?, nanos.parse()?);
        if number != heard + 1 {
            return Err(format!("room {room}: {number} after {heard}").into());
        }
        Ok(Some((number, Duration::from_nanos(nanos))))
    }
}
