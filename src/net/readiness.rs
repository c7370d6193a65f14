//! What is known of a socket, and the task that waits for more.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

// News, and what a task waits for.
pub(crate) const READABLE: u8 = 1;

pub(crate) const WRITABLE: u8 = 2;

/// The peer sends nothing more: a read has an answer from now on, and for ever.
pub(crate) const ENDED: u8 = 4;

/// The kernel tells when the socket is writable.
const WRITABLE_WANTED: u8 = 8;

/// News of a socket that nobody has used up, and the one task that waits for them.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    flags: u8,
    waker: Option<Waker>,
}

impl Readiness {
    /// There are news: wakes who waits.
    pub(crate) fn set(&self, news: u8) {
        let mut state = self.lock();
        state.flags |= news;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready when there are news of `what`, which are used up by this; otherwise the task is woken
    /// by the next, whatever they are.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, what: u8) -> Poll<()> {
        let mut state = self.lock();
        let news = state.flags & what;
        state.flags &= !what;
        if news != 0 || (what == READABLE && state.flags & ENDED != 0) {
            return Poll::Ready(());
        }
        if state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let before = state.waker.replace(cx.waker().clone());
        // What goes with another task's waker is none of the lock's business.
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Whether the peer sends nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().flags & ENDED != 0
    }

    /// The next that ask for `what` will find news of it; for the task itself.
    pub(crate) fn expect(&self, what: u8) {
        self.lock().flags |= what;
    }

    /// Whether the kernel tells when there is room; it does from now on.
    pub(crate) fn wants_writable(&self) -> bool {
        let mut state = self.lock();
        let told = state.flags & WRITABLE_WANTED != 0;
        state.flags |= WRITABLE_WANTED;
        told
    }

    /// Nobody waits any more: the waker may hold the task that holds the socket.
    pub(crate) fn end(&self) {
        let waker = self.lock().waker.take();
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
