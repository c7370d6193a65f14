//! What the registry reports to readers of events: a join is reported where it happens.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::entry::{Entry, Membership, event_of};
use crate::hub::event::HubEventKind;
use crate::hub::event_queue::EventQueue;
use crate::hub::registry::Registry;

impl Registry {
    /// Tells the readers of events of a client that is removed: of its eviction first, if it is one.
    #[cold]
    pub(super) fn notify_end(&mut self, id: ClientId, entry: &Entry, reason: &Disconnect) {
        let readers = &mut self.rooms.readers;
        // A queue that was evicted, or whose client was told to go, knows better why.
        let reason = entry.queue.reason().unwrap_or_else(|| reason.clone());
        let mut notify = |kind, of: Option<&Membership>| {
            let (user, reason) = (entry.user.clone(), Some(reason.clone()));
            readers.notify(&event_of(kind, of, id, user, reason));
        };
        let is_evicted = entry.queue.is_evicted();
        if is_evicted && entry.memberships.is_empty() {
            notify(HubEventKind::Evicted, None);
        }
        for membership in &entry.memberships {
            if is_evicted {
                notify(HubEventKind::Evicted, Some(membership));
            }
            notify(HubEventKind::Leave, Some(membership));
        }
    }

    /// Tells the readers of events of a client that leaves a room or a prefix and stays, if it is there.
    #[cold]
    pub(super) fn notify_leave(&mut self, id: ClientId, name: &str, is_prefix: bool) {
        let Some(entry) = self.get(id) else { return };
        let left = entry.memberships.iter().find(|membership| membership.is(name, is_prefix));
        if left.is_some() {
            let leave = event_of(HubEventKind::Leave, left, id, entry.user.clone(), None);
            self.rooms.readers.notify(&leave);
        }
    }

    /// Adds a reader of events.
    pub(crate) fn add_reader(&mut self, queue: Arc<EventQueue>) {
        self.rooms.readers.add(queue);
    }
}
