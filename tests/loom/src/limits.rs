//! The semaphores in which senders wait.

#[path = "../../../src/limits/semaphore.rs"]
pub(crate) mod semaphore;
