//! Pipe mode: lines of standard input go to a room, messages of a room are lines of standard output.
//!
//! Both streams may be files, which no reactor can wait for, so a thread each reads and writes
//! them. What is between a thread and the hub is bounded.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use event_listener::Event;
use futures_lite::future::{Future, FutureExt, or};
use hublet::{Admission, Client, ClientId, Config, Disconnect, Error, Hub, Message, Subscription};
use smol::{Executor, Task, Timer};

use super::Failure;
use super::flags::Options;
use super::lines::{self, Lines, TooLong};

/// Bytes that are read of standard input at a time. Three times that is held: what is being read,
/// what waits, and what is being published.
const CHUNK: usize = 32 * 1024;

/// Bytes of lines that wait for standard output to take them, about: what a pipe of Linux holds,
/// four times. Beyond it messages wait in the member's queue, and its bounds hold.
const UNWRITTEN_MAX: usize = 256 * 1024;

/// The first pause for a member that is behind; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(1);

/// The longest pause: how late the reader notices that a member has caught up.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Bytes of a frame beyond its payload, at most (RFC 6455 5.2).
const FRAMING: usize = 10;

/// A half of a pipe, at work.
type Half = Task<Result<(), Failure>>;

/// The pipe: either half, both, or none.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    input: Option<Half>,
    output: Option<Half>,
}

impl Pipe {
    /// Joins the room of `--stdout` and begins to read standard input, as the options say.
    pub(crate) async fn start(
        hub: &Hub,
        executor: &Executor<'static>,
        options: &Options,
    ) -> Result<Self, Failure> {
        let config = &options.config;
        let mut pipe = Self::default();
        let own = Arc::<Mutex<Option<Client>>>::default();
        if let Some(room) = &options.stdout {
            let subscription = subscribe(hub, room).await?;
            let output = Output { own: Arc::clone(&own), pending: Arc::default() };
            let pending = Arc::clone(&output.pending);
            spawn("stdout", move || pending.write(io::stdout().lock()))?;
            let (hub, room) = (hub.clone(), Arc::clone(room));
            pipe.output = Some(executor.spawn(output.run(hub, room, subscription).boxed()));
        }
        if let Some(room) = &options.stdin {
            let (sender, chunks) = async_channel::bounded(1);
            spawn("stdin", move || read(io::stdin().lock(), &sender))?;
            // The pipe is one client, which does not hear itself if clients do not.
            let itself = (!options.echo && options.stdout.as_ref() == Some(room)).then_some(own);
            let input = Input { pace: Pace::new(hub, room, config), itself };
            pipe.input = Some(executor.spawn(input.run(chunks, config.max_message).boxed()));
        }
        Ok(pipe)
    }

    /// Waits for the end of the input, or until nobody reads the output; for ever without a pipe.
    ///
    /// # Errors
    ///
    /// If a stream failed.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        or(end_of(&mut self.input), end_of(&mut self.output)).await
    }

    /// Reads nothing more: the hub is about to drain.
    pub(crate) fn stop_reading(&mut self) {
        self.input = None;
    }

    /// Waits until standard output has taken what it was owed, for at most `timeout`; after a drain.
    pub(crate) async fn flush(&mut self, timeout: Duration) -> Result<(), Failure> {
        if self.output.is_none() {
            return Ok(());
        }
        let late = async {
            Timer::after(timeout).await;
            ::log::warn!("standard output is not read, its last lines are lost");
            Ok(())
        };
        or(end_of(&mut self.output), late).await
    }
}

/// Waits for the end of a half, which is gone then; for ever if there is none.
async fn end_of(half: &mut Option<Half>) -> Result<(), Failure> {
    let ended = poll_fn(|cx| match half {
        Some(half) => Pin::new(half).poll(cx),
        None => Poll::Pending,
    });
    let ended = ended.await;
    *half = None;
    ended
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    // Nobody waits for it: it ends with its stream, or with the process.
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread
        .map(drop)
        .map_err(|error| Failure::running(format!("a thread cannot be started: {error}")))
}

/// Reads a stream to its end, a chunk ahead of who takes them.
fn read(mut stream: impl Read, chunks: &Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let chunk = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => Ok(buffer[..n].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if chunks.send_blocking(chunk).is_err() || failed {
            return;
        }
    }
}

/// What becomes of standard input.
struct Input {
    pace: Pace,
    /// The pipe's other half, if it must not hear this one.
    itself: Option<Arc<Mutex<Option<Client>>>>,
}

impl Input {
    /// Publishes the lines, and waits at their end until the members have them.
    async fn run(
        mut self,
        chunks: Receiver<io::Result<Vec<u8>>>,
        max: usize,
    ) -> Result<(), Failure> {
        let mut lines = Lines::new(max);
        while let Ok(chunk) = chunks.recv().await {
            let chunk = chunk
                .map_err(|error| Failure::running(format!("standard input failed: {error}")))?;
            let mut rest = &chunk[..];
            while let Some(line) = lines.next(&mut rest) {
                if self.take(line, max).await.is_err() {
                    return Ok(());
                }
            }
        }
        if let Some(line) = lines.last() {
            if self.take(line, max).await.is_err() {
                return Ok(());
            }
        }
        // An error means that the hub has ended: there is nobody left to wait for.
        drop(self.pace.wait_for_all().await);
        Ok(())
    }

    /// Publishes a line.
    ///
    /// # Errors
    ///
    /// If the hub has ended.
    async fn take(&mut self, line: Result<Message, TooLong>, max: usize) -> Result<(), Error> {
        let message = match line {
            Ok(message) => message,
            Err(TooLong { number, len }) => {
                ::log::error!(
                    "line {number} of standard input was not sent: it has {len} bytes, \
                     --max-message allows {max}"
                );
                return Ok(());
            }
        };
        self.pace.keep(message.len() + FRAMING).await?;
        let (hub, room) = (&self.pace.hub, &*self.pace.room);
        let itself = self.itself.as_ref().and_then(|client| lock(client).clone());
        // Not waiting for the count lets the manager take many lines at once.
        let published = match &itself {
            Some(client) => client.try_publish(room, message),
            None => hub.try_publish(room, message),
        };
        let Err(error) = published else { return Ok(()) };
        if !error.is_full() {
            return Err(error);
        }
        let Some(message) = error.into_message() else { return Ok(()) };
        match &itself {
            Some(client) => client.publish(room, message).await,
            None => hub.publish(room, message).await,
        }
        .map(drop)
    }
}

/// Keeps a publisher from running ahead of the members of its room.
///
/// Between two looks at the members it publishes at most half of what a queue holds, and goes on
/// only while no queue is over half full. So nobody who reads is evicted for its haste.
struct Pace {
    hub: Hub,
    room: Arc<str>,
    /// Messages that a queue holds.
    queue: usize,
    /// Bytes that a queue holds.
    queue_bytes: usize,
    /// How long a member may stay behind before nobody waits for it any more.
    patience: Duration,
    /// Messages that may still be published before the next look.
    messages: usize,
    /// Bytes of frames that may.
    bytes: usize,
    /// The members that were behind at the last look, and since when they are.
    behind: HashMap<ClientId, Instant>,
}

impl Pace {
    fn new(hub: &Hub, room: &Arc<str>, config: &Config) -> Self {
        Self {
            hub: hub.clone(),
            room: Arc::clone(room),
            queue: config.queue,
            queue_bytes: config.queue_bytes,
            patience: config.write_timeout,
            messages: 0,
            bytes: 0,
            behind: HashMap::new(),
        }
    }

    /// Waits until a message with a frame of `bytes` may be published.
    async fn keep(&mut self, bytes: usize) -> Result<(), Error> {
        if self.messages == 0 || self.bytes < bytes {
            let half = self.queue_bytes / 2;
            // A frame that is longer than half a queue finds the room that it needs.
            let full = half.min(self.queue_bytes.saturating_sub(bytes));
            self.wait(self.queue / 2, full).await?;
            self.messages = (self.queue / 2).max(1);
            self.bytes = half.max(bytes);
        }
        self.messages -= 1;
        self.bytes -= bytes;
        Ok(())
    }

    /// Waits until nothing waits for any member.
    async fn wait_for_all(&mut self) -> Result<(), Error> {
        self.wait(0, 0).await
    }

    /// Waits until no queue holds more than `messages` and `bytes`, but for those that have held
    /// more for as long as patience lasts.
    async fn wait(&mut self, messages: usize, bytes: usize) -> Result<(), Error> {
        let mut pause = PAUSE;
        loop {
            let members = self.hub.presence(&self.room).await?;
            let now = Instant::now();
            let behind = members
                .iter()
                .filter(|member| member.waiting > messages || member.waiting_bytes > bytes)
                .map(|member| (member.id, *self.behind.get(&member.id).unwrap_or(&now)));
            self.behind = behind.collect();
            if self.behind.values().all(|since| now - *since >= self.patience) {
                return Ok(());
            }
            Timer::after(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// What becomes of the messages for standard output.
struct Output {
    /// The pipe as the room knows it, for its other half.
    own: Arc<Mutex<Option<Client>>>,
    pending: Arc<Pending>,
}

impl Output {
    /// Hands messages to the thread that writes them, until the hub drains or nobody reads.
    async fn run(
        self,
        hub: Hub,
        room: Arc<str>,
        mut subscription: Subscription,
    ) -> Result<(), Failure> {
        loop {
            *lock(&self.own) = Some(subscription.client().clone());
            let Some(reason) = self.hand_on(&mut subscription).await else { break };
            drop(subscription);
            if ![Disconnect::SLOW.code(), Disconnect::TRY_LATER.code()].contains(&reason.code()) {
                lock(&self.pending.state).ended = true;
                self.pending.filled.notify_one();
                self.pending.until(|_| false).await;
                break;
            }
            ::log::error!(
                "standard output is {}; it joins again now that it is read",
                reason.reason()
            );
            let is_written = |state: &State| state.bytes.is_empty() && !state.writing;
            if !self.pending.until(is_written).await {
                break;
            }
            subscription = match subscribe(&hub, &room).await {
                Ok(subscription) => subscription,
                Err(_) => break,
            };
        }
        match lock(&self.pending.state).result.take() {
            Some(Err(error)) if !is_unread(&error) => {
                Err(Failure::running(format!("standard output failed: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Hands messages on; returns why there are no more, or `None` if nobody reads them.
    async fn hand_on(&self, subscription: &mut Subscription) -> Option<Disconnect> {
        let mut missed = 0;
        loop {
            let next = async { Some(subscription.next().await) };
            let gone = async {
                self.pending.until(|_| false).await;
                None
            };
            let message = match or(next, gone).await? {
                Ok(message) => message,
                Err(reason) => return Some(reason),
            };
            if subscription.missed() > missed {
                let more = subscription.missed() - missed;
                missed += more;
                ::log::error!("standard output is too slow: missed {more} messages");
            }
            if !self.pending.until(|state| state.bytes.len() < UNWRITTEN_MAX).await {
                return None;
            }
            lines::append(&message, &mut lock(&self.pending.state).bytes);
            self.pending.filled.notify_one();
        }
    }
}

/// Whether a stream failed for want of a reader, which is an end like any other.
fn is_unread(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

async fn subscribe(hub: &Hub, room: &Arc<str>) -> Result<Subscription, Failure> {
    let admission = Admission::anonymous().room(Arc::clone(room));
    hub.subscribe(admission)
        .await
        .map_err(|error| Failure::running(format!("--stdout cannot join its room: {error}")))
}

/// Lines on their way to the thread that writes them.
#[derive(Debug, Default)]
struct Pending {
    state: Mutex<State>,
    /// Tells the thread that there are lines, or will be none.
    filled: Condvar,
    /// Tells the hub's side that lines were written, or that no more will be.
    written: Event,
}

#[derive(Debug, Default)]
struct State {
    /// The lines; little over [`UNWRITTEN_MAX`].
    bytes: Vec<u8>,
    /// Whether the thread has lines in hand that are not yet written.
    writing: bool,
    /// Whether no more lines come.
    ended: bool,
    /// How the thread's work ended.
    result: Option<io::Result<()>>,
}

impl Pending {
    /// Writes what comes until no more does or nobody reads.
    fn write(&self, mut stream: impl Write) {
        let mut batch = Vec::new();
        let result = loop {
            let mut state = lock(&self.state);
            state.writing = false;
            self.written.notify(usize::MAX);
            while state.bytes.is_empty() && !state.ended {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.bytes.is_empty() {
                break Ok(());
            }
            state.writing = true;
            std::mem::swap(&mut batch, &mut state.bytes);
            drop(state);
            if let Err(error) = stream.write_all(&batch).and_then(|()| stream.flush()) {
                break Err(error);
            }
            batch.clear();
            batch.shrink_to(UNWRITTEN_MAX);
        };
        lock(&self.state).result = Some(result);
        self.written.notify(usize::MAX);
    }

    /// Waits until something is so; returns whether it is, and not that nobody writes any more.
    async fn until(&self, is_so: impl Fn(&State) -> bool) -> bool {
        let look = || {
            let state = lock(&self.state);
            if state.result.is_some() { Some(false) } else { is_so(&state).then_some(true) }
        };
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            let listener = self.written.listen();
            if let Some(seen) = look() {
                return seen;
            }
            listener.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
