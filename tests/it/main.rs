//! The hub over sockets and pipes, through its public API.
#![cfg(unix)]

#[path = "../peer/mod.rs"]
mod peer;
mod pipe;
mod support;

mod broadcast;
mod rooms;
mod users;

mod backpressure;
mod departure;
mod endings;
mod handshake;
mod heartbeat;
mod shutdown;

mod acked;
mod deflate;
mod every;
mod framing;
mod http;
mod inspection;
mod kept;
mod lines;
mod listeners;
mod rates;
mod several;
mod sse;
mod terms;

mod embed;
mod endpoints;
mod events;
mod hostile;
mod relay;
mod storms;

mod readme;
mod tidy;
