//! The readiness of a socket.

#[path = "../../../src/net/readiness.rs"]
pub(crate) mod readiness;
