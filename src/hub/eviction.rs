//! Who goes when memory is short.
//!
//! The largest debtor goes first, and a debt is what would be free sooner without the client: its
//! unfinished message, and its part of every message that waits for it. What it has owed for less
//! than a moment does not count, so who keeps up owes nothing, however much passes through.

use crate::hub::registry::{Debtor, Registry};

/// Debtors that are found in one pass over the clients, the largest of them.
const AT_A_TIME: usize = 32;

/// Looks after every batch whether memory is short. Without a ceiling it never is.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// The tick in which a pass over the clients found nobody to evict, and the memory that must be
    /// used before another one is worth it in the same tick.
    in_vain: Option<(u32, usize)>,
}

impl Relief {
    /// Evicts until memory is not short any more, if it is.
    pub(crate) fn look(&mut self, registry: &mut Registry) {
        let memory = registry.memory();
        let (used, levels, tick) = (memory.used(), *memory.levels(), memory.tick());
        let wanted = memory.take_wanted();
        if used < levels.high {
            return;
        }
        let in_vain = self.in_vain.is_some_and(|(when, least)| when == tick && used < least);
        // Nor is it for who asks: anybody may, and as often as it is refused.
        if in_vain || (!wanted && used < levels.critical) {
            return;
        }
        // Who has owed since the last tick but one has owed for a whole tick at least.
        let mut evicted = relieve(registry, tick.saturating_sub(1), levels.low);
        if registry.memory().used().saturating_sub(registry.going()) >= levels.last {
            // What comes in now was read before and cannot be refused.
            evicted += relieve(registry, u32::MAX, levels.critical);
        }
        let left = registry.memory().used();
        self.in_vain = (evicted == 0).then_some((tick, used + levels.critical / 100));
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
fn relieve(registry: &mut Registry, tick: u32, target: usize) -> usize {
    let mut evicted = 0;
    loop {
        let mut going = registry.going();
        let least = registry.memory().least_debt();
        let debtors = largest(registry.debts(tick).filter(|debtor| debtor.bytes > least));
        if debtors.is_empty() {
            return evicted;
        }
        for debtor in debtors {
            if registry.memory().used().saturating_sub(going) < target {
                return evicted;
            }
            going += registry.shed(&debtor);
            evicted += 1;
        }
    }
}

/// The largest of the debtors, in order; of two that owe as much, the one that came first.
fn largest(debtors: impl Iterator<Item = Debtor>) -> Vec<Debtor> {
    let mut largest: Vec<Debtor> = Vec::with_capacity(AT_A_TIME);
    for debtor in debtors {
        let at = largest.partition_point(|other| other.bytes >= debtor.bytes);
        if at < AT_A_TIME {
            largest.truncate(AT_A_TIME - 1);
            largest.insert(at, debtor);
        }
    }
    largest
}
