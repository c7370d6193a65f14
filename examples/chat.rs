//! The smallest program: what a client sends goes to everyone in its room, its sender included.
//!
//! Run it with `cargo run --example chat`, then open two WebSocket clients on
//! `ws://127.0.0.1:8080/ws/lobby`. Another address may be given as its argument.

use std::sync::Arc;

use hublet::{Config, Hub, Listener, Relay};
use smol::Executor;

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Relay::new()).await
    }))
}
