//! A hub on a free port with threads of its own, and helpers of many tests.

use std::any::type_name;
use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_channel::Sender;
use futures_lite::future::{block_on, or, zip};
use hublet::{Client, Config, Disconnect, Error, Handler, Hub, Listener, Message, Reactor};
use smol::{Executor, Task};

use crate::peer::{DEADLINE, Peer};

/// Sends each message to every client, the sender included.
pub(crate) struct Chat;

impl Handler for Chat {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.hub().broadcast(message).await.map(drop).map_err(gone)
    }
}

/// The close code for a client whose message the hub refuses.
pub(crate) fn gone(error: Error) -> Disconnect {
    if error.is_closed() { Disconnect::GOING_AWAY } else { Disconnect::INTERNAL }
}

/// The reactor that waits for the sockets.
#[derive(Clone)]
enum Watching {
    /// The hub's own reactor, on a thread of the executor.
    Hublet(Reactor),
    /// Async-io, on the threads of the executor, while they have nothing else to do.
    AsyncIo,
    /// Async-io, on its own thread.
    Elsewhere,
}

impl Watching {
    /// The reactor that the environment chooses. All tests must pass with each.
    fn chosen() -> Self {
        match std::env::var_os("HUBLET_TEST_ASYNC_IO") {
            Some(_) => Self::AsyncIo,
            None => Self::Hublet(Reactor::new().expect("descriptors")),
        }
    }

    fn attach(&self, listener: Listener) -> Listener {
        match self {
            Self::Hublet(reactor) => reactor.attach(listener).expect("it is watched"),
            Self::AsyncIo | Self::Elsewhere => listener,
        }
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Hublet(reactor) => reactor.block_on(future),
            Self::AsyncIo => smol::block_on(future),
            Self::Elsewhere => block_on(future),
        }
    }
}

/// A hub that serves on a free port. Dropping it stops it at once.
pub(crate) struct TestHub {
    pub(crate) hub: Hub,
    pub(crate) address: String,
    /// Runs the connections. The manager and the accept loop are no tasks of it, so it is empty
    /// when no connection is left.
    executor: Arc<Executor<'static>>,
    /// The threads run until this is dropped.
    stop: Option<Sender<Infallible>>,
    threads: Vec<JoinHandle<()>>,
}

impl TestHub {
    /// One thread, the defaults, and [`Chat`].
    pub(crate) fn start() -> Self {
        Self::with(Config::default())
    }

    /// One thread and [`Chat`].
    pub(crate) fn with(config: Config) -> Self {
        Self::serving(config, Chat)
    }

    /// One thread.
    pub(crate) fn serving(config: Config, handler: impl Handler) -> Self {
        Self::on_threads(1, config, handler)
    }

    pub(crate) fn on_threads(threads: usize, config: Config, handler: impl Handler) -> Self {
        Self::driven(Watching::chosen(), threads, config, handler)
    }

    /// One thread runs the executor, another one waits for the sockets.
    pub(crate) fn beside_the_reactor(config: Config, handler: impl Handler) -> Self {
        Self::driven(Watching::Elsewhere, 1, config, handler)
    }

    fn driven(watching: Watching, threads: usize, config: Config, handler: impl Handler) -> Self {
        let (hub, manager) = Hub::new(config).expect("a valid configuration");
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.to_string();
        let listener = watching.attach(listener);
        if let Watching::Hublet(reactor) = &watching {
            reactor.attach_timers(&hub);
        }
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = async_channel::bounded::<Infallible>(1);
        let serve = {
            let (hub, executor, stopped) = (hub.clone(), Arc::clone(&executor), stopped.clone());
            let watching = watching.clone();
            move || {
                let served = async {
                    let serving = hub.serve(&executor, listener, handler);
                    let (_, served) = zip(manager, serving).await;
                    served.expect("it serves until a drain");
                    // After the drain, hooks of ended clients may still run.
                    pending().await
                };
                let stopped = async {
                    let _ = stopped.recv().await;
                };
                watching.block_on(executor.run(or(stopped, served)));
            }
        };
        let mut running = vec![std::thread::spawn(serve)];
        for _ in 1..threads {
            let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
            let watching = watching.clone();
            running.push(std::thread::spawn(move || {
                let _ = watching.block_on(executor.run(stopped.recv()));
            }));
        }
        Self { hub, address, executor, stop: Some(stop), threads: running }
    }

    /// Connects a client to `/ws`.
    #[track_caller]
    pub(crate) fn join(&self) -> Peer<TcpStream> {
        self.join_at("/ws")
    }

    /// Connects a client to a path.
    #[track_caller]
    pub(crate) fn join_at(&self, path: &str) -> Peer<TcpStream> {
        self.dial().join(path)
    }

    /// Connects without sending a request.
    #[track_caller]
    pub(crate) fn dial(&self) -> Peer<TcpStream> {
        Peer::<TcpStream>::dial(&self.address)
    }

    /// Connects a client with small socket buffers.
    #[track_caller]
    pub(crate) fn join_narrow(&self) -> Peer<TcpStream> {
        Peer::dial_narrow(&self.address).join("/ws")
    }

    /// Runs a future on the hub's threads.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        self.executor.spawn(future)
    }

    /// Waits for an answer of the hub.
    #[track_caller]
    pub(crate) fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> T {
        block_on(answer).expect("the hub answers")
    }

    /// Broadcasts; returns the recipients.
    #[track_caller]
    pub(crate) fn broadcast(&self, message: impl Into<Message>) -> usize {
        self.ask(self.hub.broadcast(message))
    }

    /// Whether no connection is left, by the counters and by the executor's tasks.
    pub(crate) fn is_empty(&self) -> bool {
        self.hub.stats().connections == 0 && self.executor.is_empty()
    }

    /// Waits until no connection is left, and until the manager has heard of the last one, and checks
    /// the counters that must then be 0 or add up.
    #[track_caller]
    pub(crate) fn empties(&self) {
        until("no connection is left", || self.is_empty());
        until("no client is left", || self.hub.stats().clients == 0);
        let stats = self.hub.stats();
        assert_eq!((stats.clients, stats.rooms, stats.held_bytes), (0, 0, 0), "{stats:?}");
        let ends = stats.messages_delivered + stats.messages_dropped + stats.messages_lost;
        assert_eq!(ends, stats.recipients, "each recipient has one end: {stats:?}");
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a thread of the hub panicked");
            }
        }
    }
}

/// Polls until `is_so` is true, for conditions without an event. Fails after the deadline.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The variable with the name of the test, in a process that runs one test alone.
const ALONE: &str = "ALONE";

/// Runs `story` in a process of its own, so that no other test changes its descriptors, memory and
/// threads.
///
/// `test` is the test function that calls this.
#[track_caller]
pub(crate) fn alone<F: Fn()>(test: F, story: impl FnOnce()) {
    drop(test);
    let path = type_name::<F>();
    let (_, test) = path.split_once("::").expect("a test in a module");
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return story();
    }
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", test, "--nocapture"]).env(ALONE, test);
    let output = command.output().expect("the test binary starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && stdout.contains("test result: ok. 1 passed");
    assert!(passed, "alone, {test} failed:\n{stdout}\n{stderr}");
    for want in stdout.lines().filter_map(|line| line.strip_prefix("skipped: ")) {
        // Not with `eprintln!`: the test harness hides its output. `.ci/test` counts these lines.
        let line = format!("skipped: {test}: {want}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
    }
}

/// Skips a test that runs [`alone`], because `want`. Fails instead if `REQUIRE_TEST_TOOLS` is set.
#[track_caller]
pub(crate) fn skip(want: &str) {
    assert!(std::env::var_os("REQUIRE_TEST_TOOLS").is_none(), "{want}");
    println!("skipped: {want}");
}

/// Raises the limit on descriptors. Returns whether it allows `fds`.
pub(crate) fn can_open(fds: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: maximum, maximum };
    setrlimit(Resource::Nofile, limit).is_ok() && maximum.is_none_or(|most| most >= fds)
}

/// Descriptors that this process has open.
#[cfg(target_os = "linux")]
pub(crate) fn fds() -> usize {
    // One is that of the folder.
    fs::read_dir("/proc/self/fd").expect("Linux has it").count() - 1
}

/// Memory that this process has resident, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn rss() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    kib * 1024
}
