//! The log on standard error, and standard streams that take nothing.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::mpsc::RecvTimeoutError;

use rustix::process::Signal;

use crate::support::{CLOSE, DEADLINE, Folder, Peer, Server, hublet};

#[test]
fn joins_and_leaves_are_logged_with_the_number_of_clients() {
    let (mut server, address) = Server::start(&[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/a%20b");
    let joined = server.logged("joined");
    let from = peer.stream().local_addr().expect("connected");
    assert_eq!(joined, format!("INFO client 0-0 joined room \"a b\" from {from}, 1 connected"));
    peer.send(CLOSE, &1000u16.to_be_bytes());
    assert_eq!(server.logged("left"), "INFO client 0-0 left room \"a b\" (1000), 0 connected");
}

#[test]
fn storm_of_joins_and_leaves_is_summarised_and_all_are_counted() {
    const CLIENTS: u32 = 40;
    let (mut server, address) = Server::start(&["--threads", "2"]);
    let peers: Vec<_> = (0..CLIENTS).map(|_| Peer::<TcpStream>::connect(&address, "/ws")).collect();
    let mut events = Events::default();
    while events.joined < CLIENTS {
        let line = server.logged("connected");
        events.count(&line);
    }
    drop(peers);
    server.signal(Signal::TERM);
    // The last clients leave in the second in which the process ends.
    assert_eq!(server.exit_code(), Some(0));
    server.stderr.try_iter().for_each(|line| events.count(&line));
    assert_eq!((events.joined, events.left), (CLIENTS, CLIENTS));
    assert!(events.lines < CLIENTS, "{} lines", events.lines);
}

/// Joins and leaves in the log, and their lines.
#[derive(Default)]
struct Events {
    joined: u32,
    left: u32,
    lines: u32,
}

impl Events {
    fn count(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["INFO", "client", _, "joined", ..] => self.joined += 1,
            ["INFO", "client", _, "left", ..] => self.left += 1,
            ["INFO", joined, "more", "joined", "and", left, "more", "left,", ..] => {
                self.joined += joined.parse::<u32>().expect(line);
                self.left += left.parse::<u32>().expect(line);
            }
            _ => return,
        }
        self.lines += 1;
    }
}

#[test]
fn unread_log_does_not_stop_the_hub() {
    let (stderr, reader) = UnixStream::pair().expect("a pair");
    fill(&stderr);
    let mut command = hublet(&["--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(OwnedFd::from(stderr));
    let mut server = Server::spawn(&mut command);
    // The command holds a copy of the stream. Only the server must hold one.
    drop(command);
    let address = server.listening();
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    server.signal(Signal::TERM);
    // Standard output ends with the process.
    assert_eq!(server.stdout.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(server.child.wait().expect("its end").code(), Some(0));
    drop(reader);
}

/// Writes to a stream until it takes no more.
fn fill(mut stream: &UnixStream) {
    stream.set_nonblocking(true).expect("set");
    let full = loop {
        if let Err(error) = stream.write(&[b'x'; 1024]) {
            break error.kind();
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("set");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_does_not_stop_the_hub() {
    let folder = Folder::new("full");
    let (path, address) = folder.socket();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = hublet(&["--listen", &address]);
    command.stdout(full()).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let warning = server.logged("WARN");
    assert!(warning.starts_with("WARN standard output failed"), "{warning}");
    let mut peer = Peer::<UnixStream>::connect(&path);
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn log_lines_beyond_the_limit_are_counted_and_left_out() {
    const REQUESTS: usize = 400;
    let (mut server, address) = Server::start(&["--log", "debug"]);
    for _ in 0..REQUESTS {
        assert_eq!(Peer::<TcpStream>::ask(&address, "/nowhere").1, 404);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let (mut written, mut left_out) = (0, 0);
    for line in server.stderr.try_iter() {
        match line.strip_prefix("DEBUG ").and_then(|rest| rest.strip_suffix(" were left out")) {
            Some(rest) => {
                left_out += rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            }
            None => written += usize::from(line.starts_with("DEBUG ")),
        }
    }
    assert!(written + left_out >= REQUESTS, "{written} written, {left_out} left out");
    assert!(left_out > 0 && written < REQUESTS, "{written} written, {left_out} left out");
}
