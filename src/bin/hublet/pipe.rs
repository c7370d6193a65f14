//! Pipe mode: publishes the lines of standard input to a room, and prints the messages of a room on
//! standard output.
//!
//! One thread reads and one writes, each until the end of its stream or of the process. The hub
//! never waits for these threads.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_lite::future::or;
use hublet::{Client, Error, Hub, Reactor, Subscription};
use smol::Executor;

use crate::failure::Failure;
use crate::input::Input;
use crate::output::{Output, subscribe};
use crate::pace::Pace;
use crate::patient::Patient;
use crate::pause::{Pause, Rest};
use crate::plan::Plan;
use crate::stdio::StreamBuffer;
use crate::task::{Work, end_of, spawn, thread};

/// How long a restart waits for a pipe to come to rest.
const PAUSE_WAIT: Duration = Duration::from_secs(1);

/// The length of a line compared with its frame, at most: a binary message of one byte is a frame
/// of 3 bytes (RFC 6455 5.2), and a base64 line of 5.
const LINE_PER_FRAME: usize = 2;

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

#[cfg(test)]
mod tests {
    use hublet::{Config, Disconnect};

    use super::*;
    use crate::flags::options::Options;

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
}
