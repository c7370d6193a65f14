//! How much a client may send in a second.

use std::time::{Duration, Instant};

/// How many messages and bytes a client may send in a second.
///
/// A client may send as much as one second allows at once. The hub reads a client that sends faster
/// more slowly: TCP makes it wait, and no message is lost. A message counts when it has come whole,
/// with the bytes of its payload, inflated if it came compressed. So a message of the longest length
/// may always come.
///
/// # Examples
///
/// ```
/// use hublet::{Admission, Rate};
///
/// // A backend among visitors: Config::max_rate is for the others.
/// let backend = Admission::user("backend").room("news").rate(Rate::UNLIMITED);
/// let visitor = Admission::user("ada").room("news").rate(Rate::messages(5).bytes(10_000));
/// # drop((backend, visitor));
/// assert_ne!(Rate::messages(5), Rate::UNLIMITED);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// 0 for no limit.
    messages: u32,
    bytes: u32,
}

impl Rate {
    /// As much as the client likes.
    pub const UNLIMITED: Self = Self { messages: 0, bytes: 0 };

    /// So many messages a second, at least 1, and any number of bytes.
    #[must_use]
    pub fn messages(per_second: usize) -> Self {
        Self::of(Some(per_second), None)
    }

    /// Adds a limit on bytes of payload a second, at least 1.
    #[must_use]
    pub fn bytes(self, per_second: usize) -> Self {
        Self { bytes: Self::of(None, Some(per_second)).bytes, ..self }
    }

    /// What is `None` has no limit.
    pub(crate) fn of(messages: Option<usize>, bytes: Option<usize>) -> Self {
        let limit = |limit: Option<usize>| {
            limit.map_or(0, |limit| u32::try_from(limit).unwrap_or(u32::MAX).max(1))
        };
        Self { messages: limit(messages), bytes: limit(bytes) }
    }
}

/// What was sent, against a rate: a bucket of tokens that holds those of a second, as one point in
/// time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    /// When the bucket is full again.
    paid_until: Instant,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// Counts what was sent.
    pub(crate) fn count(&mut self, now: Instant, amount: usize, per_second: u32) {
        self.paid_until = self.paid_until.max(now) + time_of(amount, per_second);
    }

    /// How long nothing more may be sent.
    pub(crate) fn wait(&self, now: Instant, per_second: u32) -> Duration {
        let next = self.paid_until + time_of(1, per_second);
        next.saturating_duration_since(now + Duration::from_secs(1))
    }

    /// Whether all that was sent is of no account any more.
    pub(crate) fn is_paid(&self, now: Instant) -> bool {
        self.paid_until <= now
    }

    /// When all that was sent is paid for.
    pub(crate) fn paid_until(&self) -> Instant {
        self.paid_until
    }
}

fn time_of(amount: usize, per_second: u32) -> Duration {
    // Amounts are at most 2^30, so that this fits.
    Duration::from_nanos(amount as u64 * 1_000_000_000 / u64::from(per_second.max(1)))
}

/// What one client has sent, against its rate.
#[derive(Debug)]
pub(crate) struct ClientMeter {
    rate: Rate,
    messages: Meter,
    bytes: Meter,
}

impl ClientMeter {
    /// `None` if there is no limit.
    pub(crate) fn new(rate: Rate, now: Instant) -> Option<Self> {
        let meter = Meter::new(now);
        (rate != Rate::UNLIMITED).then_some(Self { rate, messages: meter, bytes: meter })
    }

    /// Counts a message.
    pub(crate) fn count(&mut self, now: Instant, bytes: usize) {
        if self.rate.messages > 0 {
            self.messages.count(now, 1, self.rate.messages);
        }
        if self.rate.bytes > 0 {
            self.bytes.count(now, bytes, self.rate.bytes);
        }
    }

    /// How long the client may send nothing more.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let of = |meter: &Meter, limit| {
            if limit == 0 { Duration::ZERO } else { meter.wait(now, limit) }
        };
        of(&self.messages, self.rate.messages).max(of(&self.bytes, self.rate.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_a_rate_may_come_at_once_and_then_one_after_another() {
        for per_second in [1, 3, 10, 1000] {
            let start = Instant::now();
            let mut meter = ClientMeter::new(Rate::messages(per_second), start).expect("limited");
            for _ in 0..per_second {
                assert_eq!(meter.wait(start), Duration::ZERO);
                meter.count(start, 100_000);
            }
            let wait = meter.wait(start);
            let each = Duration::from_nanos(1_000_000_000 / per_second as u64);
            assert!(wait <= each && each - wait < Duration::from_micros(1), "{wait:?}");
            assert_eq!(meter.wait(start + wait), Duration::ZERO);
            meter.count(start + wait, 1);
            assert_eq!(meter.wait(start + wait), each);
            let rested = start + Duration::from_secs(60);
            assert_eq!(meter.wait(rested), Duration::ZERO);
            (0..per_second).for_each(|_| meter.count(rested, 1));
            assert!(!meter.wait(rested).is_zero(), "a rest saves no more than a second");
        }
    }
    #[test]
    fn the_longest_message_may_come_and_is_paid_for_behind_it() {
        let start = Instant::now();
        let mut meter = ClientMeter::new(Rate::UNLIMITED.bytes(1000), start).expect("limited");
        meter.count(start, 10);
        assert_eq!(meter.wait(start), Duration::ZERO);
        meter.count(start, 64_000);
        assert_eq!(meter.wait(start).as_millis(), 63_011);
        assert!(ClientMeter::new(Rate::UNLIMITED, start).is_none());
        let rate = Rate::messages(0).bytes(usize::MAX);
        assert_eq!((rate.messages, rate.bytes), (1, u32::MAX));
    }
}
