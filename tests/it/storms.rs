//! Storms: what thousands of connections leave behind when they are over, which is nothing.

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
    // The last in line: who came before it is not in the backlog any more.
    drop(hub.join());
}

/// Invariant 13: no task, no descriptor, no memory is left of 2,000 connects and aborts.
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
            // The first storm has shown the allocator how much is needed at once.
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

/// Invariant 13: queues that were full give their memory back.
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

/// Processor time of this process, in hundredths of a second. The file stays open for those who
/// cannot open one.
#[cfg(target_os = "linux")]
fn ticks(stat: &File) -> u64 {
    let mut text = [0; 1024];
    let len = stat.read_at(&mut text, 0).expect("Linux has it");
    let text = std::str::from_utf8(&text[..len]).expect("text");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<_> = fields.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// A process that can open nothing more, at whose hub somebody knocks.
#[cfg(target_os = "linux")]
struct Exhausted {
    /// Completed by the kernel and not accepted.
    knocking: Peer<TcpStream>,
    /// The highest descriptor that may be opened.
    limit: u64,
    /// Holds what there was.
    fill: Vec<File>,
}

#[cfg(target_os = "linux")]
impl Exhausted {
    fn at(hub: &TestHub) -> Self {
        use rustix::net::{AddressFamily, SocketType, connect, socket};
        let knocking = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let limit = fds() as u64 + 50;
        Self::limit(limit);
        let mut fill = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            fill.push(file);
        }
        let address: std::net::SocketAddr = hub.address.parse().expect("an address");
        connect(&knocking, &address).expect("the backlog takes it");
        Self { knocking: Peer::over(knocking.into()), limit, fill }
    }

    /// Lets the process open some more again.
    fn ease(&self) {
        Self::limit(self.limit + 100);
    }

    fn limit(fds: u64) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(fds), maximum }).expect("set");
    }
}

/// Counts the accepts that failed, as the log tells of them.
struct FailedAccepts(AtomicUsize);

static FAILED_ACCEPTS: FailedAccepts = FailedAccepts(AtomicUsize::new(0));

impl FailedAccepts {
    /// Begins to count, in a process of its own.
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

/// Out of descriptors the accept loop neither ends nor spins, and goes on when some are free.
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
        // Those who are inside are served meanwhile.
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
        let mut late = exhausted.knocking.join("/ws");
        late.say("late, but in");
        late.hears("late, but in");
    });
}

/// Out of descriptors, those who say nothing give theirs up to those who cannot come in.
#[cfg(target_os = "linux")]
#[test]
fn silent_peers_keep_nobody_out_who_needs_their_descriptors() {
    alone(silent_peers_keep_nobody_out_who_needs_their_descriptors, || {
        let hub = TestHub::with(Config::default().handshake_timeout(Duration::from_secs(600)));
        let mut silent = hub.dial();
        until("it is accepted", || hub.hub.stats().connections == 1);
        let Exhausted { knocking, fill: _fill, .. } = Exhausted::at(&hub);
        let mut waits = knocking.join("/ws");
        silent.ends();
        waits.say("in");
        waits.hears("in");
    });
}

/// A stop that comes while the accept loop waits for descriptors is a stop like any other: the loop
/// ends, and who is inside is told.
#[cfg(target_os = "linux")]
#[test]
fn an_accept_loop_without_descriptors_ends_with_a_drain() {
    alone(an_accept_loop_without_descriptors_ends_with_a_drain, || {
        let failed = FailedAccepts::listen();
        let hub = TestHub::with(Config::default().drain(Duration::ZERO));
        let mut inside = hub.join();
        let mut exhausted = Exhausted::at(&hub);
        // Six pauses are 630 ms together, the next is 640 ms: the drain falls into it.
        until("accepting fails", || failed.load(Ordering::Relaxed) == 7);
        thread::scope(|scope| {
            let drain = scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
            inside.is_closed(1012);
            inside.goodbye(1012);
            drain.join().expect("the drain ends");
        });
        // The listener is closed, with whom nobody accepted.
        exhausted.knocking.is_gone();
        hub.empties();
    });
}

/// 1,000 peers at once are all let in: none is refused for want of a place in a backlog.
#[test]
fn a_thousand_at_once_all_get_in() {
    const CLIENTS: usize = 1_000;
    alone(a_thousand_at_once_all_get_in, || {
        if !can_open(2 * CLIENTS as u64 + 100) {
            return skip("1,000 clients in one process need 2,100 file descriptors");
        }
        let hub = TestHub::start();
        // All knock before any is answered.
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
