//! A hub inside a program that publishes on its own: a clock that ticks, and a count of its
//! listeners.
//!
//! `cargo run --example embed -- [ADDRESS]`, then connect to `ws://127.0.0.1:8080/`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message};
use smol::{Executor, Timer};

/// Refuses messages: clients only receive.
struct Clock;

impl Handler for Clock {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Err(Disconnect::UNSUPPORTED)
    }
}

/// Broadcasts the time ten times a second.
async fn tick(hub: Hub) -> Result<(), hublet::Error> {
    let start = Instant::now();
    loop {
        Timer::after(Duration::from_millis(100)).await;
        let listeners = hub.stats().clients;
        let time = start.elapsed().as_millis();
        hub.broadcast(format!("{time} ms, {listeners} listening")).await?;
    }
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        executor.spawn(tick(hub.clone())).detach();
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Clock).await
    }))
}
