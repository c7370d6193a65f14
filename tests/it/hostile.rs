//! Hostile and clumsy peers: whatever they send, other clients are not affected.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hublet::{Client, Config, Disconnect, Handler, Message, Overflow};

use crate::peer::{BINARY, CLOSE, DEADLINE, PING, PONG, Peer, TEXT, frame, upgrade};
use crate::support::{Chat, TestHub, alone, gone, rss, until};

#[test]
fn bytes_may_come_one_at_a_time() {
    let hub = TestHub::start();
    let mut peer = hub.dial();
    let mut stream = upgrade("/ws").into_bytes();
    stream.extend(frame(TEXT, b"slowly"));
    stream.extend(frame(0x02, &[1; 130]));
    stream.extend(frame(PING, b"are you there?"));
    stream.extend(frame(0x80, &[1; 5]));
    stream.extend(frame(CLOSE, &1000u16.to_be_bytes()));
    stream.iter().for_each(|byte| peer.write(&[*byte]));
    assert_eq!(peer.response().status, 101);
    peer.hears("slowly");
    assert_eq!(peer.receive(), (PONG, b"are you there?".to_vec()));
    assert_eq!(peer.receive(), (BINARY, vec![1; 135]));
    peer.is_closed(1000);
    peer.ends();
}

#[test]
fn half_closed_socket_gets_its_messages() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    peer.write(&[frame(TEXT, b"one"), frame(TEXT, b"two")].concat());
    peer.stream().shutdown(Shutdown::Write).expect("shut");
    peer.hears("one");
    peer.hears("two");
    // It has sent no close code, so the answer has none.
    assert_eq!(peer.receive(), (CLOSE, vec![]));
    peer.ends();
    hub.empties();
}

#[test]
fn socket_that_is_half_closed_during_its_request_becomes_no_client() {
    let hub = TestHub::start();
    let mut peer = hub.dial();
    peer.write(b"GET /ws HTTP/1.1\r\n");
    peer.stream().shutdown(Shutdown::Write).expect("shut");
    peer.ends();
    hub.empties();
}

/// Sends each message back to its sender only.
struct Mirror;

impl Handler for Mirror {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.send(message).await.map(drop).map_err(gone)
    }
}

/// Shuts a socket down when dropped, even if other handles exist.
struct Shut(Peer<TcpStream>);

impl Drop for Shut {
    fn drop(&mut self) {
        let _ = self.0.stream().shutdown(Shutdown::Both);
    }
}

/// Sends messages of a client to the hub and back, one after another, while another client sends
/// `flood` without pause. Returns the time for all of them, and for the slowest.
fn round_trips_beside(hub: &TestHub, messages: u32, flood: &[u8]) -> (Duration, Duration) {
    thread::scope(|scope| {
        let floods = hub.join();
        let [mut writes, mut reads] =
            [(); 2].map(|()| floods.stream().try_clone().expect("a handle"));
        scope.spawn(move || while writes.write_all(flood).is_ok() {});
        scope.spawn(move || io::copy(&mut reads, &mut io::sink()));
        // The flood ends here, also when an assertion fails.
        let _stop = Shut(floods);
        let mut other = hub.join();
        let (mut all, mut slowest) = (Duration::ZERO, Duration::ZERO);
        for n in 0..messages {
            let begin = Instant::now();
            let word = format!("word {n}");
            other.say(&word);
            other.hears(&word);
            slowest = slowest.max(begin.elapsed());
            all += begin.elapsed();
        }
        (all, slowest)
    })
}

fn mirror() -> (Config, Mirror) {
    // Echoes of the flood may be dropped; they are not part of the tests.
    (Config::default().overflow(Overflow::DropNewest), Mirror)
}

/// Messages of three empty fragments.
fn empty_messages() -> Vec<u8> {
    [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat().repeat(999)
}

/// Invariant 12: a client that sends as fast as the network allows does not starve others.
#[test]
fn flooding_client_does_not_starve_others() {
    let pings: Vec<u8> = (0..512).flat_map(|_| frame(PING, &[0; 100])).collect();
    let long = frame(BINARY, &vec![0; Config::MAX_MESSAGE]);
    for flood in [pings, empty_messages(), long] {
        for threads in [1, 2] {
            let (config, mirror) = mirror();
            let hub = TestHub::on_threads(threads, config, mirror);
            let (_, slowest) = round_trips_beside(&hub, 6, &flood);
            // One poll takes some milliseconds in a debug build. The rest allows for a busy
            // machine.
            assert!(slowest < Duration::from_secs(5), "one message took {slowest:?}");
        }
    }
}

/// A connection once ignored wakes for which async-io reported no readiness. If the reactor ran on
/// a thread of its own and another client flooded, that happened hundreds of times in a row.
#[test]
fn reactor_on_another_thread_does_not_delay_messages() {
    let ((config, handler), flood) = (mirror(), empty_messages());
    let (here, _) = round_trips_beside(&TestHub::serving(config, handler), 40, &flood);
    let (config, handler) = mirror();
    let (elsewhere, _) =
        round_trips_beside(&TestHub::beside_the_reactor(config, handler), 40, &flood);
    // It was two hundred times as long.
    assert!(elsewhere < here * 20 + Duration::from_secs(1), "{elsewhere:?}, {here:?} beside it");
}

/// Invariant 12: the hub does not allocate memory for what a header announces.
#[cfg(target_os = "linux")]
#[test]
fn announced_bytes_cost_no_memory_before_they_arrive() {
    const PEERS: usize = 400;
    alone(announced_bytes_cost_no_memory_before_they_arrive, || {
        let config =
            Config::default().max_message(1 << 26).queue_bytes(1 << 28).inbox_bytes(1 << 28);
        let hub = TestHub::with(config);
        let mut peers: Vec<_> = (0..PEERS).map(|_| hub.join()).collect();
        let before = rss();
        for (n, peer) in peers.iter_mut().enumerate() {
            // The header announces 64 MiB; three bytes follow.
            peer.write(&frame(BINARY, &[])[..1]);
            peer.write(&[0xff, 0, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
            if n % 2 == 0 {
                peer.write(&[0; 1000]);
            }
        }
        // When the echo of a later client arrives, the hub has read all of these.
        let mut last = hub.join();
        last.say("read");
        last.hears("read");
        let grown = rss().saturating_sub(before);
        assert!(grown < PEERS * 8192, "{grown} bytes for {PEERS} headers");
        for mut peer in [hub.join(), hub.join()] {
            peer.write(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
            peer.is_closed(1009);
            peer.goodbye(1009);
        }
        let grown = rss().saturating_sub(before);
        assert!(grown < PEERS * 8192, "{grown} bytes after 2^63 were announced");
    });
}

#[test]
fn resets_at_any_point_leave_nothing() {
    let hub = TestHub::start();
    let mut other = hub.join();
    let message = frame(TEXT, b"a message");
    let request = upgrade("/ws").into_bytes();
    for cut in [0, 1, request.len() / 2, request.len() - 1] {
        let mut peer = hub.dial();
        peer.write(&request[..cut]);
        peer.reset();
    }
    for cut in 0..message.len() {
        let mut peer = hub.join();
        peer.write(&message[..cut]);
        peer.reset();
    }
    // While messages are being written to it.
    for _ in 0..10 {
        let peer = hub.join_narrow();
        for _ in 0..40 {
            hub.broadcast(vec![0; 8192]);
            assert_eq!(other.receive().1.len(), 8192);
        }
        peer.reset();
    }
    until("they are gone", || hub.hub.stats().connections == 1);
    other.say("still here");
    other.hears("still here");
    drop(other);
    hub.empties();
}

/// A client that never reads has a TCP window of zero. The hub holds no more for it than its queue.
#[test]
fn client_with_a_window_of_zero_costs_one_queue_at_most() {
    let config = Config::default().overflow(Overflow::DropOldest);
    let hub = TestHub::with(config);
    let closed: Vec<_> = (0..10).map(|_| hub.join_narrow()).collect();
    let waiting = || hub.ask(hub.hub.clients()).iter().map(|member| member.waiting).min();
    let mut sent = 0;
    while waiting() < Some(60) {
        assert_eq!(hub.broadcast(vec![0; 4096]), 10);
        sent += 1;
        assert!(sent < 100_000);
    }
    // The queues share a payload. The clients may be at different messages.
    let held = hub.hub.stats().held_bytes;
    assert!(held <= 10 * Config::QUEUE_BYTES, "{held} bytes are held");
    drop(closed);
    hub.empties();
}

/// The message timeout applies to a client that begins a message and then sends only other frames.
#[test]
fn flood_of_pings_does_not_extend_the_message_timeout() {
    let config = Config::default().message_timeout(Duration::from_millis(300));
    let hub = TestHub::with(config);
    let mut peer = hub.join();
    peer.send(0x01, b"begun");
    let flood = frame(PING, b"and on").repeat(1000);
    let socket = peer.stream().try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(move || while (&socket).write_all(&flood).is_ok() {});
        let end = Instant::now() + DEADLINE;
        let mut last = peer.receive();
        while last.0 == PONG && Instant::now() < end {
            last = peer.receive();
        }
        // The flood must end also if the assertion fails.
        peer.stream().shutdown(Shutdown::Both).expect("it is open");
        assert_eq!((last.0, &last.1[..2]), (CLOSE, &1008u16.to_be_bytes()[..]));
    });
    drop(peer);
    hub.empties();
}

/// Invariants 12 and 13: random bytes after the handshake, and instead of it. They cause no panic,
/// which would fail the test, and nothing is left of them.
#[test]
fn noise_ends_its_own_client_only() {
    const PEERS: u64 = 300;
    let hub =
        TestHub::on_threads(2, Config::default().handshake_timeout(Duration::from_secs(1)), Chat);
    let mut other = hub.join();
    for seed in 0..PEERS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let peer = if seed % 3 == 0 { hub.dial() } else { hub.join() };
        noise(peer, &mut rng);
    }
    until("they are gone", || hub.hub.stats().connections == 1);
    other.say("still here");
    while other.receive() != (TEXT, b"still here".to_vec()) {}
    drop(other);
    hub.empties();
}

/// Sends mostly well-formed frames and sometimes random bytes, and leaves in one of three ways.
fn noise(peer: Peer<TcpStream>, rng: &mut fastrand::Rng) {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..30) {
        let mut frame = match rng.u8(0..8) {
            0 => (0..rng.usize(1..300)).map(|_| rng.u8(..)).collect(),
            1 => frame(rng.u8(..), &vec![rng.u8(..); rng.usize(0..300)]),
            2 => frame(CLOSE, &rng.u16(..).to_be_bytes()),
            _ => frame([TEXT, BINARY, PING, 0x01, 0x00, 0x80][rng.usize(0..6)], b"noise"),
        };
        if rng.u8(0..10) == 0 {
            let at = rng.usize(0..frame.len());
            frame[at] ^= 1 << rng.u8(0..8);
        }
        bytes.extend(frame);
    }
    // The hub may close the connection before all is sent.
    let _ = peer.stream().write_all(&bytes);
    match rng.u8(0..3) {
        0 => peer.reset(),
        1 => drop(peer),
        _ => {
            let _ = peer.stream().shutdown(Shutdown::Write);
            let _ = io::copy(&mut peer.stream(), &mut io::sink());
        }
    }
}
