//! The manager and the queues, stepped on an executor without sockets.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::future::{or, yield_now};

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::command::Command;
use crate::hub::cursor::Reading;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Drained;
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{Sink, Stage, finished, number_of, numbered};
use crate::message::Encoding;

#[test]
fn publish_reaches_each_member_and_no_other_client() {
    let stage = Stage::new(Config::default());
    let members: Vec<_> = (0..300).map(|_| stage.client(None, &["main"])).collect();
    let stranger = stage.client(None, &["other"]);
    let recipients = stage.ask(|hub| async move { hub.publish("main", "hello").await });
    assert_eq!(recipients.expect("the hub runs"), 300);
    assert!(members.iter().all(|member| member.texts() == ["hello"]));
    assert!(stranger.texts().is_empty());
}

/// Invariant 10: whatever the number of members, slices of a delivery included.
#[test]
fn recipients_are_counted_exactly_at_every_size_around_a_slice() {
    for members in [0, 1, 2, 127, 128, 129, 255, 256, 257, 600] {
        let stage = Stage::new(Config::default());
        let peers: Vec<_> = (0..members).map(|_| stage.client(None, &["main"])).collect();
        let counted = stage
            .ask(|hub| async move { (hub.publish("main", "x").await, hub.broadcast("y").await) });
        assert_eq!(counted.0.expect("the hub runs"), members);
        assert_eq!(counted.1.expect("the hub runs"), members);
        let stats = stage.hub.stats();
        assert_eq!(stats.recipients, 2 * members as u64);
        assert_eq!(stats.messages_delivered, 2 * members as u64);
        assert!(peers.iter().all(|peer| peer.texts() == ["x", "y"]));
    }
}

#[test]
fn what_a_client_publishes_does_not_come_back_to_it() {
    let stage = Stage::new(Config::default());
    let (ada, bob) = (stage.client(None, &["main"]), stage.client(None, &["main"]));
    let client = ada.client.clone();
    let recipients = stage.run(async move {
        [client.publish("main", "one").await, client.broadcast("two").await]
            .map(|recipients| recipients.expect("the hub runs"))
    });
    assert_eq!(recipients, [1, 1]);
    assert!(ada.texts().is_empty());
    assert_eq!(bob.texts(), ["one", "two"]);
}

/// Publishes of several clients that leave in one run skip each client's own only.
#[test]
fn run_of_several_publishers_skips_each_ones_own() {
    let stage = Stage::new(Config::default());
    let peers: Vec<_> = (0..3).map(|_| stage.client(None, &["main"])).collect();
    for (number, peer) in (0..).zip(&peers) {
        peer.client.try_publish("main", numbered(number, 4)).expect("there is room");
    }
    stage.hub.try_publish("main", numbered(9, 4)).expect("there is room");
    stage.settle();
    assert_eq!(peers[0].numbers(), [1, 2, 9]);
    assert_eq!(peers[1].numbers(), [0, 2, 9]);
    assert_eq!(peers[2].numbers(), [0, 1, 9]);
    assert_eq!(stage.hub.stats().recipients, 9);
}

/// A batch ends before the message that would make it too long, which begins the next.
#[test]
fn messages_too_long_for_one_batch_come_in_the_next() {
    let config = Config::default().max_message(1_000).queue_bytes(2_000);
    let stage = Stage::new(config);
    let peer = stage.client(None, &["main"]);
    // The second goes with the first, and the fourth does not go with the third.
    for (number, len) in (0..).zip([400, 400, 400, 900, 1_000, 4]) {
        stage.hub.try_publish("main", numbered(number, len)).expect("there is room");
    }
    stage.settle();
    assert_eq!(peer.numbers(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(stage.hub.stats().recipients, 6);
}

/// What waits for one room leaves in one write, up to what is for another.
#[test]
fn messages_that_wait_for_one_room_leave_in_one_write() {
    let stage = Stage::new(Config::default());
    let (ada, bob) = (stage.client(None, &["a"]), stage.client(None, &["b"]));
    for (number, room) in (0..).zip(["a", "a", "b", "a", "a", "a"]) {
        stage.hub.try_publish(room, numbered(number, 4)).expect("there is room");
    }
    stage.settle();
    assert_eq!((ada.numbers(), ada.sink.lock().writes), (vec![0, 1, 3, 4, 5], 2));
    assert_eq!((bob.numbers(), bob.sink.lock().writes), (vec![2], 1));
}

/// Each caller hears how many took its own message, whatever went with it.
#[test]
fn answers_of_a_run_are_each_ones_own() {
    let stage = Stage::new(Config::default());
    let peers: Vec<_> = (0..3).map(|_| stage.client(None, &["a"])).collect();
    let _bob = stage.client(None, &["b"]);
    let (hub, ada) = (&stage.hub, &peers[0].client);
    // No caller asked how many took this.
    hub.try_publish("a", "x").expect("there is room");
    let asks = [(true, "a"), (false, "a"), (false, "b"), (true, "b"), (false, "empty")];
    let asks = asks.map(|(from_ada, room)| {
        let (hub, ada) = (hub.clone(), ada.clone());
        stage.executor.spawn(async move {
            if from_ada { ada.publish(room, "x").await } else { hub.publish(room, "x").await }
        })
    });
    stage.settle();
    let recipients = asks.map(|ask| finished(ask).expect("the hub runs"));
    assert_eq!(recipients, [2, 3, 1, 1, 0]);
}

/// Invariant 9: one order for all, with ten publishers at once, a slice in between, and members
/// behind.
#[test]
fn members_see_the_messages_of_concurrent_publishers_in_one_order() {
    let stage = Stage::new(Config::default().inbox(4).queue(1_000).queue_bytes(1 << 20));
    let peers: Vec<_> = (0..200)
        .map(|n| stage.client_with_room(if n % 2 == 0 { usize::MAX } else { n }, None, &["main"]))
        .collect();
    let pumps: Vec<_> = peers.iter().map(|peer| stage.executor.spawn(peer.pump())).collect();
    for publisher in 0..10 {
        let hub = stage.hub.clone();
        let publish = async move {
            for n in 0..50 {
                hub.publish("main", numbered(publisher * 100 + n, 4)).await.expect("it runs");
                if n % 7 == publisher % 7 {
                    yield_now().await;
                }
            }
        };
        stage.executor.spawn(publish).detach();
    }
    stage.settle();
    peers.iter().for_each(|peer| peer.sink.grant(1 << 20));
    stage.settle();
    let order = peers[0].numbers();
    assert_eq!(order.len(), 500);
    assert!(peers.iter().all(|peer| peer.numbers() == order));
    for publisher in 0..10 {
        let own: Vec<_> = order.iter().filter(|&number| number / 100 == publisher).collect();
        assert!(own.is_sorted(), "each publisher's own order is kept");
    }
    drop(pumps);
}

/// Polls the manager once: all that it does between two yields.
fn segment(manager: std::pin::Pin<&mut impl Future<Output = ()>>) {
    let _: Poll<()> = manager.poll(&mut Context::from_waker(Waker::noop()));
}

/// Queues, without a socket, of clients that were registered by hand.
fn queues(
    hub: &Hub,
    mut manager: std::pin::Pin<&mut impl Future<Output = ()>>,
    clients: usize,
) -> Vec<Arc<Queue>> {
    let queues: Vec<_> = (0..clients).map(|_| Queue::new(&hub.shared().queue_config)).collect();
    for queue in &queues {
        let command = |reply| Command::Register {
            queue: Arc::clone(queue),
            user: None,
            rooms: Box::new(["main".into()]),
            prefixes: 0,
            came: 0,
            reading: Box::new(Reading::PLAIN),
            reply,
        };
        let mut register = pin!(hub.request(command));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(register.as_mut().poll(&mut cx).is_pending());
        segment(manager.as_mut());
        assert!(register.poll(&mut cx).is_ready());
        queue.open(None);
    }
    queues
}

fn drain(queue: &Queue) -> Drained {
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |_, unsent| {
        unsent.write_frames(|frames| Poll::Ready(Ok(frames.iter().map(|frame| frame.len()).sum())))
    })
}

/// Fills the inbox again and again and holds the manager, segment by segment, to half a queue.
fn queued_in_a_segment(config: Config, clients: usize, len: usize) -> (usize, usize) {
    let (hub, manager) = Hub::new(config).expect("valid");
    let mut manager = pin!(manager);
    let queues = queues(&hub, manager.as_mut(), clients);
    let (mut most, mut number) = ((0, 0), 0);
    let rooms = ["main", "empty"];
    for _ in 0..2_000 {
        while hub.try_publish(rooms[number % 11 / 10], numbered(number as u32, len)).is_ok() {
            number += 1;
        }
        segment(manager.as_mut());
        for queue in &queues {
            let (messages, bytes) = queue.depth();
            most = (most.0.max(messages), most.1.max(bytes));
            drain(queue);
        }
    }
    assert_eq!(hub.stats().clients_evicted, 0);
    assert!(hub.stats().messages_delivered > 1_000);
    most
}

/// Invariant 8: in messages.
#[test]
fn manager_queues_at_most_half_a_queue_of_messages_between_two_yields() {
    for (queue, half) in [(64, 32), (63, 31), (2, 1), (1, 1), (1_000, 32)] {
        let config = Config::default().queue(queue);
        let (messages, _) = queued_in_a_segment(config, 3, 4);
        assert!(messages <= half, "{messages} messages for a queue of {queue}");
    }
}

/// Invariant 8: in bytes, with messages as long as allowed.
#[test]
fn manager_queues_at_most_half_a_queue_of_bytes_between_two_yields() {
    let config = Config::default();
    let half = config.queue_bytes / 2;
    for len in [Config::MAX_MESSAGE, 60_000, 5_000] {
        let (_, bytes) = queued_in_a_segment(config.clone(), 2, len);
        assert!(bytes <= half, "{bytes} bytes of messages of {len}");
    }
}

/// Invariant 8: a room of several slices yields inside a batch, and is held to it all the same.
#[test]
fn manager_keeps_to_half_a_queue_in_a_room_of_several_slices() {
    let (messages, _) = queued_in_a_segment(Config::default().queue(16), 300, 4);
    assert!(messages <= 8, "{messages} messages for a queue of 16");
}

/// A client that is only ever written to by its own task, which counts and forgets.
fn counting_client(stage: &Stage) -> (Arc<Queue>, Arc<AtomicUsize>) {
    let queue = Queue::new(&stage.hub.shared().queue_config);
    stage.register(&queue, None, &["main"]).expect("a place");
    queue.open(None);
    let taken = Arc::new(AtomicUsize::new(0));
    let (draining, counter) = (Arc::clone(&queue), Arc::clone(&taken));
    let pump = poll_fn(move |cx| {
        let drained = draining.poll_drain(cx, usize::MAX, |_, unsent| {
            unsent.write_frames(|frames| {
                let bytes = frames.iter().map(|frame| frame.len()).sum();
                counter.fetch_add(bytes, Ordering::Relaxed);
                Poll::Ready(Ok(bytes))
            })
        });
        if drained.phase == Phase::Open { Poll::Pending } else { Poll::Ready(()) }
    });
    stage.executor.spawn(pump).detach();
    (queue, taken)
}

/// Invariant 8: readers with tasks that run only when woken get 5,000 messages of 64 KiB through a
/// queue of 64, and none is evicted by scheduling.
#[test]
fn healthy_reader_of_5000_long_messages_is_not_evicted() {
    let stage = Stage::new(Config::default().queue(64));
    let clients: Vec<_> = (0..3).map(|_| counting_client(&stage)).collect();
    stage.settle();
    let message = numbered(0, Config::MAX_MESSAGE);
    for _ in 0..10 {
        let (hub, message) = (stage.hub.clone(), message.clone());
        let publish = async move {
            for _ in 0..500 {
                hub.publish("main", message.clone()).await.expect("the hub runs");
            }
        };
        stage.executor.spawn(publish).detach();
    }
    stage.settle();
    assert_eq!(stage.hub.stats().clients_evicted, 0);
    assert_eq!(stage.hub.stats().messages_delivered, 15_000);
    let all = 5_000 * message.frame(Encoding::Plain).len();
    assert!(clients.iter().all(|(_, taken)| taken.load(Ordering::Relaxed) == all));
}

/// Invariant 8: and short ones that come as fast as the inbox takes them.
#[test]
fn healthy_reader_of_a_flood_of_short_messages_is_not_evicted() {
    let stage = Stage::new(Config::default().queue(64));
    let clients: Vec<_> = (0..5).map(|_| counting_client(&stage)).collect();
    stage.settle();
    let mut sent = 0;
    while sent < 5_000 {
        while sent < 5_000 && stage.hub.try_publish("main", numbered(sent, 4)).is_ok() {
            sent += 1;
        }
        stage.executor.try_tick();
    }
    stage.settle();
    assert_eq!(stage.hub.stats().clients_evicted, 0);
    assert!(clients.iter().all(|(_, taken)| taken.load(Ordering::Relaxed) == 5_000 * 6));
}

/// Invariant 7 and the heart of it: the slow client pays, and no other.
#[test]
fn client_that_does_not_drain_is_evicted_and_the_others_lose_nothing() {
    let stage = Stage::new(Config::default().queue(8));
    let healthy: Vec<_> = (0..5).map(|_| stage.client(None, &["main"])).collect();
    let slow = stage.client_with_room(20, None, &["main"]);
    let hub = stage.hub.clone();
    let recipients = stage.run(async move {
        let mut recipients = 0;
        for number in 0..100 {
            recipients += hub.publish("main", numbered(number, 4)).await.expect("it runs");
        }
        recipients
    });
    let all: Vec<_> = (0..100).collect();
    assert!(healthy.iter().all(|peer| peer.numbers() == all));
    assert_eq!(slow.numbers(), [0, 1, 2]);
    assert_eq!(slow.queue.reason().map(|reason| reason.code()), Some(4108));
    let stats = stage.hub.stats();
    assert_eq!((stats.clients, stats.clients_evicted), (5, 1));
    // 3 whole, 1 cut, 7 behind it, and the one that was too much.
    assert_eq!(recipients, 500 + 12);
    assert_eq!((stats.messages_delivered, stats.messages_dropped), (503, 8));
    slow.queue.disconnect();
    let stats = stage.hub.stats();
    assert_eq!(stats.messages_lost, 1, "the cut one");
    assert_eq!(stats.held_bytes, 0);
}

/// Invariant 6: a connection that is gone without a word is found by the next publish to it.
#[test]
fn killed_client_is_not_a_recipient() {
    let stage = Stage::new(Config::default());
    let (dead, alive) = (stage.client(None, &["main"]), stage.client(None, &["main"]));
    dead.queue.disconnect();
    let recipients = stage.ask(|hub| async move { hub.publish("main", "x").await });
    assert_eq!(recipients.expect("the hub runs"), 1);
    assert_eq!(stage.hub.stats().clients, 1);
    assert_eq!(alive.texts(), ["x"]);
}

#[test]
fn dropping_the_manager_closes_every_queue_with_1001() {
    let stage = Stage::new(Config::default());
    let peers: Vec<_> = (0..3).map(|_| stage.client(None, &["main"])).collect();
    let pumps: Vec<_> = peers.iter().map(|peer| stage.start(peer.pump())).collect();
    let Stage { executor, hub, manager } = stage;
    drop(manager);
    while executor.try_tick() {}
    for (peer, pump) in peers.iter().zip(pumps) {
        assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
        assert_eq!(finished(pump), Phase::Closing, "its task was woken");
    }
    assert_eq!((hub.stats().clients, hub.stats().rooms), (0, 0));
}

#[test]
fn dropping_the_manager_fails_every_verb() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(Some("ada"), &["main"]);
    let (id, client) = (peer.id(), peer.client.clone());
    let Stage { executor, hub, manager } = stage;
    drop(manager);
    while executor.try_tick() {}
    let error = hub.try_publish("main", "x").expect_err("the manager has ended");
    assert!(error.is_closed());
    assert_eq!(error.into_message(), Some("x".into()));
    assert!(hub.try_broadcast("x").is_err_and(|error| error.is_closed()));
    let verbs = executor.spawn(async move {
        let back = hub.broadcast("back").await.expect_err("closed");
        assert!(back.is_closed());
        assert_eq!(back.into_message(), Some("back".into()));
        [
            hub.publish("main", "x").await.is_err_and(|error| error.is_closed()),
            hub.send(id, "x").await.is_err_and(|error| error.is_closed()),
            hub.send_to_user("ada", "x").await.is_err_and(|error| error.is_closed()),
            hub.join(id, "main").await.is_err_and(|error| error.is_closed()),
            hub.leave(id, "main").await.is_err_and(|error| error.is_closed()),
            hub.disconnect(id, Disconnect::NORMAL).await.is_err_and(|error| error.is_closed()),
            hub.clients().await.is_err_and(|error| error.is_closed()),
            hub.presence("main").await.is_err_and(|error| error.is_closed()),
            client.rooms().await.is_err_and(|error| error.is_closed()),
        ]
    });
    while executor.try_tick() {}
    assert_eq!(finished(verbs), [true; 9]);
}

#[test]
fn dropping_the_manager_fails_verbs_that_wait() {
    let (hub, manager) = Hub::new(Config::default().inbox(2)).expect("valid");
    let executor = smol::Executor::new();
    // Two wait for an answer, the others for a place in the inbox.
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let hub = hub.clone();
            executor.spawn(async move { hub.publish("main", "x").await })
        })
        .collect();
    while executor.try_tick() {}
    assert!(waiting.iter().all(|task| !task.is_finished()));
    drop(manager);
    while executor.try_tick() {}
    for task in waiting {
        assert!(finished(task).expect_err("the manager has ended").is_closed());
    }
    assert_eq!(hub.stats().held_bytes, 0);
}

#[test]
fn manager_ends_when_the_last_hub_and_client_are_gone() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    let (executor, manager) = (stage.executor, stage.manager);
    drop(stage.hub);
    while executor.try_tick() {}
    assert!(!manager.is_finished(), "a client is a handle as well");
    drop(peer.client);
    while executor.try_tick() {}
    assert!(manager.is_finished());
    assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
}

#[test]
fn manager_does_what_waits_before_it_ends_with_the_last_handle() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    for number in 0..100 {
        stage.hub.try_publish("main", numbered(number, 4)).expect("there is room");
    }
    let Stage { executor, hub, manager } = stage;
    let crate::hub::tests::support::Peer { client, sink, .. } = peer;
    drop((hub, client));
    while executor.try_tick() {}
    assert!(manager.is_finished());
    assert_eq!(sink.numbers().len(), 100);
}

#[test]
fn stop_ends_the_manager() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    stage
        .ask(|hub| async move { hub.send_command(Command::Stop).await })
        .expect("the manager runs");
    assert!(stage.has_ended());
    assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
    let late = stage.ask(|hub| async move { hub.publish("main", "x").await });
    assert!(late.is_err_and(|error| error.is_closed()));
}

/// A client as the tutorial had it: it publishes while it drains, and unregisters at the end.
async fn chatter(client: Client, queue: Arc<Queue>, sink: Arc<Sink>) -> Phase {
    let pump = poll_fn(|cx| {
        let drained = queue.poll_drain(cx, 64, |cx, unsent| sink.poll_write(cx, unsent));
        if drained.phase == Phase::Open { Poll::Pending } else { Poll::Ready(drained.phase) }
    });
    let publish = async {
        for number in 0..20 {
            client.publish("main", numbered(number, 4)).await.expect("the hub runs");
        }
        // Evicted meanwhile is gone meanwhile.
        drop(client.hub().disconnect(client.id(), Disconnect::NORMAL).await);
        std::future::pending().await
    };
    or(pump, publish).await
}

/// Invariant 1, and the tutorial's deadlock: one place in every channel, everybody publishing,
/// unregistering and being evicted at once. No wait is part of a circle.
#[test]
fn hub_of_one_slot_everywhere_comes_to_rest() {
    for overflow in [crate::overflow::Overflow::Disconnect, crate::overflow::Overflow::DropOldest] {
        let config = Config::default().inbox(1).queue(1).overflow(overflow);
        let stage = Stage::new(config);
        let mut peers = Vec::new();
        let mut tasks = Vec::new();
        for n in 0..40 {
            // Some take everything, some a byte or two, some nothing at all.
            let peer = stage.client_with_room([usize::MAX, 2, 0, 40][n % 4], None, &["main"]);
            let (client, queue) = (peer.client.clone(), Arc::clone(&peer.queue));
            tasks.push(stage.executor.spawn(chatter(client, queue, Arc::clone(&peer.sink))));
            peers.push(peer);
        }
        stage.settle();
        assert!(tasks.iter().all(smol::Task::is_finished), "everyone has ended");
        assert_eq!(stage.hub.stats().clients, 0);
        for peer in &peers {
            peer.queue.disconnect();
        }
        let stats = stage.hub.stats();
        let fates = stats.messages_delivered + stats.messages_dropped + stats.messages_lost;
        assert_eq!(fates, stats.recipients);
        assert_eq!(stats.held_bytes, 0);
        assert!(!stage.has_ended());
    }
}

/// A publisher that gives up while it waits for its answer has published all the same, once.
#[test]
fn caller_that_gives_up_on_its_answer_has_been_heard() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    {
        let mut publish = pin!(stage.hub.publish("main", "x"));
        assert!(publish.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    stage.settle();
    assert_eq!(peer.texts(), ["x"]);
}

/// A client that sees the 101 misses nothing: what is published between the insert and the 101
/// waits.
#[test]
fn messages_between_insert_and_101_are_kept() {
    let stage = Stage::new(Config::default());
    let queue = Queue::new(&stage.hub.shared().queue_config);
    stage.register(&queue, None, &["main"]).expect("a place");
    stage.ask(|hub| async move { hub.publish("main", numbered(7, 4)).await }).expect("it runs");
    let sink = Sink::new(usize::MAX);
    queue.open(Some(Arc::clone(&sink) as Arc<dyn DirectWriter>));
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |cx, unsent| sink.poll_write(cx, unsent));
    let (frames, _) = crate::hub::tests::support::decode(&sink.lock().taken);
    assert_eq!(frames.iter().map(|f| number_of(&f.payload)).collect::<Vec<_>>(), [7]);
}

/// A waker that does something, once, where it is woken: as another thread might in that moment.
struct Then(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Then {
    fn wake(self: Arc<Self>) {
        let then = self.0.lock().expect("not poisoned").take();
        then.into_iter().for_each(|then| then());
    }
}

/// A batch is what waited when it began. So a caller that asks behind an answer hears what happened
/// before it, and no publisher keeps the manager busy by sending again as it is answered.
#[test]
fn command_behind_an_answer_is_for_the_next_batch() {
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let mut manager = pin!(manager);
    let queues = queues(&hub, manager.as_mut(), 1);
    let count = async |hub: Hub| hub.clients().await.expect("the hub runs").len();
    let id = queues[0].disconnect().expect("registered");
    hub.report_gone(id);
    let second = Arc::new(Mutex::new(Box::pin(count(hub.clone()))));
    let ask = Arc::clone(&second);
    let then = Then(Mutex::new(Some(Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ask.lock().expect("not poisoned").as_mut().poll(&mut cx).is_pending());
    }))));
    let mut first = pin!(count(hub.clone()));
    let waker = Waker::from(Arc::new(then));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..2 {
        segment(manager.as_mut());
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(first.poll(&mut cx), Poll::Ready(1), "asked before the manager looked");
    let mut second = second.lock().expect("not poisoned");
    assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(0), "it has looked since");
}
