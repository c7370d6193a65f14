//! The configuration of a hub, by chance.

use std::time::Duration;

use fastrand::Rng;

use crate::config::Config;
use crate::history_rule::HistoryRule;
use crate::overflow::Overflow;
use crate::sim::script::ROOMS;

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
