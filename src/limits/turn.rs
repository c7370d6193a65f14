//! A place that one has at a time, in the order in which it was asked for.
//!
//! The order hangs on nothing but who asked first, not on time, so that a simulation repeats.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

/// The place, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    /// Somebody has the place.
    taken: bool,
    /// Who waits, first come first: a ticket and its waker. One entry for each future that waits.
    waiting: VecDeque<(u64, Waker)>,
    /// The next ticket.
    next: u64,
}

impl Turn {
    /// Waits for the place. Cancel safe: who gives up is out of the line.
    pub(crate) fn take(&self) -> Take<'_> {
        Take { turn: self, ticket: None }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Who is to be woken now that the place is free.
    fn first(&self) -> Option<Waker> {
        let first = self.waiting.front().filter(|_| !self.taken);
        first.map(|(_, waker)| waker.clone())
    }
}

/// A future that waits for the place.
#[derive(Debug)]
pub(crate) struct Take<'a> {
    turn: &'a Turn,
    /// Its ticket while it waits.
    ticket: Option<u64>,
}

impl<'a> Future for Take<'a> {
    type Output = Taken<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Taken<'a>> {
        let turn = self.turn;
        let mut line = turn.lock();
        let first = line.waiting.front().map(|(ticket, _)| *ticket);
        if !line.taken && first == self.ticket {
            line.taken = true;
            line.waiting.pop_front();
            self.ticket = None;
            return Poll::Ready(Taken(turn));
        }
        match self.ticket {
            Some(ticket) => {
                let entry = line.waiting.iter_mut().find(|(other, _)| *other == ticket);
                if let Some((_, waker)) = entry {
                    waker.clone_from(cx.waker());
                }
            }
            None => {
                self.ticket = Some(line.next);
                let ticket = line.next;
                line.next += 1;
                line.waiting.push_back((ticket, cx.waker().clone()));
            }
        }
        Poll::Pending
    }
}

impl Drop for Take<'_> {
    /// Who waits no more lets the next one go.
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut line = self.turn.lock();
        line.waiting.retain(|(other, _)| *other != ticket);
        let next = line.first();
        drop(line);
        next.into_iter().for_each(Waker::wake);
    }
}

/// The place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.taken = false;
        let next = line.first();
        drop(line);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::tests::support::Wakes;

    /// Polls a future; counts its wakes.
    fn poll<'a>(take: &mut Pin<Box<Take<'a>>>, wakes: &Arc<Wakes>) -> Option<Taken<'a>> {
        let waker = Waker::from(Arc::clone(wakes));
        match take.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }
    #[test]
    fn first_come_is_first_served_and_nobody_comes_between() {
        let turn = Turn::default();
        let wakes = [(); 3].map(|()| Arc::new(Wakes::default()));
        let mut takes = [(); 3].map(|()| Box::pin(turn.take()));
        let first = poll(&mut takes[0], &wakes[0]).expect("it is free");
        assert!(poll(&mut takes[1], &wakes[1]).is_none());
        drop(first);
        assert_eq!(wakes[1].take(), 1);
        assert!(poll(&mut takes[2], &wakes[2]).is_none(), "another waits already");
        let second = poll(&mut takes[1], &wakes[1]).expect("its turn");
        drop(second);
        assert_eq!(wakes[2].take(), 1);
        assert!(poll(&mut takes[2], &wakes[2]).is_some());
    }
    #[test]
    fn who_gives_up_hands_its_turn_on() {
        let turn = Turn::default();
        let wakes = [(); 3].map(|()| Arc::new(Wakes::default()));
        let mut takes = [(); 3].map(|()| Box::pin(turn.take()));
        let first = poll(&mut takes[0], &wakes[0]).expect("it is free");
        assert!(poll(&mut takes[1], &wakes[1]).is_none());
        assert!(poll(&mut takes[2], &wakes[2]).is_none());
        drop(first);
        let [_, second, mut third] = takes;
        drop(second);
        assert_eq!(wakes[2].take(), 1);
        assert!(poll(&mut third, &wakes[2]).is_some());
        assert!(turn.lock().waiting.is_empty());
    }
}
