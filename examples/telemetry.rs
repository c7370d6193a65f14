//! Many small binary readings for dashboards. A slow dashboard misses the oldest: a late reading is
//! worth nothing.
//!
//! `cargo run --example telemetry -- [ADDRESS]`, then connect to `ws://127.0.0.1:8080/`. A reading
//! is 12 bytes: the sensor (u32), then its value (f64), both little-endian.

use std::sync::Arc;
use std::time::Duration;

use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message, Overflow};
use smol::{Executor, Timer};

/// The number of sensors.
const SENSORS: u32 = 100;

/// Refuses messages: dashboards only receive.
struct Dashboard;

impl Handler for Dashboard {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Err(Disconnect::UNSUPPORTED)
    }
}

fn reading(sensor: u32, value: f64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&sensor.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Publishes a reading of every sensor fifty times a second.
async fn measure(hub: Hub) -> Result<(), hublet::Error> {
    let mut time = 0.0f64;
    loop {
        Timer::after(Duration::from_millis(20)).await;
        time += 0.02;
        for sensor in 0..SENSORS {
            let value = (time + f64::from(sensor)).sin();
            // Does not wait: when the hub is behind, this reading is already old.
            match hub.try_broadcast(Message::binary(reading(sensor, value))) {
                Err(error) if !error.is_full() => return Err(error),
                _ => {}
            }
        }
    }
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        // A dashboard that is too slow misses the oldest readings and stays.
        let config = Config::default().overflow(Overflow::DropOldest).queue(256);
        let (hub, manager) = Hub::new(config)?;
        executor.spawn(manager).detach();
        executor.spawn(measure(hub.clone())).detach();
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        hub.serve(&executor, listener, Dashboard).await
    }))
}
