//! One coarse timer for each connection: when to ping, and when to stop waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smol::future::Future as _;

use crate::Config;
use crate::time::{Timer, now};

/// What has come due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was heard for the ping interval.
    Ping,
    /// A ping was not answered in time.
    PongTimeout,
    /// Writing made no progress in time.
    WriteTimeout,
    /// A message was not finished in time.
    MessageTimeout,
}

/// The moments of a connection that deadlines count from, and the timer for the next of them.
///
/// The timer is not moved when a moment is: it fires, the moments are compared, and it is set for
/// the next. It is moved only when a deadline comes up that is earlier than it.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    /// Where the deadlines stand.
    config: &'a Config,
    timer: Timer,
    /// When the timer fires.
    set_for: Instant,
    /// When bytes last came from the peer.
    heard: Instant,
    /// When the ping was sent that nothing has been heard since.
    pinged: Option<Instant>,
    /// Since when writing has made no progress while something waits.
    stuck: Option<Instant>,
    /// The client's own ping interval, in thousandths of the configured one: give or take a tenth,
    /// so that clients that came together part.
    share: u32,
    /// Whether the message that has begun was granted one more turn when its time was over.
    granted: bool,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        let now = now();
        let share = fastrand::u32(900..=1100);
        let set_for = now + config.ping_interval / 1000 * share;
        Self {
            config,
            timer: Timer::at(set_for),
            set_for,
            heard: now,
            pinged: None,
            stuck: None,
            share,
            granted: false,
        }
    }

    /// Bytes came from the peer.
    pub(crate) fn heard(&mut self) {
        self.heard = now();
        self.pinged = None;
    }

    /// The peer is being read again after a time in which it was not.
    pub(crate) fn listens_again(&mut self) {
        if self.pinged.is_some() {
            self.pinged = Some(now());
        }
    }

    /// Whether a message whose time is over may be read for one more turn: once.
    pub(crate) fn grants_a_turn(&mut self) -> bool {
        !std::mem::replace(&mut self.granted, true)
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self) {
        self.pinged = Some(now());
    }

    /// A drain wrote something or nothing, and left nothing or something.
    pub(crate) fn wrote(&mut self, progress: bool, empty: bool) {
        if empty {
            self.stuck = None;
        } else if progress || self.stuck.is_none() {
            self.stuck = Some(now());
        }
    }

    /// Ready with what has come due; pending, and armed for the next deadline, when nothing has.
    ///
    /// `listening` is whether the peer is being read: what it is not heard to say is not held
    /// against it. `began` is when the message began that is not finished.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        listening: bool,
        began: Option<Instant>,
    ) -> Poll<Verdict> {
        self.granted &= began.is_some();
        loop {
            let (due, verdict) = self.next(listening, began);
            if due < self.set_for {
                self.set(due);
            }
            if Pin::new(&mut self.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = now();
            if due <= now {
                // Whoever acts on the verdict moves its moment; until then it stays due.
                self.set(now);
                return Poll::Ready(verdict);
            }
            self.set(due);
        }
    }

    /// The earliest deadline and what it means.
    fn next(&self, listening: bool, began: Option<Instant>) -> (Instant, Verdict) {
        let mut next = match self.pinged {
            None => (self.heard + self.ping_interval(), Verdict::Ping),
            Some(pinged) if listening => (pinged + self.config.pong_timeout, Verdict::PongTimeout),
            // A deadline that does not count now must not keep the timer busy either.
            Some(_) => (now() + self.ping_interval(), Verdict::Ping),
        };
        if let Some(stuck) = self.stuck {
            next = earlier(next, (stuck + self.config.write_timeout, Verdict::WriteTimeout));
        }
        if let (true, Some(began)) = (listening, began) {
            next = earlier(next, (began + self.config.message_timeout, Verdict::MessageTimeout));
        }
        next
    }

    fn ping_interval(&self) -> Duration {
        self.config.ping_interval / 1000 * self.share
    }

    fn set(&mut self, due: Instant) {
        self.set_for = due;
        self.timer.set_at(due);
    }
}

fn earlier(a: (Instant, Verdict), b: (Instant, Verdict)) -> (Instant, Verdict) {
    if b.0 < a.0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::time::virtual_time::VirtualTime;

    /// What comes due next, and after how long; the clock of the test moves there.
    fn next(
        clock: &mut Clock<'_>,
        time: &VirtualTime,
        began: Option<Instant>,
    ) -> (Verdict, Duration) {
        let start = now();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match clock.poll(&mut cx, true, began) {
                Poll::Ready(verdict) => return (verdict, now() - start),
                Poll::Pending => time.advance(time.until_next().expect("the timer is armed")),
            }
        }
    }

    #[test]
    fn silence_is_pinged_and_then_given_up() {
        let time = VirtualTime::start();
        let config = Config::default();
        let mut clock = Clock::new(&config);
        let (verdict, after) = next(&mut clock, &time, None);
        assert_eq!(verdict, Verdict::Ping);
        assert!(after >= config.ping_interval * 9 / 10 && after <= config.ping_interval * 11 / 10);
        clock.pinged();
        assert_eq!(next(&mut clock, &time, None), (Verdict::PongTimeout, config.pong_timeout));
        clock.heard();
        assert_eq!(next(&mut clock, &time, None), (Verdict::Ping, after));
        assert_eq!(time.timers(), 1);
        drop(clock);
        assert_eq!(time.timers(), 0);
    }

    #[test]
    fn a_write_deadline_counts_from_the_last_progress() {
        let time = VirtualTime::start();
        let config = Config::default();
        let mut clock = Clock::new(&config);
        clock.wrote(true, false);
        time.advance(config.write_timeout / 2);
        clock.wrote(false, false);
        assert_eq!(
            next(&mut clock, &time, None),
            (Verdict::WriteTimeout, config.write_timeout / 2)
        );
        clock.wrote(true, false);
        assert_eq!(next(&mut clock, &time, None), (Verdict::WriteTimeout, config.write_timeout));
        clock.wrote(false, true);
        assert_eq!(next(&mut clock, &time, None).0, Verdict::Ping);
    }

    #[test]
    fn a_message_is_timed_only_while_its_peer_is_read() {
        let time = VirtualTime::start();
        let config = Config::default().message_timeout(Duration::from_secs(3));
        let mut clock = Clock::new(&config);
        let began = Some(now());
        let mut cx = Context::from_waker(Waker::noop());
        time.advance(Duration::from_secs(2));
        assert_eq!(
            next(&mut clock, &time, began),
            (Verdict::MessageTimeout, Duration::from_secs(1))
        );
        assert!(clock.poll(&mut cx, false, began).is_pending());
    }
}
