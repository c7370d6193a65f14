//! TLS on the ports of the binary, with clients of others.

#[path = "../../src/net/tls/trusting_client.rs"]
mod trusting_client;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use rustls::{ClientConnection, StreamOwned, SupportedProtocolVersion, version};

use self::trusting_client::trusting_client;
use crate::support::{BINARY, Folder, Peer, Server, alone, hublet, run};
use crate::tools::{self, program};

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// A client that has sent nothing yet.
fn dial(address: &str, version: &'static SupportedProtocolVersion) -> Peer<Encrypted> {
    let client = trusting_client(version, &[b"h2", b"http/1.1"]);
    let stream = Peer::<TcpStream>::dial(address).into_stream();
    Peer::at(StreamOwned::new(client, stream))
}

fn connect(address: &str, path: &str) -> Peer<Encrypted> {
    dial(address, &version::TLS13).join(path)
}

/// Makes a certificate; returns its file and that of its key. `None` without openssl.
fn certificate(folder: &Folder, name: &str, key: &[&str]) -> Option<[PathBuf; 2]> {
    let openssl = program("openssl")?;
    let files = ["cert", "key"].map(|kind| folder.0.join(format!("{name}-{kind}.pem")));
    let made = Command::new(openssl)
        .args(["req", "-x509", "-nodes", "-days", "3", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-newkey"])
        .args(key)
        .arg("-out")
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1])
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(files)
}

const P256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn flags(files: &[PathBuf; 2]) -> [&str; 4] {
    let [certificate, key] = files.each_ref().map(|path| path.to_str().expect("text"));
    ["--tls-cert", certificate, "--tls-key", key]
}

/// A hub that speaks TLS, its address and its certificate.
fn start(folder: &Folder, more: &[&str]) -> Option<(Server, String, [PathBuf; 2])> {
    let files = certificate(folder, "hub", P256)?;
    let (server, address) = Server::start(&[&flags(&files)[..], more].concat());
    Some((server, address, files))
}

#[test]
fn every_kind_of_key_and_both_versions_are_served() {
    let folder = Folder::new("tls-keys");
    let kinds = [("p256", P256), ("ed25519", &["ed25519"]), ("rsa", &["rsa:2048"])];
    for (name, key) in kinds {
        let Some(files) = certificate(&folder, name, key) else { return };
        let (server, address) = Server::start(&flags(&files));
        for version in [&version::TLS13, &version::TLS12] {
            let mut peer = dial(&address, version).join("/ws");
            assert_eq!(peer.stream().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            peer.say("hello");
            peer.hears("hello");
            let long = "x".repeat(60_000);
            peer.say(&long);
            peer.hears(&long);
        }
        assert_eq!(server.stop(), Some(0), "{name}");
    }
}

/// What the socket does not take at once is the rest of a record.
#[test]
fn a_client_that_reads_late_gets_every_message_once() {
    let folder = Folder::new("tls-late");
    let more = ["--queue", "4096", "--queue-bytes", "64m", "--write-timeout", "1m"];
    let Some((server, address, _)) = start(&folder, &more) else { return };
    let mut late = connect(&address, "/ws?echo=0");
    let mut sender = connect(&address, "/ws");
    let text = |n: usize| format!("{n} {}", "x".repeat(n * 37 % 30_000));
    for n in 0..600 {
        sender.say(&text(n));
        sender.hears(&text(n));
    }
    // Meanwhile it may speak, and is answered behind all that waits.
    late.send(0x89, b"a ping");
    let mut pongs = 0;
    for n in 0..600 {
        loop {
            match late.receive() {
                (0x8a, payload) => {
                    assert_eq!(payload, b"a ping");
                    pongs += 1;
                }
                (_, payload) => {
                    assert!(payload == text(n).as_bytes(), "message {n}");
                    break;
                }
            }
        }
    }
    if pongs == 0 {
        assert_eq!(late.receive(), (0x8a, b"a ping".to_vec()));
    }
    drop((late, sender));
    assert_eq!(server.stop(), Some(0));
}

/// A stream without its last record is one that an attacker may have cut.
#[test]
fn every_end_is_said_in_tls() {
    let folder = Folder::new("tls-end");
    let Some((mut server, address, _)) = start(&folder, &[]) else { return };
    let mut peer = dial(&address, &version::TLS13);
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = peer.request(request);
    assert_eq!(answer.status, 200);
    peer.body(&answer);
    // It fails if the stream ends without a word.
    peer.ends();
    let mut peer = connect(&address, "/ws");
    server.signal(Signal::TERM);
    peer.is_closed(1012);
    peer.goodbye(1012);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn plain_bytes_on_a_port_that_speaks_tls_end_with_a_sentence() {
    let folder = Folder::new("tls-plain");
    let Some((mut server, address, _)) = start(&folder, &["--log", "debug"]) else { return };
    for (said, answers) in [(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], true), (b"\0\0", false)] {
        let mut peer = Peer::<TcpStream>::dial(&address);
        peer.write(said);
        let mut answer = Vec::new();
        let _ = peer.stream().read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.starts_with("HTTP/1.1 400 "), answers, "{answer}");
        assert_eq!(answer.contains("https:// or wss://"), answers, "{answer}");
        let line = server.logged("without TLS");
        assert!(line.contains("this port speaks TLS only"), "{line}");
        assert_eq!(line.starts_with("WARN "), answers, "the first is a warning: {line}");
    }
    let mut peer = connect(&address, "/ws");
    peer.say("others are served");
    peer.hears("others are served");
}

/// What the documentation calls off is refused, each with a sentence in the log.
#[test]
fn what_is_off_is_refused_with_a_sentence() {
    let folder = Folder::new("tls-off");
    let Some((mut server, address, _)) = start(&folder, &["--log", "debug"]) else { return };
    let openssl = program("openssl").expect("it made the certificate");
    let session = folder.0.join("session");
    // What is said, and its end: the answer of the hub, as openssl reports it.
    let ask = |flags: &[&str], said: &str| {
        let mut child = alone(&openssl)
            .args(["s_client", "-connect", &address, "-sess_out"])
            .arg(&session)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // It may have ended by now.
        let _ = child.stdin.take().expect("a pipe").write_all(said.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    };
    let incompatible = "TLS failed: the peer has no version, cipher or curve of ours";
    for (flags, flaw) in [
        (&["-tls1_1"][..], incompatible),
        (&["-tls1_2", "-cipher", "AES128-SHA"], incompatible),
        (&["-tls1_3", "-groups", "X448"], incompatible),
        (&["-tls1_3", "-alpn", "h2"], "TLS failed: the peer does not speak HTTP/1.1"),
    ] {
        let said = ask(flags, "");
        assert!(said.contains("alert"), "{flags:?}: {said}");
        server.logged(flaw);
    }
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let said = ask(&[version, "-ign_eof"], request);
        assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
        assert!(said.contains("New, TLSv1."), "{said}");
        let has_ticket =
            said.contains("TLS session ticket:") || said.contains("New Session Ticket");
        assert!(!has_ticket, "{said}");
    }
    assert!(!session.exists() || fs::read(&session).expect("it is there").is_empty());
    // openssl asks for new keys, is refused, and gives up.
    let said = ask(&["-tls1_2"], "R\n");
    assert!(said.contains("RENEGOTIATING") && !said.contains("HTTP/1.1"), "{said}");
    server.logged("TLS failed: the peer sent the alert");
    let mut peer = connect(&address, "/ws");
    assert_eq!(peer.stream().conn.tls13_tickets_received(), 0);
    peer.say("others are served");
    peer.hears("others are served");
}

#[test]
fn plain_and_unix_addresses_speak_no_tls() {
    let folder = Folder::new("tls-beside");
    let (path, unix) = folder.socket();
    let more = ["--listen", "plain:127.0.0.1:0", "--listen", &unix];
    let Some((mut server, secure, _)) = start(&folder, &more) else { return };
    let plain = server.listening();
    assert_eq!(server.listening(), unix);
    let mut peers = (
        connect(&secure, "/ws"),
        Peer::<TcpStream>::connect(&plain, "/ws"),
        Peer::<UnixStream>::connect(&path),
    );
    peers.0.say("to all");
    peers.0.hears("to all");
    peers.1.hears("to all");
    peers.2.hears("to all");
    // A record of TLS on the plain port.
    let mut peer = Peer::<TcpStream>::dial(&plain);
    peer.write(&[0x16, 3, 1, 0, 1, 1]);
    let mut answer = Vec::new();
    let _ = peer.stream().read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    let line = server.logged("speaks TLS");
    assert!(line.starts_with("WARN a peer speaks TLS, and this port does not"), "{line}");
}

#[test]
fn half_a_handshake_ends_at_the_deadline() {
    let folder = Folder::new("tls-half");
    let more = ["--handshake-timeout", "300ms", "--log", "debug"];
    let Some((mut server, address, _)) = start(&folder, &more) else { return };
    for said in [&b""[..], &[0x16], &[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3]] {
        let mut peer = Peer::<TcpStream>::dial(&address);
        peer.write(said);
        let mut answer = Vec::new();
        // It ends, by whatever way: the deadline of the peer is longer.
        let ended = peer.stream().read_to_end(&mut answer);
        let is_late =
            matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_late && answer.is_empty(), "{ended:?} {answer:?}");
        let line = server.logged("TLS failed");
        assert!(line.contains("the handshake of 127.0.0.1:") && line.ends_with("not over in time"));
    }
    let mut peer = connect(&address, "/ws");
    peer.say("others are served");
    peer.hears("others are served");
}

#[test]
fn files_that_are_no_pair_are_one_sentence_and_exit_code_2() {
    let folder = Folder::new("tls-files");
    let Some(files) = certificate(&folder, "one", P256) else { return };
    let other = certificate(&folder, "other", P256).expect("openssl is there");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let [certificate, key] = files.each_ref().map(|path| text(path));
    for (arguments, part) in [
        (vec!["--tls-cert", &*certificate], "--tls-cert and --tls-key go together"),
        (vec!["--tls-key", &*key], "--tls-cert and --tls-key go together"),
        (vec!["--tls-cert", "no-such", "--tls-key", &key], "no-such cannot be read"),
        (vec!["--tls-cert", &certificate, "--tls-key", "no-such"], "no-such cannot be read"),
        (vec!["--tls-cert", &key, "--tls-key", &key], "has no PEM section CERTIFICATE"),
        (vec!["--tls-cert", &certificate, "--tls-key", &certificate], "has no PEM section PRIVATE"),
        (
            vec!["--tls-cert", &certificate, "--tls-key", other[1].to_str().expect("text")],
            "the key is not that of the certificate",
        ),
    ] {
        let output = run(&mut hublet(&arguments));
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {sentence}");
        assert!(sentence.starts_with("hublet: ") && sentence.contains(part), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(output.stdout.is_empty());
    }
}

/// A pair of files is written in two steps, and clients come all the time.
#[test]
fn a_certificate_is_renewed_while_clients_come() {
    let folder = Folder::new("tls-renewed");
    let Some(library) = tools::faketime() else { return };
    let Some(files) = certificate(&folder, "hub", P256) else { return };
    let new = certificate(&folder, "new", P256).expect("openssl is there");
    // The clock of the hub is a hundred times as fast.
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--handshake-timeout", "1h"]);
    command.args(["--ping-interval", "10h", "--write-timeout", "10h"]);
    command.args(flags(&files)).env("LD_PRELOAD", library).env("FAKETIME", "+0 x100");
    let mut server = Server::of(&mut command);
    let address = server.listening();
    let served = |address: &str| {
        let mut peer = connect(address, "/ws");
        peer.say("hello");
        peer.hears("hello");
        peer.stream().conn.peer_certificates().expect("one")[0].to_vec()
    };
    let old = served(&address);
    let mut first = connect(&address, "/ws?echo=0");
    fs::copy(&new[0], &files[0]).expect("copied");
    let until = |what: &str, server: &mut Server| loop {
        let line = server.stderr.try_iter().find(|line| line.contains(what));
        if line.is_some() {
            break;
        }
        assert!(!served(&address).is_empty());
    };
    until("the certificate stays as it was: the key is not that of the certificate", &mut server);
    assert_eq!(served(&address), old);
    fs::copy(&new[1], &files[1]).expect("copied");
    until("the certificate was renewed", &mut server);
    assert_ne!(served(&address), old);
    // A connection from before is not touched.
    while first.receive().1 != b"hello" {}
}

/// A restart reads the pair anew. The keys of a connection stay in the process that was, so its client
/// is told to come back.
#[test]
fn a_restart_reads_the_files_and_tells_clients_to_come_back() {
    let folder = Folder::new("tls-restart");
    let beside = ["--listen", "plain:127.0.0.1:0"];
    let Some((mut server, address, files)) = start(&folder, &beside) else { return };
    let plain = server.listening();
    let served = || {
        let mut peer = connect(&address, "/ws?echo=0");
        peer.say("hello");
        let certificate = peer.stream().conn.peer_certificates().expect("one")[0].to_vec();
        (peer, certificate)
    };
    let mut beside = Peer::<TcpStream>::connect(&plain, "/ws");
    let (mut peer, old) = served();
    beside.hears("hello");
    // A pair that is none is seen before anything ends.
    let key = fs::read(&files[1]).expect("the key");
    fs::write(&files[1], "no key").expect("written");
    server.signal(Signal::USR2);
    let line = server.logged("restarted");
    assert!(line.contains("not restarted: "), "{line}");
    fs::write(&files[1], key).expect("written");
    let new = certificate(&folder, "new", P256).expect("openssl is there");
    fs::copy(&new[0], &files[0]).expect("copied");
    fs::copy(&new[1], &files[1]).expect("copied");
    server.signal(Signal::USR2);
    peer.is_closed(1012);
    server.logged("restarted as");
    let (_peer, renewed) = served();
    assert_ne!(renewed, old);
    beside.hears("hello");
    beside.say("the plain one goes on");
    beside.hears("the plain one goes on");
}

#[test]
fn pages_of_the_same_origin_are_let_in_over_tls() {
    let folder = Folder::new("tls-origin");
    let Some((_server, address, _)) = start(&folder, &[]) else { return };
    let upgrade = |origin: &str| {
        let request = crate::peer::upgrade("/ws").replacen(
            "\r\n\r\n",
            &format!("\r\nOrigin: {origin}\r\n\r\n"),
            1,
        );
        let host = request.lines().find_map(|line| line.strip_prefix("Host: "));
        let request = request.replacen(host.expect("a host"), &address, 1);
        dial(&address, &version::TLS13).request(&request).status
    };
    assert_eq!(upgrade(&format!("https://{address}")), 101);
    assert_eq!(upgrade("https://evil.example"), 403);
    let mut peer = dial(&address, &version::TLS13);
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let page = peer.request(&request);
    assert_eq!(page.status, 200);
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(policy.contains(&format!("wss://{address}")), "{policy}");
}

#[test]
fn health_of_a_port_that_speaks_tls_is_asked() {
    let folder = Folder::new("tls-health");
    let Some((server, address, files)) = start(&folder, &["--log", "warn"]) else { return };
    let plain = ["--listen", &*address, "--health"];
    let ask = |more: &[&str]| run(hublet(&plain).args(more)).status.code();
    assert_eq!(ask(&flags(&files)), Some(0));
    assert_eq!(ask(&[]), Some(1), "it speaks no HTTP");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(ask(&flags(&files)), Some(1));
}

/// Under a ceiling TLS counts too, and clients that read nothing are evicted.
#[test]
fn a_ceiling_holds_with_clients_that_read_nothing() {
    let folder = Folder::new("tls-ceiling");
    let Some((mut server, address, _)) = start(&folder, &["--max-memory", "16m"]) else { return };
    let stuck: Vec<_> = (0..40).map(|_| connect(&address, "/ws?echo=0")).collect();
    let mut sender = connect(&address, "/ws");
    for n in 0..100 {
        let text = format!("{n} {}", "x".repeat(16_000));
        sender.say(&text);
        sender.hears(&text);
    }
    server.logged("(4108");
    drop((stuck, sender));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn clients_of_others_speak_tls() {
    let folder = Folder::new("tls-clients");
    // The clients take their time, and a ping between two messages is none that a client has sent.
    let more = ["--ping-interval", "1h"];
    let Some((_server, address, files)) = start(&folder, &more) else { return };
    let port = address.rsplit(':').next().expect("a port");
    let ca = files[0].to_str().expect("text");
    let mut peer = connect(&address, "/ws/news");
    if let Some(curl) = program("curl") {
        let url = format!("https://localhost:{port}/pub/news");
        let output = alone(curl)
            .args(["-sS", "--cacert", ca, "-w", " %{http_code} %{http_version}", "-d", "by curl"])
            .arg(url)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("\"recipients\":1"), "{output:?}");
        assert!(said.ends_with(" 202 1.1") || said.ends_with(" 200 1.1"), "{said}");
        peer.hears("by curl");
    }
    if let Some(openssl) = program("openssl") {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut child = alone(&openssl)
                .args(["s_client", "-quiet", "-verify_return_error", "-CAfile", ca, version])
                .args(["-alpn", "h2,http/1.1", "-connect", &address])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("it runs");
            let mut stdin = child.stdin.take().expect("a pipe");
            let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stdin.write_all(request).expect("it reads");
            let output = child.wait_with_output().expect("it ends");
            drop(stdin);
            assert!(output.stdout.starts_with(b"HTTP/1.1 200 "), "{version}: {output:?}");
        }
    }
    let url = format!("wss://localhost:{port}/ws/news");
    if let Some(mut python) = tools::python("tests/cli/wss.py") {
        let status = python.args([&url, ca]).stdin(Stdio::null()).status().expect("it runs");
        assert!(status.success());
        peer.hears("by Python");
    }
    if let Some(mut node) = tools::node("tests/cli/wss.mjs") {
        let status = node.arg(&url).env("NODE_EXTRA_CA_CERTS", ca).stdin(Stdio::null()).status();
        assert!(status.expect("it runs").success());
        peer.hears("by Node");
    }
    if let Some(mut chromium) = tools::chromium("tests/cli/wss_page.mjs") {
        let page = chromium.arg(format!("https://localhost:{port}/")).stdin(Stdio::null());
        assert!(page.status().expect("it runs").success());
        peer.hears("by Chromium");
    }
    peer.send(BINARY, b"still here");
    assert_eq!(peer.receive(), (BINARY, b"still here".to_vec()));
}
