//! One coarse timer for each connection: when to ping, and when to stop waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smol::{Timer, future::Future as _};

use crate::Config;

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
pub(crate) struct Clock {
    timer: Timer,
    /// When the timer fires.
    set_for: Instant,
    /// When bytes last came from the peer.
    heard: Instant,
    /// When the ping was sent that nothing has been heard since.
    pinged: Option<Instant>,
    /// Since when writing has made no progress while something waits.
    stuck: Option<Instant>,
    /// The ping interval, give or take a tenth, so that clients that came together part.
    ping_interval: Duration,
    pong_timeout: Duration,
    write_timeout: Duration,
    message_timeout: Duration,
}

impl Clock {
    pub(crate) fn new(config: &Config) -> Self {
        let now = Instant::now();
        let ping_interval = config.ping_interval / 1000 * fastrand::u32(900..=1100);
        let set_for = now + ping_interval;
        Self {
            timer: Timer::at(set_for),
            set_for,
            heard: now,
            pinged: None,
            stuck: None,
            ping_interval,
            pong_timeout: config.pong_timeout,
            write_timeout: config.write_timeout,
            message_timeout: config.message_timeout,
        }
    }

    /// Bytes came from the peer.
    pub(crate) fn heard(&mut self) {
        self.heard = Instant::now();
        self.pinged = None;
    }

    /// The peer is being read again after a time in which it was not.
    pub(crate) fn listens_again(&mut self) {
        if self.pinged.is_some() {
            self.pinged = Some(Instant::now());
        }
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self) {
        self.pinged = Some(Instant::now());
    }

    /// A drain wrote something or nothing, and left nothing or something.
    pub(crate) fn wrote(&mut self, progress: bool, empty: bool) {
        if empty {
            self.stuck = None;
        } else if progress || self.stuck.is_none() {
            self.stuck = Some(Instant::now());
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
        loop {
            let (due, verdict) = self.next(listening, began);
            if due < self.set_for {
                self.set(due);
            }
            if Pin::new(&mut self.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
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
            None => (self.heard + self.ping_interval, Verdict::Ping),
            Some(pinged) if listening => (pinged + self.pong_timeout, Verdict::PongTimeout),
            // A deadline that does not count now must not keep the timer busy either.
            Some(_) => (Instant::now() + self.ping_interval, Verdict::Ping),
        };
        if let Some(stuck) = self.stuck {
            next = earlier(next, (stuck + self.write_timeout, Verdict::WriteTimeout));
        }
        if let (true, Some(began)) = (listening, began) {
            next = earlier(next, (began + self.message_timeout, Verdict::MessageTimeout));
        }
        next
    }

    fn set(&mut self, due: Instant) {
        self.set_for = due;
        self.timer.set_at(due);
    }
}

fn earlier(a: (Instant, Verdict), b: (Instant, Verdict)) -> (Instant, Verdict) {
    if b.0 < a.0 { b } else { a }
}
