//! A hub with a port of its own in a program on tokio.
//!
//! `cargo run --bin serve -- [ADDRESS]`, then connect to `ws://127.0.0.1:8080/ws/lobby`.

use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message};

/// Says each message again in a tokio task, a moment later: hooks may use tokio.
struct Later;

impl Handler for Later {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let later = tokio::task::spawn_blocking(move || message).await;
        client.hub().broadcast(later.map_err(|_| Disconnect::INTERNAL)?).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let (hub, manager) = Hub::new(Config::default())?;
    tokio::spawn(manager);
    let listener = Listener::bind(address)?;
    println!("listening on {listener}");
    hub.serve_with(listener, Later, |connection| {
        tokio::spawn(connection);
    })
    .await
}
