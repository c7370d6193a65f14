//! Responses that refuse a request, in the counters and in the log.

use crate::http1::response::Response;
use crate::hub::handle::Hub;
use crate::peer::Peer;
use crate::stats::{RefusalReason, Requested};

/// Counts a response that refuses what was asked, and logs it: each one at the level DEBUG, and once
/// at WARN if a flag would allow it.
pub(crate) fn count_refusal(
    hub: &Hub,
    requested: Requested,
    client_address: &Peer,
    response: &Response,
) {
    let status = response.status;
    if !response.is_of_program() && (status.is_client_error() || status.is_server_error()) {
        hub.shared().counters.refuse(requested, RefusalReason::of(status));
        log::debug!("{client_address} refused: {} {}", status.as_u16(), response.body);
        if let Some(sentence) = &response.warning {
            hub.shared().refusals.warn(sentence);
        }
    }
}
