//! Storms: what thousands of connections leave behind when they are over, which is nothing.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use hublet::Config;

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

/// Out of descriptors the accept loop neither ends nor spins, and goes on when some are free.
#[cfg(target_os = "linux")]
#[test]
fn an_accept_loop_without_descriptors_waits_and_recovers() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    alone(an_accept_loop_without_descriptors_waits_and_recovers, || {
        let hub = TestHub::start();
        let mut inside = hub.join();
        let mut waits: Vec<Peer<TcpStream>> = (0..3).map(|_| hub.dial()).collect();
        until("they are accepted", || hub.hub.stats().connections == 4);
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let limit =
            |current| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
        // Nothing more can be opened here; the kernel still completes connections.
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        );
        let socket = socket.expect("a socket");
        let full = fds() as u64 + 50;
        limit(full).expect("set");
        let stat = File::open("/proc/self/stat").expect("Linux has it");
        let mut fill = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            fill.push(file);
        }
        let address: std::net::SocketAddr = hub.address.parse().expect("an address");
        rustix::net::connect(&socket, &address).expect("the backlog takes it");
        let before = ticks(&stat);
        let begin = Instant::now();
        // Those who are inside are served meanwhile.
        while begin.elapsed() < Duration::from_millis(1500) {
            inside.say("hello");
            inside.hears("hello");
            thread::sleep(Duration::from_millis(20));
        }
        let used = ticks(&stat) - before;
        assert!(used < 60, "{used} hundredths of a second in one and a half");
        assert_eq!(hub.hub.stats().connections, 4);
        waits.pop();
        let mut late = Peer::over(socket.into()).join("/ws");
        late.say("late, but in");
        late.hears("late, but in");
        limit(full + 100).expect("set");
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
