//! A hub that speaks TLS.
//!
//! `cargo run -- CERTIFICATE.pem KEY.pem [ADDRESS]`, then connect to
//! `wss://127.0.0.1:8443/ws/lobby`. The files may be renewed while it runs.

use std::error::Error;
use std::sync::Arc;

use hublet::{Config, Hub, Listener, Relay, Tls};
use smol::Executor;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(certificate), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("give the files of the certificate and of its key".into());
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let tls = Tls::from_files(certificate, key)?;
    let listener = Listener::bind(address)?.tls(&tls);
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default().http(true))?;
        executor.spawn(manager).detach();
        println!("listening on {listener}");
        Ok(hub.serve(&executor, listener, Relay::new()).await?)
    }))
}
