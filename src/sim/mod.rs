//! The simulation: the hub and its connections on an executor, a network and a clock that a seed
//! drives.
//!
//! What runs is what is shipped: the manager, the registry, the queues, the inbox, the gate, the
//! handshake, the requests, the pump, the stream of events, the drain. What does not: the accept
//! loop and real sockets, what is asked beyond upgrades, events and posts, and threads (one task
//! runs at a time, in any order).
//!
//! As on a real network, what is written comes later, and a connection that is dropped with unread
//! bytes, or is sent more, is reset: what its peer has not read by then is lost. What a stream that
//! does not deliver alone has not delivered is lost with it in any case.
//!
//! A run connects peers, over WebSocket and for events, some of them steady (they read everything
//! and answer pings), some that stall, break off in the middle of a frame, break the rules, vanish;
//! others post, one request after another; others poll a room, each request waiting for the next
//! message; it lets handlers publish, join, leave, kick, fail, panic
//! and take their time; it lets a program around the hub do the same and change its mind; readers
//! come with `since`, and come back with the position that they have heard last; it lets time pass, or the whole process oversleep. Everything is noted, and at rest and at the end the
//! invariants are held against the notes.
//!
//! HUBLET_SIM_SEEDS=A..B chooses the seeds. With HUBLET_SIM_KEEP_GOING=1 all cores run them, or as
//! many threads as HUBLET_SIM_THREADS says, and each seed that fails is listed. HUBLET_TEST_SEED=N
//! replays one and prints all its events.

mod engine;
mod event_reader;
mod executor;
mod invariants;
mod journal;
pub(crate) mod network;
mod notes;
mod peer;
mod poller;
mod poster;
mod reader;
mod response;
mod rest;
mod restart;
mod script;
mod several;
mod sweep;
mod world;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::config::{Config, HistoryRule, Overflow};
use crate::sim::script::ROOMS;
use crate::sim::sweep::{Run, Sweep, Totals};
use crate::sim::world::World;

/// Runs one seed from its beginning to its end.
fn run(rng: &mut Rng) -> Run {
    let mut world = World::new(rng.fork());
    for _ in 0..world.rng.usize(50..600) {
        world.step();
    }
    world.end();
    invariants::check(&world);
    let stats = world.hub.stats();
    let polled = world.pollers.iter().map(|poller| poller.heard.len() as u64).sum();
    end(world);
    Run { stats, polled }
}

/// The last handle goes, and the hub with it.
fn end(world: World) {
    let World { mut executor, mut rng, time, hub, script, peers, posters, pollers, .. } = world;
    let queue_config = Arc::downgrade(&hub.shared().queue_config);
    let timers = Arc::clone(&hub.shared().timers);
    drop((hub, script));
    while executor.tick(&mut rng) {}
    assert_eq!(executor.tasks(), 0, "no task is left");
    assert_eq!(timers.len(), (0, 0), "no deadline is left");
    drop(timers);
    assert_eq!(time.timers(), 0, "no timer is left");
    let lines =
        peers.iter().map(|peer| &peer.line).chain(posters.iter().map(|poster| &poster.line));
    let mut lines = lines.chain(pollers.iter().map(|poller| &poller.line));
    assert!(lines.all(|line| line.lock().closed), "no descriptor is left");
    drop(executor);
    assert_eq!(queue_config.strong_count(), 0, "no queue is left");
}

/// A configuration, by chance.
pub(crate) fn any_config(rng: &mut Rng) -> Config {
    let seconds = |rng: &mut Rng, max: u64| Duration::from_millis(rng.u64(200..max * 1000));
    let max_message = *rng.choice(&[64, 300, 4096, 16384]).expect("some");
    let overflow = match rng.u8(..4) {
        0 => Overflow::DropNewest,
        1 => Overflow::DropOldest,
        _ => Overflow::Disconnect,
    };
    let history = any_history(rng);
    let overflow = match rng.u8(..6) {
        0 => Overflow::Latest,
        1 | 2 if history.iter().any(|rule| rule.messages > 0) => Overflow::Replay,
        _ => overflow,
    };
    let queue_bytes = (max_message + 10) * rng.usize(1..10).max(2);
    Config::default()
        .http(true)
        .max_message(max_message)
        .max_fragments(8)
        .queue(rng.usize(1..=64))
        .queue_bytes(if rng.bool() { queue_bytes } else { 256 * 1024 })
        .overflow(overflow)
        .history(history)
        .history_bytes(*rng.choice(&[100, 2_000, 256 * 1024]).expect("some"))
        .history_memory(*rng.choice(&[1_000, 20_000, 4 << 20]).expect("some"))
        .history_age(Duration::from_secs(*rng.choice(&[0, 1, 30, 3600]).expect("some")))
        .inbox(rng.usize(1..=16))
        .inbox_bytes((max_message + 10) * rng.usize(1..8))
        .max_clients(Some(if rng.u8(..4) == 0 { rng.usize(1..8) } else { 1_000 }))
        .max_rooms(if rng.u8(..4) == 0 { rng.usize(1..4) } else { 64 })
        .max_rooms_per_client(rng.usize(1..=ROOMS))
        .deflate(if rng.bool() { Some(rng.usize(1..100)) } else { None })
        .handshakes(rng.usize(1..8))
        .max_rate(if rng.u8(..4) == 0 { Some(rng.usize(5..30)) } else { None })
        .message_timeout(seconds(rng, 40))
        .handshake_timeout(seconds(rng, 10))
        .ping_interval(seconds(rng, 30))
        .pong_timeout(seconds(rng, 30))
        .write_timeout(seconds(rng, 15))
        .close_timeout(seconds(rng, 5))
        .drain(seconds(rng, 6))
}

/// Which rooms keep messages, by chance: none, some, or all.
fn any_history(rng: &mut Rng) -> Vec<HistoryRule> {
    let patterns = ["*", "room *", "room 1", "room 2"];
    let rules = if rng.u8(..3) == 0 { 0 } else { rng.usize(1..=patterns.len()) };
    let messages = |rng: &mut Rng| *rng.choice(&[0, 1, 3, 20, 1_000]).expect("some");
    let patterns = rng.choose_multiple(patterns, rules);
    patterns.into_iter().map(|pattern| HistoryRule::new(pattern, messages(rng))).collect()
}

#[test]
fn every_seed_keeps_the_invariants() {
    let sweep = Sweep::from_environment("sim::every");
    let Totals { runs, upgrades, recipients, evicted, compressed, polled, .. } = sweep.run(run);
    println!(
        "{runs} runs: {upgrades} upgrades, {recipients} recipients, {evicted} clients evicted, \
         {compressed} messages compressed, {polled} heard by request"
    );
    // A simulation in which nothing happens proves nothing.
    let happens =
        upgrades > runs && recipients > 50 * runs && evicted > runs / 2 && compressed > runs;
    let happens = happens && polled > runs / 2;
    assert!(happens || sweep.replays(), "too little happens");
}

#[test]
fn a_seed_replays() {
    for seed in 0..30 {
        let [first, second] = [(); 2].map(|()| run(&mut Rng::with_seed(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
}
