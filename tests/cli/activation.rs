//! Sockets that are handed over, and what a supervisor is told.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::peer::upgrade;
use crate::support::{DEADLINE, Folder, HUBLET, Peer, Server, alone, hublet, hublet_by, run};
use crate::tools::{program, tool};

/// The binary with a socket handed over as its descriptor 3, as systemd does it.
fn handed(socket: impl Into<OwnedFd>, flags: &[&str]) -> Command {
    // The shell takes the socket as its standard input, and `$$` outlives the `exec`.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut command = hublet_by(script, flags);
    command.stdin(Stdio::from(socket.into())).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_socket_that_is_handed_over_takes_the_place_of_the_default() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut server = Server::spawn(&mut handed(listener, &[]));
    assert_eq!(server.listening(), address);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
    // A second line would have said that it listens at the default as well.
}

/// Who was there before the hub has inherited nothing from its listener: neither the small buffers
/// of a ceiling nor the deadline for what nobody acknowledges.
#[cfg(target_os = "linux")]
#[test]
fn who_waits_for_the_hub_is_held_to_the_ceiling_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut early = Peer::<TcpStream>::dial_narrow(&address);
    early.write(upgrade("/ws").as_bytes());
    let mut server = Server::spawn(&mut handed(listener, &["--max-memory", "16m"]));
    server.listening();
    assert_eq!(early.response().status, 101);
    let mut late = Peer::<TcpStream>::connect(&address, "/ws?echo=0");
    // A queue of 256 KiB, and not the megabytes that a socket holds without a limit.
    let message = "x".repeat(16 * 1024);
    for _ in 0..32 {
        late.say(&message);
    }
    server.logged("(4108");
    drop((early, late));
    assert_eq!(server.stop(), Some(0));
}

/// The kernel refuses TCP_USER_TIMEOUT for MPTCP, or will some day take it.
#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_refuses_an_option_is_served_without_it() {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let Some(socket) = tool("MPTCP", socket.ok()) else { return };
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(16).expect("it listens");
    let takes_it = socket.set_tcp_user_timeout(Some(DEADLINE)).is_ok();
    let address = socket.local_addr().expect("bound").as_socket().expect("TCP").to_string();
    // One that waits has inherited nothing, and is asked to take each option.
    let mut early = Peer::<TcpStream>::dial(&address);
    let mut server = Server::spawn(&mut handed(OwnedFd::from(socket), &[]));
    server.listening();
    let status = early.request(&upgrade("/ws")).status;
    assert_eq!(status, 101);
    let mut late = Peer::<TcpStream>::connect(&address, "/ws");
    late.say("hello");
    late.hears("hello");
    if !takes_it {
        let warning = server.logged("TCP_USER_TIMEOUT");
        assert!(warning.starts_with("WARN the system refuses"), "{warning}");
    }
    drop((early, late));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn what_flags_ask_for_comes_on_top_of_a_socket_that_is_handed_over() {
    let folder = Folder::new("on-top");
    let (path, unix) = folder.socket();
    let listener = UnixListener::bind(&path).expect("bound");
    let mut server = Server::spawn(&mut handed(listener, &["--listen", "127.0.0.1:0"]));
    assert_eq!(server.listening(), unix);
    let address = server.listening();
    let mut here = Peer::<UnixStream>::connect(&path);
    let mut there = Peer::<TcpStream>::connect(&address, "/ws");
    here.say("hello");
    there.hears("hello");
    drop((here, there));
    assert_eq!(server.stop(), Some(0));
    assert!(path.exists(), "the file is its supervisor's");
}

#[test]
fn what_is_handed_over_and_cannot_be_listened_on_is_named() {
    let (connected, _other) = UnixStream::pair().expect("a pair");
    let file = fs::File::open("/dev/null").expect("it is there");
    for (fd, why) in [(OwnedFd::from(connected), "Invalid argument"), (file.into(), "not a socket")]
    {
        let output = run(&mut handed(fd, &[]));
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.starts_with("hublet: socket 0 of LISTEN_FDS cannot be"), "{stderr}");
        assert!(stderr.contains(why) && stderr.contains("Accept=no"), "{stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_was_shut_down_by_who_shares_it_ends_the_process() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let copy = listener.try_clone().expect("a copy");
    let mut server = Server::spawn(&mut handed(copy, &[]));
    server.listening();
    let _client = Peer::<TcpStream>::connect(&address, "/ws");
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).expect("shut down");
    assert_eq!(server.exit_code(), Some(1));
    server.logged("Invalid argument");
    let sentence = format!("hublet: the accept loop on {address} ended too early");
    assert_eq!(server.logged("hublet: "), sentence);
}

#[test]
fn a_restart_behind_a_socket_that_stays_open_refuses_nobody() {
    const CALLERS: usize = 4;
    const RESTARTS: usize = 5;
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let address = listener.local_addr().expect("bound").to_string();
    let start = || {
        let socket = listener.try_clone().expect("a copy");
        let mut server = Server::spawn(&mut handed(socket, &["--log", "warn"]));
        server.listening();
        server
    };
    let ended = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (address, ended, served) = (address.clone(), ended.clone(), served.clone());
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    // It panics unless the connection is accepted and upgraded.
                    drop(Peer::<TcpStream>::connect(&address, "/ws"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut server = start();
    for _ in 0..RESTARTS {
        // In the midst of it: some were served by this process.
        let before = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) < before + 50 {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "a caller was refused");
            thread::yield_now();
        }
        assert_eq!(server.stop(), Some(0));
        server = start();
    }
    ended.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("nobody was refused");
    }
    println!(
        "{} connections over {RESTARTS} restarts, none refused",
        served.load(Ordering::Relaxed)
    );
    assert_eq!(server.stop(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_supervisor_is_told_ready_alive_and_stopping() {
    let folder = Folder::new("notify");
    let path = folder.0.join("notify.sock");
    let supervisor = UnixDatagram::bind(&path).expect("bound");
    supervisor.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let told = || {
        let mut buffer = [0; 64];
        let n = supervisor.recv(&mut buffer).expect("a word in time");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--log", "warn"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let mut server = Server::of(&mut command);
    let address = server.listening();
    let mut words: Vec<_> = (0..5).map(|_| told()).collect();
    words.sort();
    words.dedup();
    assert_eq!(words, ["READY=1\n", "WATCHDOG=1\n"]);
    // One that waits for the end of the drain, so that there is one to tell of.
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::TERM);
    while told() != "STOPPING=1\n" {}
    assert_eq!(told(), "WATCHDOG=1\n", "it lives while it drains");
    peer.is_closed(1012);
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_supervisor_that_is_gone_is_a_warning() {
    let mut command = hublet(&["--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", "/nonexistent/notify.sock");
    let mut server = Server::of(&mut command);
    server.logged("WARN systemd cannot be told of the hub's state: ");
    let address = server.listening();
    drop(Peer::<TcpStream>::connect(&address, "/ws"));
    assert_eq!(server.stop(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn systemds_own_activation_starts_it() {
    let Some(activate) = program("systemd-socket-activate") else { return };
    let folder = Folder::new("activate");
    let (path, unix) = folder.socket();
    let mut command = alone(activate);
    let mut server = Server::of(command.arg("--listen").arg(&path).arg(HUBLET));
    server.logged("Listening on");
    // The first connection starts the hub, which then serves it.
    let mut peer = Peer::<UnixStream>::connect(&path);
    peer.say("hello");
    peer.hears("hello");
    assert_eq!(server.listening(), unix);
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn health_is_the_exit_code_and_one_sentence() {
    let folder = Folder::new("health");
    let (path, unix) = folder.socket();
    let (server, address) = Server::start(&["--listen", &unix]);
    for flags in [&["--health", "--listen", &address][..], &["--health", "--listen", &unix]] {
        let output = run(&mut hublet(flags));
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{flags:?}");
    }
    // As an image says it, where every interface is listened on.
    let port = address.rsplit(':').next().expect("a port");
    for everywhere in [format!(":{port}"), format!("0.0.0.0:{port}")] {
        let output = run(hublet(&["--health"]).env("HUBLET_LISTEN", everywhere));
        assert_eq!(output.status.code(), Some(0));
    }
    drop(server);
    assert!(path.exists(), "it was killed");
    let output = run(&mut hublet(&["--health", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let sentence = format!("hublet: no hub serves at {address}: Connection refused");
    assert!(stderr.starts_with(&sentence), "{stderr}");
}

#[test]
fn what_is_no_hub_is_not_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let mut request = [0; 64];
        let n = stream.read(&mut request).expect("a request");
        assert!(request[..n].starts_with(b"GET /health HTTP/1.1\r\nHost: localhost\r\n"));
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect("sent");
    });
    let output = run(&mut hublet(&["--health", "--listen", &address]));
    other.join().expect("asked once");
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("hublet: no hub serves at {address}: it answers \"HTTP/1.1 503 \"\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
}

#[test]
fn a_hub_that_says_nothing_is_not_waited_for() {
    // The kernel takes the connection, and nobody takes it from there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let output = run(&mut hublet(&["--health", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("hublet: no hub serves at {address}: no answer within 2 s\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
}
