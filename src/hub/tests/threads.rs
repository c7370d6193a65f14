//! Two threads: what only a race can break.

use std::future::poll_fn;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::{block_on, or};
use smol::Executor;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::command::Command;
use crate::hub::cursor::Reading;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{Sink, numbered};

/// A test that waits longer than this for an event has lost a wake.
const LOST: Duration = Duration::from_secs(60);

/// Runs `work` on an executor of two threads.
fn on_two_threads<T>(work: impl FnOnce(&Arc<Executor<'static>>) -> T) -> T {
    let executor = Arc::new(Executor::new());
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
            std::thread::spawn(move || {
                // An error, too, means that the test is over.
                let _over = block_on(executor.run(stopped.recv()));
            })
        })
        .collect();
    let result = work(&executor);
    drop(stop);
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    result
}

/// The connection's task over a socket that takes a few bytes at a time: ends with `said` once
/// the queue is closed and empty.
async fn drain_in_bits(queue: Arc<Queue>, sink: Arc<Sink>, done: mpsc::Sender<Phase>) {
    let phase = poll_fn(|cx| {
        let drained = queue.poll_drain(cx, 500, |cx, unsent| sink.poll_write(cx, unsent));
        match drained.phase {
            Phase::Handshaking | Phase::Open => Poll::Pending,
            Phase::Closing if !drained.empty => Poll::Pending,
            phase => Poll::Ready(phase),
        }
    })
    .await;
    done.send(phase).expect("the test listens");
}

/// Invariants 9 and 10 under a race of the manager, the pumps and the sockets: no wake is lost, no
/// byte is interleaved, no message is missing and all see one order.
#[test]
fn no_wake_is_lost_between_manager_pumps_and_sockets() {
    const CLIENTS: usize = 8;
    const PUBLISHERS: u32 = 4;
    const EACH: u32 = 1_500;
    let all = (PUBLISHERS * EACH) as usize;
    // Queues that hold everything, so that only a lost wake can keep a message back.
    let config = Config::default().queue(all).queue_bytes(1 << 24).inbox(8);
    let (hub, manager) = Hub::new(config).expect("valid");
    let received = on_two_threads(|executor| {
        executor.spawn(manager).detach();
        let (done, finished) = mpsc::channel();
        let mut sinks = Vec::new();
        for n in 0..CLIENTS {
            let queue = Queue::new(&hub.shared().queue_config);
            let register = |reply| Command::Register {
                queue: Arc::clone(&queue),
                user: None,
                rooms: Box::new(["main".into()]),
                prefixes: 0,
                came: 0,
                reading: Box::new(Reading::PLAIN),
                reply,
            };
            block_on(hub.request(register)).expect("the hub runs").expect("a place");
            let sink = Sink::new(0);
            sink.lock().at_most = 7 + 50 * n;
            let direct_writer = (n % 4 > 0).then(|| Arc::clone(&sink) as Arc<dyn DirectWriter>);
            queue.open(direct_writer);
            executor.spawn(drain_in_bits(queue, Arc::clone(&sink), done.clone())).detach();
            sinks.push(sink);
        }
        let (published, publishing) = mpsc::channel();
        for publisher in 0..PUBLISHERS {
            let (hub, published) = (hub.clone(), published.clone());
            let publish = async move {
                for n in 0..EACH {
                    let message = numbered(publisher * 1_000_000 + n, (n % 200) as usize);
                    let recipients = hub.publish("main", message).await.expect("the hub runs");
                    assert_eq!(recipients, CLIENTS);
                }
                published.send(()).expect("the test listens");
            };
            executor.spawn(publish).detach();
        }
        // The test's own thread is the network: it lets bytes through, a few at a time.
        let mut rng = fastrand::Rng::with_seed(7);
        let mut left = PUBLISHERS;
        while left > 0 {
            sinks[rng.usize(0..CLIENTS)].grant(rng.usize(1..2_000));
            left -= publishing.try_iter().count() as u32;
        }
        sinks.iter().for_each(|sink| sink.grant(usize::MAX));
        for client in block_on(hub.clients()).expect("the hub runs") {
            block_on(hub.disconnect(client.id, Disconnect::NORMAL)).expect("it is there");
        }
        for _ in 0..CLIENTS {
            assert_eq!(finished.recv_timeout(LOST), Ok(Phase::Closing), "a wake was lost");
        }
        sinks.iter().map(|sink| sink.numbers()).collect::<Vec<_>>()
    });
    assert_eq!(received[0].len(), all);
    assert!(received.iter().all(|order| *order == received[0]));
    let stats = hub.stats();
    assert_eq!(stats.messages_delivered, stats.recipients);
    assert_eq!(stats.recipients, (all * CLIENTS) as u64);
    assert_eq!(stats.held_bytes, 0);
}

/// Invariant 6 under a race: clients that come and go without a word, through an inbox of one
/// place that is always full, are all reaped.
#[test]
fn every_departure_is_heard_from_other_threads() {
    let (hub, manager) = Hub::new(Config::default().inbox(1)).expect("valid");
    on_two_threads(|executor| {
        executor.spawn(manager).detach();
        let (done, finished) = mpsc::channel();
        for _ in 0..4 {
            let (hub, done) = (hub.clone(), done.clone());
            let come_and_go = async move {
                for n in 0..1_000 {
                    let queue = Queue::new(&hub.shared().queue_config);
                    let register = |reply| Command::Register {
                        queue: Arc::clone(&queue),
                        user: None,
                        rooms: Box::new(["main".into()]),
                        prefixes: 0,
                        came: 0,
                        reading: Box::new(Reading::PLAIN),
                        reply,
                    };
                    {
                        // Every third gives up while it is being registered.
                        let register = async { drop(hub.request(register).await) };
                        let impatient = async {
                            match n % 3 {
                                0 => futures_lite::future::yield_now().await,
                                _ => std::future::pending().await,
                            }
                        };
                        or(register, impatient).await;
                    }
                    drop(hub.try_publish("main", "x"));
                    if let Some(id) = queue.disconnect() {
                        hub.report_gone(id);
                    }
                }
                done.send(()).expect("the test listens");
            };
            executor.spawn(come_and_go).detach();
        }
        for _ in 0..4 {
            finished.recv_timeout(LOST).expect("no thread hangs");
        }
        // The inbox is first in, first out: what this asks is answered after the last departure
        // was announced, and the manager looks at departures between one batch and the next.
        block_on(hub.clients()).expect("the hub runs");
        let left = block_on(hub.clients()).expect("the hub runs");
        assert_eq!(left, [], "the departed are gone");
    });
    assert_eq!(hub.stats().rooms, 0);
}
