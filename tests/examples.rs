//! Runs each example, and connects clients of another WebSocket library to it.

mod tools;

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, client_async};
use futures_lite::StreamExt;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::TcpStream;
use smol::{Timer, block_on, future};

/// A step of a test that takes longer than this fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Ticks after which a count must have changed: ten seconds of them.
const TICKS_MAX: usize = 100;

/// Readings after which every sensor must have been seen: a hundred of each.
const READINGS_MAX: usize = 10_000;

/// Builds the examples with the features of the library only. Returns their folder.
fn examples() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("its path");
        let target = test.ancestors().nth(3).expect("target/debug/deps/examples-hash");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--no-default-features", "--target-dir"]);
        let built =
            cargo.arg(target).arg("--manifest-path").arg(tools::file("Cargo.toml")).status();
        assert!(built.expect("cargo runs").success(), "the examples do not build");
        target.join("debug/examples")
    });
    folder.clone()
}

/// A running example. Dropping it kills the process.
struct Example {
    child: Child,
    address: String,
}

impl Example {
    fn start(name: &str) -> Self {
        Self::run(&mut Command::new(examples().join(name)))
    }

    /// One of a package of its own, which `.ci/tools` builds.
    fn of_package(package: &str, name: &str, arguments: &[&Path]) -> Option<Self> {
        let program = tools::file(&format!("target/example-{package}/debug/{name}"));
        let found = program.is_file().then_some(program);
        let program = tools::tool(&format!("examples/{package}"), found)?;
        Some(Self::run(Command::new(program).args(arguments)))
    }

    fn run(command: &mut Command) -> Self {
        command.arg("127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut example = Self { child, address: String::new() };
        let (sender, line) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            let mut stdout = BufReader::new(stdout);
            // These fail only if the test has failed already.
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            let _ = stdout.read_to_end(&mut Vec::new());
        });
        let line = line.recv_timeout(DEADLINE).expect("a line in time");
        let address = line.trim_end().strip_prefix("listening on ").expect("where it listens");
        address.clone_into(&mut example.address);
        example
    }

    /// Connects a client, with headers.
    async fn try_join(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Peer, Error> {
        let stream = TcpStream::connect(&self.address).await?;
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        let joined = in_time(client_async(request, stream)).await;
        joined.map(|(socket, _)| Peer(socket))
    }

    async fn join(&self, path: &str, headers: &[(&'static str, &str)]) -> Peer {
        self.try_join(path, headers).await.expect("it may join")
    }

    /// The head and the body of the answer to GET.
    async fn get(&self, path: &str) -> String {
        let mut http = TcpStream::connect(&self.address).await.expect("it accepts");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        http.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        in_time(http.read_to_string(&mut answer)).await.expect("a response");
        answer
    }

    /// The status that a client is refused with.
    async fn refusal(&self, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        match self.try_join(path, headers).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("no response: {error}"),
            Ok(_) => panic!("it may join"),
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of `step`, which must come in time.
async fn in_time<T>(step: impl Future<Output = T>) -> T {
    let timeout = async {
        Timer::after(DEADLINE).await;
        panic!("nothing happens")
    };
    future::or(step, timeout).await
}

/// A client.
struct Peer<S = TcpStream>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn say(&mut self, message: impl Into<Message>) {
        in_time(self.0.send(message.into())).await.expect("it can be sent");
    }

    async fn receive(&mut self) -> Message {
        in_time(self.0.next()).await.expect("a message").expect("no error")
    }

    async fn hears(&mut self, text: &str) {
        assert_eq!(self.receive().await, Message::text(text));
    }

    /// Receives up to a close frame; returns its code.
    async fn end(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.receive().await {
                return frame.expect("a code").code.into();
            }
        }
    }

    /// Closes with a code, which the hub must echo.
    async fn close(mut self) {
        let goodbye = CloseFrame { code: 4321.into(), reason: "goodbye".into() };
        in_time(self.0.close(Some(goodbye))).await.expect("it can be sent");
        assert_eq!(self.end().await, 4321);
    }
}

#[test]
fn chat_sends_messages_to_every_client() {
    block_on(async {
        let chat = Example::start("chat");
        let mut other = chat.join("/ws/elsewhere", &[]).await;
        let (mut ada, mut bob) =
            (chat.join("/ws/lobby", &[]).await, chat.join("/ws/lobby", &[]).await);
        for message in [Message::text("hello"), Message::binary(vec![0, 255]), Message::text("")] {
            ada.say(message.clone()).await;
            assert_eq!(ada.receive().await, message);
            assert_eq!(bob.receive().await, message);
        }
        // Rooms are kept apart: this is the first that another room hears.
        other.say("only here").await;
        other.hears("only here").await;
        ada.close().await;
        bob.close().await;
    });
}

#[test]
fn thread_publishes_without_an_executor() {
    block_on(async {
        let sensor = Example::start("thread");
        let mut reader = sensor.join("/ws/sensor", &[]).await;
        let (mut readings, mut has_waited) = (Vec::new(), false);
        while readings.len() < 20 || !has_waited {
            let text = reader.receive().await.into_text().expect("text");
            match text.strip_prefix("reading ") {
                Some(reading) => readings.push(reading.parse::<u32>().expect("a number")),
                None => has_waited = text == "ten more",
            }
        }
        assert!(readings.windows(2).all(|two| two[0] < two[1]), "{readings:?}");
        reader.say("hello").await;
        assert_eq!(reader.end().await, 1003);
    });
}

#[cfg(unix)]
#[test]
fn stop_ends_at_sigterm_and_tells_its_clients() {
    use rustix::process::{Pid, Signal, kill_process};
    block_on(async {
        let mut stop = Example::start("stop");
        let mut ada = stop.join("/ws", &[]).await;
        ada.say("hello").await;
        ada.hears("hello").await;
        let pid = Pid::from_child(&stop.child);
        kill_process(pid, Signal::TERM).expect("it runs");
        assert_eq!(ada.end().await, 1012);
        drop(ada);
        let status = stop.child.wait().expect("its end");
        assert!(status.success(), "{status}");
    });
}

#[test]
fn lobby_keeps_a_state_for_each_room_and_lists_them() {
    block_on(async {
        let lobby = Example::start("lobby");
        assert_eq!(lobby.refusal("/ws/chess", &[]).await, 401);
        assert_eq!(lobby.refusal("/ws/chess%22?user=ada", &[]).await, 404);
        let mut ada = lobby.join("/ws/chess?user=ada", &[]).await;
        ada.hears("ada came, ada is the host").await;
        let mut bob = lobby.join("/ws/chess?user=bob", &[]).await;
        ada.hears("bob came, ada is the host").await;
        bob.hears("bob came, ada is the host").await;
        let mut eve = lobby.join("/ws/go?user=eve", &[]).await;
        eve.hears("eve came, eve is the host").await;
        let list = lobby.get("/api/lobbies").await;
        assert!(list.contains("\r\ncontent-type: application/json\r\n"), "{list}");
        let body = "\r\n\r\n{\"chess\":[\"ada\",\"bob\"],\"go\":[\"eve\"]}";
        assert!(list.ends_with(body), "{list}");

        // All of one room are ready, which the other does not hear.
        ada.say("ready").await;
        bob.say("ready").await;
        ada.hears("start").await;
        bob.hears("start").await;
        // The host may end another, and no other player may.
        bob.say("kick ada").await;
        bob.say("still here").await;
        ada.hears("bob: still here").await;
        bob.hears("bob: still here").await;
        ada.say("kick bob").await;
        assert_eq!(bob.end().await, 4500);
        drop(bob);
        ada.hears("bob left, ada is the host").await;
        // The room of the last player goes with it.
        eve.close().await;
        let mut eve = lobby.join("/ws/chess?user=eve", &[]).await;
        eve.hears("eve came, ada is the host").await;
        drop(ada);
        eve.hears("ada left, eve is the host").await;
        let list = lobby.get("/api/lobbies").await;
        assert!(list.ends_with("\r\n\r\n{\"chess\":[\"eve\"]}"), "{list}");
    });
}

#[test]
fn serve_runs_on_tokio() {
    let Some(chat) = Example::of_package("tokio", "serve", &[]) else { return };
    block_on(async {
        let (mut ada, mut bob) = (chat.join("/ws", &[]).await, chat.join("/ws", &[]).await);
        ada.say("hello").await;
        ada.hears("hello").await;
        bob.hears("hello").await;
        ada.close().await;
        bob.close().await;
    });
}

#[test]
fn axum_hands_its_upgrades_to_the_hub() {
    let Some(site) = Example::of_package("tokio", "axum", &[]) else { return };
    block_on(async {
        let mut ada = site.join("/ws/lobby", &[]).await;
        let mut bob = site.join("/ws/lobby", &[]).await;
        let mut other = site.join("/ws/elsewhere", &[]).await;
        ada.say("hello").await;
        ada.hears("hello").await;
        bob.hears("hello").await;
        other.say("only here").await;
        other.hears("only here").await;
        assert!(site.get("/").await.ends_with("\r\n\r\n3 clients are here\n"));
        assert_eq!(site.refusal("/ws/lobby", &[("origin", "http://elsewhere.example")]).await, 403);
        ada.close().await;
        bob.close().await;
    });
}

/// A TLS connection that OpenSSL makes, and that ends with it.
struct Tls {
    client: smol::process::Child,
}

impl Tls {
    fn connect(openssl: &Path, address: &str, certificate: &Path) -> Self {
        let mut client = smol::process::Command::new(openssl);
        client.args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1"]);
        client.args(["-connect", address, "-CAfile"]).arg(certificate);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { client: client.kill_on_drop(true).spawn().expect("it starts") }
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.client.stdout.as_mut().expect("it is piped")).poll_read(cx, into)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.client.stdin.as_mut().expect("it is piped")).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.client.stdin.as_mut().expect("it is piped")).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.client.stdin.as_mut().expect("it is piped")).poll_close(cx)
    }
}

#[test]
fn tls_is_spoken_with_openssl() {
    let Some(openssl) = tools::program("openssl") else { return };
    let folder = std::env::temp_dir().join(format!("hublet-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let mut request = Command::new(&openssl);
    request.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt"]);
    request.args(["ec_paramgen_curve:prime256v1", "-subj", "/CN=hub.example", "-addext"]);
    request
        .args(["subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let made = request.stderr(Stdio::null()).status().expect("it runs");
    assert!(made.success(), "{made}");
    if let Some(hub) = Example::of_package("tls", "tls", &[&certificate, &key]) {
        block_on(async {
            let join = || async {
                let stream = Tls::connect(&openssl, &hub.address, &certificate);
                let url = format!("wss://{}/ws/lobby", hub.address);
                Peer(in_time(client_async(url, stream)).await.expect("it may join").0)
            };
            let (mut ada, mut bob) = (join().await, join().await);
            for message in [Message::text("hello"), Message::binary(vec![7; 60_000])] {
                ada.say(message.clone()).await;
                assert_eq!(ada.receive().await, message);
                assert_eq!(bob.receive().await, message);
            }
            ada.close().await;
            bob.close().await;
        });
    }
    std::fs::remove_dir_all(folder).expect("it is there");
}

#[test]
fn embed_ticks_and_counts_clients() {
    block_on(async {
        let clock = Example::start("embed");
        let mut ada = clock.join("/", &[]).await;
        let mut bob = clock.join("/", &[]).await;
        let mut last = 0;
        // Each tick is later than the one before, and soon both are counted.
        let mut listening = String::new();
        for _ in 0..TICKS_MAX {
            let tick = ada.receive().await.into_text().expect("text");
            let (time, count) = tick.split_once(" ms, ").expect("a time and a count");
            let time = time.parse().expect("a number");
            assert!(time > last, "{tick} after {last}");
            last = time;
            count.clone_into(&mut listening);
            if listening != "1 listening" {
                break;
            }
        }
        assert_eq!(listening, "2 listening");
        // The program refuses messages.
        bob.say("hello").await;
        assert_eq!(bob.end().await, 1003);
        for _ in 0..TICKS_MAX {
            let tick = ada.receive().await.into_text().expect("text");
            tick.split_once(", ").expect("a count").1.clone_into(&mut listening);
            if listening != "2 listening" {
                break;
            }
        }
        assert_eq!(listening, "1 listening");
        ada.close().await;
    });
}

#[test]
fn rooms_requires_a_name_and_sends_to_rooms_and_users() {
    block_on(async {
        let rooms = Example::start("rooms");
        assert_eq!(rooms.refusal("/", &[]).await, 401);
        assert_eq!(rooms.refusal("/", &[("x-user", "")]).await, 401);
        let mut ada = rooms.join("/", &[("x-user", "ada")]).await;
        let mut bob = rooms.join("/", &[("x-user", "bob")]).await;
        let mut phone = rooms.join("/", &[("x-user", "bob")]).await;
        ada.say("hello").await;
        bob.hears("ada in lobby: hello").await;
        phone.hears("ada in lobby: hello").await;

        // A room of two.
        ada.say("/join news").await;
        ada.say("@bob come in").await;
        bob.hears("ada to you: come in").await;
        phone.hears("ada to you: come in").await;
        bob.say("/join news").await;
        ada.hears("bob joined news").await;
        ada.say("/leave lobby").await;
        ada.say("extra").await;
        bob.hears("ada in news: extra").await;

        // The other client of bob was not in the room. A refusal is reported to the client.
        phone.say("/join ").await;
        phone
            .hears("the name of a room or a user has 1 to 128 bytes and no control characters")
            .await;
        for client in [ada, bob, phone] {
            client.close().await;
        }
    });
}

#[test]
fn behind_hyper_serves_pages_and_clients() {
    block_on(async {
        let site = Example::start("behind_hyper");
        let mut ada = site.join("/ws", &[]).await;
        let mut bob = site.join("/ws", &[]).await;
        for message in [Message::text("hello"), Message::binary(vec![7; 60_000])] {
            bob.say(message.clone()).await;
            assert_eq!(ada.receive().await, message);
            assert_eq!(bob.receive().await, message);
        }

        let page = site.get("/").await;
        assert!(page.ends_with("\r\n\r\n2 clients are here\n"), "{page}");

        // The hub checks the origin and the opening handshake here too.
        let own = format!("http://{}", site.address);
        site.join("/ws", &[("origin", &own)]).await.close().await;
        assert_eq!(site.refusal("/ws", &[("origin", "http://elsewhere.example")]).await, 403);
        assert_eq!(site.refusal("/ws", &[("sec-websocket-version", "8")]).await, 426);
        assert_eq!(site.refusal("/elsewhere", &[]).await, 404);
        ada.close().await;
        bob.close().await;
    });
}

#[test]
fn telemetry_sends_a_dashboard_every_sensor() {
    block_on(async {
        let telemetry = Example::start("telemetry");
        let mut dashboard = telemetry.join("/", &[]).await;
        let mut sensors = HashSet::new();
        for _ in 0..READINGS_MAX {
            if sensors.len() == 100 {
                break;
            }
            let Message::Binary(reading) = dashboard.receive().await else {
                panic!("a reading is binary");
            };
            let (sensor, value) = reading.split_first_chunk().expect("12 bytes");
            sensors.insert(u32::from_le_bytes(*sensor));
            let value = f64::from_le_bytes(value.try_into().expect("12 bytes"));
            assert!((-1.0..=1.0).contains(&value), "{value}");
        }
        assert_eq!(sensors, (0..100).collect());
        dashboard.close().await;
    });
}
