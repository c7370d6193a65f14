//! Clients over TLS, and the pair of a hublet that they speak to.

#[path = "../../src/net/tls/pair.rs"]
mod pair;
#[path = "../../src/net/tls/trusting_client.rs"]
mod trusting_client;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use rustls::{ClientConnection, StreamOwned, version};

use super::{Outcome, Server, UPGRADE};

/// A client and its TLS state.
pub(crate) type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// A folder with a certificate and its key, of ECDSA P-256.
pub(crate) struct Pair(PathBuf);

impl Pair {
    pub(crate) fn new() -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("hublet-pair-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let pair = Self(folder);
        fs::write(pair.certificate(), self::pair::CERTIFICATE)?;
        fs::write(pair.key(), self::pair::KEY)?;
        Ok(pair)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// The flags of a hublet that has it.
    pub(crate) fn flags(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        ["--tls-cert".into(), text(self.certificate()), "--tls-key".into(), text(self.key())]
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Server {
    /// Opens WebSocket clients over TLS 1.3, one after another.
    pub(crate) fn connect_encrypted(&self, clients: usize) -> Outcome<Vec<Encrypted>> {
        let wrap = |socket| {
            let client = trusting_client::trusting_client(&version::TLS13, &[b"http/1.1"]);
            Ok(StreamOwned::new(client, socket))
        };
        let open = || self.open_through(wrap, "/ws", UPGRADE, "101");
        (0..clients)
            .map(|nth| open().map_err(|error| format!("client {nth}: {error}").into()))
            .collect()
    }
}
