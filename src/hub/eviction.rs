//! Who goes when memory is short.
//!
//! The largest debtor goes first, and a debt is what would be free sooner without the client: its
//! unfinished message, and its part of every message that waits for it. What it has owed for less
//! than a moment does not count, so who keeps up owes nothing, however much passes through.

use crate::hub::registry::{Candidate, Registry};

/// Debtors that are found in one pass over the clients, the largest of them.
const CANDIDATES_MAX: usize = 32;

/// Looks after every batch whether memory is short. Without a ceiling it never is.
#[derive(Debug, Default)]
pub(crate) struct MemoryEviction {
    /// The tick in which a pass over the clients found nobody to evict, and the memory that must be
    /// used before another one is worth it in the same tick.
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
        let in_vain = self.last_attempt.is_some_and(|(when, least)| when == tick && used < least);
        // Nor is it for who asks: anybody may, and as often as it is refused.
        if in_vain || (!wanted && used < watermarks.critical) {
            return;
        }
        // Who has owed since the last tick but one has owed for a whole tick at least.
        let mut evicted = evict_largest(registry, tick.saturating_sub(1), watermarks.low);
        if registry.memory().used().saturating_sub(registry.pending_release()) >= watermarks.last {
            // What comes in now was read before and cannot be refused.
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

/// Evicts the largest of those who have owed since before `tick` until less than `target` is used
/// or nobody owes any more; returns how many.
///
/// What the evicted were sending goes with their connections, a moment later, and counts as gone.
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

/// The largest of the debtors, in order; of two that owe as much, the one that came first.
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
