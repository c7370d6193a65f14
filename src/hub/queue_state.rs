//! The state of a queue under its lock, and its life.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::disconnect::Disconnect;
use crate::hub::backlog::Backlog;
use crate::hub::client_id::ClientId;
use crate::hub::cursor::{Cursor, Reader};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::extras::Extras;
use crate::hub::queue_config::QueueConfig;
use crate::hub::unsent::{Progress, Unsent};
use crate::message::Encoding;
use crate::overflow::Overflow;
use crate::stats::add;
use crate::sync::MutexGuard;

/// How far a queue's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The handshake is not over: messages wait, nothing is written.
    Handshaking,
    /// Messages come and go.
    Open,
    /// No message is taken any more; what waits goes first, then the close frame.
    Closing,
    /// The client was too slow: its backlog is gone, only a frame cut in the middle is kept.
    Evicted,
    /// The connection is gone; nothing will be written.
    Dead,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// Whether the close frame waits or is written: nothing may follow it (RFC 6455 5.5.1).
    pub(super) has_close_frame: bool,
    /// Whether anything but a close frame ever came here, taken or not.
    pub(super) sent: bool,
    /// What the client's frames are written in.
    pub(super) encoding: Encoding,
    /// Where a push writes while nothing waits; `None` for a stream that only its task can write.
    pub(super) direct_writer: Option<Arc<dyn DirectWriter>>,
    /// Control frames that wait: after a cut frame, before whole messages.
    pub(super) control: Vec<u8>,
    /// Messages that wait, one at least; made by the first push that the socket does not take.
    pub(super) backlog: Option<Box<Backlog>>,
    /// Wakes the connection's task; stored by each of its polls, taken by the call that wakes it.
    pub(super) waker: Option<Waker>,
    /// What is known of the end, once there is one.
    pub(super) end: Option<Box<End>>,
    /// What only some clients need.
    pub(super) extras: Option<Box<Extras>>,
    /// The client's id once the registry has taken it in.
    pub(super) id: Option<ClientId>,
    /// Memory that the connection holds for the client alone, and the tick since which it does.
    pub(super) private_bytes: u32,
    pub(super) private_since: u32,
}

/// The end of a client.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Why the queue was closed or evicted; `None` if the connection ended by itself.
    pub(super) reason: Option<Disconnect>,
    /// The rooms that the client was in when the registry removed it, until its connection takes
    /// them for the hook.
    pub(super) left: Option<Vec<Arc<str>>>,
    /// The hub has evicted the client, for whatever reason.
    pub(super) is_evicted: bool,
}

impl State {
    /// What is known of the end, which has begun.
    pub(super) fn end(&mut self) -> &mut End {
        self.end.get_or_insert_default()
    }

    pub(super) fn reason(&self) -> Option<Disconnect> {
        self.end.as_ref()?.reason.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_none() && self.control.is_empty()
    }

    pub(super) fn miss(&mut self, n: u64, queue_config: &QueueConfig) {
        if n > 0 {
            self.extras.get_or_insert_default().missed += n;
            add(&queue_config.counters.messages_dropped, n);
        }
    }

    pub(super) fn missed(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.missed)
    }

    pub(super) fn is_program(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_program)
    }

    pub(super) fn has_labels(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.has_labels)
    }

    pub(super) fn cursor(&mut self) -> Option<&mut Cursor> {
        self.extras.as_mut()?.cursor.as_mut()
    }

    /// The position of the last message that a client was handed that is told it. A message that waits
    /// for its time is still to be handed to it.
    pub(super) fn position(&self) -> Option<u64> {
        let extras = self.extras.as_ref()?;
        let cursor = extras.cursor.as_ref().filter(|cursor| cursor.reader == Reader::Numbered)?;
        let newest = extras.conflation.as_ref().and_then(|conflation| conflation.newest());
        Some(newest.map_or(cursor.position(), |newest| newest.last_position))
    }

    /// The client, if it should ask for more: nothing waits here, and messages wait in its room. It
    /// asks once.
    pub(super) fn take_request(&mut self) -> Option<ClientId> {
        let id = self.id.filter(|_| self.phase == Phase::Open && self.is_empty())?;
        let cursor = self.cursor()?;
        let request = cursor.is_behind() && !std::mem::replace(&mut cursor.has_requested, true);
        request.then_some(id)
    }

    /// What happens when this queue is full: no message may be dropped for a client that counts them.
    pub(super) fn overflow(&self, queue_config: &QueueConfig) -> Overflow {
        let cursor = self.extras.as_ref().and_then(|extras| extras.cursor.as_ref());
        match cursor {
            Some(cursor) if cursor.reader == Reader::Counting => Overflow::Disconnect,
            _ => self.queue_overflow(queue_config),
        }
    }

    /// The policy of this queue.
    pub(super) fn queue_overflow(&self, queue_config: &QueueConfig) -> Overflow {
        let terms = self.extras.as_ref().and_then(|extras| extras.terms.as_ref());
        terms.map_or(queue_config.overflow, |terms| terms.overflow)
    }

    /// The limits of this queue, if they are not those of all.
    pub(super) fn terms(&self) -> Option<Arc<QueueConfig>> {
        self.extras.as_ref()?.terms.clone()
    }

    /// Counts as lost what waits in the room of a client that ends.
    pub(super) fn give_up(&mut self, queue_config: &QueueConfig) {
        let lost = self.cursor().map_or(0, Cursor::give_up);
        add(&queue_config.counters.messages_lost, lost);
    }

    /// Evicts: the backlog and `more` messages count as dropped. A cut frame is kept, and control
    /// frames, the first of which may be cut.
    pub(super) fn evict(&mut self, queue_config: &QueueConfig, more: usize) {
        let dropped = self.backlog.as_mut().map_or(0, |backlog| backlog.drop_all_but_cut());
        let dropped = dropped + self.drop_newest();
        self.forget_empty_backlog();
        self.miss((dropped + more) as u64, queue_config);
        self.give_up(queue_config);
        self.phase = Phase::Evicted;
        self.direct_writer = None;
        let reason = match self.missed() {
            0 => Disconnect::SLOW,
            1 => Disconnect::new(Disconnect::SLOW.code(), "too slow: missed 1 message"),
            n => Disconnect::new(Disconnect::SLOW.code(), format!("too slow: missed {n} messages")),
        };
        let end = self.end();
        // A client that is already closing keeps its first reason when it is evicted.
        end.reason.get_or_insert(reason);
        end.is_evicted = true;
        queue_config.counters.clients_evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets everything that waits.
    pub(super) fn clear(&mut self) {
        self.control = Vec::new();
        self.backlog = None;
    }

    /// Gives the memory of a backlog back once nothing waits in it: the client is not behind.
    pub(super) fn forget_empty_backlog(&mut self) {
        if self.backlog.as_ref().is_some_and(|backlog| backlog.is_empty()) {
            self.backlog = None;
        }
    }

    /// What a drain has to write.
    pub(super) fn unsent(&mut self) -> Unsent<'_> {
        match &mut self.backlog {
            Some(backlog) => backlog.unsent(&self.control),
            None => Unsent::control(&self.control),
        }
    }

    /// Lets go of what is written; returns the bytes of it.
    pub(super) fn advance(&mut self, progress: Progress) -> usize {
        self.control.drain(..progress.control);
        let sent = self.backlog.as_mut().map_or(0, |backlog| backlog.advance(progress));
        self.forget_empty_backlog();
        progress.control + sent
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("backlog", &self.backlog)
            .field("extras", &self.extras)
            .finish_non_exhaustive()
    }
}

/// Wakes the task of the connection, once the queue is unlocked: it locks the queue.
pub(super) fn wake_task(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    wake(waker);
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
