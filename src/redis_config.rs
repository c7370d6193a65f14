//! Where a Redis or Valkey server is, and how the hub uses it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::percent::percent_decode;

/// The port of a URL without one.
const PORT: u16 = 6379;

/// Bytes of a prefix at most.
const PREFIX_BYTES_MAX: usize = 64;

/// What a URL may look like.
const URLS: &str =
    "redis://[user:password@]host[:port][/db], or unix:/path; TLS and Sentinel are not supported";

/// A Redis or Valkey server that several hubs share: where it is, and the name that the hub's keys
/// and channels begin with.
///
/// It is read from a URL: `redis://[user:password@]host[:port][/db]` or `unix:/path`. User and
/// password may be percent-encoded. Without a port it is 6379, without a database 0. TLS and
/// Sentinel are not supported. `Debug` and `Display` leave out the password.
///
/// # Examples
///
/// ```
/// use hublet::Redis;
///
/// let redis: Redis = "redis://hub:secret@redis.example/2".parse()?;
/// assert_eq!(redis.to_string(), "redis://hub:***@redis.example:6379/2");
/// let redis = redis.prefix("chat")?;
///
/// assert!("rediss://redis.example".parse::<Redis>().is_err());
/// assert!(redis.prefix("two words").is_err());
/// # Ok::<_, hublet::Error>(())
/// ```
#[doc(alias = "valkey")]
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    pub(crate) address: ServerAddress,
    /// The user, if the server has several.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
    /// What every key and channel begins with, before a colon.
    pub(crate) prefix: String,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    /// A host, which is resolved at each connect, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl Redis {
    /// Default of [`prefix`](Self::prefix): `hublet`.
    pub const PREFIX: &'static str = "hublet";

    /// Sets the name that the hub's keys and channels begin with, before a colon. Hubs of one
    /// prefix share their rooms; hubs of different prefixes share a server and nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] unless it has 1 to 64 letters, digits, dots, hyphens and underscores:
    /// others mean something in the patterns of an access list.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Result<Self, Error> {
        let prefix = prefix.into();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=PREFIX_BYTES_MAX).contains(&prefix.len()) || !prefix.bytes().all(is_allowed) {
            return Err(Error::config(format!(
                "prefix {prefix:?} is not 1 to {PREFIX_BYTES_MAX} letters, digits, dots, hyphens \
                 and underscores"
            )));
        }
        self.prefix = prefix;
        Ok(self)
    }

    fn at(address: ServerAddress) -> Self {
        let prefix = Self::PREFIX.to_owned();
        Self { address, user: None, password: None, database: 0, prefix }
    }

    /// Reads what stands behind `redis://`; `None` if it is not allowed.
    fn read(rest: &str) -> Option<Self> {
        let (access, rest) = match rest.rsplit_once('@') {
            Some((access, rest)) => (Some(access), rest),
            None => (None, rest),
        };
        let (authority, database) = match rest.split_once('/') {
            Some((authority, "")) => (authority, 0),
            Some((authority, database)) => (authority, database.parse().ok()?),
            None => (rest, 0),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host) || port == 0 {
            return None;
        }
        let mut redis = Self::at(ServerAddress::Tcp(host.to_owned(), port));
        redis.database = database;
        if let Some(access) = access {
            let (user, password) = access.split_once(':').unwrap_or((access, ""));
            let user = percent_decode(user)?.into_owned();
            redis.user = (!user.is_empty()).then_some(user);
            redis.password = Some(percent_decode(password)?.into_owned());
        }
        Some(redis)
    }
}

impl FromStr for Redis {
    type Err = Error;

    /// Reads a URL. The error does not repeat it, since it may hold a password.
    fn from_str(url: &str) -> Result<Self, Error> {
        #[cfg(unix)]
        if let Some(path) = url.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::at(ServerAddress::Unix(path.into())));
        }
        let redis = url.strip_prefix("redis://").and_then(Self::read);
        redis.ok_or_else(|| Error::config(format!("the URL of Redis is not {URLS}")))
    }
}

impl fmt::Display for Redis {
    /// The URL, with `***` for a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = match &self.address {
            #[cfg(unix)]
            ServerAddress::Unix(path) => return write!(f, "unix:{}", path.display()),
            ServerAddress::Tcp(host, port) => (host, port),
        };
        f.write_str("redis://")?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        if host.contains(':') {
            write!(f, "[{host}]:{port}")?
        } else {
            write!(f, "{host}:{port}")?
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({self}, {:?})", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_documents_say() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://localhost/", "redis://localhost:6379"),
            ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis://:secret@r", "redis://:***@r:6379"),
            ("redis://hub:s%40%3a%2F@r", "redis://hub:***@r:6379"),
            ("redis://hub:a@b@r", "redis://hub:***@r:6379"),
            ("unix:/run/redis.sock", "unix:/run/redis.sock"),
        ] {
            let redis: Redis = url.parse().expect(url);
            assert_eq!(redis.to_string(), shown);
        }
        let redis: Redis = "redis://hub:s%40%3a%2F@r".parse().expect("allowed");
        assert_eq!((redis.user.as_deref(), redis.password.as_deref()), (Some("hub"), Some("s@:/")));
        assert_eq!(redis.prefix, "hublet");
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        for url in [
            "",
            "redis",
            "redis://",
            "redis://:7000",
            "redis://h:0",
            "redis://h:70000",
            "redis://h/x",
            "rediss://h",
            "http://h",
            "unix:run",
            "redis://u:secret%4@h",
            "redis://u:secret%+f@h",
            "redis://secret@h h",
            "redis://h:secret",
        ] {
            let error = url.parse::<Redis>().expect_err(url);
            assert!(error.is_config() && !error.to_string().contains("secret"), "{error}");
        }
    }
}
