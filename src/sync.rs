//! The lock under which threads meet: in a client's queue, in the slot of an answer, in the line
//! for the inbox, in the news of a socket.
//!
//! `tests/loom` puts loom's in its place and tries every order of those who take it.

pub(crate) use std::sync::{Mutex, MutexGuard};
