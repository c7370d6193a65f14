//! What `--listen` takes: ports without an address, and Unix sockets for some users only.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::support::{Folder, HUBLET, Peer, Server, alone, hublet, hublet_by, run};
use crate::tools::{program, tool};

#[test]
fn a_port_alone_and_localhost_are_loopback() {
    for listen in ["0", "localhost:0"] {
        let mut server = Server::of(&mut hublet(&["--listen", listen]));
        let address = server.listening();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        drop(Peer::<TcpStream>::connect(&address, "/ws"));
        assert_eq!(server.stop(), Some(0));
    }
}

/// In a network of its own: a test may change its settings.
#[cfg(target_os = "linux")]
#[test]
fn a_port_on_all_interfaces_is_served_by_ipv6_and_ipv4() {
    let (Some(unshare), Some(ip)) = (program("unshare"), program("ip")) else { return };
    let own_network = || {
        let mut command = alone(&unshare);
        command.args(["--map-root-user", "--net", "sh", "-euc"]);
        command
    };
    let may = run(own_network().arg("true")).status.success();
    let Some(()) = tool("a network namespace", may.then_some(())) else { return };
    for (setting, reached) in [
        ("bindv6only", &["127.0.0.1:8080", "[::1]:8080"][..]),
        ("conf/all/disable_ipv6", &["127.0.0.1:8080"]),
    ] {
        let folder = Folder::new("everywhere");
        let script = format!(
            "hub=$1 ready=$2 && shift 2
             {} link set lo up
             echo 1 >/proc/sys/net/ipv6/{setting}
             mkfifo \"$ready\"
             \"$hub\" --listen :8080 >\"$ready\" &
             read -r line <\"$ready\"
             for address; do \"$hub\" --health --listen \"$address\"; done
             kill $!
             wait $!",
            ip.display()
        );
        let mut command = own_network();
        command.args([&script, "sh", HUBLET]).arg(folder.0.join("ready")).args(reached);
        let output = run(&mut command);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{setting}: {stderr}");
    }
}

/// What a client hears says nothing to an operator that mistook the port: the log does.
#[test]
fn a_client_that_speaks_tls_is_in_the_log_once() {
    let Some(curl) = program("curl") else { return };
    let (mut server, address) = Server::start(&["--log", "debug"]);
    for _ in 0..2 {
        let mut command = alone(&curl);
        let output = run(command.args(["--silent", "--insecure", &format!("https://{address}/")]));
        // It has read an answer that is no TLS.
        assert_eq!(output.status.code(), Some(35), "{output:?}");
    }
    let line =
        server.logged("speaks TLS, and this port does not: use http:// and ws://, or a proxy");
    assert!(line.starts_with("WARN "), "{line}");
    for _ in 0..2 {
        server.logged(" refused: 400 this port does not speak TLS");
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let more = server.stderr.try_iter().filter(|line| line.starts_with("WARN ")).count();
    assert_eq!(more, 0, "it is a warning once");
}

/// A file's permissions and its group.
fn access(path: &Path) -> (u32, u32) {
    let file = fs::metadata(path).expect("it is there");
    (file.mode() & 0o7777, file.gid())
}

#[test]
fn a_unix_socket_has_the_mode_and_the_group_that_were_asked_for() {
    let folder = Folder::new("mode");
    let (path, address) = folder.socket();
    let own = access(&folder.0).1;
    // Any user may give a file to its own group. The mode does not depend on the umask.
    for (umask, options, mode) in [
        ("077", ",mode=0666".to_owned(), 0o666),
        ("0", ",mode=600".to_owned(), 0o600),
        ("0", format!(",mode=0660,group={own}"), 0o660),
        ("027", format!(",group={own}"), 0o750),
    ] {
        let script = format!("umask {umask} && exec \"$0\" \"$@\"");
        let listen = format!("{address}{options}");
        let mut server = Server::of(&mut hublet_by(&script, &["--listen", &listen]));
        assert_eq!(server.listening(), address);
        assert_eq!(access(&path), (mode, own), "{options}");
        drop(Peer::<UnixStream>::connect(&path));
        assert_eq!(server.stop(), Some(0));
    }
}

#[test]
fn a_group_that_the_user_may_not_give_is_one_sentence_and_leaves_no_file() {
    let folder = Folder::new("group");
    let (path, address) = folder.socket();
    let listen = format!("{address},mode=0660,group=4294967294");
    let flags = ["--listen", &listen];
    let mut command = if rustix::process::geteuid().is_root() {
        let Some(setpriv) = program("setpriv") else { return };
        let mut command = alone(setpriv);
        command.args(["--bounding-set=-chown", "--clear-groups", HUBLET]).args(flags);
        command
    } else {
        hublet(&flags)
    };
    let output = run(&mut command);
    let sentence = format!(
        "hublet: cannot give {address} its group: Operation not permitted (os error 1); start the \
         hub as root or as a member of the group\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), sentence);
    assert_eq!(output.status.code(), Some(1));
    assert!(!path.exists(), "the file stayed");
}
