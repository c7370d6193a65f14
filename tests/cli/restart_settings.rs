//! What a restart reads anew, and what it keeps of the program before.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use crate::peer::upgrade;
use crate::restart::{DONE, copy, start};
use crate::support::{Folder, HUBLET, Peer, Server, alone, ask, number};

/// Files of flags, as those of variables; a flag wins over the file of variables, and that over the
/// environment, also where the file has come later.
#[test]
fn a_file_of_a_flag_is_read_anew_and_a_flag_wins() {
    let folder = Folder::new("restart-files");
    let (secret, variables) = (folder.0.join("secret"), folder.0.join("env"));
    let write = |token: &str, lines: &str| {
        fs::write(&secret, token).expect("written");
        fs::write(&variables, lines).expect("written");
    };
    let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    write("one", "");
    let mut command = alone(HUBLET);
    command.args([flag("token-file", &secret), flag("env-file", &variables)]);
    command.args(["--listen", "127.0.0.1:0", "--max-rooms", "2"]).env("HUBLET_MAX_CLIENTS", "1");
    let mut server = Server::of(&mut command);
    let address = server.listening();
    let mut first = Peer::<TcpStream>::connect(&address, "/ws/a?token=one");
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/a?token=one").1, 503, "the environment");
    write("two\n", "HUBLET_MAX_CLIENTS=9\nHUBLET_MAX_ROOMS=1\n");
    server.restart();
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/a?token=one").1, 401, "the file of a flag");
    let mut second = Peer::<TcpStream>::connect(&address, "/ws/b?token=two");
    write("two", "");
    server.restart();
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/a?token=two").1, 503, "the environment again");
    for peer in [&mut first, &mut second] {
        peer.say("still here");
        peer.hears("still here");
    }
    drop((first, second));
    assert_eq!(server.stop(), Some(0));
}

/// The path is what stays: a link to another version is followed when the hub restarts.
#[test]
fn a_link_is_followed_anew() {
    let folder = Folder::new("restart-link");
    let (path, link, moved) = (copy(&folder), folder.0.join("current"), folder.0.join("next"));
    symlink(&path, &link).expect("made");
    let (mut server, address) = start(&link, &[]);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    fs::copy(HUBLET, &moved).expect("copied");
    let replaced = folder.0.join("link");
    symlink(&moved, &replaced).expect("made");
    fs::rename(&replaced, &link).expect("replaced");
    server.restart();
    let running = fs::read_link(format!("/proc/{}/exe", server.child.id())).expect("its own");
    assert_eq!(running, moved);
    peer.say("still here");
    peer.hears("still here");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

/// The address that a trusted proxy gave counts in the new program, with what a client has missed.
#[test]
fn an_address_from_a_proxy_and_a_count_of_missed_messages_go_along() {
    let flags =
        ["--trusted-proxy", "127.0.0.1", "--max-clients-per-ip", "1", "--overflow", "drop-newest"];
    let flags = [&flags[..], &["--queue", "1", "--queue-bytes", "70000"]].concat();
    let (mut server, address) = start(HUBLET.as_ref(), &flags);
    let dial = |ip: &str| {
        let head =
            upgrade("/ws/a?echo=0").replacen("\r\n", &format!("\r\nX-Forwarded-For: {ip}\r\n"), 1);
        let mut peer = Peer::<TcpStream>::dial_narrow(&address);
        let status = peer.request(&head).status;
        (peer, status)
    };
    let (mut slow, status) = dial("203.0.113.9");
    assert_eq!(status, 101);
    let missed = || {
        let rooms = ask(&address, "GET", "/rooms/a", "", "").2;
        number(&rooms, "\"missed\":").unwrap_or_else(|| panic!("{rooms}"))
    };
    let text = "x".repeat(60_000);
    let mut said = 0_u64;
    // At most what the buffers of both ends hold.
    while missed() == 0 {
        assert_eq!(ask(&address, "POST", "/pub/a", "", &text).0, 202);
        said += 1;
        assert!(said < 2_000, "the client is never behind");
    }
    // It reads what it was sent, so that it is clean.
    let heard = said - missed();
    (0..heard).for_each(|_| slow.hears(&text));
    let before = missed();
    for other in ["203.0.113.10", "203.0.113.11"] {
        server.restart();
        assert_eq!(missed(), before);
        assert_eq!(dial("203.0.113.9").1, 503, "it counts under its own address");
        assert_eq!(dial(other).1, 101);
        assert_eq!(ask(&address, "POST", "/pub/a", "", "and on").0, 202);
        slow.hears("and on");
    }
    drop(slow);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_secret_is_changed_by_the_file_of_variables() {
    let folder = Folder::new("restart-secret");
    let file = folder.0.join("env");
    let write = |text: &str| fs::write(&file, text).expect("written");
    write("# a comment\nHUBLET_TOKEN=\"old one\"\nHUBLET_LOG=info\n");
    let flag = format!("--env-file={}", file.display());
    let (mut server, address) = start(HUBLET.as_ref(), &[&flag]);
    let (_, status) = Peer::<TcpStream>::ask(&address, "/ws");
    assert_eq!(status, 401);
    let mut ada = Peer::<TcpStream>::connect(&address, "/ws?token=old%20one");
    write("HUBLET_TOKEN=new\nHUBLET_MAX_CLIENTS=1\nHUBLET_QUEUE=sesame\n");
    let why = server.fail_to_restart();
    assert!(why.contains("line 3 of ") && !why.contains("sesame"), "{why}");
    write("HUBLET_TOKEN=new\nHUBLET_MAX_CLIENTS=1\n");
    server.restart();
    for (token, status) in [("old%20one", 401), ("new", 503)] {
        let (_, answered) = Peer::<TcpStream>::ask(&address, &format!("/ws?token={token}"));
        assert_eq!(answered, status, "{token}");
    }
    ada.say("still here");
    ada.hears("still here");
    write("HUBLET_TOKEN=\n");
    let why = server.fail_to_restart();
    assert!(why.contains("HUBLET_TOKEN in line 1 of ") && why.contains("is empty"), "{why}");
    write("# no token\n");
    server.restart();
    drop(Peer::<TcpStream>::connect(&address, "/ws"));
    drop(ada);
    assert_eq!(server.stop(), Some(0));
}

/// Limits below what is there hold for newcomers, and the log says so.
#[test]
fn a_lower_limit_closes_no_client() {
    let folder = Folder::new("restart-limits");
    let file = folder.0.join("env");
    fs::write(&file, "").expect("written");
    let flag = format!("--env-file={}", file.display());
    let (mut server, address) = start(HUBLET.as_ref(), &[&flag]);
    let mut peers: Vec<_> =
        ["/ws/a", "/ws/b"].map(|path| Peer::<TcpStream>::connect(&address, path)).into();
    let limits = "HUBLET_MAX_CLIENTS=1\nHUBLET_MAX_CLIENTS_PER_IP=1\nHUBLET_MAX_ROOMS=1\n";
    fs::write(&file, limits).expect("written");
    server.signal(Signal::USR2);
    server.logged("2 clients are connected and the limit is 1 now");
    server.logged("2 clients are connected from one address and the limit is 1 now");
    server.logged("2 rooms exist and the limit is 1 now");
    server.logged(DONE);
    for peer in &mut peers {
        peer.say("still here");
        peer.hears("still here");
    }
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/a").1, 503);
    fs::write(&file, "HUBLET_MAX_CLIENTS_PER_IP=2\n").expect("written");
    server.restart();
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/a").1, 503, "no third from this address");
    fs::write(&file, "HUBLET_MAX_ROOMS=1\n").expect("written");
    server.restart();
    drop(Peer::<TcpStream>::connect(&address, "/ws/a"));
    assert_eq!(Peer::<TcpStream>::ask(&address, "/ws/c").1, 503, "no third room");
    drop(peers);
    assert_eq!(server.stop(), Some(0));
}
