//! The classic chat: a message from one client goes to all of them, its sender included.
//!
//! Run it with `cargo run --example chat`, then open two WebSocket clients on
//! `ws://127.0.0.1:8080/`. Another address may be given as its argument.

use std::sync::Arc;

use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message};
use smol::Executor;

/// A message from one client goes to all of them.
struct Chat;

impl Handler for Chat {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.hub().broadcast(message).await.map(drop).map_err(|_| Disconnect::GOING_AWAY)
    }
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        let manager = executor.spawn(manager);
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Chat).await?;
        manager.await;
        Ok(())
    }))
}
