//! How long a step with a peer may take that makes progress.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::http1::slot::Slot;
use crate::hub::handle::Hub;
use crate::time::clock::now;
use crate::time::timer_list::Tick;
use crate::time::timers::Deadline;

/// The deadline of a step that each progress moves, up to a bound on the whole.
pub(crate) struct Patience<'h, 's, 'p> {
    /// How long the peer may make no progress.
    wait: Duration,
    /// When the step ends, whatever the peer does.
    last: Tick,
    /// The same without a slot: as if the peer had made no progress since the step began.
    last_without_slot: Tick,
    /// The earlier of the two.
    deadline: Deadline<'h>,
    /// What lets the step take longer than `wait`, until it is lost.
    slot: Option<&'s mut Slot<'p>>,
}

impl<'h, 's, 'p> Patience<'h, 's, 'p> {
    /// A step from now on: `wait` without progress, and `whole` in all.
    pub(crate) fn new(
        hub: &'h Hub,
        wait: Duration,
        whole: Duration,
        slot: Option<&'s mut Slot<'p>>,
    ) -> Self {
        let (timers, begin) = (&hub.shared().timers, now());
        let last_without_slot = timers.tick_of(begin + wait);
        let last = match slot {
            Some(_) => timers.tick_of(begin + whole.max(wait)),
            None => last_without_slot,
        };
        let deadline = timers.at(last_without_slot);
        Self { wait, last, last_without_slot, deadline, slot }
    }

    /// The peer has made progress.
    pub(crate) fn renew(&mut self) {
        let next = self.deadline.timers().tick_of(now() + self.wait);
        self.deadline.set(if next.is_before(self.last) { next } else { self.last });
    }

    /// Ready once the step has to end.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.slot.as_mut().is_some_and(|slot| slot.poll_lost(cx).is_ready()) {
            self.slot = None;
            self.last = self.last_without_slot;
            self.deadline.set(self.last);
        }
        Pin::new(&mut self.deadline).poll(cx)
    }
}
