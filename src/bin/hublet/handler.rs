//! What the binary does with a message: it goes to everyone in the room.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Disconnect, Error, Handler, Message, Peer, Target, query_of, room_of,
};

use smol::{Executor, Timer};

use super::auth::{Access, PROTOCOL, offers_protocol};
use super::join_log::Fold;
use super::{Work, spawn};

/// The handler of the binary.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Whether a client hears itself, unless its request says otherwise.
    echo: bool,
    /// Where joins and leaves are logged.
    fold: Arc<Fold>,
    /// Who may do what.
    access: Access,
    /// Runs the clocks of those whose token ends.
    executor: Arc<Executor<'static>>,
}

/// What a client brought along from its request.
#[derive(Debug)]
struct Seat {
    room: Arc<str>,
    echo: bool,
    /// Whether it may send to the room.
    sends: bool,
    /// Whether its empty binary messages are questions: browsers hide pings from pages.
    probes: bool,
    peer: Peer,
    /// When its token ends; boxed, since most have none.
    expiry: Option<Box<Expiry>>,
}

/// The end of a client's token.
#[derive(Debug)]
struct Expiry {
    /// In seconds of Unix time.
    at: u64,
    /// Waits for it, and ends with the client.
    clock: OnceLock<Work>,
}

impl Relay {
    pub(crate) fn new(
        echo: bool,
        fold: Arc<Fold>,
        access: Access,
        executor: &Arc<Executor<'static>>,
    ) -> Self {
        Self { echo, fold, access, executor: Arc::clone(executor) }
    }
}

impl Handler for Relay {
    async fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        let echo = switch(request, "echo")?.unwrap_or(self.echo);
        let probes = switch(request, "probe")?.unwrap_or(false);
        let pass = self.access.pass(request, unix_time().as_secs())?;
        pass.listens_to(&room)?;
        let sends = pass.sends_to(&room).is_ok();
        let expiry = pass.until.map(|at| Box::new(Expiry { at, clock: OnceLock::new() }));
        let room: Arc<str> = room.into();
        let seat = Seat { room: Arc::clone(&room), echo, sends, probes, peer: *peer, expiry };
        let admission = pass.user.map_or_else(Admission::anonymous, Admission::user);
        let admission = admission.room(room).extension(seat);
        Ok(if offers_protocol(request) { admission.protocol(PROTOCOL) } else { admission })
    }

    async fn on_publish(
        &self,
        request: &Request<()>,
        _: &Peer,
        target: &Target,
    ) -> Result<(), StatusCode> {
        let pass = self.access.pass(request, unix_time().as_secs())?;
        match target {
            Target::Room(room) => pass.sends_to(room),
            _ => pass.sends_to_users(),
        }
    }

    async fn on_inspect(&self, request: &Request<()>, peer: &Peer) -> Result<(), StatusCode> {
        self.access.inspect(request, peer)
    }

    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        let seat = seat(client)?;
        self.fold.joined(client, &seat.room, &seat.peer);
        if let Some(expiry) = &seat.expiry {
            let (hub, id) = (client.hub().clone(), client.id());
            let left = Duration::from_secs(expiry.at).saturating_sub(unix_time());
            let clock = async move {
                Timer::after(left).await;
                // It may have left in this moment.
                drop(hub.disconnect(id, Disconnect::new(1008, "token expired")).await);
                Ok(())
            };
            // It is set once, here.
            drop(expiry.clock.set(spawn(&self.executor, clock)));
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let seat = seat(client)?;
        if seat.probes && message.is_empty() && !message.is_text() {
            return Box::pin(answer(client)).await;
        }
        if !seat.sends {
            return Err(Disconnect::new(1008, "publishing needs a token that allows it"));
        }
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

/// Answers the question of a client, to it alone and behind what waits in its queue. It reads no
/// further message of the client before that, so a client has one answer on its way at most.
async fn answer(client: &Client) -> Result<(), Disconnect> {
    client.send(Message::binary([])).await.map(drop).map_err(|error| disconnect(&error))
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

/// Returns what a parameter of the query switches, if it is there.
///
/// # Errors
///
/// 400 for any value but 0 and 1.
fn switch(request: &Request<()>, name: &str) -> Result<Option<bool>, StatusCode> {
    match query_of(request.uri(), name).as_deref() {
        None => Ok(None),
        Some("1") => Ok(Some(true)),
        Some("0") => Ok(Some(false)),
        Some(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn seat(client: &Client) -> Result<&Seat, Disconnect> {
    client.extension().ok_or(Disconnect::INTERNAL)
}

fn disconnect(error: &Error) -> Disconnect {
    if error.is_closed() { Disconnect::GOING_AWAY } else { Disconnect::INTERNAL }
}

/// The time since 1970; nothing, where the clock stands before.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
