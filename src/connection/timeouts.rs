//! The timeouts of a client: when to ping it, and when to give it up.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::Config;
use crate::connection::read_pause::ReadPause;
use crate::hub::handle::Hub;
use crate::time::timer_list::Tick;
use crate::time::timers::Deadline;

/// The timeout that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// No bytes came from the peer for the ping interval.
    Ping,
    /// A ping was not answered in time.
    PongTimeout,
    /// Writing made no progress in time.
    WriteTimeout,
    /// A message was not finished in time.
    MessageTimeout,
    /// A message may go that has waited for its time.
    Message,
}

/// The times that the timeouts of a connection count from, and one deadline for the earliest.
///
/// The deadline is not moved when one of the times changes: when it comes, the times are compared,
/// and the next one is waited for. Only an earlier timeout moves it.
#[derive(Debug)]
pub(crate) struct Timeouts<'a> {
    deadline: Deadline<'a>,
    /// When bytes last came from the peer.
    heard: Tick,
    /// When the last ping was sent, if no bytes came from the peer since.
    pinged: Option<Tick>,
    /// Since when bytes wait and writing has made no progress.
    no_progress_since: Option<Tick>,
    /// The client's ping interval, in thousandths of the configured one: up to a tenth more or
    /// less, so that clients that connected together are not pinged together.
    share: u16,
    /// Whether the unfinished message was granted a last read after its time was over.
    last_read_granted: bool,
}

impl<'a> Timeouts<'a> {
    pub(crate) fn new(hub: &'a Hub) -> Self {
        let timers = &hub.shared().timers;
        let heard = timers.now();
        Self {
            deadline: timers.at(heard),
            heard,
            pinged: None,
            no_progress_since: None,
            share: fastrand::u16(900..=1100),
            last_read_granted: false,
        }
    }

    /// Bytes came from the peer this long ago.
    pub(crate) fn heard_before(&mut self, idle: Duration) {
        self.heard = self.deadline.timers().before(idle);
    }

    /// How long ago bytes came from the peer.
    pub(crate) fn idle(&self) -> Duration {
        self.deadline.timers().since(self.heard)
    }

    /// Bytes came from the peer.
    pub(crate) fn heard(&mut self) {
        self.heard = self.now();
        self.pinged = None;
    }

    /// The connection reads again after a pause.
    pub(crate) fn resume_reading(&mut self) {
        if self.pinged.is_some() {
            self.pinged = Some(self.now());
        }
    }

    /// Grants one last read to a message whose time is over; `false` the second time.
    pub(crate) fn grants_last_read(&mut self) -> bool {
        !std::mem::replace(&mut self.last_read_granted, true)
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self) {
        self.pinged = Some(self.now());
    }

    /// A drain made `progress` or not, and left the queue `empty` or not.
    pub(crate) fn wrote(&mut self, progress: bool, empty: bool) {
        if empty {
            self.no_progress_since = None;
        } else if progress || self.no_progress_since.is_none() {
            self.no_progress_since = Some(self.now());
        }
    }

    /// The time on the clock of the timers.
    pub(crate) fn elapsed(&self) -> Duration {
        self.deadline.timers().elapsed()
    }

    /// Whether the last drain left something that is not written and flushed.
    pub(crate) fn is_writing(&self) -> bool {
        self.no_progress_since.is_some()
    }

    /// Ready with the timeout that is due. Pending, and woken at the next one, if none is.
    ///
    /// A `pause` suspends the pong and message timeouts. `began` is when the unfinished message began.
    /// `message` is when a message may go that waits for its time, on the clock of the timers.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        pause: Option<ReadPause>,
        (began, message): (Option<Tick>, Option<Duration>),
    ) -> Poll<Due> {
        self.last_read_granted &= began.is_some();
        let (mut due, mut verdict) = self.next(config, pause.is_none(), began);
        if let Some(message) = message {
            (due, verdict) = earlier((due, verdict), (Tick::coming(message), Due::Message));
        }
        // The caller acts on a timeout by moving its time. Until then it stays due.
        self.deadline.set(due);
        Pin::new(&mut self.deadline).poll(cx).map(|()| verdict)
    }

    /// The earliest deadline and what it means.
    fn next(&self, config: &Config, reads: bool, began: Option<Tick>) -> (Tick, Due) {
        let ping_interval = config.ping_interval / 1000 * u32::from(self.share);
        let mut next = match self.pinged {
            None => (self.heard.plus(ping_interval), Due::Ping),
            Some(pinged) if reads => (pinged.plus(config.pong_timeout), Due::PongTimeout),
            // A suspended timeout must not wake the client either.
            Some(_) => (self.now().plus(ping_interval), Due::Ping),
        };
        if let Some(stuck) = self.no_progress_since {
            next = earlier(next, (stuck.plus(config.write_timeout), Due::WriteTimeout));
        }
        if let (true, Some(began)) = (reads, began) {
            next = earlier(next, (began.plus(config.message_timeout), Due::MessageTimeout));
        }
        next
    }

    fn now(&self) -> Tick {
        self.deadline.timers().now()
    }
}

fn earlier(a: (Tick, Due), b: (Tick, Due)) -> (Tick, Due) {
    if b.0.is_before(a.0) { b } else { a }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::time::virtual_time::{VirtualTime, now};

    fn hub(config: Config) -> Hub {
        Hub::new(config).expect("valid").0
    }
    fn config(hub: &Hub) -> &Config {
        &hub.shared().config
    }
    /// The next timeout and the time until it; the test's clock moves there.
    fn next(
        clock: &mut Timeouts<'_>,
        hub: &Hub,
        time: &VirtualTime,
        began: Option<Tick>,
    ) -> (Due, Duration) {
        let start = now();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match clock.poll(&mut cx, config(hub), None, (began, None)) {
                Poll::Ready(verdict) => return (verdict, now() - start),
                Poll::Pending => time.advance(time.until_next().expect("the timer is set")),
            }
        }
    }
    #[test]
    fn silent_client_is_pinged_and_then_times_out() {
        let time = VirtualTime::start();
        let hub = hub(Config::default());
        let mut clock = Timeouts::new(&hub);
        let (verdict, after) = next(&mut clock, &hub, &time, None);
        let interval = Config::PING_INTERVAL;
        assert_eq!(verdict, Due::Ping);
        assert!(after >= interval * 9 / 10 && after <= interval * 11 / 10);
        clock.pinged();
        let given_up = (Due::PongTimeout, Config::PONG_TIMEOUT);
        assert_eq!(next(&mut clock, &hub, &time, None), given_up);
        clock.heard();
        assert_eq!(next(&mut clock, &hub, &time, None), (Due::Ping, after));
        assert_eq!(hub.shared().timers.len().0, 1);
        drop(clock);
        assert_eq!(hub.shared().timers.len().0, 0);
    }
    #[test]
    fn write_timeout_counts_from_the_last_progress() {
        let time = VirtualTime::start();
        let hub = hub(Config::default());
        let timeout = config(&hub).write_timeout;
        let mut clock = Timeouts::new(&hub);
        clock.wrote(true, false);
        time.advance(timeout / 2);
        clock.wrote(false, false);
        assert_eq!(next(&mut clock, &hub, &time, None), (Due::WriteTimeout, timeout / 2));
        clock.wrote(true, false);
        assert_eq!(next(&mut clock, &hub, &time, None), (Due::WriteTimeout, timeout));
        clock.wrote(false, true);
        assert_eq!(next(&mut clock, &hub, &time, None).0, Due::Ping);
    }
    #[test]
    fn message_timeout_counts_only_while_the_peer_is_read() {
        let time = VirtualTime::start();
        let hub = hub(Config::default().message_timeout(Duration::from_secs(3)));
        let mut clock = Timeouts::new(&hub);
        let began = Some(hub.shared().timers.now());
        let mut cx = Context::from_waker(Waker::noop());
        time.advance(Duration::from_secs(2));
        assert_eq!(
            next(&mut clock, &hub, &time, began),
            (Due::MessageTimeout, Duration::from_secs(1))
        );
        assert!(
            clock.poll(&mut cx, config(&hub), Some(ReadPause::Hook), (began, None)).is_pending()
        );
    }
}
