//! A small WebSocket hub on smol: a message sent to a room goes to every client in it, at once, in
//! little memory. Delivery is at most once and ordered: a message reaches a client once or not at
//! all, and all clients of a room see its messages in the same order. By default no history is kept.
//!
//! ```no_run
//! use std::sync::Arc;
//! use hublet::{Config, Hub, Listener, Relay};
//!
//! fn main() -> Result<(), hublet::Error> {
//!     let executor = Arc::new(smol::Executor::new());
//!     smol::block_on(executor.run(async {
//!         let (hub, manager) = Hub::new(Config::default())?;
//!         executor.spawn(manager).detach();
//!         hub.serve(&executor, Listener::bind("127.0.0.1:8080")?, Relay::new()).await
//!     }))
//! }
//! ```
//!
//! A client that connects to `ws://127.0.0.1:8080/ws/news` is in the room `news`. Through the
//! [`Hub`], which is cheap to clone, any part of the program speaks as well:
//!
//! | recipients | all of them | all but the sender |
//! |---|---|---|
//! | all clients | [`Hub::broadcast`] | [`Client::broadcast`] |
//! | a room | [`Hub::publish`] | [`Client::publish`] |
//! | a client, or a user's clients | [`Hub::send`], [`Hub::send_to_user`] | |
//!
//! Instead of [`Relay`], a [`Handler`] of your own admits clients and gives their messages a
//! meaning. `docs/embed.md` goes on where this page ends, and `examples/` has programs on smol,
//! tokio, axum and TLS.
//!
//! # The model
//!
//! A **[`Hub`]** is a handle, cheap to clone and to store. Behind it the **manager**, a future that
//! [`Hub::new`] returns for you to spawn, owns the registry of clients, rooms and users; every verb
//! is a command to it over a bounded inbox.
//!
//! A **[`Client`]** is one connected peer. It has a [`ClientId`] of its own, it may
//! belong to a **user** ([`Admission::user`]; one user, many clients), and it is in some **rooms**.
//! A room is a name. It exists while it has a member; there is no call to make or remove one.
//! [`Hub::subscribe`] makes the program itself a client.
//!
//! Each client has a **queue**, bounded in messages and in bytes. While the client keeps up, the
//! queue is empty and messages go straight to its socket. A message is encoded once and shared by
//! every queue it waits in.
//!
//! **A slow client** delays no other client: the manager never waits for it. When its queue is
//! full, the hub evicts it with close code 4108, or drops messages for it, as [`Overflow`] says.
//! **A fast publisher** waits: its verb is pending while the inbox is full. The hub does not read
//! a peer whose hook is pending, so TCP slows down that peer and no other.
//!
//! # Ordering and delivery
//!
//! The manager dispatches one command after another. So all clients of a room see its messages in
//! one order, and the messages of one publisher in the order in which it sent them. The number that
//! a verb returns counts the recipients at dispatch. [`Stats`] counts what became of them:
//! delivered (the kernel took the last byte), dropped (the client's queue was full) or lost (the
//! client's connection ended first). A client that was not connected has missed the messages.
//!
//! # Cancel safety
//!
//! If the future of a verb is dropped early, the verb takes effect wholly or not at all, and its
//! result is lost. A dropped [`Hub::serve`] closes its listener and leaves its connections open.
//! A dropped [`Hub::serve_connection`] ends its client. Some hooks are dropped when their client
//! leaves; [`Handler`] says which.
//!
//! # Beside the server
//!
//! The program publishes, subscribes and stops while it serves:
//!
//! ```
//! use std::sync::Arc;
//!
//! use hublet::{Admission, Config, Disconnect, Hub, Listener, Relay};
//! use smol::{Executor, future};
//!
//! # fn main() -> Result<(), hublet::Error> {
//! let executor = Arc::new(Executor::new());
//! smol::block_on(executor.run(async {
//!     let (hub, manager) = Hub::new(Config::default())?;
//!     executor.spawn(manager).detach();
//!     let listener = Listener::bind("127.0.0.1:0")?;
//! #   let address = listener.local_addr().expect("TCP");
//!     let server = hub.serve(&executor, listener, Relay::new());
//!     let program = async {
//!         let mut news = hub.subscribe(Admission::anonymous().room("main")).await?;
//!         assert_eq!(hub.publish("main", "welcome").await?, 1);
//!         let message = news.next().await.expect("connected");
//!         assert_eq!(message.as_text(), Some("welcome"));
//! #       // A client from another WebSocket library.
//! #       let stream = smol::net::TcpStream::connect(address).await?;
//! #       let url = format!("ws://{address}/");
//! #       let (mut peer, _) = async_tungstenite::client_async(url, stream).await.expect("101");
//! #       peer.send("hello".into()).await.expect("sent");
//! #       assert_eq!(news.next().await.expect("connected").as_text(), Some("hello"));
//!         drop(news);
//! #       drop(peer);
//!
//!         // The server ends with the drain.
//!         hub.drain(Disconnect::GOING_AWAY).await;
//!         Ok(())
//!     };
//!     let (server, program) = future::zip(server, program).await;
//!     server.and(program)
//! }))
//! # }
//! ```
//!
//! # Threads
//!
//! The library spawns only on the executor that it is given. It starts no thread, keeps no global,
//! reads no environment variable, installs no signal handler and prints nothing. It logs through
//! the crate `log`. (async-io has a thread of its own for timers and sockets, as in every program
//! on smol.) A [`Reactor`] waits for both in the thread that runs the hub, with fewer system calls;
//! a program may then do without that of async-io. One thread serves ten thousand clients. For
//! more, run the same executor on several threads:
//!
//! ```
//! # use std::sync::Arc;
//! # use smol::{Executor, channel, future};
//! let executor = Arc::new(Executor::new());
//! let (stop, stopped) = channel::bounded::<()>(1);
//! std::thread::scope(|scope| {
//!     for _ in 0..2 {
//!         scope.spawn(|| smol::block_on(executor.run(stopped.recv())));
//!     }
//!     // The rest as above. Here, a task shows that these threads run the executor.
//!     assert_eq!(future::block_on(executor.spawn(async { 6 * 7 })), 42);
//!     drop(stop);
//! });
//! ```
//!
//! A thread without an executor publishes too: [`Hub::try_publish`] never waits, and
//! `smol::block_on(hub.publish(..))` waits for room in the inbox.
//!
//! # Four ways to serve
//!
//! - [`Hub::serve`]: a [`Listener`], TCP or Unix, on an executor
//! - [`Hub::serve_with`]: a [`Listener`] on tokio, or any other runtime
//! - [`Hub::serve_connection`]: any stream, from an accept loop of your own, TLS or a pipe
//! - [`Hub::upgrade`] and [`Hub::serve_upgraded`]: behind an HTTP server of your own
//!
//! # Limits
//!
//! Everything has a limit: [`Config`] lists them with their defaults. No bytes of a peer make the
//! hub panic, block another client or use memory without bound. A peer that breaks a rule learns
//! which: from an HTTP status before the upgrade, from a close code with a reason after it
//! ([`Disconnect`]).
//!
//! # Features and platforms
//!
//! The default feature `cli` is for the binary. The library needs no feature:
//! `default-features = false`. The hub is made for Linux. It compiles on other Unix systems and on
//! Windows; [`Listener::bind`] and [`Config::max_clients`](Config#structfield.max_clients) say what
//! differs there.

// A restart in place is for Unix.
#![cfg_attr(not(unix), allow(dead_code))]
// deploy/build makes all code small, except for the functions that each delivery runs.
#![cfg_attr(hublet_small, feature(optimize_attribute))]

mod config;
mod connection;
mod deflate;
mod disconnect;
mod error;
mod frame;
mod history_rule;
mod http1;
mod hub;
mod json;
mod label;
mod limits;
mod memory;
mod message;
mod name;
mod net;
mod network;
mod overflow;
mod peer;
mod percent;
mod rate;
mod redis;
mod redis_config;
mod serve;
#[cfg(test)]
mod sim;
mod sse;
mod stats;
mod sync;
mod time;
mod websocket;

pub use config::{Config, Page};
pub use connection::admission::Admission;
pub use connection::handler::Handler;
pub use connection::relay::Relay;
pub use connection::request_body::Body;
pub use disconnect::Disconnect;
pub use error::Error;
pub use history_rule::HistoryRule;
pub use http;
pub use http1::origin::is_local;
pub use http1::requested_every::every_of;
pub use http1::requested_rooms::RequestedRooms;
pub use http1::url::{query_of, room_of};
pub use hub::ack::Acknowledged;
pub use hub::client::Client;
pub use hub::client_id::{ClientId, Member, RoomInfo, Target};
pub use hub::event::{HubEvent, HubEventKind};
pub use hub::handle::Hub;
pub use hub::since::{History, InvalidSince, Missed, Since};
pub use hub::sizing::Sizing;
pub use message::Message;
pub use name::is_name;
pub use net::listener::Listener;
pub use net::reactor::Reactor;
#[cfg(feature = "tls")]
pub use net::tls::certificate::Tls;
#[cfg(unix)]
pub use net::watch::Watch;
pub use network::Network;
pub use overflow::Overflow;
pub use peer::Peer;
pub use rate::Rate;
pub use redis_config::Redis;
#[cfg(unix)]
pub use serve::hand_over::HandOver;
pub use serve::hub_events::HubEvents;
pub use serve::spawn::Spawn;
pub use serve::subscription::Subscription;
#[cfg(unix)]
pub use serve::take_over::TakeOver;
pub use stats::Stats;

/// Compiles the program in the README with the doc examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the programs of the page for embedders.
#[cfg(doctest)]
#[doc = include_str!("../docs/embed.md")]
struct Embed;
