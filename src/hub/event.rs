//! What the hub tells of itself: clients that join and leave rooms, rooms that begin and end.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::time::clock::unix_seconds;

/// What a [`HubEvent`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HubEventKind {
    /// A client is in a room from now on.
    Join,
    /// A client has left a room: by [`Hub::leave`](crate::Hub::leave), or with its connection.
    Leave,
    /// The hub has evicted a client: it was too slow, or memory was short. A [`Leave`](Self::Leave)
    /// follows for the same room.
    Evicted,
    /// A room exists from now on. Its first [`Join`](Self::Join) follows, if a client made it.
    RoomMade,
    /// A room has ceased to exist. The [`Leave`](Self::Leave) of its last member came before.
    RoomGone,
    /// The reader was behind, and has missed events.
    Gap,
}

/// An event of the hub, as [`HubEvents::next`](crate::HubEvents::next) returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubEvent {
    /// What has happened.
    pub kind: HubEventKind,
    /// When, in seconds of Unix time.
    pub time: u64,
    /// The room; `None` for a gap, for the eviction of a client that is in no room, and for a client
    /// that joined or left a prefix.
    pub room: Option<Arc<str>>,
    /// The prefix that the client joined or left ([`Admission::prefix`](crate::Admission::prefix)),
    /// without a `*`.
    pub prefix: Option<Arc<str>>,
    /// The client that joined, left or was evicted.
    pub client: Option<ClientId>,
    /// The user of that client, unless it is anonymous.
    pub user: Option<Arc<str>>,
    /// Why the client ended, if it did: of an eviction, and of a leave with the connection.
    pub reason: Option<Disconnect>,
    /// Events that were missed; 0 except for a gap.
    pub missed: u64,
}

impl HubEvent {
    /// An event of a room, at this moment.
    pub(crate) fn of_room(kind: HubEventKind, room: Arc<str>) -> Self {
        Self { room: Some(room), ..Self::now(kind) }
    }

    /// An event of a client, at this moment.
    pub(crate) fn of_client(
        kind: HubEventKind,
        room: Option<Arc<str>>,
        client: ClientId,
        user: Option<Arc<str>>,
        reason: Option<Disconnect>,
    ) -> Self {
        Self { room, client: Some(client), user, reason, ..Self::now(kind) }
    }

    pub(super) fn gap(missed: u64) -> Self {
        Self { missed, ..Self::now(HubEventKind::Gap) }
    }

    fn now(kind: HubEventKind) -> Self {
        let (room, prefix, client, user, reason) = (None, None, None, None, None);
        Self { kind, time: unix_seconds(), room, prefix, client, user, reason, missed: 0 }
    }

    /// Bytes of memory that it takes at most. Its names are often those of the registry, and count
    /// all the same: they may be the last to hold them.
    pub(super) fn size(&self) -> usize {
        let names = self.room.iter().chain(&self.prefix).chain(&self.user).map(|name| name.len());
        let reason = self.reason.as_ref().map_or(0, |reason| reason.reason().len());
        size_of::<Self>() + names.sum::<usize>() + reason
    }
}
