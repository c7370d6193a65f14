//! The handshake: the status for requests that are no upgrade, and that slow peers keep no other
//! client out.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Handler, Listener, Message, Peer as Source};
use smol::{Executor, block_on};

use crate::peer::{DEADLINE, Peer, TEXT, frame, upgrade};
use crate::support::{Chat, TestHub, alone, can_open, skip, until};

fn routed() -> TestHub {
    TestHub::with(Config::default().http(true))
}

/// Every kind of request that is no valid upgrade, and its status.
fn malformed() -> Vec<(&'static str, String, u16)> {
    let good = upgrade("/ws");
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let with =
        |line: &str| replaced("Host: localhost\r\n", &format!("Host: localhost\r\n{line}\r\n"));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    vec![
        ("a plain GET", "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".into(), 426),
        ("no Upgrade", replaced("Upgrade: websocket\r\n", ""), 426),
        ("another Upgrade", replaced("Upgrade: websocket", "Upgrade: h2c"), 426),
        ("no Connection", replaced("Connection: Upgrade\r\n", ""), 426),
        ("another Connection", replaced("Connection: Upgrade", "Connection: keep-alive"), 426),
        ("HTTP/1.0", replaced("HTTP/1.1", "HTTP/1.0"), 426),
        ("no version", replaced("Sec-WebSocket-Version: 13\r\n", ""), 426),
        ("version 8", replaced("Version: 13", "Version: 8"), 426),
        ("two versions", with("Sec-WebSocket-Version: 13"), 426),
        ("no key", replaced(key, ""), 400),
        ("two keys", with(key.trim_end()), 400),
        ("a short key", replaced("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        (
            "a key that is no base64",
            replaced("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="),
            400,
        ),
        ("a body", with("Content-Length: 5"), 400),
        ("two lengths", with("Content-Length: 0\r\nContent-Length: 1"), 400),
        ("a negative length", with("Content-Length: -1"), 400),
        ("a chunked body", with("Transfer-Encoding: chunked"), 400),
        ("a transfer encoding", with("Transfer-Encoding: gzip"), 501),
        (
            "a length and a transfer encoding",
            with("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            400,
        ),
        ("no Host", replaced("Host: localhost\r\n", ""), 400),
        ("two Hosts", with("Host: elsewhere"), 400),
        ("another method", replaced("GET", "POST"), 405),
        ("a path that is not there", replaced("/ws", "/elsewhere"), 404),
        ("HTTP/2", replaced("HTTP/1.1", "HTTP/2.0"), 505),
        ("no HTTP at all", "hello\r\n\r\n".into(), 400),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".into(), 400),
        ("bare line feeds", good.replace("\r\n", "\n"), 400),
        ("a folded header", with("X-Folded: a\r\n b"), 400),
        ("a space before a colon", with("X-Space : a"), 400),
        ("a foreign origin", with("Origin: https://evil.example"), 403),
        ("no origin's origin", with("Origin: null"), 403),
        ("a head of 64 KiB", with(&format!("X-Long: {}", "x".repeat(64 * 1024))), 431),
        ("65 headers", with(&vec!["X: y"; 60].join("\r\n")), 431),
    ]
}

#[test]
fn invalid_upgrades_are_answered_with_their_status_and_a_sentence() {
    let hub = routed();
    for (what, request, status) in malformed() {
        let mut peer = hub.dial();
        let response = peer.request(&request);
        assert_eq!(response.status, status, "{what}: {response:?}");
        if status == 426 {
            assert_eq!(response.header("Upgrade"), Some("websocket"), "{what}");
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"), "{what}");
        }
        if status == 405 {
            let allowed = response.header("Allow").expect("what is allowed");
            assert!(allowed.split(", ").any(|method| method == "GET"), "{what}: {allowed}");
        }
        let length = response.header("Content-Length").and_then(|len| len.parse().ok());
        assert!(length > Some(10), "{what}: a sentence");
    }
    let refused = hub.hub.stats().upgrades_refused;
    assert_eq!((refused, hub.hub.stats().clients), (malformed().len() as u64, 0));
    hub.empties();
}

#[test]
fn case_and_order_and_other_headers_do_not_matter() {
    let hub = routed();
    for request in [
        upgrade("/ws")
            .to_ascii_lowercase()
            .replace("get /ws http", "GET /ws HTTP")
            .replace("dghlihnhbxbszsbub25jzq==", "dGhlIHNhbXBsZSBub25jZQ=="),
        upgrade("/ws").replace("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        upgrade("/ws").replace("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        upgrade("/ws").replace("Host: localhost", "Host: localhost:80\r\nOrigin: http://LOCALHOST"),
        upgrade("http://localhost/ws"),
    ] {
        let response = hub.dial().request(&request);
        assert_eq!(response.status, 101, "{request}");
        // RFC 6455 1.3 has this key and this answer.
        let accept = response.header("Sec-WebSocket-Accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
}

/// A client misses no message after its 101.
#[test]
fn client_with_a_101_is_registered() {
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, Config::default(), crate::support::Chat);
        let mut peers: Vec<Peer<TcpStream>> = Vec::new();
        for n in 1..=100 {
            peers.push(hub.join());
            assert_eq!((hub.hub.stats().clients, hub.broadcast("welcome")), (n, n));
        }
        peers.iter_mut().for_each(|peer| peer.hears("welcome"));
    }
}

#[test]
fn bytes_after_the_head_are_not_lost() {
    let hub = TestHub::start();
    let mut early = upgrade("/ws").into_bytes();
    for n in 0..100 {
        early.extend(frame(TEXT, format!("early {n}").as_bytes()));
    }
    let last = frame(TEXT, b"the last in two parts");
    early.extend(&last[..10]);
    let mut peer = hub.dial();
    peer.write(&early);
    assert_eq!(peer.response().status, 101);
    for n in 0..100 {
        peer.hears(&format!("early {n}"));
    }
    peer.write(&last[10..]);
    peer.hears("the last in two parts");
}

/// Invariant 3: a head that comes byte by byte has the deadline of the whole handshake.
#[test]
fn slow_head_has_one_deadline() {
    let hub = TestHub::with(Config::default().handshake_timeout(Duration::from_millis(500)));
    let mut peer = hub.dial();
    let begin = Instant::now();
    let mut sent = 0;
    for byte in upgrade("/ws").bytes().cycle() {
        peer.write(&[if byte == b'\r' || byte == b'\n' { b'x' } else { byte }]);
        sent += 1;
        if begin.elapsed() > Duration::from_millis(300) {
            break;
        }
        // The sleep makes the peer slow. It waits for no event.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(sent > 5);
    assert_eq!(peer.response().status, 408);
    assert!(begin.elapsed() >= Duration::from_millis(500));
    drop(peer);
    hub.empties();
}

/// A 408 would be the answer to the next request of a client that keeps connections in a pool.
#[test]
fn peer_that_never_sent_a_byte_is_closed_without_a_word_and_not_counted() {
    let hub = TestHub::with(Config::default().handshake_timeout(Duration::from_millis(200)));
    let mut silent = hub.dial();
    silent.ends();
    let mut only_empty_lines = hub.dial();
    only_empty_lines.write(b"\r\n");
    only_empty_lines.ends();
    drop(hub.dial());
    hub.empties();
    assert_eq!(hub.hub.stats().upgrades_refused, 0);
}

/// 500 peers send nothing, or half of a request: more than there are handshake slots.
#[test]
fn half_handshakes_do_not_keep_a_client_out() {
    const HALVES: usize = 500;
    alone(half_handshakes_do_not_keep_a_client_out, || {
        if !can_open(2 * HALVES as u64 + 100) {
            return skip("500 half handshakes need 1,100 file descriptors");
        }
        const { assert!(HALVES > Config::HANDSHAKES) };
        let request = upgrade("/ws");
        for half in [0, request.len() / 2] {
            let hub = TestHub::with(Config::default().handshake_timeout(Duration::from_secs(2)));
            let mut peers: Vec<_> = (0..HALVES).map(|_| hub.dial()).collect();
            peers.iter_mut().for_each(|peer| peer.write(&request.as_bytes()[..half]));
            until("every slot is taken", || hub.hub.stats().connections >= Config::HANDSHAKES);
            let begin = Instant::now();
            let mut client = hub.join();
            client.say("I am in");
            client.hears("I am in");
            assert!(begin.elapsed() < DEADLINE / 2, "only after {:?}", begin.elapsed());
            drop((client, peers));
            hub.empties();
        }
    });
}

/// A client that pipelines requests does not keep its handshake slot for ever. The hub reads the
/// start of a request together with the last one, or finds all of it in the socket.
#[test]
fn pipelined_requests_do_not_keep_a_client_out() {
    // One request is as long as one read. The first case sends a byte of the next one with each.
    let request = "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ";
    let request = format!("{request}{}\r\n\r\n", "x".repeat(1024 - request.len() - 4));
    let (beginning, rest) = request.as_bytes().split_at(1);
    for (ahead, then) in [
        (beginning.to_vec(), [rest, beginning].concat()),
        (request.as_bytes().repeat(9), request.as_bytes().to_vec()),
    ] {
        let hub = TestHub::with(Config::default().http(true).handshakes(2));
        let over = AtomicBool::new(false);
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut peer = hub.dial();
                let (ahead, then, over, answered) = (&ahead, &then, &over, &answered);
                scope.spawn(move || {
                    peer.write(ahead);
                    while !over.load(Ordering::Relaxed) {
                        peer.write(then);
                        assert_eq!(peer.response().status, 200);
                        peer.read("ok".len());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            until("they have slots", || answered.load(Ordering::Relaxed) > 100);
            let joined = scope.spawn(|| drop(hub.join())).join();
            over.store(true, Ordering::Relaxed);
            joined.expect("it gets in meanwhile");
        });
    }
}

/// An accept loop that waits for a connection occupies no handshake slot.
#[test]
fn waiting_accept_loops_occupy_no_handshake_slot() {
    let timeout = Duration::from_millis(500);
    for (places, listeners) in [(1, 1), (2, 2)] {
        let config = Config::default().http(true).handshakes(places).handshake_timeout(timeout);
        let config = config.drain(Duration::ZERO);
        let hub = TestHub::with(config);
        let others: Vec<_> = (1..listeners)
            .map(|_| {
                let listener = Listener::bind("127.0.0.1:0").expect("a free port");
                let (hub, executor) = (hub.hub.clone(), Arc::new(Executor::new()));
                thread::spawn(move || {
                    let serving = hub.serve(&executor, listener, Chat);
                    block_on(executor.run(serving)).expect("it serves until a drain");
                })
            })
            .collect();
        let mut peer = hub.dial();
        for nth in 0..3 {
            let answer = peer.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.status, 200, "request {nth}, {places} places");
            peer.read("ok".len());
        }
        drop(peer.join("/ws"));
        block_on(hub.hub.drain(Disconnect::GOING_AWAY));
        others.into_iter().for_each(|other| other.join().expect("it ends with the drain"));
    }
}

/// A silent peer with the only handshake slot keeps it while no other connection is pending.
#[test]
fn silent_peer_keeps_its_slot_while_no_other_waits() {
    let hub = TestHub::with(Config::default().http(true).handshakes(1));
    let mut peer = hub.dial();
    // Longer than a silent peer keeps a slot if others wait.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(peer.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

#[test]
fn new_clients_get_503_at_the_limit_until_one_leaves() {
    let hub = TestHub::with(Config::default().http(true).max_clients(Some(10)));
    let mut inside: Vec<_> = (0..10).map(|_| hub.join()).collect();
    for _ in 0..40 {
        let mut peer = hub.dial();
        let response = peer.request(&upgrade("/ws"));
        assert_eq!((response.status, response.header("Retry-After")), (503, Some("5")));
    }
    let mut health = hub.dial();
    assert_eq!(health.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(hub.broadcast("only us"), 10);
    inside.iter_mut().for_each(|peer| peer.hears("only us"));
    inside.pop();
    until("a client has left", || hub.hub.stats().clients == 9);
    // The permit is released with the connection, soon after the client leaves the registry.
    until("a new client is admitted", || Peer::ask(&hub.address, "/ws").1 == 101);
}

#[test]
fn clients_of_one_address_are_limited() {
    let hub = TestHub::with(Config::default().max_clients_per_ip(Some(2)));
    let inside = [hub.join(), hub.join()];
    let response = hub.dial().request(&upgrade("/ws"));
    assert_eq!((response.status, response.header("Retry-After")), (503, Some("5")));
    drop(inside);
    hub.empties();
    drop(hub.join());
}

/// Hooks that refuse, panic, or never end.
struct Doorman;

impl Handler for Doorman {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        match request.uri().path() {
            "/panic" => panic!("a hook panics, as a test"),
            "/never" => std::future::pending().await,
            "/rooms" => Ok((0..9).fold(Admission::anonymous(), |all, n| all.room(n.to_string()))),
            "/teapot" => Err(StatusCode::IM_A_TEAPOT),
            _ => Ok(Admission::anonymous()),
        }
    }

    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

#[test]
fn failing_hook_is_answered_with_a_status() {
    let config = Config::default().handshake_timeout(Duration::from_millis(300));
    let hub = TestHub::serving(config, Doorman);
    for (path, status) in [("/panic", 500), ("/never", 408), ("/rooms", 500), ("/teapot", 418)] {
        assert_eq!(Peer::ask(&hub.address, path).1, status, "{path}");
    }
    assert_eq!(hub.hub.stats().clients, 0);
    assert_eq!(Peer::ask(&hub.address, "/").1, 101);
    hub.empties();
}

#[test]
fn listed_origins_are_admitted_and_no_hook_runs_for_others() {
    let config = Config::default().origins(vec!["https://app.example".into()]);
    let hub = TestHub::serving(config, Doorman);
    let ask = |path: &str, origin: &str| {
        let lines = format!("Host: localhost\r\nOrigin: {origin}");
        hub.dial().request(&upgrade(path).replace("Host: localhost", &lines)).status
    };
    assert_eq!(ask("/", "https://app.example"), 101);
    assert_eq!(ask("/", "http://localhost"), 101);
    assert_eq!(ask("/", "https://app.example.evil.example"), 403);
    assert_eq!(ask("/panic", "https://evil.example"), 403, "the hook would have panicked");
}
