//! Restarts that clients do not notice: the process becomes the binary that lies at its path.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::peer::frame;
use crate::support::{DEADLINE, Folder, HUBLET, KEY, Peer, Server, TEXT, alone, number, sign};

/// What the log says of a restart that has worked, and of one that has not.
pub(crate) const DONE: &str = "restarted as";
const NOT_DONE: &str = "not restarted: ";

/// A copy of the binary, at a path that a test may change.
pub(crate) fn copy(folder: &Folder) -> PathBuf {
    let path = folder.0.join("hublet");
    fs::copy(HUBLET, &path).expect("copied");
    path
}

/// Starts a program on a free port; returns it and its address.
pub(crate) fn start(path: &Path, flags: &[&str]) -> (Server, String) {
    let mut command = alone(path);
    let mut server = Server::of(command.args(["--listen", "127.0.0.1:0"]).args(flags));
    let address = server.listening();
    (server, address)
}

impl Server {
    /// Restarts, and waits until that is done.
    pub(crate) fn restart(&mut self) {
        self.signal(Signal::USR2);
        self.logged(DONE);
    }

    /// Tries to restart; returns why that was not done.
    pub(crate) fn fail_to_restart(&mut self) -> String {
        self.signal(Signal::USR2);
        let line = self.logged("restarted");
        let why = line.split_once(NOT_DONE);
        why.unwrap_or_else(|| panic!("{line}")).1.to_owned()
    }
}

/// A reader of server-sent events.
pub(crate) fn events(address: &str, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    BufReader::new(stream)
}

/// Reads up to a line that begins with this; returns what follows in that line.
pub(crate) fn hears(events: &mut BufReader<TcpStream>, begin: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        let read = events.read_line(&mut line).expect("a line in time");
        assert!(read > 0, "the stream ended before {begin}");
        if let Some(rest) = line.strip_prefix(begin) {
            return rest.trim_end().to_owned();
        }
    }
}

/// Sends a request on a connection that stays; returns the body of the answer.
fn ask(peer: &mut Peer<TcpStream>, request: &str) -> String {
    let response = peer.request(request);
    assert!([200, 202].contains(&response.status), "{response:?}");
    peer.body_text(&response)
}

/// A request that publishes to a room.
fn post(room: &str, text: &str) -> String {
    let length = text.len();
    format!(
        "POST /pub/{room} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{text}"
    )
}

/// Takes the position out of what is said of a room.
fn split_position(said: &str) -> (String, u64) {
    let name = "\"position\":";
    let position = number(said, name).unwrap_or_else(|| panic!("{said}"));
    (said.replace(&format!("{name}{position}"), ""), position)
}

const ROOMS: &str = "GET /rooms/news HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn clients_go_on_in_the_new_program() {
    let folder = Folder::new("restart");
    let (path, unix) = folder.socket();
    let (mut server, address) = start(HUBLET.as_ref(), &["--listen", &unix]);
    server.listening();
    let mut ada = Peer::<TcpStream>::connect(&address, "/ws/news");
    let mut bob = Peer::<TcpStream>::connect(&address, "/ws/news?echo=0");
    let mut near = Peer::<UnixStream>::dial(&path).join("/ws/news?echo=0");
    let mut reader = events(&address, "/sse/news");
    hears(&mut reader, ":");
    let mut posts = Peer::<TcpStream>::dial(&address);
    let mut silent = Peer::<TcpStream>::dial(&address);
    let pid = server.child.id();
    let before = ask(&mut posts, ROOMS);
    let (before, position) = split_position(&before);
    for nth in 0..3 {
        server.restart();
        let (now, at) = split_position(&ask(&mut posts, ROOMS));
        assert_eq!(now, before, "ids, users and the time of their coming");
        assert_eq!(at, position + 4 * nth, "the count goes on");
        let answer = format!("{{\"recipients\":4,\"position\":{}}}\n", at + 1);
        assert_eq!(ask(&mut posts, &post("news", "post")), answer);
        ada.hears("post");
        bob.hears("post");
        near.hears("post");
        hears(&mut reader, "data: post");
        ada.say("from ada");
        ada.hears("from ada");
        bob.hears("from ada");
        near.hears("from ada");
        bob.say("from bob");
        ada.hears("from bob");
        near.hears("from bob");
        hears(&mut reader, "data: from bob");
        near.say("near");
        ada.hears("near");
        bob.hears("near");
        let mut new = Peer::<TcpStream>::connect(&address, "/ws/other");
        new.say("new");
        new.hears("new");
        drop(new);
        let metrics = ask(&mut posts, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let dispatched = format!("hublet_messages_dispatched_total {}\n", 5 * (nth + 1));
        assert!(metrics.contains(&dispatched), "the counters go on: {metrics}");
    }
    // Nothing was read of this connection before the restarts.
    assert_eq!(split_position(&ask(&mut silent, ROOMS)).0, before);
    assert_eq!(server.child.id(), pid);
    assert!(server.child.try_wait().expect("asked").is_none(), "it is the same process");
    drop((ada, bob, near, reader, posts, silent));
    assert_eq!(server.stop(), Some(0));
    assert!(!path.exists(), "the new program removes the file of its socket");
}

/// What is cut in the middle stays behind, and no other client waits for it for long.
#[test]
fn a_client_that_is_not_clean_is_closed_with_1012() {
    let (mut server, address) = start(HUBLET.as_ref(), &["--queue-bytes", "8m"]);
    let mut whole = Peer::<TcpStream>::connect(&address, "/ws");
    let mut cut = Peer::<TcpStream>::connect(&address, "/ws");
    let stuck = Peer::<TcpStream>::dial_narrow(&address).join("/ws?echo=0");
    let begun = frame(TEXT, b"never finished");
    cut.write(&begun[..9]);
    let long = "x".repeat(60_000);
    let mut speaker = Peer::<TcpStream>::connect(&address, "/ws?echo=0");
    for _ in 0..40 {
        speaker.say(&long);
        whole.hears(&long);
    }
    let begin = Instant::now();
    server.signal(Signal::USR2);
    server.logged("2 clients cannot go along: closed with 1012");
    server.logged(DONE);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for _ in 0..40 {
        cut.hears(&long);
    }
    cut.is_closed(1012);
    whole.say("still here");
    whole.hears("still here");
    speaker.hears("still here");
    drop((whole, cut, stuck, speaker));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_token_keeps_its_rights_and_its_end() {
    let secret = format!("--jwt-secret={KEY}");
    let (mut server, address) = start(HUBLET.as_ref(), &[&secret]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = now.expect("after 1970").as_secs() + 4;
    let token = sign(&format!(r#"{{"sub":"ada","publish":["a"],"exp":{end}}}"#));
    let reader = sign(r#"{"sub":"bob"}"#);
    let mut ada = Peer::<TcpStream>::connect(&address, &format!("/ws/a?token={token}"));
    let mut bob = Peer::<TcpStream>::connect(&address, &format!("/ws/a?token={reader}"));
    server.restart();
    ada.say("mine");
    ada.hears("mine");
    bob.hears("mine");
    ada.is_closed(1008);
    bob.say("not allowed");
    bob.is_closed(1008);
    drop((ada, bob));
    assert_eq!(server.stop(), Some(0));
}

/// Puts another program at a path.
fn replace(path: &Path, script: &str) {
    let new = path.with_extension("new");
    let mut file = File::create(&new).expect("made");
    file.write_all(script.as_bytes()).expect("written");
    file.set_permissions(fs::Permissions::from_mode(0o755)).expect("set");
    drop(file);
    fs::rename(&new, path).expect("replaced");
}

/// The new program asks for another restart, says yes, and is gone when it should run.
#[test]
fn a_signal_during_a_restart_that_fails_counts_once() {
    let folder = Folder::new("restart-once");
    let path = copy(&folder);
    let (mut server, address) = start(&path, &[]);
    replace(&path, "#!/bin/sh\nkill -USR2 $PPID\nrm -f \"$0\"\nexit 0\n");
    server.signal(Signal::USR2);
    server.logged("cannot be executed");
    server.logged("cannot be started");
    // A third attempt would begin before this is served.
    drop(Peer::<TcpStream>::connect(&address, "/ws"));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let rest: Vec<_> = server.stderr.iter().filter(|line| line.contains("not restarted")).collect();
    assert_eq!(rest.len(), 0, "{rest:?}");
}

#[test]
fn a_failure_leaves_the_old_program_serving() {
    let folder = Folder::new("restart-fails");
    let path = copy(&folder);
    let (mut server, address) = start(&path, &[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    let mut served = |server: &mut Server, expected: &str| {
        let why = server.fail_to_restart();
        assert!(why.contains(expected), "{why}");
        peer.say("hello");
        peer.hears("hello");
        drop(Peer::<TcpStream>::connect(&address, "/ws"));
    };
    let replace = |script: &str| replace(&path, script);
    replace("#!/bin/sh\necho 'hublet: unknown flag --takes; see --help' >&2; exit 2\n");
    served(&mut server, "the new binary says: hublet: unknown flag --takes");
    replace("#!/bin/sh\nexec sleep 60\n");
    served(&mut server, "does not answer within 2 s");
    replace("not a program");
    served(&mut server, "cannot be started");
    // It says yes, and is gone when it should run.
    replace("#!/bin/sh\nrm -f \"$0\"\nexit 0\n");
    served(&mut server, "cannot be executed");
    served(&mut server, "cannot be started");
    fs::copy(HUBLET, folder.0.join("new")).expect("copied");
    fs::rename(folder.0.join("new"), &path).expect("replaced");
    server.restart();
    peer.say("after all");
    peer.hears("after all");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_hangup_restarts_where_no_stream_is_a_terminal() {
    let (mut server, address) = start(HUBLET.as_ref(), &[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::HUP);
    server.logged(DONE);
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

/// The second signal is caught by the old program, before that becomes the new one, or by the new one.
#[test]
fn a_restart_that_is_asked_for_during_a_restart_follows_it() {
    let (mut server, address) = start(HUBLET.as_ref(), &[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    for _ in 0..3 {
        server.signal(Signal::USR2);
        server.logged("restarting: ");
        server.restart();
        server.logged(DONE);
    }
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_program_that_was_started_under_another_name_does_not_restart() {
    let mut command = alone("bash");
    let script = "exec -a /nowhere/hub \"$0\" \"$@\"";
    let mut server = Server::of(command.args(["-c", script, HUBLET, "--listen", "127.0.0.1:0"]));
    server.listening();
    let why = server.fail_to_restart();
    assert!(why.contains("/nowhere/hub is no file"), "{why}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_program_is_found_by_its_path_and_in_path() {
    let folder = Folder::new("restart-path");
    copy(&folder);
    for (name, search) in [("./hublet", "/nowhere"), ("hublet", folder.0.to_str().expect("text"))] {
        let mut command = alone("/bin/sh");
        command.env("PATH", search).current_dir(&folder.0);
        let script = format!("exec {name} --listen 127.0.0.1:0");
        let mut server = Server::of(command.args(["-c", &script]));
        server.listening();
        server.restart();
        assert_eq!(server.stop(), Some(0), "{name}");
    }
}

/// Lines that were read or not yet written when the restart began are neither lost nor doubled.
#[test]
fn pipes_go_on() {
    let mut command = alone(HUBLET);
    let flags = ["--listen", "127.0.0.1:0", "--stdin", "a", "--stdout", "a"];
    command.args(flags).stdin(Stdio::piped());
    let mut server = Server::of(&mut command);
    let mut stdin = server.child.stdin.take().expect("piped");
    server.logged("listening on");
    let writer = thread::spawn(move || {
        for nth in 0..20_000 {
            writeln!(stdin, "line {nth}").expect("it reads");
        }
        stdin.write_all(b"half a line").expect("it reads");
        stdin
    });
    for nth in 0..20_000 {
        let line = server.stdout.recv_timeout(DEADLINE).expect("a line in time");
        assert_eq!(line, format!("line {nth}"));
        if nth % 4_000 == 100 {
            server.restart();
        }
    }
    let mut stdin = writer.join().expect("all was read");
    server.restart();
    writeln!(stdin, " and the rest").expect("it reads");
    let line = server.stdout.recv_timeout(DEADLINE).expect("a line in time");
    assert_eq!(line, "half a line and the rest");
    drop(stdin);
    assert_eq!(server.exit_code(), Some(0), "at the end of its input it drains");
    let is_wrong = |line: &&String| line.contains("1012") || line.contains("1 clients");
    let rest: Vec<_> = server.stderr.iter().collect();
    let wrong: Vec<_> = server.log.iter().chain(&rest).filter(is_wrong).collect();
    assert_eq!(wrong.len(), 0, "standard output is no client that cannot go along: {wrong:?}");
}

/// Hears numbers in order, each once, up to the end: as a WebSocket or as a reader of events. Returns
/// how many they were, and the longest silence between two.
fn listen(address: &str, is_events: bool) -> JoinHandle<(usize, Duration)> {
    let mut next: Box<dyn FnMut() -> String + Send> = if is_events {
        let mut reader = events(address, "/sse/load");
        hears(&mut reader, ":");
        Box::new(move || hears(&mut reader, "data: "))
    } else {
        let mut peer = Peer::<TcpStream>::connect(address, "/ws/load");
        Box::new(move || String::from_utf8(peer.receive().1).expect("text"))
    };
    thread::spawn(move || {
        let (mut heard, mut silence) = (0, Duration::ZERO);
        loop {
            let begin = Instant::now();
            let text = next();
            silence = silence.max(begin.elapsed());
            if text == "end" {
                return (heard, silence);
            }
            assert_eq!(text, heard.to_string(), "in order, each once");
            heard += 1;
        }
    })
}

/// Publishes numbers, by POST and by a WebSocket in turns, and then the end. Tells after each 40 of
/// them. Returns how many they were.
fn speak(address: &str, is_over: &AtomicBool, tell: &Sender<()>) -> usize {
    let mut peer = Peer::<TcpStream>::connect(address, "/ws/load");
    let mut posts = Peer::<TcpStream>::dial(address);
    let mut said = 0;
    while !is_over.load(Ordering::Relaxed) {
        let text = said.to_string();
        if said % 2 == 0 {
            ask(&mut posts, &post("load", &text));
        } else {
            peer.say(&text);
        }
        // The next one goes another way, so it waits until this has come back.
        peer.hears(&text);
        said += 1;
        if said % 40 == 0 {
            // The test may have all that it needs.
            let _ = tell.send(());
        }
        thread::yield_now();
    }
    ask(&mut posts, &post("load", "end"));
    said
}

/// Invariant 15: while messages come from all sides and restarts follow each other, each client hears
/// all of them in order, once.
#[test]
fn nothing_is_lost_under_load() {
    const READERS: usize = 20;
    const RESTARTS: usize = 5;
    for flags in [&[][..], &["--threads", "2"], &["--max-memory", "64m"]] {
        let (mut server, address) = start(HUBLET.as_ref(), flags);
        let readers: Vec<_> = (0..READERS).map(|nth| listen(&address, nth % 2 == 1)).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let (tell, progress) = channel();
        let sender = {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || speak(&address, &is_over, &tell))
        };
        for _ in 0..RESTARTS {
            // Some messages after the last restart.
            while progress.try_recv().is_ok() {}
            progress.recv_timeout(DEADLINE).expect("messages come");
            server.restart();
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("nothing was refused");
        for reader in readers {
            let (heard, silence) = reader.join().expect("no stream was closed");
            assert_eq!(heard, sent);
            assert!(silence < DEADLINE, "{silence:?}");
        }
        println!("{flags:?}: {sent} messages over {RESTARTS} restarts");
        assert_eq!(server.stop(), Some(0));
    }
}
