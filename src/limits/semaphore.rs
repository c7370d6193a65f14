//! Places that are given in the order in which they were asked for.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// So many places, and those who wait for one.
///
/// A place that is given back goes to the first in the line: whoever comes back at once, however
/// often, is behind everyone who came before.
#[derive(Debug)]
pub(crate) struct Places(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Places that nobody has; above 0 only while nobody waits.
    free: usize,
    /// Who waits, each under its number; bounded by those who ask, which are accept loops and
    /// connections.
    line: VecDeque<(u64, Waker)>,
    /// The number of the next one.
    next: u64,
}

impl Places {
    pub(crate) fn new(places: usize) -> Self {
        Self(Mutex::new(State { free: places, line: VecDeque::new(), next: 0 }))
    }

    /// Waits for a place, which has to be [given back](Self::give_back).
    ///
    /// Cancel safety: dropped early, it leaves the line.
    pub(crate) fn take(&self) -> Take<'_> {
        Take { places: self, stand: Stand::Outside }
    }

    /// Gives a place to who waits for it, or lets it be free.
    pub(crate) fn give_back(&self) {
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

    /// Whether who asks now has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().free == 0
    }

    /// Whether somebody waits.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.lock().line.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who asks for a place.
#[derive(Debug)]
pub(crate) struct Take<'a> {
    places: &'a Places,
    stand: Stand,
}

#[derive(Debug, Clone, Copy)]
enum Stand {
    /// Not in the line, and without a place that would have to be given back.
    Outside,
    /// In the line under this number, or out of it because a place was given.
    InLine(u64),
}

impl Future for Take<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.places.lock();
        match self.stand {
            Stand::Outside if state.free > 0 => {
                state.free -= 1;
                return Poll::Ready(());
            }
            Stand::Outside => {
                let number = state.next;
                state.next += 1;
                state.line.push_back((number, cx.waker().clone()));
                drop(state);
                self.stand = Stand::InLine(number);
            }
            Stand::InLine(number) => match state.line.binary_search_by_key(&number, |(n, _)| *n) {
                Ok(at) => state.line[at].1.clone_from(cx.waker()),
                Err(_) => {
                    drop(state);
                    self.stand = Stand::Outside;
                    return Poll::Ready(());
                }
            },
        }
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        let Stand::InLine(number) = self.stand else { return };
        let mut state = self.places.lock();
        match state.line.binary_search_by_key(&number, |(n, _)| *n) {
            Ok(at) => drop(state.line.remove(at)),
            // It was given a place that it has not seen.
            Err(_) => {
                drop(state);
                self.places.give_back();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::tests::support::Wakes;

    /// One who asks, with a waker of its own.
    struct Asking<'a>(Pin<Box<Take<'a>>>, Arc<Wakes>);
    impl<'a> Asking<'a> {
        fn at(places: &'a Places) -> Self {
            Self(Box::pin(places.take()), Arc::default())
        }

        fn has_place(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.1));
            self.0.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        }
    }
    #[test]
    fn places_are_given_in_order_and_to_one_each() {
        let places = Places::new(2);
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| Asking::at(&places));
        assert!(first.has_place() && !places.is_full());
        assert!(second.has_place() && places.is_full() && !places.is_crowded());
        assert!(!third.has_place() && !fourth.has_place() && places.is_crowded());
        places.give_back();
        assert_eq!((third.1.take(), fourth.1.take()), (1, 0));
        // It has not taken it yet, and still nobody else gets it.
        let mut fifth = Asking::at(&places);
        assert!(!fifth.has_place() && !fourth.has_place() && third.has_place());
        places.give_back();
        places.give_back();
        assert_eq!((fourth.1.take(), fifth.1.take()), (1, 1));
        assert!(fifth.has_place() && fourth.has_place() && !places.is_crowded());
        places.give_back();
        assert!(Asking::at(&places).has_place(), "nobody waits, so it is free");
    }
    #[test]
    fn who_leaves_the_line_keeps_no_place() {
        let places = Places::new(1);
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| Asking::at(&places));
        assert!(first.has_place());
        assert!(!second.has_place() && !third.has_place() && !fourth.has_place());
        drop(second);
        places.give_back();
        assert_eq!((third.1.take(), fourth.1.take()), (1, 0));
        drop(third);
        assert_eq!(fourth.1.take(), 1, "what it was given goes on to the next");
        assert!(fourth.has_place());
        drop((first, fourth));
        assert!(!Asking::at(&places).has_place(), "whose place it is gives it back, and not we");
    }
}
