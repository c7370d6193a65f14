//! The users of the registry, each with the slots of its clients.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::room::shrink;

/// Slots by user. A user exists while it has a client.
#[derive(Debug, Default)]
pub(crate) struct UserIndex {
    slots: HashMap<Arc<str>, Vec<u32>>,
}

impl UserIndex {
    /// The slots of a user's clients, the one that came last at the end.
    pub(crate) fn slots(&self, user: &str) -> &[u32] {
        self.slots.get(user).map_or(&[], |slots| slots)
    }

    /// Lists a slot under its user, and returns the index's own copy of the name.
    pub(crate) fn add(&mut self, user: &Arc<str>, slot: u32) -> Arc<str> {
        let name = self.slots.get_key_value(user).map_or(user, |(name, _)| name);
        let name = Arc::clone(name);
        self.slots.entry(Arc::clone(&name)).or_default().push(slot);
        name
    }

    /// Takes a slot off its user's list, and the user off the index with its last client; `true` if
    /// that was the last.
    pub(crate) fn remove(&mut self, user: &str, slot: u32) -> bool {
        let Some(slots) = self.slots.get_mut(user) else { return false };
        if let Some(index) = slots.iter().rposition(|&other| other == slot) {
            slots.swap_remove(index);
        }
        let is_last = slots.is_empty();
        if is_last {
            self.slots.remove(user);
        } else {
            shrink(slots);
        }
        is_last
    }

    /// Gives memory back once less than a quarter of it is used.
    pub(crate) fn shrink(&mut self, keep: usize) {
        let (len, capacity) = (self.slots.len(), self.slots.capacity());
        if capacity > keep && len < capacity / 4 {
            self.slots.shrink_to(len * 2);
        }
    }

    /// The users.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slots.keys()
    }

    /// Entries that the index has memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity() + self.slots.values().map(Vec::capacity).sum::<usize>()
    }

    /// Checks that each user has a client; returns how many all have.
    #[cfg(test)]
    pub(crate) fn check(&self) -> usize {
        assert!(self.slots.values().all(|slots| !slots.is_empty()), "no user without a client");
        self.slots.values().map(Vec::len).sum()
    }
}
