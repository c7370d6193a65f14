//! Reading a client no faster than its rate allows.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::hub::handle::Hub;
use crate::rate::{ClientMeter, Rate};
use crate::stats::add;
use crate::time::clock::now;
use crate::time::timers::Deadline;

/// What a client has sent, against its rate, and the wait while that is too much.
#[derive(Debug)]
pub(crate) struct RateLimit<'a> {
    meter: ClientMeter,
    over: Option<Deadline<'a>>,
}

impl<'a> RateLimit<'a> {
    /// `None` if there is no limit.
    pub(crate) fn new(rate: Rate) -> Option<Self> {
        Some(Self { meter: ClientMeter::new(rate, now())?, over: None })
    }

    /// Counts a message.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.meter.count(now(), bytes);
    }

    /// Ready when the client may send more; `true` if that was waited for.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, hub: &'a Hub) -> Poll<bool> {
        loop {
            let wait = self.meter.wait(now());
            if wait.is_zero() {
                return Poll::Ready(self.over.take().is_some());
            }
            let over = match &mut self.over {
                Some(over) => over,
                None => {
                    add(&hub.shared().counters.rate_pauses, 1);
                    self.over.insert(hub.shared().timers.after(wait))
                }
            };
            if Pin::new(over).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.over = Some(hub.shared().timers.after(wait));
        }
    }
}
