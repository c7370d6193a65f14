//! What the binary does with a message: it goes to everyone in the room.

use std::borrow::Cow;
use std::future::pending;
use std::sync::Arc;

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Disconnect, Error, Handler, Message, Peer, Rate, RequestedRooms, Since,
    Target, every_of, query_of, room_of,
};

use crate::auth::Access;
use crate::client_state::{ClientState, Several};
use crate::grant::{Grant, Rooms};
use crate::join_log::JoinLog;
use crate::request_token::answered_protocol;
use crate::room_rules::RoomRules;
use crate::token_clock::{TokenClock, unix_time};

/// The handler of the binary.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Whether a client hears itself, unless its request says otherwise.
    echo: bool,
    /// Where joins and leaves are logged.
    join_log: Arc<JoinLog>,
    /// The subprotocols that may be answered.
    protocols: Vec<Arc<str>>,
    /// What each token, origin and address may do.
    access: Access,
    /// Closes a client when its token ends.
    clock: Arc<TokenClock>,
    /// The terms of rooms.
    rooms: RoomRules,
}

impl Relay {
    pub(crate) fn new(
        echo: bool,
        protocols: Vec<Arc<str>>,
        join_log: Arc<JoinLog>,
        access: Access,
        clock: Arc<TokenClock>,
        rooms: RoomRules,
    ) -> Self {
        Self { echo, protocols, join_log, access, clock, rooms }
    }

    /// What a request may do; [`on_refusal`](Handler::on_refusal) says what is wrong with a token.
    fn grant(&self, request: &Request<()>) -> Result<Grant, StatusCode> {
        let grant = self.access.grant(request, unix_time().as_secs());
        grant.map_err(|_| StatusCode::UNAUTHORIZED)
    }

    /// The rooms that a client in several may publish to; nothing for a stream of events, which only hears.
    fn sends_to_several(
        request: &Request<()>,
        grant: Rooms,
        requested: &RequestedRooms,
    ) -> Result<Rooms, String> {
        if request.uri().path() == "/sse" {
            return Ok(Rooms::none());
        }
        grant.within(requested.rooms(), requested.prefixes())
    }

    /// Why a token has too many rooms to publish to for a client in several rooms.
    fn too_many_patterns(&self, request: &Request<()>) -> Option<String> {
        let requested = RequestedRooms::of(request.uri()).ok()?;
        let grant = self.grant(request).ok()?;
        Self::sends_to_several(request, grant.send, &requested).err()
    }
}

impl Handler for Relay {
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        let requested = RequestedRooms::of(request.uri()).map_err(|_| StatusCode::BAD_REQUEST)?;
        let echo = switch(request, "echo")?.unwrap_or(self.echo);
        let since = since(request).map_err(|_| StatusCode::BAD_REQUEST)?;
        let every = every_of(request.uri()).map_err(|_| StatusCode::BAD_REQUEST)?;
        let probes = switch(request, "probe")?.unwrap_or(false);
        let grant = self.grant(request)?;
        requested.rooms().iter().try_for_each(|room| grant.listens_to(room))?;
        requested.prefixes().iter().try_for_each(|prefix| grant.listens_to_all_of(prefix))?;
        let mut names = requested.rooms().iter().chain(requested.prefixes());
        let room = names.next().ok_or(StatusCode::BAD_REQUEST)?;
        let end = grant.until.unwrap_or(0);
        let until = grant.until;
        let has_no_rate = self.access.has_no_rate(request);
        let is_open = has_no_rate || !self.rooms.is_backend_only(room);
        let sends = is_open && grant.sends_to(room).is_ok();
        let name = Arc::clone(room);
        let state =
            ClientState { room: name, echo, sends, probes, end, has_no_rate, is_kept: false };
        let admission = grant.user.map_or_else(Admission::anonymous, Admission::user);
        let admission = self.rooms.admit(room, admission);
        let admission =
            requested.rooms().iter().fold(admission, |all, room| all.room(Arc::clone(room)));
        let mut admission = if requested.has_labels() {
            let (rooms, prefixes) = (requested.rooms().to_vec(), requested.prefixes().to_vec());
            let admission = prefixes.iter().fold(admission, Admission::prefix);
            let send = Self::sends_to_several(request, grant.send, &requested);
            let send = send.map_err(|_| StatusCode::BAD_REQUEST)?;
            admission.labels().extension(Several { state, rooms, prefixes, send })
        } else {
            admission.extension(state)
        };
        if let Some(since) = since {
            admission = admission.since(since);
        }
        if let Some(every) = every {
            admission = admission.every(every);
        }
        if let Some(end) = until {
            admission = admission.until(end);
        }
        if has_no_rate {
            admission = admission.rate(Rate::UNLIMITED);
        }
        Ok(match answered_protocol(request, &self.protocols) {
            Some(protocol) => admission.protocol(protocol),
            None => admission,
        })
    }

    async fn on_publish(
        &self,
        request: &Request<()>,
        _: &Peer,
        target: &Target,
    ) -> Result<(), StatusCode> {
        let grant = self.grant(request)?;
        match target {
            Target::Room(room) => {
                grant.sends_to(room)?;
                let is_closed = self.rooms.is_backend_only(room);
                if is_closed && !self.access.has_no_rate(request) {
                    return Err(StatusCode::FORBIDDEN);
                }
                Ok(())
            }
            _ => grant.sends_to_users(),
        }
    }

    async fn publish_until(&self, request: &Request<()>, _: &Peer, target: &Target) -> StatusCode {
        if *target == Target::All {
            // The admin token has no end.
            return pending().await;
        }
        // A token that has just ended grants nothing.
        if let Ok(grant) = self.grant(request) {
            self.clock.end_of(grant.until).await;
        }
        StatusCode::UNAUTHORIZED
    }

    async fn on_inspect(&self, request: &Request<()>, peer: &Peer) -> Result<(), StatusCode> {
        self.access.inspect(request, peer)
    }

    async fn on_act(&self, request: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        self.access.act(request)
    }

    fn is_rate_limited(&self, request: &Request<()>, _: &Peer) -> bool {
        !self.access.has_no_rate(request)
    }

    fn on_refusal(&self, request: &Request<()>, status: StatusCode) -> Option<Cow<'static, str>> {
        if status == StatusCode::BAD_REQUEST {
            let is_wrong = |name: &&str| switch(request, name).is_err();
            return match ["echo", "probe"].iter().find(|name| is_wrong(name)) {
                Some(name) => Some(format!("the parameter {name} is 0 or 1").into()),
                None => {
                    let rooms = RequestedRooms::of(request.uri()).err();
                    let times = || since(request).err().or_else(|| every_of(request.uri()).err());
                    let sentence = rooms.or_else(times).map(Into::into);
                    sentence.or_else(|| self.too_many_patterns(request).map(Into::into))
                }
            };
        }
        self.access.reason(request, status, unix_time().as_secs()).map(Into::into)
    }

    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        let state = ClientState::of(client)?;
        if !state.is_kept {
            let joined = |room: &str| self.join_log.joined(client, room, &client.peer());
            each_room(client, state, joined);
        }
        if state.end > 0 {
            self.clock.add(client.id(), state.end);
        }
        Ok(())
    }

    fn on_hand_over(&self, client: &Client) -> Option<String> {
        match client.extension::<Several>() {
            Some(several) => Some(several.describe()),
            None => ClientState::of(client).ok().map(ClientState::describe),
        }
    }

    fn on_take_over(&self, description: &str) -> Option<Admission> {
        let admit = |state: &ClientState| {
            let admission = self.rooms.admit(&state.room, Admission::anonymous());
            if state.has_no_rate { admission.rate(Rate::UNLIMITED) } else { admission }
        };
        if let Some(several) = Several::read(description) {
            return Some(admit(&several.state).extension(several));
        }
        let state = ClientState::read(description)?;
        Some(admit(&state).extension(state))
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        // What is rare is boxed: it would make every idle client larger.
        let state = ClientState::of(client)?;
        if state.probes && message.is_empty() && !message.is_text() {
            return Box::pin(answer(client)).await;
        }
        if let Some(several) = client.extension::<Several>() {
            return Box::pin(self.relay_labelled(client, several, message)).await;
        }
        if !state.sends {
            return Err(not_allowed());
        }
        // What is matched around an await stays in the future.
        let refused = match try_publish(client, &state.room, state.echo, message) {
            Err(error) if error.is_full() => error,
            outcome => return Ok(outcome?),
        };
        Box::pin(publish(client, &state.room, state.echo, refused)).await
    }

    async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
        if let Ok(state) = ClientState::of(client) {
            let left = |room: &str| self.join_log.left(client, room, reason);
            each_room(client, state, left);
            if state.end > 0 {
                self.clock.remove(client.id());
            }
        }
    }
}

/// Answers the question of a client, to it alone and behind what waits in its queue. It reads no
/// further message of the client before that, so a client has one answer on its way at most.
async fn answer(client: &Client) -> Result<(), Disconnect> {
    client.send(Message::binary([])).await?;
    Ok(())
}

/// The end of a client that sends to a room without leave.
fn not_allowed() -> Disconnect {
    Disconnect::new(1008, "publishing needs a token that allows it")
}

impl Relay {
    /// Relays a message of a client in several rooms to the one that its label names.
    async fn relay_labelled(
        &self,
        client: &Client,
        several: &Several,
        message: Message,
    ) -> Result<(), Disconnect> {
        let Some((room, message)) = message.split_label() else {
            return Err(Disconnect::new(1007, "the first line of a message has to name its room"));
        };
        if !several.hears(&room) {
            let reason = "the first line of a message names a room that was not asked for";
            return Err(Disconnect::new(1008, reason));
        }
        let state = &several.state;
        let is_open = state.has_no_rate || !self.rooms.is_backend_only(&room);
        if !(is_open && several.send.contains(&room)) {
            return Err(not_allowed());
        }
        match try_publish(client, &room, state.echo, message) {
            Ok(()) => Ok(()),
            Err(error) if error.is_full() => publish(client, &room, state.echo, error).await,
            Err(error) => Err(error.into()),
        }
    }
}

/// Calls `log` with each room that a client has asked for, and with each prefix, a `*` behind it.
fn each_room(client: &Client, state: &ClientState, log: impl Fn(&str)) {
    let Some(several) = client.extension::<Several>() else { return log(&state.room) };
    several.rooms.iter().for_each(|room| log(room));
    several.prefixes.iter().for_each(|prefix| log(&format!("{prefix}*")));
}

/// Publishes a message if the inbox has room now. Not waiting for the count lets the manager take
/// many messages at once.
fn try_publish(client: &Client, room: &str, echo: bool, message: Message) -> Result<(), Error> {
    if echo { client.hub().try_publish(room, message) } else { client.try_publish(room, message) }
}

/// Publishes a message that the inbox had no room for, once it has.
async fn publish(
    client: &Client,
    room: &str,
    echo: bool,
    refused: Error,
) -> Result<(), Disconnect> {
    let Some(message) = refused.into_message() else { return Err(Disconnect::INTERNAL) };
    let published = if echo {
        client.hub().publish(room, message).await
    } else {
        client.publish(room, message).await
    };
    published?;
    Ok(())
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

/// Returns where a WebSocket begins, if it says so.
///
/// # Errors
///
/// Why it cannot: the value says nothing, or the client would not hear every message and its count
/// would be wrong. A stream of events has its `since` read by the library.
fn since(request: &Request<()>) -> Result<Option<Since>, &'static str> {
    let uri = request.uri();
    let is_socket = uri.path() == "/ws" || uri.path().starts_with("/ws/");
    let Some(since) = query_of(uri, "since").filter(|_| is_socket) else { return Ok(None) };
    let since = since
        .parse()
        .map_err(|_| "since is neither a position, nor now, nor a number of messages such as -3")?;
    if query_of(uri, "echo").as_deref() == Some("0") {
        return Err("a WebSocket with since hears its own messages: leave out echo=0");
    }
    if query_of(uri, "every").is_some() {
        return Err("a WebSocket with since hears every message: leave out every");
    }
    Ok(Some(since))
}
