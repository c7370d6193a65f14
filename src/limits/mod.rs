//! How many clients, handshakes, idle connections and warnings there may be.

pub(crate) mod admission;
pub(crate) mod places;
pub(crate) mod turn;
pub(crate) mod warn_once;
