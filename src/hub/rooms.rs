//! All rooms: those with members, and those that outlive them for what they keep.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::hub::client_id::ClientId;
use crate::hub::event::HubEventKind;
use crate::hub::event_queue::EventReaders;
use crate::hub::history_config::HistoryConfig;
use crate::hub::room::Room;
use crate::hub::sizing::NAME;
use crate::hub::state;
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::stats::Counters;
use crate::time::uptime::Uptime;

/// Rooms without a member that go at most when a new room is made: one, but more of a hub that
/// another process has left with more rooms than may be here. Each is a pass over all rooms.
const FORGOTTEN_MAX: usize = 8;

/// The rooms of a hub by name.
///
/// A room exists while it has a member. One that keeps messages, or the count of a reader that came
/// with `since`, stays for some time without any. It counts as a room, and goes first when a new
/// room is made.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(super) rooms: HashMap<Arc<str>, Room>,
    /// Rooms that may exist.
    rooms_max: usize,
    /// Which rooms keep how much.
    pub(super) config: HistoryConfig,
    /// Whether a backplane gives the positions of rooms that keep messages.
    is_shared: bool,
    /// Rooms without a member.
    pub(super) memberless: usize,
    /// Bytes of memory that the kept messages of all rooms take.
    pub(super) kept_bytes: usize,
    pub(super) clock: Uptime,
    /// When rooms that are over are looked for next, in nanoseconds of the clock: no room without a
    /// member is over much earlier.
    pub(super) sweep_at: u64,
    /// Where the gauge of rooms stands.
    pub(super) counters: Arc<Counters>,
    /// Where the memory of the rooms is reserved; that of clients is with their connections.
    memory: Arc<MemoryBudget>,
    /// Bytes that are reserved for rooms.
    reserved: usize,
    /// The readers of events, here since rooms also begin and end without a client.
    pub(crate) readers: EventReaders,
}

impl Rooms {
    /// Whether a kept message has to be compressed before a client gets it that takes it so: no
    /// client that does was there when it was published.
    pub(crate) fn is_to_deflate(&self, message: &Message) -> bool {
        self.config.deflate.is_some_and(|least| message.len() >= least)
            && !message.is_deflate_fixed()
    }

    pub(crate) fn new(
        rooms_max: usize,
        config: HistoryConfig,
        counters: Arc<Counters>,
        memory: Arc<MemoryBudget>,
    ) -> Self {
        Self {
            rooms: HashMap::new(),
            rooms_max,
            config,
            is_shared: false,
            memberless: 0,
            kept_bytes: 0,
            clock: Uptime::start(),
            sweep_at: u64::MAX,
            counters,
            memory,
            reserved: 0,
            readers: EventReaders::default(),
        }
    }

    /// From now on a backplane gives the positions of rooms that keep messages.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether a backplane gives the positions of a room.
    pub(crate) fn is_positioned(&self, name: &str) -> bool {
        self.is_shared && self.config.messages_max(name) > 0
    }

    /// The room of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Room> {
        let room = self.rooms.get(name)?;
        // A room that is over is none, whenever it is looked for and goes.
        (!room.is_empty() || !self.is_over(room)).then_some(room)
    }

    /// The room of a name, also if it is over.
    pub(crate) fn find(&mut self, name: &str) -> Option<&mut Room> {
        self.rooms.get_mut(name)
    }

    /// All rooms and their names, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Room)> {
        let now = self.clock.nanos();
        let is_over = move |room: &Room| self.config.age.is_some_and(|age| room.is_over(age, now));
        self.rooms.iter().filter(move |(_, room)| !room.is_empty() || !is_over(room))
    }

    /// The clock of the rooms, and all of them as plain data.
    pub(crate) fn plain(&self) -> (u64, Vec<state::Room>) {
        let rooms = self.iter().map(|(name, room)| room.plain(name)).collect();
        (self.clock.nanos(), rooms)
    }

    /// Goes on with the clock of another process.
    pub(crate) fn resume(&mut self, uptime: u64) {
        self.clock = Uptime::resume(uptime);
        // They are looked for at once, which says when next.
        self.sweep_at = uptime;
    }

    /// Takes in a room of another process: it keeps as much of what it kept as is configured now.
    pub(crate) fn restore(&mut self, plain: &state::Room) {
        let name = Arc::<str>::from(&*plain.name);
        let room = Room::restored(plain, self.config.messages_max(&name), self.config.bytes);
        plain.messages.iter().for_each(|kept| kept.message.charge(&self.memory));
        let kept_bytes = self.kept_bytes + room.holds().1;
        self.rooms.insert(name, room);
        self.memberless += 1;
        self.set_kept_bytes(kept_bytes);
        self.count();
    }

    /// Adds a client of another process to a room; returns the index's own copy of the name, and the
    /// client's index among the members.
    pub(crate) fn add_restored(&mut self, name: &str, slot: u32) -> (Arc<str>, u32) {
        if !self.rooms.contains_key(name) {
            self.insert(&Arc::from(name));
        }
        let own = self.rooms.get_key_value(name).map(|(own, _)| Arc::clone(own));
        let mut index = 0;
        if let Some(room) = self.rooms.get_mut(name) {
            self.memberless -= usize::from(room.is_empty());
            index = room.add(slot);
        }
        (own.unwrap_or_else(|| Arc::from(name)), index)
    }

    /// Forgets the rooms without a member.
    pub(crate) fn forget_memberless(&mut self) {
        self.forget_all(|_, room| room.is_empty());
    }

    /// Forgets the rooms of another process that do not outlive their members here, and drops what
    /// is more than may be kept.
    pub(crate) fn fit(&mut self) {
        self.forget_all(|_, room| room.is_empty() && !room.outlives());
        self.shed_to(self.config.memory);
    }

    /// How many rooms there are, with those that are over and have not gone yet.
    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Adds a client to a room that it is not in, and makes the room if need be; returns the index's
    /// own copy of the name, and the client's index among the members. `None` if no further room may exist.
    pub(crate) fn add(&mut self, name: &Arc<str>, slot: u32) -> Option<(Arc<str>, u32)> {
        self.make(name)?;
        let (own, _) = self.rooms.get_key_value(name)?;
        let own = Arc::clone(own);
        let room = self.rooms.get_mut(name)?;
        self.memberless -= usize::from(room.is_empty());
        Some((own, room.add(slot)))
    }

    /// Takes the member at an index out of a room, and the room off the index with its last member
    /// unless it outlives that. Returns the member that has moved to the index.
    pub(crate) fn remove(&mut self, name: &Arc<str>, index: u32) -> Option<u32> {
        let room = self.rooms.get_mut(name)?;
        let moved = room.remove(index);
        if room.is_empty() {
            self.memberless += 1;
            if room.outlives() {
                let now = self.clock.nanos();
                room.emptied(now);
                self.sweep_after(now);
            } else {
                self.forget(name);
            }
        }
        moved
    }

    /// Counts and keeps messages, the first at the position `at` if that is given, in a room that may
    /// outlive its members, or makes it if it is to keep messages; returns the room, and the position
    /// before the first message.
    #[inline(never)]
    pub(crate) fn append_kept(
        &mut self,
        name: &Arc<str>,
        messages: &[Message],
        at: Option<u64>,
        except: impl Fn(usize) -> Option<ClientId>,
    ) -> Option<(&Room, u64)> {
        let exists = self.get(name).is_some();
        if !exists && self.config.messages_max(name) == 0 {
            return None;
        }
        self.make(name)?;
        let now = self.clock.nanos();
        let (bytes_max, mut kept_bytes) = (self.config.bytes, self.kept_bytes);
        let room = self.rooms.get_mut(name)?;
        let before = at.map_or(room.newest(), |at| at - 1);
        append_all(room, messages, except, bytes_max, now, &mut kept_bytes);
        self.set_kept_bytes(kept_bytes);
        self.shed_to(self.config.memory);
        Some((self.rooms.get(name)?, before))
    }

    /// Counts and keeps messages in every room.
    pub(crate) fn append_everywhere(
        &mut self,
        messages: &[Message],
        except: impl Fn(usize) -> Option<ClientId>,
    ) {
        if self.memberless > 0 {
            self.forget_over();
        }
        let (bytes_max, mut kept_bytes, mut now) = (self.config.bytes, self.kept_bytes, None);
        for room in self.rooms.values_mut() {
            if self.is_shared && room.keeps_messages() {
                // Its positions are given by the backplane.
            } else if room.is_recorded() {
                let now = *now.get_or_insert_with(|| self.clock.nanos());
                append_all(room, messages, &except, bytes_max, now, &mut kept_bytes);
            } else {
                room.count(messages.len());
            }
        }
        self.set_kept_bytes(kept_bytes);
        self.shed_to(self.config.memory);
    }

    /// Begins a new life of every room; returns the name of each that has members, and the position
    /// before its first message.
    pub(crate) fn begin_anew(&mut self) -> Vec<(Arc<str>, u64)> {
        let anew = |(name, room): (&Arc<str>, &mut Room)| {
            if room.keeps_messages() {
                // The backplane says where it goes on.
                return None;
            }
            let position = room.begin_anew();
            (!room.is_empty()).then(|| (Arc::clone(name), position))
        };
        self.rooms.iter_mut().filter_map(anew).collect()
    }

    /// Has the next message of a room be the one after a position; `false` if it is so already, or if
    /// no further room may exist.
    pub(crate) fn begin_at(&mut self, name: &Arc<str>, position: u64) -> bool {
        if self.make(name).is_none() {
            return false;
        }
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.newest() != position) else {
            return false;
        };
        let kept_bytes = self.kept_bytes - room.holds().1;
        room.begin_at(position);
        self.set_kept_bytes(kept_bytes);
        true
    }

    /// Forgets a room that has no member: what it counts passes the hub unheard from now on.
    pub(crate) fn abandon(&mut self, name: &str) {
        if self.rooms.get(name).is_some_and(Room::is_empty) {
            self.forget(name);
        }
    }

    /// Has a room keep its count when its last member leaves.
    pub(crate) fn keep_count(&mut self, name: &str) {
        let now = self.clock.nanos();
        if let Some(room) = self.rooms.get_mut(name) {
            room.keep_count(now);
        }
    }

    /// Bytes of memory that the kept messages of all rooms take.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Forgets rooms without a member.
    pub(super) fn forget_all(&mut self, goes: impl Fn(&Self, &Room) -> bool) {
        let over = self.rooms.iter().filter(|(_, room)| goes(self, room));
        let over: Vec<_> = over.map(|(name, _)| Arc::clone(name)).collect();
        over.iter().for_each(|name| self.forget(name));
    }

    /// Makes a room, unless it exists; `None` if no further one may. A room that is over begins a
    /// new life.
    fn make(&mut self, name: &Arc<str>) -> Option<()> {
        if let Some(room) = self.rooms.get(name) {
            if !(room.is_empty() && self.is_over(room)) {
                return Some(());
            }
            self.forget(name);
        }
        if self.rooms.len() - self.memberless >= self.rooms_max {
            return None;
        }
        for _ in 0..FORGOTTEN_MAX {
            if self.rooms.len() < self.rooms_max {
                break;
            }
            // The one without a member whose newest message is oldest; one that had none before those.
            let memberless = self.rooms.iter().filter(|(_, room)| room.is_empty());
            let oldest = memberless.min_by_key(|(name, room)| (room.last_used(), *name));
            let oldest = oldest.map(|(name, _)| Arc::clone(name))?;
            self.forget(&oldest);
        }
        self.insert(name);
        self.readers.notify_room(HubEventKind::RoomMade, name);
        Some(())
    }

    /// Adds a room that has no member yet.
    fn insert(&mut self, name: &Arc<str>) {
        let messages_max = self.config.messages_max(name);
        let now = if messages_max > 0 { self.clock.nanos() } else { 0 };
        if messages_max > 0 {
            // It may stay without a member.
            self.sweep_after(now);
        }
        self.rooms.insert(Arc::clone(name), Room::new(messages_max, now));
        self.memberless += 1;
        self.count();
    }

    /// Takes a room without a member off the index.
    fn forget(&mut self, name: &str) {
        let Some((name, room)) = self.rooms.remove_entry(name) else { return };
        self.memberless -= 1;
        self.set_kept_bytes(self.kept_bytes - room.holds().1);
        self.count();
        self.readers.notify_room(HubEventKind::RoomGone, &name);
    }

    pub(super) fn is_over(&self, room: &Room) -> bool {
        self.config.age.is_some_and(|age| room.is_over(age, self.clock.nanos()))
    }

    pub(super) fn set_kept_bytes(&mut self, kept_bytes: usize) {
        if kept_bytes != self.kept_bytes {
            self.memory
                .set_sheddable(std::mem::replace(&mut self.kept_bytes, kept_bytes), kept_bytes);
            self.counters.history_bytes.store(kept_bytes, Ordering::Relaxed);
        }
    }

    fn count(&mut self) {
        self.counters.rooms.store(self.rooms.len(), Ordering::Relaxed);
        let bytes = self.rooms.len() * NAME;
        self.memory.reserve(std::mem::replace(&mut self.reserved, bytes), bytes);
    }

    /// Gives memory back once less than a quarter of it is used.
    pub(crate) fn shrink(&mut self, keep: usize) {
        let (len, capacity) = (self.rooms.len(), self.rooms.capacity());
        if capacity > keep && len < capacity / 4 {
            self.rooms.shrink_to(len * 2);
        }
    }

    /// How many messages a room of that name keeps at most.
    #[cfg(test)]
    pub(crate) fn messages_max(&self, name: &str) -> usize {
        self.config.messages_max(name)
    }

    /// Entries that the index has memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.rooms.capacity() + self.rooms.values().map(Room::capacity).sum::<usize>()
    }

    /// Checks that the sums agree with the rooms.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.rooms.len() <= self.rooms_max);
        let memberless = self.rooms.values().filter(|room| room.is_empty());
        assert!(memberless.clone().all(Room::outlives), "a room is there for nothing");
        assert_eq!(memberless.count(), self.memberless);
        let kept_bytes: usize = self.rooms.values().map(|room| room.holds().1).sum();
        assert_eq!(kept_bytes, self.kept_bytes);
        assert!(kept_bytes <= self.config.memory);
        assert_eq!(self.counters.rooms.load(Ordering::Relaxed), self.rooms.len());
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        self.counters.rooms.store(0, Ordering::Relaxed);
        self.set_kept_bytes(0);
        self.memory.reserve(self.reserved, 0);
    }
}

/// Appends messages to a room, and adds what they take to `kept_bytes`.
fn append_all(
    room: &mut Room,
    messages: &[Message],
    except: impl Fn(usize) -> Option<ClientId>,
    bytes_max: usize,
    now: u64,
    kept_bytes: &mut usize,
) {
    let before = room.holds().1;
    for (index, message) in messages.iter().enumerate() {
        room.append(message, except(index), bytes_max, now);
    }
    *kept_bytes = *kept_bytes + room.holds().1 - before;
}
