//! Replaces the hub's lock by loom's, which tries every order of threads.

pub(crate) use loom::sync::{Mutex, MutexGuard};
