//! The readiness of a socket, and the task that waits for it.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

// Flags of readiness; also what a task asks for.
pub(crate) const READABLE: u8 = 1;

pub(crate) const WRITABLE: u8 = 2;

/// The peer has shut down its side: from now on every read returns at once.
pub(crate) const ENDED: u8 = 4;

/// The kernel is asked to report when the socket becomes writable.
const WRITABLE_WANTED: u8 = 8;

/// Readiness that was not consumed yet, and the waker of the one task that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    flags: u8,
    waker: Option<Waker>,
}

impl Readiness {
    /// Adds flags and wakes the task.
    pub(crate) fn set(&self, flags: u8) {
        let mut state = self.lock();
        state.flags |= flags;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready if one of the flags in `what` is set; clears them. Otherwise the next call of `set`
    /// wakes the task, whatever its flags.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, what: u8) -> Poll<()> {
        let mut state = self.lock();
        let ready = state.flags & what;
        state.flags &= !what;
        if ready != 0 || (what == READABLE && state.flags & ENDED != 0) {
            return Poll::Ready(());
        }
        if state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let before = state.waker.replace(cx.waker().clone());
        // Dropped outside the lock: a waker's drop may run any code.
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Whether the peer has shut down its side.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().flags & ENDED != 0
    }

    /// Sets flags without a wake, for the task itself.
    pub(crate) fn expect(&self, what: u8) {
        self.lock().flags |= what;
    }

    /// Whether the kernel was already asked to report room for writes; marks it as asked.
    pub(crate) fn wants_writable(&self) -> bool {
        let mut state = self.lock();
        let wanted = state.flags & WRITABLE_WANTED != 0;
        state.flags |= WRITABLE_WANTED;
        wanted
    }

    /// Drops the waker, which may own the task that owns the socket.
    pub(crate) fn end(&self) {
        let waker = self.lock().waker.take();
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
