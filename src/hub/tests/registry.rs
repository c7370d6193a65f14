//! The registry as plain data, one fact at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disconnect::Disconnect;
use crate::hub::batch::JoinedFrames;
use crate::hub::client_id::{ClientId, Refusal, Target};
use crate::hub::cursor::Reading;
use crate::hub::delivery::{Delivery, Dispatch};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::history_config::HistoryConfig;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::registry::Registry;
use crate::hub::tests::support::{Sink, fates, queue_config};
use crate::message::Message;
use crate::overflow::Overflow;

const ROOMS_MAX: usize = 5;

const ROOMS_PER_CLIENT_MAX: usize = 3;

fn registry() -> (Registry, Arc<QueueConfig>) {
    let queue_config = queue_config(8, 1_000, Overflow::Disconnect);
    (
        Registry::new(
            ROOMS_MAX,
            ROOMS_PER_CLIENT_MAX,
            HistoryConfig::none(),
            Arc::clone(&queue_config.counters),
            &queue_config.memory,
        ),
        queue_config,
    )
}

fn insert(
    registry: &mut Registry,
    queue_config: &Arc<QueueConfig>,
    rooms: &[&str],
) -> (ClientId, Arc<Queue>) {
    let queue = Queue::new(queue_config);
    let rooms: Vec<_> = rooms.iter().map(|&room| Arc::from(room)).collect();
    let id =
        registry.insert(Arc::clone(&queue), None, &rooms, 0, Reading::PLAIN).expect("a place").id;
    (id, queue)
}

fn deliver(registry: &mut Registry, target: Target) -> usize {
    deliver_in_slices(registry, target).0
}

/// Delivers to 128 at a time; returns how many took it, and how many slices that was.
fn deliver_in_slices(registry: &mut Registry, target: Target) -> (usize, usize) {
    let run = [Message::from("hello")];
    let mut dispatches = [Dispatch::new(None)];
    let joined = JoinedFrames::default();
    let mut delivery = Delivery::new(&target, &run, &joined, &mut dispatches);
    let mut slices = 1;
    while !registry.deliver(&mut delivery, 128) {
        slices += 1;
    }
    (dispatches[0].recipients, slices)
}

/// Invariant 4: the slot of a client is used again by the next one, its id is not.
#[test]
fn id_of_the_gone_does_not_name_the_next_in_its_slot() {
    let (mut registry, queue_config) = registry();
    let (old, _) = insert(&mut registry, &queue_config, &["a"]);
    assert!(registry.remove(old, Disconnect::NORMAL));
    let (new, queue) = insert(&mut registry, &queue_config, &["a"]);
    let slot = |id: ClientId| id.to_string().split('-').next().map(str::to_owned);
    assert_eq!(slot(old), slot(new), "the slot is the same");

    assert!(!registry.remove(old, Disconnect::NORMAL));
    assert_eq!(registry.join(old, &"b".into()), Err(Refusal::UnknownClient));
    assert_eq!(registry.leave(old, "a"), Err(Refusal::UnknownClient));
    assert_eq!(registry.rooms_of(old), None);
    assert_eq!(deliver(&mut registry, Target::Client(old)), 0);
    assert_eq!(queue.depth().0, 0);
    assert_eq!(deliver(&mut registry, Target::Client(new)), 1);
}

/// Invariant 5: with the last member the room is gone.
#[test]
fn room_ends_with_its_last_member() {
    let (mut registry, queue_config) = registry();
    let (first, _) = insert(&mut registry, &queue_config, &["a", "b"]);
    let (second, _) = insert(&mut registry, &queue_config, &["a"]);
    registry.leave(first, "b").expect("it is there");
    assert_eq!(queue_config.counters.rooms.load(Ordering::Relaxed), 1);
    registry.remove(first, Disconnect::NORMAL);
    assert_eq!(queue_config.counters.rooms.load(Ordering::Relaxed), 1);
    registry.remove(second, Disconnect::NORMAL);
    assert_eq!(queue_config.counters.rooms.load(Ordering::Relaxed), 0);
}

/// Invariant 5: a client that is refused one of its rooms is in none and its queue takes nothing.
#[test]
fn refused_insert_leaves_nothing_behind() {
    let (mut registry, queue_config) = registry();
    let queue = Queue::new(&queue_config);
    let rooms = ["a", "b", "c", "d"].map(Arc::from);
    let refused =
        registry.insert(Arc::clone(&queue), Some("ada".into()), &rooms, 0, Reading::PLAIN);
    assert_eq!(refused, Err(Refusal::RoomsPerClient));
    registry.check();
    assert!(registry.members(&Target::All).is_empty());
    assert_eq!(queue.reason(), Some(Disconnect::TRY_LATER));
    assert_eq!(deliver(&mut registry, Target::User("ada".into())), 0);
}

/// Invariant 6: a queue killed without a word is found by the next delivery.
#[test]
fn delivery_reaps_the_dead() {
    let (mut registry, queue_config) = registry();
    let (_, queue) = insert(&mut registry, &queue_config, &["a"]);
    let (alive, _) = insert(&mut registry, &queue_config, &["a"]);
    queue.disconnect();
    assert_eq!(deliver(&mut registry, Target::Room("a".into())), 1);
    registry.check();
    let left: Vec<_> = registry.members(&Target::All).iter().map(|member| member.id).collect();
    assert_eq!(left, [alive]);
}

/// Invariant 10: no round number, no slice and no gap in the slab is miscounted.
#[test]
fn every_one_of_5000_idle_clients_is_reached() {
    let (mut registry, queue_config) = registry();
    let sinks: Vec<_> = (0..5_000)
        .map(|_| {
            let (_, queue) = insert(&mut registry, &queue_config, &["a"]);
            let sink = Sink::new(usize::MAX);
            queue.open(Some(Arc::clone(&sink) as Arc<dyn DirectWriter>));
            (sink, queue)
        })
        .collect();
    assert_eq!(deliver(&mut registry, Target::Room("a".into())), 5_000);
    assert_eq!(deliver(&mut registry, Target::All), 5_000);
    assert_eq!(fates(&queue_config.counters), [10_000, 0, 0]);
    assert!(sinks.iter().all(|(sink, _)| sink.lock().taken.len() == 2 * 7));
}

/// The last client stays in a high slot when the others have gone; a message for all need not make
/// a hundred turns of the way to it.
#[test]
fn the_last_client_of_a_storm_is_reached_in_few_slices() {
    let (mut registry, queue_config) = registry();
    let mut ids: Vec<_> =
        (0..16_384).map(|_| insert(&mut registry, &queue_config, &[]).0).collect();
    let (served, slices) = deliver_in_slices(&mut registry, Target::All);
    // 128 at a time, and at most an eighth of the slots is free.
    assert!(served == 16_384 && (128..=145).contains(&slices), "{slices} slices for {served}");
    ids.pop();
    for id in ids {
        assert!(registry.remove(id, Disconnect::NORMAL));
    }
    let (served, slices) = deliver_in_slices(&mut registry, Target::All);
    assert!(served == 1 && slices <= 3, "{slices} slices for {served}");
}

/// Invariant 13: after a storm the registry holds memory for the clients that are left alone.
#[test]
fn indexes_give_memory_back_after_a_storm() {
    let queue_config = queue_config(8, 1_000, Overflow::Disconnect);
    let mut registry = Registry::new(
        10_000,
        8,
        HistoryConfig::none(),
        Arc::clone(&queue_config.counters),
        &queue_config.memory,
    );
    let ids: Vec<_> = (0..10_000)
        .map(|n| {
            let rooms = [Arc::from("all"), Arc::from(format!("room {n}"))];
            let user = Some(Arc::from("ada"));
            registry
                .insert(Queue::new(&queue_config), user, &rooms[..1 + n % 2], 0, Reading::PLAIN)
                .expect("a place")
                .id
        })
        .collect();
    for id in ids.into_iter().skip(1) {
        assert!(registry.remove(id, Disconnect::NORMAL));
    }
    registry.check();
    let capacity = registry.capacity();
    assert!(capacity < 1_000, "{capacity} places are kept for one client");
}
