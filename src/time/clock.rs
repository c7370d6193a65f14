//! The clock: the only file in which the library reads the time and waits for it.
//!
//! Tests replace it by a virtual clock, so that hours pass in milliseconds and every run is the
//! same.

#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(not(test))]
pub(crate) use self::real::{Timer, now};
#[cfg(target_os = "linux")]
use crate::time::alarms::Alarms;
#[cfg(test)]
pub(crate) use crate::time::virtual_time::{Timer, now};

/// The wall clock, in seconds since 1970; 0 if it is set to an earlier time.
pub(crate) fn unix_seconds() -> u64 {
    // On 32 bits the standard library ends with the year 2037.
    #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
    return rustix::time::clock_gettime(rustix::time::ClockId::Realtime)
        .tv_sec
        .try_into()
        .unwrap_or(0);
    #[cfg(not(all(target_os = "linux", target_pointer_width = "32")))]
    {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }
}

/// When a file was written last, since 1970; `None` if it cannot be seen.
#[cfg(feature = "tls")]
pub(crate) fn written_at(path: &std::path::Path) -> Option<Duration> {
    let written = std::fs::metadata(path).ok()?.modified().ok()?;
    written.duration_since(std::time::UNIX_EPOCH).ok()
}

/// What wakes tasks at a point in time.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    /// The timers of async-io, which has a thread for them.
    #[default]
    AsyncIo,
    /// The alarms of a reactor of ours.
    #[cfg(target_os = "linux")]
    Reactor(Arc<Alarms>),
}

impl Clock {
    pub(crate) fn at(&self, due: Instant) -> Timer {
        let mut timer = Timer::new(self);
        timer.set_at(due);
        timer
    }

    pub(crate) fn after(&self, wait: Duration) -> Timer {
        self.at(now() + wait)
    }
}

/// The time of the system.
pub(crate) mod real {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Instant;

    #[cfg(target_os = "linux")]
    use crate::time::alarms::Alarm;
    use crate::time::clock::Clock;

    #[cfg(not(hublet_reactor_only))]
    type AsyncIoTimer = smol::Timer;

    /// In the static binary, which attaches every hub to its reactor, there are no timers of
    /// async-io. This one is never set.
    #[cfg(hublet_reactor_only)]
    #[derive(Debug)]
    pub(crate) struct AsyncIoTimer;

    #[cfg(hublet_reactor_only)]
    impl AsyncIoTimer {
        fn never() -> Self {
            Self
        }

        fn set_at(&mut self, _: Instant) {}
    }

    #[cfg(hublet_reactor_only)]
    impl Future for AsyncIoTimer {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    /// The monotonic clock.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// A future that is ready from a point in time on, on one of the clocks.
    #[derive(Debug)]
    pub(crate) enum Timer {
        AsyncIo(AsyncIoTimer),
        #[cfg(target_os = "linux")]
        Alarm(Alarm),
    }

    impl Timer {
        /// A timer that is not set. It starts nothing.
        pub(crate) fn new(clock: &Clock) -> Self {
            match clock {
                Clock::AsyncIo => Self::AsyncIo(AsyncIoTimer::never()),
                #[cfg(target_os = "linux")]
                Clock::Reactor(alarms) => Self::Alarm(Alarm::new(alarms)),
            }
        }

        /// Moves the timer. Poll it again.
        pub(crate) fn set_at(&mut self, due: Instant) {
            match self {
                Self::AsyncIo(timer) => timer.set_at(due),
                #[cfg(target_os = "linux")]
                Self::Alarm(alarm) => alarm.set_at(due),
            }
        }
    }

    impl Future for Timer {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            match &mut *self {
                Self::AsyncIo(timer) => Pin::new(timer).poll(cx).map(drop),
                #[cfg(target_os = "linux")]
                Self::Alarm(alarm) => alarm.poll(cx, now()),
            }
        }
    }
}
