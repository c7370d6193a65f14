//! A hub that stands still, so that another process takes it over.
//!
//! While it is held, nothing is accepted and no message or request is begun. Each connection that is
//! clean, with nothing half read, says so here and waits.

use std::any::Any;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use event_listener::Event;

use crate::hub::client_id::ClientId;
use crate::hub::state;
use crate::message::Encoding;
use crate::peer::Peer;

/// What keeps a socket open. The hub does not know its type.
pub(crate) type Handle = dyn Any + Send + Sync;

/// Whether the hub is held, and the connections that are clean.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    is_held: AtomicBool,
    /// The connections that wait; at most one entry for each while the hub is held.
    parked: Mutex<Vec<Parked>>,
    /// Connections among those that have ended since. Their entries stay: the manager may have been
    /// asked with their indexes.
    ended: AtomicUsize,
    /// Connections for which no hand-over waits: without a socket, or with nothing more to write.
    detached: AtomicUsize,
    /// Wakes the future that holds the hub.
    holder: AtomicWaker,
    /// Notified when the hub is held, and when it goes on.
    changed: Event,
}

/// A connection that is clean and waits.
#[derive(Debug)]
pub(crate) struct Parked {
    /// The client, unless the connection waits for a request.
    pub(crate) client: Option<ClientId>,
    /// What another process takes over; `None` for a connection that stays behind.
    pub(crate) along: Option<Along>,
}

/// What another process takes over of a connection.
#[derive(Debug)]
pub(crate) struct Along {
    /// The socket, for as long as there is one.
    pub(crate) socket: Weak<Handle>,
    /// Where the connection comes from.
    pub(crate) peer: Peer,
    /// What the connection knows of its client, if it has one.
    pub(crate) client: Option<Known>,
}

/// What a connection knows of its client. The registry knows the rest.
#[derive(Debug)]
pub(crate) struct Known {
    /// How server-sent events are written; `None` for a WebSocket.
    pub(crate) events: Option<u8>,
    /// Milliseconds since bytes came from the peer.
    pub(crate) idle: u32,
    /// What the handler has to say of the client.
    pub(crate) about: String,
}

/// A client whose connection is clean, and whether it goes along.
pub(crate) type Standing = (ClientId, bool);

/// What a hand-over waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// What is queued for the clients whose connections are clean: all are.
    Clean,
    /// What is queued for any client: nothing comes from those whose connections are not clean.
    Any,
    /// Nothing: time is over.
    Nothing,
}

/// What is known of a client that another process may take over.
#[derive(Debug)]
pub(crate) struct Clean {
    /// Messages that it has missed to the overflow policy.
    pub(crate) missed: u64,
    pub(crate) encoding: Encoding,
    /// Whether it gets its messages with labels.
    pub(crate) has_labels: bool,
    /// Its cursor in a room.
    pub(crate) cursor: Option<state::Cursor>,
    /// What it has, if it hears the newest message of its room only; the next one may go at that time on
    /// the clock of the timers.
    pub(crate) conflation: Option<Box<state::Conflation>>,
}

impl Clean {
    /// Messages that the client is still to get, of those that count it as a recipient.
    pub(crate) fn owed(&self) -> u64 {
        let unread = self.cursor.as_ref().map_or(0, |cursor| cursor.unread);
        let waits = self.conflation.as_ref().is_some_and(|own| own.newest.is_some());
        unread + u64::from(waits)
    }
}

/// A client that another process takes over, as the registry has it.
#[derive(Debug)]
pub(crate) struct RosterEntry {
    /// Its index among the connections that were parked.
    pub(crate) index: usize,
    pub(crate) since: u32,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) rooms: Vec<Arc<str>>,
    pub(crate) prefixes: Vec<Arc<str>>,
    pub(crate) clean: Clean,
}

/// The registry's part of a hand-over.
#[derive(Debug)]
pub(crate) struct Roster {
    /// The generation of the next client.
    pub(crate) generation: u32,
    /// Nanoseconds on the clock of the rooms.
    pub(crate) uptime: u64,
    pub(crate) rooms: Vec<state::Room>,
    pub(crate) kept: Vec<RosterEntry>,
    /// Clients with a peer that were told to come back.
    pub(crate) left: usize,
}

impl Holding {
    /// Whether the hub is held.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Holds the hub; `false` if it is held already.
    pub(crate) fn begin(&self) -> bool {
        let is_new = !self.is_held.swap(true, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
        is_new
    }

    /// Lets the hub go on.
    pub(crate) fn end(&self) {
        self.is_held.store(false, Ordering::SeqCst);
        let mut parked = self.parked();
        parked.clear();
        self.ended.store(0, Ordering::Relaxed);
        drop(parked);
        self.changed.notify(usize::MAX);
    }

    /// Waits while the hub is held.
    pub(crate) async fn released(&self) {
        self.wait(false).await;
    }

    /// Waits until the hub is held.
    pub(crate) async fn held(&self) {
        self.wait(true).await;
    }

    async fn wait(&self, held: bool) {
        while self.is_held() != held {
            let listener = self.changed.listen();
            if self.is_held() == held {
                return;
            }
            listener.await;
        }
    }

    /// Notes a connection that is clean, which drops what this returns when it ends. Once the hub goes
    /// on it is not noted: the next hand-over would have it twice.
    pub(crate) fn park(&self, parked: Parked) -> Option<Parking<'_>> {
        let mut all = self.parked();
        // Under the lock, with which the end clears the list.
        if !self.is_held() {
            return None;
        }
        all.push(parked);
        drop(all);
        self.holder.wake();
        Some(Parking(self))
    }

    /// Counts a connection for which no hand-over waits.
    pub(crate) fn detach(&self) {
        self.detached.fetch_add(1, Ordering::Relaxed);
        self.holder.wake();
    }

    /// It has ended.
    pub(crate) fn end_detached(&self) {
        self.detached.fetch_sub(1, Ordering::Relaxed);
        self.holder.wake();
    }

    /// Whether as many connections are clean as there are, or more.
    pub(crate) fn are_clean(&self, connections: usize) -> bool {
        let parked = self.parked().len().saturating_sub(self.ended.load(Ordering::Relaxed));
        parked + self.detached.load(Ordering::Relaxed) >= connections
    }

    /// Waits until a connection is clean that was not.
    pub(crate) async fn changed(&self) {
        let mut is_first = true;
        poll_fn(|cx| {
            self.holder.register(cx.waker());
            if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// The connections that are clean.
    pub(crate) fn parked(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that was noted as clean, until it ends or goes on.
pub(crate) struct Parking<'a>(&'a Holding);

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        // Under the lock, with which the end sets the number to 0.
        let _parked = self.0.parked();
        if self.0.is_held() {
            self.0.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its task looked before the hub went on, and comes late.
    #[test]
    fn a_connection_that_parks_once_the_hub_goes_on_is_not_in_the_next_hand_over() {
        let holding = Holding::default();
        let park = || holding.park(Parked { client: None, along: None });
        assert!(holding.begin() && !holding.begin());
        let first = park();
        holding.end();
        drop(first);
        assert!(park().is_none());
        assert!(holding.begin());
        assert!(!holding.are_clean(1));
        let _parked = park();
        assert!(holding.are_clean(1) && !holding.are_clean(2));
    }

    #[test]
    fn a_connection_that_ends_is_not_among_the_clean_ones() {
        let holding = Holding::default();
        let park = || holding.park(Parked { client: None, along: None });
        assert!(holding.begin());
        let (first, _second) = (park(), park());
        assert!(holding.are_clean(2));
        drop(first);
        assert!(!holding.are_clean(2) && holding.are_clean(1));
        holding.end();
        assert!(holding.begin());
        let _third = park();
        assert!(holding.are_clean(1), "the next hand-over counts anew");
    }
}
