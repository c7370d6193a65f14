//! The registry at a restart: what goes to another process, and what has come from one.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::cursor::Cursor;
use crate::hub::entry::{Entry, Membership};
use crate::hub::holding::{Roster, RosterEntry, Standing, WaitsFor};
use crate::hub::queue::Queue;
use crate::hub::registry::Registry;
use crate::hub::room::Room;
use crate::hub::state::State;
use crate::message::Encoding;

/// A client that another process had.
#[derive(Debug)]
pub(crate) struct Restored<'a> {
    pub(crate) id: ClientId,
    pub(crate) since: u32,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) rooms: Vec<Cow<'a, str>>,
    pub(crate) prefixes: Vec<Cow<'a, str>>,
    pub(crate) queue: Arc<Queue>,
    /// Messages that it has missed.
    pub(crate) missed: u64,
    pub(crate) cursor: Option<Box<Cursor>>,
}

impl Registry {
    /// Takes in rooms and clients of another process, with their ids and positions. No limit refuses
    /// them: they are there.
    ///
    /// For a registry that no client has come to yet.
    pub(crate) fn restore(&mut self, state: &State, clients: Vec<Restored<'_>>) {
        self.generation = state.generation;
        self.rooms.resume(state.uptime);
        state.rooms.iter().for_each(|room| self.rooms.restore(room));
        let (mut deflating, mut labelled) = (0, 0);
        let entries = clients.into_iter().map(|restored| {
            let Restored { id, since, user, rooms, prefixes, queue, missed, mut cursor } = restored;
            let join = |room: &Cow<'_, str>| {
                let (room, index) = self.rooms.add_restored(room, id.slot);
                Membership { name: room, index, is_prefix: false }
            };
            let mut memberships: Vec<_> = rooms.iter().map(join).collect();
            memberships.extend(prefixes.iter().map(|prefix| {
                let (name, index) = self.prefixes.add_restored(prefix, id.slot);
                Membership { name, index, is_prefix: true }
            }));
            if let Some(cursor) = &mut cursor {
                let keeps = self.rooms.get(&cursor.room).is_some_and(Room::keeps_messages);
                (cursor.keeps, cursor.is_positioned) = (keeps, self.rooms.is_shared() && keeps);
            }
            let (encoding, has_labels) = queue.restore(id, missed, cursor.map(|cursor| *cursor));
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
            let rooms = entry.rooms().cloned().collect();
            let prefixes = entry.names(true).cloned().collect();
            kept.push(RosterEntry {
                prefixes,
                index,
                since: entry.since,
                user: entry.user.clone(),
                rooms,
                clean,
            });
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
}
