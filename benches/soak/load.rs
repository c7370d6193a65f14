//! Well-behaved clients: readers, publishers, and guests that connect and leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use rustix::net::sockopt;
use smol::io::AsyncReadExt as _;
use smol::{Executor, Task, Timer};

use crate::peer::{self, BINARY, CLOSE, Peer, TEXT};
use crate::{Outcome, World, add, within};

const ROOMS: usize = 8;

/// Readers of each room that stay connected, by WebSocket and by server-sent events.
const READERS: usize = 20;
const EVENT_READERS: usize = 2;

/// Clients that connect and leave, and pairs of a client that never reads and one that sends to it.
const GUESTS: usize = 6;
const DEAF: usize = 2;

/// Lengths of a publisher's payloads in bytes, one after another.
const SIZES: [usize; 6] = [0, 16, 100, 500, 4000, 9000];

/// The text of a publisher's last message.
const LAST: &str = "last";

fn room(nth: usize) -> String {
    format!("soak-{}", nth % ROOMS)
}

/// A pause of about `length`.
async fn pause(length: Duration) {
    Timer::after(length.mul_f64(0.5 + fastrand::f64())).await;
}

/// Connects the readers that stay. Each ends when it has received the last messages of its room.
pub(crate) async fn readers(
    executor: &Executor<'static>,
    world: &Arc<World>,
) -> Outcome<Vec<Task<Outcome<()>>>> {
    let mut tasks = Vec::new();
    for nth in 0..ROOMS * READERS {
        let (world, room) = (Arc::clone(world), room(nth));
        let peer = Peer::connect(&world.address, &format!("/ws/{room}")).await?;
        tasks.push(executor.spawn(read(world, room, peer)));
    }
    for nth in 0..ROOMS * EVENT_READERS {
        let (world, room) = (Arc::clone(world), room(nth));
        let peer = peer::events(&world.address, &room).await?;
        tasks.push(executor.spawn(read_events(world, room, peer)));
    }
    Ok(tasks)
}

/// The messages of each publisher that a reader has received: the numbers must be consecutive.
#[derive(Default)]
struct Heard(HashMap<String, u64>);

impl Heard {
    /// Records a message, `{publisher} {number} {padding}`. Returns whether it was the last.
    fn note(&mut self, room: &str, message: &str) -> Outcome<bool> {
        let mut words = message.splitn(3, ' ');
        let (publisher, number) = (words.next().unwrap_or_default(), words.next());
        let number: u64 = number.ok_or_else(|| format!("no message: {message:?}"))?.parse()?;
        let before = self.0.insert(publisher.to_owned(), number);
        match before {
            Some(before) if before + 1 != number => {
                Err(format!("{number} after {before} of {publisher} in {room}").into())
            }
            _ => Ok(words.next() == Some(LAST)),
        }
    }
}

async fn read(world: Arc<World>, room: String, mut peer: Peer) -> Outcome<()> {
    let mut heard = Heard::default();
    // One publisher uses a WebSocket, one POST.
    let mut talking = 2;
    while talking > 0 {
        let (kind, payload) = peer.message().await?;
        if kind != TEXT && kind != BINARY {
            return Err(format!("a reader in {room} got {kind:#x} {payload:?}").into());
        }
        add(&world.counts.heard);
        talking -= u32::from(heard.note(&room, std::str::from_utf8(&payload)?)?);
    }
    peer.leave().await
}

/// Reads server-sent events. An event of a text has the message unchanged.
async fn read_events(world: Arc<World>, room: String, mut peer: Peer) -> Outcome<()> {
    let mut heard = Heard::default();
    loop {
        let line = peer.line().await?;
        let Some(message) = line.strip_prefix("data: ") else { continue };
        add(&world.counts.heard);
        // The publisher that uses POST sends text only.
        if message.starts_with("post-") && heard.note(&room, message)? {
            return Ok(());
        }
    }
}

/// Two publishers for each room, one over a WebSocket and one by POST.
pub(crate) fn publishers(
    executor: &Executor<'static>,
    world: &Arc<World>,
) -> Vec<Task<Outcome<()>>> {
    let mut tasks = Vec::new();
    for nth in 0..ROOMS {
        tasks.push(executor.spawn(publish(Arc::clone(world), nth)));
        tasks.push(executor.spawn(post(Arc::clone(world), nth)));
    }
    tasks
}

/// The payload of a publisher's message.
fn message(publisher: &str, number: u64, last: bool) -> String {
    let padding = if last { LAST.to_owned() } else { "x".repeat(SIZES[number as usize % 6]) };
    format!("{publisher} {number} {padding}")
}

async fn publish(world: Arc<World>, nth: usize) -> Outcome<()> {
    let publisher = format!("socket-{nth}");
    let mut peer = Peer::connect(&world.address, &format!("/ws/{}?echo=0", room(nth))).await?;
    for number in 0.. {
        let last = world.has_ended();
        let kind = if number % 2 == 0 || last { TEXT } else { BINARY };
        peer.send(kind, message(&publisher, number, last).as_bytes()).await?;
        add(&world.counts.published);
        if last {
            break;
        }
        // It receives the posted messages, and answers pings.
        let listen = async {
            loop {
                peer.message().await?;
            }
        };
        let wait = async {
            pause(Duration::from_secs_f64(1.0 / world.rate)).await;
            Outcome::Ok(())
        };
        or(wait, listen).await?;
    }
    peer.leave().await
}

async fn post(world: Arc<World>, nth: usize) -> Outcome<()> {
    let (publisher, room) = (format!("post-{nth}"), room(nth));
    for number in 0.. {
        let last = world.has_ended();
        let body = message(&publisher, number, last);
        let request = format!(
            "POST /pub/{room} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        peer::request(&world.address, &request).await?;
        add(&world.counts.published);
        if last {
            break;
        }
        pause(Duration::from_secs_f64(1.0 / world.rate)).await;
    }
    Ok(())
}

/// Clients that connect and leave, clients that never read, and requests to the admin endpoints.
pub(crate) fn guests(executor: &Executor<'static>, world: &Arc<World>) -> Vec<Task<Outcome<()>>> {
    let mut tasks = Vec::new();
    for nth in 0..GUESTS {
        tasks.push(executor.spawn(come_and_go(Arc::clone(world), nth)));
    }
    for nth in 0..DEAF {
        tasks.push(executor.spawn(never_read(Arc::clone(world), nth)));
    }
    tasks.push(executor.spawn(look(Arc::clone(world))));
    tasks
}

/// Joins a room, receives some messages, and leaves in one of several ways.
async fn come_and_go(world: Arc<World>, nth: usize) -> Outcome<()> {
    for visit in nth.. {
        if world.has_ended() {
            break;
        }
        let mut peer = Peer::connect(&world.address, &format!("/ws/{}", room(visit))).await?;
        let listen = async {
            loop {
                peer.message().await?;
            }
        };
        let wait = async {
            pause(Duration::from_millis(300)).await;
            Outcome::Ok(())
        };
        or(wait, listen).await?;
        match visit % 4 {
            0 => peer.leave().await?,
            // Closes with unread bytes, which is a reset.
            1 => drop(peer),
            2 => {
                let stream = peer.into_stream();
                sockopt::set_socket_linger(stream.get_ref(), Some(Duration::ZERO))?;
            }
            // Shuts down its side, and reads until the hub closes.
            _ => {
                let mut stream = peer.into_stream();
                stream.get_ref().shutdown(std::net::Shutdown::Write)?;
                let rest = async { while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {} };
                within("the hub's answer to a half-closed socket", rest).await?;
            }
        }
        add(&world.counts.came_and_went);
    }
    Ok(())
}

/// Joins a room of its own and never reads. Another client sends to it until it is evicted.
async fn never_read(world: Arc<World>, nth: usize) -> Outcome<()> {
    let path = format!("/ws/deaf-{nth}");
    while !world.has_ended() {
        let deaf = Peer::over(peer::dial_narrow(&world.address)?, &path).await?;
        let mut talker = Peer::connect(&world.address, &format!("{path}?echo=0")).await?;
        // More than the kernel's buffers, 4 MB by default, and the queue hold.
        for _ in 0..160 {
            talker.send(BINARY, &[0; 60_000]).await?;
        }
        let mut stream = deaf.into_stream();
        let end = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
        within("an eviction", end).await?;
        add(&world.counts.evicted);
        talker.leave().await?;
        pause(Duration::from_secs(5)).await;
    }
    Ok(())
}

/// Requests every admin endpoint.
async fn look(world: Arc<World>) -> Outcome<()> {
    while !world.has_ended() {
        for path in ["/health", "/metrics", "/rooms", "/rooms/soak-0"] {
            peer::get(&world.address, path).await?;
            pause(Duration::from_millis(200)).await;
        }
    }
    let mut peer = Peer::connect(&world.address, "/ws").await?;
    peer.send(CLOSE, &[]).await?;
    Ok(())
}
