//! Storms: after thousands of connections, tasks, descriptors and memory are as before.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use hublet::{Config, Disconnect};

use crate::peer::{Peer, TEXT, frame, upgrade};
use crate::support::{Chat, TestHub, alone, can_open, fds, rss, skip, until};

/// 2,000 connections, ended in every way there is.
fn storm(hub: &TestHub) {
    let request = upgrade("/ws");
    thread::scope(|scope| {
        for worker in 0..4 {
            let request = request.as_bytes();
            scope.spawn(move || {
                for n in 0..500 {
                    match (worker + n) % 8 {
                        0 => drop(hub.dial()),
                        1 => hub.dial().reset(),
                        2 => {
                            let mut peer = hub.dial();
                            peer.write(&request[..n % request.len()]);
                            peer.reset();
                        }
                        3 => {
                            let mut peer = hub.dial();
                            peer.write(request);
                            peer.reset();
                        }
                        4 => {
                            let mut peer = hub.join();
                            peer.write(&frame(TEXT, b"cut")[..n % 9]);
                            peer.reset();
                        }
                        5 => {
                            let mut peer = hub.join();
                            peer.say("hello and goodbye");
                            drop(peer);
                        }
                        6 => hub.join().reset(),
                        _ => drop(hub.join()),
                    }
                }
            });
        }
    });
    // When this one is accepted, none of the others is left in the backlog.
    drop(hub.join());
}

/// Invariant 13: no task, descriptor or memory is left of 2,000 connects and aborts.
#[cfg(target_os = "linux")]
#[test]
fn connects_and_aborts_leave_tasks_descriptors_and_memory_at_the_baseline() {
    alone(connects_and_aborts_leave_tasks_descriptors_and_memory_at_the_baseline, || {
        for threads in [1, 2] {
            let hub = TestHub::on_threads(threads, Config::default(), Chat);
            drop(hub.join());
            hub.empties();
            let open = fds();
            storm(&hub);
            hub.empties();
            assert_eq!(fds(), open, "descriptors");
            // After the first storm the allocator has the memory that a storm needs.
            let before = rss();
            for _ in 0..3 {
                storm(&hub);
            }
            hub.empties();
            assert_eq!(fds(), open, "descriptors");
            let grown = rss().saturating_sub(before);
            // 6,000 connections that left 200 bytes each would be past it.
            assert!(grown < 1_200_000, "{grown} bytes of memory");
            let mut peer = hub.join();
            peer.say("and on it goes");
            peer.hears("and on it goes");
        }
    });
}

/// Invariant 13: queues that were full release their memory.
#[cfg(target_os = "linux")]
#[test]
fn backlogs_leave_no_memory() {
    alone(backlogs_leave_no_memory, || {
        let config = Config::default().queue_bytes(1 << 20).queue(1 << 10);
        let hub = TestHub::with(config);
        let mut after = Vec::new();
        for _ in 0..6 {
            let peers: Vec<_> = (0..20).map(|_| hub.join_narrow()).collect();
            while hub.hub.stats().clients > 0 {
                hub.broadcast(vec![0; 16 * 1024]);
            }
            drop(peers);
            hub.empties();
            after.push(rss());
        }
        let grown = after[5].saturating_sub(after[1]);
        assert!(grown < 4 << 20, "{after:?}");
    });
}

/// Processor time of this process, in hundredths of a second. Takes an open file, since a test that
/// is out of descriptors cannot open one.
#[cfg(target_os = "linux")]
fn ticks(stat: &File) -> u64 {
    let mut text = [0; 1024];
    let len = stat.read_at(&mut text, 0).expect("Linux has it");
    let text = std::str::from_utf8(&text[..len]).expect("text");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<_> = fields.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// A process without free descriptors, and a connection that waits for its hub to accept it.
#[cfg(target_os = "linux")]
struct Exhausted {
    /// Completed by the kernel, and not accepted.
    pending: Peer<TcpStream>,
    /// The highest descriptor that may be opened.
    limit: u64,
    /// Occupies the free descriptors.
    fill: Vec<File>,
}

#[cfg(target_os = "linux")]
impl Exhausted {
    fn at(hub: &TestHub) -> Self {
        use rustix::net::{AddressFamily, SocketType, connect, socket};
        let pending = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let limit = fds() as u64 + 50;
        Self::limit(limit);
        let mut fill = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            fill.push(file);
        }
        let address: std::net::SocketAddr = hub.address.parse().expect("an address");
        connect(&pending, &address).expect("the backlog takes it");
        Self { pending: Peer::over(pending.into()), limit, fill }
    }

    /// Lets the process open more descriptors again.
    fn ease(&self) {
        Self::limit(self.limit + 100);
    }

    fn limit(fds: u64) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(fds), maximum }).expect("set");
    }
}

/// Counts the failed accepts that are logged.
struct FailedAccepts(AtomicUsize);

static FAILED_ACCEPTS: FailedAccepts = FailedAccepts(AtomicUsize::new(0));

impl FailedAccepts {
    /// Starts to count. The test must run in a process of its own.
    fn listen() -> &'static AtomicUsize {
        log::set_logger(&FAILED_ACCEPTS).expect("the process has no other");
        log::set_max_level(log::LevelFilter::Warn);
        &FAILED_ACCEPTS.0
    }
}

impl log::Log for FailedAccepts {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().starts_with("accepting on ") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Without descriptors the accept loop neither ends nor spins, and goes on when some are free.
#[cfg(target_os = "linux")]
#[test]
fn an_accept_loop_without_descriptors_waits_and_recovers() {
    alone(an_accept_loop_without_descriptors_waits_and_recovers, || {
        let hub = TestHub::start();
        let mut inside = hub.join();
        let mut others: Vec<Peer<TcpStream>> = (0..3).map(|_| hub.join()).collect();
        let stat = File::open("/proc/self/stat").expect("Linux has it");
        let exhausted = Exhausted::at(&hub);
        let before = ticks(&stat);
        let begin = Instant::now();
        // The hub serves connected clients meanwhile.
        while begin.elapsed() < Duration::from_millis(1500) {
            inside.say("hello");
            inside.hears("hello");
            others.iter_mut().for_each(|other| other.hears("hello"));
            thread::sleep(Duration::from_millis(20));
        }
        let used = ticks(&stat) - before;
        assert!(used < 60, "{used} hundredths of a second in one and a half");
        assert_eq!(hub.hub.stats().connections, 4);
        others.pop();
        exhausted.ease();
        let mut late = exhausted.pending.join("/ws");
        late.say("late, but in");
        late.hears("late, but in");
    });
}

/// Without descriptors, the hub closes silent connections to accept new ones.
#[cfg(target_os = "linux")]
#[test]
fn silent_peers_give_up_descriptors_that_new_peers_need() {
    alone(silent_peers_give_up_descriptors_that_new_peers_need, || {
        let hub = TestHub::with(Config::default().handshake_timeout(Duration::from_secs(600)));
        let mut silent = hub.dial();
        until("it is accepted", || hub.hub.stats().connections == 1);
        let Exhausted { pending, fill: _fill, .. } = Exhausted::at(&hub);
        let mut waits = pending.join("/ws");
        silent.ends();
        waits.say("in");
        waits.hears("in");
    });
}

/// A drain also works while the accept loop waits for descriptors: the loop ends, and clients get
/// the reason.
#[cfg(target_os = "linux")]
#[test]
fn an_accept_loop_without_descriptors_ends_with_a_drain() {
    alone(an_accept_loop_without_descriptors_ends_with_a_drain, || {
        let failed = FailedAccepts::listen();
        let hub = TestHub::with(Config::default().drain(Duration::ZERO));
        let mut inside = hub.join();
        let mut exhausted = Exhausted::at(&hub);
        // Six pauses take 630 ms together and the next one 640 ms: the drain begins during that
        // one.
        until("accepting fails", || failed.load(Ordering::Relaxed) == 7);
        thread::scope(|scope| {
            let drain = scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
            inside.is_closed(1012);
            inside.goodbye(1012);
            drain.join().expect("the drain ends");
        });
        // Closing the listener closes the pending connection.
        exhausted.pending.is_gone();
        hub.empties();
    });
}

/// The hub admits 1,000 peers that connect at once: the backlog has room for them.
#[test]
fn thousand_peers_at_once_are_all_admitted() {
    const CLIENTS: usize = 1_000;
    alone(thousand_peers_at_once_are_all_admitted, || {
        if !can_open(2 * CLIENTS as u64 + 100) {
            return skip("1,000 clients in one process need 2,100 file descriptors");
        }
        let hub = TestHub::start();
        // All connect before any request is sent.
        let mut peers: Vec<_> = (0..CLIENTS).map(|_| hub.dial()).collect();
        let request = upgrade("/ws");
        peers.iter_mut().for_each(|peer| peer.write(request.as_bytes()));
        for peer in &mut peers {
            assert_eq!(peer.response().status, 101);
        }
        assert_eq!(hub.broadcast("welcome"), CLIENTS);
        peers.iter_mut().for_each(|peer| peer.hears("welcome"));
    });
}
