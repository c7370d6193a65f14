//! One request and its response.

use crate::http1::origin::AllowOrigin;
use crate::http1::slot::Slot;
use crate::peer::Peer;
use crate::sse::events_query::EventsQuery;
use crate::stats::Requested;

/// What is known of a request so far.
pub(crate) struct Exchange<'a> {
    /// What lets it be under way.
    pub(crate) slot: Slot<'a>,
    /// The peer has sent a byte of it.
    pub(crate) has_begun: bool,
    /// The request is HEAD: the response has no body.
    pub(crate) head_only: bool,
    /// Another request may follow.
    pub(crate) keeps_alive: bool,
    /// The request has a body, and that was not read.
    pub(crate) has_unread_body: bool,
    /// The origin that may read the response, whatever it is.
    pub(crate) allow_origin: AllowOrigin,
    /// The kind of request that a refusal is counted under.
    pub(crate) requested: Requested,
    /// What a request for events says of itself.
    pub(crate) events_query: EventsQuery,
    /// The peer, or the client that a trusted proxy names.
    pub(crate) client_address: Peer,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(slot: Slot<'a>, peer: Peer) -> Self {
        Self {
            slot,
            has_begun: true,
            head_only: false,
            keeps_alive: false,
            has_unread_body: false,
            allow_origin: None,
            requested: Requested::default(),
            events_query: EventsQuery::default(),
            client_address: peer,
        }
    }
}
