//! What a hub hands to another process, and reads back.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::history_rule::HistoryRule;
use crate::hub::cursor::{Cursor, Reader, Reading};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_outcome::Push;
use crate::hub::room::Room;
use crate::hub::since::Since;
use crate::hub::state;
use crate::hub::tests::lane::Lane;
use crate::hub::tests::support::{Stage, finished, numbered};
use crate::overflow::Overflow;
use crate::time::virtual_time::VirtualTime;

#[test]
fn a_room_goes_on_with_its_messages_and_its_count() {
    let mut room = Room::new(3, 0);
    for number in 0..5 {
        room.append(&numbered(number, 4), None, usize::MAX, 7);
    }
    let plain = room.plain("news");
    assert_eq!(plain.messages.len(), 3);
    assert_eq!(Room::restored(&plain, 3, usize::MAX).plain("news"), plain);
}

#[test]
fn a_room_that_keeps_no_message_goes_on_with_its_count() {
    let plain = state::Room {
        name: "news".to_owned(),
        born: 7,
        newest: 9,
        outlives: true,
        last_member: 5,
        ..state::Room::default()
    };
    assert_eq!(Room::restored(&plain, 0, 0).plain("news"), plain);
}

#[test]
fn a_cursor_that_is_behind_goes_on_where_it_was() {
    for reader in 0..3 {
        let plain = state::Cursor { room: "news".to_owned(), reader, position: 7, unread: 2 };
        let cursor = Cursor::restored(&Arc::from("news"), &plain, 9).expect("it can be");
        assert!(cursor.is_behind());
        assert_eq!(cursor.plain(), plain);
    }
}

/// A message that came later would be in neither the state nor the next process.
#[test]
fn the_manager_takes_no_command_once_the_hub_is_handed_over() {
    let stage = Stage::new(Config::default());
    let hand_over = stage.call(|hub| async move { hub.hand_over().await }).expect("it runs");
    let hub = stage.hub.clone();
    let publishing = stage.start(async move { hub.publish("news", "late").await });
    assert!(!publishing.is_finished());
    drop(hand_over);
    stage.rest();
    assert_eq!(finished(publishing).expect("the hub goes on"), 0);
}

/// What it would forget or evict is in the state.
#[test]
fn the_manager_changes_nothing_once_the_hub_is_handed_over() {
    let (time, age) = (VirtualTime::start(), Duration::from_secs(5));
    let config = Config::default().history(vec![HistoryRule::new("news", 1)]).history_age(age);
    let stage = Stage::new(config);
    stage.call(|hub| async move { hub.publish("news", "kept").await }).expect("it runs");
    let hub = stage.hub.clone();
    let handing = stage.executor.spawn(async move { hub.hand_over().await });
    time.advance(age);
    stage.rest();
    let hand_over = finished(handing).expect("it runs");
    assert_eq!(stage.hub.stats().rooms, 1, "it was over in the step of the hand-over");
    time.advance(age);
    stage.rest();
    assert_eq!(stage.hub.stats().rooms, 1);
    drop(hand_over);
    stage.rest();
    assert_eq!(stage.hub.stats().rooms, 0);
}

/// A process that takes a client over learns its limits from the handler, after its place.
#[test]
fn a_client_with_replay_of_its_own_waits_in_its_room_after_a_restart_too() {
    for (all, own, waits) in [
        (Overflow::Disconnect, Overflow::Replay, true),
        (Overflow::Replay, Overflow::Disconnect, false),
    ] {
        let lane = Lane::held(2, 1_000, all, 0);
        let mut cursor = Cursor::new("a".into(), Reading::PLAIN, 7, 7);
        cursor.keeps = true;
        lane.queue.set_cursor(cursor);
        let (counters, memory) = (&lane.queue_config.counters, &lane.queue_config.memory);
        let (counters, memory) = (Arc::clone(counters), Arc::clone(memory));
        let terms = QueueConfig { messages: 2, bytes: 1_000, overflow: own, counters, memory };
        lane.queue.set_terms(terms);
        lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
        assert_eq!(lane.push_each(0..2), Push::Ok);
        assert_eq!(lane.push_each(2..3), if waits { Push::Ok } else { Push::Full });
    }
}

/// Another process may take over what neither has anything to write nor a gap to tell of.
#[test]
fn a_client_is_clean_once_it_has_all_and_knows_of_its_gap() {
    let lane = Lane::held(8, 1_000, Overflow::Disconnect, 0);
    let reading = Reading { reader: Reader::Numbered, since: Some(Since::Now), ends: false };
    lane.queue.set_cursor(Cursor::new("a".into(), reading, 7, 7));
    assert!(lane.queue.clean().is_none(), "it is in its handshake");
    lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
    assert_eq!(lane.queue.clean().and_then(|clean| clean.cursor).map(|at| at.position), Some(7));
    lane.push_each(0..1);
    assert!(lane.queue.clean().is_none(), "a message waits");
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert!(lane.queue.clean().is_some());
    assert!(!lane.queue.begin_anew("a", 50), "it is told of gaps");
    assert!(lane.drain().has_gap);
    lane.queue.note_gap_sent(49);
    assert!(lane.queue.clean().is_none(), "it was told of another one");
    lane.queue.note_gap_sent(50);
    assert_eq!(lane.queue.clean().and_then(|clean| clean.cursor).map(|at| at.position), Some(50));
    lane.queue.close(Disconnect::NORMAL);
    assert!(lane.queue.clean().is_none());
}
