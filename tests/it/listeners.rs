//! Listeners and accept loops of one hub, and their ends.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use futures_lite::future::{or, yield_now};
use hublet::{Config, Error, Hub, Listener, Reactor};
use smol::{Executor, Task, block_on};

use crate::peer::Peer;
use crate::support::{Chat, until};

/// An executor on a thread of its own, for tests that set up a hub themselves.
pub(crate) struct Program {
    pub(crate) executor: Arc<Executor<'static>>,
    pub(crate) stop: Option<async_channel::Sender<()>>,
    pub(crate) thread: Option<std::thread::JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start() -> Self {
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = async_channel::bounded(1);
        let runs = Arc::clone(&executor);
        let thread = std::thread::spawn(move || {
            let _ = block_on(runs.run(stopped.recv()));
        });
        Self { executor, stop: Some(stop), thread: Some(thread) }
    }

    /// Serves on a free port; returns the accept loop and its address.
    pub(crate) fn serve(&self, hub: &Hub) -> (Task<Result<(), Error>>, String) {
        let listener = Listener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.to_string();
        (self.serve_on(hub, listener), address)
    }

    pub(crate) fn serve_on(&self, hub: &Hub, listener: Listener) -> Task<Result<(), Error>> {
        let (hub, executor) = (hub.clone(), Arc::clone(&self.executor));
        self.executor.spawn(async move { hub.serve(&executor, listener, Chat).await })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the program panicked");
        }
    }
}

#[test]
fn several_listeners_of_either_kind_serve_one_hub() {
    let path = std::env::temp_dir().join(format!("hublet-it-{}.sock", std::process::id()));
    let unix = UnixListener::bind(&path).expect("bound");
    let program = Program::start();
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let _manager = program.executor.spawn(manager);
    let (_one, one) = program.serve(&hub);
    let (_two, two) = program.serve(&hub);
    let _unix = program.serve_on(&hub, unix.try_into().expect("registered"));
    let mut tcp =
        [Peer::<TcpStream>::connect(&one, "/ws"), Peer::<TcpStream>::connect(&two, "/ws")];
    let mut unix = Peer::<UnixStream>::connect(&path);
    std::fs::remove_file(&path).expect("it was bound");
    unix.say("to all three");
    unix.hears("to all three");
    tcp.iter_mut().for_each(|peer| peer.hears("to all three"));
}

/// Another process that shares a listener may shut it down. Linux reports that in different ways
/// for TCP and Unix sockets.
#[test]
fn accept_loop_ends_when_its_listener_is_shut_down() {
    let path = std::env::temp_dir().join(format!("hublet-it-shut-{}.sock", std::process::id()));
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let unix = UnixListener::bind(&path).expect("bound");
    std::fs::remove_file(&path).expect("it was bound");
    let listeners: [(OwnedFd, Listener); 2] = [
        (tcp.try_clone().expect("a descriptor").into(), tcp.try_into().expect("it listens")),
        (unix.try_clone().expect("a descriptor").into(), unix.try_into().expect("it listens")),
    ];
    for (shared, listener) in listeners {
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let reactor = Reactor::new().expect("descriptors");
        let listener = reactor.attach(listener).expect("it is watched");
        let name = listener.to_string();
        let executor = Executor::new();
        let shut = async {
            // The accept loop is polled first, and waits.
            yield_now().await;
            rustix::net::shutdown(&shared, rustix::net::Shutdown::Both).expect("it listens");
            std::future::pending().await
        };
        let served = or(hub.serve(&executor, listener, Chat), shut);
        assert!(reactor.block_on(served).is_err(), "{name}");
        drop(manager);
    }
}

#[test]
fn dropped_accept_loop_closes_its_listener_and_no_client() {
    let program = Program::start();
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let _manager = program.executor.spawn(manager);
    let (serving, address) = program.serve(&hub);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    drop(serving);
    until("the listener is closed", || TcpStream::connect(&address).is_err());
    peer.say("still served");
    peer.hears("still served");
}

#[test]
fn dropped_manager_ends_its_clients_with_1001() {
    let program = Program::start();
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let manager = program.executor.spawn(manager);
    let (_serving, address) = program.serve(&hub);
    let mut peers =
        [Peer::<TcpStream>::connect(&address, "/ws"), Peer::<TcpStream>::connect(&address, "/ws")];
    assert_eq!(block_on(hub.broadcast("the last")).expect("it runs"), 2);
    drop(manager);
    for peer in &mut peers {
        peer.hears("the last");
        peer.is_closed(1001);
    }
    peers.into_iter().for_each(|peer| peer.goodbye(1001));
    assert!(block_on(hub.broadcast("anyone?")).expect_err("it has ended").is_closed());
}
