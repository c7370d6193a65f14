//! The readers of events, and what waits for each of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::hub::event::{HubEvent, HubEventKind};
use crate::memory::budget::Charge;
use crate::sync::{Mutex, MutexGuard};

/// The rooms that a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoomFilter {
    /// All rooms, and what is about no room.
    All,
    /// The room of this name.
    Name(Box<str>),
    /// The rooms whose names begin so.
    Prefix(Box<str>),
}

impl RoomFilter {
    /// Reads `NAME` or `PREFIX*`; `None` for nothing, and for a `*` anywhere but at the end.
    pub(crate) fn parse(pattern: &str) -> Option<Self> {
        let (name, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        match (name, is_prefix) {
            (name, _) if name.contains('*') => None,
            ("", true) => Some(Self::All),
            ("", false) => None,
            (prefix, true) => Some(Self::Prefix(prefix.into())),
            (name, false) => Some(Self::Name(name.into())),
        }
    }

    fn passes(&self, room: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => room.is_some_and(|room| *room == **name),
            Self::Prefix(prefix) => room.is_some_and(|room| room.starts_with(&**prefix)),
        }
    }

    /// Whether a prefix covers any room that is asked for.
    fn meets(&self, other: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name.starts_with(other),
            Self::Prefix(prefix) => prefix.starts_with(other) || other.starts_with(&**prefix),
        }
    }
}

/// The readers of events, as the manager has them; none most of the time.
#[derive(Debug, Default)]
pub(crate) struct EventReaders(Vec<Arc<EventQueue>>);

impl EventReaders {
    /// Adds a reader, which hears every event from now on.
    pub(crate) fn add(&mut self, queue: Arc<EventQueue>) {
        self.forget_gone();
        self.0.push(queue);
    }

    /// Whether there is any reader: without one, no event is made.
    pub(crate) fn are_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tells all readers of an event, without waiting for any.
    pub(crate) fn notify(&mut self, event: &HubEvent) {
        self.forget_gone();
        self.0.iter().for_each(|queue| queue.push(event));
    }

    /// Tells all readers of a room that is made or gone.
    pub(crate) fn notify_room(&mut self, kind: HubEventKind, room: &Arc<str>) {
        if self.are_any() {
            self.notify(&HubEvent::of_room(kind, Arc::clone(room)));
        }
    }

    /// The manager has the last reference to the queue of a reader that is gone.
    fn forget_gone(&mut self) {
        self.0.retain(|queue| Arc::strong_count(queue) > 1);
    }
}

impl Drop for EventReaders {
    fn drop(&mut self) {
        self.0.iter().for_each(|queue| queue.end());
    }
}

/// What waits for one reader: at most so many events as messages may wait for a client.
pub(crate) struct EventQueue {
    filter: RoomFilter,
    /// Events that wait at most.
    events_max: usize,
    /// Held for a push or a take, never across a wait.
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<HubEvent>,
    /// Events for which there was no room since the newest that waits.
    missed: u64,
    /// The manager has ended.
    is_over: bool,
    /// Wakes the reader.
    waker: Option<Waker>,
    /// The memory of the events that wait.
    charge: Charge,
}

impl EventQueue {
    /// `charge` is where its memory is charged.
    pub(crate) fn new(filter: RoomFilter, events_max: usize, charge: Charge) -> Arc<Self> {
        let (waiting, waker) = (VecDeque::new(), None);
        let state = Mutex::new(State { waiting, missed: 0, is_over: false, waker, charge });
        Arc::new(Self { filter, events_max, state })
    }

    /// Adds an event, or counts it as missed. The gap counts as one.
    fn push(&self, event: &HubEvent) {
        let passes = match &event.prefix {
            Some(prefix) => self.filter.meets(prefix),
            None => self.filter.passes(event.room.as_deref()),
        };
        if !passes {
            return;
        }
        let mut state = self.lock();
        let wanted = if state.missed > 0 { 2 } else { 1 };
        if state.waiting.len() + wanted > self.events_max {
            state.missed += 1;
            return;
        }
        if state.missed > 0 {
            let gap = HubEvent::gap(std::mem::take(&mut state.missed));
            state.add(gap);
        }
        state.add(event.clone());
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the next event; `None` once the manager has ended and nothing waits.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<HubEvent>> {
        let mut state = self.lock();
        if let Some(event) = state.waiting.pop_front() {
            let charge = state.charge.bytes() - event.size();
            state.charge.resize(charge);
            return Poll::Ready(Some(event));
        }
        if state.missed > 0 {
            return Poll::Ready(Some(HubEvent::gap(std::mem::take(&mut state.missed))));
        }
        if state.is_over {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, event: HubEvent) {
        self.charge.resize(self.charge.bytes() + event.size());
        self.waiting.push_back(event);
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueue").field("filter", &self.filter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::MemoryBudget;

    #[test]
    fn a_filter_is_a_name_or_a_prefix() {
        for (pattern, room, passes) in [
            ("*", Some("a"), true),
            ("*", None, true),
            ("a", Some("a"), true),
            ("a", Some("ab"), false),
            ("a", None, false),
            ("a*", Some("ab"), true),
            ("a*", Some("a"), true),
            ("a*", Some("b"), false),
            ("a*", None, false),
        ] {
            let filter = RoomFilter::parse(pattern).expect(pattern);
            assert_eq!(filter.passes(room), passes, "{pattern} {room:?}");
        }
        for pattern in ["", "a*b", "**", "*a"] {
            assert_eq!(RoomFilter::parse(pattern), None, "{pattern}");
        }
    }

    /// What a reader of `events_max` events hears; each number is an event, each gap a text.
    fn take(queue: &EventQueue) -> Vec<String> {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        while let Poll::Ready(Some(event)) = queue.poll_take(cx) {
            heard.push(match event.kind {
                HubEventKind::Gap => format!("gap {}", event.missed),
                _ => event.room.expect("a room").to_string(),
            });
        }
        heard
    }

    #[test]
    fn a_reader_that_is_behind_hears_how_much_it_missed_and_where() {
        let memory = Arc::new(MemoryBudget::default());
        let mut readers = EventReaders::default();
        let queue = EventQueue::new(RoomFilter::All, 3, memory.charge(0));
        let notify = |readers: &mut EventReaders, names: std::ops::Range<u32>| {
            names.for_each(|n| {
                readers.notify_room(HubEventKind::RoomMade, &n.to_string().into());
            });
        };
        notify(&mut readers, 0..9);
        assert_eq!(take(&queue), [""; 0], "it was no reader");
        readers.add(Arc::clone(&queue));
        notify(&mut readers, 1..6);
        assert!(memory.charged() > 0);
        assert_eq!(take(&queue), ["1", "2", "3", "gap 2"]);
        assert_eq!(memory.charged(), 0, "what is taken is not held");
        notify(&mut readers, 1..5);
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(queue.poll_take(cx).is_ready());
        }
        notify(&mut readers, 5..6);
        assert_eq!(take(&queue), ["3", "gap 1", "5"], "the gap is where it was");
        drop(readers);
        assert_eq!(queue.poll_take(cx), Poll::Ready(None));
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing() {
        let memory = Arc::new(MemoryBudget::default());
        let mut readers = EventReaders::default();
        readers.add(EventQueue::new(RoomFilter::All, 3, memory.charge(0)));
        assert!(readers.are_any());
        readers.notify_room(HubEventKind::RoomMade, &"a".into());
        assert!(!readers.are_any());
        assert_eq!(memory.charged(), 0);
    }
}
