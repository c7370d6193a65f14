//! The certificate of listeners that speak TLS, and its renewal.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use crate::error::Error;
use crate::memory::read_buffers::ReadBuffers;
use crate::net::tls::provider::provider;
use crate::time::clock::{now, written_at};

/// How often the files are looked at for a renewal, at most: a handshake costs a system call for
/// each file at this rate and not at that of a storm.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes of a file at most. A chain of certificates has less than 10 KiB.
const FILE_MAX: u64 = 256 * 1024;

/// A certificate and its key, for [`Listener::tls`](crate::Listener::tls); only with the feature
/// `tls`.
///
/// The key is ECDSA (P-256 or P-384), Ed25519 or RSA (2,048 to 4,096 bits). Clients speak TLS 1.3 or
/// TLS 1.2. Session tickets, early data, certificates of clients and renegotiation are off. ALPN has
/// `http/1.1`.
///
/// A clone is the same certificate: it is renewed for all listeners at once.
///
/// # Examples
///
/// ```no_run
/// use hublet::{Listener, Tls};
///
/// let tls = Tls::from_files("/etc/hublet/cert.pem", "/etc/hublet/key.pem")?;
/// let listener = Listener::bind("0.0.0.0:443")?.tls(&tls);
/// # Ok::<_, hublet::Error>(())
/// ```
///
/// A file that is not there, or says something else, is an error:
///
/// ```
/// let error = hublet::Tls::from_pem(b"no certificate", b"no key").err().expect("refused");
/// assert!(error.is_config());
/// assert_eq!(error.to_string(), "the certificate has no PEM section CERTIFICATE");
/// ```
#[derive(Clone)]
pub struct Tls(pub(crate) Arc<Common>);

/// What all connections of a certificate share.
pub(crate) struct Common {
    /// The settings of a handshake.
    pub(crate) config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
    /// Where records are decrypted and encrypted: one buffer for each thread that does so now.
    pub(crate) scratch: ReadBuffers,
    /// Whether a peer has spoken without TLS: the log warns once.
    has_seen_plain: AtomicBool,
}

impl Tls {
    /// Takes a certificate, with the chain behind it, and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// A configuration error, if one of them cannot be read or the key is not that of the
    /// certificate. The sentence has nothing of the key.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let pair = read_pair(certificate, key).map_err(|flaw| Error::config(flaw.to_owned()))?;
        Self::new(pair, None)
    }

    /// Reads a certificate, with the chain behind it, and its key from two PEM files.
    ///
    /// Once a minute at most, at a handshake, the hub looks whether the time of a file has changed,
    /// and reads both anew. If they do not fit it logs that and keeps the old pair. Connections that
    /// are there stay as they are.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem), with the name of the file; also if a file cannot be read or
    /// has more than 256 KiB.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        let files = Files { certificate: certificate.into(), key: key.into() };
        let stamps = files.stamps();
        let pair = files.read().map_err(Error::config)?;
        Self::new(pair, Some(Source { files, stamps, refused: None, looked: now() }))
    }

    fn new(pair: CertifiedKey, source: Option<Source>) -> Result<Self, Error> {
        let state = Mutex::new(State { pair: Arc::new(pair), source });
        let certificate = Arc::new(Certificate(state));
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12]);
        // Cannot fail: there are suites and key exchanges for both.
        let config = config.map_err(|_| Error::config("TLS has no cipher suite"))?;
        let mut config = config
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is resumed saves a client of a hub nothing that it would notice, and costs
        // memory here or a key that has to be changed.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(Arc::new(Common {
            config: Arc::new(config),
            certificate,
            scratch: ReadBuffers::default(),
            has_seen_plain: AtomicBool::new(false),
        })))
    }
}

impl fmt::Debug for Tls {
    /// Writes nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Common {
    /// Reads the files anew if their time has changed, once a minute at most.
    pub(crate) fn renew(&self) {
        self.certificate.renew(now());
    }

    /// Whether this peer is the first that has spoken without TLS.
    pub(crate) fn is_first_plain(&self) -> bool {
        !self.has_seen_plain.swap(true, Ordering::Relaxed)
    }
}

/// The pair of now, and where the next may come from.
struct Certificate(Mutex<State>);

struct State {
    pair: Arc<CertifiedKey>,
    source: Option<Source>,
}

/// The files of a pair.
struct Source {
    files: Files,
    /// Their times when the pair was read.
    stamps: Stamps,
    /// Their times when a pair was refused, so that the log says it once.
    refused: Option<Stamps>,
    /// When they were looked at.
    looked: Instant,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The times of both files; `None` for one that is not there.
type Stamps = [Option<Duration>; 2];

impl Certificate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, now: Instant) {
        let mut state = self.lock();
        let State { pair, source } = &mut *state;
        let Some(source) = source else { return };
        if now.saturating_duration_since(source.looked) < LOOK_INTERVAL {
            return;
        }
        source.looked = now;
        // Before the files are read: what is written meanwhile is seen at the next look.
        let stamps = source.files.stamps();
        if stamps == source.stamps {
            return;
        }
        match source.files.read() {
            Ok(renewed) => {
                *pair = Arc::new(renewed);
                (source.stamps, source.refused) = (stamps, None);
                log::info!(
                    "the certificate was renewed from {}",
                    source.files.certificate.display()
                );
            }
            // Tried again at the next look: one file may have been written and the other not yet.
            Err(sentence) if source.refused != Some(stamps) => {
                source.refused = Some(stamps);
                log::warn!("the certificate stays as it was: {sentence}");
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.lock().pair))
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| written_at(path))
    }

    /// Reads the pair. An `Err` is a sentence with the name of the file.
    fn read(&self) -> Result<CertifiedKey, String> {
        let certificate = read_file(&self.certificate)?;
        let key = read_file(&self.key)?;
        read_pair(&certificate, &key).map_err(|flaw| {
            let [certificate, key] = [&self.certificate, &self.key].map(|path| path.display());
            format!("{flaw} ({certificate}, {key})")
        })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Not by the length that the system says: a pipe or a device has none.
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("{} has more than {FILE_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

/// Reads a pair from PEM. An `Err` says what is wrong with it.
fn read_pair(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, &'static str> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(certificate) {
        chain.push(certificate.map_err(|_| "the certificate is no valid PEM")?);
    }
    if chain.is_empty() {
        return Err("the certificate has no PEM section CERTIFICATE");
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "the key has no PEM section PRIVATE KEY that is not encrypted")?;
    let provider = provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| "the key is none that TLS can use: ECDSA P-256 or P-384, Ed25519 or RSA")?;
    // A certificate has the public key as it is. To parse the rest would be code for nothing: a
    // server does not check its own certificate.
    let fits = key
        .public_key()
        .is_some_and(|public| chain[0].windows(public.len()).any(|part| part == public.as_ref()));
    if !fits {
        return Err("the key is not that of the certificate");
    }
    Ok(CertifiedKey::new(chain, key))
}
