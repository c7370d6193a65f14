//! The manager and the queues, stepped on an executor without sockets.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_lite::future::{or, yield_now};

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::client_id::ClientId;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue::Queue;
use crate::hub::queue_state::Phase;
use crate::hub::since::Since;
use crate::hub::tests::reader::counting;
use crate::hub::tests::support::{Sink, Stage, decode, finished, number_of, numbered};
use crate::message::Message;

#[test]
fn publish_reaches_each_member_and_no_other_client() {
    let stage = Stage::new(Config::default());
    let members: Vec<_> = (0..300).map(|_| stage.client(None, &["main"])).collect();
    let stranger = stage.client(None, &["other"]);
    let recipients = stage.call(|hub| async move { hub.publish("main", "hello").await });
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
            .call(|hub| async move { (hub.publish("main", "x").await, hub.broadcast("y").await) });
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
    stage.rest();
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
    stage.rest();
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
    stage.rest();
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
    let publishes = [(true, "a"), (false, "a"), (false, "b"), (true, "b"), (false, "empty")];
    let publishes = publishes.map(|(from_ada, room)| {
        let (hub, ada) = (hub.clone(), ada.clone());
        stage.executor.spawn(async move {
            if from_ada { ada.publish(room, "x").await } else { hub.publish(room, "x").await }
        })
    });
    stage.rest();
    let recipients = publishes.map(|publish| finished(publish).expect("the hub runs"));
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
    stage.rest();
    peers.iter().for_each(|peer| peer.sink.grant(1 << 20));
    stage.rest();
    let order = peers[0].numbers();
    assert_eq!(order.len(), 500);
    assert!(peers.iter().all(|peer| peer.numbers() == order));
    for publisher in 0..10 {
        let own: Vec<_> = order.iter().filter(|&number| number / 100 == publisher).collect();
        assert!(own.is_sorted(), "each publisher's own order is kept");
    }
    drop(pumps);
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
    let recipients = stage.call(|hub| async move { hub.publish("main", "x").await });
    assert_eq!(recipients.expect("the hub runs"), 1);
    assert_eq!(stage.hub.stats().clients, 1);
    assert_eq!(alive.texts(), ["x"]);
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
        stage.rest();
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
    stage.rest();
    assert_eq!(peer.texts(), ["x"]);
}

/// A client that sees the 101 misses nothing: what is published between the insert and the 101
/// waits.
#[test]
fn messages_between_insert_and_101_are_kept() {
    let stage = Stage::new(Config::default());
    let queue = Queue::new(&stage.hub.shared().queue_config);
    stage.register(&queue, None, &["main"]).expect("a place");
    stage.call(|hub| async move { hub.publish("main", numbered(7, 4)).await }).expect("it runs");
    let sink = Sink::new(usize::MAX);
    queue.open(Some(Arc::clone(&sink) as Arc<dyn DirectWriter>));
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |cx, unsent| sink.poll_write(cx, unsent));
    let (frames, _) = crate::hub::tests::support::decode(&sink.lock().taken);
    assert_eq!(frames.iter().map(|f| number_of(&f.payload)).collect::<Vec<_>>(), [7]);
}

/// Sends these to one client before the manager runs, so that it takes them together; how many were
/// taken.
fn send_together(stage: &Stage, id: ClientId, messages: [Message; 3]) -> Vec<bool> {
    let sends = messages.map(|message| {
        let hub = stage.hub.clone();
        stage.executor.spawn(async move { hub.send(id, message).await })
    });
    stage.rest();
    sends.map(|send| finished(send).is_ok()).to_vec()
}

#[test]
fn the_answer_to_a_question_has_no_label_whatever_comes_with_it() {
    let stage = Stage::new(Config::default());
    let queue = Queue::new(&stage.hub.shared().queue_config);
    queue.set_labels();
    let id = stage.register(&queue, None, &["main"]).expect("a place");
    let sink = Sink::new(usize::MAX);
    queue.open(Some(Arc::clone(&sink) as Arc<dyn DirectWriter>));
    let taken = send_together(&stage, id, ["one".into(), Message::binary([]), "two".into()]);
    assert_eq!(taken, [true; 3]);
    let (frames, _) = decode(&sink.lock().taken);
    let payloads: Vec<_> = frames.iter().map(|frame| &*frame.payload).collect();
    assert_eq!(payloads, [&b"\none"[..], b"", b"\ntwo"]);
}

#[test]
fn the_answer_to_a_question_of_a_client_that_counts_is_taken_whatever_comes_with_it() {
    let stage = Stage::new(Config::default());
    let (ada, _) = stage.client_as(None, &["main"], counting(Since::Now));
    ada.open();
    let messages = ["one".into(), Message::binary([]), "two".into()];
    assert_eq!(send_together(&stage, ada.id(), messages), [false, true, false]);
    assert_eq!(ada.texts(), [""]);
}
