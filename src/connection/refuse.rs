//! The end of a request that is refused.

use crate::connection::linger::lingering_close;
use crate::error::{Error, Kind};
use crate::http1::response::Response;
use crate::hub::handle::Hub;
use crate::net::peer::Peer;
use crate::net::stream::Transport;
use crate::stats::{RefusalReason, add};

/// Counts a response that refuses what was asked, and logs it: each one at the level DEBUG, and what
/// a flag would allow once at WARN.
pub(crate) fn count_refusal(hub: &Hub, client_address: &Peer, response: &Response) {
    let status = response.status;
    if status.is_client_error() || status.is_server_error() {
        hub.shared().counters.refuse(RefusalReason::of(status));
        log::debug!("{client_address} refused: {} {}", status.as_u16(), response.body);
        if let Some(sentence) = &response.warning {
            hub.shared().refusals.warn(sentence);
        }
    }
}

/// Writes the last response of a connection; returns what it came to.
pub(crate) async fn write_last_response<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    response: Response,
    head_only: bool,
) -> Error {
    let bytes = response.encode(head_only, false);
    add(&hub.shared().counters.bytes_sent, bytes.len() as u64);
    if let Err(error) = lingering_close(hub, transport, &bytes).await {
        log::debug!("a response did not reach its peer: {error}");
        transport.abort();
    }
    Error::new(Kind::Refused(response.status, response.into_body()))
}
