//! A client as the registry has it.

use std::sync::Arc;

use crate::hub::client_id::{ClientId, Member};
use crate::hub::queue::Queue;

/// A client in the registry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Tells the client from those that had its slot before.
    pub(crate) generation: u32,
    /// When the client came, in seconds of Unix time; enough until 2106.
    pub(crate) since: u32,
    /// The client's queue; its connection holds the other reference.
    pub(crate) queue: Arc<Queue>,
    /// Unless it is anonymous.
    pub(crate) user: Option<Arc<str>>,
    /// The rooms the client is in, with its index among the members of each.
    pub(crate) memberships: Vec<Membership>,
}

/// A room that a client is in.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The index's own copy of the name.
    pub(crate) room: Arc<str>,
    /// The client's index among the members.
    pub(crate) index: u32,
}

impl Entry {
    /// The client as a listing has it.
    pub(crate) fn member(&self, slot: u32) -> Member {
        let (waiting, waiting_bytes) = self.queue.depth();
        Member {
            id: ClientId { slot, generation: self.generation },
            user: self.user.clone(),
            since: self.since.into(),
            waiting,
            waiting_bytes,
            missed: self.queue.missed(),
        }
    }
}
