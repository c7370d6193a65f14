//! A client's outgoing queue: one ordered lane, bounded in messages and in bytes.
//!
//! While a client keeps up, its queue is empty, and a push writes the frame through the client's
//! [`DirectWriter`] at once: no channel exists, no task wakes. Once the writer takes no more (or
//! there is none, as for a TLS stream), what is left waits in a [`Backlog`], made at that moment,
//! and the connection's task drains it and drops it.
//!
//! Everything that a client is sent passes here, control frames and close frames too, so nothing
//! can come between the halves of a frame. The mutex is held by one writer at a time and never
//! across a wait: what is written through is written without waiting.

use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use crate::disconnect::Disconnect;
use crate::hub::backlog::{Backlog, Taken};
use crate::hub::batch::Batch;
use crate::hub::client_id::ClientId;
use crate::hub::cursor::{Cursor, Reader};
use crate::hub::extras::Extras;
use crate::hub::queue_config::QueueConfig;
use crate::hub::state;
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

/// Where a queue may write without waiting.
pub(crate) trait DirectWriter: fmt::Debug + Send + Sync {
    /// Writes as much as fits now, in order; `WouldBlock` when nothing does.
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// Every message was written, waits, or was dropped by a policy that keeps the client.
    Ok,
    /// The queue overflowed and the client is evicted.
    Full,
    /// The client has ended already; nothing was taken.
    Gone,
    /// The client hears its room and nothing else; nothing was taken.
    Refused,
}

/// How far a batch went straight to the client's writer.
pub(super) enum Written {
    /// All of it.
    Whole,
    /// So many messages need not wait any more.
    Part(usize),
    /// The client is gone, and its messages are lost.
    Failed(Option<Waker>),
}

/// The positions of a batch, for a client that is told them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbering {
    /// It is not told.
    Off,
    /// The messages have none.
    None,
    /// They begin behind this one.
    Behind(u64),
}

impl Numbering {
    /// The position of the message at `index`.
    pub(super) fn at(self, index: usize) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::None => Some(0),
            Self::Behind(position) => Some(position + index as u64 + 1),
        }
    }
}

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

/// What one drain found and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Whether the stream took any bytes.
    pub(crate) wrote: bool,
    /// Whether nothing waits any more.
    pub(crate) empty: bool,
    /// The phase after the drain.
    pub(crate) phase: Phase,
    /// The client, if nothing waits here and messages wait in its room: the manager is to be asked.
    pub(crate) request: Option<ClientId>,
    /// The position of the last message that it was handed, for a client that is told it.
    pub(crate) position: Option<u64>,
    /// Whether the client has not been told whole of a gap before that.
    pub(crate) has_gap: bool,
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
}

/// A client's queue, shared by the registry (which pushes) and the connection (which drains).
#[derive(Debug)]
pub(crate) struct Queue {
    /// Limits and counters, one for all queues of the hub.
    pub(super) queue_config: Arc<QueueConfig>,
    /// The lane; held for a push, a drain or a change of phase, never across a wait.
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// Whether the close frame waits or is written: nothing may follow it (RFC 6455 5.5.1).
    closing: bool,
    /// Whether anything but a close frame ever came here, taken or not.
    pub(super) sent: bool,
    /// What the client's frames are written in.
    pub(super) encoding: Encoding,
    /// Where a push writes while nothing waits; `None` for a stream that only its task can write.
    pub(super) direct_writer: Option<Arc<dyn DirectWriter>>,
    /// Control frames that wait: after a cut frame, before whole messages.
    control: Vec<u8>,
    /// Messages that wait, one at least; made by the first push that the socket does not take.
    pub(super) backlog: Option<Box<Backlog>>,
    /// Wakes the connection's task; stored by each of its polls, taken by the call that wakes it.
    pub(super) waker: Option<Waker>,
    /// What is known of the end, once there is one.
    end: Option<Box<End>>,
    /// What only some clients need.
    pub(super) extras: Option<Box<Extras>>,
    /// The client's id once the registry has taken it in.
    pub(super) id: Option<ClientId>,
    /// Memory that the connection holds for the client alone, and the tick since which it does.
    private_bytes: u32,
    private_since: u32,
}

/// The end of a client.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Why the queue was closed or evicted; `None` if the connection ended by itself.
    pub(super) reason: Option<Disconnect>,
    /// The rooms that the client was in when the registry removed it, until its connection takes
    /// them for the hook.
    left: Option<Vec<Arc<str>>>,
    /// The hub has evicted the client, for whatever reason.
    is_evicted: bool,
}

impl Queue {
    /// Makes the queue of a client in its handshake.
    pub(crate) fn new(queue_config: &Arc<QueueConfig>) -> Arc<Self> {
        let state = State {
            phase: Phase::Handshaking,
            closing: false,
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
    /// neither a message nor the word of a gap waits here. What it is owed waits in its room.
    pub(crate) fn clean(&self) -> Option<Clean> {
        let mut state = self.lock();
        if state.phase != Phase::Open || !state.is_empty() {
            return None;
        }
        let (missed, encoding, has_labels) = (state.missed(), state.encoding, state.has_labels());
        let cursor = match state.cursor() {
            // One that ends at the newest message ends now.
            Some(cursor) if cursor.has_gap || cursor.ends => return None,
            cursor => cursor.map(|cursor| cursor.plain()),
        };
        Some(Clean { missed, encoding, has_labels, cursor })
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
            let waker = state.waker.take();
            drop(state);
            wake(waker);
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
    fn backlog<'a>(&self, state: &'a mut State) -> &'a mut Backlog {
        let encoding = state.encoding;
        let new = || Backlog::new(encoding, self.queue_config.memory.tick());
        state.backlog.get_or_insert_with(new)
    }

    /// Takes a whole control frame; `false` if too many bytes of them wait already.
    ///
    /// It is written by the drain that follows, or forgotten behind a close frame.
    pub(crate) fn push_control(&self, frame: &[u8]) -> bool {
        let mut state = self.lock();
        if state.closing {
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
        if !state.closing {
            state.closing = true;
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
        Drained { wrote: written > 0, empty, phase, request, position, has_gap }
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
            let waker = state.waker.take();
            drop(state);
            wake(waker);
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
            let waker = state.waker.take();
            drop(state);
            wake(waker);
        }
    }

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
            let waker = state.waker.take();
            drop(state);
            wake(waker);
        }
    }

    /// The memory that is freed when the connection of an evicted client ends.
    pub(crate) fn pending_release(&self) -> usize {
        let state = self.lock();
        if state.phase == Phase::Evicted { state.private_bytes as usize } else { 0 }
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

    /// Marks the connection as gone, counting what waits and `more` as lost.
    fn mark_dead(&self, state: &mut State, more: usize) -> Option<Waker> {
        let waiting = state.backlog.as_ref().map_or(0, |backlog| backlog.len());
        add(&self.queue_config.counters.messages_lost, (waiting + more) as u64);
        state.give_up(&self.queue_config);
        state.clear();
        state.phase = Phase::Dead;
        state.direct_writer = None;
        state.waker.take()
    }
}

impl State {
    /// What is known of the end, which has begun.
    pub(super) fn end(&mut self) -> &mut End {
        self.end.get_or_insert_default()
    }

    fn reason(&self) -> Option<Disconnect> {
        self.end.as_ref()?.reason.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_none() && self.control.is_empty()
    }

    fn miss(&mut self, n: u64, queue_config: &QueueConfig) {
        if n > 0 {
            self.extras.get_or_insert_default().missed += n;
            add(&queue_config.counters.messages_dropped, n);
        }
    }

    fn missed(&self) -> u64 {
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

    /// The position of the last message that a client was handed that is told it.
    pub(super) fn position(&self) -> Option<u64> {
        let cursor = self.extras.as_ref()?.cursor.as_ref()?;
        (cursor.reader == Reader::Numbered).then(|| cursor.position())
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
    fn overflow(&self, queue_config: &QueueConfig) -> Overflow {
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
    fn clear(&mut self) {
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
    fn unsent(&mut self) -> Unsent<'_> {
        match &mut self.backlog {
            Some(backlog) => backlog.unsent(&self.control),
            None => Unsent::control(&self.control),
        }
    }

    /// Lets go of what is written; returns the bytes of it.
    fn advance(&mut self, progress: Progress) -> usize {
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

/// A client's part of the messages that wait for it.
fn shared_bytes(backlog: &mut Backlog) -> usize {
    backlog.iter().map(|message| message.size() / message.holders()).sum()
}

/// Whether a write may simply be tried again later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
