//! A small WebSocket hub on smol: a message sent to a room goes to everyone in it, at once, in
//! little memory. Delivery is at most once and ordered: a message reaches a client once or not at
//! all, all clients of a room see its messages in the same order, and there is no history.
//!
//! ```
//! use std::sync::Arc;
//!
//! use hublet::{Admission, Client, Config, Disconnect, Handler};
//! use hublet::{Hub, Listener, Message};
//! use smol::{Executor, future};
//!
//! /// What a client says, everyone in the room hears.
//! struct Chat;
//!
//! impl Handler for Chat {
//!     async fn on_message(
//!         &self,
//!         client: &Client,
//!         message: Message,
//!     ) -> Result<(), Disconnect> {
//!         let heard = client.hub().publish("main", message).await;
//!         heard.map(drop).map_err(|_| Disconnect::GOING_AWAY)
//!     }
//! }
//!
//! # fn main() -> Result<(), hublet::Error> {
//! let executor = Arc::new(Executor::new());
//! smol::block_on(executor.run(async {
//!     let (hub, manager) = Hub::new(Config::default())?;
//!     executor.spawn(manager).detach();
//!     let listener = Listener::bind("127.0.0.1:0")?;
//! #   let address = listener.local_addr().expect("TCP");
//!     let server = hub.serve(&executor, listener, Chat);
//!
//!     // Beside it, the rest of the program: it speaks and listens itself.
//!     let program = async {
//!         let mut ear = hub.subscribe(Admission::anonymous().room("main")).await?;
//!         assert_eq!(hub.publish("main", "welcome").await?, 1);
//!         let heard = ear.next().await.expect("connected");
//!         assert_eq!(heard.as_text(), Some("welcome"));
//! #       // A WebSocket client of another make.
//! #       let stream = smol::net::TcpStream::connect(address).await?;
//! #       let url = format!("ws://{address}/");
//! #       let (mut peer, _) = async_tungstenite::client_async(url, stream).await.expect("101");
//! #       peer.send("hello".into()).await.expect("sent");
//! #       assert_eq!(ear.next().await.expect("connected").as_text(), Some("hello"));
//!         drop(ear);
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
//! # The model
//!
//! A **[`Hub`]** is a handle, cheap to clone and to store. Behind it the **manager**, a future that
//! [`Hub::new`] returns for you to spawn, owns the registry of clients, rooms and users; every verb
//! is a command to it over a bounded inbox.
//!
//! A **[`Client`]** is one connected peer. It has a [`ClientId`] of its own, it may
//! belong to a **user** ([`Admission::user`]; one user, many clients), and it is in some **rooms**.
//! A room is a name: it exists while somebody is in it, and nobody makes or removes one.
//! [`Hub::subscribe`] makes the program itself a client.
//!
//! | | to everyone it is meant for | to everyone else |
//! |---|---|---|
//! | all clients | [`Hub::broadcast`] | [`Client::broadcast`] |
//! | a room | [`Hub::publish`] | [`Client::publish`] |
//! | a client, or a user's clients | [`Hub::send`], [`Hub::send_to_user`] | |
//!
//! Each client has a **queue**, bounded in messages and in bytes. While the client keeps up the
//! queue is empty and messages go straight to its socket; a message is encoded once and shared by
//! every queue it waits in.
//!
//! **A slow client** pays for itself: the manager never waits for one. When its queue is full, it
//! is evicted with close code 4108 at once, or misses messages, as [`Overflow`] says.
//! **A fast publisher** waits: its verb is pending while the inbox is full, and a peer whose
//! handler waits is not read, so TCP slows it down and no other.
//!
//! # Ordering and delivery
//!
//! The manager dispatches one command after another, so all clients of a room see its messages in
//! one order, and the messages of one publisher in the order it sent them. The number that a verb
//! returns counts the recipients at dispatch; what became of them is in [`Stats`]: delivered (the
//! kernel took the last byte), dropped (the client overflowed) or lost (the client's connection
//! ended first). A client that was away has missed what was said.
//!
//! # Cancel safety
//!
//! A verb that is dropped before it is done is carried out whole or not at all, and what it would
//! have returned is lost. A dropped [`Hub::serve`] closes its listener and leaves its connections;
//! a dropped [`Hub::serve_connection`] ends its client. Hooks are dropped when their client goes,
//! [`Handler`] says which.
//!
//! # Threads
//!
//! The library spawns on the executor that it is given and nowhere else, starts no thread (async-io
//! has one, for timers and whatever else it watches, as in every program on smol), keeps no global,
//! reads no environment, installs no signal handler and prints nothing; it logs by the facade
//! `log`. A program that is mostly its hub may have its sockets watched by a [`Reactor`] in the
//! thread that runs it, for fewer system calls. One thread serves ten thousand clients. For more,
//! run the same executor on each:
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
//!     // The rest as above; here, that a task is run by those threads.
//!     assert_eq!(future::block_on(executor.spawn(async { 6 * 7 })), 42);
//!     drop(stop);
//! });
//! ```
//!
//! # Three ways in
//!
//! - [`Hub::serve`]: a [`Listener`], TCP or Unix, and everything behind it
//! - [`Hub::serve_connection`]: an accept loop of your own, TLS, a pipe: any stream
//! - [`Hub::upgrade`] and [`Hub::serve_upgraded`]: behind an HTTP server of your own
//!
//! # Limits
//!
//! Everything has one: [`Config`] lists them with their defaults. Nothing a peer sends panics,
//! blocks another client or grows memory without bound. A peer is told what it did wrong: an HTTP
//! status before the upgrade, a close code with a reason after it ([`Disconnect`]).
//!
//! # Features and platforms
//!
//! The default feature `cli` is the binary's; the library needs none: `default-features = false`.
//! Linux is what it is made for. Other Unix systems and Windows compile; what differs there is
//! said where it does ([`Listener::bind`], [`Config::max_clients`](Config#structfield.max_clients)).

mod config;
mod connection;
mod disconnect;
mod error;
mod frame;
mod http1;
mod hub;
mod json;
mod limits;
mod memory;
mod message;
mod name;
mod net;
mod network;
mod serve;
#[cfg(test)]
mod sim;
mod sse;
mod stats;
mod sync;
mod time;
mod websocket;

pub use config::{Config, Overflow, Page};
pub use connection::handler::{Admission, Handler};
pub use disconnect::Disconnect;
pub use error::Error;
pub use http;
pub use http1::origin::is_local;
pub use http1::url::{query_of, room_of};
pub use hub::client::Client;
pub use hub::client_id::{ClientId, Member, Target};
pub use hub::handle::Hub;
pub use hub::sizing::Sizing;
pub use message::Message;
pub use name::is_name;
pub use net::listener::Listener;
pub use net::peer::Peer;
pub use net::reactor::Reactor;
pub use network::Network;
pub use serve::subscription::Subscription;
pub use stats::Stats;

/// The program in the README is compiled with the examples here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And so is what the page for embedders has.
#[cfg(doctest)]
#[doc = include_str!("../docs/embed.md")]
struct Embed;
