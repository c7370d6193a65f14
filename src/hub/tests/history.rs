//! Rooms that count and keep messages: what they keep, for how long, and without any member.

use std::future::Future as _;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::command::Command;
use crate::hub::cursor::Reading;
use crate::hub::since::{Begin, Missed, Since};
use crate::hub::tests::reader::{keeping, numbering, position, publish, reader, subscribe};
use crate::hub::tests::support::{Peer, Stage, finished, numbered};
use crate::time::virtual_time::VirtualTime;

#[test]
fn a_broadcast_counts_in_each_room() {
    let stage = Stage::new(keeping(9));
    publish(&stage, [0]);
    let _other = stage.client(None, &["other"]);
    let before = ["main", "other"].map(|room| position(&stage, room).expect("a room"));
    let (ada, _pump, _) = reader(&stage, Since::Newest(1));
    stage.call(|hub| async move { hub.broadcast(numbered(1, 4)).await }).expect("it runs");
    let after = ["main", "other"].map(|room| position(&stage, room).expect("a room"));
    assert_eq!(after, before.map(|before| before + 1));
    assert_eq!(ada.numbers(), [0, 1]);
    let (late, _pump, _) = reader(&stage, Since::Newest(2));
    assert_eq!(late.numbers(), [0, 1], "it is kept as any other");
}

#[test]
fn what_only_reads_a_room_that_had_no_message_leaves_none() {
    for config in [Config::default(), keeping(9)] {
        let stage = Stage::new(config);
        let reading = Reading { ends: true, ..numbering(Since::Oldest) };
        let (_peer, _, task, _) = subscribe(&stage, reading);
        assert_eq!(finished(task), Disconnect::NORMAL);
        assert_eq!(stage.hub.stats().rooms, 0);
        let (peer, _, task, _) = subscribe(&stage, numbering(Since::Oldest));
        let id = peer.id();
        let left =
            stage.call(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await });
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
        .call(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
        .expect("it was there");
    assert_eq!(position(&stage, "main"), Some(heard.position + 1));
}

/// The inbox is full as it gives up, and the manager has nothing of it afterwards.
#[test]
fn a_reader_that_gives_up_is_forgotten_whatever_the_inbox_holds() {
    /// The manager keeps the waker of an answer with its side of it, and so a count of this.
    struct Counted;
    impl std::task::Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    for is_full in [false, true] {
        let stage = Stage::new(Config::default().inbox(2));
        let (counted, room) = (Arc::new(Counted), Arc::<str>::from("main"));
        let waker = std::task::Waker::from(Arc::clone(&counted));
        let mut cx = std::task::Context::from_waker(&waker);
        let mut patient = Box::pin(stage.hub.next_kept("main".into(), Since::Now));
        let others = [0; 3].map(|_| {
            let mut answer = Box::pin(stage.hub.next_kept("main".into(), Since::Now));
            assert!(answer.as_mut().poll(&mut cx).is_pending());
            stage.rest();
            answer
        });
        assert!(patient.as_mut().poll(&mut cx).is_pending());
        stage.rest();
        let before = Arc::strong_count(&counted);
        drop(others);
        let inbox = &stage.hub.shared().inbox;
        while is_full && inbox.try_send(Command::Wake).is_ok() {}
        (0..3).for_each(|_| stage.hub.give_up(Arc::clone(&room)));
        stage.rest();
        assert_eq!(Arc::strong_count(&counted), before - 3, "a full inbox: {is_full}");
        publish(&stage, [0]);
        assert!(patient.as_mut().poll(&mut cx).is_ready(), "it has not given up");
    }
}

/// It comes back with the number that the gap had.
#[test]
fn a_reader_that_leaves_behind_a_gap_hears_of_it_once() {
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
        stage.call(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
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
        .history_bytes((1 << 30) - 1)
        .history_memory((1 << 30) - 1);
    let stage = Stage::new(config);
    let memory = Arc::clone(stage.hub.memory());
    publish(&stage, 0..1);
    for number in 1..40 {
        stage
            .call(move |hub| async move { hub.publish("main", numbered(number, 30_000)).await })
            .expect("it runs");
    }
    let kept = |stage: &Stage| {
        let history = stage.call(|hub| async move { hub.history("main", Since::Oldest).await });
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
    stage.call(|hub| async move { hub.publish("other", "hello").await }).expect("it runs");
    let rooms = |after: Duration| {
        time.advance(after);
        stage.rest();
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
    let left = stage.call(move |hub| async move { hub.disconnect(id, Disconnect::NORMAL).await });
    left.expect("it was there");
    finished(pump);
    assert_eq!(rooms(Duration::from_secs(59)), 1, "its last member has just left");
    assert_eq!(rooms(Duration::from_secs(2)), 0);
    assert_eq!(time.until_next(), None, "nothing is left to wait for");
}
