//! Tests the hub with clients of others. Each WebSocket client runs the exchange of
//! `tests/interop/exchange.mjs` and checks what it receives. This side checks what the hub
//! received. Clients of server-sent events check what they hear.

mod tools;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, Hub, Listener, Message, Peer, Stats, Target,
};
use smol::Executor;

/// The time for a whole exchange, the start of the client included.
const DEADLINE: Duration = Duration::from_secs(60);

/// The only subprotocol that the hub accepts. Clients offer another one before it.
const PROTOCOL: &str = "interop.v2";

/// Reports events to the test, and sends every message to all clients in the room.
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
        // The receiver is gone if the test has failed already.
        let _ = self.0.send(Event::End(reason.clone()));
    }
}

/// Which side of a client compresses, if the hub does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deflates {
    Never,
    /// It inflates what it is sent, and sends plain frames.
    Inflates,
    Both,
}

/// Runs the exchange of a client with a hub that compresses and with one that does not, if the
/// client is installed.
#[track_caller]
fn exchange(client: fn() -> Option<Command>, deflates: Deflates) {
    for least in [None, Some(1)] {
        let Some(client) = client() else { return };
        let stats = exchange_with(client, Config::default().deflate(least));
        let (sent, received) = (stats.bytes_sent, stats.bytes_received);
        // Two of the messages are long and compress well.
        let short = Config::MAX_MESSAGE as u64;
        let (hub_deflates, client_deflates) = match deflates {
            _ if least.is_none() => (false, false),
            Deflates::Never => (false, false),
            Deflates::Inflates => (true, false),
            Deflates::Both => (true, true),
        };
        assert_eq!(sent < short, hub_deflates, "{sent} bytes to the client");
        assert_eq!(received < short, client_deflates, "{received} bytes from the client");
        assert_eq!(stats.messages_compressed > 0, hub_deflates);
    }
}

/// Runs the exchange of a client with a hub.
#[track_caller]
fn exchange_with(client: Command, config: Config) -> Stats {
    // With `http` the hub serves a page, so that a browser has the hub's own origin.
    let (sender, events) = channel();
    let hub = with_hub(config.http(true), Witness(sender), |address| {
        run(client, &format!("ws://{address}/ws/interop"));
    });
    judge(&events, &hub);
    hub.stats()
}

/// Runs a client of server-sent events with a hub, if the client is installed.
#[track_caller]
fn hears_events(client: Option<Command>) {
    let Some(client) = client else { return };
    let config = Config::default().http(true).ping_interval(Duration::from_millis(100));
    with_hub(config, Open, |address| run(client, &format!("http://{address}/sse/interop")));
}

/// Posts a body that is too large with a client, if it is installed: it must see the 413, and no
/// reset. Many clients read an answer only when they have sent all of their body.
#[track_caller]
fn sees_why_a_body_is_refused(client: Option<Command>) {
    let Some(client) = client else { return };
    let config = Config::default().http(true);
    with_hub(config, Open, |address| run(client, &format!("http://{address}/pub/interop")));
}

/// Allows every request.
struct Open;

impl Handler for Open {
    async fn on_publish(&self, _: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

/// Serves a hub while something runs with its address.
#[track_caller]
fn with_hub<H: Handler>(config: Config, handler: H, run: impl FnOnce(&str)) -> Hub {
    let executor = Arc::new(Executor::new());
    let (hub, manager) = Hub::new(config).expect("a valid configuration");
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.to_string();
    let serving = {
        let (hub, executor) = (hub.clone(), Arc::clone(&executor));
        thread::spawn(move || {
            smol::block_on(executor.run(async {
                let manager = executor.spawn(manager);
                hub.serve(&executor, listener, handler).await.expect("it serves");
                manager.await;
            }));
        })
    };
    run(&address);
    smol::block_on(hub.drain(Disconnect::GOING_AWAY));
    serving.join().expect("the hub ended well");
    hub
}

/// Runs a client, which must end in time and with success.
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

/// The whole output of a pipe, once it has ended.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let mut pipe = pipe.expect("it is piped");
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // After an error, the output so far is still shown.
        let _ = pipe.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// Checks that every message arrived unchanged and every connection ended with the right reason.
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
    exchange(|| tools::python("tests/interop/websockets_client.py"), Deflates::Both);
}

#[test]
fn python_websocket_client() {
    exchange(|| tools::python("tests/interop/websocket_client.py"), Deflates::Never);
}

/// A client for Python by its name, with its argument.
fn python_events(name: &str) -> Option<Command> {
    let mut client = tools::python("tests/interop/events.py")?;
    client.arg(name);
    Some(client)
}

/// Reads a body without framing in blocks of 512 bytes.
#[test]
fn python_requests_iter_lines() {
    hears_events(python_events("iter_lines"));
}

#[test]
fn python_sseclient_py() {
    hears_events(python_events("sseclient-py"));
}

/// Its module has the name of that of sseclient-py, so it lies in a folder of its own.
#[test]
fn python_sseclient() {
    let folder = tools::file("target/test-python/sseclient");
    if tools::tool("the Python package sseclient", folder.is_dir().then_some(())).is_some() {
        hears_events(python_events("sseclient"));
    }
}

#[test]
fn python_httpx_sse() {
    hears_events(python_events("httpx-sse"));
}

/// A version of the package `eventsource` by its alias in `tests/package.json`.
fn npm_eventsource(version: u8) {
    let package = format!("eventsource{version}");
    let client = tools::node_with(&package, "tests/interop/events.mjs").map(|mut client| {
        client.arg(version.to_string());
        client
    });
    hears_events(client);
}

#[test]
fn npm_eventsource_1() {
    npm_eventsource(1);
}

#[test]
fn npm_eventsource_2() {
    npm_eventsource(2);
}

#[test]
fn npm_eventsource_3() {
    npm_eventsource(3);
}

#[test]
fn npm_eventsource_4() {
    npm_eventsource(4);
}

#[test]
fn npm_ws() {
    exchange(|| tools::node_with("ws", "tests/interop/ws.mjs"), Deflates::Both);
}

#[test]
fn node() {
    exchange(|| tools::node("tests/interop/node.mjs"), Deflates::Inflates);
}

#[test]
fn chromium() {
    exchange(|| tools::chromium("tests/interop/chromium.mjs"), Deflates::Both);
}

#[test]
fn firefox() {
    exchange(|| tools::firefox("tests/interop/firefox.mjs"), Deflates::Both);
}

#[test]
fn firefox_sees_why_a_body_is_refused() {
    sees_why_a_body_is_refused(tools::firefox("tests/interop/too_large_firefox.mjs"));
}

#[test]
fn python_sees_why_a_body_is_refused() {
    sees_why_a_body_is_refused(tools::python("tests/interop/too_large.py"));
}

#[test]
fn node_sees_why_a_body_is_refused() {
    sees_why_a_body_is_refused(tools::node("tests/interop/too_large_body.mjs"));
}

#[test]
fn go_sees_why_a_body_is_refused() {
    sees_why_a_body_is_refused(tools::program("go").map(|go| {
        let mut client = Command::new(go);
        client.arg("run").arg(tools::file("tests/interop/too_large.go"));
        client
    }));
}

#[test]
fn curl_and_wget_see_why_a_body_is_refused() {
    for name in ["curl", "wget"] {
        sees_why_a_body_is_refused(tools::program(name).map(|program| {
            let mut client = Command::new("sh");
            client.arg(tools::file("tests/interop/too_large.sh")).arg(program);
            client
        }));
    }
}

/// `.ci/run` builds this client as a separate package.
#[test]
fn tokio_tungstenite() {
    let client = || {
        let client = tools::file("target/interop-tokio/debug/interop-tokio");
        let built = client.is_file().then(|| Command::new(client));
        tools::tool("tests/interop/tokio", built)
    };
    exchange(client, Deflates::Never);
}
