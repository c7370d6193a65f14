//! Readers of positions: where they begin, and what they are handed of what a room keeps.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::batch::{Audience, BATCH_MAX, Batch, JoinedFrames};
use crate::hub::client_id::ClientId;
use crate::hub::cursor::{Cursor, Reader, Reading};
use crate::hub::registry::Registry;
use crate::hub::room::{POSITION_MAX, Room};
use crate::hub::since::{Begin, History, Missed, Since};
use crate::message::Encoding;
use crate::stats::{DeliveryCount, add};

impl Registry {
    /// Gives a client that needs one its cursor in its room; returns where it begins, if it is told of
    /// positions.
    pub(super) fn begin(
        &mut self,
        id: ClientId,
        name: &Arc<str>,
        reading: Reading,
    ) -> Option<Begin> {
        let queue = &self.entries[id.slot as usize].queue;
        let room = self.rooms.get(name)?;
        let keeps = room.keeps_messages();
        let is_plain = reading.reader == Reader::Plain;
        let is_conflated = queue.is_conflated();
        if is_plain && (is_conflated || !(keeps && queue.replays())) {
            return None;
        }
        let mut begin = room.begin(reading.since.unwrap_or(Since::Now));
        let (newest, has_messages) = (room.newest(), room.has_messages());
        add(&self.counters.gaps, u64::from(begin.missed != Missed::Nothing));
        let mut position = begin.position;
        if is_conflated && position < newest {
            // It hears the newest message of those, behind a gap.
            begin = begin.up_to(newest - 1);
            let kept = room.after(begin.position).next();
            let waits = kept.is_some_and(|slot| queue.begin_with(&slot.message, begin.position));
            position = newest;
            add(&self.counters.recipients, u64::from(waits));
        }
        let mut cursor = Cursor::new(Arc::clone(name), reading, position, newest);
        (cursor.keeps, cursor.is_positioned) = (keeps, self.rooms.is_shared() && keeps);
        queue.set_cursor(cursor);
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

    /// Whether a reader that comes back says that it has heard more of a room than this hub, on another
    /// hub that is ahead of it. The backplane gives the positions of such a room.
    pub(crate) fn is_behind(&self, room: &str, since: Since) -> bool {
        let Since::Position(position) = since else { return false };
        position <= POSITION_MAX
            && self.rooms.is_positioned(room)
            && self.rooms.get(room).is_none_or(|room| room.newest() < position)
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
    pub(super) fn move_cursors(&self, name: &Arc<str>, position: u64) -> Vec<ClientId> {
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
}
