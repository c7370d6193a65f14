//! Broadcasts: every client gets each message whole and in one order, whatever its kind and length.

use std::thread;

use hublet::{Client, Config, Disconnect, Handler, Message};

use crate::peer::{BINARY, TEXT, frame};
use crate::support::{Chat, TestHub, alone, can_open, gone, skip, until};

#[test]
fn every_client_gets_a_message_unchanged_and_so_does_its_sender() {
    let hub = TestHub::start();
    let mut peers = [hub.join(), hub.join(), hub.join()];
    let long = vec![7; Config::MAX_MESSAGE];
    for (first, payload) in [
        (TEXT, "hello".as_bytes()),
        (TEXT, "".as_bytes()),
        (TEXT, "größer als ASCII, länger als 125 Bytes: ".repeat(9).as_bytes()),
        (BINARY, &[][..]),
        (BINARY, &[0, 255, 0x81]),
        (BINARY, &long),
    ] {
        peers[1].send(first, payload);
        for peer in &mut peers {
            assert!(peer.receive() == (first, payload.to_vec()), "{} bytes", payload.len());
        }
    }
    drop(peers);
    hub.empties();
}

#[test]
fn a_message_in_fragments_arrives_as_one() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    peer.send(0x01, b"one ");
    peer.send(0x00, b"");
    peer.send(0x00, b"and ");
    peer.send(0x80, b"the same");
    peer.hears("one and the same");
}

/// Broadcasts through the sender's own verbs.
struct Others;

impl Handler for Others {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.broadcast(message).await.map(drop).map_err(gone)
    }
}

#[test]
fn the_verbs_of_a_client_reach_everyone_else() {
    let hub = TestHub::serving(Config::default(), Others);
    let mut one = hub.join();
    let mut two = hub.join();
    one.say("from one");
    two.hears("from one");
    two.say("from two");
    one.hears("from two");
    assert_eq!(hub.broadcast("from the hub"), 2);
    one.hears("from the hub");
    two.hears("from the hub");
}

/// Invariant 9, over sockets: all clients get messages that are sent at the same time in one order.
#[test]
fn all_clients_get_messages_in_one_order() {
    const CLIENTS: usize = 6;
    const EACH: usize = 300;
    for threads in [1, 2] {
        // The queues hold all messages, so that no client is evicted.
        let config = Config::default().queue(CLIENTS * EACH);
        let hub = TestHub::on_threads(threads, config, Chat);
        let mut peers: Vec<_> = (0..CLIENTS).map(|_| hub.join()).collect();
        let heard: Vec<Vec<String>> = thread::scope(|scope| {
            let talk = peers.iter_mut().enumerate().map(|(sender, peer)| {
                scope.spawn(move || {
                    let burst: Vec<u8> = (0..EACH)
                        .flat_map(|n| frame(TEXT, format!("{sender} {n}").as_bytes()))
                        .collect();
                    peer.write(&burst);
                    let hear = |_| String::from_utf8(peer.receive().1).expect("text");
                    (0..CLIENTS * EACH).map(hear).collect()
                })
            });
            let talk: Vec<_> = talk.collect();
            talk.into_iter().map(|talk| talk.join().expect("all is heard")).collect()
        });
        assert!(heard.iter().all(|order| *order == heard[0]), "{threads} threads");
        for sender in 0..CLIENTS {
            let prefix = format!("{sender} ");
            let of_one: Vec<_> = heard[0].iter().filter_map(|m| m.strip_prefix(&prefix)).collect();
            assert!(of_one.iter().enumerate().all(|(n, said)| *said == n.to_string()));
        }
    }
}

/// A connection that reads on before it writes would evict its client at message 64 of this burst.
#[test]
fn two_thousand_messages_in_one_write_come_back_whole() {
    const MESSAGES: usize = 2_000;
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, Config::default(), Chat);
        let mut peer = hub.join();
        let burst: Vec<u8> =
            (0..MESSAGES).flat_map(|n| frame(TEXT, format!("message {n}").as_bytes())).collect();
        peer.write(&burst);
        for n in 0..MESSAGES {
            peer.hears(&format!("message {n}"));
        }
        drop(peer);
        hub.empties();
    }
}

/// Invariant 8, over sockets: clients that are never further behind than their queue is long are
/// not evicted. Four of these messages fill a queue.
#[test]
fn longest_messages_do_not_evict_clients_that_read_them() {
    const READERS: usize = 8;
    const MESSAGES: usize = 120;
    const AHEAD: usize = 3;
    const { assert!((AHEAD + 1) * Config::MAX_MESSAGE >= Config::QUEUE_BYTES) };
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, Config::default(), Chat);
        let (done, read) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            for reader in 0..READERS {
                // Half of them have small socket buffers, so that messages wait in their queues.
                let mut peer = if reader % 2 == 0 { hub.join() } else { hub.join_narrow() };
                let done = done.clone();
                scope.spawn(move || {
                    for n in 0..MESSAGES {
                        let (first, payload) = peer.receive();
                        assert!(first == BINARY && payload == vec![n as u8; Config::MAX_MESSAGE]);
                        done.send(()).expect("the test counts");
                    }
                });
            }
            let mut behind = 0;
            for n in 0..MESSAGES {
                behind += READERS;
                assert_eq!(hub.broadcast(vec![n as u8; Config::MAX_MESSAGE]), READERS);
                while behind > (AHEAD - 1) * READERS {
                    read.recv_timeout(crate::peer::DEADLINE).expect("the readers read");
                    behind -= 1;
                }
            }
        });
        assert_eq!(hub.hub.stats().clients_evicted, 0);
    }
}

/// Invariant 10, over sockets and at any size.
#[test]
fn one_message_to_five_thousand_idle_clients_reaches_five_thousand() {
    const CLIENTS: usize = 5_000;
    alone(one_message_to_five_thousand_idle_clients_reaches_five_thousand, || {
        if !can_open(2 * CLIENTS as u64 + 100) {
            return skip("5,000 clients in one process need 10,100 file descriptors");
        }
        let hub = TestHub::start();
        let mut peers: Vec<_> = (0..CLIENTS).map(|_| hub.join()).collect();
        peers[4_321].say("hello");
        for peer in &mut peers {
            peer.hears("hello");
        }
        assert_eq!(hub.hub.stats().clients, CLIENTS);
        // The last peer may get the message before the manager has counted it.
        until("all are counted", || hub.hub.stats().recipients == CLIENTS as u64);
        until("all are delivered", || hub.hub.stats().messages_delivered == CLIENTS as u64);
        drop(peers);
        hub.empties();
    });
}
