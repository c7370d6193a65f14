//! Whether the hub serves.

use std::time::Duration;

use http::StatusCode;

use crate::http1::response::{Response, away, unavailable};
use crate::hub::handle::Hub;

/// How long `/health` waits for the manager: less than the programs that ask wait for `/health`.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to `GET /health`: the hub serves if its manager answers, and the way to other hubs has
/// not been lost for 5 s.
pub(crate) async fn health(hub: &Hub) -> Response {
    if let Some(backplane) = &hub.shared().backplane {
        let timers = &hub.shared().timers;
        if backplane.link.ill_at().is_some_and(|tick| timers.has_come(tick)) {
            return away();
        }
    }
    let mut deadline = hub.shared().timers.after(HEALTH_TIMEOUT);
    // No client can be in a room of this name: the answer is short.
    match deadline.within(hub.presence("")).await {
        Some(Ok(_)) => Response::new(StatusCode::OK, "ok"),
        _ => unavailable("the manager does not answer in time"),
    }
}
