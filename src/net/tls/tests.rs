//! Certificates, renewal and records, without a socket.

use std::fs;
use std::io::{self, IoSlice, Read as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_lite::future::block_on;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConnection, Error};

use crate::memory::budget::MemoryBudget;
use crate::memory::read_buffers::{READ_BUFFER_BYTES, ReadBuffer};
use crate::net::acceptor::Acceptor as _;
use crate::net::incoming::Incoming;
use crate::net::listener::Listener;
use crate::net::stream::Transport as _;
use crate::net::tls::acceptor::Secure;
use crate::net::tls::certificate::Tls;
use crate::net::tls::pair::{CERTIFICATE, KEY};
use crate::net::tls::session::Session;
use crate::net::tls::trusting_client::trusting_client;
use crate::time::virtual_time::VirtualTime;

const OTHER_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUEkNx5Bhggm3qbuOn7yrBUWdPUPgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDA3MjQ0N1oYDzIxMjYxMTA2
MDcyNDQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARQRwnqOweQiftI1n5VyalME6giDmJuLfF2MrAXvsVMwNmMPKX0MywO
4c03GsAlf5cRyw3HIEjaEIXvGKxjokW+o28wbTAdBgNVHQ4EFgQU+29TW9qojfqr
svkZjBwNOIPjLnMwHwYDVR0jBBgwFoAU+29TW9qojfqrsvkZjBwNOIPjLnMwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgR/IYiUzfDPmfKh3EFI6+Pxmft8NVvVDANqFy6W8eUVACIQC5
CIVXTz7aiT37Y6qlhcRTq3K7WNUmdeSEqjaxNbFPBw==
-----END CERTIFICATE-----
";
const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4F6aI+AYIp9J7Uyo
9rcDBJeVcmqI2eKT/uLQ8EJNuwuhRANCAARQRwnqOweQiftI1n5VyalME6giDmJu
LfF2MrAXvsVMwNmMPKX0MywO4c03GsAlf5cRyw3HIEjaEIXvGKxjokW+
-----END PRIVATE KEY-----
";

/// A folder with the files of a pair.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hublet-tls-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let files = Self(folder);
        files.put("cert.pem", CERTIFICATE);
        files.put("key.pem", KEY);
        files
    }

    /// Writes a file, with a time that no file had before.
    fn put(&self, name: &str, text: &str) {
        use std::sync::atomic::{AtomicU64, Ordering};
        static TIME: AtomicU64 = AtomicU64::new(1_000_000);
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        let time = Duration::from_secs(TIME.fetch_add(1, Ordering::Relaxed));
        let file = fs::File::options().append(true).open(&path).expect("it is there");
        file.set_modified(std::time::UNIX_EPOCH + time).expect("set");
    }

    fn tls(&self) -> Result<Tls, crate::error::Error> {
        Tls::from_files(self.0.join("cert.pem"), self.0.join("key.pem"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A session and its client, behind the handshake.
struct Pair {
    session: Session,
    client: ClientConnection,
    memory: Arc<MemoryBudget>,
    scratch: Box<ReadBuffer>,
}

impl Pair {
    fn new(tls: &Tls, version: &'static rustls::SupportedProtocolVersion) -> Self {
        let memory = Arc::<MemoryBudget>::default();
        let server = UnbufferedServerConnection::new(Arc::clone(&tls.0.config)).expect("valid");
        let session = Session::new(server, memory.charge(0));
        let scratch = Box::new([0; READ_BUFFER_BYTES]);
        let mut pair = Self { session, client: trusting_client(version, &[]), memory, scratch };
        while pair.session.is_handshaking() || pair.client.is_handshaking() {
            assert_eq!(pair.say().expect("it keeps the rules"), b"");
            pair.flush();
        }
        pair
    }

    /// Hands the session what the client has written; returns what it has become.
    fn say(&mut self) -> Result<Vec<u8>, Error> {
        let mut written = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut written).expect("into memory");
        }
        self.hear(&written)
    }

    fn hear(&mut self, written: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        for piece in written.chunks(1000) {
            let kept = self.session.put_kept(&mut self.scratch);
            self.scratch[kept..kept + piece.len()].copy_from_slice(piece);
            let bytes = &mut self.scratch[..kept + piece.len()];
            self.session.receive(bytes, &mut |bytes| plain.extend_from_slice(bytes))?;
        }
        Ok(plain)
    }

    /// Hands the client what the session has to say.
    fn flush(&mut self) {
        let client = &mut self.client;
        self.session.flush(&mut |bytes| take(client, bytes)).expect("there is room");
    }

    fn heard(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.client.reader().read_to_end(&mut heard);
        heard
    }
}

fn take(client: &mut ClientConnection, bytes: &[u8]) -> io::Result<usize> {
    let n = client.read_tls(&mut &bytes[..bytes.len().min(4000)])?;
    client.process_new_packets().map_err(io::Error::other)?;
    Ok(n)
}

#[test]
fn a_pair_that_is_none_is_refused_with_a_sentence() {
    let refused = |certificate: &str, key: &str| {
        let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes());
        tls.err().map(|error| error.to_string())
    };
    assert_eq!(refused(CERTIFICATE, KEY), None);
    assert_eq!(refused(OTHER_CERTIFICATE, OTHER_KEY), None);
    for (certificate, key, sentence) in [
        ("", KEY, "the certificate has no PEM section CERTIFICATE"),
        (KEY, KEY, "the certificate has no PEM section CERTIFICATE"),
        (CERTIFICATE, "", "the key has no PEM section PRIVATE KEY that is not encrypted"),
        (CERTIFICATE, CERTIFICATE, "the key has no PEM section PRIVATE KEY that is not encrypted"),
        (CERTIFICATE, OTHER_KEY, "the key is not that of the certificate"),
    ] {
        assert_eq!(refused(certificate, key).as_deref(), Some(sentence));
    }
    // Whose public key is another.
    let broken = CERTIFICATE.replace("DRzK4M3H", "AAAAAAAA");
    assert_eq!(refused(&broken, KEY).as_deref(), Some("the key is not that of the certificate"));
    let broken = KEY.replace("MIGHAg", "AAAAAA");
    assert_eq!(
        refused(CERTIFICATE, &broken).as_deref(),
        Some("the key is none that TLS can use: ECDSA P-256 or P-384, Ed25519 or RSA")
    );
    let files = Files::new("refused");
    files.put("key.pem", OTHER_KEY);
    let sentence = files.tls().expect_err("they do not fit").to_string();
    assert!(sentence.starts_with("the key is not that of the certificate ("), "{sentence}");
    assert!(sentence.contains("cert.pem") && sentence.contains("key.pem"), "{sentence}");
    fs::remove_file(files.0.join("cert.pem")).expect("it was there");
    let sentence = files.tls().expect_err("one is missing").to_string();
    assert!(sentence.contains("cert.pem cannot be read: "), "{sentence}");
    // The system says that a device has no bytes. This one never ends.
    let endless = Tls::from_files("/dev/zero", files.0.join("key.pem"));
    let sentence = endless.expect_err("it does not end").to_string();
    assert_eq!(sentence, "/dev/zero has more than 262144 bytes");
}

#[test]
fn a_pair_is_renewed_at_a_handshake_a_minute_later_if_it_fits() {
    let time = VirtualTime::start();
    let files = Files::new("renewed");
    let tls = files.tls().expect("a pair");
    let serves = || {
        tls.0.renew();
        let pair = Pair::new(&tls, &rustls::version::TLS13);
        let chain = pair.client.peer_certificates().expect("one").to_vec();
        use rustls::pki_types::pem::PemObject as _;
        let is = |pem: &str| {
            chain[0] == CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
        };
        assert!(is(CERTIFICATE) != is(OTHER_CERTIFICATE));
        if is(CERTIFICATE) { "old" } else { "new" }
    };
    assert_eq!(serves(), "old");
    files.put("cert.pem", OTHER_CERTIFICATE);
    time.advance(Duration::from_secs(60));
    assert_eq!(serves(), "old", "the key is not written yet");
    files.put("key.pem", OTHER_KEY);
    time.advance(Duration::from_secs(59));
    assert_eq!(serves(), "old", "looked at once a minute");
    time.advance(Duration::from_secs(1));
    assert_eq!(serves(), "new");
    files.put("key.pem", KEY);
    time.advance(Duration::from_secs(60));
    assert_eq!(serves(), "new");
    // Without a change nothing is read: the files may go.
    files.put("cert.pem", "");
    time.advance(Duration::from_secs(60));
    assert_eq!(serves(), "new", "a pair that is none is not taken");
    files.put("cert.pem", CERTIFICATE);
    files.put("key.pem", KEY);
    time.advance(Duration::from_secs(60));
    assert_eq!(serves(), "old");
}

#[test]
fn what_the_peer_says_arrives_in_any_pieces() {
    let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a pair");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut pair = Pair::new(&tls, version);
        assert_eq!(pair.client.alpn_protocol(), None, "it has offered none");
        let message: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
        use io::Write as _;
        let mut said = 0;
        let mut heard = Vec::new();
        while said < message.len() {
            said += pair.client.writer().write(&message[said..]).expect("into memory");
            heard.extend(pair.say().expect("it keeps the rules"));
        }
        assert!(heard == message, "in order and whole");
        pair.client.send_close_notify();
        assert_eq!(pair.say().expect("it keeps the rules"), b"");
        assert!(pair.session.has_ended);
        // The other direction goes on until it is closed.
        let frames = [IoSlice::new(b"bye")];
        let client = &mut pair.client;
        let written = pair.session.write(&frames, &mut pair.scratch, &mut |b| take(client, b));
        assert_eq!(written.expect("there is room"), 3);
        pair.session.close();
        pair.flush();
        assert_eq!(pair.heard(), b"bye");
        drop(pair.session);
        assert_eq!(pair.memory.charged(), 0);
    }
}

/// The order of a queue: the rest of what has begun comes first, and then anything.
#[test]
fn a_record_that_the_socket_cuts_is_sent_whole_and_once() {
    let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a pair");
    let mut rng = Rng::with_seed(7);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut pair = Pair::new(&tls, version);
        let (mut expected, mut heard) = (Vec::new(), Vec::new());
        for round in 0..200 {
            let lengths = [1, 2, rng.usize(1..300), rng.usize(1..40_000)];
            let mut frames: Vec<Vec<u8>> = Vec::new();
            for _ in 0..rng.usize(1..4) {
                let len = lengths[rng.usize(..lengths.len())];
                frames.push((0..len).map(|n| (n + round) as u8).collect());
            }
            let all = frames.concat();
            expected.extend_from_slice(&all);
            let mut done = 0;
            while done < all.len() {
                let mut room = rng.usize(..2000);
                let slices = slices(&frames, done);
                let client = &mut pair.client;
                let mut took = false;
                let written = pair.session.write(&slices, &mut pair.scratch, &mut |bytes| {
                    let n = bytes.len().min(room);
                    if n == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let n = take(client, &bytes[..n])?;
                    (room, took) = (room - n, true);
                    Ok(n)
                });
                match written {
                    Ok(n) => {
                        assert!(n > 0 && done + n <= all.len());
                        done += n;
                        // What is not handed over whole is not called done.
                        assert!(done < all.len() || !pair.session.has_unsent());
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                let progressed = std::mem::take(&mut pair.session.has_progressed);
                assert!(took || !progressed);
                heard.extend(pair.heard());
            }
        }
        assert!(heard == expected, "in order and nothing twice");
    }
}

/// The rest of frames from a byte on.
fn slices(frames: &[Vec<u8>], mut from: usize) -> Vec<IoSlice<'_>> {
    let mut slices = Vec::new();
    for frame in frames {
        if from < frame.len() {
            slices.push(IoSlice::new(&frame[from..]));
        }
        from = from.saturating_sub(frame.len());
    }
    slices
}

/// Invariant 12: what no record is ends the session, and so does a message of TLS that is divided
/// over more records than it may be.
#[test]
fn a_peer_that_breaks_the_rules_is_refused_and_costs_no_memory() {
    let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a pair");
    let (mut rng, mut alerts) = (Rng::with_seed(3), 0);
    for round in 0..300 {
        let mut pair = Pair::new(&tls, &rustls::version::TLS13);
        let mut bytes: Vec<u8> = (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect();
        if round % 2 == 0 {
            // A record that promises what does not come, or is not encrypted with the key.
            bytes.splice(..0, [0x17, 3, 3, rng.u8(..80), rng.u8(..)]);
        }
        for _ in 0..READ_BUFFER_BYTES {
            if pair.hear(&bytes).is_err() {
                assert!(pair.session.has_ended);
                let frames = [IoSlice::new(b"hello")];
                let written = pair.session.write(&frames, &mut pair.scratch, &mut |b| Ok(b.len()));
                assert!(written.is_err());
                pair.session.close();
                let mut alert = Vec::new();
                let _ = pair.session.flush(&mut |bytes| {
                    alert.extend_from_slice(bytes);
                    Ok(bytes.len())
                });
                alerts += usize::from(!alert.is_empty());
                break;
            }
            assert!(pair.memory.charged() < 40_000);
            // A push between two reads finds the session as the reads have left it.
            let client = &mut pair.client;
            let frames = [IoSlice::new(b"hello")];
            let written = pair.session.write(&frames, &mut pair.scratch, &mut |b| take(client, b));
            assert_eq!(written.expect("there is room"), 5);
        }
        assert!(pair.session.has_ended, "round {round}");
    }
    assert!(alerts > 100, "{alerts} of them heard an alert");
    // A handshake that never comes whole.
    let memory = Arc::<MemoryBudget>::default();
    let server = UnbufferedServerConnection::new(Arc::clone(&tls.0.config)).expect("valid");
    let mut session = Session::new(server, memory.charge(0));
    let mut scratch = Box::new([0; READ_BUFFER_BYTES]);
    let record = [&[0x16, 3, 1, 4, 0, 1, 0, 0xff, 0xff][..], &[0; 1020]].concat();
    let ended = (0..100).any(|_| {
        let kept = session.put_kept(&mut scratch);
        scratch[kept..kept + record.len()].copy_from_slice(&record);
        assert!(memory.charged() < 40_000);
        session
            .receive(&mut scratch[..kept + record.len()], &mut |_| panic!("no plaintext"))
            .is_err()
    });
    assert!(ended && session.has_ended);
}

/// The keys of an encrypted connection stay in this process, so its client is told to come back.
#[test]
fn another_process_can_take_over_a_plain_socket_and_no_encrypted_one() {
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("of TCP");
    let incoming = Incoming::new(listener).expect("it listens");
    let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a pair");
    let memory = Arc::<MemoryBudget>::default();
    let accepted = |tls| {
        let client = TcpStream::connect(address).expect("it listens");
        let (socket, _) = loop {
            match incoming.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.expect("a connection"),
            }
        };
        (client, Secure::new(tls, &memory).accept(socket))
    };
    let (_client, plain) = accepted(None);
    let plain = block_on(plain).expect("nothing to do");
    assert!(plain.handle().is_some() && plain.direct_writer().is_some());
    let (mut socket, encrypted) = accepted(Some(tls));
    let client = std::thread::spawn(move || {
        let mut client = trusting_client(&rustls::version::TLS13, &[]);
        while client.is_handshaking() {
            client.complete_io(&mut socket).expect("it keeps the rules");
        }
        (client, socket)
    });
    let encrypted = block_on(encrypted).expect("the client keeps the rules");
    drop(client.join().expect("it ends"));
    assert!(encrypted.handle().is_none() && encrypted.direct_writer().is_some());
}
