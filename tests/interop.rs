//! The hub and clients that others wrote. Each does the exchange of `tests/interop/exchange.mjs`
//! and judges what it receives; this side judges what arrived.

mod tools;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Handler, Hub, Listener, Message, Peer};
use smol::Executor;

/// A client has this long for everything, its own start included.
const DEADLINE: Duration = Duration::from_secs(60);

/// The one subprotocol that the hub speaks; clients offer another before it.
const PROTOCOL: &str = "interop.v2";

/// Hands on what it sees, and gives every message to everyone in the room.
struct Witness(Sender<Event>);

#[derive(Debug, PartialEq)]
enum Event {
    Message(Message),
    End(Disconnect),
}

impl Handler for Witness {
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        let offers = request.headers().get_all("sec-websocket-protocol").into_iter();
        let mut offers = offers.filter_map(|offer| offer.to_str().ok()).flat_map(|o| o.split(','));
        if offers.any(|offer| offer.trim() == PROTOCOL) {
            Ok(Admission::anonymous().room("interop").protocol(PROTOCOL))
        } else {
            Err(StatusCode::BAD_REQUEST)
        }
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        self.0.send(Event::Message(message.clone())).map_err(|_| Disconnect::INTERNAL)?;
        let close = message.as_text() == Some("close me");
        let published = client.hub().publish("interop", message).await;
        published.map_err(|_| Disconnect::INTERNAL)?;
        if close { Err(Disconnect::new(4000, "as you asked")) } else { Ok(()) }
    }

    async fn on_disconnect(&self, _: &Client, reason: &Disconnect) {
        // The other end is gone if the test has failed already.
        let _ = self.0.send(Event::End(reason.clone()));
    }
}

/// Lets a client do its exchange with a hub, if there is such a client here.
#[track_caller]
fn exchange(client: Option<Command>) {
    let Some(client) = client else { return };
    let executor = Arc::new(Executor::new());
    // With `http` there is a page of the hub's own origin for a browser to stand on.
    let (hub, manager) = Hub::new(Config::default().http(true)).expect("a valid configuration");
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{listener}/ws/interop");
    let (sender, events) = channel();
    let serving = {
        let (hub, executor) = (hub.clone(), Arc::clone(&executor));
        thread::spawn(move || {
            smol::block_on(executor.run(async {
                let manager = executor.spawn(manager);
                hub.serve(&executor, listener, Witness(sender)).await.expect("it serves");
                manager.await;
            }));
        })
    };
    run(client, &url);
    smol::block_on(hub.drain(Disconnect::GOING_AWAY));
    serving.join().expect("the hub ended well");
    judge(&events, &hub);
}

/// Runs a client to its end, which it must reach in time, and well.
#[track_caller]
fn run(mut client: Command, url: &str) {
    client.arg(url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().expect("it starts");
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let end = Instant::now() + DEADLINE;
    let mut ended_by = |pipe: &Receiver<String>| {
        let waited = pipe.recv_timeout(end.saturating_duration_since(Instant::now()));
        if waited == Err(RecvTimeoutError::Timeout) {
            child.kill().expect("it can be ended");
        }
        waited.ok()
    };
    let said = ended_by(&stdout);
    let complained = ended_by(&stderr).unwrap_or_default();
    let status = child.wait().expect("its end");
    std::io::stderr().write_all(complained.as_bytes()).expect("standard error is open");
    assert!(status.success(), "{client:?} ended with {status}: {complained}");
    assert_eq!(said.as_deref().map(str::trim), Some("done"));
}

/// The whole of a pipe, once it has ended.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let mut pipe = pipe.expect("it is piped");
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // What could be read before an error is worth showing.
        let _ = pipe.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// Every message arrived as what it was, and every connection ended as it should.
#[track_caller]
fn judge(events: &Receiver<Event>, hub: &Hub) {
    let mut messages = Vec::new();
    let mut ends = Vec::new();
    for event in events {
        match event {
            Event::Message(message) => messages.push(message),
            Event::End(reason) => ends.push((reason.code(), reason.reason().to_owned())),
        }
    }
    let longest = Config::MAX_MESSAGE;
    let sent = [
        Message::text("héllo, wörld ✓ 🦀"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::text(""),
        Message::binary([]),
        Message::text("é".repeat(longest / 2)),
        Message::binary(vec![0xa5; longest]),
        Message::text("close me"),
    ];
    assert_eq!(messages.len(), sent.len());
    for (message, sent) in messages.iter().zip(&sent) {
        assert!(message == sent, "{message:?} arrived instead of {sent:?}");
    }
    ends.sort();
    let codes: Vec<u16> = ends.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [1009, 4000, 4321]);
    assert_eq!(ends[2].1, "goodbye");
    let stats = hub.stats();
    assert_eq!(stats.upgrades_accepted, 3);
    assert_eq!((stats.messages_dropped, stats.clients_evicted), (0, 0));
}

#[test]
fn python_websockets() {
    exchange(tools::python("tests/interop/websockets_client.py"));
}

#[test]
fn python_websocket_client() {
    exchange(tools::python("tests/interop/websocket_client.py"));
}

#[test]
fn npm_ws() {
    exchange(tools::node_with("ws", "tests/interop/ws.mjs"));
}

#[test]
fn node() {
    exchange(tools::node("tests/interop/node.mjs"));
}

#[test]
fn chromium() {
    exchange(tools::chromium("tests/interop/chromium.mjs"));
}

/// Built by `.ci/run`, as a package that shares nothing with this one.
#[test]
fn tokio_tungstenite() {
    let client = tools::file("target/interop-tokio/debug/interop-tokio");
    let built = client.is_file().then(|| Command::new(client));
    exchange(tools::tool("tests/interop/tokio", built));
}
