//! What the manager does for readers that wait for the next message of a room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_lite::future::yield_now;

use crate::hub::client_id::Target;
use crate::hub::manager::{FANOUT, Manager};
use crate::hub::room::any_position;
use crate::hub::since::Since;

impl Manager {
    /// Forgets the readers that have given up, if one could not say so.
    #[cold]
    pub(super) fn forget_waiters(&mut self) {
        let has_given_up = &self.counters.has_given_up;
        if has_given_up.load(Ordering::Relaxed) && has_given_up.swap(false, Ordering::AcqRel) {
            self.waiters.sweep();
        }
    }

    /// Hands the first of the messages in hand to the readers that wait for one of their target.
    #[cold]
    pub(super) async fn answer_waiters(&mut self, target: &Target, before: Option<u64>) {
        let Self { registry, waiters, batch, .. } = self;
        let Some(first) = batch.messages.first() else { return };
        let rooms = match target {
            Target::Room(room) => vec![Arc::clone(room)],
            Target::All => waiters.rooms(),
            Target::User(_) | Target::Client(_) => return,
        };
        for room in rooms {
            if before.is_none() && registry.is_positioned(&room) {
                // What has no position of the backplane is not counted.
                continue;
            }
            // A broadcast has a position of its own in each room.
            let newest = registry.next_after(&room, Since::Now).map(|kept| kept.newest);
            let of_all = newest.map(|newest| newest - batch.messages.len() as u64);
            // A room that is not there has no count: any number is one that no reader expects.
            let before = before.or(of_all).unwrap_or_else(any_position);
            for (nth, waiter) in waiters.take(&room).into_iter().enumerate() {
                if nth > 0 && nth % FANOUT == 0 {
                    yield_now().await;
                }
                waiter.hear(first, before);
            }
        }
    }
}
