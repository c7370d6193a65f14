//! What the flags and the environment set.

#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::sync::Arc;

use hublet::Config;
use log::LevelFilter;

#[cfg(feature = "tls")]
use crate::failure::Failure;
use crate::flags::value::{origin_warning, show_bytes};
use crate::page::PAGES;
use crate::room_rules::RoomRule;
use crate::secret::Secrets;
use crate::socket::Address;

/// The options that flags and environment set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The addresses to listen on; empty if none was given.
    pub(crate) listen: Vec<Address>,
    /// The PEM files of the certificate and its key.
    #[cfg(feature = "tls")]
    pub(crate) tls_cert: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) echo: bool,
    pub(crate) threads: usize,
    pub(crate) level: LevelFilter,
    /// The room that lines of standard input go to.
    pub(crate) stdin: Option<Arc<str>>,
    /// The room whose messages are lines of standard output.
    pub(crate) stdout: Option<Arc<str>>,
    /// The subprotocols that may be answered.
    pub(crate) protocols: Vec<Arc<str>>,
    /// The tokens that requests must show.
    pub(crate) secrets: Secrets,
    pub(crate) config: Config,
    /// What is set for the rooms of a pattern.
    pub(crate) rooms: Vec<RoomRule>,
    /// What names in Redis begin with, if it is given.
    pub(super) redis_prefix: Option<String>,
    /// Environment variables with the hub's prefix that name no flag.
    pub(crate) unknown: Vec<String>,
    /// Whether the bytes of a queue follow the message limit: they were not given.
    pub(super) queue_bytes_follow: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            #[cfg(feature = "tls")]
            tls_cert: None,
            #[cfg(feature = "tls")]
            tls_key: None,
            echo: true,
            threads: 1,
            level: LevelFilter::Info,
            stdin: None,
            stdout: None,
            rooms: Vec::new(),
            protocols: Vec::new(),
            secrets: Secrets::default(),
            config: Config::default().http(true).hosts(Vec::new()).pages(PAGES.to_vec()),
            redis_prefix: None,
            unknown: Vec::new(),
            queue_bytes_follow: true,
        }
    }
}

impl Options {
    /// Whether TCP addresses speak TLS.
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls_cert.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The certificate of TCP addresses, if they speak TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Result<Option<hublet::Tls>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => hublet::Tls::from_files(certificate, key)
                .map(Some)
                .map_err(|error| Failure::usage(format!("no TLS: {error}"))),
            _ => {
                Err(Failure::usage("--tls-cert and --tls-key go together: one of them is missing"))
            }
        }
    }

    /// The settings that are allowed but may be mistakes; a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ignored = |name| format!("{name} is ignored: no flag has this variable");
        let mut warnings: Vec<_> = self.unknown.iter().map(ignored).collect();
        warnings.extend(self.config.origins.iter().filter_map(|origin| origin_warning(origin)));
        if self.secrets.have_short_key() {
            let short = "the key of --jwt-secret has less than 32 bytes, which can be guessed";
            warnings.push(short.to_owned());
        }
        if self.secrets.jwt_audience.is_some() && self.secrets.jwt_secret.is_none() {
            warnings.push("--jwt-audience has no effect without --jwt-secret".to_owned());
        }
        if self.redis_prefix.is_some() && self.config.redis.is_none() {
            warnings.push("--redis-prefix has no effect without --redis".to_owned());
        }
        let Config { history_bytes, history_memory, .. } = self.config;
        if history_bytes > history_memory {
            let [bytes, memory] = [history_bytes, history_memory].map(show_bytes);
            warnings.push(format!(
                "--history-bytes {bytes} is more than --history-memory: a room keeps {memory} at most"
            ));
        }
        warnings
    }
}
