//! A room: the clients that are in it.

/// The members of a room, each the registry's slot of a client.
#[derive(Debug, Default)]
pub(crate) struct Room {
    members: Vec<u32>,
}

impl Room {
    /// Adds a client that is no member; returns its place.
    pub(crate) fn add(&mut self, slot: u32) -> u32 {
        self.members.push(slot);
        self.members.len() as u32 - 1
    }

    /// Removes the member at a place, in constant time: the last member moves there, unless it was
    /// that one. Returns the member that has moved.
    pub(crate) fn remove(&mut self, place: u32) -> Option<u32> {
        self.members.swap_remove(place as usize);
        shrink(&mut self.members);
        self.members.get(place as usize).copied()
    }

    /// The members, in the order of their places.
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the last member is gone, and the room with it.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Places that the room holds memory for.
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
    fn the_last_member_moves_to_the_place_of_one_that_leaves() {
        let mut room = Room::default();
        assert_eq!([7, 8, 9].map(|slot| room.add(slot)), [0, 1, 2]);
        assert_eq!(room.remove(0), Some(9));
        assert_eq!(room.members(), [9, 8]);
        assert_eq!(room.remove(1), None, "the last moves nowhere");
        assert_eq!(room.remove(0), None);
        assert!(room.is_empty());
    }
}
