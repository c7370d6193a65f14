//! The timers of a reactor of ours, all on one timer of the kernel. The caller says what time it is.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::sync::{Mutex, MutexGuard};
use crate::time::kernel_timer::KernelTimer;
use crate::time::wake::wake;

/// Points in time with the tasks that wait for them.
///
/// The kernel's timer is a descriptor, so a wait for sockets is also a wait for alarms, without a
/// look at the clock. As in [`Timers`](crate::time::timers::Timers) it is set only for an earlier
/// time than before, and fires without effect if its alarm is gone.
///
/// There are a few alarms: one for each hub, which has the deadlines of all its connections on it,
/// and those of the program.
#[derive(Debug)]
pub(crate) struct Alarms {
    timer: KernelTimer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The alarms that a task waits for, the earliest last; at most one for each [`Alarm`].
    waiting: Vec<Waiting>,
    /// The time that the kernel's timer is set for, if it is set. No alarm is earlier.
    set_for: Option<Instant>,
    /// Alarms made so far. It tells alarms apart that are due at the same time.
    made: u64,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    number: u64,
    waker: Waker,
}

impl Alarms {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { timer: KernelTimer::new()?, state: Mutex::default() })
    }

    /// The descriptor that is readable when [`fire`](Self::fire) must be called.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.timer.descriptor()
    }

    /// The timer has fired: wakes the tasks whose time has come, and sets the timer for the next.
    ///
    /// An alarm that is put meanwhile sees the timer set for the old time, and leaves its own time
    /// to this call; or it is put after this call and sets the timer itself.
    pub(crate) fn fire(&self, now: Instant) {
        while let Some(waker) = self.take_due(now) {
            // Outside the lock: a woken task may put or remove alarms at once.
            wake(waker);
        }
    }

    /// Takes a waker whose time has come. If there is none, sets the timer for the next alarm.
    fn take_due(&self, now: Instant) -> Option<Waker> {
        let state = &mut *self.lock();
        let next = state.waiting.last().map(|next| next.due);
        if next.is_some_and(|due| due <= now) {
            return state.waiting.pop().map(|waiting| waiting.waker);
        }
        state.set_for = next;
        if let Some(due) = next {
            self.timer.set(due - now);
        }
        None
    }

    /// Has `waker` called at `due`. Returns the waker that it replaces, for the caller to drop: that
    /// may remove other alarms.
    fn put(&self, due: Instant, number: u64, waker: &Waker, now: Instant) -> Option<Waker> {
        let state = &mut *self.lock();
        match state.find(due, number) {
            Ok(at) => {
                let before = &mut state.waiting[at].waker;
                (!before.will_wake(waker)).then(|| std::mem::replace(before, waker.clone()))
            }
            Err(at) => {
                state.waiting.insert(at, Waiting { due, number, waker: waker.clone() });
                if state.set_for.is_none_or(|set_for| due < set_for) {
                    state.set_for = Some(due);
                    self.timer.set(due - now);
                }
                None
            }
        }
    }

    fn remove(&self, due: Instant, number: u64) {
        let waiting = {
            let state = &mut *self.lock();
            state.find(due, number).ok().map(|at| state.waiting.remove(at))
        };
        // Outside the lock: a waker may own a task that has alarms.
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The index of an alarm, or the one at which it belongs.
    fn find(&self, due: Instant, number: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by(|waiting| (due, number).cmp(&(waiting.due, waiting.number)))
    }
}

/// One of the [`Alarms`]: a future that is ready from `due` on.
#[derive(Debug)]
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    /// `None` until it is set.
    due: Option<Instant>,
    number: u64,
}

impl Alarm {
    /// An alarm that is not set.
    pub(crate) fn new(alarms: &Arc<Alarms>) -> Self {
        let state = &mut *alarms.lock();
        state.made += 1;
        Self { alarms: Arc::clone(alarms), due: None, number: state.made }
    }

    /// Moves the alarm. Poll it again.
    pub(crate) fn set_at(&mut self, due: Instant) {
        self.cancel();
        self.due = Some(due);
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        if due <= now {
            return Poll::Ready(());
        }
        drop(self.alarms.put(due, self.number, cx.waker(), now));
        Poll::Pending
    }

    fn cancel(&self) {
        if let Some(due) = self.due {
            self.alarms.remove(due, self.number);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::hub::tests::support::{Wakes, seeded};
    use crate::time::clock::now;

    const SECOND: Duration = Duration::from_secs(1);
    fn alarms() -> Arc<Alarms> {
        Arc::new(Alarms::new().expect("a descriptor"))
    }
    fn at(alarms: &Arc<Alarms>, due: Instant) -> Alarm {
        let mut alarm = Alarm::new(alarms);
        alarm.set_at(due);
        alarm
    }
    fn poll(alarm: &Alarm, wakes: &Arc<Wakes>) -> Poll<()> {
        alarm.poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))), now())
    }
    /// Whether it waits, polled before its time, however late the test runs.
    fn waits(alarm: &Alarm, wakes: &Arc<Wakes>) -> bool {
        waits_for(alarm, &Waker::from(Arc::clone(wakes)))
    }
    fn waits_for(alarm: &Alarm, waker: &Waker) -> bool {
        let early = alarm.due.map_or_else(now, |due| due - Duration::from_millis(1));
        alarm.poll(&mut Context::from_waker(waker), early).is_pending()
    }
    /// Waits for the kernel's timer, as a reactor does.
    fn wait(alarms: &Alarms) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        /// A test that waits longer has a timer that is not set.
        const LOST: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut timer = [PollFd::from_borrowed_fd(alarms.descriptor(), PollFlags::IN)];
        let fired = poll(&mut timer, Some(&LOST));
        assert_eq!(fired, Ok(1));
        alarms.fire(now());
    }
    #[test]
    fn alarm_wakes_when_it_is_due_and_never_before() {
        let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
        let due = now() + Duration::from_millis(20);
        let alarm = at(&alarms, due);
        assert!(waits(&alarm, &wakes));
        alarms.fire(now());
        assert_eq!(wakes.take(), 0, "it is not due");
        wait(&alarms);
        assert!(now() >= due, "too early");
        assert_eq!(wakes.take(), 1);
        assert!(poll(&alarm, &wakes).is_ready());
        assert!(alarms.lock().waiting.is_empty());
    }
    #[test]
    fn alarm_in_the_past_is_ready_at_once() {
        let (alarms, wakes) = (alarms(), Arc::default());
        assert!(poll(&at(&alarms, now()), &wakes).is_ready());
        assert!(poll(&Alarm::new(&alarms), &wakes).is_pending(), "it is not set");
        assert_eq!(alarms.lock().set_for, None);
    }
    #[test]
    fn earlier_alarm_sets_the_timer_and_its_end_the_next() {
        let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
        let begin = now();
        let late = at(&alarms, begin + 1000 * SECOND);
        assert!(waits(&late, &wakes));
        let early = at(&alarms, begin + Duration::from_millis(1));
        assert!(waits(&early, &wakes));
        assert_eq!(alarms.lock().set_for, early.due);
        wait(&alarms);
        assert_eq!((wakes.take(), alarms.lock().set_for), (1, late.due));
    }
    #[test]
    fn moved_alarm_wakes_at_the_new_time_only() {
        let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
        let begin = now();
        let mut alarm = at(&alarms, begin + Duration::from_millis(1));
        assert!(waits(&alarm, &wakes));
        alarm.set_at(begin + Duration::from_millis(30));
        assert!(waits(&alarm, &wakes));
        // The timer still fires for the old time.
        while wakes.take() == 0 {
            wait(&alarms);
        }
        assert!(now() - begin >= Duration::from_millis(30), "too early");
    }
    #[test]
    fn dropped_alarm_wakes_no_task_and_drops_its_waker() {
        let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
        let due = now() + Duration::from_millis(1);
        let (gone, stays) = (at(&alarms, due), at(&alarms, due));
        let other = Arc::<Wakes>::default();
        assert!(waits(&gone, &wakes) && waits(&stays, &other));
        drop(gone);
        assert_eq!(Arc::strong_count(&wakes), 1);
        wait(&alarms);
        assert_eq!((wakes.take(), other.take()), (0, 1));
    }
    #[test]
    fn waker_of_the_last_poll_is_called() {
        let (alarms, before, wakes) = (alarms(), Arc::<Wakes>::default(), Arc::<Wakes>::default());
        let alarm = at(&alarms, now() + Duration::from_millis(1));
        assert!(waits(&alarm, &before) && waits(&alarm, &wakes));
        assert_eq!(Arc::strong_count(&before), 1);
        wait(&alarms);
        assert_eq!((before.take(), wakes.take()), (0, 1));
    }
    /// A waker that panics, or that puts an alarm itself, keeps no other from being woken.
    #[test]
    fn waker_may_panic_and_may_put_an_alarm() {
        struct Again(Arc<Alarms>, Mutex<Option<Alarm>>, AtomicUsize);
        impl Wake for Again {
            fn wake(self: Arc<Self>) {
                if self.2.fetch_add(1, Ordering::Relaxed) == 0 {
                    let again = at(&self.0, now() + Duration::from_millis(1));
                    let waker = Waker::from(Arc::clone(&self));
                    assert!(waits_for(&again, &waker));
                    *self.1.lock().expect("not poisoned") = Some(again);
                    panic!("a waker of the program's");
                }
            }
        }
        let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
        let due = now() + Duration::from_millis(1);
        let again = Arc::new(Again(Arc::clone(&alarms), Mutex::default(), AtomicUsize::new(0)));
        let (first, second) = (at(&alarms, due), at(&alarms, due));
        let waker = Waker::from(Arc::clone(&again));
        assert!(waits_for(&first, &waker));
        assert!(waits(&second, &wakes));
        wait(&alarms);
        assert_eq!(wakes.take(), 1);
        wait(&alarms);
        assert_eq!(again.2.load(Ordering::Relaxed), 2);
        again.1.lock().expect("not poisoned").take();
    }
    /// Compares the list with a plain vector, in random order of all operations.
    #[test]
    fn list_has_the_earliest_last() {
        seeded(100, |rng| {
            let (alarms, wakes) = (alarms(), Arc::<Wakes>::default());
            let begin = now() + 1000 * SECOND;
            let mut model: Vec<Alarm> = Vec::new();
            for _ in 0..rng.usize(..100) {
                let due = begin + rng.u32(..5) * SECOND;
                match rng.u8(..4) {
                    0 if !model.is_empty() => drop(model.swap_remove(rng.usize(..model.len()))),
                    1 if !model.is_empty() => {
                        let moved = rng.choice(&mut model).expect("some");
                        moved.set_at(due);
                        assert!(poll(moved, &wakes).is_pending());
                    }
                    _ => {
                        model.push(at(&alarms, due));
                        assert!(model.iter().all(|alarm| poll(alarm, &wakes).is_pending()));
                    }
                }
                let mut expected: Vec<_> = model.iter().map(|a| (a.due, a.number)).collect();
                expected.sort_by(|a, b| b.cmp(a));
                let state = alarms.lock();
                let found = state.waiting.iter().map(|waiting| (Some(waiting.due), waiting.number));
                assert_eq!(found.collect::<Vec<_>>(), expected);
                assert!(expected.iter().all(|(due, _)| state.set_for <= *due));
            }
        });
    }
}
