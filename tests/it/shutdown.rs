//! The drain: every client gets its queued messages, then the reason, and the drain ends in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hublet::{Config, Disconnect};
use smol::future::block_on;

use crate::peer::{CLOSE, DEADLINE, TEXT, frame};
use crate::support::{Chat, TestHub, until};

fn quick() -> Config {
    Config::default().drain(Duration::ZERO).close_timeout(Duration::from_millis(300)).http(true)
}

#[test]
fn clients_get_their_queued_messages_and_then_the_reason() {
    for reason in [Disconnect::GOING_AWAY, Disconnect::RESTART] {
        let hub = TestHub::with(quick());
        let mut peers = [hub.join(), hub.join(), hub.join()];
        for n in 0..50 {
            hub.broadcast(format!("{n}"));
        }
        thread::scope(|scope| {
            let drained = scope.spawn(|| block_on(hub.hub.drain(reason.clone())));
            for peer in &mut peers {
                for n in 0..50 {
                    peer.hears(&format!("{n}"));
                }
                assert_eq!(peer.is_closed(reason.code()), reason.reason());
                peer.send(CLOSE, &reason.code().to_be_bytes());
                peer.ends();
            }
            drop(peers);
            drained.join().expect("the drain ends");
        });
        hub.empties();
        let refused = block_on(hub.hub.broadcast("anyone?")).expect_err("it has ended");
        assert!(refused.is_closed());
    }
}

#[test]
fn drain_accepts_no_connection_and_answers_those_that_were_accepted() {
    let hub = TestHub::with(quick().close_timeout(DEADLINE));
    let mut open = hub.dial();
    let asks = hub.dial();
    let mut stays = hub.join();
    thread::scope(|scope| {
        let drained = scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        stays.is_closed(1012);
        // Accepted before the drain; the request comes only now.
        assert_eq!(open.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").status, 503);
        let mut asks = asks.join("/ws");
        asks.is_closed(1012);
        until("the listener is closed", || std::net::TcpStream::connect(&hub.address).is_err());
        drop((open, asks));
        stays.goodbye(1012);
        drained.join().expect("the drain ends");
    });
    hub.empties();
}

#[test]
fn drain_without_clients_ends_at_once() {
    let patient = Config::default().drain(DEADLINE * 2).close_timeout(DEADLINE * 2);
    let hub = TestHub::with(patient);
    drop(hub.join());
    hub.empties();
    let begin = Instant::now();
    block_on(hub.hub.drain(Disconnect::RESTART));
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
}

#[test]
fn close_frames_are_spread_over_the_window() {
    let hub = TestHub::with(quick().drain(Duration::from_millis(600)));
    let mut peers: Vec<_> = (0..6).map(|_| hub.join()).collect();
    thread::scope(|scope| {
        let begin = Instant::now();
        let drained = scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        // Each client is closed within its own sixth of the window, in any order.
        let closed = peers.iter_mut().map(|peer| {
            peer.is_closed(1012);
            begin.elapsed()
        });
        let last = closed.max().expect("six of them");
        assert!(last >= Duration::from_millis(500), "the last was closed after {last:?}");
        drop(peers);
        drained.join().expect("the drain ends");
    });
}

/// Peers that never read, never answer, or have not sent a whole request do not delay the drain.
#[test]
fn a_drain_ends_in_time_whatever_the_peers_do() {
    let config =
        quick().write_timeout(Duration::from_millis(300)).queue(1 << 12).queue_bytes(1 << 24);
    let hub = TestHub::with(config);
    let never_reads = hub.join_narrow();
    while hub.ask(hub.hub.clients())[0].waiting < 100 {
        hub.broadcast(vec![0; 4096]);
    }
    let mut never_answers = hub.join();
    let half = {
        let mut half = hub.dial();
        half.write(b"GET /ws HTTP/1.1\r\n");
        half
    };
    until("all are in", || hub.hub.stats().connections == 3);
    let begin = Instant::now();
    block_on(hub.hub.drain(Disconnect::RESTART));
    // 300 ms to write, 300 ms for the answer, 300 ms to close. The rest allows for a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    never_answers.is_closed(1012);
    drop((never_reads, never_answers, half));
}

/// All clients send while the drain runs: each gets some of its messages, then 1012, then the end.
#[test]
fn drain_under_load_closes_every_client_with_the_reason() {
    const CLIENTS: usize = 40;
    for threads in [1, 2] {
        let config = quick().drain(Duration::from_millis(200)).queue(1 << 12).queue_bytes(1 << 22);
        let hub = TestHub::on_threads(threads, config.close_timeout(Duration::from_secs(5)), Chat);
        let peers: Vec<_> = (0..CLIENTS).map(|_| hub.join()).collect();
        let talking = AtomicBool::new(false);
        let codes = thread::scope(|scope| {
            let talk = peers.into_iter().map(|mut peer| {
                let talking = &talking;
                scope.spawn(move || {
                    for n in 0u32.. {
                        peer.write(&frame(TEXT, n.to_string().as_bytes()));
                        loop {
                            let (first, payload) = peer.receive();
                            if first == CLOSE {
                                let code = [payload[0], payload[1]];
                                peer.send(CLOSE, &code);
                                peer.ends();
                                return u16::from_be_bytes(code);
                            }
                            assert_eq!(first, TEXT);
                            talking.store(true, Ordering::Relaxed);
                            if payload == n.to_string().as_bytes() {
                                break;
                            }
                        }
                    }
                    unreachable!("the drain ends it")
                })
            });
            let talk: Vec<_> = talk.collect();
            until("they talk", || talking.load(Ordering::Relaxed));
            let begin = Instant::now();
            block_on(hub.hub.drain(Disconnect::RESTART));
            assert!(begin.elapsed() < DEADLINE / 2, "{:?}", begin.elapsed());
            talk.into_iter().map(|talk| talk.join().expect("a code")).collect::<Vec<_>>()
        });
        assert_eq!(codes, [1012; CLIENTS]);
        hub.empties();
    }
}

#[test]
fn cancelled_drain_keeps_the_hub_closed_and_can_be_resumed() {
    let hub = TestHub::with(quick().close_timeout(DEADLINE));
    let mut peer = hub.join();
    let drain = hub.hub.drain(Disconnect::RESTART);
    assert!(block_on(smol::future::poll_once(Box::pin(drain))).is_none(), "a client is there");
    until("the listener is closed", || std::net::TcpStream::connect(&hub.address).is_err());
    thread::scope(|scope| {
        let drained = scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        peer.is_closed(1012);
        peer.goodbye(1012);
        drained.join().expect("the drain ends");
    });
    hub.empties();
}
