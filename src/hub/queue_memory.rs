//! The memory that a client pins, and its eviction when memory is short.

use crate::disconnect::Disconnect;
use crate::hub::backlog::Backlog;
use crate::hub::queue::Queue;
use crate::hub::queue_state::{Phase, wake_task};
use crate::message::Message;
use crate::stats::add;

impl Queue {
    /// Notes the memory that the connection holds for the client alone, and the tick since which it
    /// does: an unfinished message, or encoded events that the stream has not taken.
    pub(crate) fn set_private_bytes(&self, bytes: usize, since: u32) {
        let mut state = self.lock();
        state.private_bytes = bytes as u32;
        state.private_since = since;
    }

    /// The memory that this client pins, as far as it has pinned it since before `tick`.
    ///
    /// What its connection holds counts whole. A message that waits for several clients counts in
    /// equal parts: one that waits for a thousand counts little for each, and whole for the last
    /// client that has not taken it.
    pub(crate) fn pinned_bytes(&self, tick: u32) -> usize {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Evicted | Phase::Dead) {
            return 0;
        }
        let waiting = match &mut state.backlog {
            Some(backlog) if backlog.since() < tick => shared_bytes(backlog),
            _ => 0,
        };
        let newest = state.conflation().and_then(|conflation| conflation.newest());
        let newest = newest.filter(|newest| newest.since < tick);
        let waiting = waiting + newest.map_or(0, |newest| share_of(&newest.message));
        let own = if state.private_since < tick { state.private_bytes } else { 0 };
        waiting + own as usize
    }

    /// Evicts the client because memory is short: its backlog is freed now, the memory of its
    /// connection when that ends.
    ///
    /// For the registry, which removes the client.
    pub(crate) fn evict_for_memory(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open | Phase::Closing) {
            state.end().reason.get_or_insert_with(|| {
                let code = Disconnect::TRY_LATER.code();
                Disconnect::new(code, "the hub is short of memory, try again later")
            });
            add(&self.queue_config.counters.clients_shed, 1);
            state.evict(&self.queue_config, 0);
            state.id = None;
            wake_task(state);
        }
    }

    /// The memory that is freed when the connection of an evicted client ends.
    pub(crate) fn pending_release(&self) -> usize {
        let state = self.lock();
        if state.phase == Phase::Evicted { state.private_bytes as usize } else { 0 }
    }
}

/// A client's part of the messages that wait for it.
fn shared_bytes(backlog: &mut Backlog) -> usize {
    backlog.iter().map(share_of).sum()
}

/// A client's part of a message.
fn share_of(message: &Message) -> usize {
    message.size() / message.holders()
}
