//! Restarts in the places where hubs run: under a supervisor, as another user, in a container, with
//! little memory, and alone in a root.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::activation::{handed, supervisor};
use crate::restart::{DONE, copy, start};
use crate::support::{Folder, HUBLET, Peer, Server, alone, eventually};
use crate::tools::{file, program, tool};

/// A client that is connected hears itself after a restart, and so does a new one.
fn goes_on(server: &mut Server, address: &str) {
    let mut peer = Peer::<TcpStream>::connect(address, "/ws/a");
    for _ in 0..2 {
        server.restart();
        peer.say("still here");
        peer.hears("still here");
        let mut new = Peer::<TcpStream>::connect(address, "/ws/b");
        new.say("new");
        new.hears("new");
    }
}

/// The next notification that is no watchdog's.
fn notified(supervisor: &UnixDatagram) -> String {
    let mut buffer = [0; 128];
    loop {
        let n = supervisor.recv(&mut buffer).expect("a notification in time");
        let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if said != "WATCHDOG=1\n" {
            return said;
        }
    }
}

#[test]
fn under_a_supervisor_that_passes_a_socket_and_is_notified() {
    let (folder, path, supervisor) = supervisor("restart-notify");
    let variables = folder.0.join("env");
    fs::write(&variables, "").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let flag = format!("--env-file={}", variables.display());
    let mut command = handed(listener, &[&flag]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let mut server = Server::spawn(&mut command);
    assert_eq!(server.listening(), address);
    assert_eq!(notified(&supervisor), "READY=1\n");
    goes_on(&mut server, &address);
    let reloads = || {
        let reloading = notified(&supervisor);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(time.trim_end().parse::<u64>().expect("a number") > 0);
        assert_eq!(notified(&supervisor), "READY=1\n");
    };
    (0..2).for_each(|_| reloads());
    // A restart that fails is over as well.
    fs::write(&variables, "sesame").expect("written");
    server.fail_to_restart();
    reloads();
    fs::write(&variables, "").expect("written");
    // What was passed once is not passed again.
    let environment = fs::read(format!("/proc/{}/environ", server.child.id())).expect("its own");
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("LISTEN_") && environment.contains("NOTIFY_SOCKET"));
    let folder = format!("/proc/{}/fd", server.child.id());
    let descriptors = || fs::read_dir(&folder).expect("its own").count();
    let before = descriptors();
    for _ in 0..3 {
        server.restart();
        eventually("no descriptor is left over", || descriptors() <= before);
    }
    assert_eq!(server.stop(), Some(0));
    while notified(&supervisor) != "STOPPING=1\n" {}
}

#[test]
fn as_a_user_without_privileges() {
    let (Some(setpriv), true) = (program("setpriv"), rustix::process::geteuid().is_root()) else {
        println!("skipped: needs setpriv and root");
        return;
    };
    let folder = Folder::new("restart-user");
    let path = copy(&folder);
    let mut command = Command::new(setpriv);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(path);
    let mut server = Server::of(command.args(["--listen", "127.0.0.1:0"]));
    let address = server.listening();
    goes_on(&mut server, &address);
    assert_eq!(server.stop(), Some(0));
}

/// The system calls, addresses and memory that the unit allows, with a secret that changes.
#[test]
fn in_the_sandbox_of_the_unit() {
    let (Some(python), Some(_)) = (program("python3"), program("systemd-analyze")) else { return };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let (folder, notify, supervisor) = supervisor("restart-sandbox");
    let (binary, variables) = (copy(&folder), folder.0.join("env"));
    for path in [&folder.0, &notify] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("its own");
    }
    fs::write(&variables, "").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let mut command = alone("/bin/sh");
    command.args(["-c", script]).arg(python).arg(file("tests/cli/sandbox.py"));
    command.arg(file("deploy/hublet.service")).arg(binary).arg("--env-file").arg(&variables);
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "1000000");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let mut server = Server::of(&mut command);
    assert_eq!(server.listening(), address);
    assert_eq!(notified(&supervisor), "READY=1\n");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    for token in ["one", "two"] {
        fs::write(&variables, format!("HUBLET_TOKEN={token}\n")).expect("written");
        server.restart();
        assert!(notified(&supervisor).starts_with("RELOADING=1\n"));
        assert_eq!(notified(&supervisor), "READY=1\n");
        peer.say("still here");
        peer.hears("still here");
        assert_eq!(Peer::<TcpStream>::ask(&address, "/ws").1, 401);
        drop(Peer::<TcpStream>::connect(&address, &format!("/ws?token={token}")));
    }
    let status =
        fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("its own");
    assert!(
        status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"),
        "{status}"
    );
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

/// The first process of a namespace, as in a container.
#[test]
fn as_the_first_process_of_a_namespace() {
    let (Some(unshare), true) = (program("unshare"), rustix::process::geteuid().is_root()) else {
        println!("skipped: needs unshare and root");
        return;
    };
    let mut command = Command::new(unshare);
    command.args(["--pid", "--fork", "--kill-child", HUBLET, "--listen", "127.0.0.1:0"]);
    let mut server = Server::of(&mut command);
    let address = server.listening();
    let parent = server.child.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let own = children.expect("a list").trim().parse().ok().and_then(Pid::from_raw);
    let own = own.expect("one child");
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/a");
    for _ in 0..2 {
        kill_process(own, Signal::USR2).expect("it runs");
        server.logged(DONE);
        peer.say("still here");
        peer.hears("still here");
    }
    drop(peer);
    kill_process(own, Signal::TERM).expect("it runs");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn with_little_memory() {
    let flags = ["--max-memory", "12m", "--history", "50", "--stdin", "a", "--stdout", "a"];
    let mut command = alone(HUBLET);
    command.args(["--listen", "127.0.0.1:0"]).args(flags).stdin(Stdio::piped());
    let mut server = Server::of(&mut command);
    let stdin = server.child.stdin.take();
    let line = server.logged("listening on");
    let address = line.rsplit(' ').next().expect("an address").to_owned();
    goes_on(&mut server, &address);
    drop(stdin);
    assert_eq!(server.exit_code(), Some(0), "at the end of its input it drains");
}

/// A signal to stop that comes at any moment of a restart stops the hub, old or new.
#[test]
fn no_signal_is_lost() {
    for nth in 0..24_u32 {
        let (mut server, address) = start(HUBLET.as_ref(), &[]);
        let peer = Peer::<TcpStream>::connect(&address, "/ws");
        server.signal(Signal::USR2);
        // The sleep puts some signals in each part of a restart, which takes tens of milliseconds. It
        // waits for no event.
        thread::sleep(Duration::from_millis(2) * nth);
        server.signal(Signal::TERM);
        drop(peer);
        assert_eq!(server.exit_code(), Some(0), "{nth}");
    }
}

/// A root that holds the binary alone: no /proc, no /dev.
#[test]
fn a_root_with_the_binary_alone_is_enough() {
    let (Some(chroot), true) = (program("chroot"), rustix::process::geteuid().is_root()) else {
        println!("skipped: needs chroot and root");
        return;
    };
    let musl = Path::new(HUBLET)
        .ancestors()
        .nth(2)
        .map(|target| target.join("x86_64-unknown-linux-musl/dist/hublet"));
    let musl = musl.filter(|binary| binary.exists());
    let Some(binary) = tool("the static binary of deploy/build", musl) else { return };
    let folder = Folder::new("restart-chroot");
    fs::copy(binary, folder.0.join("hublet")).expect("copied");
    let mut command = Command::new(chroot);
    command.arg("--userspec=65534:65534").arg(&folder.0);
    command.args(["/hublet", "--listen", "127.0.0.1:0"]).env_clear().stdin(Stdio::null());
    let mut server = Server::of(&mut command);
    let address = server.listening();
    goes_on(&mut server, &address);
    assert_eq!(server.stop(), Some(0));
}
