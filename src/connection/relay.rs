//! The handler of a hub that relays: what a client sends goes to its room.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Request, StatusCode};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::requested_every::every_of;
use crate::http1::requested_rooms::RequestedRooms;
use crate::http1::url::{is_stream, query_of};
use crate::hub::client::Client;
use crate::hub::client_id::Target;
use crate::hub::since::Since;
use crate::message::Message;
use crate::peer::Peer;

/// A [`Handler`] that is ready to use: a message from a client goes to everyone in its room, as in
/// the binary without tokens.
///
/// - The path names the room: `/ws/{room}`; any other path is the room `main`. With the query
///   `?echo=0` a client does not get its own messages, with `?echo=1` it does.
/// - The query may name several rooms instead, and prefixes: `/ws?room=a&room=b&room=c/*`
///   ([`RequestedRooms`]). Then each message has a label in both directions ([`Admission::labels`]).
///   One without a label closes the client with 1007, one for another room with 1008.
/// - With `?since=` a WebSocket counts the messages of its room, its own too, and begins where that
///   says: [`Admission::since`].
/// - With `?every=2s` a client hears the newest message of its room only, at most so often:
///   [`Admission::every`].
/// - With `?probe=1` an empty binary message is a question: the hub answers the client alone, with
///   an empty binary message. The client module `hublet.js` asks like this.
/// - Every client is admitted, and if [`Config::http`](crate::Config#structfield.http) is on every
///   `POST` to a room or a user is allowed. Put a handler of your own around it where that is too
///   much: call its hooks from yours.
///
/// A client that another handler has admitted, or the program
/// ([`Hub::serve_upgraded`](crate::Hub::serve_upgraded)), is relayed to all rooms it is in.
///
/// # Examples
///
/// ```no_run
/// use std::sync::Arc;
///
/// use hublet::{Config, Hub, Listener, Relay};
/// use smol::Executor;
///
/// let executor = Arc::new(Executor::new());
/// smol::block_on(executor.run(async {
///     let (hub, manager) = Hub::new(Config::default().http(true).hosts(vec![]))?;
///     executor.spawn(manager).detach();
///     hub.serve(&executor, Listener::bind("127.0.0.1:8080")?, Relay::new()).await
/// }))?;
/// # Ok::<_, hublet::Error>(())
/// ```
///
/// Admission of your own in front of it:
///
/// ```
/// use hublet::http::{Request, StatusCode};
/// use hublet::{Admission, Client, Disconnect, Handler, Message, Peer, Relay, query_of};
///
/// /// Relays between clients that know the word.
/// struct Club(Relay);
///
/// impl Handler for Club {
///     async fn on_upgrade(
///         &self,
///         request: &Request<()>,
///         peer: &Peer,
///     ) -> Result<Admission, StatusCode> {
///         match query_of(request.uri(), "token").as_deref() {
///             Some("sesame") => self.0.on_upgrade(request, peer).await,
///             _ => Err(StatusCode::UNAUTHORIZED),
///         }
///     }
///
///     async fn on_message(
///         &self,
///         client: &Client,
///         message: Message,
///     ) -> Result<(), Disconnect> {
///         self.0.on_message(client, message).await
///     }
/// }
/// # smol::block_on(async {
/// let club = Club(Relay::new());
/// let refused = club.on_upgrade(&Request::new(()), &Peer::unknown()).await;
/// assert_eq!(refused.err(), Some(StatusCode::UNAUTHORIZED));
///
/// let request = Request::get("/ws/cave?token=sesame").body(()).expect("well-formed");
/// let admission = club.on_upgrade(&request, &Peer::unknown()).await.expect("the word");
/// assert_eq!(admission.rooms().collect::<Vec<_>>(), ["cave"]);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Relay {
    /// Whether a client hears itself, unless its request says otherwise.
    echo: bool,
}

/// What a client brought along from its request.
struct ClientState {
    /// Its room, unless it is in several.
    room: Arc<str>,
    echo: bool,
    /// Whether its empty binary messages are questions.
    probes: bool,
}

/// What a client brought along that is in several rooms.
struct Several(ClientState);

impl Relay {
    /// Makes the handler. A client gets its own messages too.
    #[must_use]
    pub fn new() -> Self {
        Self { echo: true }
    }

    /// Sets whether a client gets its own messages, where its request does not say `?echo=0` or
    /// `?echo=1`. Default true.
    #[must_use]
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Sends a message to the room that its label names, of those that its sender is in.
    async fn relay_labelled(
        &self,
        client: &Client,
        message: Message,
        state: &ClientState,
    ) -> Result<(), Disconnect> {
        if state.probes && message.is_empty() && !message.is_text() {
            return answer(client).await;
        }
        let label = message.split_label();
        let (room, message) = label.ok_or(Disconnect::new(1007, NO_LABEL))?;
        if !client.hears(&room).await? {
            return Err(Disconnect::new(1008, OTHER_ROOM));
        }
        send(client, &room, state.echo, message).await
    }

    /// Sends a message to the rooms that its sender is in now.
    async fn to_its_rooms(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        for room in client.rooms().await? {
            send(client, &room, self.echo, message.clone()).await?;
        }
        Ok(())
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self::new()
    }
}

impl Handler for Relay {
    /// Admits a client into the rooms that its request names, anonymous.
    ///
    /// # Errors
    ///
    /// 400 if `echo` or `probe` is neither 0 nor 1, a `room` or `every` is not allowed
    /// ([`RequestedRooms::of`], [`every_of`]), or a WebSocket's `since` says nothing or comes with `echo=0`
    /// or `every`.
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        let requested = RequestedRooms::of(request.uri()).map_err(|_| StatusCode::BAD_REQUEST)?;
        let echo = switch(request, "echo")?.unwrap_or(self.echo);
        let probes = switch(request, "probe")?.unwrap_or(false);
        let rooms = requested.rooms();
        let room = rooms.first().map_or_else(|| "".into(), Arc::clone);
        let state = ClientState { room, echo, probes };
        let join = |admission: Admission, room| admission.room(Arc::clone(room));
        let admission = rooms.iter().fold(Admission::anonymous(), join);
        let admission = requested.prefixes().iter().fold(admission, Admission::prefix);
        let admission = if requested.has_labels() {
            admission.labels().extension(Several(state))
        } else {
            admission.extension(state)
        };
        let admission = match every_of(request.uri()).map_err(|_| StatusCode::BAD_REQUEST)? {
            Some(every) => admission.every(every),
            None => admission,
        };
        Ok(match since(request)? {
            Some(since) => admission.since(since),
            None => admission,
        })
    }

    async fn on_publish(&self, _: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    fn on_refusal(&self, _: &Request<()>, status: StatusCode) -> Option<Cow<'static, str>> {
        // Of the reasons for 400 in this handler one sentence is enough.
        (status == StatusCode::BAD_REQUEST).then_some(Cow::Borrowed(
            "room is a name, or a prefix with a * behind it, at most 8 times, without one in the path; \
             echo and probe are 0 or 1; every is a time from 100ms to 1h, for one room; \
             and a WebSocket's since is a position, now or a number of messages such as -3, for one \
             room, without echo=0 and every",
        ))
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        // What is rare is boxed: it would make every idle client larger.
        let Some(state) = client.extension::<ClientState>() else {
            return match client.extension() {
                Some(Several(state)) => Box::pin(self.relay_labelled(client, message, state)).await,
                None => Box::pin(self.to_its_rooms(client, message)).await,
            };
        };
        if state.probes && message.is_empty() && !message.is_text() {
            return Box::pin(answer(client)).await;
        }
        // Not waiting for the count lets the manager take many messages at once.
        let sent = if state.echo {
            client.hub().try_publish(&state.room, message)
        } else {
            client.try_publish(&state.room, message)
        };
        // What is matched around an await stays in the future.
        let refused = match sent {
            Err(error) if error.is_full() => error,
            sent => return Ok(sent?),
        };
        Box::pin(send_again(client, state, refused)).await
    }
}

/// Why a client in several rooms ends.
const NO_LABEL: &str = "the first line of a message has to name its room";
const OTHER_ROOM: &str = "the first line of a message names a room that was not asked for";

/// Answers the question of a client, behind what waits in its queue.
async fn answer(client: &Client) -> Result<(), Disconnect> {
    client.send(Message::binary([])).await?;
    Ok(())
}

/// Waits for room in the inbox, with the message that had none.
async fn send_again(
    client: &Client,
    state: &ClientState,
    refused: Error,
) -> Result<(), Disconnect> {
    let message = refused.into_message().ok_or(Disconnect::INTERNAL)?;
    send(client, &state.room, state.echo, message).await
}

/// Sends a message to a room.
async fn send(client: &Client, room: &str, echo: bool, message: Message) -> Result<(), Disconnect> {
    if echo {
        client.hub().publish(room, message).await?;
    } else {
        client.publish(room, message).await?;
    }
    Ok(())
}

/// Returns what a parameter of the query switches, if it is there; 400 for a value but 0 and 1.
fn switch(request: &Request<()>, name: &str) -> Result<Option<bool>, StatusCode> {
    match query_of(request.uri(), name).as_deref() {
        None => Ok(None),
        Some("1") => Ok(Some(true)),
        Some("0") => Ok(Some(false)),
        Some(_) => Err(StatusCode::BAD_REQUEST),
    }
}

/// Returns where a WebSocket begins, if it says so; 400 if that says nothing, or if the client would
/// not hear every message of its room. Of a stream of events the hub reads it.
fn since(request: &Request<()>) -> Result<Option<Since>, StatusCode> {
    let uri = request.uri();
    let since = query_of(uri, "since").filter(|_| !is_stream(uri.path()));
    let Some(since) = since else { return Ok(None) };
    let leaves_out =
        query_of(uri, "echo").as_deref() == Some("0") || query_of(uri, "every").is_some();
    let since = since.parse().ok().filter(|_| !leaves_out);
    since.map(Some).ok_or(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::config::Config;
    use crate::connection::registration::{Admitted, ClientKind, admit};
    use crate::hub::handle::Hub;

    fn admission(relay: &Relay, path: &'static str) -> Result<Admission, StatusCode> {
        let request = Request::get(path).body(()).expect("well-formed");
        block_on(relay.on_upgrade(&request, &Peer::unknown()))
    }
    #[test]
    fn only_zero_and_one_switch_something() {
        for (path, admits) in [
            ("/", true),
            ("/ws/a?echo=0&probe=1", true),
            ("/ws/a?echo=2", false),
            ("/ws/a?probe=", false),
            ("/ws/a?since=now&echo=1", true),
            ("/sse/a?since=x", true),
            ("/ws/a?since=x", false),
            ("/ws/a?since=0&echo=0", false),
            ("/ws/a?since=0&every=1s", false),
            ("/ws/a?every=1s", true),
            ("/sse/a?since=0&every=1s", true),
            ("/ws/a?every=1", false),
            ("/ws?room=a&room=b&echo=0", true),
            ("/ws?room=a&room=b&since=0", false),
            ("/ws?room=a*&room=*", true),
            ("/ws?room=*a", false),
            ("/sse?room=a&room=b&since=0", false),
            ("/ws/a?room=b", false),
        ] {
            assert_eq!(admission(&Relay::new(), path).is_ok(), admits, "{path}");
        }
    }
    #[test]
    fn a_message_that_finds_the_inbox_full_waits_for_room() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default().inbox(1)).expect("valid");
        let _manager = executor.spawn(manager);
        let relay = Relay::new();
        let admitting =
            admit(&hub, admission(&relay, "/ws/a").expect("admitted"), ClientKind::WebSocket);
        let Admitted { registered, client, .. } =
            block_on(executor.run(admitting)).expect("a place");
        hub.try_publish("empty room", "x").expect("there is room");
        let mut relayed = Box::pin(relay.on_message(&client, "hello".into()));
        assert!(block_on(poll_once(&mut relayed)).is_none(), "the inbox is full");
        assert_eq!(block_on(executor.run(relayed)), Ok(()));
        while executor.try_tick() {}
        assert_eq!(registered.queue.depth().0, 1);
    }
    #[test]
    fn a_client_ends_with_the_hub() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let manager = executor.spawn(manager);
        let relay = Relay::new();
        let admitting = admit(&hub, Admission::anonymous().room("a"), ClientKind::WebSocket);
        let admitted = block_on(executor.run(admitting)).expect("a place");
        drop(manager);
        while executor.try_tick() {}
        let ended = block_on(relay.on_message(&admitted.client, "hello".into()));
        assert_eq!(ended, Err(Disconnect::GOING_AWAY));
    }
}
