//! A client as the registry has it.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::client_id::{ClientId, Member};
use crate::hub::event::{HubEvent, HubEventKind};
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
    /// What the client hears, in the order in which it joined, with its index among the clients of
    /// each.
    pub(crate) memberships: Vec<Membership>,
}

/// A room that a client is in, or a prefix: it hears every room whose name begins so.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The index's own copy of the name of the room, or of the prefix.
    pub(crate) name: Arc<str>,
    /// The client's index among the members of the room, or the clients of the prefix.
    pub(crate) index: u32,
    pub(crate) is_prefix: bool,
}

impl Membership {
    /// Whether it is of this room, or of this prefix.
    pub(crate) fn is(&self, name: &str, is_prefix: bool) -> bool {
        self.is_prefix == is_prefix && *self.name == *name
    }

    /// Whether a client hears a room by it.
    pub(crate) fn covers(&self, room: &str) -> bool {
        if self.is_prefix { room.starts_with(&*self.name) } else { *self.name == *room }
    }
}

impl Entry {
    /// The rooms that the client is in.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names(false)
    }

    /// The names of the rooms that the client is in, or of the prefixes that it hears.
    pub(crate) fn names(&self, is_prefix: bool) -> impl Iterator<Item = &Arc<str>> {
        let memberships = self.memberships.iter().filter(move |m| m.is_prefix == is_prefix);
        memberships.map(|membership| &membership.name)
    }

    /// Whether a prefix is the first by which the client hears a room, and it is no member.
    pub(crate) fn hears_first_by(&self, prefix: &str, room: &str) -> bool {
        let is_member = self.memberships.iter().any(|membership| membership.is(room, false));
        let first = self.memberships.iter().find(|membership| membership.covers(room));
        !is_member && first.is_some_and(|first| *first.name == *prefix)
    }

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

/// An event of a client, about a room that it is in or a prefix that it hears.
pub(crate) fn event_of(
    kind: HubEventKind,
    of: Option<&Membership>,
    id: ClientId,
    user: Option<Arc<str>>,
    reason: Option<Disconnect>,
) -> HubEvent {
    let name = |is_prefix: bool| of.filter(|of| of.is_prefix == is_prefix).map(|of| &of.name);
    let event = HubEvent::of_client(kind, name(false).cloned(), id, user, reason);
    HubEvent { prefix: name(true).cloned(), ..event }
}
