//! The parts of the hub that threads share under a lock.

#[path = "../../../src/hub/backlog.rs"]
mod backlog;
#[path = "../../../src/hub/batch.rs"]
pub(crate) mod batch;
#[path = "../../../src/hub/client_id.rs"]
pub(crate) mod client_id;
#[path = "../../../src/hub/queue.rs"]
pub(crate) mod queue;
#[path = "../../../src/hub/queue_config.rs"]
pub(crate) mod queue_config;
#[path = "../../../src/hub/registry.rs"]
mod registry;
#[path = "../../../src/hub/reply.rs"]
pub(crate) mod reply;
#[path = "../../../src/hub/room.rs"]
mod room;
#[path = "../../../src/hub/sizing.rs"]
mod sizing;
#[path = "../../../src/hub/unsent.rs"]
mod unsent;
