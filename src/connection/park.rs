//! A client whose connection waits while another process takes the hub over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::handler::Handler;
use crate::hub::client::Client;
use crate::hub::holding::{Handle, Parked};
use crate::hub::state;

/// What a connection knows of its client, and the registry does not.
#[derive(Debug)]
pub(crate) struct Details {
    /// For how long the peer has said nothing.
    pub(crate) idle: Duration,
    /// How server-sent events are written; `None` for a WebSocket.
    pub(crate) events: Option<u8>,
}

/// Says that the connection of a client is clean, if its handler lets the client go along.
pub(crate) fn park_client<H: Handler>(
    socket: &Arc<Handle>,
    client: &Client,
    handler: &H,
    details: Details,
) {
    let about = std::panic::catch_unwind(AssertUnwindSafe(|| handler.on_hand_over(client)));
    let Ok(Some(about)) = about else { return };
    let known = state::Client {
        events: details.events,
        id: client.id().parts(),
        idle: details.idle.as_millis() as u32,
        about,
        ..state::Client::default()
    };
    client.hub().shared().holding.park(Parked {
        socket: Arc::downgrade(socket),
        client: Some(client.id()),
        state: state::Connection { peer: client.peer().to_string(), client: Some(known) },
    });
}
