//! Pipe mode: publishes the lines of standard input to a room, and prints the messages of a room on
//! standard output.
//!
//! One thread reads and one writes, each until the end of its stream or of the process. The hub
//! never waits for these threads.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::{Future, or};
use hublet::{Admission, Client, Disconnect, Error, Hub, Message, Reactor, Subscription};
use smol::Executor;

use super::flags::Options;
use super::lines::{self, Lines, TooLong};
use super::pace::Pace;
use super::patient::Patient;
use super::pause::Pause;
pub(crate) use super::pause::Rest;
use super::stdio::StreamBuffer;
use super::{Failure, Work, spawn, thread};

/// How long the output waits before it tries again to join its room.
const PLACE_PAUSE: Duration = Duration::from_millis(100);

/// How long a restart waits for a pipe to come to rest.
const PAUSE_WAIT: Duration = Duration::from_secs(1);

/// Bytes of a frame beyond its payload, at most (RFC 6455 5.2).
const FRAMING: usize = 10;

/// The length of a line compared with its frame, at most: a binary message of one byte is a frame
/// of 3 bytes (RFC 6455 5.2), and a base64 line of 5.
const LINE_PER_FRAME: usize = 2;

/// The options of the pipe.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The room that lines of standard input go to.
    stdin: Option<Arc<str>>,
    /// The room whose messages are lines of standard output.
    pub(crate) stdout: Option<Arc<str>>,
    /// Whether the output prints the input's messages, if both are in the same room.
    echo: bool,
    /// The longest line, in bytes.
    max_message: usize,
    /// Messages that a member's queue may hold.
    pub(crate) queue: usize,
    /// Bytes that a member's queue may hold.
    pub(crate) queue_bytes: usize,
    /// How long the input waits for a member that is behind.
    pub(crate) write_timeout: Duration,
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

/// The pipe: its input, its output, both, or none.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    input: Option<Work>,
    output: Option<Work>,
    /// Lines for the thread that writes standard output.
    lines: Arc<StreamBuffer>,
    /// Bytes of the thread that reads standard input.
    chunks: Arc<StreamBuffer>,
    /// Pauses the input.
    pause: Arc<Pause>,
}

/// Pipes that pause. Dropped, they go on.
pub(crate) struct Paused<'a> {
    pipe: &'a Pipe,
    rest: Rest,
}

impl Paused<'_> {
    /// Waits until standard output has what the hub had for it; returns what is left to write and to
    /// publish.
    pub(crate) async fn rest(&mut self, reactor: &Reactor) -> Result<&Rest, String> {
        if self.pipe.output.is_some() {
            let written = async {
                self.pipe.pause.ended().await;
                self.pipe.lines.hold().await;
                Ok(())
            };
            let late = async {
                reactor.sleep(PAUSE_WAIT).await;
                Err("standard output is not read".to_owned())
            };
            or(written, late).await?;
            self.rest.unwritten = self.pipe.lines.waiting();
        }
        Ok(&self.rest)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.pipe.pause.end();
        self.pipe.lines.more(0);
        self.pipe.chunks.release();
        self.pipe.lines.release();
    }
}

impl Pipe {
    /// Joins the room of `--stdout` and starts to read standard input, as far as `plan` asks for
    /// it.
    pub(crate) async fn start(
        hub: &Hub,
        executor: &Executor<'static>,
        reactor: &Reactor,
        plan: &Plan,
        rest: Rest,
    ) -> Result<Self, Failure> {
        let mut pipe = Self::default();
        pipe.lines.put_back(&rest.unwritten);
        let own = Arc::<Mutex<Option<Client>>>::default();
        if let Some(room) = &plan.stdout {
            let subscription = subscribe_when_up(hub, reactor, room).await.map_err(|error| {
                Failure::running(format!("--stdout cannot join its room: {error}"))
            })?;
            let output = Output {
                reactor: reactor.clone(),
                own: Arc::clone(&own),
                lines: Arc::clone(&pipe.lines),
                pause: Arc::clone(&pipe.pause),
            };
            let lines = Arc::clone(&pipe.lines);
            thread(Box::new(move || lines.write(Patient(io::stdout().lock()))))?;
            let (hub, room) = (hub.clone(), Arc::clone(room));
            pipe.output = Some(spawn(executor, output.run(hub, room, subscription)));
        }
        if let Some(room) = &plan.stdin {
            let (chunks, reader) = (Arc::clone(&pipe.chunks), Arc::clone(&pipe.chunks));
            let read = move || reader.read(Patient(io::stdin().lock()), Patient::until_readable);
            thread(Box::new(read))?;
            // Input and output act as one client, which gets no echo if other clients get none.
            let itself = (!plan.echo && plan.stdout.as_ref() == Some(room)).then_some(own);
            let (pace, pause) = (Pace::new(hub, reactor, room, plan), Arc::clone(&pipe.pause));
            let input = Input { pace, itself, chunks, pause };
            pipe.input = Some(spawn(executor, input.run(plan.max_message, rest)));
        }
        Ok(pipe)
    }

    /// Pauses the pipes, before a restart.
    ///
    /// # Errors
    ///
    /// If the input does not come to rest.
    pub(crate) async fn pause(&self, reactor: &Reactor, plan: &Plan) -> Result<Paused<'_>, String> {
        let mut paused = Paused { pipe: self, rest: Rest::default() };
        self.lines.more(LINE_PER_FRAME * (plan.queue_bytes + plan.max_message));
        if self.input.is_some() {
            let at_rest = async {
                self.chunks.hold().await;
                let mut rest = self.pause.begin().await;
                // What the thread had read meanwhile.
                rest.unread.extend(self.chunks.waiting());
                Ok(rest)
            };
            let late = async {
                reactor.sleep(PAUSE_WAIT).await;
                Err("standard input does not come to rest".to_owned())
            };
            paused.rest = or(at_rest, late).await?;
        } else {
            self.pause.want();
        }
        Ok(paused)
    }

    /// Waits for the end of the input, or until the reader of the output is gone. Pending for ever
    /// without a pipe.
    ///
    /// # Errors
    ///
    /// If a stream failed.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        or(end_of(&mut self.input), end_of(&mut self.output)).await
    }

    /// Stops the input, before a drain. The drain waits for the output as for any client, but not
    /// for the reader of standard output: there is room for all queued messages on the way to the
    /// thread.
    pub(crate) fn stop(&mut self, plan: &Plan) {
        self.input = None;
        self.lines.drain(LINE_PER_FRAME * (plan.queue_bytes + plan.max_message));
    }

    /// Waits until standard output has taken the last lines, or until `deadline`. Called after a
    /// drain.
    pub(crate) async fn flush(
        &mut self,
        deadline: Instant,
        reactor: &Reactor,
    ) -> Result<(), Failure> {
        if self.output.is_none() {
            return Ok(());
        }
        let late = async {
            reactor.sleep_until(deadline).await;
            ::log::warn!("standard output is not read, its last lines are lost");
            Ok(())
        };
        or(end_of(&mut self.output), late).await
    }
}

/// Runs a future to its end, or until a pause is wanted.
async fn unless<T>(pause: &Pause, future: impl Future<Output = T>) -> Option<T> {
    let wanted = async {
        pause.wanted().await;
        None
    };
    or(wanted, async { Some(future.await) }).await
}

/// How often a room is asked for while Redis is away.
const AGAIN: Duration = Duration::from_millis(250);

/// As [`subscribe`], once Redis is there, if the hub needs it.
async fn subscribe_when_up(
    hub: &Hub,
    reactor: &Reactor,
    room: &Arc<str>,
) -> Result<Subscription, Error> {
    loop {
        let subscribed = subscribe(hub, room).await;
        match subscribed {
            Err(error) if hub.is_away() => drop(error),
            subscribed => return subscribed,
        }
        reactor.sleep(AGAIN).await;
    }
}

/// Waits for the end of a task, and removes it. Pending for ever if there is none.
pub(crate) async fn end_of(half: &mut Option<Work>) -> Result<(), Failure> {
    let ended = poll_fn(|cx| match half {
        Some(half) => Pin::new(half).poll(cx),
        None => Poll::Pending,
    });
    let ended = ended.await;
    *half = None;
    ended
}

/// The task that publishes standard input.
struct Input {
    pace: Pace,
    /// The client of the output, if it must get no echo of the input.
    itself: Option<Arc<Mutex<Option<Client>>>>,
    /// Bytes that the thread has read.
    chunks: Arc<StreamBuffer>,
    pause: Arc<Pause>,
}

impl Input {
    /// Publishes the lines, then waits until no member's queue holds any of them.
    async fn run(mut self, max: usize, rest: Rest) -> Result<(), Failure> {
        let mut lines = Lines::resume(max, (rest.number, rest.len), rest.held);
        let mut pending = rest.line.map(|line| Ok(lines::message(&line)));
        let (mut chunk, mut at) = (rest.unread, 0);
        let pause = Arc::clone(&self.pause);
        loop {
            if pause.is_wanted() {
                let (number, len, held) = lines.parts();
                let line =
                    pending.as_ref().and_then(|line: &Result<Message, _>| line.as_ref().ok());
                let line = line.map(|line| line.as_bytes().to_vec());
                let (held, unread) = (held.to_vec(), chunk[at..].to_vec());
                let rest = Rest { number, len, held, line, unread, unwritten: Vec::new() };
                pause.take(rest).await;
            }
            if pending.is_none() {
                let mut rest = &chunk[at..];
                pending = lines.next(&mut rest);
                at = chunk.len() - rest.len();
            }
            if let Some(line) = &pending {
                let bytes = line.as_ref().map_or(0, |line| line.len() + FRAMING);
                // A line that waits for a slow member is not published, and goes along.
                match unless(&pause, self.pace.keep(bytes)).await {
                    None => continue,
                    Some(Err(_)) => return Ok(()),
                    Some(Ok(())) => {}
                }
                let Some(line) = pending.take() else { continue };
                if self.take(line, max).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            match unless(&pause, self.chunks.take()).await {
                None => {}
                Some(Some(next)) => (chunk, at) = (next, 0),
                Some(None) => break,
            }
        }
        self.chunks
            .result()
            .map_err(|error| Failure::running(format!("standard input failed: {error}")))?;
        if let Some(line) = lines.last() {
            let bytes = line.as_ref().map_or(0, |line| line.len() + FRAMING);
            if self.pace.keep(bytes).await.is_err() || self.take(line, max).await.is_err() {
                return Ok(());
            }
        }
        // An error means that the hub has ended: there is no member left.
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
        let (hub, room) = (&self.pace.hub, &*self.pace.room);
        let itself = self.itself.as_ref().and_then(|client| lock(client).clone());
        // Without a wait for the count, the manager takes many lines at once.
        let published = match &itself {
            Some(client) => client.try_publish(room, message),
            None => hub.try_publish(room, message),
        };
        let Err(error) = published else { return Ok(()) };
        if !error.is_full() {
            return Err(error);
        }
        let mut message = error.into_message();
        while let Some(again) = message.take() {
            let published = match &itself {
                Some(client) => client.publish(room, again).await,
                None => hub.publish(room, again).await,
            };
            match published {
                Ok(_) => {}
                // A line waits for Redis, unless it may have been sent.
                Err(error) if error.is_unavailable() => message = error.into_message(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The task that passes a room's messages on to standard output.
#[derive(Debug)]
struct Output {
    reactor: Reactor,
    /// The client that has joined the room, for the input.
    own: Arc<Mutex<Option<Client>>>,
    /// Lines for the thread that writes them.
    lines: Arc<StreamBuffer>,
    pause: Arc<Pause>,
}

impl Output {
    /// Passes messages to the thread until the hub drains or the reader is gone, then waits for the
    /// thread.
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
            if self.pause.is_wanted() {
                // All that the room had for it is among the lines. It joins again if the restart
                // fails.
                self.pause.end_output().await;
                let Some(again) = self.join_now(&hub, &room).await else { break };
                subscription = again;
                continue;
            }
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

    /// Joins the room again, once a client permit is free.
    async fn join_now(&self, hub: &Hub, room: &Arc<str>) -> Option<Subscription> {
        loop {
            match subscribe(hub, room).await {
                Ok(subscription) => return Some(subscription),
                Err(error) if error.status().is_some() => self.reactor.sleep(PLACE_PAUSE).await,
                Err(_) => return None,
            }
        }
    }

    /// Joins the room again, once all lines are written and a client permit is free. `None` if the
    /// output has ended.
    async fn join_again(&self, hub: &Hub, room: &Arc<str>) -> Option<Subscription> {
        while self.lines.written().await {
            match subscribe(hub, room).await {
                Ok(subscription) => return Some(subscription),
                // Other clients have taken the permits. Try again later.
                Err(error) if error.status().is_some() => self.reactor.sleep(PLACE_PAUSE).await,
                Err(_) => break,
            }
        }
        None
    }

    /// Passes messages on. Returns why the subscription ended, or `None` if the reader is gone.
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

/// Whether a stream failed because its reader is gone, which is a normal end.
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

    /// Lines that wait, 1.9 MB: the buffer takes a few of them and the queue the rest.
    const LINES: usize = 32;
    const LINE: usize = 60_000;

    /// A bound for steps that must not block.
    const SOON: Duration = Duration::from_secs(20);

    /// Runs `story` with an output whose thread does not run, as if it were blocked in its first
    /// write. A drain may take a day.
    fn stuck(queue_bytes: usize, story: impl AsyncFnOnce(&Hub, &str, &mut Pipe, &Plan, &Reactor)) {
        let reactor = Reactor::new().expect("descriptors");
        let day = Config::WAIT_MAX;
        let mut options = Options::default();
        options.config.queue_bytes = queue_bytes;
        (options.config.drain, options.config.close_timeout) = (day, day);
        let plan = Plan::of(&options);
        let (hub, manager) = Hub::new(options.config).expect("valid");
        let executor = Executor::new();
        let _manager = executor.spawn(manager);
        reactor.attach_timers(&hub);
        reactor.block_on(executor.run(async {
            let mut pipe = Pipe::default();
            let lines = Arc::clone(&pipe.lines);
            let (own, pause) = Default::default();
            let output = Output { reactor: reactor.clone(), own, lines, pause };
            let room = Arc::<str>::from("n");
            let subscription = subscribe(&hub, &room).await.expect("a place");
            let work = output.run(hub.clone(), Arc::clone(&room), subscription);
            pipe.output = Some(spawn(&executor, work));
            story(&hub, &room, &mut pipe, &plan, &reactor).await;
        }));
    }

    /// Stops the pipe and drains the hub; the drain must not wait for standard output.
    async fn drain_soon(hub: &Hub, pipe: &mut Pipe, plan: &Plan, reactor: &Reactor) {
        pipe.stop(plan);
        let drained = async {
            hub.drain(Disconnect::RESTART).await;
            true
        };
        let late = async {
            reactor.sleep(SOON).await;
            false
        };
        assert!(or(drained, late).await, "it waits for a stream");
    }

    #[test]
    fn drain_does_not_wait_for_the_reader_of_standard_output() {
        stuck(LINES * LINE * 2, async |hub, room, pipe, plan, reactor| {
            for nth in 0..LINES {
                assert_eq!(hub.publish(room, format!("{nth:0LINE$}")).await.ok(), Some(1));
            }
            let waiting = hub.presence(room).await.expect("it runs")[0].waiting;
            assert!(waiting > LINES / 2, "{waiting} are queued");
            drain_soon(hub, pipe, plan, reactor).await;

            // When the thread runs, it finds all queued messages.
            let mut written = Vec::new();
            pipe.lines.write(&mut written);
            pipe.flush(Instant::now() + SOON, reactor).await.expect("no stream failed");
            assert!(pipe.output.is_none(), "it has ended");
            let lines: String = (0..LINES).map(|nth| format!("{nth:0LINE$}\n")).collect();
            assert!(written == lines.as_bytes(), "{} bytes of {}", written.len(), lines.len());
        });
    }

    /// The queue holds one message, and the base64 line that the output is passing on is longer
    /// than that.
    #[test]
    fn drain_does_not_wait_for_a_line_that_is_being_passed_on() {
        stuck(Config::MAX_MESSAGE + 14, async |hub, room, pipe, plan, reactor| {
            // Until a message waits in the queue: the lines before it are with the thread or the
            // output.
            loop {
                assert_eq!(hub.publish(room, vec![7u8; 65_500]).await.ok(), Some(1));
                smol::future::yield_now().await;
                if hub.presence(room).await.expect("it runs")[0].waiting > 0 {
                    break;
                }
            }
            drain_soon(hub, pipe, plan, reactor).await;
        });
    }

    #[test]
    fn standard_output_joins_again_when_a_permit_is_free() {
        let (hub, manager) = Hub::new(Config::default().max_clients(Some(1))).expect("valid");
        let executor = Executor::new();
        let _manager = executor.spawn(manager);
        let reactor = Reactor::new().expect("descriptors");
        let (own, lines) = (Arc::default(), Arc::default());
        let pause = Arc::default();
        let output = Output { reactor: reactor.clone(), own, lines, pause };
        reactor.block_on(executor.run(async {
            let room = Arc::<str>::from("n");
            let other = subscribe(&hub, &room).await.expect("a place");
            let mut again = pin!(output.join_again(&hub, &room));
            let waited = async {
                reactor.sleep(PLACE_PAUSE * 2).await;
                None
            };
            assert!(or(again.as_mut(), waited).await.is_none(), "no permit is free");
            drop(other);
            assert!(again.await.is_some(), "a permit is free");
        }));
    }
}
