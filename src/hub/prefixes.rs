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

    /// The slots of all clients that hear a room with these members, each once: the members first.
    /// Empty if no client hears it by a prefix alone.
    ///
    /// `hears_first_by` says of a slot whether a prefix is the first by which its client hears the room:
    /// one that hears it in several ways counts once.
    pub(crate) fn recipients(
        &self,
        room: &str,
        members: &[u32],
        hears_first_by: impl Fn(u32, &str) -> bool,
    ) -> Vec<u32> {
        let mut recipients = Vec::new();
        for prefix in self.prefixes.iter().filter(|prefix| room.starts_with(&*prefix.text)) {
            for &slot in &prefix.clients {
                if hears_first_by(slot, &prefix.text) {
                    if recipients.is_empty() {
                        recipients.extend_from_slice(members);
                    }
                    recipients.push(slot);
                }
            }
        }
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
