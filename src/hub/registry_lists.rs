//! What the registry says of its clients and rooms.

use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::hub::client_id::{ClientId, Member, Target};
use crate::hub::registry::Registry;
use crate::hub::room::Room;

impl Registry {
    /// The rooms a client is in, or `None` if it is not connected.
    pub(crate) fn rooms_of(&self, id: ClientId) -> Option<Vec<Arc<str>>> {
        let entry = self.get(id)?;
        Some(entry.rooms().cloned().collect())
    }

    /// Whether a client hears a room: as its member, or by a prefix.
    pub(crate) fn hears(&self, id: ClientId, room: &str) -> bool {
        let entry = self.get(id);
        entry.is_some_and(|entry| entry.memberships.iter().any(|m| m.covers(room)))
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
