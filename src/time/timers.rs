//! All timers of a hub's connections, on one timer of the runtime.
//!
//! Setting a timer of the runtime is a system call or two, and a handshake needs three timers. This
//! one is set only for the earliest deadline.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::sync::{Mutex, MutexGuard};
use crate::time::clock::{Clock, Timer, now};
use crate::time::timer_list::{Slot, Tick, TimerList};
use crate::time::wake::wake;

/// The deadlines of a hub's connections, and the timer that fires for them.
///
/// The timer is not moved when the earliest deadline is cancelled, as most deadlines are: it fires
/// without effect and is set for the next one. Without deadlines it is not set.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The time of the first tick.
    origin: Instant,
    state: Mutex<State>,
    /// The waker that the timer calls.
    waker: Waker,
}

#[derive(Debug)]
struct State {
    deadlines: TimerList,
    /// The clock that the timer is on, and other timers of the hub.
    clock: Clock,
    timer: Timer,
    /// The deadline that the timer is set for, if it is set. No deadline is earlier.
    set_for: Option<Tick>,
}

impl Timers {
    pub(crate) fn new() -> Arc<Self> {
        let (deadlines, clock) = (TimerList::default(), Clock::default());
        let timer = Timer::new(&clock);
        let waiting = State { deadlines, clock, timer, set_for: None };
        Arc::new_cyclic(|timers| Self {
            origin: now(),
            state: Mutex::new(waiting),
            waker: Waker::from(Arc::new(TimerWaker(Weak::clone(timers)))),
        })
    }

    /// The clock of the hub, for timers of its own.
    pub(crate) fn clock(&self) -> Clock {
        self.lock().clock.clone()
    }

    /// Moves all deadlines to another clock.
    pub(crate) fn run_on(&self, clock: Clock) {
        let is_set = {
            let waiting = &mut *self.lock();
            waiting.timer = Timer::new(&clock);
            waiting.clock = clock;
            waiting.set_for.is_none_or(|due| self.set(waiting, due))
        };
        if !is_set {
            self.fire();
        }
    }

    /// A deadline in `wait` from now, rounded up to a tick.
    pub(crate) fn after(&self, wait: Duration) -> Deadline<'_> {
        self.at(self.tick_of(now() + wait))
    }

    /// A deadline at `due`.
    pub(crate) fn at(&self, due: Tick) -> Deadline<'_> {
        Deadline { timers: self, due, slot: Slot::NONE }
    }

    /// The time now, rounded up to a tick.
    pub(crate) fn now(&self) -> Tick {
        self.tick_of(now())
    }

    /// The time this long ago, at most a day.
    pub(crate) fn before(&self, idle: Duration) -> Tick {
        self.now().less(idle.min(Config::WAIT_MAX))
    }

    /// How long ago a tick was that has passed, at most a day.
    pub(crate) fn since(&self, tick: Tick) -> Duration {
        self.now().time_after(tick).min(Config::WAIT_MAX)
    }

    /// A point in time, rounded up to a tick.
    pub(crate) fn tick_of(&self, time: Instant) -> Tick {
        Tick::coming(time.saturating_duration_since(self.origin))
    }

    /// Wakes every task that waits for a deadline, before its time.
    pub(crate) fn wake_all(&self) {
        let mut all = Vec::new();
        self.lock().deadlines.take_all(&mut all);
        // Outside the lock, as in `fire`.
        all.into_iter().for_each(wake);
    }

    /// Whether a tick is not in the future.
    pub(crate) fn has_come(&self, tick: Tick) -> bool {
        !Tick::passed(self.elapsed()).is_before(tick)
    }

    /// The number of handles with a slot, and of those that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        self.lock().deadlines.len()
    }

    /// The time since the first tick: the clock of the timers.
    pub(crate) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer for `due`; `false` if that has passed meanwhile, so that the timer will not
    /// fire.
    fn set(&self, waiting: &mut State, due: Tick) -> bool {
        waiting.set_for = Some(due);
        waiting.timer.set_at(self.origin + due.since_first(self.elapsed()));
        Pin::new(&mut waiting.timer).poll(&mut Context::from_waker(&self.waker)).is_pending()
    }

    /// The timer has fired: wakes the handles that are due, and sets the timer for the next
    /// deadline.
    ///
    /// A handle that registers meanwhile on another thread sees the timer set for the old deadline,
    /// and leaves its own to this call; or it registers after this call and sets the timer itself.
    fn fire(&self) {
        loop {
            let mut due = Vec::new();
            let done = self.take_due(&mut due);
            // Outside the lock: a woken task may register or cancel deadlines at once.
            due.into_iter().for_each(wake);
            if done {
                break;
            }
        }
    }

    /// Takes the wakers that are due; `false` if the next deadline passed meanwhile, so that
    /// another round is needed.
    fn take_due(&self, due: &mut Vec<Waker>) -> bool {
        let waiting = &mut *self.lock();
        let passed = Tick::passed(self.elapsed());
        // The timer may still fire for a deadline that it is no longer set for.
        if waiting.set_for.is_none_or(|set_for| passed.is_before(set_for)) {
            return true;
        }
        waiting.set_for = None;
        let next = waiting.deadlines.take_due(passed, due);
        next.is_none_or(|next| self.set(waiting, next))
    }
}

/// The waker of the timer. It is weak: the timers own the timer, which owns this.
struct TimerWaker(Weak<Timers>);

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(timers) = self.0.upgrade() {
            timers.fire();
        }
    }
}

/// A deadline: a future that is ready from then on.
///
/// It is registered by its first poll, until it is dropped. After `set`, the new deadline counts
/// from the next poll on. If it is later than the old one, the task is still woken at the old one
/// and polls again.
#[derive(Debug)]
pub(crate) struct Deadline<'a> {
    timers: &'a Timers,
    due: Tick,
    slot: Slot,
}

impl<'a> Deadline<'a> {
    /// Moves the deadline. Poll it again.
    pub(crate) fn set(&mut self, due: Tick) {
        self.due = due;
    }

    /// When it is.
    pub(crate) fn due(&self) -> Tick {
        self.due
    }

    pub(crate) fn timers(&self) -> &'a Timers {
        self.timers
    }

    /// Runs a future to its end or to the deadline; `None` if the deadline is earlier.
    pub(crate) async fn within<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Pin::new(&mut *self).poll(cx).map(|()| None),
        })
        .await
    }

    /// Registers `waker` for the deadline.
    fn wake(&mut self, waker: &Waker) {
        let Self { timers, due, slot } = self;
        let (before, fires) = {
            let waiting = &mut *timers.lock();
            let before = waiting.deadlines.put(slot, *due, waker);
            let is_set = waiting.set_for.is_some_and(|set_for| !due.is_before(set_for));
            (before, is_set || timers.set(waiting, *due))
        };
        // Dropped outside the lock: a waker may own a task that has deadlines.
        drop(before);
        if !fires {
            timers.fire();
        }
    }
}

impl Future for Deadline<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timers.has_come(self.due) {
            return Poll::Ready(());
        }
        self.wake(cx.waker());
        Poll::Pending
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        if self.slot != Slot::NONE {
            let waker = self.timers.lock().deadlines.free(self.slot);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests;
