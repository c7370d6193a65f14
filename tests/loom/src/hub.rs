//! The parts of the hub in which threads meet under a lock.

#[path = "../../../src/hub/queue.rs"]
pub(crate) mod queue;
#[path = "../../../src/hub/registry.rs"]
mod registry;
#[path = "../../../src/hub/reply.rs"]
pub(crate) mod reply;
#[path = "../../../src/hub/sizing.rs"]
mod sizing;
#[path = "../../../src/hub/stats.rs"]
pub(crate) mod stats;
#[path = "../../../src/hub/turn.rs"]
pub(crate) mod turn;

pub use registry::ClientId;
pub use stats::Stats;
