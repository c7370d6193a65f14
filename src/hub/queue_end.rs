//! The end of a queue: it is closed or evicted, or its connection is gone.

use std::sync::Arc;
use std::task::Waker;

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::queue::Queue;
use crate::hub::queue_state::{Phase, State, wake_task};
use crate::stats::add;

impl Queue {
    /// Takes no message any more: what waits goes first, then the close frame for `reason`.
    ///
    /// For the registry, when it removes the client. The first reason stands.
    pub(crate) fn close(&self, reason: Disconnect) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open) {
            state.phase = Phase::Closing;
            state.id = None;
            state.give_up(&self.queue_config);
            state.end().reason = Some(reason);
            wake_task(state);
        }
    }

    /// Evicts the client: its backlog is dropped, and counts as dropped.
    ///
    /// For the connection, when its socket takes nothing in time; the registry removes the client
    /// when the connection has ended.
    pub(crate) fn evict(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open | Phase::Closing) {
            add(&self.queue_config.counters.clients_stuck, 1);
            state.evict(&self.queue_config, 0);
            wake_task(state);
        }
    }

    /// Ends the queue with its connection; messages that still wait are lost.
    ///
    /// Returns the client's id if the registry may still hold it.
    pub(crate) fn disconnect(&self) -> Option<ClientId> {
        let mut state = self.lock();
        let waker = self.mark_dead(&mut state, 0);
        let id = state.id.take();
        drop(state);
        drop(waker);
        id
    }

    /// Why the queue was closed or evicted, once it was.
    pub(crate) fn reason(&self) -> Option<Disconnect> {
        self.lock().reason()
    }

    /// Whether the client was evicted, also if its connection has ended since.
    pub(crate) fn is_evicted(&self) -> bool {
        self.lock().end.as_ref().is_some_and(|end| end.is_evicted)
    }

    /// Keeps the rooms that the client was in. For the registry, when it removes the client.
    pub(crate) fn set_left(&self, rooms: Vec<Arc<str>>) {
        self.lock().end().left = Some(rooms);
    }

    /// Whether the registry has removed the client, and no call has taken the rooms since.
    pub(crate) fn has_left(&self) -> bool {
        self.lock().end.as_ref().is_some_and(|end| end.left.is_some())
    }

    /// Takes the rooms that the client was in when the registry removed it.
    pub(crate) fn take_left(&self) -> Option<Vec<Arc<str>>> {
        self.lock().end.as_mut()?.left.take()
    }

    /// Marks the connection as gone, counting what waits and `more` as lost.
    pub(super) fn mark_dead(&self, state: &mut State, more: usize) -> Option<Waker> {
        let waiting = state.backlog.as_ref().map_or(0, |backlog| backlog.len());
        let waiting = waiting + state.drop_newest();
        add(&self.queue_config.counters.messages_lost, (waiting + more) as u64);
        state.give_up(&self.queue_config);
        state.clear();
        state.phase = Phase::Dead;
        state.direct_writer = None;
        state.waker.take()
    }
}
