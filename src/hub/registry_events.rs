//! What the registry reports to readers of events: a join is reported where it happens.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::entry::{Entry, Membership};
use crate::hub::event::{EventQueue, HubEvent, HubEventKind};
use crate::hub::registry::Registry;

impl Registry {
    /// Tells the readers of events of a client that is removed: of its eviction first, if it is one.
    #[cold]
    pub(super) fn notify_end(&mut self, id: ClientId, entry: &Entry, reason: &Disconnect) {
        let readers = &mut self.rooms.readers;
        // A queue that was evicted, or whose client was told to go, knows better why.
        let reason = entry.queue.reason().unwrap_or_else(|| reason.clone());
        let mut notify = |kind, room: Option<&Arc<str>>| {
            let (user, reason) = (entry.user.clone(), Some(reason.clone()));
            readers.notify(&HubEvent::of_client(kind, room.cloned(), id, user, reason));
        };
        let is_evicted = entry.queue.is_evicted();
        if is_evicted && entry.memberships.is_empty() {
            notify(HubEventKind::Evicted, None);
        }
        for Membership { room, .. } in &entry.memberships {
            if is_evicted {
                notify(HubEventKind::Evicted, Some(room));
            }
            notify(HubEventKind::Leave, Some(room));
        }
    }

    /// Tells the readers of events of a client that leaves a room and stays, if it is in the room.
    #[cold]
    pub(super) fn notify_leave(&mut self, id: ClientId, room: &str) {
        let Some(entry) = self.get(id) else { return };
        let Some(left) = entry.memberships.iter().find(|m| &*m.room == room) else { return };
        let (room, user) = (Some(Arc::clone(&left.room)), entry.user.clone());
        let leave = HubEvent::of_client(HubEventKind::Leave, room, id, user, None);
        self.rooms.readers.notify(&leave);
    }

    /// Adds a reader of events.
    pub(crate) fn add_reader(&mut self, queue: Arc<EventQueue>) {
        self.rooms.readers.add(queue);
    }
}
