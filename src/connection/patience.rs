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

/// How long a step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// In all, without a slot.
    pub(crate) without_slot: Duration,
    /// With a slot: without progress.
    pub(crate) stall: Duration,
    /// With a slot: in all.
    pub(crate) whole: Duration,
}

/// The deadline of a step that each progress moves, up to a bound on the whole.
pub(crate) struct Patience<'h, 's, 'p> {
    /// How long the peer may make no progress.
    stall: Duration,
    /// When the step ends, whatever the peer does.
    last: Tick,
    /// The same without a slot: as if the peer had made no progress since the step began.
    last_without_slot: Tick,
    /// The earlier of the two.
    deadline: Deadline<'h>,
    /// What lets the step take longer, until it is lost.
    slot: Option<&'s mut Slot<'p>>,
}

impl<'h, 's, 'p> Patience<'h, 's, 'p> {
    /// A step from now on.
    pub(crate) fn new(hub: &'h Hub, waits: Waits, slot: Option<&'s mut Slot<'p>>) -> Self {
        let Waits { without_slot, stall, whole } = waits;
        let (timers, begin) = (&hub.shared().timers, now());
        let last_without_slot = timers.tick_of(begin + without_slot);
        let (last, first) = match slot {
            Some(_) => (timers.tick_of(begin + whole.max(stall)), timers.tick_of(begin + stall)),
            None => (last_without_slot, last_without_slot),
        };
        let deadline = timers.at(first);
        Self { stall, last, last_without_slot, deadline, slot }
    }

    /// The peer has made progress.
    pub(crate) fn renew(&mut self) {
        let next = self.deadline.timers().tick_of(now() + self.stall);
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
