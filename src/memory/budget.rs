//! What a hub holds in memory on behalf of its peers and publishers, counted where it is held, and
//! how that stands against the ceiling.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener, IntoNotification as _};

use crate::memory::frame_buffer::FrameBuffer;

/// The length of a tick: debts are aged in these, and who waits for memory asks for relief as often.
pub(crate) const AGING_TICK: Duration = Duration::from_millis(250);

/// What an allocator spends on one allocation beyond what was asked for, in bytes: its own header
/// and the rounding of small sizes.
const ALLOCATION: usize = 32;

/// The memory that an allocation of `bytes` takes: allocators round up to a size class, and classes
/// lie up to a quarter apart, an eighth in the middle.
pub(crate) const fn allocation(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8 + ALLOCATION)
}

/// The account of one hub: the bytes that it holds for others now.
///
/// Without a ceiling it only counts. With one it counts the start cost and what each connection
/// sets aside as well, and knows how close to the ceiling that comes.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// Everything that counts against the ceiling.
    used: AtomicUsize,
    /// Of `used`: the start cost, and what connections have set aside.
    reserved: AtomicUsize,
    /// What one connection sets aside; 0 without a ceiling.
    connection: usize,
    watermarks: Watermarks,
    /// Does not count: what it takes beyond its message is part of the start cost.
    frame_buffer: FrameBuffer,
    /// Tells one of those who wait that `used` is below `high` again; each tells the next.
    available: Event,
    /// Whether somebody has waited and the manager has not yet looked.
    eviction_wanted: AtomicBool,
    /// The time of the first tick.
    origin: OnceLock<Instant>,
    /// How many ticks have passed, as far as anybody has told. 0 for ever without a ceiling.
    tick: AtomicU32,
}

/// How many bytes used are too many; all `usize::MAX` without a ceiling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watermarks {
    /// 85 %: an eviction goes down to here, so that the next is not due at once.
    pub(crate) low: usize,
    /// 90 %: nobody is admitted, no message is begun to be read.
    pub(crate) high: usize,
    /// 95 %: the largest of those who owe for longer than a moment is evicted.
    pub(crate) critical: usize,
    /// 97.5 %: the largest of all who owe is evicted.
    pub(crate) last: usize,
}

impl Watermarks {
    pub(crate) const NONE: Self = Self::at(usize::MAX, usize::MAX, usize::MAX, usize::MAX);

    /// The levels below a ceiling.
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
    /// `start` is used from the first moment on, and each connection sets `connection` aside; both
    /// are 0 without a ceiling.
    pub(crate) fn new(watermarks: Watermarks, start: usize, connection: usize) -> Self {
        Self {
            used: AtomicUsize::new(start),
            reserved: AtomicUsize::new(start),
            connection,
            watermarks,
            frame_buffer: FrameBuffer::default(),
            available: Event::new(),
            eviction_wanted: AtomicBool::new(false),
            origin: OnceLock::new(),
            tick: AtomicU32::new(0),
        }
    }

    /// Counts `bytes` until what this returns is dropped. Keep it beside what takes the bytes.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.add(bytes);
        Charge { memory: Arc::clone(self), bytes }
    }

    /// Bytes that are held now for messages and requests, without what is set aside.
    pub(crate) fn charged(&self) -> usize {
        // Two counters are never read at one moment.
        self.used().saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Bytes that count against the ceiling now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Where a long message has its buffer from, and leaves it.
    pub(crate) fn frame_buffer(&self) -> &FrameBuffer {
        &self.frame_buffer
    }

    /// Whether there is a ceiling.
    pub(crate) fn is_limited(&self) -> bool {
        self.watermarks.high < usize::MAX
    }

    /// Whether nobody may be admitted and no message begun.
    pub(crate) fn is_high(&self) -> bool {
        self.used() >= self.watermarks.high
    }

    /// Sets aside what a connection may need, until [`leave`](Self::leave).
    pub(crate) fn enter(&self) {
        self.reserve(0, self.connection);
    }

    /// A connection has ended.
    pub(crate) fn leave(&self) {
        self.reserve(self.connection, 0);
    }

    /// Sets `bytes` aside where `before` were.
    pub(crate) fn reserve(&self, before: usize, bytes: usize) {
        if bytes > before {
            self.reserved.fetch_add(bytes - before, Ordering::Relaxed);
            self.add(bytes - before);
        } else if bytes < before {
            self.reserved.fetch_sub(before - bytes, Ordering::Relaxed);
            self.sub(before - bytes);
        }
    }

    /// A debt up to here is nobody's end: a quarter of what a connection sets aside. Connections set
    /// 65 % of the ceiling aside at most, so that all such debts together fit below `low`.
    pub(crate) fn least_evictable(&self) -> usize {
        self.connection / 4
    }

    /// Listens for memory; look again whether it is high before you wait.
    pub(crate) fn listen(&self) -> EventListener {
        self.available.listen()
    }

    /// Tells the next of those who wait, for one who has found memory.
    pub(crate) fn notify_next(&self) {
        self.available.notify(1.additional());
    }

    /// Asks the manager to look; `true` if it has not been asked already.
    pub(crate) fn want_eviction(&self) -> bool {
        !self.eviction_wanted.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody has asked since the last time.
    pub(crate) fn take_eviction_wanted(&self) -> bool {
        self.eviction_wanted.load(Ordering::Relaxed)
            && self.eviction_wanted.swap(false, Ordering::Relaxed)
    }

    /// The tick, for who begins to owe something.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// The tick of a moment.
    fn tick_of(&self, moment: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| moment);
        (moment.saturating_duration_since(origin).as_millis() / AGING_TICK.as_millis()) as u32
    }

    /// Tells the time, which nobody here asks for.
    pub(crate) fn set_time(&self, now: Instant) {
        if self.is_limited() {
            let tick = self.tick_of(now);
            if tick != self.tick() {
                self.tick.store(tick, Ordering::Relaxed);
            }
        }
    }

    /// Counts `bytes`, until as many are taken off. [`hold`](Self::hold) does not forget to.
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes off what was counted.
    pub(crate) fn sub(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.watermarks.high && before - bytes < self.watermarks.high {
            self.available.notify(1.additional());
        }
    }
}

/// Bytes on an account; they leave it when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Arc<MemoryBudget>,
    bytes: usize,
}

impl Charge {
    /// Counts `bytes` from now on, for a buffer that has grown or shrunk. Nothing is touched while
    /// it stays the same.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.sub(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Bytes that are counted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The account it is on.
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

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
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
    fn start_and_connections_are_set_aside_and_not_held() {
        let memory = limited();
        assert_eq!((memory.used(), memory.charged()), (START, 0));
        memory.enter();
        let held = memory.charge(7);
        assert_eq!(memory.used(), START + CONNECTION + 7);
        assert_eq!(memory.charged(), 7);
        memory.leave();
        drop(held);
        assert_eq!(memory.used(), START);
    }
    #[test]
    fn who_waits_hears_that_memory_is_below_the_level_and_tells_the_next() {
        let memory = limited();
        let mut held = memory.charge(9_000 - START);
        assert!(memory.is_high());
        let (mut first, mut second) = (memory.listen(), memory.listen());
        held.resize(held.bytes() + 1);
        held.resize(held.bytes() - 1);
        assert!(block_on(poll_once(&mut first)).is_none(), "it is high still");
        held.resize(held.bytes() - 1);
        assert!(!memory.is_high());
        assert!(block_on(poll_once(&mut first)).is_some());
        assert!(block_on(poll_once(&mut second)).is_none());
        memory.notify_next();
        assert!(block_on(poll_once(&mut second)).is_some());
    }
    #[test]
    fn ticks_are_counted_from_the_first_moment_that_was_told() {
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
