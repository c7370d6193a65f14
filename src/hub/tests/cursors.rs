//! Cursors: readers that come with `since`.

use std::future::poll_fn;
use std::sync::Arc;

use fastrand::Rng;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::backlog::Taken;
use crate::hub::cursor::Reading;
use crate::hub::queue_state::Phase;
use crate::hub::since::{Begin, Missed, Since};
use crate::hub::tests::reader::{
    check_fates, counting, keeping, numbering, position, publish, reader, subscribe,
};
use crate::hub::tests::support::{Stage, finished, number_of, numbered, seeded};
use crate::overflow::Overflow;

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
fn a_reader_without_history_hears_what_comes_and_how_much_is_lost() {
    let stage = Stage::new(Config::default());
    let (first, _pump, begin) = reader(&stage, Since::Oldest);
    assert_eq!((begin.missed, position(&stage, "main")), (Missed::Nothing, Some(begin.position)));
    publish(&stage, 0..3);
    assert_eq!(first.numbers(), [0, 1, 2]);
    let (_peer, _pump, second) = reader(&stage, Since::Position(begin.position + 1));
    let expected = Begin { position: begin.position + 3, missed: Missed::Messages(2) };
    assert_eq!(second, expected);
}

#[test]
fn half_a_queue_of_kept_messages_waits_at_a_time() {
    let stage = Stage::new(keeping(100).queue(8));
    publish(&stage, 0..40);
    let (peer, _) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    peer.queue.open(None);
    let (mut heard, mut requests) = (Vec::new(), 0);
    while heard.len() < 40 {
        if let Some(id) = peer.queue.take_request() {
            requests += 1;
            stage.hub.request_more(id);
            stage.rest();
        }
        assert!((1..=4).contains(&peer.queue.depth().0), "half of a queue of 8");
        let Taken { message, .. } = finished(stage.start({
            let queue = Arc::clone(&peer.queue);
            async move { poll_fn(|cx| queue.poll_take(cx)).await }
        }))
        .expect("it is here");
        heard.push(number_of(message.as_bytes()));
    }
    assert_eq!((heard, requests), ((0..40).collect(), 10));
    assert_eq!(peer.queue.take_request(), None, "a client that is live asks for nothing");
}

#[test]
fn a_request_for_more_is_made_once() {
    let stage = Stage::new(keeping(100).queue(8));
    publish(&stage, 0..40);
    let (peer, _) = stage.client_as(None, &["main"], numbering(Since::Oldest));
    peer.queue.open(None);
    let id = peer.queue.take_request().expect("it is behind");
    assert_eq!(peer.queue.take_request(), None, "it has asked");
    stage.hub.request_more(id);
    stage.rest();
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
                4 => stage.rest(),
                _ => ticks(&stage, rng),
            }
        }
        peer.sink.grant(usize::MAX / 2);
        if pump.is_none() {
            peer.open();
            pump = Some(stage.executor.spawn(peer.reader_pump()));
        }
        stage.rest();
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
    stage.rest();
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
        stage.rest();
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
    stage.call(|hub| async move { hub.publish("main", numbered(3, 200)).await }).expect("it runs");
    late.queue.open(None);
    let queue = Arc::clone(&late.queue);
    let mut first = true;
    let taking = stage.executor.spawn(poll_fn(move |cx| {
        let taken = queue.poll_take(cx);
        assert!(taken.is_pending(), "there is nothing to take");
        if std::mem::take(&mut first) { taken.map(drop) } else { std::task::Poll::Ready(()) }
    }));
    stage.rest();
    assert!(!taking.is_finished());
    stage.hub.request_more(late.queue.take_request().expect("it is behind"));
    stage.rest();
    assert!(taking.is_finished(), "it is woken");
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
    let sent = stage.call(|hub| async move { hub.send(id, numbered(0, 4)).await });
    assert!(sent.expect_err("its count would be wrong").is_one_room());
    let sent = stage.call(|hub| async move { hub.send_to_user("ada", numbered(1, 4)).await });
    assert_eq!(sent.expect("the other connection has it"), 1);
    let joined = stage.call(move |hub| async move {
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
