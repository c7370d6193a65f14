//! How many clients, handshakes, idle connections and warnings there may be.

pub(crate) mod admission;
pub(crate) mod descriptors;
pub(crate) mod post_rates;
pub(crate) mod semaphore;
pub(crate) mod warn_once;
