//! The parts of the hub that threads share under a lock.

#[path = "../../../src/hub/client_id.rs"]
pub(crate) mod client_id;
#[path = "../../../src/hub/queue.rs"]
pub(crate) mod queue;
#[path = "../../../src/hub/registry.rs"]
mod registry;
#[path = "../../../src/hub/reply.rs"]
pub(crate) mod reply;
#[path = "../../../src/hub/sizing.rs"]
mod sizing;
