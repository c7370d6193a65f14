//! Replaces the hub's clock: the model moves it. Has one timer, for one `Timers`.
//!
//! loom does not switch threads here: threads interact only through the lock of `Timers`.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

thread_local! {
    /// All threads of loom run on one thread of the system.
    static CLOCK: RefCell<Option<Model>> = const { RefCell::new(None) };
}

struct Model {
    now: Instant,
    /// When the timer fires, and its waker once it was polled.
    timer: Option<(Instant, Option<Waker>)>,
    /// When the timer of the kernel fires.
    kernel_timer: Option<Instant>,
}

fn with<T>(f: impl FnOnce(&mut Model) -> T) -> T {
    CLOCK.with_borrow_mut(|clock| f(clock.as_mut().expect("the model has started it")))
}

/// Starts a new clock, which replaces that of the last model.
pub(crate) fn start() {
    let clock = Model { now: Instant::now(), timer: None, kernel_timer: None };
    CLOCK.with_borrow_mut(|before| before.replace(clock));
}

/// Moves the clock; the timer fires if it is due.
pub(crate) fn advance(by: Duration) {
    let fired = with(|clock| {
        clock.now += by;
        let (at, waker) = clock.timer.as_mut()?;
        if *at <= clock.now { waker.take() } else { None }
    });
    fired.into_iter().for_each(Waker::wake);
}

/// Has the timer of the kernel fire in `wait` from now.
pub(crate) fn set_kernel_timer(wait: Duration) {
    with(|clock| clock.kernel_timer = Some(clock.now + wait));
}

/// Moves the clock to when the timer of the kernel fires; `false` if it is not set.
pub(crate) fn advance_to_kernel_timer() -> bool {
    with(|clock| {
        let Some(due) = clock.kernel_timer.take() else { return false };
        clock.now = clock.now.max(due);
        true
    })
}

pub(crate) fn now() -> Instant {
    with(|clock| clock.now)
}

/// The wall clock, which no model reads.
pub(crate) fn unix_seconds() -> u64 {
    0
}

/// Every timer is on this clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock;

#[derive(Debug)]
pub(crate) struct Timer;

impl Timer {
    pub(crate) fn new(_: &Clock) -> Self {
        Self
    }

    pub(crate) fn set_at(&mut self, at: Instant) {
        with(|clock| clock.timer = Some((at, None)));
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        with(|clock| match &mut clock.timer {
            Some((at, waker)) if *at > clock.now => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }
}
