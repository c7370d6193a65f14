//! In place of the hub's: loom's lock, which gives way to every other thread at each turn.

pub(crate) use loom::sync::{Mutex, MutexGuard};
