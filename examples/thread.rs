//! A thread without an executor publishes: a sensor that is read in a loop, as drivers and other
//! blocking code are.
//!
//! `cargo run --example thread -- [ADDRESS]`, then connect to `ws://127.0.0.1:8080/ws/sensor`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message};
use smol::Executor;

/// Refuses messages: clients only receive. The default admits each into the room of its path.
struct Readers;

impl Handler for Readers {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Err(Disconnect::UNSUPPORTED)
    }
}

/// Reads the sensor twenty times a second, and publishes each reading.
fn measure(hub: &Hub) -> Result<(), hublet::Error> {
    for reading in 0u32.. {
        thread::sleep(Duration::from_millis(50));
        // Does not wait. When the inbox is full, the next reading is newer anyway.
        match hub.try_publish("sensor", format!("reading {reading}")) {
            Err(error) if !error.is_full() => return Err(error),
            _ => {}
        }
        if reading % 10 == 0 {
            // Waits for a place in the inbox, and returns how many clients it goes to.
            let readers = smol::block_on(hub.publish("sensor", "ten more"))?;
            eprintln!("{readers} clients read");
        }
    }
    Ok(())
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        let sensor = hub.clone();
        // It ends with an error when the hub has ended.
        thread::spawn(move || measure(&sensor));
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Readers).await
    }))
}
