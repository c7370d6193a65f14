//! Evicts clients when memory is short.
//!
//! The client that pins the most memory goes first. It pins what would be free sooner without it:
//! its unfinished message, and its part of every message that waits for it. Memory pinned for less
//! than a tick does not count, so a client that keeps up pins nothing, however much it receives.

use crate::hub::registry::Registry;
use crate::hub::registry_memory::Candidate;

/// Candidates that one pass over the clients finds, the largest of them.
const CANDIDATES_MAX: usize = 32;

/// Checks after every batch whether memory is short. Without a ceiling it never is.
#[derive(Debug, Default)]
pub(crate) struct MemoryEviction {
    /// The tick in which a pass over the clients found no candidate, and the memory that must be
    /// used before another pass is worth it in the same tick.
    last_attempt: Option<(u32, usize)>,
}

impl MemoryEviction {
    /// Evicts until memory is not short any more, if it is.
    pub(crate) fn run(&mut self, registry: &mut Registry) {
        let memory = registry.memory();
        let (used, watermarks, tick) = (memory.used(), *memory.watermarks(), memory.tick());
        let wanted = memory.take_eviction_wanted();
        if used < watermarks.high {
            return;
        }
        let is_futile = self.last_attempt.is_some_and(|(when, least)| when == tick && used < least);
        // A request does not repeat a pass that just failed: any refused peer can send requests at
        // will.
        if is_futile || (!wanted && used < watermarks.critical) {
            return;
        }
        // Memory pinned since before the previous tick has been pinned for at least one full tick.
        let mut evicted = evict_largest(registry, tick.saturating_sub(1), watermarks.low);
        if registry.memory().used().saturating_sub(registry.pending_release()) >= watermarks.last {
            // What is charged now was read before, and cannot be refused.
            evicted += evict_largest(registry, u32::MAX, watermarks.critical);
        }
        let left = registry.memory().used();
        self.last_attempt = (evicted == 0).then_some((tick, used + watermarks.critical / 100));
        if evicted > 0 {
            log::warn!(
                "memory was short, {used} bytes: {evicted} clients evicted, {left} are left"
            );
        }
    }
}

/// Evicts the clients that have pinned the most since before `tick`, until less than `target` is
/// used or no candidate is left; returns how many.
///
/// The unfinished messages of evicted clients are freed with their connections, a moment later, and
/// count as free.
fn evict_largest(registry: &mut Registry, tick: u32, target: usize) -> usize {
    let mut evicted = 0;
    loop {
        let mut going = registry.pending_release();
        let least = registry.memory().least_evictable();
        let candidates =
            largest(registry.candidates(tick).filter(|candidate| candidate.bytes > least));
        if candidates.is_empty() {
            return evicted;
        }
        for candidate in candidates {
            if registry.memory().used().saturating_sub(going) < target {
                return evicted;
            }
            going += registry.evict_for_memory(&candidate);
            evicted += 1;
        }
    }
}

/// The largest candidates, in order; of two that pin as much, the one that was found first.
fn largest(candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
    let mut largest: Vec<Candidate> = Vec::with_capacity(CANDIDATES_MAX);
    for candidate in candidates {
        let at = largest.partition_point(|other| other.bytes >= candidate.bytes);
        if at < CANDIDATES_MAX {
            largest.truncate(CANDIDATES_MAX - 1);
            largest.insert(at, candidate);
        }
    }
    largest
}
