//! A client whose connection waits while another process takes the hub over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::handler::Handler;
use crate::hub::client::Client;
use crate::hub::holding::{Along, Handle, Known, Parked, Parking};

/// What a connection knows of its client, and the registry does not.
#[derive(Debug)]
pub(crate) struct Details {
    /// For how long the peer has said nothing.
    pub(crate) idle: Duration,
    /// How server-sent events are written; `None` for a WebSocket.
    pub(crate) events: Option<u8>,
}

/// Says that the connection of a client is clean. The client goes along if it has a socket that another
/// process can take over, and if its handler lets it.
pub(crate) fn park_client<'a, H: Handler>(
    socket: Option<&Arc<Handle>>,
    client: &'a Client,
    handler: &H,
    details: Details,
) -> Option<Parking<'a>> {
    let about = || handler.on_hand_over(client);
    let along = socket.and_then(|socket| {
        let about = std::panic::catch_unwind(AssertUnwindSafe(about)).ok()??;
        let idle = details.idle.as_millis() as u32;
        let known = Known { events: details.events, idle, about };
        let socket = Arc::downgrade(socket);
        Some(Along { socket, peer: client.peer(), client: Some(known) })
    });
    client.hub().shared().holding.park(Parked { client: Some(client.id()), along })
}
