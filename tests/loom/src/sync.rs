//! Replaces the hub's lock by loom's, which tries every order of threads.

pub(crate) use loom::sync::{Mutex, MutexGuard};
// No order of threads is tried for the counters.
pub(crate) use std::sync::atomic::AtomicU64;
