//! Users and rooms: a header names the user, a message names its target.
//!
//! `cargo run --example rooms -- [ADDRESS]`, then connect with the header `X-User: ada`.
//!
//! - `/join news` and `/leave news` change the rooms
//! - `@bob hello` reaches every client of the user bob
//! - any other message reaches everyone else in the rooms of its sender

use std::sync::Arc;

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Error, Handler, Hub, Listener, Message, Peer};
use smol::Executor;

struct Rooms;

impl Handler for Rooms {
    /// A client needs a name; a real program would check a token here.
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
        match user {
            Some(user) if !user.is_empty() => Ok(Admission::user(user).room("lobby")),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let Some(text) = message.as_text() else { return Err(Disconnect::UNSUPPORTED) };
        match say(client, text).await {
            Err(error) if error.is_closed() => Err(Disconnect::GOING_AWAY),
            // If the hub refuses, the client gets the error and stays connected.
            Err(error) => {
                client.send(error.to_string()).await?;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

async fn say(client: &Client, text: &str) -> Result<(), Error> {
    let user = client.user().unwrap_or("anonymous");
    if let Some(room) = text.strip_prefix("/join ") {
        client.join(room).await?;
        client.publish(room, format!("{user} joined {room}")).await?;
    } else if let Some(room) = text.strip_prefix("/leave ") {
        client.leave(room).await?;
    } else if let Some((to, text)) = text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        client.hub().send_to_user(to, format!("{user} to you: {text}")).await?;
    } else {
        for room in client.rooms().await? {
            client.publish(&room, format!("{user} in {room}: {text}")).await?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Rooms).await
    }))
}
