//! The semaphores in which senders wait.

#[path = "../../../src/limits/turn.rs"]
pub(crate) mod turn;
