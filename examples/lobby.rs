//! A game lobby: a state for each room, users, and an endpoint of the program on the hub's port.
//!
//! `cargo run --example lobby -- [ADDRESS]`, then connect to
//! `ws://127.0.0.1:8080/ws/chess?user=ada`. The first player of a room is its host.
//!
//! - `ready` marks a player as ready; once all are, everyone in the room gets `start`
//! - `kick bob`, from the host, ends all clients of bob
//! - `curl http://127.0.0.1:8080/api/lobbies` lists the rooms as JSON

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hublet::http::{Request, Response, StatusCode};
use hublet::{
    Admission, Body, Client, Config, Disconnect, Handler, Hub, Listener, Message, Peer, query_of,
    room_of,
};
use smol::Executor;

/// The state of a room.
struct Lobby {
    /// The user that came first, or the next one when that has left.
    host: String,
    /// The users in the room, and whether each is ready.
    players: BTreeMap<String, bool>,
}

/// The state of all rooms. A room is here while it has a player.
#[derive(Default)]
struct Lobbies(Mutex<BTreeMap<Arc<str>, Lobby>>);

impl Lobbies {
    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Lobby>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user comes into a room; returns the host.
    fn enter(&self, room: &Arc<str>, user: &str) -> String {
        let mut lobbies = self.lock();
        let new = || Lobby { host: user.to_owned(), players: BTreeMap::new() };
        let lobby = lobbies.entry(Arc::clone(room)).or_insert_with(new);
        lobby.players.insert(user.to_owned(), false);
        lobby.host.clone()
    }

    /// A user has left a room; returns the host, if there is a player left.
    fn leave(&self, room: &str, user: &str) -> Option<String> {
        let mut lobbies = self.lock();
        let lobby = lobbies.get_mut(room)?;
        lobby.players.remove(user);
        if lobby.host == user {
            match lobby.players.keys().next() {
                Some(next) => lobby.host.clone_from(next),
                None => {
                    lobbies.remove(room);
                    return None;
                }
            }
        }
        Some(lobby.host.clone())
    }

    /// A user is ready; returns whether all are.
    fn ready(&self, room: &str, user: &str) -> bool {
        let mut lobbies = self.lock();
        let Some(lobby) = lobbies.get_mut(room) else { return false };
        lobby.players.insert(user.to_owned(), true);
        lobby.players.values().all(|ready| *ready)
    }

    fn is_host(&self, room: &str, user: &str) -> bool {
        self.lock().get(room).is_some_and(|lobby| lobby.host == user)
    }

    /// `{"chess":["ada","bob"]}`. The names are letters and digits, which JSON has as they are.
    fn json(&self) -> String {
        let lobbies = self.lock();
        let rooms = lobbies.iter().map(|(room, lobby)| {
            let players: Vec<_> = lobby.players.keys().map(|user| format!("\"{user}\"")).collect();
            format!("\"{room}\":[{}]", players.join(","))
        });
        format!("{{{}}}", rooms.collect::<Vec<_>>().join(","))
    }
}

impl Handler for Lobbies {
    /// A real program would check a token here, which says the user.
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        let is_plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric());
        let room = room_of(request.uri().path()).filter(is_plain).ok_or(StatusCode::NOT_FOUND)?;
        let user = query_of(request.uri(), "user").filter(is_plain);
        match user {
            Some(user) if !user.is_empty() => Ok(Admission::user(user).room(room)),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }

    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        let user = client.user().unwrap_or_default();
        for room in client.rooms().await? {
            let host = self.enter(&room, user);
            client.hub().publish(&room, format!("{user} came, {host} is the host")).await?;
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let (hub, user) = (client.hub(), client.user().unwrap_or_default());
        let text = message.as_text().ok_or(Disconnect::UNSUPPORTED)?;
        for room in client.rooms().await? {
            if text == "ready" {
                if self.ready(&room, user) {
                    hub.publish(&room, "start").await?;
                }
            } else if let Some(other) = text.strip_prefix("kick ") {
                if self.is_host(&room, user) {
                    let kick = Disconnect::new(4500, "the host has ended your game");
                    hub.disconnect_user(other, kick).await?;
                }
            } else {
                hub.publish(&room, format!("{user}: {text}")).await?;
            }
        }
        Ok(())
    }

    async fn on_disconnect(&self, client: &Client, _: &Disconnect) {
        let user = client.user().unwrap_or_default();
        let Ok(clients) = client.hub().user_clients(user).await else { return };
        let others: BTreeSet<_> = clients.iter().map(|other| other.id).collect();
        for room in client.rooms().await.unwrap_or_default() {
            // The user may be in the room with another client.
            let Ok(members) = client.hub().presence(&room).await else { return };
            if members.iter().any(|member| others.contains(&member.id)) {
                continue;
            }
            if let Some(host) = self.leave(&room, user) {
                let news = format!("{user} left, {host} is the host");
                // An error means that the hub has ended.
                let _ = client.hub().publish(&room, news).await;
            }
        }
    }

    async fn on_request(
        &self,
        request: &Request<()>,
        _: &Peer,
        _: Body<'_>,
    ) -> Result<Response<Vec<u8>>, StatusCode> {
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/api/lobbies") => Response::builder()
                .header("Content-Type", "application/json")
                .body(self.json().into_bytes())
                .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR),
            _ => Err(StatusCode::NOT_FOUND),
        }
    }
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Lobbies::default()).await
    }))
}
