//! Deadlines and their wakers: plain data, without a lock and without a clock.

use std::num::NonZeroU32;
use std::task::Waker;
use std::time::Duration;

use crate::config::Config;

/// Ticks in a second: deadlines are rounded up to 1/32 of a second.
///
/// Clients that are due in the same tick share one wake. Ten thousand clients that are pinged every
/// 25 s wake a hub 32 times a second instead of 400 times. A peer gets at most two ticks (62.5 ms)
/// more than its timeout, less than a network takes to lose and resend a packet.
const TICKS_PER_SECOND: u32 = 32;

/// Nanoseconds of a tick.
const TICK_NANOS: u64 = 1_000_000_000 / TICKS_PER_SECOND as u64;

/// A tick further ahead than half of the range would compare as past.
const _: () = assert!(Config::WAIT_MAX.as_secs() * (TICKS_PER_SECOND as u64) < i32::MAX as u64 / 4);

/// A count of ticks. It wraps after two years and is compared like the jiffies of Linux: one tick
/// is before another if the way forward to it is the shorter one.
///
/// The lowest bit is always set, so the value is never 0 and an `Option<Tick>` takes 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// The first tick of a hub. The count wraps for the first time five minutes later, as in Linux,
    /// so that tests find a wrong comparison.
    const FIRST: Self = Self::at((2 * 5 * 60 * TICKS_PER_SECOND).wrapping_neg());

    const fn at(count: u32) -> Self {
        match NonZeroU32::new(count | 1) {
            Some(count) => Self(count),
            None => unreachable!(),
        }
    }

    /// The last tick that is not later than `since` after the first.
    pub(crate) fn passed(since: Duration) -> Self {
        Self::FIRST.ahead(ticks(since))
    }

    /// The first tick that is not earlier than `since` after the first.
    pub(crate) fn coming(since: Duration) -> Self {
        Self::FIRST.plus(since)
    }

    /// The time from the first tick to this one. `since` is the time now: it says how often the
    /// count has wrapped.
    pub(crate) fn since_first(self, since: Duration) -> Duration {
        let passed = ticks(since);
        let ahead = self.minus(Self::FIRST.ahead(passed)) / 2;
        Duration::from_nanos(passed.saturating_add_signed(ahead.into()) * TICK_NANOS)
    }

    /// The first tick that is not earlier than `wait` after this one.
    #[inline(never)]
    pub(crate) fn plus(self, wait: Duration) -> Self {
        self.ahead((wait.as_nanos() as u64).div_ceil(TICK_NANOS))
    }

    /// The tick that is this long before this one.
    pub(crate) fn less(self, wait: Duration) -> Self {
        self.ahead(ticks(wait).wrapping_neg())
    }

    /// The time from another tick to this one; nothing, where the other is later.
    pub(crate) fn time_after(self, other: Self) -> Duration {
        Duration::from_nanos(u64::from(self.minus(other).max(0).unsigned_abs() / 2) * TICK_NANOS)
    }

    pub(crate) fn is_before(self, other: Self) -> bool {
        self.minus(other) < 0
    }

    fn ahead(self, ticks: u64) -> Self {
        Self::at(self.0.get().wrapping_add((ticks as u32).wrapping_mul(2)))
    }

    /// The distance from `other` to this tick, in half ticks.
    fn minus(self, other: Self) -> i32 {
        self.0.get().wrapping_sub(other.0.get()) as i32
    }
}

fn ticks(time: Duration) -> u64 {
    time.as_nanos() as u64 / TICK_NANOS
}

/// Deadlines with their wakers, in no order. The list is searched when a deadline is due.
///
/// A search happens once a tick at most: 32 looks a second at each client, or 40 ns, where a ping
/// takes 10 us every 25 s. Registering and cancelling a deadline, which every handshake does,
/// touches one entry only.
///
/// A slot belongs to one handle from its first wait until it is [freed](Self::free), so it needs no
/// generation.
#[derive(Debug)]
pub(crate) struct TimerList {
    entries: Vec<Entry>,
    /// The first free slot, or [`NONE`](Slot::NONE).
    free: Slot,
}

/// The index of a handle's entry; [`NONE`](Self::NONE) before its first wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// The `next` of a slot that is not free.
    const TAKEN: Self = Self(u32::MAX - 1);
}

#[derive(Debug)]
struct Entry {
    /// The waker, while the handle waits.
    waker: Option<Waker>,
    due: Tick,
    /// The next free slot, if this one is free.
    next: Slot,
}

impl Default for TimerList {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Slot::NONE }
    }
}

impl TimerList {
    /// Moves the wakers whose deadline is not after `now` to `due`. Returns the earliest other
    /// deadline.
    pub(crate) fn take_due(&mut self, now: Tick, due: &mut Vec<Waker>) -> Option<Tick> {
        let mut earliest: Option<Tick> = None;
        let mut len = 0;
        for (entry, nth) in self.entries.iter_mut().zip(1..) {
            if entry.next == Slot::TAKEN {
                len = nth;
            }
            if entry.waker.is_none() {
                continue;
            }
            if !now.is_before(entry.due) {
                due.extend(entry.waker.take());
            } else if earliest.is_none_or(|earliest| entry.due.is_before(earliest)) {
                earliest = Some(entry.due);
            }
        }
        self.shrink(len);
        earliest
    }

    /// Moves all wakers to `all`, whenever they are due.
    pub(crate) fn take_all(&mut self, all: &mut Vec<Waker>) {
        all.extend(self.entries.iter_mut().filter_map(|entry| entry.waker.take()));
    }

    /// Registers `waker` in `slot` for `due`; an earlier deadline of the slot stays. Allocates a
    /// slot if there is none. Returns the waker that it replaces, for the caller to drop: that may
    /// free other slots.
    pub(crate) fn put(&mut self, slot: &mut Slot, due: Tick, waker: &Waker) -> Option<Waker> {
        if *slot == Slot::NONE {
            *slot = self.take();
        }
        let entry = self.entries.get_mut(slot.0 as usize)?;
        if entry.waker.is_none() || due.is_before(entry.due) {
            entry.due = due;
        }
        if entry.waker.as_ref().is_some_and(|before| before.will_wake(waker)) {
            return None;
        }
        entry.waker.replace(waker.clone())
    }

    /// Frees a slot. Returns its waker, for the caller to drop.
    pub(crate) fn free(&mut self, slot: Slot) -> Option<Waker> {
        let entry = self.entries.get_mut(slot.0 as usize)?;
        entry.next = std::mem::replace(&mut self.free, slot);
        entry.waker.take()
    }

    /// The number of slots in use, and of those that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        let count = |is_so: fn(&&Entry) -> bool| self.entries.iter().filter(is_so).count();
        (count(|entry| entry.next == Slot::TAKEN), count(|entry| entry.waker.is_some()))
    }

    /// Allocates a slot.
    fn take(&mut self) -> Slot {
        let slot = self.free;
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            self.free = std::mem::replace(&mut entry.next, Slot::TAKEN);
            return slot;
        }
        let len = self.entries.len();
        if len == self.entries.capacity() {
            // Grows by an eighth: doubled, the entries of ten thousand clients would be half empty.
            self.entries.reserve_exact(len / 8 + 8);
        }
        self.entries.push(Entry { waker: None, due: Tick::FIRST, next: Slot::TAKEN });
        Slot(len as u32)
    }

    /// Shrinks the list when less than half of it is used, down to the highest slot in use.
    fn shrink(&mut self, used: usize) {
        /// Below this many entries the memory (1.5 KB) is kept.
        const KEEP: usize = 64;
        if self.entries.len() <= 2 * used.max(KEEP) {
            return;
        }
        self.entries.truncate(used);
        self.entries.shrink_to_fit();
        self.free = Slot::NONE;
        // The lowest slot is used first, so that the list can shrink later.
        for (nth, entry) in self.entries.iter_mut().enumerate().rev() {
            if entry.next != Slot::TAKEN {
                entry.next = std::mem::replace(&mut self.free, Slot(nth as u32));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastrand::Rng;

    use super::*;
    use crate::hub::tests::support::{Wakes, seeded};

    fn tick(nth: u64) -> Tick {
        Tick::FIRST.ahead(nth)
    }
    #[test]
    fn times_are_rounded_up_to_ticks() {
        let tick_time = Duration::from_nanos(TICK_NANOS);
        let nano = Duration::from_nanos(1);
        assert_eq!(32 * tick_time, Duration::from_secs(1));
        assert_eq!(Tick::passed(tick_time - nano), Tick::FIRST);
        assert_eq!(Tick::coming(Duration::ZERO), Tick::FIRST);
        assert_eq!(Tick::coming(nano), tick(1));
        assert_eq!((Tick::passed(tick_time), Tick::coming(tick_time)), (tick(1), tick(1)));
        assert_eq!(Tick::FIRST.plus(nano), tick(1));
        assert_eq!(Tick::FIRST.plus(Duration::from_secs(3)), tick(96));
        assert!(Tick::FIRST.is_before(Tick::FIRST.plus(Config::WAIT_MAX)));
    }
    #[test]
    fn ticks_compare_rightly_when_their_count_wraps() {
        let mut rng = Rng::with_seed(1);
        // Ten years: the count wraps again every two, and first after five minutes.
        const YEAR: u64 = 365 * 86_400;
        for begin in [0, 299, 300, 2 * YEAR, 3 * YEAR, 10 * YEAR] {
            for _ in 0..100 {
                let since = Duration::from_millis(begin * 1000 + rng.u64(..2000));
                let wait = Duration::from_millis(rng.u64(1..86_400_000));
                let (passed, due) = (Tick::passed(since), Tick::coming(since + wait));
                assert!(!due.is_before(passed) && !passed.plus(wait).is_before(passed));
                let at = due.since_first(since);
                assert!(at >= since + wait && at < since + wait + Duration::from_millis(32));
                assert_eq!(Tick::passed(at), due);
                let late = since + wait * 2;
                assert_eq!(due.since_first(late), at, "seen from later");
            }
        }
    }
    /// A handle in the model: its slot, and while it waits, when it is due and its waker.
    type Handle = (Slot, Option<(u64, Arc<Wakes>)>);
    /// Compares the list with a plain vector, in random order of all operations.
    #[test]
    fn wakers_are_taken_when_due_in_any_order_of_operations() {
        seeded(200, |rng| {
            let mut deadlines = TimerList::default();
            let mut model: Vec<Handle> = Vec::new();
            let mut now = rng.u64(5 * 60 * 32 - 500..5 * 60 * 32);
            for _ in 0..rng.usize(..600) {
                let most = rng.usize(1..100);
                match rng.u8(..6) {
                    0 | 1 if model.len() < most => model.push((Slot::NONE, None)),
                    0..=2 if !model.is_empty() => {
                        let (slot, waits) = rng.choice(&mut model).expect("some");
                        let (due, wakes) = (now + rng.u64(1..50), Arc::<Wakes>::default());
                        let waker = Waker::from(Arc::clone(&wakes));
                        let before = deadlines.put(slot, tick(due), &waker);
                        assert_eq!(before.is_some(), waits.is_some(), "another waker");
                        let later = deadlines.put(slot, tick(due + 1), &waker);
                        assert!(later.is_none(), "it has this waker already");
                        let earlier = waits.as_ref().map_or(due, |(before, _)| due.min(*before));
                        *waits = Some((earlier, wakes));
                    }
                    3 if !model.is_empty() => {
                        let (slot, waits) = model.swap_remove(rng.usize(..model.len()));
                        assert_eq!(deadlines.free(slot).is_some(), waits.is_some());
                    }
                    4 => {
                        now += rng.u64(..20);
                        let mut woken = Vec::new();
                        let earliest = deadlines.take_due(tick(now), &mut woken);
                        woken.into_iter().for_each(Waker::wake);
                        for (_, waits) in &mut model {
                            let Some((due, wakes)) = waits else { continue };
                            assert_eq!(wakes.take(), usize::from(*due <= now));
                            if *due <= now {
                                *waits = None;
                            }
                        }
                        let waiting = model.iter().filter_map(|(_, waits)| waits.as_ref());
                        let least = waiting.map(|(due, _)| *due).min();
                        assert_eq!(earliest, least.map(tick));
                    }
                    _ => {}
                }
                let slots = model.iter().filter(|(slot, _)| *slot != Slot::NONE).count();
                let waiting = model.iter().filter(|(_, waits)| waits.is_some()).count();
                assert_eq!(deadlines.len(), (slots, waiting));
            }
        });
    }
    #[test]
    fn list_shrinks_when_most_slots_are_freed() {
        let mut deadlines = TimerList::default();
        let mut slots = vec![Slot::NONE; 10_000];
        let put = |deadlines: &mut TimerList, slot: &mut Slot| {
            drop(deadlines.put(slot, tick(1), Waker::noop()));
        };
        slots.iter_mut().for_each(|slot| put(&mut deadlines, slot));
        assert!(deadlines.entries.capacity() < slots.len() * 9 / 8 + 8);
        let (highest, low) = (slots.pop().expect("there are many"), slots.swap_remove(300));
        for slot in slots {
            drop(deadlines.free(slot));
        }
        assert_eq!(deadlines.take_due(tick(0), &mut Vec::new()), Some(tick(1)));
        assert_eq!(deadlines.entries.len(), 10_000, "the highest is taken");
        drop(deadlines.free(highest));
        assert_eq!(deadlines.take_due(tick(0), &mut Vec::new()), Some(tick(1)));
        assert_eq!(deadlines.entries.capacity(), 301);
        for nth in (0..400).filter(|&nth| nth != low.0) {
            let mut slot = Slot::NONE;
            put(&mut deadlines, &mut slot);
            assert_eq!(slot, Slot(nth), "the lowest that is free");
        }
        assert_eq!(deadlines.len(), (400, 400));
    }
}
