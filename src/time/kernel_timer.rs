//! A timer of the kernel (`timerfd_create(2)`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use self::system::Timer;

/// A timer that makes a descriptor readable when it fires.
#[derive(Debug)]
pub(crate) struct KernelTimer(Timer);

impl KernelTimer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(system::new()?))
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
        // Fails only for a descriptor that is no timer, or a time out of range
        // (timerfd_settime(2)).
        let set = system::set(&self.0, wait.clamp(LEAST, MOST));
        debug_assert!(set.is_ok(), "{set:?}");
    }
}

#[cfg(not(all(target_arch = "mips", target_endian = "big")))]
mod system {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::io;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    pub(super) type Timer = OwnedFd;

    pub(super) fn new() -> io::Result<Timer> {
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
    }

    pub(super) fn set(timer: &Timer, wait: Duration) -> io::Result<Itimerspec> {
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Both fields are as wide as in the C library of the target; a year fits.
        let wait = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let times = Itimerspec { it_interval: once, it_value: wait };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &times)
    }
}

/// The same by nix: where a pointer has 32 bits and the highest byte comes first, rustix puts the
/// nanoseconds of a time where the C library has nothing.
#[cfg(all(target_arch = "mips", target_endian = "big"))]
mod system {
    use std::time::Duration;

    use nix::Result;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

    pub(super) type Timer = TimerFd;

    pub(super) fn new() -> Result<Timer> {
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
    }

    pub(super) fn set(timer: &Timer, wait: Duration) -> Result<()> {
        timer.set(Expiration::OneShot(wait.into()), TimerSetTimeFlags::empty())
    }
}
