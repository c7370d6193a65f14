//! Attacks by peers and by the environment, against the built binary.
//!
//! Each attack ends with the same check: messages between two healthy clients took less than a
//! second all the time; afterwards the processor is idle, and memory and descriptors are as before.
//! HUBLET_HOSTILE=full makes the slow attacks last a minute.
#![cfg(target_os = "linux")]

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::peer::{PING, PONG, frame, upgrade};
use crate::support::{CLOSE, DEADLINE, Folder, Peer, Server, TEXT, by_clock, hublet, set_clock};

/// The longest delay of a message to a healthy client.
const LATE: Duration = Duration::from_secs(1);

/// Bytes by which memory may grow in an attack: the allocator keeps some.
const GROWN: u64 = 4 << 20;

/// Processor time of an idle second, in hundredths of a second: for heartbeats and the log of
/// joins.
const IDLE: u64 = 5;

/// How long the slow attacks last.
pub(crate) fn long() -> Duration {
    let full = std::env::var("HUBLET_HOSTILE").is_ok_and(|word| word == "full");
    Duration::from_secs(if full { 60 } else { 3 })
}

/// A server under attack, with figures from before the attack.
struct Siege {
    server: Server,
    address: String,
    memory: u64,
    descriptors: usize,
    /// Two clients that exchange messages all the time.
    healthy: Option<(Arc<AtomicBool>, JoinHandle<Heard>)>,
}

/// The messages of the healthy clients during an attack, and the longest delay.
struct Heard {
    messages: u32,
    latest: Duration,
}

impl Siege {
    fn begin(arguments: &[&str]) -> Self {
        Self::of(hublet(&["--listen", "127.0.0.1:0"]).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        // glibc must return freed memory at once, as musl does in the shipped binary.
        let mut server = Server::of(command.env("MALLOC_TRIM_THRESHOLD_", "65536"));
        let address = server.listening();
        let mut siege = Self { server, address, memory: 0, descriptors: 0, healthy: None };
        siege.descriptors = siege.descriptors();
        // Some memory is allocated for the first client and kept.
        let mut first = Peer::<TcpStream>::connect(&siege.address, "/ws/healthy");
        first.say("first");
        first.hears("first");
        drop(first);
        siege.settles(|siege| siege.descriptors() <= siege.descriptors);
        siege.talk();
        siege.descriptors += 2;
        siege.memory = siege.resident();
        siege
    }

    fn talk(&mut self) {
        let mut receiver = Peer::<TcpStream>::connect(&self.address, "/ws/healthy");
        let mut sender = Peer::<TcpStream>::connect(&self.address, "/ws/healthy?echo=0");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let talk = thread::spawn(move || {
            let mut heard = Heard { messages: 0, latest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                sender.say("are you well?");
                hears_through_pings(&mut receiver, "are you well?");
                heard.latest = heard.latest.max(begin.elapsed());
                heard.messages += 1;
                thread::sleep(Duration::from_millis(10));
            }
            heard
        });
        self.healthy = Some((stop, talk));
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.server.child.id());
        fs::read_to_string(path).expect("it runs")
    }

    fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.server.child.id());
        fs::read_dir(path).expect("it runs").count()
    }

    /// Processor time so far, in hundredths of a second.
    fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let fields: Vec<_> = fields.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// Polls until `is_so` is true. Fails after the deadline.
    #[track_caller]
    fn settles(&self, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(
                Instant::now() < end,
                "{} descriptors of {}, {} bytes of {}",
                self.descriptors(),
                self.descriptors,
                self.resident(),
                self.memory
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The check after each attack. Stops the server.
    #[track_caller]
    fn end(mut self, attack: &str) {
        self.settles(|siege| siege.descriptors() <= siege.descriptors);
        self.settles(|siege| siege.resident() <= siege.memory + GROWN);
        // A short attack may end before the healthy clients have sent enough.
        thread::sleep(Duration::from_millis(500));
        let (stop, talk) = self.healthy.take().expect("they talk");
        stop.store(true, Ordering::Relaxed);
        let Heard { messages, latest } = talk.join().expect("they heard each other");
        assert!(messages > 10, "{messages} messages");
        assert!(latest < LATE, "a message was {latest:?} late");
        // No client is left: the two healthy ones have just closed.
        self.settles(|siege| siege.descriptors() <= siege.descriptors - 2);
        let before = self.ticks();
        thread::sleep(Duration::from_secs(1));
        let used = self.ticks() - before;
        assert!(used <= IDLE, "{used} hundredths of an idle second");
        let grown = self.resident().saturating_sub(self.memory);
        println!("{attack}: {messages} messages, the latest {latest:?}; {grown} bytes more");
        assert_eq!(self.server.stop(), Some(0));
    }
}

/// Receives a text, and answers the pings before it.
#[track_caller]
fn hears_through_pings(peer: &mut Peer<TcpStream>, text: &str) {
    loop {
        let (first, payload) = peer.receive();
        if first != PING {
            return assert_eq!((first, payload), (TEXT, text.as_bytes().to_vec()));
        }
        peer.send(PONG, &payload);
    }
}

/// Connects without waiting for the server to accept, which may be busy.
fn dial(address: &str) -> TcpStream {
    TcpStream::connect(address).expect("the backlog takes it")
}

#[test]
fn requests_that_trickle() {
    let siege = Siege::begin(&["--handshake-timeout", "2s"]);
    let mut slow: Vec<_> = (0..300).map(|_| dial(&siege.address)).collect();
    let request = upgrade("/ws/slow");
    let begin = Instant::now();
    for byte in request.as_bytes().iter().take(20) {
        for socket in &mut slow {
            // A peer that was answered 408 meanwhile may get a reset.
            let _ = socket.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_millis(100));
    }
    // The slow peers occupy all handshake slots until their deadline.
    let mut newcomer = Peer::<TcpStream>::connect(&siege.address, "/ws/new");
    newcomer.say("in");
    newcomer.hears("in");
    assert!(begin.elapsed() < Duration::from_secs(2 * 2 + 3), "{:?}", begin.elapsed());
    for mut socket in slow {
        let mut answer = Vec::new();
        if socket.read_to_end(&mut answer).is_ok() {
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 408 ") || answer.is_empty(), "{answer}");
        }
    }
    drop(newcomer);
    siege.end("requests that trickle");
}

#[test]
fn frames_that_trickle() {
    let siege = Siege::begin(&[]);
    let connect = |_| Peer::<TcpStream>::connect(&siege.address, "/ws/slow");
    let mut slow: Vec<_> = (0..200).map(connect).collect();
    let message = frame(TEXT, &[b'x'; 60_000]);
    let begin = Instant::now();
    // A message must be finished in 30 s, however slowly its bytes arrive.
    'attack: for byte in &message {
        for peer in &mut slow {
            if peer.stream().write_all(&[*byte]).is_err() {
                break 'attack;
            }
        }
        thread::sleep(Duration::from_millis(50));
        if begin.elapsed() > long() {
            break;
        }
    }
    if long() > Duration::from_secs(30) {
        slow.iter_mut().for_each(|peer| drop(peer.is_closed(1008)));
    }
    drop(slow);
    siege.end("frames that trickle");
}

#[test]
fn five_hundred_that_send_a_byte_a_second() {
    let siege = Siege::begin(&[]);
    let connect = |n| Peer::<TcpStream>::connect(&siege.address, &format!("/ws/{}", n % 100));
    let mut slow: Vec<_> = (0..500).map(connect).collect();
    let ping = frame(PING, b"");
    let begin = Instant::now();
    for byte in ping.iter().cycle() {
        let before = siege.ticks();
        for peer in &mut slow {
            peer.write(&[*byte]);
        }
        thread::sleep(Duration::from_secs(1));
        let used = siege.ticks() - before;
        assert!(used < 60, "{used} hundredths of a second for 500 bytes");
        if begin.elapsed() > long() {
            break;
        }
    }
    drop(slow);
    siege.end("500 that send a byte a second");
}

#[test]
fn four_hundred_thousand_pings_of_a_client_that_does_not_read() {
    let siege = Siege::begin(&[]);
    let rude = Peer::<TcpStream>::dial_narrow(&siege.address).join("/ws/rude");
    let pings = frame(PING, b"12345678").repeat(4_000);
    for _ in 0..100 {
        // The hub evicts it when its pongs have waited for too long.
        if rude.stream().write_all(&pings).is_err() {
            break;
        }
        assert!(siege.resident() < siege.memory + GROWN, "pongs pile up");
    }
    drop(rude);
    siege.end("400,000 pings");
}

#[test]
fn client_that_never_reads_its_echo() {
    let siege = Siege::begin(&[]);
    let rude = Peer::<TcpStream>::dial_narrow(&siege.address).join("/ws/rude");
    let message = frame(TEXT, &[b'x'; 50_000]);
    let begin = Instant::now();
    let error = loop {
        match rude.stream().write_all(&message) {
            Ok(()) => assert!(begin.elapsed() < Duration::from_secs(20), "it is never evicted"),
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    siege.end("a client that never reads its echo");
}

#[test]
fn a_thousand_resets() {
    let siege = Siege::begin(&[]);
    for n in 0..1_000_u32 {
        let mut peer = Peer::<TcpStream>::dial(&siege.address);
        match n % 4 {
            0 => {}
            1 => peer.write(b"GET /ws/reset HT"),
            2 => {
                peer = peer.join("/ws/reset");
                peer.write(&frame(TEXT, b"hello")[..7]);
            }
            _ => {
                peer = peer.join("/ws/reset");
                peer.say("hello");
            }
        }
        peer.reset();
    }
    siege.end("1,000 resets");
}

#[test]
fn out_of_descriptors() {
    let siege = Siege::begin(&[]);
    let pid = Pid::from_child(&siege.server.child);
    let limit = |current| {
        let maximum = prlimit_of(pid).maximum;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).expect("set");
    };
    let before = prlimit_of(pid).current;
    limit(Some(siege.descriptors() as u64));
    let begin = Instant::now();
    let mut waiting: Vec<_> = (0..50).map(|_| dial(&siege.address)).collect();
    for socket in &mut waiting {
        socket.write_all(upgrade("/ws/late").as_bytes()).expect("the kernel takes it");
    }
    let ticks = siege.ticks();
    thread::sleep(long());
    let spent = siege.ticks() - ticks;
    let allowed = 20 * begin.elapsed().as_secs();
    assert!(spent <= allowed, "{spent} hundredths of a second, waiting for descriptors");
    limit(before);
    for socket in waiting {
        let mut late = Peer::over(socket);
        assert_eq!(late.response().status, 101);
    }
    siege.end("out of descriptors");
}

/// The limit on descriptors of a process.
fn prlimit_of(pid: Pid) -> Rlimit {
    let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line");
    let mut words = line.split_whitespace().map(|word| word.parse().ok());
    Rlimit { current: words.next().flatten(), maximum: words.next().flatten() }
}

/// A client that answers pings until its stream is shut down or the hub closes it.
fn answering(address: &str) -> (TcpStream, JoinHandle<bool>) {
    let mut peer = Peer::<TcpStream>::connect(address, "/ws/answering");
    let stream = peer.stream().try_clone().expect("a copy");
    // The hub may be stopped for longer than the deadline of a step.
    stream.set_read_timeout(Some(long() + DEADLINE)).expect("a deadline");
    let answer = thread::spawn(move || {
        loop {
            match peer.try_receive() {
                Ok((PING, payload)) => peer.send(PONG, &payload),
                // The answer to its own end has no code.
                Ok((CLOSE, code)) => return code.is_empty(),
                Ok((first, _)) => assert_eq!(first, TEXT),
                Err(_) => return false,
            }
        }
    });
    (stream, answer)
}

#[test]
fn stopped_process_keeps_its_clients_when_it_continues() {
    let flags = ["--ping-interval", "1s", "--pong-timeout", "1s", "--write-timeout", "1s"];
    let mut siege = Siege::begin(&flags);
    // The healthy clients would count the stop as a delay.
    let (stop, talk) = siege.healthy.take().expect("they talk");
    stop.store(true, Ordering::Relaxed);
    talk.join().expect("they heard each other");
    siege.settles(|siege| siege.descriptors() <= siege.descriptors - 2);
    let clients: Vec<_> = (0..50).map(|_| answering(&siege.address)).collect();
    // Long enough for pings to be sent. Their deadlines pass while the process is stopped.
    thread::sleep(Duration::from_millis(1200));
    siege.server.signal(Signal::STOP);
    for (stream, _) in &clients {
        let mut stream = stream;
        stream.write_all(&frame(TEXT, b"still here")).expect("the kernel takes it");
    }
    thread::sleep(long());
    siege.server.signal(Signal::CONT);
    let mut newcomer = Peer::<TcpStream>::connect(&siege.address, "/ws/answering?echo=0");
    newcomer.say("good morning");
    // Time for a ping and its deadline again.
    thread::sleep(Duration::from_millis(2500));
    for (stream, answer) in clients {
        assert!(!answer.is_finished(), "a client was closed because the server was stopped");
        stream.shutdown(Shutdown::Write).expect("it is open");
        assert!(answer.join().expect("it gets only messages and pings"), "the hub closed it");
    }
    drop(newcomer);
    siege.talk();
    siege.end("stopped and continued");
}

#[test]
fn closed_stdout_and_stderr() {
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--log", "debug"]);
    let mut siege = Siege::of(&mut command);
    // Without receivers, the reading threads end with the next line and close the pipes.
    siege.server.stdout = std::sync::mpsc::channel().1;
    siege.server.stderr = std::sync::mpsc::channel().1;
    for _ in 0..200 {
        let mut peer = Peer::<TcpStream>::connect(&siege.address, "/ws/logged");
        peer.say("hello");
        peer.hears("hello");
    }
    siege.settles(|siege| siege.descriptors() <= siege.descriptors);
    let (stop, talk) = siege.healthy.take().expect("they talk");
    stop.store(true, Ordering::Relaxed);
    assert!(talk.join().expect("they heard each other").latest < LATE);
    siege.server.signal(Signal::TERM);
    assert_eq!(siege.server.child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_full_disk_behind_stdout_and_stderr() {
    let folder = Folder::new("hostile-full");
    let (path, address) = folder.socket();
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = hublet(&["--listen", &address, "--log", "debug"]);
    let mut server = Server::spawn(command.stdout(full()).stderr(Stdio::from(full())));
    let end = Instant::now() + DEADLINE;
    while !path.exists() {
        assert!(Instant::now() < end, "it does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..100 {
        let mut peer = Peer::<std::os::unix::net::UnixStream>::connect(&path);
        peer.say("hello");
        peer.hears("hello");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().expect("its end").code(), Some(0));
}

/// Jumps of the wall clock do not affect the hub.
#[test]
fn a_wall_clock_that_jumps() {
    let folder = Folder::new("hostile-clock");
    let clock = folder.0.join("clock");
    set_clock(&clock, "+0");
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--ping-interval", "1s"]);
    if !by_clock(&mut command, &clock) {
        return;
    }
    let siege = Siege::of(&mut command);
    let clients: Vec<_> = (0..20).map(|_| answering(&siege.address)).collect();
    for jump in ["+1d", "-1d", "+10y", "-10y", "+0"] {
        set_clock(&clock, jump);
        thread::sleep(Duration::from_millis(500));
    }
    for (stream, answer) in clients {
        assert!(!answer.is_finished(), "a client was closed because the clock jumped");
        stream.shutdown(Shutdown::Write).expect("it is open");
        assert!(answer.join().expect("it gets only messages and pings"), "the hub closed it");
    }
    siege.end("a wall clock that jumps");
}
