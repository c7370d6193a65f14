//! The rooms of the other hubs.

/// Rooms of the other hubs on a backplane, of a page, as those hubs last said.
#[derive(Debug, Default)]
pub(crate) struct SharedRooms {
    /// How many members each has there, in the order of their names.
    pub(crate) rooms: Vec<(String, usize)>,
    /// How many other hubs there are.
    pub(crate) hubs: usize,
}
