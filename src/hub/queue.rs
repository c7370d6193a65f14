//! A client's outgoing queue: one ordered lane, bounded in messages and in bytes.
//!
//! While a client keeps up, its queue is empty, and a push writes the frame through the client's
//! [`DirectWriter`] at once: no channel exists, no task wakes. Once the writer takes no more (or
//! there is none, as for a stream of the embedding program), what is left waits in a [`Backlog`], made
//! at that moment, and the connection's task drains it and drops it.
//!
//! Everything that a client is sent passes here, control frames and close frames too, so nothing
//! can come between the halves of a frame. The mutex is held by one writer at a time and never
//! across a wait: what is written through is written without waiting.

use std::io;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::disconnect::Disconnect;
use crate::hub::backlog::{Backlog, Taken};
use crate::hub::batch::Batch;
use crate::hub::client_id::ClientId;
use crate::hub::conflation::Conflation;
use crate::hub::cursor::Cursor;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::holding::Clean;
use crate::hub::positions::Numbering;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_outcome::{Drained, Push, Written};
use crate::hub::queue_state::{Phase, State, wake, wake_task};
use crate::hub::unsent::{Progress, Unsent};
use crate::memory::budget::MemoryBudget;
use crate::message::{Encoding, Message};
use crate::overflow::Overflow;
use crate::stats::add;
use crate::sync::{Mutex, MutexGuard};

/// Bytes of control frames that may wait: one pong of 127 bytes, one ping, and one more pong.
/// Beyond it the reader keeps its newest pong back (RFC 6455 5.5.3 allows answering the last ping
/// only).
const CONTROL_BYTES_MAX: usize = 320;
/// A client's queue, shared by the registry (which pushes) and the connection (which drains).
#[derive(Debug)]
pub(crate) struct Queue {
    /// Limits and counters, one for all queues of the hub.
    pub(super) queue_config: Arc<QueueConfig>,
    /// The lane; held for a push, a drain or a change of phase, never across a wait.
    state: Mutex<State>,
}
impl Queue {
    /// Makes the queue of a client in its handshake.
    pub(crate) fn new(queue_config: &Arc<QueueConfig>) -> Arc<Self> {
        let state = State {
            phase: Phase::Handshaking,
            has_close_frame: false,
            sent: false,
            encoding: Encoding::Plain,
            direct_writer: None,
            control: Vec::new(),
            backlog: None,
            waker: None,
            end: None,
            extras: None,
            id: None,
            private_bytes: 0,
            private_since: 0,
        };
        Arc::new(Self { queue_config: Arc::clone(queue_config), state: Mutex::new(state) })
    }

    /// Chooses what the client's frames are written in, before anything is pushed.
    pub(crate) fn set_encoding(&self, encoding: Encoding) {
        self.lock().encoding = encoding;
    }

    /// What the client's frames are written in.
    pub(crate) fn encoding(&self) -> Encoding {
        self.lock().encoding
    }

    /// Has the client get each message with a label, before anything is pushed.
    pub(crate) fn set_labels(&self) {
        self.lock().extras.get_or_insert_default().has_labels = true;
    }

    /// Whether the client gets its messages with labels.
    pub(crate) fn has_labels(&self) -> bool {
        self.lock().has_labels()
    }

    /// Where messages with labels are charged, if the client gets them so.
    pub(crate) fn label_memory(&self) -> Option<&Arc<MemoryBudget>> {
        self.has_labels().then_some(&self.queue_config.memory)
    }

    /// Tells the queue the id of its client; returns what its frames are written in and whether they
    /// have labels, or `None` if the connection is gone already.
    pub(crate) fn set_id(&self, id: ClientId) -> Option<(Encoding, bool)> {
        let mut state = self.lock();
        if state.phase == Phase::Dead {
            return None;
        }
        state.id = Some(id);
        Some((state.encoding, state.has_labels()))
    }

    /// Gives the queue of a client that came from another process what it had there; returns what
    /// its frames are written in, and whether they have labels.
    pub(crate) fn restore(
        &self,
        id: ClientId,
        missed: u64,
        cursor: Option<Cursor>,
    ) -> (Encoding, bool) {
        let mut state = self.lock();
        state.id = Some(id);
        // The other process has sent it something.
        state.sent = true;
        if missed > 0 || cursor.is_some() {
            let extras = state.extras.get_or_insert_default();
            (extras.missed, extras.cursor) = (missed, cursor);
        }
        (state.encoding, state.has_labels())
    }

    /// What another process has to know of the client, if that may take it over: it is open, and
    /// neither a message nor the word of a gap waits here, but for a message that waits for its time. What
    /// else it is owed waits in its room.
    pub(crate) fn clean(&self) -> Option<Clean> {
        let mut state = self.lock();
        if state.phase != Phase::Open || !state.is_empty() {
            return None;
        }
        let (missed, encoding, has_labels) = (state.missed(), state.encoding, state.has_labels());
        // Behind a message that waits for its time it hears of a gap, as its position goes along.
        let waits = state.conflation().is_some_and(|own| own.newest().is_some());
        let cursor = match state.cursor() {
            // One that ends at the newest message ends now.
            Some(cursor) if (cursor.has_gap && !waits) || cursor.ends => return None,
            cursor => cursor.map(|cursor| cursor.plain()),
        };
        let plain = |own: &mut Conflation| Box::new(own.plain(Duration::ZERO));
        let conflation = state.conflation().map(plain);
        Some(Clean { missed, encoding, has_labels, cursor, conflation })
    }

    /// Notes that the client is the embedding program, which has no peer.
    pub(crate) fn set_program(&self) {
        self.lock().extras.get_or_insert_default().is_program = true;
    }

    /// Whether the client is the embedding program.
    pub(crate) fn is_program(&self) -> bool {
        self.lock().is_program()
    }

    /// Ends the wait for the handshake: what is pushed may be written from now on.
    pub(crate) fn open(&self, direct_writer: Option<Arc<dyn DirectWriter>>) {
        let mut state = self.lock();
        if state.phase == Phase::Handshaking {
            state.phase = Phase::Open;
            state.direct_writer = direct_writer;
        }
    }

    /// Takes a batch, in order: writes it if nothing waits, else lets it wait.
    #[cfg_attr(hublet_small, optimize(speed))]
    pub(crate) fn push(&self, batch: &Batch<'_>) -> Push {
        let mut state = self.lock_here();
        state.sent = true;
        if state.extras.is_some() {
            return self.push_with_extras(state, batch);
        }
        self.write_or_wait(state, batch, Numbering::Off)
    }

    /// Writes a batch if nothing waits, else lets it wait.
    #[inline(always)]
    pub(super) fn write_or_wait(
        &self,
        mut state: MutexGuard<'_, State>,
        batch: &Batch<'_>,
        numbering: Numbering,
    ) -> Push {
        let was_empty = state.is_empty();
        match self.write_through(&mut state, batch, batch.messages().len()) {
            Written::Whole => Push::Ok,
            Written::Part(first) => self.enqueue(state, was_empty, batch, first, numbering),
            Written::Failed(waker) => {
                drop(state);
                wake(waker);
                Push::Ok
            }
        }
    }

    /// Writes what the client's writer takes of a batch, if nothing waits. If the writer has failed,
    /// `lost` messages count as lost, beside those that the client's cursor owes it.
    #[inline(always)]
    pub(super) fn write_through(
        &self,
        state: &mut State,
        batch: &Batch<'_>,
        lost: usize,
    ) -> Written {
        let is_ready = state.is_empty() && state.phase == Phase::Open;
        let direct_writer = if is_ready { state.direct_writer.as_ref() } else { None };
        if let Some(direct_writer) = direct_writer {
            let frames = batch.frames(state.encoding);
            match direct_writer.try_write(frames.slices()) {
                Ok(bytes) if bytes == frames.bytes => {
                    batch.count_whole(bytes);
                    return Written::Whole;
                }
                Ok(bytes) if bytes > 0 => {
                    return Written::Part(self.keep_cut(state, batch, bytes));
                }
                Err(error) if is_transient(&error) => {}
                Ok(_) | Err(_) => {
                    return Written::Failed(self.mark_dead(state, lost));
                }
            }
        }
        Written::Part(0)
    }

    /// Sets other limits for this queue than for all.
    pub(crate) fn set_terms(&self, terms: QueueConfig) {
        self.lock().extras.get_or_insert_default().terms = Some(Arc::new(terms));
    }

    /// Keeps the message of a batch that the first `bytes` end in, if they do; returns how many
    /// messages need not wait any more.
    #[inline(never)]
    fn keep_cut(&self, state: &mut State, batch: &Batch<'_>, bytes: usize) -> usize {
        let (whole, cut) = batch.count_part(state.encoding, bytes);
        if cut == 0 {
            return whole;
        }
        let backlog = self.backlog(state);
        backlog.push_cut(&batch.messages()[whole], cut);
        if let Some(ack) = batch.ack {
            backlog.owe(0, ack.owe(), &self.queue_config);
        }
        whole + 1
    }

    /// Lets the messages of a batch wait, from the one at `first` on. Apart, since it is the rare
    /// way of a push and takes more of the stack than the common one.
    #[inline(never)]
    fn enqueue(
        &self,
        mut state: MutexGuard<'_, State>,
        was_empty: bool,
        batch: &Batch<'_>,
        mut first: usize,
        numbering: Numbering,
    ) -> Push {
        if !matches!(state.phase, Phase::Handshaking | Phase::Open) {
            return Push::Gone;
        }
        let overflow = state.overflow(&self.queue_config);
        if overflow == Overflow::Latest && !was_empty {
            first = self.keep_latest(&mut state, batch);
        }
        let mut outcome = Push::Ok;
        for (index, message) in batch.messages().iter().enumerate().skip(first) {
            if !self.wait(&mut state, overflow, (message, numbering.at(index)), batch) {
                state.evict(&self.queue_config, batch.messages().len() - index);
                state.id = None;
                outcome = Push::Full;
                break;
            }
        }
        // While something waits the task is armed for the moment when more fits, or woken.
        if was_empty || outcome == Push::Full {
            wake_task(state);
        }
        outcome
    }

    /// Drops what waits for a client that is behind, but for a message that is cut, and all of a batch
    /// but its last message; returns the index of that.
    fn keep_latest(&self, state: &mut State, batch: &Batch<'_>) -> usize {
        let waiting = state.backlog.as_mut().map_or(0, |backlog| backlog.drop_all_but_cut());
        let last = batch.messages().len() - 1;
        state.miss((waiting + last) as u64, &self.queue_config);
        last
    }

    /// Lets a message wait; `false` if it does not fit and the policy is to evict.
    fn wait(
        &self,
        state: &mut State,
        overflow: Overflow,
        (message, position): (&Message, Option<u64>),
        batch: &Batch<'_>,
    ) -> bool {
        let terms = state.terms();
        let is_program = state.is_program();
        let queue_config = terms.as_deref().unwrap_or(&self.queue_config);
        let backlog = self.backlog(state);
        let mut missed = 0;
        let fits = loop {
            if backlog.push(message, position, queue_config) {
                if let Some(ack) = batch.ack {
                    backlog.owe(backlog.len() - 1, ack.owe(), queue_config);
                }
                if is_program {
                    backlog.note_room(batch.room, queue_config);
                }
                break true;
            }
            match overflow {
                Overflow::Disconnect | Overflow::Replay => break false,
                Overflow::Latest => {
                    let dropped = backlog.drop_all_but_cut() as u64;
                    missed += dropped.max(1);
                    if dropped == 0 {
                        break true;
                    }
                }
                Overflow::DropOldest if backlog.drop_oldest() => missed += 1,
                Overflow::DropOldest | Overflow::DropNewest => {
                    missed += 1;
                    break true;
                }
            }
        };
        state.forget_empty_backlog();
        state.miss(missed, queue_config);
        fits
    }

    /// The backlog of the client, which is behind from now on.
    pub(super) fn backlog<'a>(&self, state: &'a mut State) -> &'a mut Backlog {
        let encoding = state.encoding;
        let new = || Backlog::new(encoding, self.queue_config.memory.tick());
        state.backlog.get_or_insert_with(new)
    }

    /// Takes a whole control frame; `false` if too many bytes of them wait already.
    ///
    /// It is written by the drain that follows, or forgotten behind a close frame.
    pub(crate) fn push_control(&self, frame: &[u8]) -> bool {
        let mut state = self.lock();
        if state.has_close_frame {
            return true;
        }
        if state.control.len() + frame.len() > CONTROL_BYTES_MAX {
            return false;
        }
        state.control.extend_from_slice(frame);
        state.sent = true;
        true
    }

    /// Whether anything but a close frame was ever pushed for the client, so that it may be on its
    /// way.
    pub(crate) fn has_sent(&self) -> bool {
        self.lock().sent
    }

    /// Appends the close frame, of a queue that has been drained or evicted; only the first counts.
    pub(crate) fn push_close(&self, frame: &[u8]) {
        let mut state = self.lock();
        if !state.has_close_frame {
            state.has_close_frame = true;
            state.control.extend_from_slice(frame);
        }
    }

    /// Hands what waits to `write`, at most about `budget` bytes of it, and remembers the task's
    /// waker.
    ///
    /// `write` is polled while anything waits; it arms the wake for when more fits. At the end of
    /// the budget the task is woken at once.
    pub(crate) fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        budget: usize,
        mut write: impl FnMut(&mut Context<'_>, &Unsent<'_>) -> Poll<io::Result<Progress>>,
    ) -> Drained {
        let mut state = self.lock();
        let mut written = 0;
        // Most often nothing waits.
        if !state.is_empty() {
            let mut delivered = 0;
            while !matches!(state.phase, Phase::Dead | Phase::Handshaking) && !state.is_empty() {
                if written >= budget {
                    cx.waker().wake_by_ref();
                    break;
                }
                match write(cx, &state.unsent()) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(progress)) => {
                        written += state.advance(progress);
                        delivered += progress.messages as u64;
                    }
                    Poll::Ready(Err(_)) => {
                        self.mark_dead(&mut state, 0);
                    }
                }
            }
            add(&self.queue_config.counters.messages_delivered, delivered);
            add(&self.queue_config.counters.bytes_sent, written as u64);
            if state.is_empty() {
                state.clear();
            }
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        let (empty, phase) = (state.is_empty(), state.phase);
        let request = if state.extras.is_some() { state.take_request() } else { None };
        let position = state.position();
        let has_gap = position.is_some() && state.cursor().is_some_and(|cursor| cursor.has_gap);
        let due = if state.extras.is_some() { state.due() } else { None };
        Drained { wrote: written > 0, empty, phase, request, position, has_gap, due }
    }

    /// Takes the first message that waits, for a client without a stream; `Err` with the reason
    /// once the queue has ended and nothing waits any more. While pending it stores the task's
    /// waker.
    ///
    /// What is taken counts as delivered. Not for a queue that pushes write through, where the
    /// first message may be half written.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<Taken, Disconnect>> {
        let mut state = self.lock();
        debug_assert!(state.direct_writer.is_none());
        if let Some(taken) = state.backlog.as_mut().and_then(|backlog| backlog.pop()) {
            state.forget_empty_backlog();
            add(&self.queue_config.counters.messages_delivered, 1);
            return Poll::Ready(Ok(taken));
        }
        match state.phase {
            Phase::Handshaking | Phase::Open => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Phase::Closing | Phase::Evicted | Phase::Dead => {
                Poll::Ready(Err(state.reason().unwrap_or(Disconnect::GOING_AWAY)))
            }
        }
    }

    /// Messages and bytes that wait now.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        state.backlog.as_ref().map_or((0, 0), |backlog| (backlog.len(), backlog.bytes()))
    }

    /// Messages this client has missed to the overflow policy, or to a room that keeps them no more.
    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed()
    }

    /// Whether the channel of a client that is behind exists.
    #[cfg(test)]
    pub(crate) fn has_backlog(&self) -> bool {
        self.lock().backlog.is_some()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.lock_here()
    }

    /// The same without a call, for a push.
    #[inline(always)]
    fn lock_here(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
/// Whether a write may simply be tried again later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
