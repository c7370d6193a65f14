//! The inbox: the manager's bounded command channel, bounded in commands and in bytes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use atomic_waker::AtomicWaker;
use event_listener::Event;
use futures_lite::future::yield_now;

use crate::error::Error;
use crate::hub::client_id::ClientId;
use crate::hub::command::Command;
use crate::limits::semaphore::FifoSemaphore;
use crate::time::timers::Deadline;

/// The senders' side of the inbox. The manager's future ends when the last one is gone.
#[derive(Debug)]
pub(crate) struct Inbox {
    sender: Sender<Command>,
    shared: Arc<Shared>,
}

/// The manager's side of the inbox.
#[derive(Debug)]
pub(crate) struct CommandReceiver {
    receiver: Receiver<Command>,
    shared: Arc<Shared>,
}

/// What both sides share beside the channel.
#[derive(Debug)]
struct Shared {
    /// Bytes of frames that wait in the channel, or are about to.
    bytes: AtomicUsize,
    /// The bound of `bytes`; one message of any allowed length fits.
    bytes_max: usize,
    /// Wakes the manager. It alone waits for commands, so it needs no list of listeners as the
    /// channel keeps one.
    manager: AtomicWaker,
    /// Notified when bytes are free; the sender at the head of the line listens.
    freed: Event,
    /// Notified at the end of the manager.
    ended: Event,
    /// One permit, held by the sender at the head of the line. The others wait for it in order, so
    /// that short messages do not overtake a long one for ever.
    line: FifoSemaphore,
    /// Senders that wait, the first included. While there are any, a new sender goes behind them.
    waiting: AtomicUsize,
    /// What connections tell the manager without a wait.
    reports: Mutex<Reports>,
    /// Whether there are any, so that the manager need not lock to see that there are none.
    any_reports: AtomicBool,
    /// Whether the manager hands no client more of what its room keeps: another process is about to
    /// take the hub over, and what a client is owed waits best in its room.
    is_pausing: AtomicBool,
    /// Whether the manager finds no command, whatever waits: another process takes the hub over.
    is_held: AtomicBool,
}

/// What connections tell the manager without a wait.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Clients that have lost their connection. A connection adds its client once, at its very end,
    /// so there are never more than clients.
    pub(crate) gone: Vec<ClientId>,
    /// Clients that ask for more of what their room keeps. Each asks once, until it was answered.
    pub(crate) requests: Vec<ClientId>,
}

/// Why a command was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No room in the inbox now.
    Full(Command),
    /// The manager has ended.
    Closed(Command),
}

/// Makes an inbox of `commands` and `bytes`.
pub(crate) fn inbox(commands: usize, bytes: usize) -> (Inbox, CommandReceiver) {
    let (sender, receiver) = bounded(commands);
    let shared = Arc::new(Shared {
        bytes: AtomicUsize::new(0),
        bytes_max: bytes,
        manager: AtomicWaker::new(),
        freed: Event::new(),
        ended: Event::new(),
        line: FifoSemaphore::new(1),
        waiting: AtomicUsize::new(0),
        reports: Mutex::default(),
        any_reports: AtomicBool::new(false),
        is_pausing: AtomicBool::new(false),
        is_held: AtomicBool::new(false),
    });
    (Inbox { sender, shared: Arc::clone(&shared) }, CommandReceiver { receiver, shared })
}

impl Inbox {
    /// Sends a command, at once if there is room; else the future waits for room, behind the
    /// senders that wait already. `Err` when the manager has ended.
    ///
    /// Cancel safety: if the future is dropped early the command is either sent or dropped whole.
    #[inline(never)]
    pub(crate) fn send(&self, command: Command) -> Sending<'_> {
        let refused = self.try_send(command).err();
        Sending(refused.map(|refused| Box::pin(self.wait(refused)) as _))
    }

    /// Waits for room for a command that found none.
    async fn wait(&self, refused: Refused) -> Result<(), Error> {
        let Refused::Full(command) = refused else { return Err(refused.into()) };
        let _waiting = Waiting::new(&self.shared.waiting);
        let _permit = self.shared.line.acquire().await;
        let Some(reserved) = self.reserve(command.bytes()).await else {
            return Err(Refused::Closed(command).into());
        };
        match self.sender.send(command).await {
            Ok(()) => {
                self.sent(reserved);
                Ok(())
            }
            Err(error) => Err(Refused::Closed(error.into_inner()).into()),
        }
    }

    /// Sends a command if there is room now and no sender waits for room.
    pub(crate) fn try_send(&self, command: Command) -> Result<(), Refused> {
        if self.sender.is_closed() {
            return Err(Refused::Closed(command));
        }
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
            return Err(Refused::Full(command));
        }
        let Some(reserved) = self.try_reserve(command.bytes()) else {
            return Err(Refused::Full(command));
        };
        match self.sender.try_send(command) {
            Ok(()) => {
                self.sent(reserved);
                Ok(())
            }
            Err(TrySendError::Full(command)) => Err(Refused::Full(command)),
            Err(TrySendError::Closed(command)) => Err(Refused::Closed(command)),
        }
    }

    /// Waits for the end of the manager. For a task that may send nothing for long.
    pub(crate) async fn ended(&self) {
        while !self.sender.is_closed() {
            let listener = self.shared.ended.listen();
            // The channel is closed before the notification.
            if self.sender.is_closed() {
                return;
            }
            listener.await;
        }
    }

    /// Takes no command any more, and tells the receiver.
    pub(crate) fn close(&self) {
        self.sender.close();
        self.shared.manager.wake();
    }

    /// Has the manager hand no client more of what its room keeps.
    pub(crate) fn pause(&self) {
        self.shared.is_pausing.store(true, Ordering::SeqCst);
    }

    /// Lets the manager go on.
    pub(crate) fn release(&self) {
        self.shared.is_held.store(false, Ordering::SeqCst);
        self.shared.is_pausing.store(false, Ordering::SeqCst);
        self.wake();
    }

    /// Tells the manager that a client's connection is gone. Never waits, never fails.
    pub(crate) fn report_gone(&self, id: ClientId) {
        self.report(|reports| reports.gone.push(id));
    }

    /// Has the manager hand a client more of what its room keeps. Never waits, never fails.
    pub(crate) fn request_more(&self, id: ClientId) {
        self.report(|reports| reports.requests.push(id));
    }

    fn report(&self, add: impl FnOnce(&mut Reports)) {
        add(&mut self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner));
        // SeqCst, as the channel's own counts: the manager sees the mark after it has made room, or
        // the command of `wake` finds the room.
        self.shared.any_reports.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has the manager look at memory and at lost connections. Never waits, never fails.
    pub(crate) fn wake(&self) {
        // A full inbox wakes the manager as well, and a closed one has no manager.
        drop(self.sender.try_send(Command::Wake));
        self.shared.manager.wake();
    }

    /// A command is in the channel: the bytes are its own, and the manager is to look.
    fn sent(&self, reserved: Reserved<'_>) {
        reserved.keep();
        self.shared.manager.wake();
    }

    /// Bytes that wait, or are about to.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Sets bytes aside, once there is room; `None` when the manager has ended. It may have taken a
    /// command with it whose bytes it had not freed, so room is nothing to wait for then.
    async fn reserve(&self, bytes: usize) -> Option<Reserved<'_>> {
        loop {
            if let Some(reserved) = self.try_reserve(bytes) {
                return Some(reserved);
            }
            let listener = self.shared.freed.listen();
            // The manager's end is told after the channel is closed: either it is seen here, or the
            // listener hears of it.
            if self.sender.is_closed() {
                return None;
            }
            if let Some(reserved) = self.try_reserve(bytes) {
                return Some(reserved);
            }
            // Only the sender at the head of the line waits here. Each queued command releases its
            // bytes once, so this sender will be notified again.
            listener.await;
        }
    }

    fn try_reserve(&self, bytes: usize) -> Option<Reserved<'_>> {
        let shared = &*self.shared;
        let fits = |used: usize| {
            let sum = used.saturating_add(bytes);
            (sum <= shared.bytes_max || used == 0).then_some(sum)
        };
        if bytes > 0 {
            shared.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok()?;
        }
        Some(Reserved { shared, bytes })
    }
}

/// Ready once a command is in the inbox.
// Boxed where it waits, which is rare: unboxed it would give every caller's future room for three
// commands.
pub(crate) struct Sending<'a>(Option<PendingSend<'a>>);

type PendingSend<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

impl Future for Sending<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(waiting) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let sent = ready!(waiting.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(sent)
    }
}

impl Drop for Inbox {
    /// The manager must see that the last hub and client are gone.
    fn drop(&mut self) {
        self.close();
    }
}

impl CommandReceiver {
    /// Waits for a command; `None` when the last hub and client are gone.
    ///
    /// If a command is already queued `behind` a batch, it yields once before taking it, so that
    /// other tasks run. If none is queued at a `deadline`, it returns a [`Command::Wake`].
    pub(crate) async fn next(
        &self,
        behind: bool,
        mut deadline: Option<&mut Deadline<'_>>,
    ) -> Option<Command> {
        let mut waited = false;
        let command = poll_fn(|cx| {
            let mut received = self.receive();
            if let Err(TryRecvError::Empty) = received {
                self.shared.manager.register(cx.waker());
                // A command sent before the waker was registered did not wake us: look again.
                received = self.receive();
            }
            match received {
                Ok(command) => Poll::Ready(Some(command)),
                Err(TryRecvError::Closed) => Poll::Ready(None),
                Err(TryRecvError::Empty) => {
                    waited = true;
                    let Some(deadline) = &mut deadline else { return Poll::Pending };
                    Pin::new(&mut **deadline).poll(cx).map(|()| Some(Command::Wake))
                }
            }
        })
        .await?;
        if behind && !waited {
            yield_now().await;
        }
        self.shared.free(command.bytes());
        Some(command)
    }

    /// Ready with a command that waits, or with `None` when the last hub and client are gone; else
    /// the task is woken for the next one. For a receiver that is no manager.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Command>> {
        let mut received = self.receiver.try_recv();
        if let Err(TryRecvError::Empty) = received {
            self.shared.manager.register(cx.waker());
            received = self.receiver.try_recv();
        }
        match received {
            Ok(command) => {
                self.shared.free(command.bytes());
                Poll::Ready(Some(command))
            }
            Err(TryRecvError::Closed) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }

    /// Ready when the last hub and client are gone.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.manager.register(cx.waker());
        if self.receiver.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How many commands wait.
    pub(crate) fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Takes a command that waits already.
    pub(crate) fn try_next(&self) -> Option<Command> {
        let command = self.receive().ok()?;
        self.shared.free(command.bytes());
        Some(command)
    }

    /// Finds no command from now on, until the senders' side is [released](Inbox::release).
    pub(crate) fn hold(&self) {
        self.shared.is_held.store(true, Ordering::SeqCst);
    }

    /// Whether it finds no command, whatever waits.
    pub(crate) fn is_held(&self) -> bool {
        self.shared.is_held.load(Ordering::Relaxed)
    }

    /// Whether no client is handed more of what its room keeps.
    pub(crate) fn is_pausing(&self) -> bool {
        self.shared.is_pausing.load(Ordering::Relaxed)
    }

    fn receive(&self) -> Result<Command, TryRecvError> {
        if self.is_held() && !self.receiver.is_closed() {
            return Err(TryRecvError::Empty);
        }
        self.receiver.try_recv()
    }

    /// Takes what connections have told, if they have.
    pub(crate) fn take_reports(&self) -> Option<Reports> {
        if !self.shared.any_reports.swap(false, Ordering::SeqCst) {
            return None;
        }
        let mut reports = self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *reports))
    }
}

impl Drop for CommandReceiver {
    /// Publishers that wait for bytes, and streams, must see that the manager has ended.
    fn drop(&mut self) {
        self.receiver.close();
        // The wakers of a task are not to outlive it, as the senders may.
        drop(self.shared.manager.take());
        while self.try_next().is_some() {}
        self.shared.freed.notify(usize::MAX);
        self.shared.ended.notify(usize::MAX);
    }
}

impl Shared {
    fn free(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            // SeqCst, as in `Waiting::new` and `try_reserve`: a sender that begins to wait is seen
            // here, or it sees the bytes.
            if self.waiting.load(Ordering::SeqCst) > 0 {
                self.freed.notify(1);
            }
        }
    }
}

/// Bytes set aside for a command that is about to be sent; given back unless it was.
struct Reserved<'a> {
    shared: &'a Shared,
    bytes: usize,
}

impl Reserved<'_> {
    /// Leaves the bytes to the command, which was sent.
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.free(self.bytes);
    }
}

/// A sender that waits for room, counted until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
