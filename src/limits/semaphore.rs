//! A fair semaphore: permits are granted in the order in which they were asked for.
//!
//! The order depends on nothing but the calls, not on time, so that a simulation repeats.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

/// A number of permits, and the line of futures that wait for one.
///
/// A permit that is released goes to the first future in the line. So a task that asks again at
/// once, however often, stands behind every future that asked before.
#[derive(Debug)]
pub(crate) struct FifoSemaphore(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Permits that are free; above 0 only while the line is empty.
    free: usize,
    /// The ticket and the waker of each future that waits, in order. Accept loops, connections and
    /// publishers wait, and each has one entry.
    line: VecDeque<(u64, Waker)>,
    /// The next ticket.
    next: u64,
}

impl FifoSemaphore {
    pub(crate) fn new(permits: usize) -> Self {
        Self(Mutex::new(State { free: permits, line: VecDeque::new(), next: 0 }))
    }

    /// Waits for a permit.
    ///
    /// Cancel safety: a future that is dropped early leaves the line.
    pub(crate) fn acquire(&self) -> Acquire<'_> {
        Acquire { semaphore: self, ticket: None }
    }

    /// Grants a permit to the first future in the line, or makes it free.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        let first = state.line.pop_front();
        if first.is_none() {
            state.free += 1;
        }
        drop(state);
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Whether no permit is free.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.lock().free == 0
    }

    /// Whether a future waits for a permit.
    pub(crate) fn is_contended(&self) -> bool {
        !self.lock().line.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that waits for a permit.
#[derive(Debug)]
pub(crate) struct Acquire<'a> {
    semaphore: &'a FifoSemaphore,
    /// Its ticket once it has waited. A ticket that is not in the line any more has its permit.
    ticket: Option<u64>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Permit<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit<'a>> {
        let mut state = self.semaphore.lock();
        if let Some(ticket) = self.ticket {
            if let Ok(at) = state.line.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
                state.line[at].1.clone_from(cx.waker());
                return Poll::Pending;
            }
        } else if state.free > 0 {
            state.free -= 1;
        } else {
            let ticket = state.next;
            state.next += 1;
            state.line.push_back((ticket, cx.waker().clone()));
            drop(state);
            self.ticket = Some(ticket);
            return Poll::Pending;
        }
        drop(state);
        self.ticket = None;
        Poll::Ready(Permit(self.semaphore))
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.semaphore.lock();
        match state.line.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            Ok(at) => drop(state.line.remove(at)),
            // It was granted a permit that it has not seen: the next one gets it.
            Err(_) => {
                drop(state);
                self.semaphore.release();
            }
        }
    }
}

/// A permit, released when dropped.
#[derive(Debug)]
#[must_use = "a permit that is dropped is released"]
pub(crate) struct Permit<'a>(&'a FifoSemaphore);

impl Permit<'_> {
    /// Keeps the permit beyond this borrow; it has to be [released](FifoSemaphore::release).
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::tests::support::Wakes;

    /// A future that waits, with a waker of its own; the permit that it was granted.
    struct Waiter<'a>(Pin<Box<Acquire<'a>>>, Arc<Wakes>, Option<Permit<'a>>);
    impl<'a> Waiter<'a> {
        fn at(semaphore: &'a FifoSemaphore) -> Self {
            Self(Box::pin(semaphore.acquire()), Arc::default(), None)
        }

        fn poll(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.1));
            if let Poll::Ready(permit) = self.0.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.2 = Some(permit);
            }
            self.2.is_some()
        }

        fn release(&mut self) {
            assert!(self.2.take().is_some());
        }
    }
    #[test]
    fn permits_are_granted_in_order_and_to_one_waiter_each() {
        let semaphore = FifoSemaphore::new(2);
        let [mut first, mut second, mut third, mut fourth] =
            [(); 4].map(|()| Waiter::at(&semaphore));
        assert!(first.poll() && !semaphore.is_exhausted());
        assert!(second.poll() && semaphore.is_exhausted() && !semaphore.is_contended());
        assert!(!third.poll() && !fourth.poll() && semaphore.is_contended());
        first.release();
        assert_eq!((third.1.take(), fourth.1.take()), (1, 0));
        // The third has not looked yet, and still no other waiter gets its permit.
        let mut fifth = Waiter::at(&semaphore);
        assert!(!fifth.poll() && !fourth.poll() && third.poll());
        second.release();
        third.release();
        assert_eq!((fourth.1.take(), fifth.1.take()), (1, 1));
        assert!(fifth.poll() && fourth.poll() && !semaphore.is_contended());
        fourth.release();
        assert!(Waiter::at(&semaphore).poll(), "the line is empty, so it is free");
    }
    #[test]
    fn a_waiter_that_leaves_the_line_keeps_no_permit() {
        let semaphore = FifoSemaphore::new(1);
        let [mut first, mut second, mut third, mut fourth] =
            [(); 4].map(|()| Waiter::at(&semaphore));
        assert!(first.poll());
        assert!(!second.poll() && !third.poll() && !fourth.poll());
        drop(second);
        first.release();
        assert_eq!((third.1.take(), fourth.1.take()), (1, 0));
        drop(third);
        assert_eq!(fourth.1.take(), 1, "the permit that it was granted goes on to the next");
        assert!(fourth.poll());
        let Waiter(fourth, _, permit) = fourth;
        drop((first, fourth));
        assert!(!Waiter::at(&semaphore).poll(), "the permit is released, and not its future");
        drop(permit);
        assert!(!semaphore.is_exhausted());
    }
    #[test]
    fn a_forgotten_permit_is_taken_until_it_is_released() {
        let semaphore = FifoSemaphore::new(1);
        futures_lite::future::block_on(semaphore.acquire()).forget();
        assert!(semaphore.is_exhausted());
        semaphore.release();
        assert!(!semaphore.is_exhausted());
    }
}
