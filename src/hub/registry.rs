//! The registry: every client, by id, by room and by user. Plain data, owned by the manager.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use slab::Slab;

use crate::disconnect::Disconnect;
use crate::hub::batch::{Audience, BATCH_MAX, Batch, JoinedFrames};
use crate::hub::client_id::{ClientId, Member, Refusal, Target};
use crate::hub::command::Inserted;
use crate::hub::cursor::{Cursor, Reader, Reading};
use crate::hub::delivery::{Delivery, push_to};
use crate::hub::entry::{Entry, Membership};
use crate::hub::event::{EventQueue, HubEvent, HubEventKind};
use crate::hub::history_config::HistoryConfig;
use crate::hub::holding::{Kept, Roster, Standing, WaitsFor};
use crate::hub::queue::Queue;
use crate::hub::room::Room;
use crate::hub::rooms::Rooms;
use crate::hub::since::{Begin, History, Missed, Since};
use crate::hub::state::State;
use crate::hub::topic::Topic;
use crate::hub::user_index::UserIndex;
use crate::memory::budget::MemoryBudget;
use crate::message::Encoding;
use crate::stats::{Counters, DeliveryCount, add};

/// The clients of a hub and the indexes over them.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: Slab<Entry>,
    /// Counts inserts; the next client's generation.
    generation: u32,
    /// Rooms by name.
    rooms: Rooms,
    /// Slots by user.
    users: UserIndex,
    /// Rooms that one client may be in.
    rooms_per_client_max: usize,
    /// Where the gauges of clients and rooms stand.
    counters: Arc<Counters>,
    /// Where everything is charged.
    memory: Arc<MemoryBudget>,
    /// Under a ceiling: queues of removed clients, which may hold memory until their connections
    /// have ended. Queues that are gone are dropped before the list grows.
    departing: Vec<Weak<Queue>>,
    /// With a backplane: rooms and users that have lost their last member and that the manager has
    /// not taken.
    vacated: Option<Vec<Topic>>,
    /// Clients that get compressed frames.
    deflating: usize,
    /// Clients that get their messages with labels.
    labelled: usize,
}

/// A client that another process had.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: ClientId,
    pub(crate) since: u32,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) rooms: Vec<Arc<str>>,
    pub(crate) queue: Arc<Queue>,
    /// Messages that it has missed.
    pub(crate) missed: u64,
    pub(crate) cursor: Option<Cursor>,
}

/// A client that pins memory, and how much.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Bytes that [`Queue::pinned_bytes`] returned.
    pub(crate) bytes: usize,
    /// The client, unless it has left the registry.
    id: Option<ClientId>,
    queue: Arc<Queue>,
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

    /// Inserts a client into its first rooms, all of them or none. In the same step it gets its cursor
    /// among the messages of its room, so that it misses none and hears none twice.
    pub(crate) fn insert(
        &mut self,
        queue: Arc<Queue>,
        user: Option<Arc<str>>,
        rooms: &[Arc<str>],
        since: u32,
        reading: Reading,
    ) -> Result<Inserted, Refusal> {
        if reading.since.is_some() && (rooms.len() != 1 || queue.has_labels()) {
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
        let memberships = Vec::with_capacity(rooms.len());
        self.entries.insert(Entry { generation: id.generation, since, queue, user, memberships });
        for room in rooms {
            if let Err(refusal) = self.join(id, room) {
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

    /// Gives a client that needs one its cursor in its room; returns where it
    /// begins, if it is told of positions.
    fn begin(&mut self, id: ClientId, name: &Arc<str>, reading: Reading) -> Option<Begin> {
        let queue = &self.entries[id.slot as usize].queue;
        let room = self.rooms.get(name)?;
        let keeps = room.keeps_messages();
        let is_plain = reading.reader == Reader::Plain;
        if is_plain && !(keeps && queue.replays()) {
            return None;
        }
        let begin = room.begin(reading.since.unwrap_or(Since::Now));
        let (position, newest, has_messages) = (begin.position, room.newest(), room.has_messages());
        let mut cursor = Cursor::new(Arc::clone(name), reading, position, newest);
        (cursor.keeps, cursor.is_positioned) = (keeps, self.rooms.is_shared() && keeps);
        queue.set_cursor(cursor);
        add(&self.counters.gaps, u64::from(begin.missed != Missed::Nothing));
        // From now on these messages are for this client too.
        add(&self.counters.recipients, newest - position);
        // What only asks is told a number by a message or by a gap, and comes back with it.
        let has_number = has_messages || begin.missed != Missed::Nothing || !reading.ends;
        if reading.since.is_some() && has_number {
            self.rooms.keep_count(name);
        }
        if reading.ends && position == newest {
            self.remove(id, Disconnect::NORMAL);
        }
        (!is_plain).then_some(begin)
    }

    /// Hands a client that is behind more of what its room keeps, at most `messages_max` messages
    /// and about `bytes_max` bytes; `true` if it should be called for this client again.
    ///
    /// A message that was published while no client took compressed frames is compressed here, once
    /// for all that ask for it later, if `may_deflate`, which this takes.
    pub(crate) fn replay(
        &mut self,
        id: ClientId,
        messages_max: usize,
        bytes_max: usize,
        may_deflate: &mut bool,
    ) -> bool {
        let Some(entry) = self.get(id) else { return false };
        let cursor = entry.queue.with_cursor(|cursor| {
            cursor.has_requested = false;
            (Arc::clone(&cursor.room), cursor.reader, cursor.position(), cursor.hears_itself())
        });
        let Some((name, reader, mut position, hears_itself)) = cursor else { return false };
        let Some(room) = self.rooms.get(&name) else { return false };
        if position < room.before_oldest() {
            add(&self.counters.gaps, 1);
            if reader != Reader::Numbered {
                entry.queue.evict_overtaken();
                self.remove(id, Disconnect::SLOW);
                return false;
            }
            position = room.before_oldest();
            entry.queue.skip_to(position);
        }
        let except = (!hears_itself).then_some(id);
        let encoding = entry.queue.encoding();
        let (mut messages, mut indexes, mut span, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        for (index, slot) in room.after(position).enumerate() {
            bytes += slot.message.frame(Encoding::Plain).len();
            if messages.len() >= messages_max.min(BATCH_MAX) || (index > 0 && bytes > bytes_max) {
                break;
            }
            let is_own = except.is_some() && slot.except == except;
            if !is_own && encoding == Encoding::Deflate && self.rooms.is_to_deflate(&slot.message) {
                if !std::mem::take(may_deflate) {
                    if index == 0 {
                        return true;
                    }
                    break;
                }
                let is_made = slot.message.deflate(&self.memory);
                add(&self.counters.messages_compressed, u64::from(is_made));
            }
            span = index + 1;
            if !is_own {
                messages.push(slot.message.clone());
                indexes.push(index);
            }
        }
        let again = if messages.is_empty() {
            entry.queue.pass_own(span as u64)
        } else {
            let joined = JoinedFrames::none(&messages, encoding);
            let tally = DeliveryCount::new(&self.counters);
            let mut batch = Batch::new(&messages, &joined, Audience::Room(&name), &tally);
            batch.room = Some(&name);
            entry.queue.push_kept(&batch.part_of(&indexes, span))
        };
        let meets = entry.queue.with_cursor(|cursor| cursor.ends && !cursor.is_behind());
        if meets == Some(true) {
            self.remove(id, Disconnect::NORMAL);
        }
        again
    }

    /// What a room keeps, at most `limit` messages of it from where a reader begins; `None` if there
    /// is no such room.
    pub(crate) fn history(&self, room: &str, since: Since, limit: usize) -> Option<History> {
        Some(self.rooms.get(room)?.history(since, limit))
    }

    /// The next message that a room keeps for a reader, which comes back with the position that it is
    /// told: the room keeps its count. `None` if there is no such room.
    pub(crate) fn next_after(&mut self, room: &str, since: Since) -> Option<History> {
        let next = self.rooms.get(room)?.history(since, 1);
        self.rooms.keep_count(room);
        Some(next)
    }

    /// Messages may have passed every room unheard: each begins a new life. Clients that are told of
    /// gaps are told; returns those that count, which are to be removed.
    pub(crate) fn begin_anew(&mut self) -> Vec<ClientId> {
        let begun = self.rooms.begin_anew();
        begun.iter().flat_map(|(name, position)| self.move_cursors(name, *position)).collect()
    }

    /// Has the next message of a room be the one after a position. If it is not so already, the room
    /// begins a new life behind a gap; returns the clients that count, which are to be removed.
    pub(crate) fn begin_at(&mut self, name: &Arc<str>, position: u64) -> Vec<ClientId> {
        if self.rooms.begin_at(name, position) {
            self.move_cursors(name, position)
        } else {
            Vec::new()
        }
    }

    /// Has the members of a room go on at a position; returns those that count.
    fn move_cursors(&self, name: &Arc<str>, position: u64) -> Vec<ClientId> {
        let members = self.rooms.get(name).map_or(&[][..], Room::members);
        let counting = members.iter().filter_map(|&slot| {
            let entry = &self.entries[slot as usize];
            let is_counting = entry.queue.begin_anew(name, position);
            is_counting.then_some(ClientId { slot, generation: entry.generation })
        });
        counting.collect()
    }

    /// The rooms whose positions the backplane gives, and that of the newest message in each.
    pub(crate) fn positions(&self) -> Vec<(Arc<str>, u64)> {
        let given = self.rooms.iter().filter(|(name, _)| self.rooms.is_positioned(name));
        given.map(|(name, room)| (Arc::clone(name), room.newest())).collect()
    }

    /// Whether the backplane gives the positions of a room.
    pub(crate) fn is_positioned(&self, room: &str) -> bool {
        self.rooms.is_positioned(room)
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

    /// Takes in rooms and clients of another process, with their ids and positions. No limit refuses
    /// them: they are there.
    ///
    /// For a registry that no client has come to yet.
    pub(crate) fn restore(&mut self, state: &State, clients: Vec<Restored>) {
        self.generation = state.generation;
        self.rooms.resume(state.uptime);
        state.rooms.iter().for_each(|room| self.rooms.restore(room));
        let (mut deflating, mut labelled) = (0, 0);
        let entries = clients.into_iter().map(|restored| {
            let Restored { id, since, user, rooms, queue, missed, mut cursor } = restored;
            let join = |room: &Arc<str>| {
                let (room, index) = self.rooms.add_restored(room, id.slot);
                Membership { room, index }
            };
            let memberships = rooms.iter().map(join).collect();
            if let Some(cursor) = &mut cursor {
                let keeps = self.rooms.get(&cursor.room).is_some_and(Room::keeps_messages);
                (cursor.keeps, cursor.is_positioned) = (keeps, self.rooms.is_shared() && keeps);
            }
            let (encoding, has_labels) = queue.restore(id, missed, cursor);
            deflating += usize::from(encoding == Encoding::Deflate);
            labelled += usize::from(has_labels);
            let user = user.map(|user| self.users.add(&user, id.slot));
            let generation = id.generation;
            (id.slot as usize, Entry { generation, since, queue, user, memberships })
        });
        let entries = entries.collect();
        self.entries = entries;
        self.labelled = labelled;
        if self.vacated.is_some() {
            // The hub hears nothing of them.
            self.rooms.forget_memberless();
        }
        self.rooms.fit();
        self.counters.clients.store(self.entries.len(), Ordering::Relaxed);
        self.count_deflating(deflating);
    }

    /// Finds what another process takes over: of the clients that are `parked` and go along, those for
    /// which nothing waits, and the rooms. `None` if something waits for a client that is waited for. All
    /// other clients are told to come back.
    pub(crate) fn hand_over(
        &mut self,
        parked: &[Option<Standing>],
        waits_for: WaitsFor,
    ) -> Option<Roster> {
        let has_more = |(_, entry): (usize, &Entry)| entry.queue.clean().is_none();
        if waits_for == WaitsFor::Any && self.entries.iter().any(has_more) {
            return None;
        }
        let mut kept = Vec::new();
        let mut is_kept = vec![false; self.entries.capacity()];
        for (index, standing) in parked.iter().enumerate() {
            let Some((id, goes_along)) = *standing else { continue };
            let Some(entry) = self.get(id) else { continue };
            let Some(clean) = entry.queue.clean() else {
                if waits_for == WaitsFor::Nothing {
                    continue;
                }
                return None;
            };
            if !goes_along {
                continue;
            }
            let rooms = entry.memberships.iter().map(|m| Arc::clone(&m.room)).collect();
            kept.push(Kept { index, since: entry.since, user: entry.user.clone(), rooms, clean });
            is_kept[id.slot as usize] = true;
        }
        let mut left = 0;
        let others = self.entries.iter().filter(|(slot, _)| !is_kept[*slot]);
        let others = others.map(|(slot, entry)| {
            left += usize::from(!entry.queue.is_program());
            ClientId { slot: slot as u32, generation: entry.generation }
        });
        let others: Vec<_> = others.collect();
        for id in others {
            self.remove(id, Disconnect::RESTART);
        }
        let (uptime, rooms) = self.rooms.plain();
        Some(Roster { generation: self.generation, uptime, rooms, kept, left })
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
        entry.queue.set_left(entry.memberships.into_iter().map(|left| left.room).collect());
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

    /// Tells the readers of events of a client that is removed: of its eviction first, if it is one.
    #[cold]
    fn notify_end(&mut self, id: ClientId, entry: &Entry, reason: &Disconnect) {
        let readers = &mut self.rooms.readers;
        // A queue that was evicted, or whose client was told to go, knows better why.
        let reason = entry.queue.reason().unwrap_or_else(|| reason.clone());
        let mut notify = |kind, room: Option<&Arc<str>>| {
            let (user, reason) = (entry.user.clone(), Some(reason.clone()));
            readers.notify(&HubEvent::of_client(kind, room.cloned(), id, user, reason));
        };
        let is_evicted = entry.queue.is_evicted();
        if is_evicted && entry.memberships.is_empty() {
            notify(HubEventKind::Evicted, None);
        }
        for Membership { room, .. } in &entry.memberships {
            if is_evicted {
                notify(HubEventKind::Evicted, Some(room));
            }
            notify(HubEventKind::Leave, Some(room));
        }
    }

    /// Tells the readers of events of a client that leaves a room and stays, if it is in the room.
    #[cold]
    fn notify_leave(&mut self, id: ClientId, room: &str) {
        let Some(entry) = self.get(id) else { return };
        let Some(left) = entry.memberships.iter().find(|m| &*m.room == room) else { return };
        let (room, user) = (Some(Arc::clone(&left.room)), entry.user.clone());
        let leave = HubEvent::of_client(HubEventKind::Leave, room, id, user, None);
        self.rooms.readers.notify(&leave);
    }

    /// Adds a reader of events.
    pub(crate) fn add_reader(&mut self, queue: Arc<EventQueue>) {
        self.rooms.readers.add(queue);
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

    /// Puts a client into a room; being there already is no error.
    pub(crate) fn join(&mut self, id: ClientId, room: &Arc<str>) -> Result<(), Refusal> {
        let entry = self.get(id).ok_or(Refusal::UnknownClient)?;
        if entry.memberships.iter().any(|membership| membership.room == *room) {
            return Ok(());
        }
        if entry.memberships.len() >= self.rooms_per_client_max {
            return Err(Refusal::RoomsPerClient);
        }
        if self.counts_one_room(id) {
            return Err(Refusal::OneRoom);
        }
        let (room, index) = self.rooms.add(room, id.slot).ok_or(Refusal::Rooms)?;
        let entry = &mut self.entries[id.slot as usize];
        if self.rooms.readers.are_any() {
            let (room, user) = (Some(Arc::clone(&room)), entry.user.clone());
            let join = HubEvent::of_client(HubEventKind::Join, room, id, user, None);
            self.rooms.readers.notify(&join);
        }
        entry.memberships.push(Membership { room, index });
        Ok(())
    }

    /// Whether a client counts the messages of its one room.
    fn counts_one_room(&self, id: ClientId) -> bool {
        let counts = |cursor: &mut Cursor| cursor.reader == Reader::Counting;
        self.get(id).and_then(|entry| entry.queue.with_cursor(counts)) == Some(true)
    }

    /// Takes a client out of a room; not being there is no error.
    pub(crate) fn leave(&mut self, id: ClientId, room: &str) -> Result<(), Refusal> {
        let counts_one_room = self.counts_one_room(id);
        if self.rooms.readers.are_any() && !counts_one_room {
            self.notify_leave(id, room);
        }
        let entry = self.get_mut(id).ok_or(Refusal::UnknownClient)?;
        if let Some(at) = entry.memberships.iter().position(|m| &*m.room == room) {
            if counts_one_room {
                return Err(Refusal::OneRoom);
            }
            if entry.queue.with_cursor(|cursor| *cursor.room == *room) == Some(true) {
                entry.queue.remove_cursor();
            }
            // The others keep the order in which they were joined.
            let membership = entry.memberships.remove(at);
            self.remove_membership(&membership);
        }
        Ok(())
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
        let one;
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
                room.map_or((None, 0), |room| (Some(room.members()), room.len()))
            }
            Target::User(user) => {
                let slots = self.users.slots(user);
                (Some(slots), slots.len())
            }
            Target::Client(id) if self.get(*id).is_some() => {
                one = [id.slot];
                (Some(&one), 1)
            }
            Target::Client(_) => (None, 0),
        };
        let whole =
            push_to(&self.entries, (slots, len), delivery, (audience, &batch), &tally, budget);
        if let Some(ack) = &ack {
            ack.wrote(tally.messages());
        }
        drop(tally);
        delivery.dispatches.iter_mut().for_each(|dispatch| dispatch.recipients += whole);
        if delivery.index < len {
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

    /// Clients that have pinned memory since before `tick`, including removed clients while their
    /// connections still drain.
    pub(crate) fn candidates(&self, tick: u32) -> impl Iterator<Item = Candidate> {
        let present = self.entries.iter().map(|(slot, entry)| {
            let id = ClientId { slot: slot as u32, generation: entry.generation };
            (Some(id), Arc::clone(&entry.queue))
        });
        let leaving = self.departing.iter().filter_map(|queue| Some((None, queue.upgrade()?)));
        let candidates = present.chain(leaving);
        let candidates = candidates.map(move |(id, queue)| Candidate {
            bytes: queue.pinned_bytes(tick),
            id,
            queue,
        });
        candidates.filter(|candidate| candidate.bytes > 0)
    }

    /// Evicts a client because memory is short; returns the bytes that are freed with its
    /// connection.
    pub(crate) fn evict_for_memory(&mut self, candidate: &Candidate) -> usize {
        candidate.queue.evict_for_memory();
        if let Some(id) = candidate.id {
            log::debug!(
                "memory is short: client {id} holds {} bytes and is evicted",
                candidate.bytes
            );
            self.remove(id, Disconnect::TRY_LATER);
        }
        candidate.queue.pending_release()
    }

    /// Bytes that are freed when the connections of evicted clients have ended.
    pub(crate) fn pending_release(&self) -> usize {
        self.departing.iter().filter_map(Weak::upgrade).map(|queue| queue.pending_release()).sum()
    }

    /// The rooms a client is in, or `None` if it is not connected.
    pub(crate) fn rooms_of(&self, id: ClientId) -> Option<Vec<Arc<str>>> {
        let entry = self.get(id)?;
        Some(entry.memberships.iter().map(|m| Arc::clone(&m.room)).collect())
    }

    /// The clients that a target names.
    pub(crate) fn members(&self, of: &Target) -> Vec<Member> {
        let one;
        let slots = match of {
            Target::All => {
                return self
                    .entries
                    .iter()
                    .map(|(slot, entry)| entry.member(slot as u32))
                    .collect();
            }
            Target::Room(room) => self.rooms.get(room).map_or(&[][..], Room::members),
            Target::User(user) => self.users.slots(user),
            Target::Client(id) if self.get(*id).is_some() => {
                one = [id.slot];
                &one
            }
            Target::Client(_) => &[],
        };
        slots.iter().map(|&slot| self.entries[slot as usize].member(slot)).collect()
    }

    /// Rooms and how many members each has, in the order of names, from behind `after`.
    pub(crate) fn list_rooms(&self, after: &str, limit: usize) -> Vec<(Arc<str>, usize)> {
        let behind = self.rooms.iter().filter(|(name, _)| &***name > after);
        // Not more entries than there are rooms: the program asks for all of them.
        let limit = limit.min(self.rooms.len());
        lowest(behind.map(|(name, room)| (name, room.len())), limit)
            .map(|(name, members)| (Arc::clone(name), members))
            .collect()
    }

    /// Members of a room, in the order of slots, from behind the slot `after`.
    pub(crate) fn list_members(&self, room: &str, after: Option<u32>, limit: usize) -> Vec<Member> {
        let slots = self.rooms.get(room).map_or(&[][..], Room::members).iter().copied();
        let behind = slots.filter(|slot| after.is_none_or(|after| *slot > after));
        lowest(behind, limit).map(|slot| self.entries[slot as usize].member(slot)).collect()
    }

    fn get(&self, id: ClientId) -> Option<&Entry> {
        self.entries.get(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    fn get_mut(&mut self, id: ClientId) -> Option<&mut Entry> {
        self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    /// Takes a member out of a room, and the room off the index with its last member.
    fn remove_membership(&mut self, membership: &Membership) {
        if let Some(moved) = self.rooms.remove(&membership.room, membership.index) {
            let entry = &mut self.entries[moved as usize];
            let moved = entry.memberships.iter_mut().find(|m| m.room == membership.room);
            if let Some(moved) = moved {
                moved.index = membership.index;
            }
        }
        let has_members = |room: &Room| !room.is_empty();
        if let Some(vacated) = &mut self.vacated {
            if !self.rooms.get(&membership.room).is_some_and(has_members) {
                vacated.push(Topic::Room(Arc::clone(&membership.room)));
            }
        }
    }

    /// Tells publishers whether to compress.
    fn count_deflating(&mut self, clients: usize) {
        self.deflating = clients;
        self.counters.deflating.store(clients, Ordering::Relaxed);
    }

    /// Remembers a removed client until its connection has ended.
    fn track_departing(&mut self, queue: &Arc<Queue>) {
        if !self.memory().is_limited() {
            return;
        }
        if self.departing.len() == self.departing.capacity() {
            self.departing.retain(|queue| queue.strong_count() > 0);
        }
        self.departing.push(Arc::downgrade(queue));
    }

    /// Gives memory back once less than a quarter of it is used, as far as the highest slot lets.
    fn shrink_indexes(&mut self) {
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
            for membership in &entry.memberships {
                let members = self.rooms.get(&membership.room).expect("a room").members();
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
        assert_eq!(members, memberships, "every index of a room is a client's");
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
            entry.queue.set_left(entry.memberships.drain(..).map(|left| left.room).collect());
            entry.queue.close(Disconnect::GOING_AWAY);
        }
        self.counters.clients.store(0, Ordering::Relaxed);
        self.count_deflating(0);
    }
}

/// The lowest of what is there, at most `limit`, in order: one pass, however much there is.
fn lowest<T: Ord>(all: impl Iterator<Item = T>, limit: usize) -> impl Iterator<Item = T> {
    let mut heap = BinaryHeap::with_capacity(limit + 1);
    for one in all {
        if heap.len() < limit {
            heap.push(one);
        } else if let Some(mut highest) = heap.peek_mut() {
            if one < *highest {
                *highest = one;
            }
        }
    }
    heap.into_sorted_vec().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client_id::Refusal;

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
