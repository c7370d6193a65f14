//! The registry: every client, by id, by room and by user. Plain data, owned by the manager.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use slab::Slab;

use crate::disconnect::Disconnect;
use crate::hub::batch::{Audience, Batch};
use crate::hub::client_id::{ClientId, Target};
use crate::hub::delivery::{Delivery, push_by_prefix, push_to};
use crate::hub::entry::{Entry, Membership};
use crate::hub::history_config::HistoryConfig;
use crate::hub::prefixes::Prefixes;
use crate::hub::queue::Queue;
use crate::hub::room::Room;
use crate::hub::rooms::Rooms;
use crate::hub::topic::Topic;
use crate::hub::user_index::UserIndex;
use crate::memory::budget::MemoryBudget;
use crate::message::Encoding;
use crate::stats::{Counters, DeliveryCount};

/// The clients of a hub and the indexes over them.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) entries: Slab<Entry>,
    /// Counts inserts; the next client's generation.
    pub(super) generation: u32,
    /// Rooms by name.
    pub(super) rooms: Rooms,
    /// Clients by prefix.
    pub(super) prefixes: Prefixes,
    /// Slots by user.
    pub(super) users: UserIndex,
    /// Rooms that one client may be in.
    pub(super) rooms_per_client_max: usize,
    /// Where the gauges of clients and rooms stand.
    pub(super) counters: Arc<Counters>,
    /// Where everything is charged.
    pub(super) memory: Arc<MemoryBudget>,
    /// Under a ceiling: queues of removed clients, which may hold memory until their connections
    /// have ended. Queues that are gone are dropped before the list grows.
    pub(super) departing: Vec<Weak<Queue>>,
    /// With a backplane: rooms and users that have lost their last member and that the manager has
    /// not taken.
    pub(super) vacated: Option<Vec<Topic>>,
    /// Clients that get compressed frames.
    pub(super) deflating: usize,
    /// Clients that get their messages with labels.
    pub(super) labelled: usize,
}

impl Registry {
    pub(crate) fn new(
        rooms_max: usize,
        rooms_per_client_max: usize,
        history: HistoryConfig,
        counters: Arc<Counters>,
        memory: &Arc<MemoryBudget>,
    ) -> Self {
        let rooms = Rooms::new(rooms_max, history, Arc::clone(&counters), Arc::clone(memory));
        Self {
            entries: Slab::new(),
            generation: 0,
            rooms,
            prefixes: Prefixes::new(Arc::clone(memory)),
            users: UserIndex::default(),
            rooms_per_client_max,
            counters,
            memory: Arc::clone(memory),
            departing: Vec::new(),
            vacated: None,
            deflating: 0,
            labelled: 0,
        }
    }

    /// Notes each room and user from now on that loses its last member.
    pub(crate) fn note_vacated(&mut self) {
        self.vacated = Some(Vec::new());
        self.rooms.share();
    }

    /// Takes the rooms and users that have lost their last member since the last call.
    pub(crate) fn take_vacated(&mut self) -> Vec<Topic> {
        self.vacated.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a topic has a member.
    pub(crate) fn has_members(&self, topic: &Topic) -> bool {
        match topic {
            Topic::All => true,
            Topic::Room(room) => self.rooms.get(room).is_some_and(|room| !room.is_empty()),
            Topic::User(user) => !self.users.slots(user).is_empty(),
        }
    }

    /// The topics that have members.
    pub(crate) fn topics(&self) -> impl Iterator<Item = Topic> {
        let rooms = self.rooms.iter().filter(|(_, room)| !room.is_empty());
        let rooms = rooms.map(|(name, _)| Topic::Room(Arc::clone(name)));
        rooms.chain(self.users.names().map(|user| Topic::User(Arc::clone(user))))
    }

    /// The hub hears a topic no more: the count of its room says nothing about what comes later.
    pub(crate) fn abandon(&mut self, topic: &Topic) {
        if let Topic::Room(room) = topic {
            self.rooms.abandon(room);
        }
    }

    /// In how long [`tidy`](Self::tidy) has rooms to forget, if it may have any.
    pub(crate) fn tidy_due(&self) -> Option<Duration> {
        self.rooms.sweep_due()
    }

    /// Forgets rooms that are over, and drops kept messages while memory is short.
    pub(crate) fn tidy(&mut self) {
        self.rooms.sweep();
        if self.memory.should_shed() {
            let low = self.memory.watermarks().low;
            let memory = Arc::clone(&self.memory);
            self.rooms.shed_while(|rooms| rooms.kept_bytes() > 0 && memory.used() >= low);
        }
    }

    /// Removes a client and closes its queue with `reason`: the only way out of the registry.
    ///
    /// Returns whether the client was there.
    pub(crate) fn remove(&mut self, id: ClientId, reason: Disconnect) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        let entry = self.entries.remove(id.slot as usize);
        if self.rooms.readers.are_any() {
            self.notify_end(id, &entry, &reason);
        }
        for membership in &entry.memberships {
            self.remove_membership(membership);
        }
        if let Some(user) = &entry.user {
            let is_vacant = self.users.remove(user, id.slot);
            if let Some(vacated) = self.vacated.as_mut().filter(|_| is_vacant) {
                vacated.push(Topic::User(Arc::clone(user)));
            }
        }
        // Before the close, which wakes the connection.
        let left = entry.memberships.into_iter().filter(|membership| !membership.is_prefix);
        entry.queue.set_left(left.map(|membership| membership.name).collect());
        entry.queue.close(reason);
        if self.is_deflating() && entry.queue.encoding() == Encoding::Deflate {
            self.count_deflating(self.deflating - 1);
        }
        if self.has_labels() && entry.queue.has_labels() {
            self.labelled -= 1;
        }
        self.track_departing(&entry.queue);
        self.shrink_indexes();
        self.counters.clients.store(self.entries.len(), Ordering::Relaxed);
        true
    }

    /// Removes clients of a user, at most `limit`; returns how many.
    pub(crate) fn remove_clients_of(
        &mut self,
        user: &str,
        reason: &Disconnect,
        limit: usize,
    ) -> usize {
        let mut removed = 0;
        // From the end, where a slot is taken off the list in constant time.
        while let Some(&slot) = self.users.slots(user).last() {
            let generation = self.entries[slot as usize].generation;
            if removed == limit || !self.remove(ClientId { slot, generation }, reason.clone()) {
                break;
            }
            removed += 1;
        }
        removed
    }

    /// Pushes a delivery's messages to at most `budget` of its members; `true` once all are served.
    /// Of [`Target::All`],
    /// [`EMPTY_SLOTS_PER_MEMBER`](crate::hub::delivery::EMPTY_SLOTS_PER_MEMBER) empty slots on the way
    /// count as one member.
    ///
    /// A client is evicted in place when its queue overflows. The registry must not change between
    /// the calls of one delivery.
    pub(crate) fn deliver(&mut self, delivery: &mut Delivery<'_>, budget: usize) -> bool {
        let tally = DeliveryCount::new(&self.counters);
        let is_first = !std::mem::replace(&mut delivery.begun, true);
        let audience = match delivery.target {
            // What has no position of the backplane is not counted, as what is said to a user.
            Target::Room(name) if delivery.position.is_none() && self.rooms.is_positioned(name) => {
                Audience::User
            }
            target => Audience::of(target),
        };
        let ack = delivery.ack.clone();
        let mut batch = Batch::new(delivery.messages, delivery.joined, audience, &tally);
        (batch.ack, batch.room) = (ack.as_ref(), delivery.target.room());
        let mut one = [0];
        let (slots, len): (Option<&[u32]>, usize) = match delivery.target {
            Target::All => {
                if is_first {
                    let dispatches = &*delivery.dispatches;
                    let except = |index: usize| dispatches[index].except;
                    self.rooms.append_everywhere(delivery.messages, except);
                }
                (None, self.entries.capacity())
            }
            Target::Room(name) => {
                let is_uncounted = audience == Audience::User;
                let room = match self.rooms.find(name) {
                    _ if is_uncounted => self.rooms.get(name),
                    Some(room) if !room.is_recorded() => {
                        if is_first {
                            delivery.before = Some(room.count(delivery.messages.len()));
                        }
                        Some(&*room)
                    }
                    _ if is_first => {
                        let dispatches = &*delivery.dispatches;
                        let except = |index: usize| dispatches[index].except;
                        let (at, messages) = (delivery.position, delivery.messages);
                        let kept = self.rooms.append_kept(name, messages, at, except);
                        delivery.before = kept.map(|(_, before)| before);
                        kept.map(|(room, _)| room)
                    }
                    _ => self.rooms.get(name),
                };
                let members = room.map_or(&[][..], Room::members);
                (Some(members), members.len())
            }
            Target::User(user) => {
                let slots = self.users.slots(user);
                (Some(slots), slots.len())
            }
            Target::Client(id) if self.get(*id).is_some() => {
                one[0] = id.slot;
                (Some(&one), 1)
            }
            Target::Client(_) => (None, 0),
        };
        let before = delivery.index;
        let to = (audience, &batch);
        let mut whole = push_to(&self.entries, (slots, len), delivery, to, &tally, budget);
        let mut is_over = delivery.index >= len;
        if let (Target::Room(name), true, false) =
            (delivery.target, is_over, self.prefixes.is_empty())
        {
            let left = budget - (delivery.index - before);
            whole +=
                push_by_prefix((&self.entries, &self.prefixes), name, delivery, to, &tally, left);
            is_over = delivery.walk.is_over;
        }
        if let Some(ack) = &ack {
            ack.wrote(tally.messages());
        }
        drop(tally);
        delivery.dispatches.iter_mut().for_each(|dispatch| dispatch.recipients += whole);
        if !is_over {
            return false;
        }
        for slot in std::mem::take(&mut delivery.evicted) {
            let generation = self.entries[slot as usize].generation;
            self.remove(ClientId { slot, generation }, Disconnect::SLOW);
        }
        true
    }

    /// Whether any client gets its messages with labels.
    #[inline]
    pub(crate) fn has_labels(&self) -> bool {
        self.labelled > 0
    }

    /// Whether any client gets compressed frames.
    pub(crate) fn is_deflating(&self) -> bool {
        self.deflating > 0
    }

    /// Where everything is charged that the hub holds.
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Entry> {
        self.entries.get(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Entry> {
        self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    /// Takes a member out of a room, and the room off the index with its last member; or a client off
    /// a prefix.
    pub(super) fn remove_membership(&mut self, membership: &Membership) {
        let Membership { name, index, is_prefix } = membership;
        let moved = if *is_prefix {
            self.prefixes.remove(name, *index)
        } else {
            self.rooms.remove(name, *index)
        };
        if let Some(moved) = moved {
            let entry = &mut self.entries[moved as usize];
            let moved = entry.memberships.iter_mut().find(|m| m.is(name, *is_prefix));
            if let Some(moved) = moved {
                moved.index = *index;
            }
        }
        let has_members = |room: &Room| !room.is_empty();
        if let Some(vacated) = self.vacated.as_mut().filter(|_| !is_prefix) {
            if !self.rooms.get(name).is_some_and(has_members) {
                vacated.push(Topic::Room(Arc::clone(name)));
            }
        }
    }

    /// Tells publishers whether to compress.
    pub(super) fn count_deflating(&mut self, clients: usize) {
        self.deflating = clients;
        self.counters.deflating.store(clients, Ordering::Relaxed);
    }

    /// Gives memory back once less than a quarter of it is used, as far as the highest slot lets.
    pub(super) fn shrink_indexes(&mut self) {
        /// Below this many entries there is nothing worth giving back.
        const KEEP: usize = 64;
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        // At powers of two only: a slab rebuilds its list of free slots when it shrinks.
        if capacity > KEEP && len < capacity / 4 && (len == 0 || len.is_power_of_two()) {
            self.entries.shrink_to_fit();
        }
        self.rooms.shrink(KEEP);
        self.users.shrink(KEEP);
    }

    /// Entries that slab and indexes have memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity() + self.rooms.capacity() + self.users.capacity()
    }

    /// Checks that every index agrees with the slab and the slab with every index.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (slot, entry) in &self.entries {
            for membership in entry.memberships.iter().filter(|m| m.is_prefix) {
                let clients = self.prefixes.clients(&membership.name);
                assert_eq!(clients[membership.index as usize], slot as u32, "index of prefix");
            }
            for membership in entry.memberships.iter().filter(|m| !m.is_prefix) {
                let members = self.rooms.get(&membership.name).expect("a room").members();
                assert_eq!(members[membership.index as usize], slot as u32, "index in room");
            }
            assert!(entry.memberships.len() <= self.rooms_per_client_max);
            if let Some(user) = &entry.user {
                assert_eq!(self.users.slots(user).iter().filter(|&&s| s == slot as u32).count(), 1);
            }
        }
        self.rooms.check();
        let members: usize = self.rooms.iter().map(|(_, room)| room.len()).sum();
        let memberships: usize = self.entries.iter().map(|(_, e)| e.memberships.len()).sum();
        let prefixed = self.prefixes.check();
        assert_eq!(members + prefixed, memberships, "every index of a room is a client's");
        let enrolled = self.users.check();
        let users = self.entries.iter().filter(|(_, entry)| entry.user.is_some()).count();
        assert_eq!(enrolled, users, "every entry of a user is a client's");
        assert_eq!(self.counters.clients.load(Ordering::Relaxed), self.entries.len());
        let deflating = |(_, entry): &(usize, &Entry)| entry.queue.encoding() == Encoding::Deflate;
        let deflating = self.entries.iter().filter(deflating).count();
        assert_eq!(self.deflating, deflating);
        assert_eq!(self.counters.deflating.load(Ordering::Relaxed), deflating);
        let labelled = self.entries.iter().filter(|(_, entry)| entry.queue.has_labels()).count();
        assert_eq!(self.labelled, labelled);
    }
}

impl Drop for Registry {
    /// Without a manager nothing more will be delivered: every client is closed.
    fn drop(&mut self) {
        for (_, entry) in &mut self.entries {
            entry.queue.set_left(entry.rooms().cloned().collect());
            entry.queue.close(Disconnect::GOING_AWAY);
        }
        self.counters.clients.store(0, Ordering::Relaxed);
        self.count_deflating(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client_id::Refusal;
    use crate::hub::cursor::Reading;

    #[test]
    fn a_stale_id_names_no_client() {
        let counters = Arc::<Counters>::default();
        let queue_config = Arc::new(crate::hub::queue_config::QueueConfig {
            messages: 4,
            bytes: 1024,
            overflow: crate::overflow::Overflow::Disconnect,
            counters: Arc::clone(&counters),
            memory: Arc::default(),
        });
        let mut registry =
            Registry::new(4, 4, HistoryConfig::none(), counters, &queue_config.memory);
        let room: [Arc<str>; 1] = ["main".into()];
        let first = registry
            .insert(Queue::new(&queue_config), None, &room, 0, Reading::PLAIN)
            .expect("there is room")
            .id;
        assert!(registry.remove(first, Disconnect::NORMAL));
        let second = registry
            .insert(Queue::new(&queue_config), None, &room, 0, Reading::PLAIN)
            .expect("there is room")
            .id;
        assert_eq!(first.slot, second.slot, "a slab uses a slot again at once");
        assert!(!registry.remove(first, Disconnect::NORMAL));
        assert_eq!(registry.join(first, &room[0]), Err(Refusal::UnknownClient));
        assert_eq!(registry.members(&Target::Room("main".into())).len(), 1);
        registry.check();
    }
}
