//! A hub that speaks TLS, with futures-rustls and an accept loop of the program.
//!
//! `cargo run -- CERTIFICATE.pem KEY.pem [ADDRESS]`, then connect to
//! `wss://127.0.0.1:8443/ws/lobby`. Most programs leave TLS to a proxy in front instead.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use hublet::{Config, Hub, Peer, Relay};
use smol::net::{TcpListener, TcpStream};
use smol::{Executor, Timer, future, lock::Semaphore};

/// How long a peer may take for its TLS handshake. hublet's own deadlines begin behind it.
const TLS_HANDSHAKE: Duration = Duration::from_secs(5);

/// TLS handshakes at once. Each costs CPU and memory before hublet sees the connection.
const TLS_HANDSHAKES: usize = 256;

/// What the certificate and the key are made of.
fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    // hublet speaks nothing newer.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves one connection.
async fn serve(
    hub: Hub,
    stream: TcpStream,
    peer: Peer,
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
) {
    let place = places.acquire_arc().await;
    let late = async {
        Timer::after(TLS_HANDSHAKE).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    let shaken = future::or(acceptor.accept(stream), late).await;
    drop(place);
    let ended = match shaken {
        Ok(stream) => hub.serve_connection(stream, peer, &Relay::new()).await,
        Err(error) => return eprintln!("{peer}: no TLS handshake: {error}"),
    };
    match ended {
        Ok(reason) => eprintln!("{peer} left: {reason}"),
        Err(error) => eprintln!("{peer} was turned away: {error}"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(certificate), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("give the files of the certificate and of its key".into());
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let acceptor = acceptor(&certificate, &key)?;
    let places = Arc::new(Semaphore::new(TLS_HANDSHAKES));
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default().http(true))?;
        executor.spawn(manager).detach();
        let listener = TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (acceptor, places) = (acceptor.clone(), Arc::clone(&places));
                    let connection = serve(hub.clone(), stream, peer.into(), acceptor, places);
                    executor.spawn(connection).detach();
                }
                Err(error) => {
                    eprintln!("accepting failed: {error}");
                    Timer::after(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}
