//! What the binary does with a message: it goes to everyone in the room.

use std::sync::Arc;

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Disconnect, Error, Handler, Message, Peer, Target, room_of};

use super::fold::Fold;

/// The handler of the binary.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Whether a client hears itself, unless its request says otherwise.
    echo: bool,
    /// Where joins and leaves are logged.
    fold: Arc<Fold>,
}

/// What a client brought along from its request.
#[derive(Debug)]
struct Seat {
    room: Box<str>,
    echo: bool,
    peer: Peer,
}

impl Relay {
    pub(crate) fn new(echo: bool, fold: Arc<Fold>) -> Self {
        Self { echo, fold }
    }
}

impl Handler for Relay {
    async fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        let echo = match query(request, "echo") {
            None => self.echo,
            Some("1") => true,
            Some("0") => false,
            Some(_) => return Err(StatusCode::BAD_REQUEST),
        };
        let seat = Seat { room: room.as_str().into(), echo, peer: *peer };
        Ok(Admission::anonymous().room(room).extension(seat))
    }

    async fn on_publish(&self, _: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        let seat = seat(client)?;
        self.fold.joined(client, &seat.room, &seat.peer);
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let seat = seat(client)?;
        // Not waiting for the count lets the manager take many messages at once.
        let published = if seat.echo {
            client.hub().try_publish(&seat.room, message)
        } else {
            client.try_publish(&seat.room, message)
        };
        match published {
            Ok(()) => Ok(()),
            // Boxed, since it is rare and would make every idle client larger.
            Err(error) if error.is_full() => Box::pin(publish(client, seat, error)).await,
            Err(error) => Err(disconnect(&error)),
        }
    }

    async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
        if let Ok(seat) = seat(client) {
            self.fold.left(client, &seat.room, reason);
        }
    }
}

/// Waits for a place in the inbox, with the message that had none.
async fn publish(client: &Client, seat: &Seat, refused: Error) -> Result<(), Disconnect> {
    let Some(message) = refused.into_message() else { return Err(Disconnect::INTERNAL) };
    let published = if seat.echo {
        client.hub().publish(&seat.room, message).await
    } else {
        client.publish(&seat.room, message).await
    };
    published.map(drop).map_err(|error| disconnect(&error))
}

fn seat(client: &Client) -> Result<&Seat, Disconnect> {
    client.extension().ok_or(Disconnect::INTERNAL)
}

fn disconnect(error: &Error) -> Disconnect {
    if error.is_closed() { Disconnect::GOING_AWAY } else { Disconnect::INTERNAL }
}

/// The first value of `name` in a request's query; empty if it stands there without one.
fn query<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}
