//! A room: the clients that are in it, its count of messages, and those that it keeps.

use crate::hub::client_id::ClientId;
use crate::hub::history::{Ring, Slot};
use crate::hub::since::{Begin, History, Missed, Since};
use crate::hub::state;
use crate::message::Message;

/// The members of a room, each the registry's slot of a client, and the positions of its messages.
#[derive(Debug)]
pub(crate) struct Room {
    members: Vec<u32>,
    /// The position before the first message of this life of the room.
    born: u64,
    /// The position of the newest message.
    newest: u64,
    /// What only a room has that may outlive its members: most keep nothing.
    kept: Option<Box<Kept>>,
}

/// What a room has that keeps messages, or its count.
#[derive(Debug, Default)]
struct Kept {
    ring: Ring,
    /// Messages that it keeps at most.
    messages_max: usize,
    /// Whether a reader has been told its count, or a backplane gives it.
    is_counted: bool,
    /// When its newest message came, in nanoseconds of the hub's clock: of two rooms the one with the
    /// older message goes first, however close they are. 0 if none came: that room goes before them.
    last_message: u64,
    /// When its last member left, while it has none.
    last_member: u64,
}

/// Lives of a room begin below it.
const BEGIN_MAX: u64 = 1 << 52;

/// The highest position: it is exact in a number of JavaScript, and a life that begins as late as it
/// may has room for as many messages again.
pub(crate) const POSITION_MAX: u64 = 2 * BEGIN_MAX;

/// A position that no earlier life of a room is likely to have had.
pub(crate) fn any_position() -> u64 {
    fastrand::u64(1..BEGIN_MAX)
}

impl Room {
    /// Begins a life of a room that keeps at most `messages_max` messages, at a time.
    pub(crate) fn new(messages_max: usize, now: u64) -> Self {
        let born = any_position();
        let mut room = Self { members: Vec::new(), born, newest: born, kept: None };
        if messages_max > 0 {
            room.record(now).messages_max = messages_max;
        }
        room
    }

    /// A room of another process, which keeps so much of what it kept.
    pub(crate) fn restored(plain: &state::Room, messages_max: usize, bytes_max: usize) -> Self {
        let mut room = Self::new(0, 0);
        (room.born, room.newest) = (plain.born, plain.newest - plain.messages.len() as u64);
        if messages_max > 0 || plain.outlives {
            let kept = room.record(plain.last_member);
            (kept.messages_max, kept.last_message) = (messages_max, plain.last_message);
            kept.is_counted = plain.outlives;
        }
        for kept in &plain.messages {
            let except = kept.except.map(ClientId::of);
            room.append(&kept.message, except, bytes_max, plain.last_message);
        }
        room
    }

    /// The room as plain data.
    pub(crate) fn plain(&self, name: &str) -> state::Room {
        let kept = self.kept.as_deref();
        let message = |slot: &Slot| state::KeptMessage {
            message: slot.message.clone(),
            except: slot.except.map(ClientId::parts),
        };
        state::Room {
            name: name.to_owned(),
            born: self.born,
            newest: self.newest,
            outlives: self.outlives(),
            last_message: kept.map_or(0, |kept| kept.last_message),
            last_member: kept.map_or(0, |kept| kept.last_member),
            messages: self.after(0).map(message).collect(),
        }
    }

    /// Adds a client that is no member; returns its index.
    pub(crate) fn add(&mut self, slot: u32) -> u32 {
        self.members.push(slot);
        self.members.len() as u32 - 1
    }

    /// Removes the member at an index, in constant time: the last member moves there, unless it was
    /// that one. Returns the member that has moved.
    pub(crate) fn remove(&mut self, index: u32) -> Option<u32> {
        self.members.swap_remove(index as usize);
        shrink(&mut self.members);
        self.members.get(index as usize).copied()
    }

    /// Notes that the last member left.
    pub(crate) fn emptied(&mut self, now: u64) {
        if let Some(kept) = &mut self.kept {
            kept.last_member = now;
        }
    }

    /// Has the room outlive its members, from now on.
    pub(crate) fn keep_count(&mut self, now: u64) {
        self.record(now).is_counted = true;
    }

    fn record(&mut self, now: u64) -> &mut Kept {
        let last_message = if self.has_messages() { now } else { 0 };
        let new = || Box::new(Kept { last_message, last_member: now, ..Kept::default() });
        self.kept.get_or_insert_with(new)
    }

    /// Whether a message has come in this life of the room.
    pub(crate) fn has_messages(&self) -> bool {
        self.newest > self.born
    }

    /// Whether the room may outlive its members, so that it notes the time of its messages.
    pub(crate) fn is_recorded(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether the room outlives its members: it keeps messages and has had some, or its count has to
    /// stay.
    pub(crate) fn outlives(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_counted || self.has_messages())
    }

    /// Counts messages, of a room that cannot outlive its members; returns the position before
    /// the first of them.
    pub(crate) fn count(&mut self, messages: usize) -> u64 {
        let before = self.newest;
        self.newest += messages as u64;
        before
    }

    /// Counts a message as [`append_at`](Self::append_at) the next position does.
    pub(crate) fn append(
        &mut self,
        message: &Message,
        except: Option<ClientId>,
        bytes_max: usize,
        now: u64,
    ) {
        self.append_at(self.newest + 1, message, except, bytes_max, now);
    }

    /// Counts a message at a position that is given, and keeps it if the room keeps messages. Behind
    /// a gap, or in another life of the room, what was kept before it goes.
    pub(crate) fn append_at(
        &mut self,
        position: u64,
        message: &Message,
        except: Option<ClientId>,
        bytes_max: usize,
        now: u64,
    ) {
        let is_next = position == self.newest + 1;
        if position <= self.newest {
            self.born = position - 1;
        }
        self.newest = position;
        if let Some(kept) = &mut self.kept {
            if !is_next {
                kept.ring.clear();
            }
            kept.last_message = now;
            kept.ring.push(message, except, kept.messages_max, bytes_max);
        }
    }

    /// Begins a new life, since messages have passed the room unheard: its positions have nothing to
    /// do with those before, and what it kept goes. Returns the position before the first message.
    pub(crate) fn begin_anew(&mut self) -> u64 {
        self.begin_at(any_position());
        self.born
    }

    /// Begins a new life at a position: that before its first message.
    pub(crate) fn begin_at(&mut self, position: u64) {
        (self.born, self.newest) = (position, position);
        if let Some(kept) = &mut self.kept {
            kept.ring.clear();
            kept.is_counted = true;
        }
    }

    /// The position of the newest message, kept or not.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The position of the oldest message that is kept.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let len = self.holds().0 as u64;
        (len > 0).then(|| self.newest - len + 1)
    }

    /// The position before the oldest message that is kept, or of the newest if none is.
    pub(crate) fn before_oldest(&self) -> u64 {
        self.newest - self.holds().0 as u64
    }

    /// Whether the room keeps messages, perhaps none yet.
    pub(crate) fn keeps_messages(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.messages_max > 0)
    }

    /// What is kept after a position, oldest first. The position is not before the oldest.
    pub(crate) fn after(&self, position: u64) -> impl Iterator<Item = &Slot> {
        let index = position.saturating_sub(self.before_oldest());
        self.kept.iter().flat_map(move |kept| kept.ring.slots(index as usize))
    }

    /// Where a reader begins.
    pub(crate) fn begin(&self, since: Since) -> Begin {
        let first = self.before_oldest();
        let begin = |position, missed| Begin { position, missed };
        match since {
            Since::Now => begin(self.newest, Missed::Nothing),
            Since::Oldest => begin(first, Missed::Nothing),
            Since::Newest(count) => {
                begin(first.max(self.newest.saturating_sub(count.into())), Missed::Nothing)
            }
            Since::Position(n) if (first..=self.newest).contains(&n) => begin(n, Missed::Nothing),
            Since::Position(n) if (self.born..first).contains(&n) => {
                begin(first, Missed::Messages(first - n))
            }
            Since::Position(_) => begin(first, Missed::Unknown),
        }
    }

    /// What is kept from where a reader begins, at most `limit` messages of it.
    pub(crate) fn history(&self, since: Since, limit: usize) -> History {
        let Begin { position, missed } = self.begin(since);
        let messages = self.after(position).take(limit).map(|slot| slot.message.clone()).collect();
        let (newest, oldest) = (self.newest(), self.oldest());
        History { newest, oldest, position, missed, messages }
    }

    /// Drops the oldest message that is kept; returns the memory that it took, 0 if there was none.
    pub(crate) fn shed(&mut self) -> usize {
        self.kept.as_mut().map_or(0, |kept| kept.ring.drop_oldest())
    }

    /// Messages that are kept, and the bytes of memory that they take.
    pub(crate) fn holds(&self) -> (usize, usize) {
        self.kept.as_ref().map_or((0, 0), |kept| (kept.ring.len(), kept.ring.kept_bytes()))
    }

    /// When the newest message came and when the last member left, for a room that may outlive its
    /// members. Of rooms without members the one with the least goes first.
    pub(crate) fn last_used(&self) -> (u64, u64) {
        self.kept.as_ref().map_or((0, 0), |kept| (kept.last_message, kept.last_member))
    }

    /// Whether the room has had neither a member nor a message for `age` nanoseconds.
    pub(crate) fn is_over(&self, age: u64, now: u64) -> bool {
        self.members.is_empty() && now >= self.over_at(age)
    }

    /// When that is so, if no member and no message comes.
    pub(crate) fn over_at(&self, age: u64) -> u64 {
        let last = |kept: &Kept| kept.last_member.max(kept.last_message);
        self.kept.as_deref().map_or(0, last).saturating_add(age)
    }

    /// The members, in the order of their indexes.
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members that the room has memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.members.capacity()
    }
}

/// Gives the memory of a list of slots back once less than a quarter of it is used.
pub(crate) fn shrink(slots: &mut Vec<u32>) {
    if slots.len() < slots.capacity() / 4 {
        slots.shrink_to(slots.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_gets_the_index_of_one_that_leaves() {
        let mut room = Room::new(0, 0);
        assert_eq!([7, 8, 9].map(|slot| room.add(slot)), [0, 1, 2]);
        assert_eq!(room.remove(0), Some(9));
        assert_eq!(room.members(), [9, 8]);
        assert_eq!(room.remove(1), None, "the last moves nowhere");
        assert_eq!(room.remove(0), None);
        assert!(room.is_empty());
    }

    fn filled(kept: usize, messages: usize) -> Room {
        let mut room = Room::new(kept, 0);
        (0..messages).for_each(|_| room.append(&"hello".into(), None, 1024, 0));
        room
    }
    #[test]
    fn a_reader_begins_behind_the_position_that_it_names_or_hears_of_a_gap() {
        let room = filled(3, 5);
        let (born, newest) = (room.born, room.newest());
        assert_eq!((newest, room.oldest()), (born + 5, Some(born + 3)));
        for (since, position, missed) in [
            (Since::Now, newest, Missed::Nothing),
            (Since::Oldest, born + 2, Missed::Nothing),
            (Since::Newest(1), newest - 1, Missed::Nothing),
            (Since::Newest(9), born + 2, Missed::Nothing),
            (Since::Position(newest), newest, Missed::Nothing),
            (Since::Position(born + 2), born + 2, Missed::Nothing),
            (Since::Position(born + 1), born + 2, Missed::Messages(1)),
            (Since::Position(born), born + 2, Missed::Messages(2)),
            (Since::Position(born - 1), born + 2, Missed::Unknown),
            (Since::Position(newest + 1), born + 2, Missed::Unknown),
            (Since::UNREADABLE, born + 2, Missed::Unknown),
        ] {
            assert_eq!(room.begin(since), Begin { position, missed }, "{since}");
            assert_eq!(room.after(position).count() as u64, newest - position);
        }
    }
    #[test]
    fn a_room_without_history_knows_what_was_lost_and_has_nothing_of_it() {
        let room = filled(0, 5);
        let (newest, missed) = (room.newest(), Missed::Messages(2));
        assert_eq!((room.oldest(), room.after(newest).count()), (None, 0));
        let begin = room.begin(Since::Position(newest - 2));
        assert_eq!(begin, Begin { position: newest, missed });
        assert_eq!(room.begin(Since::Oldest).position, newest);
    }
    #[test]
    fn behind_a_gap_in_given_positions_nothing_older_is_kept() {
        let mut room = filled(3, 5);
        let before = room.newest();
        room.append_at(before + 2, &"later".into(), None, 1024, 0);
        assert_eq!((room.oldest(), room.newest()), (Some(before + 2), before + 2));
        assert_eq!(room.begin(Since::Position(before)).missed, Missed::Messages(1));
        room.append_at(7, &"another life".into(), None, 1024, 0);
        assert_eq!((room.oldest(), room.newest()), (Some(7), 7));
        assert_eq!(room.begin(Since::Position(before)).missed, Missed::Unknown);
        assert_eq!(room.begin(Since::Position(6)).missed, Missed::Nothing);
    }
    #[test]
    fn a_reader_of_another_life_of_the_room_hears_of_a_gap() {
        let mut room = filled(3, 5);
        let before = room.newest();
        let begin = room.begin_anew();
        assert_eq!((room.newest(), room.oldest()), (begin, None));
        assert_eq!(room.begin(Since::Position(before)).missed, Missed::Unknown);
        assert_eq!(room.begin(Since::Position(begin)).missed, Missed::Nothing);
    }
    #[test]
    fn a_room_is_over_some_time_after_its_last_message_or_member() {
        let mut room = filled(3, 5);
        let index = room.add(1);
        assert!(!room.is_over(10, 99), "it has a member");
        room.remove(index);
        room.emptied(20);
        assert!(!room.is_over(10, 29) && room.is_over(10, 30));
        room.append(&"hello".into(), None, 1024, 25);
        assert!(!room.is_over(10, 34) && room.is_over(10, 35));
    }
}
