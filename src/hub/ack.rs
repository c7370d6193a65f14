//! What becomes of one message at each of its recipients, for a publisher that waits for that.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::sync::{Mutex, MutexGuard};

/// How long a request may wait, for a message or for the recipients of one: less than the 75 s for
/// which proxies and the hub keep a connection that is idle.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Messages that one client may owe an acknowledgement for while its room holds them: 1 KiB. Of an
/// older one it counts as late.
const OWED_MAX: usize = 64;

/// What became of a message by the end of the wait for its recipients: what
/// [`Hub::publish_acked`](crate::Hub::publish_acked) returns.
///
/// `delivered`, `late` and `lost` add up to `recipients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Acknowledged {
    /// Clients that were to get the message.
    pub recipients: usize,
    /// Recipients whose last byte of the message the kernel has taken, or that took it from their
    /// [`Subscription`](crate::Subscription).
    pub delivered: usize,
    /// Recipients for which the message still waited at the end of the time.
    pub late: usize,
    /// Recipients that were evicted, had their connection closed or missed the message to the
    /// overflow policy before it was delivered.
    pub lost: usize,
    /// The position of the message, if it went to a room that exists.
    pub position: Option<u64>,
}

/// The count of one message: shared by the publisher that waits for it and by what holds the message
/// for a recipient.
#[derive(Debug, Default)]
pub(crate) struct Ack(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    delivered: usize,
    /// Recipients for which the message waits.
    owed: usize,
    /// The publisher waits no more.
    is_over: bool,
    /// Wakes the publisher.
    waker: Option<Waker>,
}

impl Ack {
    /// Counts recipients that had the message written at once.
    pub(crate) fn wrote(&self, recipients: u64) {
        self.lock().delivered += recipients as usize;
    }

    /// Counts a recipient for which the message waits.
    pub(crate) fn owe(self: &Arc<Self>) -> Owed {
        self.lock().owed += 1;
        Owed(Some(Arc::clone(self)))
    }

    /// Ready once the message waits for no recipient, after it was dispatched.
    pub(crate) fn poll_acknowledged(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.owed == 0 {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What has become of a message that was dispatched to so many.
    pub(crate) fn count(&self, recipients: usize, position: Option<u64>) -> Acknowledged {
        let state = self.lock();
        let (delivered, late) = (state.delivered, state.owed);
        debug_assert!(delivered + late <= recipients, "{delivered} + {late} of {recipients}");
        let lost = recipients.saturating_sub(delivered + late);
        Acknowledged { recipients, delivered, late, lost, position }
    }

    fn acknowledge(&self, delivered: usize) {
        let mut state = self.lock();
        state.delivered += delivered;
        state.owed -= 1;
        let waker = if state.owed == 0 { state.waker.take() } else { None };
        drop(state);
        // Perhaps under the lock of the recipient's queue, as the wake of a task that drains it is.
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publisher's side: dropped, it waits no more.
#[derive(Debug, Default)]
pub(crate) struct Acking(pub(crate) Arc<Ack>);

impl Drop for Acking {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        state.waker = None;
    }
}

/// A recipient for which a message waits. Dropped, whatever the reason, the message is lost to it.
#[derive(Debug)]
pub(crate) struct Owed(Option<Arc<Ack>>);

impl Owed {
    /// The recipient has the message.
    pub(crate) fn deliver(mut self) {
        if let Some(ack) = self.0.take() {
            ack.acknowledge(1);
        }
    }

    /// Whether a publisher waits still.
    fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|ack| !ack.lock().is_over)
    }

    /// Leaves the recipient to be counted as late.
    fn leave_late(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(ack) = self.0.take() {
            ack.acknowledge(0);
        }
    }
}

/// The acknowledgements that one client owes, in order: each with the number of its message.
///
/// A client that owes none has no list.
#[derive(Debug)]
pub(crate) struct OwedList {
    /// The number of each message, in its room or in a backlog that has passed on `passed` messages.
    owed: Vec<(u64, Owed)>,
    passed: u64,
    charge: Charge,
}

impl OwedList {
    pub(crate) fn new(memory: &Arc<MemoryBudget>) -> Box<Self> {
        Box::new(Self { owed: Vec::new(), passed: 0, charge: memory.charge(0) })
    }

    /// Adds the message at a position of a room. Past the bound the oldest counts as late.
    pub(crate) fn push_at(&mut self, position: u64, owed: Owed) {
        if self.owed.len() >= OWED_MAX {
            self.owed.retain(|(_, owed)| owed.is_awaited());
        }
        if self.owed.len() >= OWED_MAX {
            self.owed.remove(0).1.leave_late();
        }
        self.push(position, owed);
    }

    /// Adds the message at an index of a backlog, whose bounds are those of the list.
    pub(crate) fn push_index(&mut self, index: usize, owed: Owed) {
        self.push(self.passed + index as u64, owed);
    }

    fn push(&mut self, number: u64, owed: Owed) {
        self.owed.push((number, owed));
        self.charge.resize(allocation(self.owed.capacity() * size_of::<(u64, Owed)>()));
    }

    /// Takes the messages up to a position of the room.
    pub(crate) fn take_until(&mut self, position: u64) -> impl Iterator<Item = (u64, Owed)> {
        let len = self.owed.iter().take_while(|(at, _)| *at <= position).count();
        self.owed.drain(..len)
    }

    /// The oldest message of a backlog is gone; returns what was owed for it.
    pub(crate) fn pass(&mut self) -> Option<Owed> {
        let is_first = self.owed.first().is_some_and(|(number, _)| *number == self.passed);
        self.passed += 1;
        is_first.then(|| self.owed.remove(0).1)
    }

    /// The message at an index of a backlog is lost, and the ones behind it move up.
    pub(crate) fn lose(&mut self, index: usize) {
        let lost = self.passed + index as u64;
        self.owed.retain(|(number, _)| *number != lost);
        self.owed
            .iter_mut()
            .filter(|(number, _)| *number > lost)
            .for_each(|(number, _)| *number -= 1);
    }

    /// All messages of a backlog but its first `kept` are lost.
    pub(crate) fn keep(&mut self, kept: usize) {
        let end = self.passed + kept as u64;
        self.owed.retain(|(number, _)| *number < end);
    }

    /// Whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn counts(ack: &Ack, recipients: usize) -> [usize; 3] {
        let Acknowledged { delivered, late, lost, .. } = ack.count(recipients, None);
        [delivered, late, lost]
    }

    #[test]
    fn each_recipient_is_delivered_late_or_lost() {
        let (ack, waker) = (Arc::<Ack>::default(), Waker::noop());
        ack.wrote(2);
        let [delivered, lost, late] = [ack.owe(), ack.owe(), ack.owe()];
        assert_eq!(counts(&ack, 6), [2, 3, 1], "one was never owed anything");
        delivered.deliver();
        drop(lost);
        assert!(ack.poll_acknowledged(&Context::from_waker(waker)).is_pending());
        assert_eq!(counts(&ack, 6), [3, 1, 2]);
        drop(late);
        assert!(ack.poll_acknowledged(&Context::from_waker(waker)).is_ready());
        assert_eq!(counts(&ack, 6), [3, 0, 3]);
    }

    #[test]
    fn past_the_bound_a_message_whose_publisher_waits_no_more_goes_first() {
        for (is_gone, expected) in [(false, [0, 1, 0]), (true, [0, 0, 1])] {
            let memory = Arc::<MemoryBudget>::default();
            let mut list = OwedList::new(&memory);
            let mut publishers: Vec<_> = (0..OWED_MAX).map(|_| Acking::default()).collect();
            for (number, publisher) in (1..).zip(&publishers) {
                list.push_at(number, publisher.0.owe());
            }
            assert!(memory.charged() >= OWED_MAX * 16, "the list is on the account");
            if is_gone {
                publishers.pop();
            }
            let last = Acking::default();
            list.push_at(OWED_MAX as u64 + 1, last.0.owe());
            drop(list);
            assert_eq!(counts(&publishers[0].0, 1), expected);
            assert_eq!(counts(&last.0, 1), [0, 0, 1]);
            assert_eq!(memory.charged(), 0);
        }
    }
}
