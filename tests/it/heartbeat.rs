//! Heartbeats: the hub pings silent clients, drops clients that do not answer, and answers pings.

use std::time::{Duration, Instant};

use async_channel::Receiver;
use hublet::{Client, Config, Disconnect, Handler, Message, Overflow};

use crate::peer::{BINARY, PING, PONG, TEXT, frame};
use crate::support::{Chat, TestHub, gone, until};

/// Pings after a fifth of a second; the pong timeout is longer than any test runs.
fn attentive() -> Config {
    let patient = Duration::from_secs(600);
    Config::default().ping_interval(Duration::from_millis(200)).pong_timeout(patient)
}

#[test]
fn silent_client_is_pinged_again_and_again() {
    let hub = TestHub::with(attentive());
    let begin = Instant::now();
    let mut peer = hub.join();
    for _ in 0..3 {
        assert_eq!(peer.receive(), (PING, b"hub".to_vec()));
        peer.send(PONG, b"");
    }
    // Each interval may be a tenth shorter, so that clients are not pinged together.
    assert!(begin.elapsed() >= Duration::from_millis(540), "{:?}", begin.elapsed());
}

#[test]
fn client_that_answers_pings_stays_and_one_that_does_not_is_dropped() {
    let config = attentive().pong_timeout(Duration::from_millis(400));
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, config.clone(), Chat);
        // It neither answers nor closes, as if its host were down.
        let half_open = hub.join();
        let mut alive = hub.join();
        let mut pings = 0;
        while hub.hub.stats().clients == 2 {
            assert_eq!(alive.receive(), (PING, b"hub".to_vec()));
            alive.send(PONG, b"");
            pings += 1;
            assert!(pings < 100, "the half-open connection is never dropped");
        }
        alive.say("still here");
        loop {
            match alive.receive() {
                (PING, _) => alive.send(PONG, b""),
                (TEXT, said) => break assert_eq!(said, b"still here"),
                other => panic!("{other:?}"),
            }
        }
        drop((half_open, alive));
        hub.empties();
    }
}

#[test]
fn client_that_sends_messages_need_not_answer_pings() {
    let config = attentive().pong_timeout(Duration::from_millis(400));
    let hub = TestHub::with(config);
    let mut peer = hub.join();
    let end = Instant::now() + Duration::from_millis(1500);
    let mut said = 0;
    while Instant::now() < end {
        // It answers each ping with a message instead of a pong.
        let (first, payload) = peer.receive();
        if first == PING {
            peer.say("mind you");
            said += 1;
        } else {
            assert_eq!(payload, b"mind you");
        }
    }
    assert!(said >= 2 && hub.hub.stats().clients == 1, "{said} pings");
}

#[test]
fn pong_has_the_payload_of_its_ping_also_between_fragments() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    let long = [9; 125];
    peer.send(PING, b"");
    assert_eq!(peer.receive(), (PONG, vec![]));
    peer.send(0x01, b"in ");
    peer.send(PING, &long);
    assert_eq!(peer.receive(), (PONG, long.to_vec()));
    peer.send(PONG, b"unsolicited");
    peer.send(0x80, b"two");
    peer.hears("in two");
}

/// RFC 6455 5.5.3 lets a pong answer the newest of several pings.
#[test]
fn several_pings_at_once_get_at_least_one_pong() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    for last in 0..20u8 {
        let mut pings: Vec<u8> = (0..50u8).flat_map(|n| frame(PING, &[last, n])).collect();
        pings.extend(frame(TEXT, b"done"));
        peer.write(&pings);
        let mut newest = None;
        // The message may come before the last pong or after it.
        let mut done = false;
        while !done || newest != Some(vec![last, 49]) {
            match peer.receive() {
                (PONG, payload) => {
                    assert!(newest.is_none_or(|before: Vec<u8>| before < payload), "in order");
                    newest = Some(payload);
                }
                (TEXT, word) => done = word == b"done",
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Invariant 3, over sockets: for a client that pings and never reads only a few pongs wait, and
/// the hub still reads its messages.
#[test]
fn pings_of_a_client_that_never_reads_use_no_memory() {
    struct Count;
    impl Handler for Count {
        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    let hub = TestHub::serving(Config::default(), Count);
    let mut peer = hub.join_narrow();
    let mut burst: Vec<u8> = (0..2_000).flat_map(|_| frame(PING, &[0; 125])).collect();
    burst.extend(frame(TEXT, b"read"));
    const BURSTS: u64 = 30;
    for _ in 0..BURSTS {
        peer.write(&burst);
    }
    // The pings ask for 8 MB of pongs. The hub has read all of them.
    until("all is read", || hub.hub.stats().messages_received == BURSTS);
    // No message waits; a few hundred bytes of control frames do not count. What the hub kept of the last
    // frame it gives back only when it has come to the end of what it read.
    until("nothing is held", || hub.hub.stats().held_bytes == 0);
    peer.send(PING, b"the last");
    loop {
        let (first, payload) = peer.receive();
        assert_eq!(first, PONG);
        if payload == b"the last" {
            return;
        }
    }
}

/// Notifies the test when a message arrives.
struct Heard(async_channel::Sender<()>);

impl Handler for Heard {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        self.0.send(()).await.map_err(|_| Disconnect::GOING_AWAY)
    }
}

#[test]
fn pong_overtakes_queued_messages() {
    let (sender, heard): (_, Receiver<()>) = async_channel::bounded(1);
    // With a ceiling the kernel's buffers have a fixed size. Otherwise a packet of the peer may let
    // the kernel take all queued messages before the hub has read that packet.
    let config = Config::default().overflow(Overflow::DropNewest).max_memory(Some(64 << 20));
    let hub = TestHub::serving(config, Heard(sender));
    let mut peer = hub.join_narrow();
    let waiting = || hub.ask(hub.hub.clients())[0].waiting;
    let message: Message = vec![0; 1024].into();
    while waiting() < Config::QUEUE {
        hub.broadcast(message.clone());
    }
    peer.send(PING, b"urgent");
    // The hub reads this after the ping, so the pong is queued when the hook runs.
    peer.say("is it?");
    heard.recv_blocking().expect("the handler runs");
    // The kernel may have taken a few more messages meanwhile.
    let behind = waiting();
    assert!(behind > Config::QUEUE / 2, "only {behind} wait");
    // The messages that the kernel had taken come first, with the rest of a partial one.
    while peer.receive().0 != PONG {}
    for _ in 1..behind {
        assert_eq!(peer.receive().0, BINARY);
    }
}

/// Takes long for a text, and answers a binary message at once.
struct Slow;

impl Handler for Slow {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        if message.is_text() {
            smol::Timer::after(LATE * 2).await;
            return Ok(());
        }
        client.send("whole").await.map(drop).map_err(gone)
    }
}

/// The message timeout, and half of the time that the hook takes.
const LATE: Duration = Duration::from_millis(400);

/// While a hook runs the hub does not read, so the message timeout does not count.
#[test]
fn message_that_waits_for_a_hook_does_not_time_out() {
    // Longer than one read of the hub.
    let len = 1 << 20;
    let config = Config::default().max_message(len).queue_bytes(2 * len).inbox_bytes(2 * len);
    let hub = TestHub::serving(config.message_timeout(LATE), Slow);
    let mut peer = hub.join();
    peer.write(&[frame(TEXT, b"wait"), frame(BINARY, &vec![0; len])].concat());
    peer.hears("whole");
}
