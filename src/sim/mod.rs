//! The simulation: the hub and its connections on an executor, a network and a clock that a seed
//! drives.
//!
//! What runs is what is shipped: the manager, the registry, the queues, the inbox, the admissions,
//! the handshake, the requests, the connections, the streams of events, the drain. What does not: the
//! accept loop and real sockets, requests other than upgrades, events and posts, and threads (one task
//! runs at a time, in any order).
//!
//! As on a real network, what is written comes later, and a connection that is dropped with unread
//! bytes, or is sent more, is reset: what its peer has not read by then is lost. What a stream that
//! does not deliver alone has not delivered is lost with it in any case.
//!
//! A run connects peers, over WebSocket and for events, some of them steady (they read everything
//! and answer pings), some that stall, break off in the middle of a frame, break the rules, vanish;
//! others post, one request after another; others poll a room, each request waiting for the next
//! message; it lets handlers publish, join, leave, kick, fail, panic and take their time; it lets a
//! program around the hub do the same and change its mind; readers come with `since`, and come back
//! with the position that they have heard last; some peers hear the newest message of their room every
//! so often; it lets time pass, or the whole process oversleep.
//! Everything is noted, and at rest and at the end the notes are checked against the invariants.
//!
//! HUBLET_SIM_SEEDS=A..B chooses the seeds. With HUBLET_SIM_KEEP_GOING=1 all cores run them, or as
//! many threads as HUBLET_SIM_THREADS says, and each seed that fails is listed. HUBLET_TEST_SEED=N
//! replays one and prints all its events.

pub(crate) mod any_config;
mod conflated;
mod connecting;
mod ending;
mod engine;
mod engine_driver;
mod event_reader;
mod executor;
mod invariants;
mod journal;
pub(crate) mod network;
mod notes;
mod peer;
mod poller;
mod poster;
mod reader;
mod response;
mod rest;
mod restart;
mod script;
mod seeds;
mod several;
mod several_checks;
mod several_notes;
mod several_readers;
mod sweep;
#[cfg(feature = "tls")]
mod tls;
mod world;
