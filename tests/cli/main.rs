//! Tests of the built binary.
#![cfg(unix)]

mod access;
mod activation;
mod acts;
mod deploy;
mod drain;
mod history;
mod hostile;
mod lines;
mod listen;
mod log;
mod manual;
mod overflow;
mod packages;
#[path = "../peer/mod.rs"]
mod peer;
mod pipe;
mod platforms;
mod raspberry;
mod redis;
mod redis_faults;
mod redis_history;
mod redis_server;
mod redis_wire;
#[cfg(target_os = "linux")]
mod restart;
#[cfg(target_os = "linux")]
mod restart_history;
#[cfg(target_os = "linux")]
mod restart_places;
#[cfg(target_os = "linux")]
mod restart_settings;
mod several;
mod slow_readers;
mod snippets;
mod support;
#[cfg(feature = "tls")]
mod tls;
#[path = "../tools/mod.rs"]
mod tools;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use rustix::process::Signal;

use peer::upgrade;
use support::{BINARY, CLOSE, Folder, Peer, Server, TEXT, hublet, hublet_by, run};

#[test]
fn binary_prints_its_address_and_echoes() {
    let (server, address) = Server::start(&[]);
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    peer.send(BINARY, &[0, 255]);
    assert_eq!(peer.receive(), (BINARY, vec![0, 255]));
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

/// The reactor of the hub waits for sockets, signals and deadlines: no other thread is started.
#[cfg(target_os = "linux")]
#[test]
fn hub_runs_in_as_many_threads_as_the_flag_says() {
    for (flags, threads) in
        [(&[][..], 1), (&["--max-memory", "16m", "--log", "debug"], 1), (&["--threads", "2"], 2)]
    {
        let (mut server, address) = Server::start(flags);
        let count = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", server.child.id()));
            tasks.expect("it runs").count()
        };
        assert_eq!(count(), threads, "{flags:?} at the start");
        let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
        peer.say("hello");
        peer.hears("hello");
        assert_eq!(count(), threads, "{flags:?} with a client");
        // The drain waits for the answer to its close frame, which does not come.
        server.signal(Signal::TERM);
        assert_eq!(peer.receive().0, CLOSE);
        assert_eq!(count(), threads, "{flags:?} in the drain");
        drop(peer);
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn several_threads_serve_and_end() {
    let (server, address) = Server::start(&["--threads", "3"]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_message_goes_to_its_room_and_no_other() {
    let (_server, address) = Server::start(&[]);
    let mut here = Peer::<TcpStream>::connect(&address, "/ws/here");
    let mut too = Peer::<TcpStream>::connect(&address, "/ws/here");
    let mut there = Peer::<TcpStream>::connect(&address, "/ws/there");
    here.say("in here");
    here.hears("in here");
    too.hears("in here");
    // The first message that it gets is its own, so it did not get the other.
    there.say("in there");
    there.hears("in there");
}

#[test]
fn echo_follows_the_flag_and_the_query() {
    for (flags, query, hears) in [
        (&[][..], "", true),
        (&[], "?echo=0", false),
        (&[], "?other=2&echo=1", true),
        (&["--no-echo"], "", false),
        (&["--no-echo"], "?echo=1", true),
    ] {
        let (_server, address) = Server::start(flags);
        let mut other = Peer::<TcpStream>::connect(&address, "/ws?echo=0");
        let mut peer = Peer::<TcpStream>::connect(&address, &format!("/ws{query}"));
        peer.say("mine");
        other.hears("mine");
        other.say("theirs");
        if hears {
            peer.hears("mine");
        }
        peer.hears("theirs");
    }
}

#[test]
fn invalid_echo_query_is_a_bad_request() {
    let (_server, address) = Server::start(&[]);
    for query in ["?echo=2", "?echo=", "?echo", "?a=1&echo=true", "?probe=2", "?probe"] {
        let mut peer = Peer::<TcpStream>::dial(&address);
        let response = peer.request(&upgrade(&format!("/ws{query}")));
        assert_eq!(response.status, 400, "{query}");
        let name = if query.contains("echo") { "echo" } else { "probe" };
        let sentence = format!("the parameter {name} is 0 or 1\n");
        assert_eq!(peer.body_text(&response), sentence, "{query}");
    }
}

/// A page that has heard nothing for a while asks whether the hub is there still, even if it may not
/// send.
#[test]
fn a_question_is_answered_to_its_client_alone() {
    let (_server, address) = Server::start(&["--publish-token", "p"]);
    let connect = |query| Peer::<TcpStream>::connect(&address, &format!("/ws{query}"));
    let (mut asker, mut other) = (connect("?probe=1"), connect("?probe=1&echo=0"));
    let mut speaker = connect("?token=p");
    for _ in 0..3 {
        asker.send(BINARY, &[]);
        assert_eq!(asker.receive(), (BINARY, vec![]));
    }
    speaker.say("hello");
    for client in [&mut asker, &mut other, &mut speaker] {
        client.hears("hello");
    }
    // Text is no question, and anything but a question needs the token.
    asker.say("");
    asker.is_closed(1008);
}

#[test]
fn an_empty_message_that_is_no_question_is_published() {
    let (_server, address) = Server::start(&[]);
    let connect = |query| Peer::<TcpStream>::connect(&address, &format!("/ws{query}"));
    let mut other = connect("");
    for (query, kind) in [("", BINARY), ("?probe=0", BINARY), ("?probe=1", TEXT)] {
        let mut peer = connect(query);
        peer.send(kind, &[]);
        assert_eq!(peer.receive(), (kind, vec![]), "{query}");
        assert_eq!(other.receive(), (kind, vec![]), "{query}");
    }
}

#[test]
fn a_signal_drains() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut server, address) = Server::start(&[]);
        let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
        server.signal(signal);
        peer.is_closed(1012);
        peer.goodbye(1012);
        assert_eq!(server.exit_code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_drain_without_clients_ends_at_once() {
    let (server, _) = Server::start(&["--drain", "1m", "--close-timeout", "1m"]);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = Folder::new("second");
    let (path, unix) = folder.socket();
    let waits = ["--listen", &unix, "--drain", "1m", "--close-timeout", "1m"];
    let (mut server, address) = Server::start(&waits);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::TERM);
    // The drain has begun, and waits for the peer's answer, which does not come.
    peer.is_closed(1012);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    assert_eq!(server.logged("second signal"), "hublet: stopped at once by a second signal");
    assert!(!path.exists());
}

/// Where a standard stream is a terminal, the signal says that this is gone.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_hangs_up_twice_does_not_cut_the_drain_short() {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&terminal).expect("unlocked");
    let stdin = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY);
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--close-timeout", "1m"]);
    let mut server = Server::of(command.stdin(Stdio::from(stdin.expect("its other end"))));
    let address = server.listening();
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    server.signal(Signal::HUP);
    peer.is_closed(1012);
    server.signal(Signal::HUP);
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    let mut command = hublet_by("trap '' HUP && exec \"$0\" \"$@\"", &["--listen", "127.0.0.1:0"]);
    let mut server = Server::of(&mut command);
    let address = server.listening();
    server.signal(Signal::HUP);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("still here");
    peer.hears("still here");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn invalid_flags_are_one_sentence_and_exit_code_2() {
    for (arguments, sentence) in [
        (
            &["--queue", "0"][..],
            "--queue was given \"0\"; allowed is a whole number from 1 to 1073741824",
        ),
        (&["--log", "trace"], "--log was given \"trace\"; allowed is error, warn, info, debug"),
        (&["--tokens", "secret"], "unknown flag --tokens; see --help"),
        (&["--max-clients"], "missing argument for option '--max-clients'; see --help"),
        (&["main"], "unexpected argument \"main\"; see --help"),
        (
            &["--ping-interval", "0s"],
            "--ping-interval was given \"0s\"; allowed is a time from 1ms to a day, like 500ms, \
             10s or 2m",
        ),
        (
            &["--queue-bytes", "1k"],
            "--queue-bytes of 1024 bytes cannot hold one message of --max-message = 65536: at \
             least 65546 is needed",
        ),
        (
            &["--max-message", "1024m"],
            "--max-message was given \"1024m\"; allowed is a number of bytes from 1 to 536870902, \
             like 4096, 64k or 1m",
        ),
    ] {
        let output = run(&mut hublet(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("hublet: {sentence}\n"));
        assert!(output.stdout.is_empty());
    }
    let output = run(hublet(&[]).env("HUBLET_NO_ECHO", "yes"));
    assert_eq!(output.status.code(), Some(2));
    let sentence = "hublet: HUBLET_NO_ECHO was given \"yes\"; allowed is 1, true, 0 or false\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
}

#[test]
fn largest_max_message_is_served() {
    let (server, _) = Server::start(&["--max-message", "536870902"]);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_port_in_use_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = run(&mut hublet(&["--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!(
        "hublet: cannot listen on {address}: something listens there already, stop it or name \
         another\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
    assert!(output.stdout.is_empty());
}

#[test]
fn file_of_a_unix_socket_is_removed_at_the_end() {
    let folder = Folder::new("goes");
    let (path, address) = folder.socket();
    let mut server = Server::of(&mut hublet(&["--listen", &address]));
    assert_eq!(server.listening(), address);
    let mut peer = Peer::<UnixStream>::connect(&path);
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let folder = Folder::new("stale");
    let (path, address) = folder.socket();
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let mut server = Server::of(&mut hublet(&["--listen", &address]));
    assert_eq!(server.listening(), address);
    drop(Peer::<UnixStream>::connect(&path));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_live_unix_socket_is_refused_and_stays() {
    let folder = Folder::new("live");
    let (path, address) = folder.socket();
    let _live = UnixListener::bind(&path).expect("bound");
    let output = run(&mut hublet(&["--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&address) && stderr.contains("listens there already"), "{stderr}");
    drop(UnixStream::connect(&path).expect("it is alive"));
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_untouched() {
    let folder = Folder::new("file");
    let (path, address) = folder.socket();
    fs::write(&path, "precious").expect("written");
    let output = run(&mut hublet(&["--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("not a socket"), "{stderr}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn socket_file_of_a_successor_is_not_removed() {
    let folder = Folder::new("successor");
    let (path, address) = folder.socket();
    let (mut server, tcp) = Server::start(&["--listen", &address, "--close-timeout", "1m"]);
    // Over TCP: a connection to the Unix socket would keep the inode of its file in use.
    let mut peer = Peer::<TcpStream>::connect(&tcp, "/ws");
    server.signal(Signal::TERM);
    peer.is_closed(1012);
    // When the accept loop has ended, the socket refuses connections. The process still drains.
    while UnixStream::connect(&path).is_ok() {
        std::thread::yield_now();
    }
    // File systems use the inode of a removed file for the next one.
    fs::remove_file(&path).expect("stale");
    let _successor = UnixListener::bind(&path).expect("bound");
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
    drop(UnixStream::connect(&path).expect("the successor's file is still there"));
}

#[test]
fn environment_sets_options_without_a_flag() {
    let mut command = hublet(&["--log", "info"]);
    command.env("HUBLET_LISTEN", "127.0.0.1:0, 127.0.0.1:0").env("HUBLET_LOG", "error");
    command.env("HUBLET_NO_ECHO", "1").env("HUBLET_MAX_CLIENT", "1");
    let mut server = Server::of(&mut command);
    let (one, two) = (server.listening(), server.listening());
    assert_ne!(one, two);
    let warning = server.logged("HUBLET_MAX_CLIENT");
    assert_eq!(warning, "WARN HUBLET_MAX_CLIENT is ignored: no flag has this variable");
    let mut peer = Peer::<TcpStream>::connect(&one, "/ws");
    let mut other = Peer::<TcpStream>::connect(&two, "/ws");
    peer.say("one");
    other.hears("one");
    other.say("two");
    peer.hears("two");
    // The flag wins over HUBLET_LOG, which would hide this.
    server.logged("joined room \"main\" from 127.0.0.1:");
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let output = run(&mut hublet(&["--help", "all"]));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let help = String::from_utf8(output.stdout).expect("text");
    let flags: Vec<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  --"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let tls = if cfg!(feature = "tls") { "tls-cert tls-key " } else { "" };
    let expected = "no-echo no-page threads allow-origin allow-host trusted-proxy \
                    protocol token token-file publish-token publish-token-file admin-token \
                    admin-token-file jwt-secret jwt-secret-file jwt-audience max-clients \
                    max-clients-per-ip max-rate max-rate-bytes max-post-rate max-rooms max-message max-memory max-fragments redis \
                    redis-file redis-prefix deflate queue queue-bytes overflow history room \
                    history-bytes history-age history-memory handshake-timeout ping-interval pong-timeout write-timeout close-timeout drain \
                    stdin stdout env-file log health version help";
    let expected = format!("listen {tls}{expected}");
    assert_eq!(flags, expected.split_whitespace().collect::<Vec<_>>());
    for flag in flags.iter().filter(|flag| !["health", "version", "help"].contains(flag)) {
        let variable = format!("[HUBLET_{}]", flag.replace('-', "_").to_uppercase());
        assert!(help.contains(&variable), "{variable}");
    }
}

#[test]
fn page_of_the_command_line_quotes_the_help() {
    let mut help = String::from_utf8(run(&mut hublet(&["--help", "all"])).stdout).expect("text");
    if cfg!(feature = "tls") {
        // The flags of hublet-tls have a block of their own.
        let (begin, end) = (help.find("  --tls-cert"), help.find("  --no-echo"));
        let range = begin.expect("its flags")..end.expect("the next flag");
        let quoted = format!("```text\n{}```\n", &help[range.clone()]);
        assert!(include_str!("../../docs/cli.md").contains(&quoted), "quote this:\n{quoted}");
        help.replace_range(range, "");
    }
    let quoted = format!("```text\n{help}```\n");
    assert!(include_str!("../../docs/cli.md").contains(&quoted), "quote this:\n{help}");
}

#[test]
fn version_is_that_of_the_package() {
    let output = run(&mut hublet(&["--version"]));
    assert_eq!(output.status.code(), Some(0));
    let expected = concat!("hublet ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn the_soft_limit_on_descriptors_is_raised_to_the_hard_one() {
    let mut command =
        hublet_by("ulimit -Sn 128 && exec \"$0\" \"$@\"", &["--listen", "127.0.0.1:0"]);
    let mut server = Server::of(&mut command);
    server.listening();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).expect("limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit: Vec<_> = limit.expect("the limit").split_whitespace().take(2).collect();
    assert_eq!(limit[0], limit[1]);
    assert_ne!(limit[0], "128");
}

#[cfg(target_os = "linux")]
#[test]
fn low_limit_on_descriptors_is_one_sentence() {
    let mut command = hublet_by("ulimit -n 60 && exec \"$0\" \"$@\"", &["--listen", "127.0.0.1:0"]);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    let sentence = "hublet: 1 clients need 65 file descriptors and the limit is 60: raise it \
                    (LimitNOFILE= in a unit, ulimit -Hn in a shell), or lower --max-clients\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
}
