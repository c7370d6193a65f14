//! A graceful stop: at SIGTERM or Ctrl-C the hub writes what is queued, closes its clients with 1012,
//! and the program ends.
//!
//! `cargo run --example stop -- [ADDRESS]`, then connect to `ws://127.0.0.1:8080/ws`.

#[cfg(not(unix))]
fn main() {
    eprintln!("this example is about the signals of Unix");
}

#[cfg(unix)]
fn main() -> Result<(), hublet::Error> {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use hublet::{Config, Disconnect, Hub, Listener, Relay};
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::low_level::pipe;
    use smol::io::AsyncReadExt;
    use smol::{Async, Executor, future};

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    // A signal writes a byte, which a task can wait for.
    let (reader, writer) = UnixStream::pair()?;
    pipe::register(SIGTERM, writer.try_clone()?)?;
    pipe::register(SIGINT, writer)?;
    let mut signals = Async::new(reader)?;

    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        let manager = executor.spawn(manager);
        let listener = Listener::bind(address)?;
        println!("listening on {listener}");
        let serving = hub.serve(&executor, listener, Relay::new());
        let stopping = async {
            signals.read_exact(&mut [0]).await?;
            // Returns when the clients are gone, after `Config::drain_max` at the latest.
            hub.drain(Disconnect::RESTART).await;
            Ok(())
        };
        let (served, stopped) = future::zip(serving, stopping).await;
        // It ends with the drain.
        manager.await;
        println!("stopped");
        served.and(stopped)
    }))
}
