//! A connection for which no hand-over waits.

use crate::hub::handle::Hub;

/// A connection without a socket, or with nothing more to write. No process takes it over, and a
/// hand-over counts it as clean until this is dropped.
pub(crate) struct Detached(Hub);

impl Detached {
    pub(crate) fn new(hub: &Hub) -> Self {
        hub.shared().holding.detach();
        Self(hub.clone())
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.shared().holding.end_detached();
    }
}
