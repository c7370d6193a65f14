//! The sockets of a poller, by the token of their events.

use std::sync::Arc;

use slab::Slab;

use crate::net::readiness::Readiness;

/// The token of a socket's events: the key of its entry, and a number that no earlier socket with this
/// key had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventToken {
    number: u32,
    key: u32,
}

impl EventToken {
    pub(crate) fn number(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.key)
    }

    fn of(number: u64) -> Self {
        Self { number: (number >> 32) as u32, key: number as u32 }
    }
}

/// The readiness of each socket that is registered.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    entries: Slab<(u32, Arc<Readiness>)>,
    /// Sockets registered so far. It tells a socket from an earlier one with the same key.
    number: u32,
    /// Memory is released when no more sockets than this are left.
    few: usize,
}

impl Registrations {
    pub(crate) fn insert(&mut self, readiness: Arc<Readiness>) -> EventToken {
        self.number = self.number.wrapping_add(1);
        if self.entries.len() == self.entries.capacity() {
            // By an eighth: doubled, the entries of ten thousand sockets would be half empty.
            self.entries.reserve_exact(self.entries.len() / 8 + 8);
            self.few = self.entries.capacity() / 4;
        }
        let key = self.entries.insert((self.number, readiness)) as u32;
        EventToken { number: self.number, key }
    }

    pub(crate) fn remove(&mut self, token: EventToken) -> Option<Arc<Readiness>> {
        let removed = self.entries.try_remove(token.key as usize);
        /// Below this many entries the memory (1 KB) is kept.
        const KEEP: usize = 64;
        if self.entries.len() <= self.few && self.entries.capacity() > KEEP {
            self.entries.shrink_to_fit();
            // A socket in the last slot may keep the slab large: try again at half as many.
            self.few = self.entries.len() / 2;
        }
        removed.map(|(_, readiness)| readiness)
    }

    /// The readiness of the socket with this token, unless it was removed.
    pub(crate) fn find(&self, number: u64) -> Option<Arc<Readiness>> {
        let token = EventToken::of(number);
        let (number, readiness) = self.entries.get(token.key as usize)?;
        (*number == token.number).then(|| Arc::clone(readiness))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_shrinks_when_most_sockets_are_removed() {
        let mut registrations = Registrations::default();
        registrations.insert(Arc::default());
        let tokens: Vec<_> = (0..10_000).map(|_| registrations.insert(Arc::default())).collect();
        assert!(registrations.entries.capacity() >= 10_000);
        for token in tokens {
            assert!(registrations.remove(token).is_some());
        }
        assert!(registrations.entries.capacity() <= 64);
    }
    #[test]
    fn token_of_a_removed_socket_does_not_find_the_next_one_with_its_key() {
        let mut registrations = Registrations::default();
        let before = registrations.insert(Arc::default());
        registrations.remove(before);
        let token = registrations.insert(Arc::default());
        assert_eq!(token.key, before.key);
        assert!(registrations.find(before.number()).is_none());
        assert!(registrations.find(token.number()).is_some());
        assert_eq!(EventToken::of(token.number()), token);
    }
}
