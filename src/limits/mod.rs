//! How many clients, handshakes and idle connections there may be.

pub(crate) mod admission;
pub(crate) mod semaphore;
