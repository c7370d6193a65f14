//! A timer of the kernel (`timerfd_create(2)`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer that makes a descriptor readable when it fires.
#[derive(Debug)]
pub(crate) struct KernelTimer(OwnedFd);

impl KernelTimer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Has the timer fire in `wait` from now, and not when it was to fire before. It need not be
    /// read: each time that it fires is an edge.
    pub(crate) fn set(&self, wait: Duration) {
        /// Zero would stop the timer.
        const LEAST: Duration = Duration::from_nanos(1);
        /// A year, within the range of a time on every system. The timer then fires without effect.
        const MOST: Duration = Duration::from_secs(365 * 86_400);
        let wait = wait.clamp(LEAST, MOST);
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Both fields are as wide as in the C library of the target; a year fits.
        let wait = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let times = Itimerspec { it_interval: once, it_value: wait };
        // Fails only for a descriptor that is no timer, or a time out of range
        // (timerfd_settime(2)).
        let set = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &times);
        debug_assert!(set.is_ok(), "{set:?}");
    }
}
