//! The lock of the types that several threads share: a client's queue, the slot of a reply, the
//! senders that wait for the inbox, the readiness of a socket.
//!
//! `tests/loom` replaces it by loom's lock, to try every order in which threads can take it.

pub(crate) use std::sync::{Mutex, MutexGuard};
