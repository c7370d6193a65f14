//! A client's outgoing way: one ordered lane, bounded in messages and in bytes.
//!
//! While a client keeps up, its queue is empty, and a push writes the frame through the client's
//! [`DirectWriter`] at once: no channel exists, no task wakes. Once the writer takes no more (or there
//! is none, as for a TLS stream), what is left waits in a bounded channel, made at that moment and
//! filled by `try_send`, and the connection's task drains it and drops it.
//!
//! Everything that a client is sent passes here, control frames and close frames too, so nothing
//! can come between the halves of a frame. The mutex is held by one writer at a time and never
//! across a wait: what is written through is written without waiting.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use async_channel::{Receiver, Sender, bounded};

use crate::config::Overflow;
use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::unsent::{Progress, Unsent, split_at};
use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::message::Message;
use crate::stats::{Counters, DeliveryCount, add};
use crate::sync::{Mutex, MutexGuard};

/// Messages that are pushed together at most. Half a queue at the defaults.
pub(crate) const BATCH_MAX: usize = 32;

/// Messages taken out of the channel at a time, so that one write has several to carry.
const STAGE_MAX: usize = 32;

/// Bytes of control frames that may wait: one pong of 127 bytes, one ping, and one more pong.
/// Beyond it the reader keeps its newest pong back (RFC 6455 5.5.3 allows answering the last ping
/// only).
const CONTROL_BYTES_MAX: usize = 320;

/// Where a queue may write without waiting.
pub(crate) trait DirectWriter: fmt::Debug + Send + Sync {
    /// Writes as much as fits now, in order; `WouldBlock` when nothing does.
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// What all queues of a hub have in common.
#[derive(Debug)]
pub(crate) struct QueueConfig {
    /// Messages that may wait in one queue.
    pub(crate) messages: usize,
    /// Bytes of frames that may wait in one queue.
    pub(crate) bytes: usize,
    /// What happens to a client whose queue is full.
    pub(crate) overflow: Overflow,
    /// Where deliveries, drops and losses are counted.
    pub(crate) counters: Arc<Counters>,
    /// Where the channels of those who are behind are counted, unless a ceiling has them set aside
    /// with each connection. What waits in them is counted by who took it in, once for all queues.
    pub(crate) memory: Arc<MemoryBudget>,
}

impl QueueConfig {
    /// Bytes that a client's being behind adds to what is held.
    fn backlog_size(&self) -> usize {
        if self.memory.is_limited() { 0 } else { backlog_size(self.messages) }
    }
}

/// Messages for one client, in order, and their frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    messages: &'a [Message],
    frames: &'a [IoSlice<'a>],
    /// Bytes of the frames.
    bytes: usize,
    tally: &'a DeliveryCount<'a>,
}

impl<'a> Batch<'a> {
    /// `frames` are those of the messages, ready for a vectored write: a slice for each, or one for
    /// all. What is written at once is counted in `tally`.
    pub(crate) fn new(
        messages: &'a [Message],
        frames: &'a [IoSlice<'a>],
        tally: &'a DeliveryCount<'a>,
    ) -> Self {
        let bytes = frames.iter().map(|frame| frame.len()).sum();
        Self { messages, frames, bytes, tally }
    }
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
}

/// A client's queue, shared by the registry (which pushes) and the connection (which drains).
#[derive(Debug)]
pub(crate) struct Queue {
    /// Limits and counters, one for all queues of the hub.
    queue_config: Arc<QueueConfig>,
    /// The lane; held for a push, a drain or a change of phase, never across a wait.
    state: Mutex<State>,
}

/// Sizes are 32 bits wide, as no limit is past 2^30 ([`Config::LIMIT_MAX`](crate::Config::LIMIT_MAX)).
///
/// In the order of use, from the lock on: a push that is written at once reads the fields up to
/// `control` alone, so that a fan-out fetches one or two cache lines of each queue and not three.
/// Without `repr(C)` the compiler puts the smallest of these fields last.
#[repr(C)]
struct State {
    phase: Phase,
    /// Whether the close frame waits or is written: nothing may follow it (RFC 6455 5.5.1).
    closing: bool,
    /// Whether anything but a close frame ever came here, taken or not.
    sent: bool,
    /// Messages that wait, in `front` and `backlog`.
    waiting: u32,
    /// Where a push writes while nothing waits; `None` for a stream only its task can write.
    outlet: Option<Arc<dyn DirectWriter>>,
    /// Control frames that wait: after a cut frame, before whole messages.
    control: Vec<u8>,
    /// Messages taken out of the channel, the first of them perhaps half written.
    staged: VecDeque<Message>,
    /// What does not fit the socket; made by the first push that finds it full, dropped when empty.
    backlog: Option<Box<Backlog>>,
    /// Wakes the connection's task; stored by each of its polls, taken by who wakes it.
    waker: Option<Waker>,
    /// Why the queue was sealed or evicted.
    reason: Option<Box<Disconnect>>,
    /// Messages this client has missed to the overflow policy.
    missed: u64,
    /// The client's id once the registry has taken it in.
    id: Option<ClientId>,
    /// Bytes of the first message in `front` that are written already.
    head_written: u32,
    /// Bytes of the frames that wait, those already written of a cut one included.
    bytes: u32,
    /// The tick since which something has waited all the time.
    behind_since: u32,
    /// Memory that the connection holds for the client alone, and the tick since which it does.
    private_bytes: u32,
    private_since: u32,
}

/// The bounded channel of a client that is behind.
struct Backlog {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// The memory of the channel, and of the messages' places in `front`.
    _held: Charge,
}

impl Backlog {
    fn new(queue_config: &QueueConfig) -> Box<Self> {
        let (sender, receiver) = bounded(queue_config.messages);
        Box::new(Self {
            sender,
            receiver,
            _held: queue_config.memory.charge(queue_config.backlog_size()),
        })
    }
}

/// The memory that a client's being behind takes, beside its messages.
///
/// A channel is about 700 bytes, and a place in it a message and a count.
pub(crate) const fn backlog_size(messages: usize) -> usize {
    const CHANNEL: usize = 768;
    const PLACE: usize = size_of::<Message>() + size_of::<usize>();
    let channel = allocation(messages.saturating_mul(PLACE).saturating_add(CHANNEL));
    channel.saturating_add(allocation(messages.saturating_mul(size_of::<Message>())))
}

impl Queue {
    /// Makes the queue of a client whose handshake is not over.
    pub(crate) fn new(queue_config: &Arc<QueueConfig>) -> Arc<Self> {
        let state = State {
            phase: Phase::Handshaking,
            closing: false,
            sent: false,
            waiting: 0,
            outlet: None,
            control: Vec::new(),
            staged: VecDeque::new(),
            backlog: None,
            waker: None,
            reason: None,
            missed: 0,
            id: None,
            head_written: 0,
            bytes: 0,
            behind_since: 0,
            private_bytes: 0,
            private_since: 0,
        };
        Arc::new(Self { queue_config: Arc::clone(queue_config), state: Mutex::new(state) })
    }

    /// Tells the queue the id of its client; `false` if the connection is gone already.
    pub(crate) fn set_id(&self, id: ClientId) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Dead {
            return false;
        }
        state.id = Some(id);
        true
    }

    /// Ends the wait for the handshake: what is pushed may be written from now on.
    pub(crate) fn open(&self, outlet: Option<Arc<dyn DirectWriter>>) {
        let mut state = self.lock();
        if state.phase == Phase::Handshaking {
            state.phase = Phase::Open;
            state.outlet = outlet;
        }
    }

    /// Takes a run of messages, in order: writes them if nothing waits, else lets them wait.
    pub(crate) fn push(&self, run: Batch<'_>) -> Push {
        let mut state = self.lock();
        state.sent = true;
        let was_empty = state.is_empty();
        let mut first = 0;
        if let (true, Phase::Open, Some(outlet)) = (was_empty, state.phase, &state.outlet) {
            match outlet.try_write(run.frames) {
                Ok(bytes) if bytes == run.bytes => {
                    run.tally.wrote(run.messages.len(), bytes);
                    return Push::Ok;
                }
                Ok(bytes) if bytes > 0 => first = state.note_partial_write(run, bytes),
                Err(error) if is_transient(&error) => {}
                Ok(_) | Err(_) => {
                    let waker = self.mark_dead(&mut state, run.messages.len());
                    drop(state);
                    wake(waker);
                    return Push::Ok;
                }
            }
        }
        self.enqueue(state, was_empty, run, first)
    }

    /// Lets the messages of a run wait, from the one at `first` on. Apart, since it is the rare way
    /// of a push and takes more of the stack than the common one.
    #[inline(never)]
    fn enqueue(
        &self,
        mut state: MutexGuard<'_, State>,
        was_empty: bool,
        run: Batch<'_>,
        first: usize,
    ) -> Push {
        if !matches!(state.phase, Phase::Handshaking | Phase::Open) {
            return Push::Gone;
        }
        let mut outcome = Push::Ok;
        for (index, message) in run.messages.iter().enumerate().skip(first) {
            if !state.wait(message, &self.queue_config) {
                state.evict(&self.queue_config, run.messages.len() - index);
                state.id = None;
                outcome = Push::Full;
                break;
            }
        }
        // While something waits the task is armed for the moment when more fits, or woken.
        if was_empty || outcome == Push::Full {
            state.behind_since = self.queue_config.memory.tick();
            let waker = state.waker.take();
            drop(state);
            wake(waker);
        }
        outcome
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

    /// Whether anything but a close frame ever came here for the client, so that it may be on its way.
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
            while state.phase != Phase::Dead && state.phase != Phase::Handshaking && state.refill()
            {
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
        Drained { wrote: written > 0, empty: state.is_empty(), phase: state.phase }
    }

    /// Takes the first message that waits, for a client without a stream; `Err` with the reason once
    /// the queue has ended and nothing waits any more. Pending, it remembers the task's waker.
    ///
    /// What is taken counts as delivered. Not for a queue with an outlet, whose first message may
    /// be half written.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Disconnect>> {
        let mut state = self.lock();
        debug_assert!(state.outlet.is_none() && state.head_written == 0);
        if state.refill() {
            if let Some(message) = state.staged.pop_front() {
                state.waiting -= 1;
                state.bytes -= length(&message);
                if state.waiting == 0 {
                    state.clear();
                }
                add(&self.queue_config.counters.messages_delivered, 1);
                return Poll::Ready(Ok(message));
            }
        }
        match state.phase {
            Phase::Handshaking | Phase::Open => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Phase::Closing | Phase::Evicted | Phase::Dead => {
                Poll::Ready(Err(state.reason.as_deref().cloned().unwrap_or(Disconnect::GOING_AWAY)))
            }
        }
    }

    /// Takes no message any more: what waits goes first, then the close frame for `reason`.
    ///
    /// For the registry, when it lets the client go. The first reason stands.
    pub(crate) fn close(&self, reason: Disconnect) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open) {
            state.phase = Phase::Closing;
            state.id = None;
            state.reason = Some(Box::new(reason));
            let waker = state.waker.take();
            drop(state);
            wake(waker);
        }
    }

    /// Throws the backlog away and evicts the client; what was queued counts as dropped.
    ///
    /// For the connection, when its socket takes nothing in time; the registry lets the client go
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
    /// does: a message that is not finished, or events that are encoded and not taken.
    pub(crate) fn set_private_bytes(&self, bytes: usize, since: u32) {
        let mut state = self.lock();
        state.private_bytes = bytes as u32;
        state.private_since = since;
    }

    /// The memory that this client pins, as far as it has pinned it since before `tick`.
    ///
    /// What its connection holds is its own. A message that waits for it is shared with whoever else
    /// holds it, and so is the debt: what waits for a thousand pins little in each of them, and the
    /// one that lags behind them all comes to owe it alone.
    pub(crate) fn pinned_bytes(&self, tick: u32) -> usize {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Evicted | Phase::Dead) {
            return 0;
        }
        let waiting = if state.behind_since < tick { state.shared_bytes() } else { 0 };
        let own = if state.private_since < tick { state.private_bytes } else { 0 };
        waiting + own as usize
    }

    /// Evicts the client because memory is short: what waits is let go, what its connection holds
    /// goes with that.
    ///
    /// For the registry, which lets the client go.
    pub(crate) fn evict_for_memory(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open | Phase::Closing) {
            state.reason.get_or_insert_with(|| {
                let code = Disconnect::TRY_LATER.code();
                Box::new(Disconnect::new(code, "the hub is short of memory, try again later"))
            });
            add(&self.queue_config.counters.clients_shed, 1);
            state.evict(&self.queue_config, 0);
            state.id = None;
            let waker = state.waker.take();
            drop(state);
            wake(waker);
        }
    }

    /// The memory that goes when the connection of an evicted client has ended.
    pub(crate) fn pending_release(&self) -> usize {
        let state = self.lock();
        if state.phase == Phase::Evicted { state.private_bytes as usize } else { 0 }
    }

    /// Ends the queue with its connection; what still waits is lost.
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

    /// Why the queue was sealed or evicted, once it was.
    pub(crate) fn reason(&self) -> Option<Disconnect> {
        self.lock().reason.as_deref().cloned()
    }

    /// Messages and bytes that wait now.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting as usize, state.bytes as usize)
    }

    /// Messages this client has missed to the overflow policy.
    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    /// Whether the channel of a client that is behind exists.
    #[cfg(test)]
    pub(crate) fn has_backlog(&self) -> bool {
        self.lock().backlog.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the connection as gone, counting what waits and `more` as lost.
    fn mark_dead(&self, state: &mut State, more: usize) -> Option<Waker> {
        add(&self.queue_config.counters.messages_lost, u64::from(state.waiting) + more as u64);
        state.clear();
        state.phase = Phase::Dead;
        state.outlet = None;
        state.waker.take()
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.waiting == 0 && self.control.is_empty()
    }

    /// Takes note that `bytes` of a run are written, and keeps the message that they end in; returns
    /// how many messages need not wait any more.
    fn note_partial_write(&mut self, run: Batch<'_>, bytes: usize) -> usize {
        let (whole, cut) = split_at(run.messages.iter(), bytes);
        run.tally.wrote(whole, bytes);
        if cut > 0 {
            self.stage_partial(&run.messages[whole], cut);
        }
        whole + usize::from(cut > 0)
    }

    /// Keeps a message of which `cut` bytes are written.
    fn stage_partial(&mut self, message: &Message, cut: u32) {
        self.waiting += 1;
        self.bytes += length(message);
        self.staged.push_back(message.clone());
        self.head_written = cut;
    }

    /// Lets a message wait; `false` if it does not fit and the policy is to evict.
    fn wait(&mut self, message: &Message, queue_config: &QueueConfig) -> bool {
        let bytes = length(message);
        let is_full = |state: &Self| {
            state.waiting as usize >= queue_config.messages
                || (state.bytes + bytes) as usize > queue_config.bytes
        };
        while is_full(self) {
            match queue_config.overflow {
                Overflow::Disconnect => return false,
                Overflow::DropOldest if self.drop_oldest() => self.miss(1, queue_config),
                Overflow::DropOldest | Overflow::DropNewest => {
                    self.miss(1, queue_config);
                    return true;
                }
            }
        }
        let backlog = self.backlog.get_or_insert_with(|| Backlog::new(queue_config));
        if backlog.sender.try_send(message.clone()).is_err() {
            return false;
        }
        self.waiting += 1;
        self.bytes += bytes;
        true
    }

    /// This client's part of the messages that wait for it.
    fn shared_bytes(&mut self) -> usize {
        if let Some(backlog) = &self.backlog {
            // In the channel they cannot be looked at. They are counted as places in `front` too.
            self.staged.extend(std::iter::from_fn(|| backlog.receiver.try_recv().ok()));
        }
        self.staged.iter().map(|message| message.size() / message.holders()).sum()
    }

    /// Drops the oldest message that is not half written; `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let oldest = match self.staged.len() {
            0 => self.backlog.as_ref().and_then(|backlog| backlog.receiver.try_recv().ok()),
            1 if self.head_written > 0 => {
                self.backlog.as_ref().and_then(|backlog| backlog.receiver.try_recv().ok())
            }
            _ => self.staged.remove(usize::from(self.head_written > 0)),
        };
        let Some(oldest) = oldest else { return false };
        self.waiting -= 1;
        self.bytes -= length(&oldest);
        true
    }

    fn miss(&mut self, n: u64, queue_config: &QueueConfig) {
        self.missed += n;
        add(&queue_config.counters.messages_dropped, n);
    }

    /// Evicts: the backlog and `more` messages count as dropped. A cut frame is kept, and control
    /// frames, the first of which may be cut.
    fn evict(&mut self, queue_config: &QueueConfig, more: usize) {
        let cut = if self.head_written > 0 { self.staged.pop_front() } else { None };
        let kept = u32::from(cut.is_some());
        self.miss(u64::from(self.waiting - kept) + more as u64, queue_config);
        let offset = self.head_written;
        let control = std::mem::take(&mut self.control);
        self.clear();
        self.control = control;
        if let Some(message) = cut {
            self.stage_partial(&message, offset);
        }
        self.phase = Phase::Evicted;
        self.outlet = None;
        let reason = match self.missed {
            0 => Disconnect::SLOW,
            1 => Disconnect::new(Disconnect::SLOW.code(), "too slow: missed 1 message"),
            n => Disconnect::new(Disconnect::SLOW.code(), format!("too slow: missed {n} messages")),
        };
        // Who was told to go for another reason and takes nothing has that reason still.
        self.reason.get_or_insert(Box::new(reason));
        queue_config.counters.clients_evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets everything that waits.
    fn clear(&mut self) {
        self.staged = VecDeque::new();
        self.head_written = 0;
        self.control = Vec::new();
        self.backlog = None;
        self.waiting = 0;
        self.bytes = 0;
    }

    /// Takes messages out of the channel; `false` if nothing at all waits.
    fn refill(&mut self) -> bool {
        if self.staged.len() < self.waiting as usize && self.staged.len() < STAGE_MAX {
            if let Some(backlog) = &self.backlog {
                while self.staged.len() < STAGE_MAX {
                    let Ok(message) = backlog.receiver.try_recv() else { break };
                    self.staged.push_back(message);
                }
            }
        }
        !self.staged.is_empty() || !self.control.is_empty()
    }

    /// What a drain has to write.
    fn unsent(&self) -> Unsent<'_> {
        Unsent::new(self.staged.iter(), self.head_written, &self.control)
    }

    /// Lets go of what is written; returns the bytes of it.
    fn advance(&mut self, progress: Progress) -> usize {
        let mut sent = progress.control;
        self.control.drain(..progress.control);
        for message in self.staged.drain(..progress.messages) {
            let len = length(&message);
            sent += (len - std::mem::take(&mut self.head_written)) as usize;
            self.waiting -= 1;
            self.bytes -= len;
        }
        sent += (progress.head_written - self.head_written) as usize;
        self.head_written = progress.head_written;
        sent
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("waiting", &self.waiting)
            .field("bytes", &self.bytes)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

/// The length of a message's frame.
fn length(message: &Message) -> u32 {
    message.frame().len() as u32
}

/// Whether a write may simply be tried again later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
