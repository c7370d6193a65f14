//! Wakers of timers that have fired.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Calls a waker. One that panics must not keep others from being woken. The panic hook has
/// reported the panic.
pub(crate) fn wake(waker: Waker) {
    drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
}
