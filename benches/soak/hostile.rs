//! Hostile peers: the hub ends their connections soon, and other clients do not notice.

use std::sync::Arc;
use std::time::Duration;

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Executor, Task, Timer};

use crate::peer::{self, PING, Peer, TEXT, frame, upgrade};
use crate::{Outcome, World, add, within};

/// Hostile peers at once.
const PEERS: usize = 6;

/// The attacks: a name, whether the peer upgrades first, and the bytes that it sends.
fn attacks() -> Vec<(&'static str, bool, Vec<u8>)> {
    let mut unmasked = frame(TEXT, b"hello");
    unmasked[1] &= 0x7f;
    vec![
        ("no HTTP", false, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("half a head", false, b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgr".to_vec()),
        ("an endless head", false, [b"GET /ws HTTP/1.1\r\n" as &[u8], &[b'a'; 9000]].concat()),
        ("no key", false, last("/ws").replace("Sec-WebSocket-Key", "X-Key").into_bytes()),
        ("no room", false, last("/ws/%00").into_bytes()),
        ("a frame without a mask", true, unmasked),
        ("a reserved opcode", true, frame(0x83, b"hello")),
        ("a reserved bit", true, frame(0xc1, b"hello")),
        ("text that is not UTF-8", true, frame(TEXT, b"\xff\xfe\xfd")),
        ("a message over the limit", true, frame(TEXT, &[b'a'; 70_000])),
        (
            "a frame of 2^63 - 1 bytes",
            true,
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
        ),
        ("a control frame over the limit", true, frame(PING, &[0; 126])),
        ("too many fragments", true, [frame(0x01, b"a"), frame(0x00, b"").repeat(2000)].concat()),
        ("a close code that is none", true, frame(0x88, &[0, 1])),
    ]
}

/// A request without keep-alive, so that the hub does not wait for another.
fn last(path: &str) -> String {
    upgrade(path).replace("Connection: Upgrade", "Connection: Upgrade, close")
}

pub(crate) fn all(executor: &Executor<'static>, world: &Arc<World>) -> Vec<Task<Outcome<()>>> {
    let mut tasks: Vec<_> =
        (0..PEERS).map(|nth| executor.spawn(attack(Arc::clone(world), nth))).collect();
    tasks.push(executor.spawn(ping_and_run(Arc::clone(world))));
    tasks.push(executor.spawn(trickle(Arc::clone(world))));
    tasks
}

/// Breaks one rule after another. Each time the hub must end the connection.
async fn attack(world: Arc<World>, begin: usize) -> Outcome<()> {
    let attacks = attacks();
    for nth in begin.. {
        if world.has_ended() {
            break;
        }
        let (name, upgraded, bytes) = &attacks[nth % attacks.len()];
        let mut stream = if *upgraded {
            Peer::connect(&world.address, "/ws/hostile").await?.into_stream()
        } else {
            peer::dial(&world.address).await?
        };
        // The hub may close the connection before all is written.
        drop(within(name, stream.write_all(bytes)).await?);
        let end = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
        within(name, end).await?;
        add(&world.counts.hostile);
        Timer::after(Duration::from_millis(fastrand::u64(100..300))).await;
    }
    Ok(())
}

/// Sends pings without reading the pongs, and leaves.
async fn ping_and_run(world: Arc<World>) -> Outcome<()> {
    let pings = frame(PING, b"are you there?").repeat(5000);
    while !world.has_ended() {
        let mut stream = Peer::connect(&world.address, "/ws/hostile").await?.into_stream();
        drop(within("pings", stream.write_all(&pings)).await?);
        drop(stream);
        add(&world.counts.hostile);
        Timer::after(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Sends a request a byte at a time, more slowly than the handshake timeout allows.
async fn trickle(world: Arc<World>) -> Outcome<()> {
    while !world.has_ended() {
        let mut stream = peer::dial(&world.address).await?;
        for byte in upgrade("/ws").bytes() {
            if world.has_ended() || stream.write_all(&[byte]).await.is_err() {
                break;
            }
            Timer::after(Duration::from_millis(200)).await;
        }
        add(&world.counts.hostile);
    }
    Ok(())
}
