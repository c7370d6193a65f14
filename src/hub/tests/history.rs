//! Cursors: readers that come with `since`, and clients that read their room instead of a queue.

use std::future::{Future as _, poll_fn};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use smol::Task;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::backlog::Taken;
use crate::hub::command::Command;
use crate::hub::cursor::{Reader, Reading};
use crate::hub::queue_state::Phase;
use crate::hub::since::{Begin, Missed, Since};
use crate::hub::tests::support::{Peer, Stage, fates, finished, number_of, numbered, seeded};
use crate::overflow::Overflow;
use crate::time::virtual_time::VirtualTime;

/// Every room keeps so many messages.
fn keeping(messages: usize) -> Config {
    Config::default().history(vec![messages.to_string().parse().expect("a rule")])
}

/// A reader with `since`, as a WebSocket is one.
fn counting(since: Since) -> Reading {
    Reading { reader: Reader::Counting, since: Some(since), ends: false }
}

/// A reader that is told each position, as a stream of events is one.
fn numbering(since: Since) -> Reading {
    Reading { reader: Reader::Numbered, since: Some(since), ends: false }
}

/// Publishes messages with these numbers to the room, one after another.
fn publish(stage: &Stage, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        stage
            .ask(move |hub| async move { hub.publish("main", numbered(number, 4)).await })
            .expect("it runs");
    }
}

fn position(stage: &Stage, room: &'static str) -> Option<u64> {
    stage.ask(move |hub| async move { hub.position(room).await }).expect("the hub runs")
}

/// A reader with a socket that takes everything, and its task; where it begins.
fn reader(stage: &Stage, since: Since) -> (Peer, Task<Phase>, Begin) {
    let (peer, begin) = stage.client_as(Some("ada"), &["main"], counting(since));
    peer.open();
    let pump = stage.start(peer.reader_pump());
    (peer, pump, begin.expect("it is told where it begins"))
}

/// What a client without a stream has been handed, with positions.
type Heard = Arc<Mutex<Vec<(u32, Option<u64>)>>>;

/// A reader that is told each position and has no stream: a subscription is one.
fn subscribe(stage: &Stage, reading: Reading) -> (Peer, Heard, Task<Disconnect>, Begin) {
    let (peer, begin) = stage.client_as(None, &["main"], reading);
    peer.queue.open(None);
    let taken = Heard::default();
    let (queue, hub, heard) = (Arc::clone(&peer.queue), stage.hub.clone(), Arc::clone(&taken));
    let task = stage.start(async move {
        loop {
            let next = poll_fn(|cx| {
                let next = queue.poll_take(cx);
                queue.take_request().into_iter().for_each(|id| hub.request_more(id));
                next
            });
            match next.await {
                Ok(Taken { message, position, .. }) => {
                    let number = number_of(message.as_bytes());
                    heard.lock().expect("not poisoned").push((number, position));
                }
                Err(reason) => return reason,
            }
        }
    });
    (peer, taken, task, begin.expect("it is told where it begins"))
}

/// Every recipient has one fate.
fn check_fates(stage: &Stage) {
    let recipients = stage.hub.stats().recipients;
    let fates: u64 = fates(&stage.hub.shared().queue_config.counters).iter().sum();
    assert_eq!(recipients, fates, "each recipient is delivered, dropped or lost");
}

#[test]
fn a_reader_hears_what_is_kept_behind_its_position_then_what_comes() {
    let stage = Stage::new(keeping(3));
    publish(&stage, 0..5);
    let newest = position(&stage, "main").expect("a publish makes a room that keeps messages");
    for (since, begins, missed, heard) in [
        (Since::Position(newest), newest, Missed::Nothing, &[][..]),
        (Since::Position(newest - 2), newest - 2, Missed::Nothing, &[3, 4]),
        (Since::Position(newest - 3), newest - 3, Missed::Nothing, &[2, 3, 4]),
        (Since::Position(newest - 4), newest - 3, Missed::Messages(1), &[2, 3, 4]),
        (Since::Position(newest + 1), newest - 3, Missed::Unknown, &[2, 3, 4]),
        (Since::UNREADABLE, newest - 3, Missed::Unknown, &[2, 3, 4]),
        (Since::Now, newest, Missed::Nothing, &[]),
        (Since::Oldest, newest - 3, Missed::Nothing, &[2, 3, 4]),
        (Since::Newest(2), newest - 2, Missed::Nothing, &[3, 4]),
        (Since::Newest(9), newest - 3, Missed::Nothing, &[2, 3, 4]),
    ] {
        let (peer, _pump, begin) = reader(&stage, since);
        assert_eq!(begin, Begin { position: begins, missed }, "{since}");
        assert_eq!(peer.numbers(), heard, "{since}");
    }
    let (peer, _pump, _) = reader(&stage, Since::Newest(1));
    publish(&stage, 5..7);
    assert_eq!(peer.numbers(), [4, 5, 6]);
    check_fates(&stage);
}

#[test]
fn a_reader_without_history_hears_what_comes_and_is_told_of_what_is_lost() {
    let stage = Stage::new(Config::default());
    let (first, _pump, begin) = reader(&stage, Since::Oldest);
    assert_eq!((begin.missed, position(&stage, "main")), (Missed::Nothing, Some(begin.position)));
    publish(&stage, 0..3);
    assert_eq!(first.numbers(), [0, 1, 2]);
    let (_peer, _pump, second) = reader(&stage, Since::Position(begin.position + 1));
    let told = Begin { position: begin.position + 3, missed: Missed::Messages(2) };
    assert_eq!(second, told);
}

#[test]
fn half_a_queue_of_kept_messages_waits_at_a_time() {
    let stage = Stage::new(keeping(100).queue(8));
    publish(&stage, 0..40);
    let (peer, _) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    peer.queue.open(None);
    let (mut heard, mut asked) = (Vec::new(), 0);
    while heard.len() < 40 {
        if let Some(id) = peer.queue.take_request() {
            asked += 1;
            stage.hub.request_more(id);
            stage.settle();
        }
        assert!((1..=4).contains(&peer.queue.depth().0), "half of a queue of 8");
        let Taken { message, .. } = finished(stage.start({
            let queue = Arc::clone(&peer.queue);
            async move { poll_fn(|cx| queue.poll_take(cx)).await }
        }))
        .expect("it is here");
        heard.push(number_of(message.as_bytes()));
    }
    assert_eq!((heard, asked), ((0..40).collect(), 10));
    assert_eq!(peer.queue.take_request(), None, "a client that is live asks for nothing");
}

#[test]
fn a_client_that_has_asked_is_answered_once() {
    let stage = Stage::new(keeping(100).queue(8));
    publish(&stage, 0..40);
    let (peer, _) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    peer.queue.open(None);
    let id = peer.queue.take_request().expect("it is behind");
    assert_eq!(peer.queue.take_request(), None, "it has asked");
    stage.hub.request_more(id);
    stage.settle();
    assert_eq!(peer.queue.take_request(), None, "something waits here");
}

/// Whatever comes between: each message once, in order, none left out, until it is told to go.
#[test]
fn a_reader_hears_each_message_once_whatever_comes_between() {
    let overflows =
        [Overflow::Disconnect, Overflow::Replay, Overflow::DropOldest, Overflow::Latest];
    seeded(400, |rng| {
        let overflow = *rng.choice(&overflows).expect("some");
        let kept = rng.usize(1..60);
        let config = keeping(kept).queue(rng.usize(1..20)).overflow(overflow);
        let stage = Stage::new(config);
        let mut said = rng.u32(1..30);
        publish(&stage, 0..said);
        let base = position(&stage, "main").expect("a room") - u64::from(said);
        let since = Since::Newest(rng.u32(1..40));
        let (peer, begin) = stage.client_as(None, &["main"], counting(since));
        let first = (begin.expect("where it begins").position - base) as u32;
        peer.sink.lock().room = rng.usize(..100);
        let mut pump = None;
        for _ in 0..rng.usize(..120) {
            match rng.u8(..8) {
                0 | 1 => {
                    let more = rng.u32(1..6);
                    for number in said..said + more {
                        // In one batch, as far as the inbox goes.
                        stage.hub.try_publish("main", numbered(number, 4)).expect("there is room");
                    }
                    said += more;
                    ticks(&stage, rng);
                }
                2 => peer.sink.grant(rng.usize(..40)),
                3 if pump.is_none() => {
                    peer.open();
                    pump = Some(stage.executor.spawn(peer.reader_pump()));
                }
                4 => stage.settle(),
                _ => ticks(&stage, rng),
            }
        }
        peer.sink.grant(usize::MAX / 2);
        if pump.is_none() {
            peer.open();
            pump = Some(stage.executor.spawn(peer.reader_pump()));
        }
        stage.settle();
        let heard = peer.numbers();
        let ended = pump.is_some_and(|pump| pump.is_finished());
        let until = if ended { first + heard.len() as u32 } else { said };
        assert_eq!(heard, (first..until).collect::<Vec<_>>(), "of {first} to {said}");
        if ended {
            let reason = peer.queue.reason().expect("it is told why");
            assert_eq!(reason.code(), Disconnect::SLOW.code());
        }
        // What is cut in the middle goes with the connection.
        peer.queue.disconnect();
        check_fates(&stage);
    });
}

fn ticks(stage: &Stage, rng: &mut Rng) {
    for _ in 0..rng.u8(..6) {
        stage.executor.try_tick();
    }
}

#[test]
fn a_reader_that_its_room_has_overtaken_is_closed_with_4108() {
    let stage = Stage::new(keeping(3).queue(4));
    publish(&stage, 0..3);
    let (peer, _) = stage.client_as(None, &["main"], counting(Since::Oldest));
    publish(&stage, 3..8);
    peer.open();
    let pump = stage.start(peer.reader_pump());
    assert_eq!(finished(pump), Phase::Evicted);
    let reason = peer.queue.reason().expect("it was evicted");
    assert_eq!(reason.code(), Disconnect::SLOW.code());
    assert_eq!(peer.numbers(), [], "nothing that would be counted wrong");
    assert_eq!(stage.hub.stats().messages_lost, 8);
    check_fates(&stage);
}

#[test]
fn a_numbered_reader_that_its_room_has_overtaken_goes_on_behind_the_gap() {
    let stage = Stage::new(keeping(3).queue(4));
    publish(&stage, 0..3);
    let (peer, begin) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    let begin = begin.expect("where it begins").position;
    publish(&stage, 3..8);
    peer.queue.open(None);
    let id = peer.queue.take_request().expect("it is behind");
    stage.hub.request_more(id);
    stage.settle();
    let mut heard = Vec::new();
    loop {
        let queue = Arc::clone(&peer.queue);
        let take = stage.start(async move { poll_fn(|cx| queue.poll_take(cx)).await });
        if !take.is_finished() {
            break;
        }
        let Taken { message, position, .. } = finished(take).expect("it goes on");
        heard.push((number_of(message.as_bytes()), position));
        peer.queue.take_request().into_iter().for_each(|id| stage.hub.request_more(id));
        stage.settle();
    }
    let expected = [5, 6, 7].map(|number| (number, Some(begin + 1 + u64::from(number))));
    assert_eq!((heard, peer.queue.missed()), (expected.to_vec(), 5));
    check_fates(&stage);
}

/// The connection tells the gap also if no message follows.
#[test]
fn a_reader_whose_room_keeps_nothing_more_hears_of_that_at_once() {
    let stage = Stage::new(keeping(3).history_bytes(100));
    publish(&stage, 0..3);
    let (peer, heard, _task, _) = subscribe(&stage, numbering(Since::Now));
    let (late, _) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    // No message as long as this is kept, nor any before it.
    stage.ask(|hub| async move { hub.publish("main", numbered(3, 200)).await }).expect("it runs");
    late.queue.open(None);
    let queue = Arc::clone(&late.queue);
    let mut first = true;
    let told = stage.executor.spawn(poll_fn(move |cx| {
        let taken = queue.poll_take(cx);
        assert!(taken.is_pending(), "there is nothing to take");
        if std::mem::take(&mut first) { taken.map(drop) } else { std::task::Poll::Ready(()) }
    }));
    stage.settle();
    assert!(!told.is_finished());
    stage.hub.request_more(late.queue.take_request().expect("it is behind"));
    stage.settle();
    assert!(told.is_finished(), "it is woken");
    assert_eq!(late.queue.missed(), 4);
    let heard: Vec<_> =
        heard.lock().expect("not poisoned").iter().map(|(number, _)| *number).collect();
    assert_eq!(heard, [3], "a reader that is live has it, and misses nothing");
    assert_eq!(peer.queue.missed(), 0);
    check_fates(&stage);
}

#[test]
fn a_reader_hears_and_counts_its_own_messages() {
    let stage = Stage::new(keeping(9));
    let (ada, _pump, begin) = reader(&stage, Since::Now);
    let (client, bob) = (ada.client.clone(), stage.client(None, &["main"]));
    let recipients = stage.run(async move {
        [
            client.publish("main", numbered(0, 4)).await.expect("it runs"),
            client.broadcast(numbered(1, 4)).await.expect("it runs"),
        ]
    });
    assert_eq!(recipients, [2, 2], "itself too");
    publish(&stage, [2]);
    assert_eq!((ada.numbers(), bob.numbers()), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(position(&stage, "main"), Some(begin.position + 3));
    // Also those that it reads from what is kept.
    let client = ada.client.clone();
    stage.run(async move { client.publish("main", numbered(3, 4)).await }).expect("it runs");
    let (again, _pump, _) = reader(&stage, Since::Position(begin.position));
    assert_eq!(again.numbers(), [0, 1, 2, 3]);
    check_fates(&stage);
}

#[test]
fn a_reader_that_counts_hears_its_room_and_nothing_else() {
    let stage = Stage::new(keeping(9));
    let (ada, _pump, _) = reader(&stage, Since::Now);
    let (other, _) = stage.client_as(Some("ada"), &["main"], Reading::PLAIN);
    other.open();
    let id = ada.id();
    let sent = stage.ask(|hub| async move { hub.send(id, numbered(0, 4)).await });
    assert!(sent.expect_err("its count would be wrong").is_one_room());
    let sent = stage.ask(|hub| async move { hub.send_to_user("ada", numbered(1, 4)).await });
    assert_eq!(sent.expect("the other connection has it"), 1);
    let joined = stage.ask(move |hub| async move {
        (hub.join(id, "other").await, hub.leave(id, "main").await, hub.leave(id, "other").await)
    });
    assert!(joined.0.expect_err("one room").is_one_room());
    assert!(joined.1.expect_err("this room").is_one_room());
    joined.2.expect("where it is not, it leaves nothing");
    publish(&stage, [2]);
    assert_eq!((ada.numbers(), other.numbers()), (vec![2], vec![1, 2]));
    check_fates(&stage);
}

#[test]
fn a_reader_with_since_is_in_one_room() {
    let stage = Stage::new(keeping(9));
    for rooms in [&[][..], &["main", "other"]] {
        let queue = crate::hub::queue::Queue::new(&stage.hub.shared().queue_config);
        let refused = stage.register_as(&queue, None, rooms, counting(Since::Now));
        assert_eq!(refused, Err(crate::hub::client_id::Refusal::OneRoom));
    }
    assert_eq!(stage.hub.stats().clients, 0);
}

#[test]
fn a_broadcast_counts_in_each_room() {
    let stage = Stage::new(keeping(9));
    publish(&stage, [0]);
    let _other = stage.client(None, &["other"]);
    let before = ["main", "other"].map(|room| position(&stage, room).expect("a room"));
    let (ada, _pump, _) = reader(&stage, Since::Newest(1));
    stage.ask(|hub| async move { hub.broadcast(numbered(1, 4)).await }).expect("it runs");
    let after = ["main", "other"].map(|room| position(&stage, room).expect("a room"));
    assert_eq!(after, before.map(|before| before + 1));
    assert_eq!(ada.numbers(), [0, 1]);
    let (late, _pump, _) = reader(&stage, Since::Newest(2));
    assert_eq!(late.numbers(), [0, 1], "it is kept as any other");
}

/// Also a client that is behind by far takes no more than one message of the hub.
#[test]
fn with_replay_a_client_that_is_behind_needs_no_queue() {
    let stage = Stage::new(keeping(100).queue(4).overflow(Overflow::Replay));
    let (slow, plain) =
        (stage.client_with_room(10, None, &["main"]), stage.client(None, &["main"]));
    let pump = stage.start(slow.reader_pump());
    publish(&stage, 0..50);
    let client = slow.client.clone();
    stage.run(async move { client.publish("main", numbered(50, 4)).await }).expect("it runs");
    publish(&stage, 51..60);
    assert!(slow.queue.depth().0 <= 1, "{:?} wait", slow.queue.depth());
    assert!(!pump.is_finished(), "it is not evicted");
    slow.sink.grant(usize::MAX / 2);
    stage.settle();
    let all_but_own: Vec<_> = (0..60).filter(|number| *number != 50).collect();
    assert_eq!(slow.numbers(), all_but_own);
    assert_eq!(plain.numbers(), (0..60).collect::<Vec<_>>());
    publish(&stage, [60]);
    assert_eq!(slow.numbers().last(), Some(&60), "it is live again");
    check_fates(&stage);
}

#[test]
fn with_replay_a_client_that_its_room_has_overtaken_is_closed_with_4108() {
    let stage = Stage::new(keeping(5).queue(4).overflow(Overflow::Replay));
    let slow = stage.client_with_room(0, None, &["main"]);
    let pump = stage.start(slow.reader_pump());
    publish(&stage, 0..50);
    slow.sink.grant(usize::MAX / 2);
    stage.settle();
    assert_eq!(finished(pump), Phase::Evicted);
    assert_eq!(slow.queue.reason().expect("it is told").code(), Disconnect::SLOW.code());
    check_fates(&stage);
}

#[test]
fn with_replay_a_room_without_history_has_queues() {
    let rule = "kept=100".parse().expect("a rule");
    let config = Config::default().history(vec![rule]).queue(4).overflow(Overflow::Replay);
    let stage = Stage::new(config);
    let slow = stage.client_with_room(0, None, &["main"]);
    publish(&stage, 0..5);
    assert_eq!(slow.queue.reason().expect("it is told").code(), Disconnect::SLOW.code());
    check_fates(&stage);
}

/// What a broken socket takes with it counts once.
#[test]
fn what_a_client_that_is_gone_had_to_read_is_lost() {
    for overflow in [Overflow::Disconnect, Overflow::Replay] {
        let stage = Stage::new(keeping(100).queue(8).overflow(overflow));
        publish(&stage, 0..20);
        let (peer, _) = stage.client_as(None, &["main"], counting(Since::Oldest));
        peer.open();
        peer.sink.break_off();
        let pump = stage.start(peer.reader_pump());
        assert_eq!(finished(pump), Phase::Dead);
        let stats = stage.hub.stats();
        assert_eq!((stats.recipients, stats.messages_lost), (20, 20), "{overflow:?}");
        let live = stage.client(None, &["main"]);
        live.sink.break_off();
        publish(&stage, [20]);
        check_fates(&stage);
    }
}

#[test]
fn with_latest_a_client_that_is_behind_gets_the_newest_message_only() {
    let stage = Stage::new(Config::default().overflow(Overflow::Latest));
    let slow = stage.client_with_room(0, None, &["main"]);
    let pump = stage.start(slow.pump());
    publish(&stage, 0..5);
    assert_eq!((slow.queue.depth().0, slow.queue.missed()), (1, 4));
    slow.sink.grant(usize::MAX / 2);
    stage.settle();
    assert_eq!(slow.numbers(), [4]);
    publish(&stage, 5..7);
    assert_eq!(slow.numbers(), [4, 5, 6], "it is live again");
    assert!(!pump.is_finished());
    check_fates(&stage);
}

#[test]
fn no_policy_drops_a_message_for_a_reader_that_counts() {
    let policies = [Overflow::Latest, Overflow::DropNewest, Overflow::DropOldest];
    for overflow in policies {
        let stage = Stage::new(Config::default().queue(4).overflow(overflow));
        let (peer, _) = stage.client_as(None, &["main"], counting(Since::Now));
        peer.sink.lock().room = 0;
        peer.open();
        let pump = stage.start(peer.reader_pump());
        publish(&stage, 0..4);
        assert_eq!(peer.queue.depth().0, 4, "{overflow:?}");
        publish(&stage, [4]);
        let reason = peer.queue.reason().expect("it is told");
        assert_eq!(reason.code(), Disconnect::SLOW.code(), "{overflow:?}");
        assert!(pump.is_finished());
        check_fates(&stage);
    }
}

/// A reader that is told positions hears which messages a policy has dropped.
#[test]
fn a_numbered_reader_is_told_of_what_a_policy_drops() {
    let policies = [
        (Overflow::Latest, [9, 9]),
        (Overflow::DropOldest, [6, 9]),
        (Overflow::DropNewest, [0, 3]),
    ];
    for (overflow, [first, last]) in policies {
        let stage = Stage::new(Config::default().queue(4).overflow(overflow));
        let (peer, begin) = stage.client_as(None, &["main"], numbering(Since::Now));
        let begin = begin.expect("where it begins").position;
        peer.queue.open(None);
        publish(&stage, 0..10);
        let mut heard = Vec::new();
        for _ in first..=last {
            let queue = Arc::clone(&peer.queue);
            let taken = stage.run(async move { poll_fn(|cx| queue.poll_take(cx)).await });
            let Taken { message, position, .. } = taken.expect("it stays");
            heard.push((number_of(message.as_bytes()), position.expect("it is told")));
        }
        let expected = (first..=last).map(|n| (n, begin + 1 + u64::from(n))).collect::<Vec<_>>();
        assert_eq!(heard, expected, "{overflow:?}");
        check_fates(&stage);
    }
}

#[test]
fn a_reader_of_what_is_kept_ends_when_it_has_it() {
    for overflow in [Overflow::Disconnect, Overflow::Replay] {
        let stage = Stage::new(keeping(50).queue(4).overflow(overflow));
        publish(&stage, 0..20);
        let reading = Reading { ends: true, ..numbering(Since::Oldest) };
        let (_peer, taken, task, _) = subscribe(&stage, reading);
        assert_eq!(finished(task), Disconnect::NORMAL);
        let numbers: Vec<_> = taken.lock().expect("not poisoned").iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        let (_peer, taken, task, _) =
            subscribe(&stage, Reading { ends: true, ..numbering(Since::Now) });
        assert_eq!(finished(task), Disconnect::NORMAL);
        assert!(taken.lock().expect("not poisoned").is_empty());
        check_fates(&stage);
    }
}

#[test]
fn what_only_asks_a_room_that_had_no_message_leaves_none() {
    for config in [Config::default(), keeping(9)] {
        let stage = Stage::new(config);
        let reading = Reading { ends: true, ..numbering(Since::Oldest) };
        let (_peer, _, task, _) = subscribe(&stage, reading);
        assert_eq!(finished(task), Disconnect::NORMAL);
        assert_eq!(stage.hub.stats().rooms, 0);
        let (peer, _, task, _) = subscribe(&stage, numbering(Since::Oldest));
        let id = peer.id();
        let left =
            stage.ask(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await });
        left.expect("it was there");
        finished(task);
        assert_eq!(stage.hub.stats().rooms, 1, "one that stays was told a number");
    }
}

/// Its room came to be while it waited, and has no other reader with a number.
#[test]
fn a_room_keeps_the_count_of_a_message_that_ended_a_wait() {
    let stage = Stage::new(Config::default());
    let hub = stage.hub.clone();
    let wait = stage.start(async move { hub.next_kept("main".into(), Since::Now).await });
    let id = stage.client(None, &["main"]).id();
    publish(&stage, [0]);
    let heard = finished(wait).expect("the hub runs");
    stage
        .ask(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
        .expect("it was there");
    assert_eq!(position(&stage, "main"), Some(heard.position + 1));
}

/// The inbox is full as it gives up, and the manager has nothing of it afterwards.
#[test]
fn a_reader_that_gives_up_is_forgotten_whatever_the_inbox_holds() {
    /// The manager keeps the waker of an answer with its side of it.
    struct Held;
    impl std::task::Wake for Held {
        fn wake(self: Arc<Self>) {}
    }
    for is_full in [false, true] {
        let stage = Stage::new(Config::default().inbox(2));
        let (held, room) = (Arc::new(Held), Arc::<str>::from("main"));
        let waker = std::task::Waker::from(Arc::clone(&held));
        let mut cx = std::task::Context::from_waker(&waker);
        let mut patient = Box::pin(stage.hub.next_kept("main".into(), Since::Now));
        let others = [0; 3].map(|_| {
            let mut answer = Box::pin(stage.hub.next_kept("main".into(), Since::Now));
            assert!(answer.as_mut().poll(&mut cx).is_pending());
            stage.settle();
            answer
        });
        assert!(patient.as_mut().poll(&mut cx).is_pending());
        stage.settle();
        let before = Arc::strong_count(&held);
        drop(others);
        let inbox = &stage.hub.shared().inbox;
        while is_full && inbox.try_send(Command::Wake).is_ok() {}
        (0..3).for_each(|_| stage.hub.give_up(Arc::clone(&room)));
        stage.settle();
        assert_eq!(Arc::strong_count(&held), before - 3, "a full inbox: {is_full}");
        publish(&stage, [0]);
        assert!(patient.as_mut().poll(&mut cx).is_ready(), "it has not given up");
    }
}

/// It comes back with the number that the gap had.
#[test]
fn a_reader_that_leaves_behind_a_gap_is_told_of_it_once() {
    for config in [Config::default(), keeping(9)] {
        let stage = Stage::new(config);
        let mut since = Since::Position(4711);
        for missed in [Missed::Unknown, Missed::Nothing, Missed::Nothing] {
            let reading = Reading { ends: true, ..numbering(since) };
            let (_peer, _, task, begin) = subscribe(&stage, reading);
            assert_eq!(finished(task), Disconnect::NORMAL);
            assert_eq!(begin.missed, missed, "since {since}");
            since = Since::Position(begin.position);
        }
    }
}

/// The last reader with `since` comes back and is not told of a loss that was none.
#[test]
fn a_room_keeps_its_count_for_a_lone_reader_until_the_age_of_history() {
    let time = VirtualTime::start();
    let stage = Stage::new(Config::default().history_age(Duration::from_secs(60)));
    let leave = |peer: &Peer| {
        let id = peer.id();
        stage.ask(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
    };
    let (first, _pump, begin) = reader(&stage, Since::Now);
    publish(&stage, 0..2);
    leave(&first).expect("it is here");
    assert_eq!(stage.hub.stats().rooms, 1, "it is there without a member");
    time.advance(Duration::from_secs(59));
    let (second, _pump, again) = reader(&stage, Since::Position(begin.position + 2));
    assert_eq!(again, Begin { position: begin.position + 2, missed: Missed::Nothing });
    leave(&second).expect("it is here");
    time.advance(Duration::from_secs(61));
    assert_eq!(position(&stage, "main"), None, "it is forgotten");
    let (third, _pump, anew) = reader(&stage, Since::Position(begin.position + 2));
    assert_eq!(anew.missed, Missed::Unknown);
    assert_ne!(anew.position, begin.position + 2);
    leave(&third).expect("it is here");
    // A room that no such reader was in goes with its last member.
    let plain = stage.client(None, &["plain"]);
    leave(&plain).expect("it is here");
    assert_eq!(position(&stage, "plain"), None);
}

/// What is kept goes before a client is refused or evicted: its loss is told.
#[test]
fn kept_messages_are_shed_before_a_client_is_refused_or_evicted() {
    let config = keeping(10_000)
        .max_memory(Some(8 << 20))
        .max_clients(Some(10))
        .max_message(60_000)
        .history_bytes(usize::MAX >> 34)
        .history_memory(usize::MAX >> 34);
    let stage = Stage::new(config);
    let memory = Arc::clone(stage.hub.memory());
    publish(&stage, 0..1);
    for number in 1..40 {
        stage
            .ask(move |hub| async move { hub.publish("main", numbered(number, 30_000)).await })
            .expect("it runs");
    }
    let kept = |stage: &Stage| {
        let history = stage.ask(|hub| async move { hub.history("main", Since::Oldest).await });
        history.expect("it runs").expect("a room").messages.len()
    };
    let before = kept(&stage);
    assert!(before > 10, "{before}");
    // Something else takes the memory, up to where clients would be refused.
    let free = memory.watermarks().low.saturating_sub(memory.used());
    let taken = memory.charge(free + 200_000);
    publish(&stage, 40..41);
    let after = kept(&stage);
    assert!(after < before, "{after} of {before}");
    assert!(memory.used() < memory.watermarks().low, "down to where nothing is short");
    let taken = {
        drop(taken);
        memory.charge(memory.watermarks().low)
    };
    publish(&stage, 41..42);
    assert_eq!(kept(&stage), 0, "all of it, before anything else goes");
    drop(taken);
}

/// The manager is asked nothing, and no message comes.
#[test]
fn a_room_is_forgotten_by_time_on_an_idle_hub() {
    let time = VirtualTime::start();
    let stage = Stage::new(keeping(9).history_age(Duration::from_secs(60)));
    publish(&stage, [0]);
    stage.ask(|hub| async move { hub.publish("other", "hello").await }).expect("it runs");
    let rooms = |after: Duration| {
        time.advance(after);
        stage.settle();
        let stats = stage.hub.stats();
        assert_eq!(stats.history_bytes > 0, stats.rooms > 0);
        stats.rooms
    };
    assert_eq!(rooms(Duration::from_secs(59)), 2);
    publish(&stage, [1]);
    let (ada, pump, _) = reader(&stage, Since::Now);
    // The other room is over, and no room is left that may be over soon.
    assert_eq!(rooms(Duration::from_secs(100)), 1, "it has a member");
    let id = ada.id();
    let left = stage.ask(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await });
    left.expect("it was there");
    finished(pump);
    assert_eq!(rooms(Duration::from_secs(59)), 1, "its last member has just left");
    assert_eq!(rooms(Duration::from_secs(2)), 0);
    assert_eq!(time.until_next(), None, "nothing is left to wait for");
}
