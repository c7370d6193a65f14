//! Pipe mode: lines in, lines out.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{BINARY, CLOSE, DEADLINE, Folder, Peer, Server, TEXT, hublet, lines, run};

/// Lines of a flood, and their length: more than the buffers of any socket hold.
const FLOOD: usize = 10_000;
const FLOOD_LINE: usize = 1_000;

/// Starts a hub that reads lines from the test.
fn start(flags: &[&str]) -> (Server, ChildStdin, String) {
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdin", "n"]);
    let mut server = Server::of(command.args(flags).stdin(Stdio::piped()));
    let address = server.listening();
    let stdin = server.child.stdin.take().expect("piped");
    (server, stdin, address)
}

/// Starts a hub whose lines go to the test; standard error says where it listens.
fn start_printing(flags: &[&str]) -> (Server, String) {
    let mut server = Server::of(hublet(&["--listen", "127.0.0.1:0", "--stdout", "n"]).args(flags));
    let address = address(&mut server);
    (server, address)
}

fn address(server: &mut Server) -> String {
    let line = server.logged("listening on ");
    line.strip_prefix("listening on ").expect(&line).to_owned()
}

fn prints(server: &Server, line: &str) {
    assert_eq!(server.stdout.recv_timeout(DEADLINE).as_deref(), Ok(line));
}

fn flood_line(nth: usize) -> String {
    format!("{nth:0FLOOD_LINE$}")
}

/// Writes the flood to the end, as fast as it is taken.
fn flood(mut stdin: ChildStdin) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for nth in 0..FLOOD {
            writeln!(stdin, "{}", flood_line(nth)).expect("it reads");
        }
    })
}

fn hears_flood(peer: &mut Peer<TcpStream>) {
    for nth in 0..FLOOD {
        peer.hears(&flood_line(nth));
    }
}

#[test]
fn lines_become_messages_and_their_end_a_drain() {
    let (mut server, mut stdin, address) = start(&[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n");
    stdin.write_all(b"one\n\ntwo\r\n\xff\nlast").expect("it reads");
    drop(stdin);
    for (kind, payload) in [(TEXT, &b"one"[..]), (TEXT, b""), (TEXT, b"two"), (BINARY, b"\xff")] {
        assert_eq!(peer.receive(), (kind, payload.to_vec()));
    }
    peer.hears("last");
    peer.is_closed(1001);
    peer.goodbye(1001);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_line_is_published_when_it_is_complete() {
    let (_server, mut stdin, address) = start(&[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n");
    for line in ["first", "second"] {
        writeln!(stdin, "{line}").expect("it reads");
        peer.hears(line);
    }
}

/// As when node, ssh or a terminal multiplexer shares the stream.
#[test]
fn streams_that_do_not_block_are_waited_for() {
    let (input, input_of_hub) = UnixStream::pair().expect("a pair");
    let (output, output_of_hub) = UnixStream::pair().expect("a pair");
    let flags = ["--listen", "127.0.0.1:0", "--stdin", "n", "--stdout", "n"];
    let mut command = hublet(&flags);
    for stream in [&input_of_hub, &output_of_hub] {
        stream.set_nonblocking(true).expect("set");
    }
    command.stdin(OwnedFd::from(input_of_hub)).stdout(OwnedFd::from(output_of_hub));
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    // It holds copies of the streams, and the end of one shall be the hub's.
    drop(command);
    address(&mut server);
    // The hub has read nothing so far, and writes more than the socket takes.
    let flood = std::thread::spawn(move || {
        for nth in 0..FLOOD {
            writeln!(&input, "{}", flood_line(nth)).expect("it reads");
        }
    });
    let printed = lines(Some(output));
    for nth in 0..FLOOD {
        assert_eq!(printed.recv_timeout(DEADLINE), Ok(flood_line(nth)));
    }
    flood.join().expect("all was read");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_file_is_read_as_a_pipe_is() {
    let folder = Folder::new("pipe-file");
    let path = folder.0.join("lines");
    fs::write(&path, "one\ntwo\n").expect("written");
    let pipe = ["--listen", "127.0.0.1:0", "--stdin", "n", "--stdout", "n"];
    let output = run(hublet(&pipe).stdin(File::open(&path).expect("it exists")));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

#[test]
fn a_line_that_is_too_long_is_refused_and_told_and_the_next_is_sent() {
    let (mut server, mut stdin, address) = start(&["--max-message", "1k"]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n");
    let longest = "x".repeat(1024);
    let too_long = "y".repeat(100_000);
    write!(stdin, "{longest}\r\n{longest}z\n{too_long}\nshort\n").expect("it reads");
    peer.hears(&longest);
    peer.hears("short");
    for (line, bytes) in [(2, 1025), (3, 100_000)] {
        let refused = server.logged("was not sent");
        let expected = format!(
            "ERROR line {line} of standard input was not sent: it has {bytes} bytes, \
             --max-message allows 1024"
        );
        assert_eq!(refused, expected);
    }
}

#[test]
fn a_client_that_reads_loses_nothing_of_a_flood() {
    // A short queue, so that it is the pause that saves it and not the queue.
    for flags in [&["--queue", "8"][..], &["--max-message", "2k", "--queue-bytes", "3k"]] {
        let (mut server, stdin, address) = start(flags);
        let mut peer = Peer::<TcpStream>::dial_narrow(&address).join("/ws/n");
        let mut other = Peer::<TcpStream>::connect(&address, "/ws/n");
        let flood = flood(stdin);
        let reader = std::thread::spawn(move || {
            hears_flood(&mut other);
            other.is_closed(1001);
            other.goodbye(1001);
        });
        hears_flood(&mut peer);
        peer.is_closed(1001);
        peer.goodbye(1001);
        reader.join().expect("the other reads as well");
        flood.join().expect("all is taken");
        assert_eq!(server.exit_code(), Some(0), "{flags:?}");
    }
}

#[test]
fn who_does_not_read_is_waited_for_once_and_then_evicted() {
    let timeout = Duration::from_millis(500);
    let (mut server, stdin, address) = start(&["--queue", "8", "--write-timeout", "500ms"]);
    let mut deaf = Peer::<TcpStream>::dial_narrow(&address).join("/ws/n");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n");
    let begin = Instant::now();
    let flood = flood(stdin);
    hears_flood(&mut peer);
    assert!(begin.elapsed() >= timeout, "nobody waited for who did not read");
    server.logged("(4108");
    peer.is_closed(1001);
    peer.goodbye(1001);
    flood.join().expect("all is taken");
    assert_eq!(server.exit_code(), Some(0));
    deaf.is_gone();
}

#[test]
fn messages_become_lines_one_each() {
    let (mut server, address) = start_printing(&[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    let mut elsewhere = Peer::<TcpStream>::connect(&address, "/ws/elsewhere");
    elsewhere.say("not here");
    elsewhere.hears("not here");
    peer.say("one");
    peer.say("two\r\nlines\n");
    peer.send(BINARY, b"\x00\n\xff");
    peer.say("last");
    for line in ["one", "two  lines", "AAr/", "last"] {
        prints(&server, line);
    }
    // What is said before the drain is printed before the end.
    peer.say("last words");
    prints(&server, "last words");
    server.signal(Signal::TERM);
    peer.is_closed(1012);
    peer.goodbye(1012);
    drop(elsewhere);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(server.stdout.iter().next(), None);
}

#[test]
fn the_pipe_hears_itself_as_clients_do() {
    for (flags, line) in [(&[][..], Some("mine")), (&["--no-echo"], None)] {
        let (mut server, mut stdin, address) = {
            let pipe = ["--listen", "127.0.0.1:0", "--stdin", "n", "--stdout", "n"];
            let mut server = Server::of(hublet(&pipe).args(flags).stdin(Stdio::piped()));
            let address = address(&mut server);
            let stdin = server.child.stdin.take().expect("piped");
            (server, stdin, address)
        };
        let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
        writeln!(stdin, "mine").expect("it reads");
        peer.hears("mine");
        peer.say("theirs");
        for line in line.into_iter().chain(["theirs"]) {
            prints(&server, line);
        }
        drop(stdin);
        peer.is_closed(1001);
        peer.goodbye(1001);
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn a_flood_is_printed_whole() {
    let pipe = ["--listen", "127.0.0.1:0", "--stdin", "n", "--stdout", "n"];
    let mut server = Server::of(hublet(&pipe).stdin(Stdio::piped()));
    let flood = flood(server.child.stdin.take().expect("piped"));
    for nth in 0..FLOOD {
        prints(&server, &flood_line(nth));
    }
    flood.join().expect("all is taken");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn nobody_reading_standard_output_ends_it_quietly() {
    let (mut server, address) = start_closed(&[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    peer.say("into nothing");
    peer.is_closed(1001);
    peer.goodbye(1001);
    assert_eq!(server.exit_code(), Some(0));
    let loud: Vec<_> = server.stderr.iter().filter(|line| !line.starts_with("INFO")).collect();
    assert_eq!(loud, Vec::<String>::new());
}

/// Starts a hub that prints to a stream whose other end is closed.
fn start_closed(flags: &[&str]) -> (Server, String) {
    let (reader, writer) = UnixStream::pair().expect("a pair");
    drop(reader);
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdout", "n"]);
    command.args(flags).stdout(OwnedFd::from(writer)).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let address = address(&mut server);
    (server, address)
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_drains_and_fails() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdout", "n"]);
    let mut server = Server::spawn(command.stdout(full).stderr(Stdio::piped()));
    let address = address(&mut server);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    peer.say("too much");
    peer.is_closed(1001);
    peer.goodbye(1001);
    assert_eq!(server.exit_code(), Some(1));
    server.logged("hublet: standard output failed: ");
}

#[test]
fn a_folder_is_no_input() {
    let pipe = ["--listen", "127.0.0.1:0", "--stdin", "n"];
    let output = run(hublet(&pipe).stdin(File::open("/").expect("it exists")));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("hublet: standard input failed: "), "{stderr}");
}

#[test]
fn standard_output_that_was_not_read_for_a_while_goes_on_when_it_is() {
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdout", "n", "--queue", "4"]);
    let (reader, writer) = UnixStream::pair().expect("a pair");
    let mut server = Server::spawn(command.stdout(OwnedFd::from(writer)).stderr(Stdio::piped()));
    // It holds a copy of the writing end.
    drop(command);
    let address = address(&mut server);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    let big = "x".repeat(60_000);
    // The stream holds about 200 KiB, the hub 256 KiB more and what waits in a queue of 4.
    for _ in 0..20 {
        peer.say(&big);
    }
    // The answer comes when all that it said before has been dispatched.
    peer.send(CLOSE, &1000u16.to_be_bytes());
    peer.is_closed(1000);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    let stdout = lines(Some(reader));
    // It joins again once all is written, and hears what is said from then on.
    let end = Instant::now() + DEADLINE;
    let mut seen = 0;
    loop {
        assert!(Instant::now() < end, "it does not join again");
        peer.say("again");
        match stdout.recv_timeout(Duration::from_millis(20)) {
            Ok(line) if line == "again" => break,
            Ok(line) => {
                assert_eq!(line, big);
                seen += 1;
            }
            Err(_) => {}
        }
    }
    assert!((1..20).contains(&seen), "{seen} of 20 were printed");
    let told = server.logged("standard output is");
    assert!(told.starts_with("ERROR standard output is too slow: missed "), "{told}");
}

/// A hub whose standard output nobody reads: stuck in a write, with more handed over and more than
/// that queued.
struct Unread {
    server: Server,
    /// The other end, which stays open.
    reader: UnixStream,
}

/// Lines of [`FLOOD_LINE`] that are printed before a hub is [`Unread`]: a stream holds about 200 KiB,
/// the hub up to 640 KiB on their way to it, and the rest is queued.
const UNREAD: usize = 1_100;

impl Unread {
    /// Starts one that has printed [`UNREAD`] lines from its standard input.
    fn by_input(flags: &[&str]) -> Self {
        // The reader of standard input waits only when half of this is queued.
        let roomy = ["--stdin", "n", "--queue", "100000", "--queue-bytes", "4m"];
        let (mut unread, address) = Self::start(&[&roomy[..], flags].concat());
        let mut witness = Peer::<TcpStream>::connect(&address, "/ws/n");
        let stdin = unread.server.child.stdin.as_mut().expect("piped");
        for nth in 0..UNREAD {
            writeln!(stdin, "{}", flood_line(nth)).expect("it reads");
        }
        for nth in 0..UNREAD {
            witness.hears(&flood_line(nth));
        }
        unread
    }

    /// Starts one that was to print three times as much as it can hold, from a client.
    fn by_client(flags: &[&str]) -> Self {
        let (unread, address) = Self::start(flags);
        let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
        for nth in 0..3 * UNREAD {
            peer.say(&flood_line(nth));
        }
        // The answer comes when all that it said before has been dispatched.
        peer.send(CLOSE, &1000u16.to_be_bytes());
        peer.is_closed(1000);
        peer.goodbye(1000);
        unread
    }

    fn start(flags: &[&str]) -> (Self, String) {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdout", "n"]);
        command.args(flags).stdin(Stdio::piped()).stdout(OwnedFd::from(writer));
        let mut server = Server::spawn(command.stderr(Stdio::piped()));
        let address = address(&mut server);
        (Self { server, reader }, address)
    }
}

#[test]
fn a_stop_ends_in_time_though_nobody_reads_standard_output() {
    // What deploy/README.md says of it: the window, 2 s and the close timeout.
    let quick = ["--drain", "200ms", "--close-timeout", "100ms"];
    let bound = Duration::from_millis(200 + 2_000 + 100);
    let dropping = ["--overflow", "drop-oldest"];
    let mut stuck = [
        Unread::by_input(&quick),
        Unread::by_client(&quick),
        Unread::by_client(&[&quick[..], &dropping].concat()),
    ];
    let begin = Instant::now();
    for Unread { server, .. } in &stuck {
        server.signal(Signal::TERM);
    }
    for Unread { server, .. } in &mut stuck {
        assert_eq!(server.exit_code(), Some(0));
        let took = begin.elapsed();
        assert!(took < bound + Duration::from_secs(3), "it took {took:?}");
        server.logged("WARN standard output is not read, its last lines are lost");
    }
}

#[test]
fn a_second_signal_stops_at_once_though_nobody_reads_standard_output() {
    let Unread { mut server, reader: _reader } = Unread::by_input(&["--drain", "1m"]);
    server.signal(Signal::TERM);
    server.logged("shutting down");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    server.logged("stopped at once by a second signal");
}

#[test]
fn what_was_queued_when_a_stop_began_is_printed_once_it_is_read() {
    let Unread { mut server, reader } = Unread::by_input(&[]);
    server.signal(Signal::TERM);
    server.logged("shutting down");
    let stdout = lines(Some(reader));
    for nth in 0..UNREAD {
        assert_eq!(stdout.recv_timeout(DEADLINE), Ok(flood_line(nth)));
    }
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(stdout.iter().next(), None);
}
