//! Pipe mode: lines to messages, and messages to lines.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{BINARY, CLOSE, DEADLINE, Folder, Peer, Server, TEXT, hublet, lines, run};

/// Lines of a flood, and their length in bytes: more than the buffers of any socket hold.
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

/// Starts a hub that prints lines to the test. It logs its address on standard error.
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

/// Writes the flood and the end, as fast as the hub reads.
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
fn lines_become_messages_and_the_end_of_input_drains() {
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

#[test]
fn standard_input_may_be_a_file() {
    let folder = Folder::new("pipe-file");
    let path = folder.0.join("lines");
    fs::write(&path, "one\ntwo\n").expect("written");
    let pipe = ["--listen", "127.0.0.1:0", "--stdin", "n", "--stdout", "n"];
    let output = run(hublet(&pipe).stdin(File::open(&path).expect("it exists")));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

#[test]
fn too_long_line_is_refused_and_logged_and_the_next_is_sent() {
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
fn client_that_reads_loses_nothing_of_a_flood() {
    // The queue is short, so that only the pauses of the input save the client.
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
fn input_waits_once_for_a_client_that_does_not_read_and_then_it_is_evicted() {
    let timeout = Duration::from_millis(500);
    let (mut server, stdin, address) = start(&["--queue", "8", "--write-timeout", "500ms"]);
    let mut deaf = Peer::<TcpStream>::dial_narrow(&address).join("/ws/n");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n");
    let begin = Instant::now();
    let flood = flood(stdin);
    hears_flood(&mut peer);
    assert!(begin.elapsed() >= timeout, "the input did not wait for the client");
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
    // A message from before the drain is printed before the end.
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
fn pipe_gets_an_echo_if_clients_do() {
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
fn closed_standard_output_ends_the_hub_quietly() {
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
fn printing_resumes_when_standard_output_is_read_again() {
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--stdout", "n", "--queue", "4"]);
    let (reader, writer) = UnixStream::pair().expect("a pair");
    let mut server = Server::spawn(command.stdout(OwnedFd::from(writer)).stderr(Stdio::piped()));
    // The command holds a copy of the writing end.
    drop(command);
    let address = address(&mut server);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    let big = "x".repeat(60_000);
    // The stream holds about 200 KiB, the hub 256 KiB more and the queue 4 messages.
    for _ in 0..20 {
        peer.say(&big);
    }
    // The answer comes when all that it said before has been dispatched.
    peer.send(CLOSE, &1000u16.to_be_bytes());
    peer.is_closed(1000);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/n?echo=0");
    let stdout = lines(Some(reader));
    // It joins again once all is written, and then gets new messages.
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
    let logged = server.logged("standard output is");
    assert!(logged.starts_with("ERROR standard output is too slow: missed "), "{logged}");
}

/// A hub whose standard output is not read: its thread blocks in a write, and more lines wait in
/// the buffer and in the queue.
struct Unread {
    server: Server,
    /// The other end, which stays open.
    reader: UnixStream,
}

/// Lines of [`FLOOD_LINE`] that make a hub [`Unread`]: the stream holds about 200 KiB, the hub's
/// buffer up to 640 KiB, and the queue the rest.
const UNREAD: usize = 1_100;

impl Unread {
    /// Starts a hub that prints [`UNREAD`] lines from its standard input.
    fn by_input(flags: &[&str]) -> Self {
        // The input waits only when half of this is queued.
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

    /// Starts a hub that gets three times as much to print as it can hold, from a client.
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
fn shutdown_ends_in_time_if_standard_output_is_not_read() {
    // As in deploy/README.md: the window, 2 s and the close timeout.
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
fn second_signal_stops_at_once_if_standard_output_is_not_read() {
    let Unread { mut server, reader: _reader } = Unread::by_input(&["--drain", "1m"]);
    server.signal(Signal::TERM);
    server.logged("shutting down");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    server.logged("stopped at once by a second signal");
}

#[test]
fn lines_queued_before_a_shutdown_are_printed_once_they_are_read() {
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
