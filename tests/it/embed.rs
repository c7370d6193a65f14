//! A hub embedded in a program: streams of any kind, hooks, executors and listeners.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};
use hublet::{
    Admission, Client, Config, Disconnect, Error, Handler, Hub, Listener, Message, Peer as Source,
    Reactor,
};
use smol::{Executor, Task, block_on};

use crate::listeners::Program;
use crate::peer::{BINARY, CLOSE, DEADLINE, Peer, TEXT, frame, upgrade};
use crate::pipe::{HubEnd, TestEnd, pipe};
use crate::support::{Chat, TestHub, alone, gone, until};

/// A client whose stream is a pipe, and the task of its connection.
fn over_a_pipe(hub: &TestHub, room: usize) -> (Peer<TestEnd>, Task<Result<Disconnect, Error>>) {
    let (stream, end) = pipe(room);
    let serving = hub.hub.clone();
    let connection =
        hub.spawn(async move { serving.serve_connection(stream, Source::unknown(), &Chat).await });
    (Peer::at(end), connection)
}

#[test]
fn client_over_a_pipe_of_eight_bytes_works_like_any_other() {
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, Config::default(), Chat);
        let mut tcp = hub.join();
        let (piped, connection) = over_a_pipe(&hub, 8);
        let mut piped = piped.join("/ws");
        piped.say("through the needle's eye");
        piped.hears("through the needle's eye");
        tcp.hears("through the needle's eye");
        let long: Vec<u8> = (0..Config::MAX_MESSAGE).map(|n| n as u8).collect();
        tcp.send(BINARY, &long);
        assert!(piped.receive() == (BINARY, long.clone()));
        assert!(tcp.receive() == (BINARY, long));
        piped.send(CLOSE, &4000u16.to_be_bytes());
        piped.is_closed(4000);
        piped.ends();
        assert_eq!(block_on(connection).expect("it was a client").code(), 4000);
    }
}

#[test]
fn connection_that_becomes_no_client_returns_an_error_with_its_reason() {
    let hub = TestHub::start();
    let (mut peer, connection) = over_a_pipe(&hub, 64);
    let response = peer.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(response.status, 404);
    peer.read(response.header("Content-Length").expect("a body").parse().expect("a number"));
    drop(peer);
    let refused = block_on(connection).expect_err("no upgrade");
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(404));
    // Nor does one whose requests were answered, which is no error.
    let served = TestHub::with(Config::default().http(true));
    let (mut peer, connection) = over_a_pipe(&served, 64);
    let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..2 {
        let response = peer.request(health);
        assert_eq!(response.status, 200);
        peer.read(response.header("Content-Length").expect("a body").parse().expect("a number"));
    }
    drop(peer);
    assert_eq!(block_on(connection).expect("it was answered"), Disconnect::NORMAL);
    let (peer, connection) = over_a_pipe(&hub, 64);
    drop(peer);
    let lost = block_on(connection).expect_err("nothing was said");
    assert!(lost.status().is_none() && std::error::Error::source(&lost).is_some());
    hub.empties();
}

#[test]
fn upgraded_stream_starts_with_frames() {
    let hub = TestHub::with(Config::default().max_clients(Some(1)));
    let upgraded = |admission| {
        let (stream, end) = pipe(64);
        let serving = hub.hub.clone();
        let connection =
            hub.spawn(async move { serving.serve_upgraded(stream, admission, &Chat).await });
        (Peer::at(end), connection)
    };
    let (mut ada, connection) = upgraded(Admission::user("ada").room("lobby"));
    ada.say("no handshake");
    ada.hears("no handshake");
    assert_eq!(hub.ask(hub.hub.send_to_user("ada", "by name")), 1);
    ada.hears("by name");
    assert_eq!(hub.ask(hub.hub.publish("lobby", "by room")), 1);
    ada.hears("by room");
    let (mut bob, refused) = upgraded(Admission::user("bob"));
    let refused = block_on(refused).expect_err("one client is the limit");
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(503));
    // After an upgrade there is no status: the refusal is a close code.
    bob.is_closed(1013);
    bob.ends();
    drop(ada);
    assert_eq!(block_on(connection).expect("it was a client").code(), 1006);
    hub.empties();
}

/// A stream with a buffer of its own, like TLS, whose flush fails.
struct Stuck {
    inner: HubEnd,
    stuck: Arc<AtomicBool>,
}

impl AsyncRead for Stuck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stuck.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[test]
fn stream_that_cannot_be_flushed_is_lost() {
    let hub = TestHub::with(Config::default().http(true));
    let events = "GET /sse HTTP/1.0\r\nHost: x\r\n\r\n".to_owned();
    for (request, status, greeting) in
        [(upgrade("/ws"), 101, &b"\x81\x05hello"[..]), (events, 200, b"data: hello\n\n")]
    {
        let (inner, end) = pipe(1024);
        let stuck = Arc::new(AtomicBool::new(false));
        let stream = Stuck { inner, stuck: Arc::clone(&stuck) };
        let serving = hub.hub.clone();
        let connection = hub
            .spawn(async move { serving.serve_connection(stream, Source::unknown(), &Chat).await });
        let mut peer = Peer::at(end);
        assert_eq!(peer.request(&request).status, status);
        assert_eq!(hub.broadcast("hello"), 1);
        // A stream of events begins with a heartbeat and a position.
        let mut heard = Vec::new();
        while !heard.ends_with(greeting) {
            heard.extend(peer.read(1));
        }
        stuck.store(true, Ordering::Relaxed);
        hub.broadcast("not flushed");
        until("it is lost", || connection.is_finished());
        assert_eq!(block_on(connection).expect("it was a client").code(), 1006);
        hub.empties();
    }
}

/// RFC 6455 7.1.5: the first close frame is the reason, whether or not the answer arrives.
#[test]
fn peer_that_closes_without_waiting_for_the_answer_has_its_own_reason() {
    let hub = TestHub::start();
    let (stream, end) = pipe(64);
    let mut peer = Peer::at(end);
    peer.send(CLOSE, &4000u16.to_be_bytes());
    drop(peer);
    let serving = hub.hub.clone();
    let connection = hub
        .spawn(async move { serving.serve_upgraded(stream, Admission::anonymous(), &Chat).await });
    assert_eq!(block_on(connection).expect("it was a client").code(), 4000);
}

/// Invariant 6: a connection whose future is dropped takes its client with it.
#[test]
fn dropped_connection_future_leaves_no_client() {
    let hub = TestHub::start();
    let (peer, connection) = over_a_pipe(&hub, 64);
    let mut peer = peer.join("/ws");
    assert_eq!(hub.hub.stats().clients, 1);
    drop(connection);
    peer.ends();
    // The manager learns of the departure later.
    until("the client is removed", || hub.hub.stats().clients == 0);
    hub.empties();
    assert_eq!(hub.broadcast("anyone?"), 0);
}

/// Invariant 7 and its close frame: an evicted client whose stream has room gets the close frame
/// 4108 and nothing else. This client overflows before its 101 is written, so its stream is empty.
#[test]
fn evicted_client_with_room_in_its_stream_gets_4108_and_the_number_of_missed_messages() {
    let hub = TestHub::start();
    let (mut peer, connection) = over_a_pipe(&hub, 100);
    let asks = std::thread::spawn(move || {
        peer.write(upgrade("/ws").as_bytes());
        peer
    });
    let mut peer = asks.join().expect("asked");
    until("it is registered", || hub.hub.stats().clients == 1);
    while hub.hub.stats().clients_evicted == 0 {
        assert_eq!(hub.broadcast("too early"), 1);
    }
    assert_eq!(peer.response().status, 101);
    let missed = Config::QUEUE + 1;
    assert_eq!(peer.is_closed(4108), format!("too slow: missed {missed} messages"));
    peer.ends();
    assert_eq!(block_on(connection).expect("it was a client").code(), 4108);
    hub.empties();
}

/// Sends a note to the test for each hook that runs.
struct Diary(Sender<String>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        // The test may have dropped the receiver.
        let _ = self.0.send(what.into());
    }
}

impl Handler for Diary {
    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        self.note("connected");
        let rooms = client.rooms().await.map_err(gone)?;
        if rooms.iter().any(|room| &**room == "closed") {
            return Err(Disconnect::new(4003, "not today"));
        }
        client.send("welcome").await.map(drop).map_err(gone)
    }

    async fn on_message(&self, _: &Client, message: Message) -> Result<(), Disconnect> {
        self.note(format!("message {}", message.as_text().unwrap_or_default()));
        Ok(())
    }

    async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
        // A verb that asks the registry.
        let there = client.leave("hall").await.is_ok();
        self.note(format!("gone with {reason}, still registered: {there}"));
    }
}

fn diary() -> (TestHub, Receiver<String>) {
    let (sender, notes) = channel();
    (TestHub::serving(Config::default(), Diary(sender)), notes)
}

#[test]
fn the_hooks_of_a_client_run_in_order_and_its_end_once() {
    let (hub, notes) = diary();
    let mut peer = hub.join();
    peer.hears("welcome");
    peer.write(
        &[frame(TEXT, b"one"), frame(TEXT, b"two"), frame(CLOSE, &1000u16.to_be_bytes())].concat(),
    );
    peer.is_closed(1000);
    peer.ends();
    drop(peer);
    hub.empties();
    let expected =
        ["connected", "message one", "message two", "gone with 1000, still registered: false"];
    assert_eq!(notes.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn client_refused_by_on_connect_gets_the_reason_and_is_not_read() {
    let (hub, notes) = diary();
    let mut peer = hub.join_at("/ws/closed");
    assert_eq!(peer.is_closed(4003), "not today");
    peer.say("but I");
    peer.goodbye(4003);
    hub.empties();
    let expected = ["connected", "gone with 4003 not today, still registered: false"];
    assert_eq!(notes.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn refused_message_is_returned() {
    // The manager does not run.
    let (hub, _manager) = Hub::new(Config::default().inbox(2)).expect("valid");
    assert!(hub.try_broadcast("first").is_ok());
    assert!(hub.try_publish("main", "second").is_ok());
    let refused = hub.try_publish("main", vec![1, 2, 3]).expect_err("no room");
    assert!(refused.is_full());
    assert_eq!(refused.into_message().expect("it comes back").as_bytes(), [1, 2, 3]);
    let too_long = hub.try_broadcast(vec![0; Config::MAX_MESSAGE + 1]).expect_err("too long");
    assert!(too_long.is_too_long());
    assert_eq!(too_long.into_message().map(|message| message.len()), Some(Config::MAX_MESSAGE + 1));
}

#[test]
fn the_manager_ends_with_the_last_handle() {
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let other = hub.clone();
    let (done, ended) = channel();
    let manager = std::thread::spawn(move || {
        block_on(manager);
        done.send(()).expect("the test waits");
    });
    drop(hub);
    assert_eq!(block_on(other.broadcast("one handle is left")).expect("it runs"), 0);
    drop(other);
    ended.recv_timeout(DEADLINE).expect("it ends");
    manager.join().expect("no panic");
}

/// Invariant 11: the library starts no thread. Besides the program's own threads there is only the
/// reactor of async-io.
#[cfg(target_os = "linux")]
#[test]
fn the_library_starts_no_thread() {
    alone(the_library_starts_no_thread, || {
        let program = Program::start();
        block_on(smol::Timer::after(std::time::Duration::ZERO));
        // A new thread has its parent's name until it sets its own.
        until("the reactor runs", || threads().iter().any(|name| name == "async-io"));
        let before = threads();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let _manager = program.executor.spawn(manager);
        let (_serving, address) = program.serve(&hub);
        let mut peers: Vec<_> =
            (0..20).map(|_| Peer::<TcpStream>::connect(&address, "/ws")).collect();
        peers[0].say("hello");
        peers.iter_mut().for_each(|peer| peer.hears("hello"));
        drop(peers);
        until("they are gone", || hub.stats().connections == 0);
        block_on(hub.drain(Disconnect::GOING_AWAY));
        assert_eq!(threads(), before);
    });
}

/// The threads of this process, by name.
#[cfg(target_os = "linux")]
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: io::Result<std::fs::DirEntry>| {
        let path = task.expect("a thread").path().join("comm");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    let mut names: Vec<_> = tasks.map(name).collect();
    names.sort();
    names
}

/// A program on a reactor needs no other thread: neither for its sockets nor for its deadlines, of
/// which a drain has several.
#[cfg(target_os = "linux")]
#[test]
fn hub_on_a_reactor_does_not_start_async_io() {
    alone(hub_on_a_reactor_does_not_start_async_io, || {
        let before = threads();
        let reactor = Reactor::new().expect("descriptors");
        let executor = Executor::new();
        let config = Config::default().close_timeout(std::time::Duration::from_millis(100));
        let (hub, manager) = Hub::new(config).expect("valid");
        reactor.attach_timers(&hub);
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.to_string();
        let listener = reactor.attach(listener).expect("it is watched");
        let (drained, is_drained) = channel();
        let _tasks = [
            executor.spawn(manager),
            executor.spawn({
                let (hub, executor) = (hub.clone(), Arc::new(Executor::new()));
                async move {
                    let serving = hub.serve(&executor, listener, Chat);
                    executor.run(serving).await.expect("it serves until the drain");
                }
            }),
        ];
        let (started, has_started) = channel();
        let program = std::thread::spawn(move || {
            let mut silent = Peer::<TcpStream>::connect(&address, "/ws");
            silent.say("hello");
            silent.hears("hello");
            started.send(threads()).expect("the test waits");
            // It does not answer the close frame, so that the hub waits for its deadline.
            is_drained.recv_timeout(DEADLINE).expect("drained");
        });
        reactor.block_on(executor.run(async {
            while let Err(empty) = has_started.try_recv().map(|now| {
                assert_eq!(now.len(), before.len() + 1, "{now:?} beside the client's");
            }) {
                assert_eq!(empty, std::sync::mpsc::TryRecvError::Empty);
                reactor.sleep(std::time::Duration::from_millis(1)).await;
            }
            hub.drain(Disconnect::GOING_AWAY).await;
        }));
        drained.send(()).expect("the client waits");
        program.join().expect("no panic");
        assert_eq!(threads(), before);
    });
}
