//! Tests of `time/timers.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use fastrand::Rng;
use futures_lite::future::block_on;

use super::*;
use crate::hub::tests::support::Wakes;
use crate::time::virtual_time::VirtualTime;

/// A test that waits longer than this has lost a wake.
const LOST: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// A handle with a waker that counts.
struct Waiting<'a> {
    deadline: Deadline<'a>,
    wakes: Arc<Wakes>,
}
impl<'a> Waiting<'a> {
    fn new(timers: &'a Timers, wait: Duration) -> Self {
        let mut waiting = Self { deadline: timers.after(wait), wakes: Arc::default() };
        assert!(!waiting.is_over());
        waiting
    }

    fn is_over(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.wakes));
        Pin::new(&mut self.deadline).poll(&mut Context::from_waker(&waker)).is_ready()
    }
}
/// A waker that calls a function.
struct Call<F>(F);
impl<F: Fn() + Send + Sync + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}
fn call(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Call(f)))
}
fn poll(deadline: &mut Deadline<'_>, waker: &Waker) -> Poll<()> {
    Pin::new(deadline).poll(&mut Context::from_waker(waker))
}
#[test]
fn each_waker_is_called_once_when_it_is_due_and_never_before() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let mut rng = Rng::with_seed(5);
    let begin = now();
    let mut all: Vec<_> = (0..200)
        .map(|_| {
            let wait = Duration::from_millis(rng.u64(1..60_000));
            (wait, Waiting::new(&timers, wait))
        })
        .collect();
    while let Some(next) = time.until_next() {
        let before = now() - begin;
        time.advance(next);
        let passed = now() - begin;
        for (wait, waiting) in &mut all {
            // The wake comes with the first tick that is not before the deadline.
            let due = *wait <= passed && *wait > before;
            assert_eq!(waiting.wakes.take(), usize::from(due), "{wait:?}, at {passed:?}");
            assert_eq!(waiting.is_over(), *wait <= passed);
            assert!(!due || passed - *wait < SECOND / 32, "{wait:?}, at {passed:?}");
        }
    }
    assert!(now() - begin > 59 * SECOND);
    assert_eq!(timers.len(), (200, 0));
    drop(all);
    assert_eq!((timers.len(), time.timers()), ((0, 0), 1));
    drop(timers);
    assert_eq!(time.timers(), 0);
}
#[test]
fn only_an_earlier_deadline_sets_the_timer() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    assert_eq!(time.timers(), 0, "there is no deadline");
    let first = Waiting::new(&timers, 5 * SECOND);
    let later = [5, 6, 100].map(|n| Waiting::new(&timers, n * SECOND));
    assert_eq!(time.timers_set(), 1);
    let mut earlier = Waiting::new(&timers, 4 * SECOND);
    assert_eq!((time.timers_set(), time.until_next()), (2, Some(4 * SECOND)));
    earlier.deadline.set(timers.tick_of(now() + 3 * SECOND));
    assert!(!earlier.is_over());
    assert_eq!((time.timers_set(), time.until_next()), (3, Some(3 * SECOND)));
    drop((first, later));
    assert_eq!((time.timers_set(), time.until_next()), (3, Some(3 * SECOND)));
    time.advance(3 * SECOND);
    assert!(earlier.wakes.take() == 1 && earlier.is_over());
    assert_eq!((time.timers_set(), time.until_next()), (3, None), "no deadline is left");
}
#[test]
fn task_with_a_postponed_deadline_is_still_woken_at_the_earlier_one() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let mut waiting = Waiting::new(&timers, 2 * SECOND);
    waiting.deadline.set(timers.tick_of(now() + 3 * SECOND));
    assert!(!waiting.is_over());
    assert_eq!(time.timers_set(), 1, "a later one costs nothing");
    time.advance(2 * SECOND);
    assert!(waiting.wakes.take() == 1 && !waiting.is_over());
    time.advance(SECOND);
    assert!(waiting.wakes.take() == 1 && waiting.is_over());
    // It stays over until it is moved.
    assert!(waiting.is_over());
    waiting.deadline.set(timers.tick_of(now() + SECOND));
    assert!(!waiting.is_over());
    time.advance(SECOND);
    assert!(waiting.wakes.take() == 1 && waiting.is_over());
    assert_eq!(timers.len(), (1, 0));
}
#[test]
fn a_thousand_handshakes_in_a_second_set_the_timer_once() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let client = Waiting::new(&timers, 25 * SECOND);
    for _ in 0..10_000 {
        let handshake = [5 * SECOND, SECOND, 2 * SECOND].map(|wait| Waiting::new(&timers, wait));
        time.advance(SECOND / 1000);
        drop(handshake);
    }
    // Once by the client. Each time that the timer fires, it is set twice: for the deadlines
    // that are left, and by the next handshake, whose deadline is earlier.
    assert!(time.timers_set() <= 1 + 2 * 10 + 2, "{}", time.timers_set());
    time.advance(15 * SECOND);
    assert_eq!(client.wakes.take(), 1);
    assert_eq!(time.until_next(), None, "no deadline is left");
}
#[test]
fn deadlines_move_to_another_clock() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    timers.run_on(Clock::default());
    assert_eq!(time.timers_set(), 0, "there is no deadline");
    let waiting = Waiting::new(&timers, SECOND);
    timers.run_on(Clock::default());
    assert_eq!(time.until_next(), Some(SECOND));
    time.advance(SECOND);
    assert_eq!(waiting.wakes.take(), 1);
}
#[test]
fn dropped_deadline_wakes_no_task() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let [mut stays, goes] = [1, 1].map(|n| Waiting::new(&timers, n * SECOND));
    let wakes = Arc::clone(&goes.wakes);
    drop(goes);
    assert_eq!(Arc::strong_count(&wakes), 1, "its waker is dropped too");
    time.advance(SECOND);
    assert_eq!((wakes.take(), stays.wakes.take()), (0, 1));
    assert!(stays.is_over());
}
#[test]
fn waker_of_the_last_poll_is_called() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let mut waiting = Waiting::new(&timers, SECOND);
    let before = std::mem::take(&mut waiting.wakes);
    assert!(!waiting.is_over());
    assert_eq!(Arc::strong_count(&before), 1);
    assert_eq!(time.timers_set(), 1);
    time.advance(SECOND);
    assert_eq!((before.take(), waiting.wakes.take()), (0, 1));
}
#[test]
fn task_that_registers_for_a_past_deadline_is_woken_at_once() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let wakes = Arc::<Wakes>::default();
    let mut deadline = timers.after(SECOND);
    // The deadline passes after `poll` has read the clock, before it registers the waker.
    time.advance(SECOND);
    deadline.wake(&Waker::from(Arc::clone(&wakes)));
    assert_eq!((wakes.take(), timers.len(), time.until_next()), (1, (1, 0), None));
}
#[test]
fn task_that_registers_while_the_timer_fires_is_woken() {
    let time = VirtualTime::start();
    let timers: &'static Timers = Box::leak(Box::new(Timers::new()));
    let other = Arc::new(std::sync::Mutex::new(timers.after(3 * SECOND)));
    let wakes = Arc::<Wakes>::default();
    let waker = {
        let (other, wakes) = (Arc::clone(&other), Arc::clone(&wakes));
        // Earlier than the next deadline that the timer was set for, and registered after that.
        call(move || {
            let mut other = other.lock().expect("not poisoned");
            other.set(timers.tick_of(now() + SECOND));
            assert!(poll(&mut other, &Waker::from(Arc::clone(&wakes))).is_pending());
        })
    };
    let mut first = timers.after(SECOND);
    assert!(poll(&mut first, &waker).is_pending());
    let mut last = Waiting::new(timers, 4 * SECOND);
    time.advance(SECOND);
    assert_eq!((wakes.take(), time.until_next()), (0, Some(SECOND)));
    time.advance(SECOND);
    assert_eq!((wakes.take(), time.until_next()), (1, Some(2 * SECOND)));
    time.advance(2 * SECOND);
    assert!(last.wakes.take() == 1 && last.is_over());
}
#[test]
fn waker_that_panics_does_not_keep_others_from_being_woken() {
    let time = VirtualTime::start();
    let timers = Timers::new();
    let mut first = timers.after(SECOND);
    assert!(poll(&mut first, &call(|| panic!("a waker of the embedder's"))).is_pending());
    let [mut second, third] = [1, 2].map(|n| Waiting::new(&timers, n * SECOND));
    time.advance(SECOND);
    assert!(second.wakes.take() == 1 && second.is_over());
    time.advance(SECOND);
    assert_eq!(third.wakes.take(), 1);
}
/// A waker may register new deadlines, cancel others, and own a task that has deadlines itself.
#[test]
fn waker_may_register_and_cancel_deadlines() {
    let time = VirtualTime::start();
    // Lives as long as the program: the wakers own handles that borrow it.
    let timers: &'static Timers = Box::leak(Box::new(Timers::new()));
    let woken = Arc::new(AtomicUsize::new(0));
    let other = Arc::new(std::sync::Mutex::new(Some(Waiting::new(timers, SECOND))));
    let more = Arc::new(std::sync::Mutex::new(Vec::new()));
    let waker = {
        let (woken, other, more) = (Arc::clone(&woken), Arc::clone(&other), Arc::clone(&more));
        call(move || {
            woken.fetch_add(1, Ordering::Relaxed);
            drop(other.lock().expect("not poisoned").take());
            let new = Waiting::new(timers, SECOND);
            more.lock().expect("not poisoned").push(new);
        })
    };
    let mut first = timers.after(SECOND);
    assert!(poll(&mut first, &waker).is_pending());
    // The waker owns the last handle of another deadline.
    let owned = std::sync::Mutex::new(Some(Waiting::new(timers, SECOND)));
    let mut owner = timers.after(SECOND);
    assert!(poll(&mut owner, &call(move || _ = &owned)).is_pending());
    assert_eq!(timers.len(), (4, 4));
    drop(owner);
    assert_eq!(timers.len(), (2, 2));
    time.advance(SECOND);
    assert_eq!((woken.load(Ordering::Relaxed), timers.len()), (1, (2, 1)));
    time.advance(SECOND);
    assert_eq!(more.lock().expect("not poisoned")[0].wakes.take(), 1);
}
/// On real threads and by the real clock: each waits for a short time, gives up some deadlines
/// and moves others, while the timer fires for the rest.
#[test]
fn no_wake_is_lost_between_threads() {
    const THREADS: u64 = 4;
    let timers = Timers::new();
    let (done, finished) = mpsc::channel();
    for seed in 0..THREADS {
        let (timers, done) = (Arc::clone(&timers), done.clone());
        std::thread::spawn(move || {
            let mut rng = Rng::with_seed(seed);
            for _ in 0..20 {
                let wait = Duration::from_millis(rng.u64(..70));
                let (begin, mut deadline) = (now(), timers.after(wait * 2));
                let others = [1, 2, 300].map(|n| timers.after(wait * n));
                let mut others = others.map(|deadline| (deadline, Waker::noop().clone()));
                for (deadline, waker) in &mut others {
                    let _: Poll<()> = poll(deadline, waker);
                }
                if rng.bool() {
                    let _: Poll<()> = poll(&mut deadline, Waker::noop());
                }
                deadline.set(timers.tick_of(begin + wait));
                block_on(&mut deadline);
                assert!(now() - begin >= wait, "too early");
            }
            done.send(()).expect("the test listens");
        });
    }
    for _ in 0..THREADS {
        finished.recv_timeout(LOST).expect("no wake is lost");
    }
    assert_eq!(timers.len(), (0, 0));
}
#[test]
fn dropped_timers_are_freed() {
    let timers = Timers::new();
    let mut deadline = timers.after(SECOND);
    assert!(poll(&mut deadline, Waker::noop()).is_pending());
    drop(deadline);
    let gone = Arc::downgrade(&timers);
    let waker = timers.waker.clone();
    drop(timers);
    assert_eq!(gone.strong_count(), 0);
    // A timer of the runtime that fires now finds no timers to call.
    waker.wake();
}
