//! The lock of the types that several threads share: a client's queue, the slot of a reply, the
//! senders that wait for the inbox, the readiness of a socket. And the counters of 64 bits.
//!
//! `tests/loom` replaces it by loom's lock, to try every order in which threads can take it.

// Counters of 64 bits, also on processors without such atomic operations (MIPS, ARMv5), where a lock
// stands behind each.
#[cfg(not(target_has_atomic = "64"))]
pub(crate) use portable_atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::{Mutex, MutexGuard};
