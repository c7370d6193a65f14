//! Back-pressure: a slow reader is evicted or misses messages, a fast writer waits, and other
//! clients do not notice.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use hublet::{Client, Config, Disconnect, Handler, Hub, Message, Overflow};

use crate::peer::{BINARY, CLOSE, DEADLINE, PING, PONG, Peer, frame};
use crate::support::{Chat, TestHub, alone, fds, until};

/// A message that starts with its number.
fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut message = vec![0xa5; len];
    message[..4].copy_from_slice(&n.to_be_bytes());
    message
}

/// The number of a message, which must be whole.
fn number(message: &[u8], len: usize) -> u32 {
    let (number, rest) = message.split_at(4);
    assert!(message.len() == len && rest.iter().all(|&byte| byte == 0xa5), "not as it was sent");
    u32::from_be_bytes([number[0], number[1], number[2], number[3]])
}

/// The times at which clients were evicted and descriptors closed, by polling.
fn watch(hub: &Hub, evictions: usize, open: usize) -> (Vec<Instant>, Vec<Instant>) {
    let (mut evicted, mut closed) = (Vec::new(), Vec::new());
    until("the slow are gone", || {
        let now = Instant::now();
        evicted.resize(hub.stats().clients_evicted as usize, now);
        closed.resize(open.saturating_sub(fds()).max(closed.len()), now);
        closed.len() >= evictions && evicted.len() >= evictions
    });
    (evicted, closed)
}

/// Invariant 7, over sockets: clients that read lose nothing. The others get 4108 or a closed
/// socket, and their descriptors are closed within a second of the overflow.
#[cfg(target_os = "linux")]
#[test]
fn readers_lose_nothing_and_a_client_that_never_reads_is_evicted_within_a_second() {
    const READERS: usize = 20;
    const SLOW: usize = 5;
    const MESSAGES: u32 = 2_500;
    const LEN: usize = 4096;
    alone(readers_lose_nothing_and_a_client_that_never_reads_is_evicted_within_a_second, || {
        for threads in [1, 2] {
            let hub = TestHub::on_threads(threads, Config::default(), Chat);
            let readers: Vec<_> = (0..READERS).map(|_| hub.join()).collect();
            let slow: Vec<_> = (0..SLOW).map(|_| hub.join_narrow()).collect();
            until("all are in", || hub.hub.stats().clients == READERS + SLOW);
            let open = fds();
            let read: [AtomicU32; READERS] = Default::default();
            let (evicted, closed) = thread::scope(|scope| {
                for (mut reader, read) in readers.into_iter().zip(&read) {
                    scope.spawn(move || {
                        for n in 0..MESSAGES {
                            let (first, message) = reader.receive();
                            assert_eq!((first, number(&message, LEN)), (BINARY, n));
                            read.store(n + 1, Ordering::Relaxed);
                        }
                        // Kept open until all are done: this test counts descriptors.
                        reader
                    });
                }
                let watched = scope.spawn(|| watch(&hub.hub, SLOW, open));
                let begin = Instant::now();
                for n in 0..MESSAGES {
                    // The sleep makes the load a thousand messages a second. It waits for no event.
                    let due = begin + Duration::from_millis(1) * n;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    // A reader must not be half a queue behind, which may happen briefly on a busy
                    // machine.
                    let behind = || read.iter().any(|read| read.load(Ordering::Relaxed) + 32 < n);
                    until("the readers read", || !behind());
                    hub.broadcast(numbered(n, LEN));
                }
                watched.join().expect("the slow are gone")
            });
            assert_eq!(hub.hub.stats().clients_evicted, SLOW as u64);
            for (evicted, closed) in evicted.iter().zip(&closed) {
                let late = closed.saturating_duration_since(*evicted);
                assert!(late < Duration::from_secs(1), "a descriptor was open for {late:?}");
            }
            slow.into_iter().for_each(got_4108_or_was_cut_off);
            hub.empties();
        }
    });
}

/// An evicted client that reads at last gets messages in order, then the close frame with 4108 if
/// there was room for it, then the end. It gets no message that has overflowed.
fn got_4108_or_was_cut_off(mut peer: Peer<TcpStream>) {
    let mut n = 0;
    while let Ok((first, payload)) = peer.try_receive() {
        if first == CLOSE {
            assert_eq!(payload[..2], 4108u16.to_be_bytes());
            let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
            assert!(reason.starts_with("too slow: missed "), "{reason}");
            return peer.ends();
        }
        assert_eq!((first, number(&payload, 4096)), (BINARY, n));
        n += 1;
    }
    peer.is_gone();
}

/// Invariant 10: with a policy that drops, the client stays connected and gets the messages that
/// were not dropped in order. Each message ends in one way.
#[test]
fn client_that_misses_messages_stays_and_gets_the_others_in_order() {
    const MESSAGES: u32 = 5_000;
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let hub = TestHub::with(Config::default().overflow(overflow));
        let mut peer = hub.join_narrow();
        for n in 0..MESSAGES {
            assert_eq!(hub.broadcast(numbered(n, 2048)), 1);
        }
        let missed = hub.ask(hub.hub.clients())[0].missed;
        let stats = hub.hub.stats();
        assert!(missed > 0 && stats.messages_dropped == missed, "{stats:?}");
        let mut heard = Vec::new();
        while heard.len() + (missed as usize) < MESSAGES as usize {
            heard.push(number(&peer.receive().1, 2048));
        }
        assert!(heard.is_sorted() && heard[0] == 0);
        let last = heard.last() == Some(&(MESSAGES - 1));
        assert_eq!(last, overflow == Overflow::DropOldest, "{overflow}");
        hub.broadcast("still here");
        peer.hears("still here");
        drop(peer);
        hub.empties();
    }
}

/// A handler that waits for the test at each message, unless its text starts with `quick`.
struct Slow(Receiver<()>);

impl Handler for Slow {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        if message.as_text().is_some_and(|text| text.starts_with("quick")) {
            return client.send(message).await.map(drop).map_err(crate::support::gone);
        }
        // The test closes the channel at its end, which ends the waits.
        let _ = self.0.recv().await;
        client.send(message).await.map(drop).map_err(crate::support::gone)
    }
}

fn slow() -> (TestHub, Sender<()>) {
    let (words, wait) = async_channel::bounded(1);
    (TestHub::serving(Config::default(), Slow(wait)), words)
}

#[test]
fn hook_that_waits_delays_its_own_client_only() {
    let (hub, words) = slow();
    let mut waits = hub.join();
    let mut other = hub.join();
    waits.say("held up");
    for n in 0..50 {
        other.say(&format!("quick {n}"));
        other.hears(&format!("quick {n}"));
    }
    // The hub writes to its client meanwhile.
    hub.broadcast("to all");
    waits.hears("to all");
    words.send_blocking(()).expect("the hook waits");
    waits.hears("held up");
}

/// Inbound: while a hook waits, the hub does not read its client, so TCP makes the writer wait. No
/// message is dropped, and the hub does not buffer the rest.
#[test]
fn fast_writer_waits_for_a_slow_hook_and_loses_nothing() {
    const MESSAGES: u32 = 1_000;
    const LEN: usize = 32 * 1024;
    let (hub, words) = slow();
    let mut peer = hub.join();
    let (written, progress) = channel();
    let mut writer = peer.stream().try_clone().expect("a handle");
    let writing = thread::spawn(move || {
        for n in 0..MESSAGES {
            std::io::Write::write_all(&mut writer, &frame(BINARY, &numbered(n, LEN)))
                .expect("sent");
            written.send(n).expect("the test counts");
        }
    });
    // The writer comes to a halt: 32 MB do not fit the kernel's buffers.
    let mut last = progress.recv_timeout(DEADLINE).expect("it begins");
    while let Ok(n) = progress.recv_timeout(Duration::from_millis(300)) {
        last = n;
    }
    assert!(last < MESSAGES - 1, "it must wait");
    // One message is with the hook, and the bytes of one read are kept. If the next message begins
    // in these bytes, room for it is reserved twice.
    let held = hub.hub.stats().held_bytes;
    assert!(held <= 5 * LEN, "{held} bytes are held for it");
    drop(words);
    for n in 0..MESSAGES {
        let (first, message) = peer.receive();
        assert_eq!((first, number(&message, LEN)), (BINARY, n));
    }
    writing.join().expect("all is written");
}

/// While the hub does not read a client, the pong timeout is suspended: the pong came in time.
#[test]
fn slow_hook_does_not_cause_a_pong_timeout() {
    let (words, wait) = async_channel::bounded(1);
    let config = Config::default()
        .ping_interval(Duration::from_millis(50))
        .pong_timeout(Duration::from_millis(50));
    let hub = TestHub::serving(config, Slow(wait));
    let mut peer = hub.join();
    peer.say("held up");
    assert_eq!(peer.receive(), (PING, vec![]));
    peer.send(PONG, b"");
    peer.is_left_alone_for(Duration::from_millis(400));
    words.send_blocking(()).expect("the hook waits");
    peer.hears("held up");
}

/// A client whose socket takes nothing for the write timeout is evicted, however little waits.
#[test]
fn client_that_reads_nothing_for_the_write_timeout_is_evicted() {
    let config =
        Config::default().write_timeout(Duration::from_millis(200)).overflow(Overflow::DropNewest);
    let hub = TestHub::with(config);
    let mut peer = hub.join_narrow();
    while hub.hub.stats().clients == 1 {
        hub.broadcast(vec![0; 4096]);
    }
    assert_eq!(hub.hub.stats().clients_evicted, 1);
    peer.is_gone();
    hub.empties();
}
