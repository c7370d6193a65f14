//! What the tests of WebSocket connections share, and the reader beside another one.

mod differential;
pub(crate) mod stream;
