//! What a hub hands to another process, and reads back.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::history_rule::HistoryRule;
use crate::hub::cursor::Cursor;
use crate::hub::room::Room;
use crate::hub::state;
use crate::hub::tests::support::{Stage, finished, numbered};
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
    let hand_over = stage.ask(|hub| async move { hub.hand_over().await }).expect("it runs");
    let hub = stage.hub.clone();
    let publishing = stage.start(async move { hub.publish("news", "late").await });
    assert!(!publishing.is_finished());
    drop(hand_over);
    stage.settle();
    assert_eq!(finished(publishing).expect("the hub goes on"), 0);
}

/// What it would forget or evict is in the state.
#[test]
fn the_manager_changes_nothing_once_the_hub_is_handed_over() {
    let (time, age) = (VirtualTime::start(), Duration::from_secs(5));
    let config = Config::default().history(vec![HistoryRule::new("news", 1)]).history_age(age);
    let stage = Stage::new(config);
    stage.ask(|hub| async move { hub.publish("news", "kept").await }).expect("it runs");
    let hub = stage.hub.clone();
    let handing = stage.executor.spawn(async move { hub.hand_over().await });
    time.advance(age);
    stage.settle();
    let hand_over = finished(handing).expect("it runs");
    assert_eq!(stage.hub.stats().rooms, 1, "it was over in the step of the hand-over");
    time.advance(age);
    stage.settle();
    assert_eq!(stage.hub.stats().rooms, 1);
    drop(hand_over);
    stage.settle();
    assert_eq!(stage.hub.stats().rooms, 0);
}
