//! Pipe mode: lines of standard input go to a room, messages of a room are lines of standard output.
//!
//! A thread each reads and writes the streams. Nobody waits for it: it ends with its stream, or
//! with the process.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::{Future, or};
use hublet::{Admission, Client, ClientId, Disconnect, Error, Hub, Message, Subscription};
use smol::{Executor, Timer};

use super::flags::Options;
use super::lines::{self, Lines, TooLong};
use super::patient::Patient;
use super::stdio::Handover;
use super::{Failure, Work, spawn, thread};

/// The first pause for a member that is behind; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(1);

/// The longest pause: how late the reader notices that a member has caught up.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// How long the output waits before it asks again whether there is a place for it.
const PLACE_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a frame beyond its payload, at most (RFC 6455 5.2).
const FRAMING: usize = 10;

/// How many times as long as its frame a line is, at most: one byte of binary is a frame of 3 bytes
/// (RFC 6455 5.2), and 5 as a line of base64.
const LINE_PER_FRAME: usize = 2;

/// What the options say of the pipe.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The room that lines of standard input go to.
    stdin: Option<Arc<str>>,
    /// The room whose messages are lines of standard output.
    pub(crate) stdout: Option<Arc<str>>,
    /// Whether the pipe hears itself, if it is in one room.
    echo: bool,
    /// The longest line, in bytes.
    max_message: usize,
    /// Messages that the queue of a member holds.
    queue: usize,
    /// Bytes that it holds.
    queue_bytes: usize,
    /// How long anybody may stay behind before nobody waits any more.
    write_timeout: Duration,
    /// How long a drain takes at most, standard output included.
    pub(crate) drain_max: Duration,
}

impl Plan {
    pub(crate) fn of(options: &Options) -> Self {
        let config = &options.config;
        Self {
            stdin: options.stdin.clone(),
            stdout: options.stdout.clone(),
            echo: options.echo,
            max_message: config.max_message,
            queue: config.queue,
            queue_bytes: config.queue_bytes,
            write_timeout: config.write_timeout,
            drain_max: config.drain_max(),
        }
    }
}

/// The pipe: either half, both, or none.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    input: Option<Work>,
    output: Option<Work>,
    /// The lines on their way to standard output.
    lines: Arc<Handover>,
}

impl Pipe {
    /// Joins the room of `--stdout` and begins to read standard input, as planned.
    pub(crate) async fn start(
        hub: &Hub,
        executor: &Executor<'static>,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        let mut pipe = Self::default();
        let own = Arc::<Mutex<Option<Client>>>::default();
        if let Some(room) = &plan.stdout {
            let subscription = subscribe(hub, room).await.map_err(|error| {
                Failure::running(format!("--stdout cannot join its room: {error}"))
            })?;
            let output = Output { own: Arc::clone(&own), lines: Arc::clone(&pipe.lines) };
            let lines = Arc::clone(&pipe.lines);
            thread(Box::new(move || lines.write(Patient(io::stdout().lock()))))?;
            let (hub, room) = (hub.clone(), Arc::clone(room));
            pipe.output = Some(spawn(executor, output.run(hub, room, subscription)));
        }
        if let Some(room) = &plan.stdin {
            let chunks = Arc::<Handover>::default();
            let reader = Arc::clone(&chunks);
            thread(Box::new(move || reader.read(Patient(io::stdin().lock()))))?;
            // The pipe is one client, which does not hear itself if clients do not.
            let itself = (!plan.echo && plan.stdout.as_ref() == Some(room)).then_some(own);
            let input = Input { pace: Pace::new(hub, room, plan), itself, chunks };
            pipe.input = Some(spawn(executor, input.run(plan.max_message)));
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

    /// Reads nothing more: the hub is about to drain. It waits for this client as for any other, and
    /// not for whoever reads standard output: what is queued finds room on the way there.
    pub(crate) fn stop(&mut self, plan: &Plan) {
        self.input = None;
        self.lines.drain(LINE_PER_FRAME * (plan.queue_bytes + plan.max_message));
    }

    /// Waits until standard output has taken what it was owed, or until `deadline`; after a drain.
    pub(crate) async fn flush(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.output.is_none() {
            return Ok(());
        }
        let late = async {
            Timer::at(deadline).await;
            ::log::warn!("standard output is not read, its last lines are lost");
            Ok(())
        };
        or(end_of(&mut self.output), late).await
    }
}

/// Waits for the end of a half, which is gone then; for ever if there is none.
async fn end_of(half: &mut Option<Work>) -> Result<(), Failure> {
    let ended = poll_fn(|cx| match half {
        Some(half) => Pin::new(half).poll(cx),
        None => Poll::Pending,
    });
    let ended = ended.await;
    *half = None;
    ended
}

/// What becomes of standard input.
struct Input {
    pace: Pace,
    /// The pipe's other half, if it must not hear this one.
    itself: Option<Arc<Mutex<Option<Client>>>>,
    /// What the thread has read.
    chunks: Arc<Handover>,
}

impl Input {
    /// Publishes the lines, and waits at their end until the members have them.
    async fn run(mut self, max: usize) -> Result<(), Failure> {
        let mut lines = Lines::new(max);
        while let Some(chunk) = self.chunks.take().await {
            let mut rest = &chunk[..];
            while let Some(line) = lines.next(&mut rest) {
                if self.take(line, max).await.is_err() {
                    return Ok(());
                }
            }
        }
        self.chunks
            .result()
            .map_err(|error| Failure::running(format!("standard input failed: {error}")))?;
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
    fn new(hub: &Hub, room: &Arc<str>, plan: &Plan) -> Self {
        Self {
            hub: hub.clone(),
            room: Arc::clone(room),
            queue: plan.queue,
            queue_bytes: plan.queue_bytes,
            patience: plan.write_timeout,
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
#[derive(Debug, Default)]
struct Output {
    /// The pipe as the room knows it, for its other half.
    own: Arc<Mutex<Option<Client>>>,
    /// The lines on their way to the thread that writes them.
    lines: Arc<Handover>,
}

impl Output {
    /// Hands messages to the thread that writes them, until the hub drains or nobody reads, and
    /// waits for the thread.
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
                break;
            }
            ::log::error!(
                "standard output is {}; nothing more is printed until it is read",
                reason.reason()
            );
            let Some(again) = self.join_again(&hub, &room).await else { break };
            subscription = again;
        }
        self.lines.end();
        self.lines.over().await;
        match self.lines.result() {
            Err(error) if !is_unread(&error) => {
                Err(Failure::running(format!("standard output failed: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Joins again once all is written and there is a place; `None` if nothing more is to come.
    async fn join_again(&self, hub: &Hub, room: &Arc<str>) -> Option<Subscription> {
        while self.lines.written().await {
            match subscribe(hub, room).await {
                Ok(subscription) => return Some(subscription),
                // Others have come meanwhile. They may stay, and so does the hub.
                Err(error) if error.status().is_some() => Timer::after(PLACE_PAUSE).await,
                Err(_) => break,
            };
        }
        None
    }

    /// Hands messages on; returns why there are no more, or `None` if nobody reads them.
    async fn hand_on(&self, subscription: &mut Subscription) -> Option<Disconnect> {
        let mut missed = 0;
        loop {
            let next = async { Some(subscription.next().await) };
            let gone = async {
                self.lines.over().await;
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
            if !self.lines.put(|bytes| lines::append(&message, bytes)).await {
                return None;
            }
        }
    }
}

/// Whether a stream failed for want of a reader, which is an end like any other.
fn is_unread(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

async fn subscribe(hub: &Hub, room: &Arc<str>) -> Result<Subscription, Error> {
    hub.subscribe(Admission::anonymous().room(Arc::clone(room))).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hublet::Config;

    use super::*;

    /// Lines that wait, 1.9 MB: the handover takes a few of them and the queue has the rest.
    const LINES: usize = 32;
    const LINE: usize = 60_000;

    /// How long a step that waits for nobody may take.
    const SOON: Duration = Duration::from_secs(20);

    /// Tells of a room that is printed, while no thread writes: as if it were stuck in its first
    /// write. A drain has a day.
    fn stuck(queue_bytes: usize, story: impl AsyncFnOnce(&Hub, &str, &mut Pipe, &Plan)) {
        let day = Config::WAIT_MAX;
        let mut options = Options::default();
        options.config.queue_bytes = queue_bytes;
        (options.config.drain, options.config.close_timeout) = (day, day);
        let plan = Plan::of(&options);
        let (hub, manager) = Hub::new(options.config).expect("valid");
        let executor = Executor::new();
        let _manager = executor.spawn(manager);
        smol::block_on(executor.run(async {
            let mut pipe = Pipe::default();
            let output = Output { lines: Arc::clone(&pipe.lines), ..Output::default() };
            let room = Arc::<str>::from("n");
            let subscription = subscribe(&hub, &room).await.expect("a place");
            let work = output.run(hub.clone(), Arc::clone(&room), subscription);
            pipe.output = Some(spawn(&executor, work));
            story(&hub, &room, &mut pipe, &plan).await;
        }));
    }

    /// Stops the pipe and drains the hub, which is to wait for no stream.
    async fn drain_soon(hub: &Hub, pipe: &mut Pipe, plan: &Plan) {
        pipe.stop(plan);
        let drained = async {
            hub.drain(Disconnect::RESTART).await;
            true
        };
        let late = async {
            Timer::after(SOON).await;
            false
        };
        assert!(or(drained, late).await, "it waits for a stream");
    }

    #[test]
    fn a_drain_does_not_wait_for_whoever_reads_standard_output() {
        stuck(LINES * LINE * 2, async |hub, room, pipe, plan| {
            for nth in 0..LINES {
                assert_eq!(hub.publish(room, format!("{nth:0LINE$}")).await.ok(), Some(1));
            }
            let waiting = hub.presence(room).await.expect("it runs")[0].waiting;
            assert!(waiting > LINES / 2, "{waiting} are queued");
            drain_soon(hub, pipe, plan).await;

            // Once the thread goes on, it finds all that was queued.
            let mut written = Vec::new();
            pipe.lines.write(&mut written);
            pipe.flush(Instant::now() + SOON).await.expect("no stream failed");
            assert!(pipe.output.is_none(), "it goes on");
            let lines: String = (0..LINES).map(|nth| format!("{nth:0LINE$}\n")).collect();
            assert!(written == lines.as_bytes(), "{} bytes of {}", written.len(), lines.len());
        });
    }

    /// A queue of one message: the line in hand is longer than all that waits.
    #[test]
    fn a_drain_does_not_wait_for_a_line_in_hand() {
        stuck(Config::MAX_MESSAGE + 14, async |hub, room, pipe, plan| {
            // Until one waits: the lines before it are written, or in hand.
            loop {
                assert_eq!(hub.publish(room, vec![7u8; 65_500]).await.ok(), Some(1));
                smol::future::yield_now().await;
                if hub.presence(room).await.expect("it runs")[0].waiting > 0 {
                    break;
                }
            }
            drain_soon(hub, pipe, plan).await;
        });
    }

    #[test]
    fn standard_output_joins_again_when_there_is_a_place() {
        let (hub, manager) = Hub::new(Config::default().max_clients(Some(1))).expect("valid");
        let executor = Executor::new();
        let _manager = executor.spawn(manager);
        smol::block_on(executor.run(async {
            let (room, output) = (Arc::<str>::from("n"), Output::default());
            let other = subscribe(&hub, &room).await.expect("a place");
            let mut again = pin!(output.join_again(&hub, &room));
            let waited = async {
                Timer::after(PLACE_PAUSE * 2).await;
                None
            };
            assert!(or(again.as_mut(), waited).await.is_none(), "every place is taken");
            drop(other);
            assert!(again.await.is_some(), "there is a place");
        }));
    }
}
