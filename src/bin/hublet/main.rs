//! The `hublet` binary: serves a hub until a signal ends it.

// A restart in place is for Linux.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

mod auth;
mod before;
mod begun;
mod client_state;
mod failure;
mod flags;
mod grant;
mod handler;
mod health;
#[cfg(target_os = "linux")]
mod inherited;
mod input;
mod join_log;
mod json_reader;
mod jwt;
mod lines;
mod log;
mod mailbox;
mod main_thread;
mod output;
mod pace;
mod page;
mod patient;
mod pause;
mod pipe;
mod plan;
mod request_token;
#[cfg(target_os = "linux")]
mod restart;
mod room_rules;
mod secret;
mod signals;
mod socket;
mod stdio;
#[cfg(target_os = "linux")]
mod system_clock;
mod systemd;
mod task;
mod token_clock;
mod unix_address;

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::future::{FutureExt, or, yield_now};
use hublet::{Disconnect, Hub, Listener, Reactor};
use smol::Executor;

use crate::auth::Access;
use crate::before::{Before, Running, TakeOver, reads_state, restart, unblock_signals};
use crate::begun::{Begun, Limits, begin, say_limits};
use crate::failure::Failure;
use crate::flags::options::Options;
use crate::flags::parse::{Action, in_flags, parse};
use crate::handler::Relay;
use crate::join_log::JoinLog;
use crate::log::counted;
use crate::main_thread::MainThread;
use crate::patient::Patient;
use crate::pause::Rest;
use crate::pipe::Pipe;
use crate::plan::Plan;
use crate::room_rules::RoomRules;
use crate::signals::{SignalAction, Signals};
use crate::task::{Work, end_of, spawn, thread};
use crate::token_clock::{TokenClock, unix_time};

/// File descriptors besides those of clients: listeners, the log, refused handshakes.
const SPARE_FDS: u64 = 64;

/// A part that runs as long as the hub serves: the manager, an accept loop, the log of joins.
struct Part {
    /// The name in the sentence about its end.
    name: String,
    /// Returns no failure of its own. Its end, in whatever way, ends the process.
    task: Work,
}

impl Part {
    fn start(
        executor: &Executor<'static>,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let name = name.into();
        #[cfg(test)]
        let work = tests::or_fault(name.clone(), work);
        let task = spawn(executor, async {
            work.await;
            Ok(())
        });
        Self { name, task }
    }
}

fn main() -> ExitCode {
    // Before a thread is started: until the hub catches them, signals wait.
    let inherited = Before::take();
    let outcome = match parse(std::env::vars_os(), std::env::args_os()) {
        Ok(Action::Serve(options)) => inherited.and_then(|before| serve(*options, before)),
        Ok(Action::Takes(version, options)) => takes(version, *options),
        Ok(Action::Health { addresses, secure }) => health::check(&addresses, secure),
        Ok(Action::Print(text)) => print(text.as_bytes())
            .map_err(|error| Failure::running(format!("standard output failed: {error}"))),
        Err(failure) => Err(failure),
    };
    ExitCode::from(code(outcome))
}

/// Says whether this program takes over from one that writes this version of the state, with these
/// flags.
fn takes(version: u32, options: Options) -> Result<(), Failure> {
    if !reads_state(version) {
        return Err(Failure::usage(format!("the state of version {version} is not known")));
    }
    check_fd_limit(raise_fd_limit(), options.config.max_clients)?;
    #[cfg(feature = "tls")]
    options.tls()?;
    let hub = Hub::new(options.config);
    hub.map(drop).map_err(|error| Failure::usage(in_flags(&error.to_string())))
}

/// Turns an outcome into the exit code, and prints a failure as one sentence.
fn code(outcome: Result<(), Failure>) -> u8 {
    let Err(failure) = outcome else { return 0 };
    // If standard error fails too, there is only the exit code.
    drop(io::stderr().write_all(format!("hublet: {}\n", failure.sentence).as_bytes()));
    failure.code
}

/// Writes to standard output and flushes it.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = Patient(io::stdout().lock());
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Serves until a signal or the end of the pipe has drained the hub, or until a part fails.
fn serve(options: Options, before: Before) -> Result<(), Failure> {
    log::start(options.level);
    // A panic is logged as one line. The default hook would block if standard error is not read.
    std::panic::set_hook(Box::new(|panic| ::log::error!("{panic}")));
    for warning in options.warnings() {
        ::log::warn!("{warning}");
    }
    check_fd_limit(raise_fd_limit(), options.config.max_clients)?;
    let executor = Arc::new(Executor::new());
    let reactor =
        Reactor::new().map_err(|error| Failure::running(format!("no reactor: {error}")))?;
    let stop = Event::new();
    let main_thread = Arc::new(MainThread::default());
    let mut threads = Vec::new();
    for _ in 1..options.threads {
        let (executor, stopped) = (Arc::clone(&executor), stop.listen());
        let reactor = reactor.clone();
        threads.push(thread(Box::new(move || work(&executor, &reactor, stopped.boxed())))?);
    }
    // The other threads hold the signals back, so that no exec of this one loses any.
    let signals = Signals::new(&reactor)?;
    unblock_signals();
    let helper = (options.threads > 1).then(|| Arc::clone(&main_thread));
    // A task of its own: a future that runs beside the executor's tasks is polled whenever one of
    // them is woken, and this one would check for signals each time.
    let main = spawn(&executor, {
        let (executor, reactor) = (Arc::clone(&executor), reactor.clone());
        let helper = helper.clone();
        async move { run(&executor, &reactor, options, (before, signals, helper)).await }
    });
    let mut outcome = Ok(());
    match helper {
        None => work(&executor, &reactor, Box::pin(async { outcome = main.await })),
        Some(helper) => {
            let end = or(async { outcome = main.await }, helper.run());
            work(&executor, &reactor, Box::pin(end));
        }
    }
    stop.notify(usize::MAX);
    for thread in threads {
        if thread.join().is_err() {
            return Err(Failure::running("an executor thread panicked"));
        }
    }
    ::log::logger().flush();
    outcome
}

/// Tasks that a thread runs between two checks of its sockets.
const TICKS: usize = 200;

/// Runs the executor's tasks in this thread until `end`. Not generic, so that the code is in the
/// binary once.
fn work(
    executor: &Executor<'static>,
    reactor: &Reactor,
    end: Pin<Box<dyn Future<Output = ()> + '_>>,
) {
    // Not `Executor::run`: it searches a queue for each thread before every wait, which pays only
    // for longer tasks than these.
    let tasks = async {
        loop {
            for _ in 0..TICKS {
                executor.tick().await;
            }
            yield_now().await;
        }
    };
    reactor.block_on(or(end, tasks));
}

async fn run(
    executor: &Arc<Executor<'static>>,
    reactor: &Reactor,
    options: Options,
    (before, signals, helper): (Before, Signals, Option<Arc<MainThread>>),
) -> Result<(), Failure> {
    let limits = Limits::of(&options.config);
    let is_shared = options.config.redis.is_some();
    let plan = Plan::of(&options);
    #[cfg(feature = "tls")]
    let tls = options.tls()?;
    let rooms = RoomRules::new(options.rooms, &options.config);
    let Before { program, prior } = before;
    let Begun { hub, manager, taken, served, rest } =
        begin(options.config, &options.listen, prior)?;
    say_limits(&hub, limits, taken.as_ref());
    reactor.attach_timers(&hub);
    let redis = hub.connect_redis_on(reactor);
    let join_log = Arc::new(JoinLog::new(hub.clone()));
    let clock = Arc::new(TokenClock::new(hub.clone(), reactor.clone()));
    let has_ends = options.secrets.jwt_secret.is_some() || taken.is_some();
    let access = Access::new(options.secrets);
    let (echo, protocols) = (options.echo, options.protocols);
    let relay =
        Relay::new(echo, protocols, Arc::clone(&join_log), access, Arc::clone(&clock), rooms);
    let relay = Arc::new(relay);
    let mut parts = vec![Part::start(executor, "the manager", manager)];
    parts.push(Part::start(
        executor,
        "the log of joins and leaves",
        Arc::clone(&join_log).run(reactor.clone()),
    ));
    if has_ends {
        parts.push(Part::start(executor, "the clock of tokens", clock.run(unix_time)));
    }
    if let Some(interval) = systemd::watchdog() {
        let pulse = systemd::pulse(hub.clone(), reactor.clone(), interval);
        parts.push(Part::start(executor, "the watchdog's pulse", pulse));
    }
    let mut redis = is_shared.then(|| spawn(executor, connect(redis)));
    let mut pipe = None;
    let count = taken.as_ref().map(TakeOver::connections);
    if let Some(taken) = taken {
        let reconnected = async {
            or(taken.reconnected(), reactor.sleep(REDIS_MAX)).await;
            Ok(())
        };
        or(reconnected, refused(&mut redis)).await?;
        // It is a member of its room before any client speaks.
        let started = Pipe::start(&hub, executor, reactor, &plan, rest);
        pipe = Some(or(started, refused(&mut redis)).await?);
        // As the type that the accept loops have: each type has all code of connections once more.
        let handler = Arc::new(Arc::clone(&relay));
        let running = taken.serve(executor, Some(reactor), &handler);
        running.map_err(|error| Failure::running(error.to_string()))?;
    }
    let (mut names, mut open) = (Vec::new(), Vec::new());
    // The files of Unix sockets are removed when this is dropped.
    let mut files = Vec::new();
    for served in served {
        #[cfg(feature = "tls")]
        let served = served.secured(tls.as_ref());
        let (listener, descriptor, file) = served
            .open()
            .map_err(|error| Failure::running(format!("a listener has no copy: {error}")))?;
        let listener =
            reactor.attach(listener).map_err(|error| Failure::running(error.to_string()))?;
        names.push(listener.to_string());
        files.push(file);
        open.push(descriptor);
        parts.push(accept(executor, &hub, &relay, listener));
    }
    let mut pipe = match pipe {
        Some(pipe) => pipe,
        None => {
            let started = Pipe::start(&hub, executor, reactor, &plan, Rest::default());
            or(started, refused(&mut redis)).await?
        }
    };
    match count {
        None => announce(&plan, &names),
        Some(count) => ::log::info!(
            "restarted as {}: {} kept, listening on {}",
            env!("CARGO_PKG_VERSION"),
            counted(count, "connection"),
            names.join(", ")
        ),
    }
    systemd::ready();
    let (signals, open) = (Arc::new(signals), Arc::new(open));
    let (reason, outcome) = loop {
        let signal = async {
            Ok(match signals.next().await? {
                SignalAction::Stop => Some((Disconnect::RESTART, Ok(()))),
                SignalAction::Restart => None,
            })
        };
        // If a standard stream fails, the hub still drains.
        let piped = async { Ok(Some((Disconnect::GOING_AWAY, pipe.ended().await))) };
        let ended = async {
            let name = first_end(&mut parts).await?;
            Err(Failure::running(format!("{name} ended too early")))
        };
        let refused = refused(&mut redis);
        if let Some(end) = or(or(or(ended, signal), piped), refused).await? {
            break end;
        }
        let (hub, pipe, helper) = (&hub, &pipe, helper.as_deref());
        systemd::reloading();
        ::log::info!("restarting: {} connected", counted(hub.stats().clients, "client"));
        let running =
            Running { hub, reactor, signals: &signals, open: &open, pipe, plan: &plan, helper };
        let sentence = restart(&program, running).await;
        ::log::error!("not restarted: {sentence}");
        systemd::ready();
    };
    // Without these copies the ports are closed with their accept loops.
    drop(open);

    let drained = drain(&hub, reason, reactor, &signals, (&mut pipe, &plan), &mut parts).await;
    // Logs the clients that left in the last second.
    join_log.flush();
    outcome.and(drained)
}

/// Closes the clients with a reason, and lets what waits go out, as long as that may take. Fails at a
/// second signal, and if a part panics.
async fn drain(
    hub: &Hub,
    reason: Disconnect,
    reactor: &Reactor,
    signals: &Signals,
    (pipe, plan): (&mut Pipe, &Plan),
    parts: &mut Vec<Part>,
) -> Result<(), Failure> {
    systemd::stopping(plan.drain_max);
    let clients = counted(hub.stats().clients, "client");
    ::log::info!("shutting down: closing {clients} with {reason}");
    let deadline = Instant::now() + plan.drain_max;
    let drained = async {
        pipe.stop(plan);
        hub.drain(reason).await;
        pipe.flush(deadline, reactor).await
    };
    let impatient = async {
        signals.second().await?;
        Err(Failure::running("stopped at once by a second signal"))
    };
    // The parts may end now, but not by a panic.
    let failed = async {
        loop {
            first_end(parts).await?;
        }
    };
    or(or(failed, drained), impatient).await
}

/// How long a hub that goes on waits for Redis before it accepts.
const REDIS_MAX: Duration = Duration::from_secs(5);

/// Connects the hub to its Redis server, and keeps it connected.
async fn connect(
    redis: impl Future<Output = Result<(), hublet::Error>> + Send,
) -> Result<(), Failure> {
    redis.await.map_err(|error| Failure::running(error.to_string()))
}

/// Waits until the Redis server refuses the first connection; pending for ever if it does not, or
/// if there is none.
async fn refused<T>(redis: &mut Option<Work>) -> Result<T, Failure> {
    if let Some(refused) = end_of(redis).await.err() {
        return Err(refused);
    }
    std::future::pending().await
}

/// Starts an accept loop.
fn accept(
    executor: &Arc<Executor<'static>>,
    hub: &Hub,
    relay: &Arc<Relay>,
    listener: Listener,
) -> Part {
    let name = format!("the accept loop on {listener}");
    let (hub, relay, spawner) = (hub.clone(), Arc::clone(relay), Arc::clone(executor));
    Part::start(executor, name, async move {
        if let Err(error) = hub.serve(&spawner, listener, relay).await {
            let cause = std::error::Error::source(&error);
            ::log::error!("{error}{}", cause.map(|cause| format!(": {cause}")).unwrap_or_default());
        }
    })
}

/// Prints a line for each listener: on standard output, or on standard error if standard output is
/// for messages of a room.
fn announce(plan: &Plan, names: &[String]) {
    let lines: String = names.iter().map(|name| format!("listening on {name}\n")).collect();
    let lines = lines.as_bytes();
    let written = match plan.stdout {
        Some(_) => Patient(io::stderr()).write_all(lines),
        None => print(lines),
    };
    if let Err(error) = written {
        ::log::warn!("standard output failed, the hub serves all the same: {error}");
    }
}

/// Waits for a part to end, removes it from the list and returns its name. Pending for ever if the
/// list is empty.
///
/// # Errors
///
/// If the part panicked: awaiting a task resumes its panic.
async fn first_end(parts: &mut Vec<Part>) -> Result<String, Failure> {
    let ended = poll_fn(|cx| {
        for nth in 0..parts.len() {
            let task = AssertUnwindSafe(&mut parts[nth].task).catch_unwind();
            if let Poll::Ready(ended) = pin!(task).poll(cx) {
                return Poll::Ready((parts.swap_remove(nth).name, ended));
            }
        }
        Poll::Pending
    });
    match ended.await {
        (name, Ok(_)) => Ok(name),
        (name, Err(_)) => Err(Failure::running(format!("{name} panicked"))),
    }
}

/// Raises the soft limit on file descriptors to the hard one, since most shells set 1,024. Returns
/// the limit that applies then, if there is one.
fn raise_fd_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            ::log::warn!("the limit on file descriptors stays as it is: {error}");
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// Refuses a limit on file descriptors that is too low for `max_clients`, or for one client.
fn check_fd_limit(limit: Option<u64>, max_clients: Option<usize>) -> Result<(), Failure> {
    let clients = max_clients.unwrap_or(1);
    let needed = (clients as u64).saturating_add(SPARE_FDS);
    match limit {
        Some(limit) if limit < needed => Err(Failure::running(format!(
            "{clients} clients need {needed} file descriptors and the limit is {limit}: raise it \
             (LimitNOFILE= in a unit, ulimit -Hn in a shell), or lower --max-clients"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
