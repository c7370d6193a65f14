//! The handler that is ready to use, and the ways to serve with it.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hublet::{Config, Disconnect, Hub, Listener, Relay};
use smol::{Executor, block_on, future};

use crate::peer::{BINARY, Peer, TEXT};
use crate::support::{TestHub, alone, until};

#[test]
fn relay_keeps_rooms_apart_and_does_what_the_query_says() {
    let hub = TestHub::serving(Config::default().http(true), Relay::new());
    let mut ada = hub.join_at("/ws/a");
    let mut quiet = hub.join_at("/ws/a?echo=0&probe=1");
    let mut other = hub.join_at("/ws/b");
    ada.say("hello");
    ada.hears("hello");
    quiet.hears("hello");
    quiet.say("not for me");
    ada.hears("not for me");
    // A question is answered to its client alone, behind what it has sent before.
    quiet.send(BINARY, b"");
    assert_eq!(quiet.receive(), (BINARY, vec![]));
    // From another client it is a message like any other.
    ada.send(BINARY, b"");
    assert_eq!(ada.receive(), (BINARY, vec![]));
    assert_eq!(quiet.receive(), (BINARY, vec![]));
    let mut post = hub.dial();
    let body = "POST /pub/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(post.request(body).status, 202);
    other.hears("hi");
    assert_eq!(hub.dial().request(&crate::peer::upgrade("/ws/a?echo=2")).status, 400);
}

#[test]
fn relay_without_echo_is_what_a_client_can_change() {
    let hub = TestHub::serving(Config::default(), Relay::new().echo(false));
    let mut ada = hub.join_at("/ws/a?echo=1");
    let mut bob = hub.join_at("/ws/a");
    bob.say("to the others");
    ada.hears("to the others");
    ada.say("to all");
    ada.hears("to all");
    bob.hears("to all");
    // Without a room in the path it is main.
    let mut main = hub.join_at("/");
    assert_eq!(hub.ask(hub.hub.publish("main", "x")), 1);
    assert_eq!(main.receive(), (TEXT, b"x".to_vec()));
}

/// A client that the program has upgraded is relayed to the rooms that it is in.
#[test]
fn relay_sends_to_all_rooms_of_a_client_of_the_program() {
    let hub = TestHub::serving(Config::default(), Relay::new().echo(false));
    let (stream, end) = crate::pipe::pipe(4096);
    let serving = hub.hub.clone();
    let admission = hublet::Admission::user("ada").room("a").room("b");
    let _connection =
        hub.spawn(async move { serving.serve_upgraded(stream, admission, &Relay::new()).await });
    let mut ada = Peer::at(end);
    let mut bob = hub.join_at("/ws/b");
    ada.say("hello");
    bob.hears("hello");
    // Once by each room.
    ada.hears("hello");
    ada.hears("hello");
}

#[test]
fn serve_is_a_task_of_its_own_with_an_arc_of_its_executor() {
    let executor = Arc::new(Executor::new());
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.to_string();
    let server = executor.spawn(hub.serve(Arc::clone(&executor), listener, Relay::new()));
    let manager = executor.spawn(manager);
    let running = std::thread::spawn(move || {
        block_on(executor.run(async {
            server.await.expect("it serves until a drain");
            manager.await;
        }));
    });
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    block_on(hub.drain(Disconnect::GOING_AWAY));
    running.join().expect("it ended well");
}

/// Any function that runs a future is enough: here a thread for each connection.
#[test]
fn serve_with_a_function_that_spawns() {
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.to_string();
    let serving = hub.serve_with(listener, Relay::new(), |connection| {
        std::thread::spawn(|| block_on(connection));
    });
    let running = std::thread::spawn(|| block_on(future::zip(serving, manager)).0);
    let (mut ada, mut bob) =
        (Peer::<TcpStream>::connect(&address, "/ws"), Peer::<TcpStream>::connect(&address, "/ws"));
    ada.say("hello");
    ada.hears("hello");
    bob.hears("hello");
    drop((ada, bob));
    block_on(hub.drain(Disconnect::GOING_AWAY));
    running.join().expect("it ended").expect("it served until the drain");
}

/// What the log has.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut lines = LINES.lock().expect("not poisoned");
        lines.push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// What a program on another runtime tries first hangs, and the log says why.
#[test]
fn an_executor_that_nothing_runs_is_in_the_log() {
    alone(an_executor_that_nothing_runs_is_in_the_log, || {
        log::set_logger(&Lines).expect("the process has no other");
        log::set_max_level(log::LevelFilter::Warn);
        let executor = Arc::new(Executor::new());
        let serve = |executor: Arc<Executor<'static>>| {
            let (hub, manager) = Hub::new(Config::default()).expect("valid");
            let listener = Listener::bind("127.0.0.1:0").expect("a free port");
            let serving = hub.serve(executor, listener, Relay::new());
            (hub, future::zip(serving, manager))
        };
        let is_logged = || {
            let lines = LINES.lock().expect("not poisoned");
            let text = "WARN nothing runs the executor that Hub::serve was given";
            lines.iter().any(|line| line.starts_with(text))
        };
        // One that is run says nothing.
        let (hub, serving) = serve(Arc::clone(&executor));
        let running = std::thread::spawn(move || block_on(executor.run(serving)));
        // Longer than the hub waits for its executor.
        block_on(smol::Timer::after(Duration::from_secs(1)));
        assert!(!is_logged(), "{:?}", LINES.lock());
        block_on(hub.drain(Disconnect::GOING_AWAY));
        running.join().expect("it ended").0.expect("it served");

        let (hub, serving) = serve(Arc::new(Executor::new()));
        let running = std::thread::spawn(move || block_on(serving));
        until("the log has a line", is_logged);
        block_on(hub.drain(Disconnect::GOING_AWAY));
        running.join().expect("it ended").0.expect("it served");
    });
}
