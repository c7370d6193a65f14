//! What an administrator does: ends clients.

use http::StatusCode;

use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::response::{Response, draining};
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::Command;
use crate::hub::handle::Hub;

/// Ends the clients that a request names, and answers how many there were. A client is ended as a
/// member of `room`.
pub(crate) async fn disconnect(
    hub: &Hub,
    target: &Target,
    room: &str,
) -> Result<Response, Response> {
    let reason = Disconnect::new(Disconnect::POLICY.code(), "disconnected by an administrator");
    let ended = match target {
        Target::Client(id) => disconnect_member(hub, *id, room, reason).await,
        Target::User(user) => hub.disconnect_user(user, reason).await,
        Target::All | Target::Room(_) => Ok(0),
    };
    let ended = ended.map_err(|_| draining())?;
    let body = format!("{{\"disconnected\":{ended}}}");
    Ok(Response::with_type(StatusCode::OK, "application/json", body.into()))
}

/// Ends a client if it hears a room.
async fn disconnect_member(
    hub: &Hub,
    id: ClientId,
    room: &str,
    reason: Disconnect,
) -> Result<usize, Error> {
    let room = room.into();
    if !hub.request(|reply| Command::Hears { id, room, reply }).await? {
        return Ok(0);
    }
    match hub.disconnect(id, reason).await {
        Ok(()) => Ok(1),
        Err(error) if error.is_unknown_client() => Ok(0),
        Err(error) => Err(error),
    }
}
