//! What all queues of a hub have in common.

use std::sync::Arc;

use crate::memory::budget::MemoryBudget;
use crate::overflow::Overflow;
use crate::stats::Counters;

/// The limits of a hub's queues, and where they count.
#[derive(Debug)]
pub(crate) struct QueueConfig {
    /// Messages that may wait in one queue.
    pub(crate) messages: usize,
    /// Bytes of frames that may wait in one queue.
    pub(crate) bytes: usize,
    /// What happens to a client when its queue is full.
    pub(crate) overflow: Overflow,
    /// Where deliveries, drops and losses are counted.
    pub(crate) counters: Arc<Counters>,
    /// Where the channel of a client that is behind is charged, unless a ceiling has it reserved
    /// with each connection. The hub charges a message once, for all queues that share it.
    pub(crate) memory: Arc<MemoryBudget>,
}
