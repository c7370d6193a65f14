//! Socket activation, notifications to a supervisor, and health checks.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::peer::upgrade;
use crate::support::{DEADLINE, Folder, HUBLET, Peer, Server, alone, hublet, hublet_by, run};
use crate::tools::{program, tool};

/// The binary with a socket as its descriptor 3, as systemd passes it.
pub(crate) fn handed(socket: impl Into<OwnedFd>, flags: &[&str]) -> Command {
    // The shell takes the socket as its standard input, and `$$` outlives the `exec`.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut command = hublet_by(script, flags);
    command.stdin(Stdio::from(socket.into())).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn passed_socket_replaces_the_default_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut server = Server::spawn(&mut handed(listener, &[]));
    assert_eq!(server.listening(), address);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(server.stdout.iter().next(), None, "it listens on no other address");
}

/// A connection from before the start of the hub has not inherited the options of the listener: the
/// small buffers of a ceiling, and the timeout for unacknowledged data.
#[cfg(target_os = "linux")]
#[test]
fn ceiling_applies_to_connections_from_before_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut early = Peer::<TcpStream>::dial_narrow(&address);
    early.write(upgrade("/ws").as_bytes());
    let mut server = Server::spawn(&mut handed(listener, &["--max-memory", "16m"]));
    server.listening();
    assert_eq!(early.response().status, 101);
    let mut late = Peer::<TcpStream>::connect(&address, "/ws?echo=0");
    // A queue holds 256 KiB. A socket without a limit would hold megabytes.
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
fn listen_flags_add_to_a_passed_socket() {
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
    assert!(path.exists(), "the file belongs to the supervisor");
}

#[test]
fn passed_descriptor_that_is_no_listener_is_named() {
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
fn shutdown_of_a_shared_listener_ends_the_process() {
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
fn restart_behind_an_open_socket_refuses_no_connection() {
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
                    // Panics unless the connection is accepted and upgraded.
                    drop(Peer::<TcpStream>::connect(&address, "/ws"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut server = start();
    for _ in 0..RESTARTS {
        // Stop only after this process has served some connections.
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
        caller.join().expect("no connection was refused");
    }
    println!(
        "{} connections over {RESTARTS} restarts, none refused",
        served.load(Ordering::Relaxed)
    );
    assert_eq!(server.stop(), Some(0));
}

/// The socket of a supervisor, in a folder of the test.
#[cfg(target_os = "linux")]
pub(crate) fn supervisor(test: &str) -> (Folder, PathBuf, UnixDatagram) {
    let folder = Folder::new(test);
    let path = folder.0.join("notify.sock");
    let supervisor = UnixDatagram::bind(&path).expect("bound");
    supervisor.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    (folder, path, supervisor)
}

#[cfg(target_os = "linux")]
#[test]
fn supervisor_is_notified_ready_alive_and_stopping() {
    let (_folder, path, supervisor) = supervisor("notify");
    let notification = || {
        let mut buffer = [0; 64];
        let n = supervisor.recv(&mut buffer).expect("a notification in time");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--log", "warn"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let mut server = Server::of(&mut command);
    let address = server.listening();
    let mut states: Vec<_> = (0..5).map(|_| notification()).collect();
    states.sort();
    states.dedup();
    assert_eq!(states, ["READY=1\n", "WATCHDOG=1\n"]);
    // A client that keeps the drain from ending at once.
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::TERM);
    while notification() != "STOPPING=1\n" {}
    assert_eq!(notification(), "WATCHDOG=1\n", "it is alive while it drains");
    peer.is_closed(1012);
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
}

/// Reads what the hub says to a supervisor from its start to its end.
#[cfg(target_os = "linux")]
#[track_caller]
fn said_to(supervisor: &UnixDatagram, command: &mut Command) -> Vec<String> {
    let mut server = Server::of(command);
    let address = server.listening();
    // A client that keeps the drain from ending at once.
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::TERM);
    peer.is_closed(1012);
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
    supervisor.set_nonblocking(true).expect("set");
    let mut said = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(n) = supervisor.recv(&mut buffer) {
        said.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
    }
    said
}

/// The forms of `NOTIFY_SOCKET` in sd_notify(3): a path, and `@` with a name in the abstract namespace.
#[cfg(target_os = "linux")]
#[test]
fn supervisor_at_an_abstract_socket_is_notified_once() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    let name = format!("hublet-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let supervisor = UnixDatagram::bind_addr(&address).expect("bound");
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--drain", "100ms"]);
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    assert_eq!(said_to(&supervisor, &mut command), ["READY=1\n", "STOPPING=1\n"]);
}

/// `TimeoutStopSec` may be too short for a drain that the operator has made longer.
#[cfg(target_os = "linux")]
#[test]
fn supervisor_is_told_of_a_drain_that_is_longer_than_the_default() {
    let (_folder, path, supervisor) = supervisor("extend");
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--drain", "60s"]);
    command.env("NOTIFY_SOCKET", &path);
    let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=64000000\n";
    assert_eq!(said_to(&supervisor, &mut command), ["READY=1\n", stopping]);
}

/// The watchdog of another process, as of the parent of a hub in a script, is not the hub's.
#[cfg(target_os = "linux")]
#[test]
fn watchdog_of_another_process_is_left_to_it() {
    let (_folder, path, supervisor) = supervisor("watchdog-pid");
    let mut command = hublet(&["--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1");
    assert_eq!(said_to(&supervisor, &mut command), ["READY=1\n", "STOPPING=1\n"]);
}

#[cfg(target_os = "linux")]
#[test]
fn supervisor_at_a_vsock_is_refused_with_a_sentence() {
    let mut command = hublet(&["--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", "vsock:2:1234");
    let mut server = Server::of(&mut command);
    server.logged(
        "WARN systemd cannot be told of the hub's state: NOTIFY_SOCKET=vsock:2:1234 is neither a \
         path nor an abstract socket: hublet does not speak vsock",
    );
    server.listening();
    assert_eq!(server.stop(), Some(0));
}

/// Several sockets of both kinds, with names, as sd_listen_fds(3) hands them over.
#[test]
fn several_passed_sockets_are_served_whatever_their_names() {
    let folder = Folder::new("several");
    let (path, unix) = folder.socket();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = tcp.local_addr().expect("bound").to_string();
    let script = "exec 3<&0 4<&1 1>&2 </dev/null; \
        LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:local exec \"$0\" \"$@\" >\"$OUT\"";
    let out = folder.0.join("out");
    let mut command = hublet_by(script, &[]);
    command.env("OUT", &out).stdin(Stdio::from(OwnedFd::from(tcp)));
    command.stdout(Stdio::from(OwnedFd::from(UnixListener::bind(&path).expect("bound"))));
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    let mut here = Peer::<UnixStream>::connect(&path);
    let mut there = Peer::<TcpStream>::connect(&address, "/ws");
    here.say("hello");
    there.hears("hello");
    drop((here, there));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let listening = fs::read_to_string(&out).expect("its output");
    assert_eq!(listening, format!("listening on {address}\nlistening on {unix}\n"));
}

/// The variables are for another process, such as the shell that started the hub.
#[test]
fn sockets_for_another_process_are_left_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=1 LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut command = hublet_by(script, &["--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let mut server = Server::of(&mut command);
    assert_ne!(server.listening(), address);
    assert_eq!(server.stop(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn missing_supervisor_is_a_warning() {
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
fn systemd_socket_activate_starts_the_hub() {
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
    // As the image sets it, to listen on every interface.
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
fn other_server_is_not_healthy() {
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

/// A process listens on a Unix socket and accepts nothing, and no more connections may wait for it.
#[test]
fn a_full_unix_socket_is_waited_for_two_seconds() {
    let folder = Folder::new("full");
    let (path, unix) = folder.socket();
    let listener = UnixListener::bind(&path).expect("a folder of its own");
    rustix::net::listen(&listener, 0).expect("a shorter backlog");
    let _first = UnixStream::connect(&path).expect("the backlog is empty");
    let output = run(&mut hublet(&["--health", "--listen", &unix]));
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("hublet: no hub serves at {unix}: no answer within 2 s\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
    let output = run(&mut hublet(&["--listen", &unix]));
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!(
        "hublet: cannot listen on {unix}: something listens there already, stop it or name another\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
    assert!(path.exists(), "it is not the hub's to remove");
}

#[test]
fn health_check_of_a_silent_hub_times_out() {
    // The kernel completes the connection, and it is never accepted.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let output = run(&mut hublet(&["--health", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("hublet: no hub serves at {address}: no answer within 2 s\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
}
