//! The memory account of a hub: what it holds on behalf of peers and publishers, and how that
//! compares with the ceiling.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener, IntoNotification as _};

use crate::deflate::inflater::Flaw;
use crate::memory::deflate_states::DeflateStates;
use crate::memory::frame_buffer::FrameBuffer;

/// The tick in which pinned memory ages. A connection that waits for memory asks for an eviction
/// once a tick.
pub(crate) const AGING_TICK: Duration = Duration::from_millis(250);

/// Bytes that an allocator adds to an allocation: its header, and the rounding of small sizes.
const ALLOCATION: usize = 32;

/// The memory that an allocation of `bytes` takes. Allocators round up to a size class; classes are
/// up to a quarter apart, an eighth on average.
pub(crate) const fn allocation(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8 + ALLOCATION)
}

/// The memory account of one hub.
///
/// Without a ceiling it only counts. With one it also counts the start cost and what is reserved
/// for each connection, and compares the sum with the watermarks.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// Bytes that count against the ceiling.
    used: AtomicUsize,
    /// The part of `used` that is the start cost and the reserves of connections.
    reserved: AtomicUsize,
    /// Bytes reserved for each connection; 0 without a ceiling.
    connection: usize,
    watermarks: Watermarks,
    /// The part of `used` that the manager drops before the hub refuses or evicts: kept messages.
    sheddable: AtomicUsize,
    /// The buffer for long messages. Not counted: what exceeds the message is in the start cost.
    frame_buffer: FrameBuffer,
    /// What messages are compressed and inflated with, reserved when it is made.
    deflate_states: DeflateStates,
    /// Notified once when `used` falls below `high`. Each waiter that is notified notifies the
    /// next.
    available: Event,
    /// Whether an eviction was asked for that the manager has not yet tried.
    eviction_wanted: AtomicBool,
    /// The time of the first aging tick.
    origin: OnceLock<Instant>,
    /// Aging ticks since then, as of the last `set_time`. Stays 0 without a ceiling.
    tick: AtomicU32,
}

/// Bytes in use at which the hub acts; all `usize::MAX` without a ceiling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watermarks {
    /// 85 %: an eviction frees memory down to this, so that the next is not due at once.
    pub(crate) low: usize,
    /// 90 %: no client is admitted, and no new message is read.
    pub(crate) high: usize,
    /// 95 %: the client is evicted that pins the most, among those that have pinned it for a tick.
    pub(crate) critical: usize,
    /// 97.5 %: the client is evicted that pins the most.
    pub(crate) last: usize,
}

impl Watermarks {
    pub(crate) const NONE: Self = Self::at(usize::MAX, usize::MAX, usize::MAX, usize::MAX);

    /// The watermarks of a ceiling.
    pub(crate) const fn below(ceiling: usize) -> Self {
        let percent = ceiling / 100;
        Self::at(85 * percent, 90 * percent, 95 * percent, 97 * percent + percent / 2)
    }

    const fn at(low: usize, high: usize, critical: usize, last: usize) -> Self {
        Self { low, high, critical, last }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(Watermarks::NONE, 0, 0)
    }
}

impl MemoryBudget {
    /// `start` counts as used from the beginning, and `connection` is reserved for each connection.
    /// Both are 0 without a ceiling.
    pub(crate) fn new(watermarks: Watermarks, start: usize, connection: usize) -> Self {
        Self {
            used: AtomicUsize::new(start),
            reserved: AtomicUsize::new(start),
            connection,
            watermarks,
            sheddable: AtomicUsize::new(0),
            frame_buffer: FrameBuffer::default(),
            deflate_states: DeflateStates::default(),
            available: Event::new(),
            eviction_wanted: AtomicBool::new(false),
            origin: OnceLock::new(),
            tick: AtomicU32::new(0),
        }
    }

    /// Counts `bytes` until the returned charge is dropped. Keep it beside what holds the bytes.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.add(bytes);
        Charge { memory: Arc::clone(self), bytes }
    }

    /// Bytes held now for messages and requests, without reserves.
    pub(crate) fn charged(&self) -> usize {
        // Another thread may change the counters between the two reads.
        self.used().saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Bytes that count against the ceiling now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// The shared buffer for long messages.
    pub(crate) fn frame_buffer(&self) -> &FrameBuffer {
        &self.frame_buffer
    }

    /// Compresses `input` to a payload of less than `less_than` bytes, for `take`; `None` if it does
    /// not become that short.
    pub(crate) fn compress<T>(
        &self,
        input: &[u8],
        less_than: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let reserve = |before, bytes| self.reserve(before, bytes);
        self.deflate_states.compress(input, less_than, reserve, take)
    }

    /// Appends to `out` what `compressed` stands for, at most `most` bytes; `grown` hears how many
    /// bytes `out` has whenever it grows.
    pub(crate) fn inflate(
        &self,
        compressed: &[u8],
        most: usize,
        out: &mut Vec<u8>,
        grown: impl FnMut(usize),
    ) -> Result<(), Flaw> {
        let reserve = |before, bytes| self.reserve(before, bytes);
        self.deflate_states.inflate(compressed, most, out, reserve, grown)
    }

    /// Whether there is a ceiling.
    pub(crate) fn is_limited(&self) -> bool {
        self.watermarks.high < usize::MAX
    }

    /// Whether no client may be admitted and no new message read. What can be shed does not count:
    /// the manager sheds it before that.
    pub(crate) fn is_high(&self) -> bool {
        let used = self.used();
        used >= self.watermarks.high && used - self.sheddable().min(used) >= self.watermarks.high
    }

    /// Whether the manager should shed what can be shed.
    pub(crate) fn should_shed(&self) -> bool {
        self.used() >= self.watermarks.low && self.sheddable() > 0
    }

    /// Changes what can be shed from `before` bytes to `bytes`; it stays part of what is used.
    pub(crate) fn set_sheddable(&self, before: usize, bytes: usize) {
        if bytes > before {
            self.sheddable.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.sheddable.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    fn sheddable(&self) -> usize {
        self.sheddable.load(Ordering::Relaxed)
    }

    /// Reserves what a connection may need, until [`leave`](Self::leave).
    pub(crate) fn enter(&self) {
        self.reserve(0, self.connection);
    }

    /// Releases the reserve of a connection.
    pub(crate) fn leave(&self) {
        self.reserve(self.connection, 0);
    }

    /// Changes a reserve of `before` bytes to `bytes`.
    pub(crate) fn reserve(&self, before: usize, bytes: usize) {
        if bytes > before {
            self.reserved.fetch_add(bytes - before, Ordering::Relaxed);
            self.add(bytes - before);
        } else if bytes < before {
            self.reserved.fetch_sub(before - bytes, Ordering::Relaxed);
            self.sub(before - bytes);
        }
    }

    /// A client that pins no more than this is not evicted: a quarter of a connection's reserve.
    /// Reserves take at most 65 % of the ceiling, so that all these clients together stay below
    /// `low`.
    pub(crate) fn least_evictable(&self) -> usize {
        self.connection / 4
    }

    /// Listens for free memory. Check `is_high` again before waiting.
    pub(crate) fn listen(&self) -> EventListener {
        self.available.listen()
    }

    /// Notifies the next waiter, after one has found memory.
    pub(crate) fn notify_next(&self) {
        self.available.notify(1.additional());
    }

    /// Asks for an eviction; `true` if none was asked for already.
    pub(crate) fn want_eviction(&self) -> bool {
        !self.eviction_wanted.swap(true, Ordering::Relaxed)
    }

    /// Whether an eviction was asked for since the last call.
    pub(crate) fn take_eviction_wanted(&self) -> bool {
        self.eviction_wanted.load(Ordering::Relaxed)
            && self.eviction_wanted.swap(false, Ordering::Relaxed)
    }

    /// The aging tick now.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// The aging tick at a time.
    fn tick_of(&self, time: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| time);
        (time.saturating_duration_since(origin).as_millis() as u64 / AGING_TICK.as_millis() as u64)
            as u32
    }

    /// Sets the time: the account reads no clock.
    pub(crate) fn set_time(&self, now: Instant) {
        if self.is_limited() {
            let tick = self.tick_of(now);
            if tick != self.tick() {
                self.tick.store(tick, Ordering::Relaxed);
            }
        }
    }

    /// Counts `bytes`, without a charge that would release them. Prefer [`charge`](Self::charge).
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Releases `bytes`.
    pub(crate) fn sub(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.watermarks.high && before - bytes < self.watermarks.high {
            self.available.notify(1.additional());
        }
    }
}

/// Bytes on the account, released when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Arc<MemoryBudget>,
    bytes: usize,
}

impl Charge {
    /// Changes the charge to `bytes`, for a buffer that has grown or shrunk. No atomic is touched
    /// if it stays the same.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.sub(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Bytes that are charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The account that is charged.
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::deflate::compressor::Compressor;
    use crate::deflate::inflater::Inflater;
    use crate::memory::deflate_states::{COMPRESSOR_BYTES, INFLATER_BYTES};

    #[test]
    fn what_compresses_is_made_once_and_counts_as_reserved() {
        let memory = MemoryBudget::default();
        for _ in 0..3 {
            let len = memory.compress(&[b'x'; 1000], 1000, <[u8]>::len);
            assert!(len.is_some_and(|len| len < 30));
            assert_eq!((memory.used(), memory.charged()), (COMPRESSOR_BYTES, 0));
        }
        assert_eq!(memory.inflate(&[0], 10, &mut Vec::new(), |_| ()), Ok(()));
        assert_eq!(memory.used(), COMPRESSOR_BYTES + INFLATER_BYTES);
        assert_eq!(memory.compress(b"short", 5, <[u8]>::len), None);
        assert!(size_of::<Compressor>() <= 1024, "the rest lies apart");
        assert!(size_of::<Inflater>() <= INFLATER_BYTES);
    }

    #[test]
    fn charges_count_until_they_are_dropped() {
        let memory = Arc::<MemoryBudget>::default();
        let mut first = memory.charge(100);
        let second = memory.charge(20);
        assert_eq!(memory.charged(), 120);
        first.resize(300);
        assert_eq!(memory.charged(), 320);
        first.resize(50);
        assert_eq!(memory.charged(), 70);
        drop(first);
        assert_eq!(memory.charged(), 20);
        drop(second);
        assert_eq!(memory.charged(), 0);
        assert!(!memory.is_limited() && !memory.is_high());
    }
    const START: usize = 1000;
    const CONNECTION: usize = 100;
    /// An account with a ceiling of 10,000 bytes.
    fn limited() -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget::new(Watermarks::below(10_000), START, CONNECTION))
    }
    #[test]
    fn start_and_connections_are_reserved_and_not_charged() {
        let memory = limited();
        assert_eq!((memory.used(), memory.charged()), (START, 0));
        memory.enter();
        let charge = memory.charge(7);
        assert_eq!(memory.used(), START + CONNECTION + 7);
        assert_eq!(memory.charged(), 7);
        memory.leave();
        drop(charge);
        assert_eq!(memory.used(), START);
    }
    #[test]
    fn waiters_are_notified_one_after_another_below_the_high_watermark() {
        let memory = limited();
        let mut charge = memory.charge(9_000 - START);
        assert!(memory.is_high());
        let (mut first, mut second) = (memory.listen(), memory.listen());
        charge.resize(charge.bytes() + 1);
        charge.resize(charge.bytes() - 1);
        assert!(block_on(poll_once(&mut first)).is_none(), "memory is still high");
        charge.resize(charge.bytes() - 1);
        assert!(!memory.is_high());
        assert!(block_on(poll_once(&mut first)).is_some());
        assert!(block_on(poll_once(&mut second)).is_none());
        memory.notify_next();
        assert!(block_on(poll_once(&mut second)).is_some());
    }
    #[test]
    fn ticks_count_from_the_first_time_that_was_set() {
        let memory = limited();
        let now = Instant::now();
        memory.set_time(now);
        assert_eq!(memory.tick(), 0);
        memory.set_time(now + 3 * AGING_TICK);
        assert_eq!(memory.tick(), 3);
        assert_eq!(memory.tick_of(now + AGING_TICK), 1);
        let unlimited = MemoryBudget::default();
        unlimited.set_time(now);
        unlimited.set_time(now + 3 * AGING_TICK);
        assert_eq!(unlimited.tick(), 0);
    }
}
