//! The newest message of a client that hears one an interval at most.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::ack::Owed;
use crate::hub::state;
use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::message::Message;

/// What a client has that hears the newest message of its room, at most one an interval. The hub
/// conflates what comes meanwhile: a newer message takes the place of the one that waits.
#[derive(Debug)]
pub(crate) struct Conflation {
    interval: Duration,
    /// When the next message may go, on the clock of the timers.
    next: Duration,
    /// The message that waits for that.
    newest: Option<Newest>,
    /// The memory of this.
    _charge: Charge,
}

/// The newest message of the room, while it waits for its time.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) message: Message,
    /// Its position, for a client that is told positions; 0 if it has none.
    pub(crate) position: Option<u64>,
    /// The position that the client was told last.
    pub(crate) last_position: u64,
    /// What is owed for it to a publisher that waits for that.
    pub(crate) owed: Option<Owed>,
    /// The tick since which a message has waited here all the time.
    pub(crate) since: u32,
}

impl Conflation {
    /// Nothing waits, and the first message may go from `next` on.
    pub(crate) fn new(interval: Duration, next: Duration, memory: &Arc<MemoryBudget>) -> Box<Self> {
        let _charge = memory.charge(allocation(size_of::<Self>()));
        Box::new(Self { interval, next, newest: None, _charge })
    }

    /// What another process had, at the time `now`.
    pub(crate) fn restored(
        plain: state::Conflation,
        now: Duration,
        memory: &Arc<MemoryBudget>,
    ) -> Box<Self> {
        let state::Conflation { interval, next, newest } = plain;
        let mut conflation = Self::new(interval, now + next, memory);
        conflation.newest = newest.map(|newest| {
            let state::Newest { message, position, last_position } = newest;
            message.charge(memory);
            Newest { message, position, last_position, owed: None, since: memory.tick() }
        });
        conflation
    }

    /// It as plain data, at the time `now`.
    pub(crate) fn plain(&self, now: Duration) -> state::Conflation {
        let plain = |newest: &Newest| state::Newest {
            message: newest.message.clone(),
            position: newest.position,
            last_position: newest.last_position,
        };
        state::Conflation {
            interval: self.interval,
            next: self.next.saturating_sub(now),
            newest: self.newest.as_ref().map(plain),
        }
    }

    /// Has a message wait; returns whether it takes the place of another one, which is lost to the
    /// client.
    pub(crate) fn put(&mut self, newest: Newest) -> bool {
        let replaced = self.newest.take();
        let (last_position, since) = match &replaced {
            Some(older) => (older.last_position, older.since),
            None => (newest.last_position, newest.since),
        };
        self.newest = Some(Newest { last_position, since, ..newest });
        replaced.is_some()
    }

    /// When the message that waits may go, if one waits.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.newest.as_ref().map(|_| self.next)
    }

    /// Takes the message that waits, whose time has come: the next one waits for the interval.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Newest> {
        let newest = self.newest.take()?;
        self.next = now + self.interval;
        Some(newest)
    }

    /// Drops the message that waits; returns whether one did.
    pub(crate) fn give_up(&mut self) -> bool {
        self.newest.take().is_some()
    }

    /// The message that waits.
    pub(crate) fn newest(&self) -> Option<&Newest> {
        self.newest.as_ref()
    }
}
