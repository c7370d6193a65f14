//! What a flag sets, and so how its value is read and shown.

use std::sync::Arc;
use std::time::Duration;

use hublet::{Config, Overflow, Redis};

use crate::flags::options::Options;
use crate::flags::value::{
    FRAMING, add_secret, audience, bytes, count, history, host, origin, protocol, redis,
    redis_file, redis_prefix, room, secret_file, show_bytes, show_time, switch, time,
};
use crate::page::PAGES;
use crate::room_rules::RoomRule;
use crate::secret::{Secret, Secrets};
use crate::socket::DEFAULT;

/// Executor threads, at most: more than the cores of any machine that the hub is made for.
const THREADS_MAX: usize = 64;

/// The levels of `--log`.
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// The values of `--trusted-proxy`.
const NETWORKS: &str = "an address, a network like 10.0.0.0/8, or unix";

/// The largest `--max-message`: two such messages fit the largest queue.
const MESSAGE_MAX: usize = (Config::LIMIT_MAX - FRAMING) / 2;

/// The shortest timeout; 0 is not allowed.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The option that a flag sets.
pub(super) enum Sets {
    /// A list of addresses.
    Listen,
    NoEcho,
    NoPage,
    Threads,
    /// A list of origins.
    Origins,
    /// A list of hosts.
    Hosts,
    /// A list of networks.
    Proxies,
    /// A list of subprotocols.
    Protocols,
    Overflow,
    /// A list of rules.
    History,
    /// A list of rules for rooms.
    Rooms,
    HistoryAge,
    Log,
    /// The bytes of a queue, which follow the message limit unless they are given.
    QueueBytes,
    /// A number of bytes.
    Bytes(fn(&mut Config) -> &mut usize),
    /// A number from 1 up.
    Count(fn(&mut Config) -> &mut usize),
    /// A number from 1 up, or no limit.
    SomeCount(fn(&mut Config) -> &mut Option<usize>),
    MaxMessage,
    /// A number of bytes, or none.
    SomeBytes(fn(&mut Config) -> &mut Option<usize>),
    /// A number of bytes, or no ceiling.
    MaxMemory,
    /// A timeout.
    Time(fn(&mut Config) -> &mut Duration),
    /// The window of the drain, which may be 0.
    Drain,
    /// A token or a key.
    Secret(fn(&mut Secrets) -> &mut Option<Secret>),
    /// A file with a token or a key.
    SecretFile(fn(&mut Secrets) -> &mut Option<Secret>),
    /// A file of variables, which is read before any flag.
    EnvFile,
    /// What JSON Web Tokens must be for.
    Audience,
    /// The URL of a Redis server.
    Redis,
    /// A file with it.
    RedisFile,
    /// What its names begin with.
    RedisPrefix,
    /// A room.
    Room(fn(&mut Options) -> &mut Option<Arc<str>>),
    /// A file of the certificate.
    #[cfg(feature = "tls")]
    TlsFile(fn(&mut Options) -> &mut Option<std::path::PathBuf>),
}

impl Sets {
    /// Sets a value. An `Err` says what is allowed.
    pub(super) fn set(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let config = &mut options.config;
        match self {
            Self::Listen => options.listen.push(text.parse()?),
            Self::EnvFile => {}
            Self::NoEcho => options.echo = !switch(text)?,
            Self::NoPage => {
                config.pages = if switch(text)? { Vec::new() } else { PAGES.to_vec() };
            }
            Self::Threads => options.threads = count(text, THREADS_MAX)?,
            Self::Origins => config.origins.push(origin(text)?),
            Self::Hosts => config.hosts.push(host(text)?),
            Self::Proxies => {
                let network = text.parse().map_err(|_| NETWORKS.to_owned())?;
                config.trusted_proxies.push(network);
            }
            Self::Protocols => {
                let name = protocol(text, options.protocols.len())?;
                options.protocols.push(name);
            }
            Self::Overflow => {
                config.overflow = text.parse().map_err(|_| Overflow::WORDS.join(", "))?;
            }
            Self::History => config.history.push(history(text)?),
            Self::Rooms => RoomRule::add(&mut options.rooms, text)?,
            Self::HistoryAge if text == "0" => config.history_age = Duration::ZERO,
            Self::HistoryAge => config.history_age = time(text, Duration::ZERO)?,
            Self::Bytes(field) => *field(config) = bytes(text, Config::LIMIT_MAX)?,
            Self::Log => {
                let level = text.parse().ok().filter(|_| LEVELS.contains(&text));
                options.level = level.ok_or_else(|| LEVELS.join(", "))?;
            }
            Self::QueueBytes => {
                config.queue_bytes = bytes(text, Config::LIMIT_MAX)?;
                options.queue_bytes_follow = false;
            }
            Self::Count(field) => *field(config) = count(text, Config::LIMIT_MAX)?,
            Self::SomeCount(field) => *field(config) = Some(count(text, Config::LIMIT_MAX)?),
            Self::MaxMessage => config.max_message = bytes(text, MESSAGE_MAX)?,
            Self::SomeBytes(field) => *field(config) = Some(bytes(text, Config::LIMIT_MAX)?),
            Self::MaxMemory => config.max_memory = Some(bytes(text, usize::MAX)?),
            Self::Time(field) => *field(config) = time(text, WAIT_MIN)?,
            Self::Drain => config.drain = time(text, Duration::ZERO)?,
            Self::Room(field) => *field(options) = Some(room(text)?),
            Self::Secret(field) => add_secret(field(&mut options.secrets), text)?,
            Self::Redis => config.redis = Some(redis(text)?),
            Self::RedisFile => config.redis = Some(redis_file(text)?),
            Self::RedisPrefix => options.redis_prefix = Some(redis_prefix(text)?),
            Self::Audience => options.secrets.jwt_audience = Some(audience(text)?),
            #[cfg(feature = "tls")]
            Self::TlsFile(field) => *field(options) = Some(text.into()),
            Self::SecretFile(field) => secret_file(field(&mut options.secrets), text)?,
        }
        Ok(())
    }

    /// The value as text, for the defaults in the help; empty if there is no default.
    pub(super) fn show(&self, options: &mut Options) -> String {
        let config = &mut options.config;
        match self {
            Self::Listen => DEFAULT.to_string(),
            Self::NoEcho
            | Self::NoPage
            | Self::Origins
            | Self::Hosts
            | Self::Proxies
            | Self::Protocols
            | Self::SomeCount(_)
            | Self::Secret(_)
            | Self::SecretFile(_)
            | Self::Audience
            | Self::EnvFile
            | Self::MaxMemory
            | Self::Redis
            | Self::RedisFile
            | Self::SomeBytes(_)
            | Self::History
            | Self::Rooms
            | Self::Room(_) => String::new(),
            #[cfg(feature = "tls")]
            Self::TlsFile(_) => String::new(),
            Self::RedisPrefix => Redis::PREFIX.to_owned(),
            Self::Threads => options.threads.to_string(),
            Self::Overflow => config.overflow.to_string(),
            Self::Log => options.level.to_string().to_ascii_lowercase(),
            Self::QueueBytes => show_bytes(config.queue_bytes),
            Self::Bytes(field) => show_bytes(*field(config)),
            Self::HistoryAge => show_time(config.history_age),
            Self::Count(field) => field(config).to_string(),
            Self::MaxMessage => show_bytes(config.max_message),
            Self::Time(field) => show_time(*field(config)),
            Self::Drain => show_time(config.drain),
        }
    }

    /// Whether the hub would be open to more clients without it, or would speak in the clear.
    pub(super) fn guards(&self) -> bool {
        #[cfg(feature = "tls")]
        if matches!(self, Self::TlsFile(_)) {
            return true;
        }
        matches!(self, Self::Secret(_) | Self::SecretFile(_) | Self::Audience)
    }

    /// For a list, to which each value adds: the function that clears it.
    pub(super) fn list(&self) -> Option<fn(&mut Options)> {
        match self {
            Self::Listen => Some(|options| options.listen.clear()),
            Self::Origins => Some(|options| options.config.origins.clear()),
            Self::Hosts => Some(|options| options.config.hosts.clear()),
            Self::Proxies => Some(|options| options.config.trusted_proxies.clear()),
            Self::Protocols => Some(|options| options.protocols.clear()),
            Self::History => Some(|options| options.config.history.clear()),
            Self::Rooms => Some(|options| options.rooms.clear()),
            _ => None,
        }
    }

    /// Whether its variable has several values, with commas between them.
    pub(super) fn has_commas(&self) -> bool {
        self.list().is_some() || matches!(self, Self::SecretFile(_))
    }
}
