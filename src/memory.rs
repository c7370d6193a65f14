//! What a hub holds in memory on behalf of its peers and publishers, counted where it is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an allocator spends on one allocation beyond what was asked for, in bytes: its own header
/// and the rounding of small sizes.
const ALLOCATION: usize = 32;

/// The memory that an allocation of `bytes` takes: allocators round up to a size class, and classes
/// lie up to a quarter apart, an eighth in the middle.
pub(crate) const fn allocation(bytes: usize) -> usize {
    bytes + bytes / 8 + ALLOCATION
}

/// The account of one hub: the bytes that it holds for others now.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    held: AtomicUsize,
}

impl Memory {
    /// Counts `bytes` until what this returns is dropped. Keep it beside what takes the bytes.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.add(bytes);
        Held { memory: Arc::clone(self), bytes }
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes on an account; they leave it when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
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
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
        let memory = Arc::<Memory>::default();
        let mut first = memory.hold(100);
        let second = memory.hold(20);
        assert_eq!(memory.held(), 120);
        first.resize(300);
        assert_eq!(memory.held(), 320);
        first.resize(50);
        assert_eq!(memory.held(), 70);
        drop(first);
        assert_eq!(memory.held(), 20);
        drop(second);
        assert_eq!(memory.held(), 0);
    }
}
