//! The clients that hear all rooms of a prefix.

use std::sync::Arc;

use crate::config::Config;
use crate::hub::room::shrink;
use crate::hub::sizing::NAME;
use crate::memory::budget::MemoryBudget;

/// The prefixes that any client hears, and their clients: at most [`Config::MAX_PREFIXES`], in no
/// order. A publish to a room compares its name with each.
#[derive(Debug)]
pub(crate) struct Prefixes {
    prefixes: Vec<Prefix>,
    /// Where their memory is reserved; that of clients is with their connections.
    memory: Arc<MemoryBudget>,
}

/// A prefix, and the registry's slots of the clients that hear it, one at least.
#[derive(Debug)]
struct Prefix {
    text: Arc<str>,
    clients: Vec<u32>,
}

/// How far a delivery has come among the clients that hear its room by a prefix.
#[derive(Debug, Default)]
pub(crate) struct PrefixWalk {
    /// The index of the prefix, and of its client that is next.
    prefix: usize,
    client: usize,
    /// No client is left.
    pub(crate) is_over: bool,
}

impl Prefixes {
    pub(crate) fn new(memory: Arc<MemoryBudget>) -> Self {
        Self { prefixes: Vec::new(), memory }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Adds a client that does not hear this prefix; returns the list's own copy of the prefix, and
    /// the client's index. `None` if no further prefix may exist.
    pub(crate) fn add(&mut self, text: &Arc<str>, slot: u32) -> Option<(Arc<str>, u32)> {
        let is_full = self.prefixes.len() >= Config::MAX_PREFIXES;
        if is_full && !self.prefixes.iter().any(|prefix| prefix.text == *text) {
            return None;
        }
        Some(self.add_restored(text, slot))
    }

    /// Adds a client as [`add`](Self::add) does, of another process, which no limit refuses.
    pub(crate) fn add_restored(&mut self, text: &str, slot: u32) -> (Arc<str>, u32) {
        let at = self.prefixes.iter().position(|prefix| *prefix.text == *text);
        let at = at.unwrap_or_else(|| {
            self.prefixes.push(Prefix { text: text.into(), clients: Vec::new() });
            self.reserve(self.prefixes.len() - 1);
            self.prefixes.len() - 1
        });
        let prefix = &mut self.prefixes[at];
        prefix.clients.push(slot);
        (Arc::clone(&prefix.text), prefix.clients.len() as u32 - 1)
    }

    /// Takes the client at an index off a prefix, and the prefix off the list with its last client.
    /// Returns the client that has moved to the index.
    pub(crate) fn remove(&mut self, text: &str, index: u32) -> Option<u32> {
        let at = self.prefixes.iter().position(|prefix| *prefix.text == *text)?;
        let clients = &mut self.prefixes[at].clients;
        clients.swap_remove(index as usize);
        let moved = clients.get(index as usize).copied();
        shrink(clients);
        if clients.is_empty() {
            self.prefixes.swap_remove(at);
            self.reserve(self.prefixes.len() + 1);
        }
        moved
    }

    /// Walks on over the clients that hear a room by a prefix: at most `most` of them are returned, and
    /// at most `looks` are looked at. The next call goes on where this one ends.
    ///
    /// `hears_first_by` says of a slot whether a prefix is the first by which its client hears the room:
    /// one that hears it in several ways counts once, and a member not at all.
    pub(crate) fn walk(
        &self,
        room: &str,
        walk: &mut PrefixWalk,
        (most, mut looks): (usize, usize),
        hears_first_by: impl Fn(u32, &str) -> bool,
    ) -> Vec<u32> {
        let mut recipients = Vec::new();
        while let Some(prefix) = self.prefixes.get(walk.prefix) {
            let clients = if room.starts_with(&*prefix.text) { &*prefix.clients } else { &[] };
            for &slot in &clients[walk.client..] {
                if looks == 0 || recipients.len() == most {
                    return recipients;
                }
                looks -= 1;
                walk.client += 1;
                if hears_first_by(slot, &prefix.text) {
                    recipients.push(slot);
                }
            }
            (walk.prefix, walk.client) = (walk.prefix + 1, 0);
        }
        walk.is_over = true;
        recipients
    }

    fn reserve(&self, before: usize) {
        self.memory.reserve(before * NAME, self.prefixes.len() * NAME);
    }

    /// The clients of a prefix.
    #[cfg(test)]
    pub(crate) fn clients(&self, text: &str) -> &[u32] {
        let prefix = self.prefixes.iter().find(|prefix| *prefix.text == *text);
        prefix.map_or(&[], |prefix| &prefix.clients)
    }

    /// Checks that each prefix has a client; returns how many clients all have together.
    #[cfg(test)]
    pub(crate) fn check(&self) -> usize {
        assert!(self.prefixes.iter().all(|prefix| !prefix.clients.is_empty()));
        self.prefixes.iter().map(|prefix| prefix.clients.len()).sum()
    }
}

impl Drop for Prefixes {
    fn drop(&mut self) {
        self.memory.reserve(self.prefixes.len() * NAME, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Prefixes that all cover a room, each with so many clients.
    fn nested(count: usize, clients: u32) -> (Prefixes, String) {
        let mut prefixes = Prefixes::new(Arc::default());
        let room = "x".repeat(count);
        for len in 0..count {
            for slot in 0..clients {
                prefixes.add(&room[..len].into(), slot).expect("there is room");
            }
        }
        (prefixes, room)
    }

    #[test]
    fn a_step_looks_at_no_more_clients_than_it_may() {
        let (prefixes, room) = nested(Config::MAX_PREFIXES, 50);
        let (looks, mut walk, mut steps) = (Cell::new(0), PrefixWalk::default(), 0);
        while !walk.is_over {
            looks.set(0);
            let none = |_: u32, _: &str| {
                looks.set(looks.get() + 1);
                false
            };
            assert_eq!(prefixes.walk(&room, &mut walk, (1, 1_000), none), Vec::<u32>::new());
            assert!(looks.get() <= 1_000, "{} clients in one step", looks.get());
            steps += 1;
        }
        assert_eq!(steps, 4, "3,200 of them");
    }

    #[test]
    fn a_walk_in_steps_finds_what_one_step_finds() {
        let (prefixes, room) = nested(3, 40);
        let hears = |slot: u32, prefix: &str| slot as usize % 3 == prefix.len();
        let all = prefixes.walk(&room, &mut PrefixWalk::default(), (usize::MAX, usize::MAX), hears);
        assert_eq!(all.len(), 40);
        for (most, looks) in [(1, usize::MAX), (7, 20), (usize::MAX, 1)] {
            let (mut walk, mut found) = (PrefixWalk::default(), Vec::new());
            while !walk.is_over {
                let some = prefixes.walk(&room, &mut walk, (most, looks), hears);
                assert!(some.len() <= most);
                found.extend(some);
            }
            assert_eq!(found, all);
        }
    }
}
