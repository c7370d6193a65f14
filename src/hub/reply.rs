//! A slot for one answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// Makes a slot: the side that answers and the side that waits.
pub(crate) fn reply<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Mutex::new(Slot { state: State::Open, waker: None }));
    (Reply(Arc::clone(&slot)), Answer(slot))
}

/// Where an answer goes. Answering never waits; dropped unanswered, it tells the other side.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<Mutex<Slot<T>>>);

/// Waits for an answer: `None` when there will be none. Cancel safe.
#[derive(Debug)]
pub(crate) struct Answer<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
struct Slot<T> {
    state: State<T>,
    /// Wakes the task that waits.
    waker: Option<Waker>,
}

#[derive(Debug)]
enum State<T> {
    Open,
    /// Open, and what was asked for is under way.
    Begun,
    Answered(T),
    Closed,
}

impl<T> Reply<T> {
    /// Answers. The caller may have dropped its side, and then the value is dropped.
    pub(crate) fn answer(self, value: T) {
        self.set(State::Answered(value));
    }

    /// Whether the other side is still there.
    pub(crate) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Says that what was asked for is under way; `false` if the caller has withdrawn it.
    pub(crate) fn begin(&self) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(slot.state, State::Open) {
            slot.state = State::Begun;
        }
        !matches!(slot.state, State::Closed)
    }

    fn set(&self, state: State<T>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(slot.state, State::Open | State::Begun) {
            slot.state = state;
            let waker = slot.waker.take();
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Answer<T> {
    /// Withdraws what was asked for; `false` if it is under way or done.
    pub(crate) fn withdraw(&self) -> bool {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = matches!(slot.state, State::Open);
        if is_open {
            slot.state = State::Closed;
        }
        is_open
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.set(State::Closed);
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut slot.state, State::Closed) {
            State::Answered(value) => Poll::Ready(Some(value)),
            State::Closed => Poll::Ready(None),
            state @ (State::Open | State::Begun) => {
                slot.state = state;
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
