//! The time in tests: virtual on a thread that has a [`VirtualTime`], real on others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::time::clock::{Clock, real};

thread_local! {
    /// The virtual time of this thread, if it has one.
    static VIRTUAL: RefCell<Option<Virtual>> = const { RefCell::new(None) };
}

/// A clock that stands still until the test moves it, and the timers that wait for it.
#[derive(Debug)]
struct Virtual {
    now: Instant,
    /// The wakers of timers, by the time when each is due and the number of the timer.
    alarms: BTreeMap<(Instant, u64), Option<Waker>>,
    next: u64,
    /// How often a timer was set.
    set: usize,
}

/// While this lives, the time of its thread is virtual.
#[derive(Debug)]
pub(crate) struct VirtualTime(());

impl VirtualTime {
    pub(crate) fn start() -> Self {
        let time = Virtual { now: Instant::now(), alarms: BTreeMap::new(), next: 0, set: 0 };
        let before = VIRTUAL.with(|time_now| time_now.borrow_mut().replace(time));
        assert!(before.is_none(), "one simulation a thread");
        Self(())
    }

    /// Timers that exist.
    pub(crate) fn timers(&self) -> usize {
        with(|time| time.alarms.len()).unwrap_or(0)
    }

    /// How often a timer was set: each time wakes a reactor.
    pub(crate) fn timers_set(&self) -> usize {
        with(|time| time.set).unwrap_or(0)
    }

    /// How long until the first timer that has not fired is due.
    pub(crate) fn until_next(&self) -> Option<Duration> {
        with(|time| {
            let next = time.alarms.iter().find(|(_, waker)| waker.is_some());
            next.map(|((due, _), _)| due.saturating_duration_since(time.now))
        })
        .flatten()
    }

    /// Moves the clock, and wakes the tasks whose timers are due.
    pub(crate) fn advance(&self, by: Duration) {
        let due = with(|time| {
            time.now += by;
            let now = time.now;
            let due = time.alarms.range_mut(..=(now, u64::MAX));
            due.filter_map(|(_, waker)| waker.take()).collect::<Vec<_>>()
        });
        due.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        VIRTUAL.with(|time| time.borrow_mut().take());
    }
}

fn with<T>(f: impl FnOnce(&mut Virtual) -> T) -> Option<T> {
    VIRTUAL.with(|time| time.borrow_mut().as_mut().map(f))
}

/// The virtual time, or the real one if this thread has none.
pub(crate) fn now() -> Instant {
    with(|time| time.now).unwrap_or_else(real::now)
}

/// A timer with the methods of [`real::Timer`].
#[derive(Debug)]
pub(crate) enum Timer {
    Real(real::Timer),
    Virtual { due: Instant, number: u64 },
}

impl Timer {
    /// A timer that is not set.
    pub(crate) fn new(clock: &Clock) -> Self {
        let number = with(|time| {
            time.next += 1;
            time.next
        });
        let virtual_timer = |number| Self::Virtual { due: now(), number };
        number.map_or_else(|| Self::Real(real::Timer::new(clock)), virtual_timer)
    }

    pub(crate) fn set_at(&mut self, at: Instant) {
        match self {
            Self::Real(timer) => timer.set_at(at),
            Self::Virtual { due, number } => {
                with(|time| {
                    time.set += 1;
                    let waker = time.alarms.remove(&(*due, *number)).flatten();
                    time.alarms.insert((at, *number), waker);
                });
                *due = at;
            }
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Real(timer) => Pin::new(timer).poll(cx),
            Self::Virtual { due, number } => with(|time| {
                if *due <= time.now {
                    return Poll::Ready(());
                }
                time.alarms.insert((*due, *number), Some(cx.waker().clone()));
                Poll::Pending
            })
            .expect("a virtual timer lives in its simulation"),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Self::Virtual { due, number } = self {
            with(|time| time.alarms.remove(&(*due, *number)));
        }
    }
}
