//! The hub, from the outside: over sockets and pipes, through the public API alone.
#![cfg(unix)]

#[path = "../peer/mod.rs"]
mod peer;
mod pipe;
mod support;

mod broadcast;
mod rooms;
mod users;

mod backpressure;
mod endings;
mod handshake;
mod heartbeat;
mod shutdown;

mod framing;
mod http;
mod sse;

mod embed;
mod hostile;
mod storms;

mod readme;
mod tidy;
