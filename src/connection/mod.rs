//! The parts that WebSocket and SSE connections share.

pub(crate) mod admission;
pub(crate) mod end;
pub(crate) mod handler;
pub(crate) mod hooks;
pub(crate) mod linger;
pub(crate) mod memory_wait;
pub(crate) mod outgoing;
pub(crate) mod park;
pub(crate) mod patience;
pub(crate) mod rate_limit;
pub(crate) mod read_pause;
pub(crate) mod refuse;
pub(crate) mod registration;
pub(crate) mod relay;
pub(crate) mod request_body;
pub(crate) mod respond;
pub(crate) mod shared_handler;
pub(crate) mod timeouts;
