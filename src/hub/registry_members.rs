//! Clients come into the registry, and into rooms and out of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disconnect::Disconnect;
use crate::hub::client_id::{ClientId, Refusal};
use crate::hub::command::Inserted;
use crate::hub::cursor::{Cursor, Reader, Reading};
use crate::hub::entry::{Entry, Membership, event_of};
use crate::hub::event::HubEventKind;
use crate::hub::queue::Queue;
use crate::hub::registry::Registry;
use crate::message::Encoding;

impl Registry {
    /// Inserts a client into rooms as [`insert_with`](Self::insert_with) does.
    #[cfg(test)]
    pub(crate) fn insert(
        &mut self,
        queue: Arc<Queue>,
        user: Option<Arc<str>>,
        rooms: &[Arc<str>],
        since: u32,
        reading: Reading,
    ) -> Result<Inserted, Refusal> {
        self.insert_with(queue, user, (rooms, &[]), since, reading)
    }

    /// Inserts a client into its first rooms and prefixes, all of them or none. In the same step it
    /// gets its cursor among the messages of its room, so that it misses none and hears none twice.
    pub(crate) fn insert_with(
        &mut self,
        queue: Arc<Queue>,
        user: Option<Arc<str>>,
        (rooms, prefixes): (&[Arc<str>], &[Arc<str>]),
        since: u32,
        reading: Reading,
    ) -> Result<Inserted, Refusal> {
        let is_one_room = rooms.len() == 1 && !queue.has_labels();
        let is_conflated = queue.is_conflated();
        if reading.since.is_some() && !is_one_room
            || is_conflated && !(is_one_room && prefixes.is_empty())
        {
            return Err(Refusal::OneRoom);
        }
        if self.entries.len() == self.entries.capacity() {
            // By an eighth: doubled, the entries of ten thousand clients would be half empty.
            self.entries.reserve_exact(self.entries.len() / 8 + 8);
        }
        let slot = self.entries.vacant_key() as u32;
        let id = ClientId { slot, generation: self.generation };
        let Some((encoding, has_labels)) = queue.set_id(id) else { return Err(Refusal::Gone) };
        if encoding == Encoding::Deflate {
            self.count_deflating(self.deflating + 1);
        }
        self.labelled += usize::from(has_labels);
        self.generation = self.generation.wrapping_add(1);
        let user = user.map(|user| self.users.add(&user, slot));
        let memberships = Vec::with_capacity(rooms.len() + prefixes.len());
        self.entries.insert(Entry { generation: id.generation, since, queue, user, memberships });
        let rooms_first = rooms.iter().map(|room| (room, false));
        for (name, is_prefix) in rooms_first.chain(prefixes.iter().map(|prefix| (prefix, true))) {
            if let Err(refusal) = self.enter(id, name, is_prefix) {
                self.remove(id, Disconnect::TRY_LATER);
                return Err(refusal);
            }
        }
        self.counters.clients.store(self.entries.len(), Ordering::Relaxed);
        let begin = match rooms {
            [room] if !has_labels => self.begin(id, room, reading),
            _ => None,
        };
        Ok(Inserted { id, begin })
    }

    /// Puts a client into a room; being there already is no error.
    #[cfg(test)]
    pub(crate) fn join(&mut self, id: ClientId, room: &Arc<str>) -> Result<(), Refusal> {
        self.enter(id, room, false)
    }

    /// Puts a client into a room, or has it hear a prefix; being there already is no error.
    pub(crate) fn enter(
        &mut self,
        id: ClientId,
        name: &Arc<str>,
        is_prefix: bool,
    ) -> Result<(), Refusal> {
        let entry = self.get(id).ok_or(Refusal::UnknownClient)?;
        if entry.memberships.iter().any(|membership| membership.is(name, is_prefix)) {
            return Ok(());
        }
        if entry.memberships.len() >= self.rooms_per_client_max {
            return Err(Refusal::RoomsPerClient);
        }
        if self.has_one_room(id) {
            return Err(Refusal::OneRoom);
        }
        let (name, index) = if is_prefix {
            self.prefixes.add(name, id.slot).ok_or(Refusal::Prefixes)?
        } else {
            self.rooms.add(name, id.slot).ok_or(Refusal::Rooms)?
        };
        let entry = &mut self.entries[id.slot as usize];
        let joined = Membership { name, index, is_prefix };
        if self.rooms.readers.are_any() {
            let user = entry.user.clone();
            let join = event_of(HubEventKind::Join, Some(&joined), id, user, None);
            self.rooms.readers.notify(&join);
        }
        entry.memberships.push(joined);
        Ok(())
    }

    /// Whether a client stays in its one room: it counts the messages of it, or hears the newest one
    /// only.
    pub(super) fn has_one_room(&self, id: ClientId) -> bool {
        let counts = |cursor: &mut Cursor| cursor.reader == Reader::Counting;
        let has_one = |entry: &Entry| {
            let is_in = !entry.memberships.is_empty();
            let queue = &entry.queue;
            is_in && (queue.with_cursor(counts) == Some(true) || queue.is_conflated())
        };
        self.get(id).is_some_and(has_one)
    }

    /// Takes a client out of a room; not being there is no error.
    #[cfg(test)]
    pub(crate) fn leave(&mut self, id: ClientId, room: &str) -> Result<(), Refusal> {
        self.exit(id, room, false)
    }

    /// Takes a client out of a room, or off a prefix; not being there is no error.
    pub(crate) fn exit(
        &mut self,
        id: ClientId,
        name: &str,
        is_prefix: bool,
    ) -> Result<(), Refusal> {
        let has_one_room = self.has_one_room(id);
        if self.rooms.readers.are_any() && !has_one_room {
            self.notify_leave(id, name, is_prefix);
        }
        let entry = self.get_mut(id).ok_or(Refusal::UnknownClient)?;
        if let Some(at) = entry.memberships.iter().position(|m| m.is(name, is_prefix)) {
            if has_one_room {
                return Err(Refusal::OneRoom);
            }
            let is_in = |cursor: &mut Cursor| !is_prefix && *cursor.room == *name;
            if entry.queue.with_cursor(is_in) == Some(true) {
                entry.queue.remove_cursor();
            }
            // The others keep the order in which they were joined.
            let membership = entry.memberships.remove(at);
            self.remove_membership(&membership);
        }
        Ok(())
    }
}
