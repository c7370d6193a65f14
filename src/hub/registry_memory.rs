//! The registry when memory is short: which clients pin it, and what their end frees.

use std::sync::{Arc, Weak};

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::queue::Queue;
use crate::hub::registry::Registry;

/// A client that pins memory, and how much.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Bytes that [`Queue::pinned_bytes`] returned.
    pub(crate) bytes: usize,
    /// The client, unless it has left the registry.
    id: Option<ClientId>,
    queue: Arc<Queue>,
}

impl Registry {
    /// Clients that have pinned memory since before `tick`, including removed clients while their
    /// connections still drain.
    pub(crate) fn candidates(&self, tick: u32) -> impl Iterator<Item = Candidate> {
        let present = self.entries.iter().map(|(slot, entry)| {
            let id = ClientId { slot: slot as u32, generation: entry.generation };
            (Some(id), Arc::clone(&entry.queue))
        });
        let leaving = self.departing.iter().filter_map(|queue| Some((None, queue.upgrade()?)));
        let candidates = present.chain(leaving);
        let candidates = candidates.map(move |(id, queue)| Candidate {
            bytes: queue.pinned_bytes(tick),
            id,
            queue,
        });
        candidates.filter(|candidate| candidate.bytes > 0)
    }

    /// Evicts a client because memory is short; returns the bytes that are freed with its
    /// connection.
    pub(crate) fn evict_for_memory(&mut self, candidate: &Candidate) -> usize {
        candidate.queue.evict_for_memory();
        if let Some(id) = candidate.id {
            log::debug!(
                "memory is short: client {id} holds {} bytes and is evicted",
                candidate.bytes
            );
            self.remove(id, Disconnect::TRY_LATER);
        }
        candidate.queue.pending_release()
    }

    /// Bytes that are freed when the connections of evicted clients have ended.
    pub(crate) fn pending_release(&self) -> usize {
        self.departing.iter().filter_map(Weak::upgrade).map(|queue| queue.pending_release()).sum()
    }

    /// Remembers a removed client until its connection has ended.
    pub(super) fn track_departing(&mut self, queue: &Arc<Queue>) {
        if !self.memory().is_limited() {
            return;
        }
        if self.departing.len() == self.departing.capacity() {
            self.departing.retain(|queue| queue.strong_count() > 0);
        }
        self.departing.push(Arc::downgrade(queue));
    }
}
