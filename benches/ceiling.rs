//! Checks the memory ceiling: the binary in a cgroup with `--max-memory` as its limit, under
//! several attacks at once.
//!
//! `cargo bench --bench ceiling -- [--seconds N] [BINARY]`
//!
//! Starts BINARY (default: the binary of this build) with 16 MiB and with 32 MiB, in a cgroup of
//! that size (v2, or v1 with the kernel's socket memory limited as well). Compares the memory at
//! the start and of an idle client with `Sizing`.
//!
//! Then, for N seconds (default 10), attackers run beside a few healthy clients, which must lose no
//! message: slow readers with rooms full of large messages, slow readers of events, unfinished
//! messages, endless fragments, pings whose pongs are not read, half heads and a flood of
//! connections. Afterwards memory must be as before. At last, of several clients that pin memory,
//! the one that pins the most must be evicted first.
//!
//! Without a cgroup it prints `skipped`, or fails if REQUIRE_TEST_TOOLS is set. Linux, as root.

mod server;

#[cfg(target_os = "linux")]
mod cgroup {
    use std::error::Error;
    use std::fs;
    use std::path::{Path, PathBuf};

    pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

    /// A control group with a limit. Dropping it removes the group.
    pub(crate) struct Cgroup {
        folder: PathBuf,
        is_v2: bool,
    }

    impl Cgroup {
        /// Makes a group of `bytes`.
        pub(crate) fn new(bytes: usize) -> Outcome<Self> {
            let name = format!("hublet-ceiling-{}-{bytes}", std::process::id());
            let v2 = Path::new("/sys/fs/cgroup");
            let controllers = fs::read_to_string(v2.join("cgroup.controllers"));
            let is_v2 =
                controllers.is_ok_and(|list| list.split_whitespace().any(|c| c == "memory"));
            let folder = if is_v2 { v2.join(name) } else { v2.join("memory").join(name) };
            if is_v2 {
                fs::write(v2.join("cgroup.subtree_control"), "+memory")?;
            }
            fs::create_dir(&folder)?;
            let group = Self { folder, is_v2 };
            let limits: &[&str] = if is_v2 {
                &["memory.max"]
            } else {
                // v1 counts the memory of sockets separately, and only if it has a limit.
                &["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"]
            };
            for limit in limits {
                fs::write(group.folder.join(limit), bytes.to_string())?;
            }
            Ok(group)
        }

        /// The file that moves a process into the group.
        pub(crate) fn procs(&self) -> PathBuf {
            self.folder.join("cgroup.procs")
        }

        /// Bytes that are charged now, sockets included.
        pub(crate) fn usage(&self) -> Outcome<usize> {
            if self.is_v2 {
                return self.number("memory.current");
            }
            Ok(self.number("memory.usage_in_bytes")?
                + self.number("memory.kmem.tcp.usage_in_bytes")?)
        }

        /// Processes that the kernel killed because memory was short.
        pub(crate) fn killed(&self) -> Outcome<usize> {
            let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
            let text = fs::read_to_string(self.folder.join(file))?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            Ok(line.ok_or("no oom_kill")?.trim().parse()?)
        }

        fn number(&self, file: &str) -> Outcome<usize> {
            Ok(fs::read_to_string(self.folder.join(file))?.trim().parse()?)
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            // The kernel releases a group soon after its last process has ended.
            for _ in 0..100 {
                if fs::remove_dir(&self.folder).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn main() -> cgroup::Outcome<()> {
    attack::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("skipped: there are no cgroups here");
}

#[cfg(target_os = "linux")]
mod attack {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use hublet::Sizing;
    use rustix::net::{AddressFamily, SocketType, sockopt};

    use super::cgroup::{Cgroup, Outcome};
    use super::server::ask;

    /// How long anything may take before the run fails.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// The interval of samples of the group's charge.
    const SAMPLE: Duration = Duration::from_millis(5);
    /// Healthy subscribers, besides the healthy publisher.
    const HEALTHY: usize = 8;
    /// The longest message that is allowed.
    const LONG: usize = 64 * 1024;
    /// The time after which pinned memory counts for an eviction, at most: two ticks of a quarter
    /// of a second, and half a tick.
    const AGED: Duration = Duration::from_millis(625);
    /// The index of the client that pins the most.
    const LARGEST: usize = 7;
    /// The interval between messages of the healthy publisher.
    const PACE: Duration = Duration::from_millis(20);

    pub(super) fn main() -> Outcome<()> {
        let mut binary = env!("CARGO_BIN_EXE_hublet").to_owned();
        let mut seconds = 10;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo passes this to every bench.
                "--bench" => {}
                "--seconds" => seconds = args.next().ok_or("--seconds needs a number")?.parse()?,
                _ => binary = arg,
            }
        }
        raise_fd_limit()?;
        let Some(group) = make(256 << 20)? else { return Ok(()) };
        idle(&binary, &group)?;
        for megabytes in [16, 32] {
            let bytes = megabytes << 20;
            let Some(group) = make(bytes)? else { return Ok(()) };
            run(&binary, &Arc::new(group), bytes, Duration::from_secs(seconds))?;
        }
        Ok(())
    }

    /// A group of `bytes`; `None` if none can be made and none is required.
    fn make(bytes: usize) -> Outcome<Option<Cgroup>> {
        match Cgroup::new(bytes) {
            Ok(group) => Ok(Some(group)),
            Err(error) if std::env::var_os("REQUIRE_TEST_TOOLS").is_none() => {
                eprintln!("skipped: a memory cgroup cannot be made: {error}");
                Ok(None)
            }
            Err(error) => Err(format!("a memory cgroup is needed: {error}").into()),
        }
    }

    fn raise_fd_limit() -> io::Result<()> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
    }

    /// Checks the memory of the binary at its start, and of an idle client in the process and in
    /// the kernel. Measured with many clients, since a group is charged in steps.
    fn idle(binary: &str, group: &Cgroup) -> Outcome<()> {
        let server = Server::start(binary, group, 256 << 20)?;
        // The first long message allocates the buffer that the hub keeps.
        publish(&mut server.address.join("empty?echo=0")?, &message(&[7; LONG]), 1)?;
        check("at start", server.settled(group)?, Sizing::START)?;
        let join = |n: usize| -> io::Result<Vec<_>> {
            (0..n).map(|_| server.address.join("idle")).collect()
        };
        let _first = join(100)?;
        server.settled(group)?;
        let begin = group.usage()?;
        let clients = join(2000)?;
        server.settled(group)?;
        let each = (group.usage()? - begin) / clients.len();
        check("for an idle client", each, Sizing::IDLE_CLIENT)
    }

    fn run(binary: &str, group: &Arc<Cgroup>, ceiling: usize, storm: Duration) -> Outcome<()> {
        println!("--max-memory {ceiling} in a cgroup of as many bytes");
        let server = Server::start(binary, group, ceiling)?;
        println!("  {}", server.arithmetic);
        server.settled(group)?;
        let begin = group.usage()?;
        let outcome = Storm::begin(&server, group, storm)?.end();
        if group.killed()? > 0 || !server.is_alive() {
            return Err(format!("it did not survive; {} kills for memory", group.killed()?).into());
        }
        let outcome = outcome?;
        println!("{outcome}");
        if outcome.peak > ceiling {
            return Err(format!("{} bytes at the most, of {ceiling}", outcome.peak).into());
        }
        if outcome.evicted == 0 {
            return Err("no client was evicted: the attacks were too weak".into());
        }
        let after = server.settles_below(group, begin + 1_000_000)?;
        println!("  when all have gone             {after:>9} bytes");
        largest_first(&server)
    }

    fn check(name: &str, bytes: usize, most: usize) -> Outcome<()> {
        println!("  {name:<30} {bytes:>9} bytes of {most}");
        if bytes > most {
            return Err(format!("{name}: {bytes} bytes are more than the arithmetic has").into());
        }
        Ok(())
    }

    /// The address of the server.
    #[derive(Clone, Copy)]
    struct Address(SocketAddr);

    impl Address {
        /// Connects, with the smallest receive buffer that the kernel allows.
        fn dial(self) -> io::Result<TcpStream> {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_recv_buffer_size(&socket, 1)?;
            rustix::net::connect(&socket, &self.0)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(Duration::from_millis(500)))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }

        /// Joins a room with a small receive buffer.
        fn join(self, room: &str) -> io::Result<TcpStream> {
            self.upgrade(self.dial()?, room)
        }

        /// Joins a room with an ordinary receive buffer.
        fn join_well(self, room: &str) -> io::Result<TcpStream> {
            let stream = TcpStream::connect(self.0)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.upgrade(stream, room)
        }

        /// Subscribes to a room's events with a small receive buffer.
        fn listen(self, room: &str) -> io::Result<TcpStream> {
            let request = format!("GET /sse/{room} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            ask(self.dial()?, &request, "200")
        }

        fn upgrade(self, stream: TcpStream, room: &str) -> io::Result<TcpStream> {
            let request = format!(
                "GET /ws/{room} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            ask(stream, &request, "101")
        }
    }

    /// The binary, in its group.
    struct Server {
        child: Mutex<Child>,
        pid: u32,
        address: Address,
        /// The line that it has logged about its ceiling.
        arithmetic: String,
        /// Sockets that are no connections: the listener, and those for signals.
        sockets_at_start: usize,
    }

    impl Server {
        fn start(binary: &str, group: &Cgroup, ceiling: usize) -> Outcome<Self> {
            // The shell moves itself into the group and becomes the server, so that all its memory
            // is charged.
            let script = "echo $$ > \"$0\" && exec \"$@\"";
            let mut child = Command::new("/bin/sh")
                .args(["-c", script])
                .arg(group.procs())
                .args([binary, "--listen", "127.0.0.1:0", "--max-memory", &ceiling.to_string()])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().ok_or("no standard output")?;
            let stderr = child.stderr.take().ok_or("no standard error")?;
            let pid = child.id();
            // From here on, dropping this ends the process.
            let mut server = Self {
                child: Mutex::new(child),
                pid,
                address: Address(([127, 0, 0, 1], 0).into()),
                arithmetic: String::new(),
                sockets_at_start: 0,
            };
            let (said, hears) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Some((_, arithmetic)) = line.split_once("memory: ") {
                        drop(said.send(arithmetic.to_owned()));
                    }
                }
            });
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            let address = line.trim().strip_prefix("listening on ").ok_or("it does not listen")?;
            server.address = Address(address.parse()?);
            server.arithmetic = hears.recv_timeout(PATIENCE)?;
            server.sockets_at_start = server.sockets()?;
            Ok(server)
        }

        fn is_alive(&self) -> bool {
            let mut child = self.child.lock().expect("no thread panics with it");
            matches!(child.try_wait(), Ok(None))
        }

        /// The number of its connections.
        fn sockets(&self) -> Outcome<usize> {
            let mut sockets = 0;
            for fd in std::fs::read_dir(format!("/proc/{}/fd", self.pid))? {
                let link = std::fs::read_link(fd?.path()).unwrap_or_default();
                sockets += usize::from(link.to_string_lossy().starts_with("socket:"));
            }
            Ok(sockets)
        }

        /// Waits until the charge is stable, and returns it. Resident pages of the binary count
        /// even if they are charged to another group.
        fn settled(&self, group: &Cgroup) -> Outcome<usize> {
            let begin = Instant::now();
            let mut last = (0, Instant::now());
            loop {
                let usage = group.usage()?;
                if usage != last.0 {
                    last = (usage, Instant::now());
                }
                let still = last.1.elapsed() > Duration::from_millis(500);
                if still || begin.elapsed() > PATIENCE {
                    return Ok(usage.max(self.resident()?));
                }
                thread::sleep(SAMPLE);
            }
        }

        /// Waits until all connections are gone and no more than `bytes` are charged.
        fn settles_below(&self, group: &Cgroup, bytes: usize) -> Outcome<usize> {
            let begin = Instant::now();
            loop {
                let usage = group.usage()?;
                if usage <= bytes && self.sockets()? <= self.sockets_at_start {
                    return Ok(usage);
                }
                if begin.elapsed() > PATIENCE {
                    let sockets = self.sockets()?;
                    let problem = format!("{usage} bytes are left of a storm, {sockets} sockets");
                    return Err(problem.into());
                }
                thread::sleep(SAMPLE);
            }
        }

        fn resident(&self) -> Outcome<usize> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
            Ok(kib.parse::<usize>()? * 1024)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let child = self.child.get_mut().expect("no thread panics with it");
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// The header of a masked frame, with a mask of zeros.
    fn header(first: u8, len: usize) -> Vec<u8> {
        let mut header = vec![first];
        match len {
            0..=125 => header.push(0x80 | len as u8),
            126..=0xffff => {
                header.push(0x80 | 126);
                header.extend((len as u16).to_be_bytes());
            }
            _ => {
                header.push(0x80 | 127);
                header.extend((len as u64).to_be_bytes());
            }
        }
        header.extend([0; 4]);
        header
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        [&header(0x82, payload.len())[..], payload].concat()
    }

    /// Reads a whole message of the hub's.
    fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut start = [0; 2];
        stream.read_exact(&mut start)?;
        let len = match start[1] {
            126 => {
                let mut len = [0; 2];
                stream.read_exact(&mut len)?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                stream.read_exact(&mut len)?;
                u64::from_be_bytes(len) as usize
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload)?;
        match start[0] {
            0x82 => Ok(payload),
            // The hub pings idle clients.
            0x89 => receive(stream),
            _ => Err(io::Error::other(format!("closed: {}", String::from_utf8_lossy(&payload)))),
        }
    }

    /// The state that all attackers share.
    struct Shared {
        over: AtomicBool,
        /// Attackers whose connection the hub ended.
        evicted: AtomicUsize,
        /// Attackers that were refused.
        refused: AtomicUsize,
        /// Bytes that attackers have published.
        published: AtomicUsize,
    }

    impl Shared {
        /// Counts a refused attacker.
        fn refuse(&self) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Storm {
        shared: Arc<Shared>,
        attackers: Vec<thread::JoinHandle<()>>,
        publisher: thread::JoinHandle<io::Result<u64>>,
        subscribers: Vec<thread::JoinHandle<io::Result<(u64, Duration)>>>,
        watch: thread::JoinHandle<Result<usize, String>>,
    }

    struct Seen {
        peak: usize,
        evicted: usize,
        refused: usize,
        published: usize,
        sent: u64,
        worst: Duration,
    }

    impl std::fmt::Display for Seen {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            writeln!(f, "  at the most                    {:>9} bytes", self.peak)?;
            writeln!(f, "  attackers cut off              {:>9}", self.evicted)?;
            writeln!(f, "  attackers not let in           {:>9}", self.refused)?;
            writeln!(f, "  published by attackers         {:>9} bytes", self.published)?;
            let (all, worst) = (self.sent * HEALTHY as u64, self.worst);
            write!(f, "  healthy messages, none lost    {all:>9}, the latest after {worst:.1?}")
        }
    }

    impl Storm {
        fn begin(server: &Server, group: &Arc<Cgroup>, length: Duration) -> Outcome<Self> {
            let shared = Arc::new(Shared {
                over: AtomicBool::new(false),
                evicted: AtomicUsize::new(0),
                refused: AtomicUsize::new(0),
                published: AtomicUsize::new(0),
            });
            // The healthy clients connect first.
            let began = Instant::now();
            let mut subscribers = Vec::new();
            for _ in 0..HEALTHY {
                let mut stream = BufReader::new(server.address.join_well("main")?);
                subscribers.push(thread::spawn(move || hear(&mut stream, began)));
            }
            let speaker = server.address.join_well("main")?;
            let publisher = thread::spawn(move || speak(speaker, began, length));

            let watch = thread::spawn({
                let (group, shared) = (Arc::clone(group), Arc::clone(&shared));
                move || {
                    let mut peak = 0;
                    while !shared.over.load(Ordering::Relaxed) {
                        peak = peak.max(group.usage().map_err(|error| error.to_string())?);
                        thread::sleep(SAMPLE);
                    }
                    Ok(peak)
                }
            });
            let kinds: [(usize, Attack); 7] = [
                (24, slow_reader),
                (24, slow_events),
                (60, unfinished),
                (20, fragments),
                (10, pings),
                (24, half_head),
                (8, flood),
            ];
            let mut attackers = Vec::new();
            for (number, attack) in kinds {
                for nth in 0..number {
                    let (shared, server) = (Arc::clone(&shared), server.address);
                    attackers.push(thread::spawn(move || {
                        while !shared.over.load(Ordering::Relaxed) {
                            if attack(server, nth, &shared).is_err() {
                                thread::sleep(SAMPLE);
                            }
                        }
                    }));
                }
            }
            if !server.is_alive() {
                return Err("it did not survive the beginning".into());
            }
            Ok(Self { shared, attackers, publisher, subscribers, watch })
        }

        fn end(self) -> Outcome<Seen> {
            let sent = self.publisher.join().map_err(|_| "the publisher panicked")?;
            let sent = sent.map_err(|error| format!("the healthy publisher: {error}"))?;
            let mut worst = Duration::ZERO;
            for subscriber in self.subscribers {
                let heard = subscriber.join().map_err(|_| "a subscriber panicked")?;
                let (heard, late) = heard.map_err(|error| format!("a healthy client: {error}"))?;
                if heard != sent {
                    return Err(format!("a healthy client heard {heard} of {sent}").into());
                }
                worst = worst.max(late);
            }
            self.shared.over.store(true, Ordering::Relaxed);
            for attacker in self.attackers {
                attacker.join().map_err(|_| "an attacker panicked")?;
            }
            let peak = self.watch.join().map_err(|_| "the watch panicked")??;
            let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
            Ok(Seen {
                peak,
                evicted: count(&self.shared.evicted),
                refused: count(&self.shared.refused),
                published: count(&self.shared.published),
                sent,
                worst,
            })
        }
    }

    /// Publishes numbered messages for `length`, every tenth of them long, and a last one with
    /// number 0. Returns their number.
    fn speak(mut stream: TcpStream, began: Instant, length: Duration) -> io::Result<u64> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reading = BufReader::new(stream.try_clone()?);
        let echoes = thread::spawn(move || hear(&mut reading, began));
        let mut number = 0u64;
        while began.elapsed() < length {
            number += 1;
            let sent = began.elapsed().as_micros() as u64;
            let mut payload = [number.to_be_bytes(), sent.to_be_bytes()].concat();
            payload.resize(if number % 10 == 0 { 16 * 1024 } else { 64 }, 0);
            stream.write_all(&message(&payload))?;
            thread::sleep(PACE);
        }
        stream.write_all(&message(&[0; 16]))?;
        match echoes.join() {
            Ok(heard) => heard.map(|_| number),
            Err(_) => Err(io::Error::other("the echo was not to be read")),
        }
    }

    /// Receives numbered messages up to the last. Returns their number and the longest delay.
    fn hear(stream: &mut impl Read, began: Instant) -> io::Result<(u64, Duration)> {
        let (mut number, mut worst) = (0, Duration::ZERO);
        loop {
            let payload = receive(stream)?;
            let word = |at| payload[at..at + 8].try_into().map(u64::from_be_bytes);
            let (Ok(next), Ok(sent)) = (word(0), word(8)) else {
                return Err(io::Error::other("a message that was not sent"));
            };
            if next == 0 {
                return Ok((number, worst));
            }
            if next != number + 1 {
                return Err(io::Error::other(format!("{next} after {number}")));
            }
            number = next;
            worst = worst.max(began.elapsed().saturating_sub(Duration::from_micros(sent)));
        }
    }

    /// One run of an attacker, from its connection to its end.
    type Attack = fn(Address, usize, &Shared) -> io::Result<()>;

    /// Connects an attacker, or counts its refusal.
    fn enter(server: Address, room: &str, shared: &Shared) -> io::Result<TcpStream> {
        server.join(room).inspect_err(|_| shared.refuse())
    }

    /// Waits without reading until the hub closes the connection or the attacks are over.
    fn wait_for_the_end(stream: &TcpStream, shared: &Shared) {
        while !shared.over.load(Ordering::Relaxed) {
            if !matches!(stream.take_error(), Ok(None)) {
                shared.evicted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            thread::sleep(SAMPLE);
        }
    }

    /// Joins a room of its own, publishes long messages to it, and never reads them.
    fn slow_reader(server: Address, nth: usize, shared: &Shared) -> io::Result<()> {
        let room = format!("slow-{}", nth / 2);
        let slow = enter(server, &room, shared)?;
        let mut publisher = enter(server, &format!("{room}?echo=0"), shared)?;
        let long = message(&vec![nth as u8; LONG]);
        // Few enough that no queue overflows: memory must become short instead.
        for _ in 0..3 {
            publisher.write_all(&long)?;
            shared.published.fetch_add(LONG, Ordering::Relaxed);
        }
        wait_for_the_end(&slow, shared);
        Ok(())
    }

    /// Joins a room of eight SSE clients that never read, and publishes a long message, which the
    /// hub encodes for each of them.
    fn slow_events(server: Address, nth: usize, shared: &Shared) -> io::Result<()> {
        let room = format!("events-{}", nth / 8);
        let slow = server.listen(&room).inspect_err(|_| shared.refuse())?;
        let mut publisher = enter(server, &format!("{room}?echo=0"), shared)?;
        publisher.write_all(&message(&vec![nth as u8; LONG]))?;
        shared.published.fetch_add(LONG, Ordering::Relaxed);
        wait_for_the_end(&slow, shared);
        Ok(())
    }

    /// Sends a long message without its last bytes.
    fn unfinished(server: Address, _: usize, shared: &Shared) -> io::Result<()> {
        let mut stream = enter(server, "unfinished", shared)?;
        stream.write_all(&header(0x82, LONG))?;
        stream.write_all(&vec![7; LONG - 100])?;
        wait_for_the_end(&stream, shared);
        Ok(())
    }

    /// Sends fragments and never a last one.
    fn fragments(server: Address, nth: usize, shared: &Shared) -> io::Result<()> {
        let mut stream = enter(server, "fragments", shared)?;
        stream.write_all(&[&header(0x02, 1)[..], b"x"].concat())?;
        for _ in 0..nth {
            stream.write_all(&[&header(0x00, 1024)[..], &[0; 1024]].concat())?;
        }
        wait_for_the_end(&stream, shared);
        Ok(())
    }

    /// Sends pings and reads no pong.
    fn pings(server: Address, _: usize, shared: &Shared) -> io::Result<()> {
        let mut stream = enter(server, "pings", shared)?;
        let ping = [&header(0x89, 125)[..], &[0; 125]].concat();
        while !shared.over.load(Ordering::Relaxed) {
            stream.write_all(&ping)?;
        }
        Ok(())
    }

    /// Sends a long head without its end.
    fn half_head(server: Address, _: usize, shared: &Shared) -> io::Result<()> {
        let mut stream = server.dial()?;
        stream.write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX: ")?;
        stream.write_all(&[b'x'; 8000])?;
        wait_for_the_end(&stream, shared);
        Ok(())
    }

    /// Connects and leaves, with and without sending bytes, sometimes by a reset.
    fn flood(server: Address, nth: usize, _: &Shared) -> io::Result<()> {
        for turn in 0..20 {
            let mut stream = server.dial()?;
            if (turn + nth) % 2 == 0 {
                stream.write_all(b"GET ")?;
            }
            if turn % 3 == 0 {
                sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Fills memory with clients that do not read. The one that pins the most must be evicted
    /// first.
    fn largest_first(server: &Server) -> Outcome<()> {
        let long = message(&[7; LONG]);
        // Its room has no other member. While memory is short, the hub does not read its messages.
        let mut waiter = server.address.join("empty?echo=0")?;
        let pair = |nth: usize| -> io::Result<(TcpStream, TcpStream)> {
            let room = format!("pinned-{nth}");
            let client = server.address.join(&room)?;
            Ok((client, server.address.join(&format!("{room}?echo=0"))?))
        };
        // A client is not evicted before it has pinned its memory for a tick. The largest one has,
        // and it is not the first that has.
        let mut clients = Vec::new();
        for nth in 0..=LARGEST {
            let (client, mut publisher) = pair(nth)?;
            clients.push(client);
            publish(&mut publisher, &long, if nth == LARGEST { 3 } else { 2 })?;
        }
        thread::sleep(AGED);
        for _ in 0..1000 {
            match pair(clients.len()) {
                Ok((client, mut publisher)) => {
                    clients.push(client);
                    publish(&mut publisher, &long, 2)?;
                }
                // The hub admits no more clients. It evicts one only when another waits for memory.
                Err(error) if error.to_string().starts_with("HTTP/1.1 503 ") => {
                    publish(&mut waiter, &long, 1)?;
                }
                Err(error) => return Err(error.into()),
            }
            let gone = reset(&clients);
            if !gone.is_empty() {
                return went_first(&clients, gone);
            }
        }
        Err("no client was evicted".into())
    }

    /// Checks that the largest client is among `gone`, which were evicted first. Others may have
    /// been evicted with it, if that did not free enough.
    ///
    /// Nothing is published meanwhile, so no other client is evicted.
    fn went_first(clients: &[TcpStream], mut gone: Vec<usize>) -> Outcome<()> {
        let begin = Instant::now();
        // The resets of clients that were evicted together arrive one after another.
        while !gone.contains(&LARGEST) {
            if begin.elapsed() > Duration::from_secs(2) {
                let all = clients.len();
                return Err(
                    format!("of {all} clients, {gone:?} were evicted before the largest").into()
                );
            }
            thread::sleep(SAMPLE);
            gone.append(&mut reset(clients));
        }
        let (all, others) = (clients.len(), gone.len() - 1);
        println!(
            "  the largest of {all:>3} clients was evicted first, with at least {others} others"
        );
        Ok(())
    }

    /// Indices of clients whose connection the server has reset since the last call.
    fn reset(clients: &[TcpStream]) -> Vec<usize> {
        (0..clients.len()).filter(|&n| !matches!(clients[n].take_error(), Ok(None))).collect()
    }

    /// Sends a message `times` times, and waits for a pong, which shows that the hub has read it
    /// all.
    fn publish(stream: &mut TcpStream, message: &[u8], times: usize) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        for _ in 0..times {
            stream.write_all(message)?;
        }
        stream.write_all(&header(0x89, 0))?;
        stream.read_exact(&mut [0; 2])
    }
}
