//! Every limit, wait and default, in one place, with the relations between them checked.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;
use crate::frame::FRAME_HEADER_MAX;
use crate::network::Network;

/// What happens to a client whose queue is full when one more message comes for it.
///
/// Whatever it is, nobody waits for that client, and [`Stats`](crate::Stats) counts what it cost.
///
/// # Examples
///
/// ```
/// use hublet::Overflow;
///
/// assert_eq!("drop-oldest".parse::<Overflow>().ok(), Some(Overflow::DropOldest));
/// assert_eq!(Overflow::default().to_string(), "disconnect");
/// assert!("drop".parse::<Overflow>().is_err());
/// ```
#[doc(alias = "backpressure")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The client is evicted: its backlog is thrown away and it is closed with 4108.
    #[default]
    Disconnect,
    /// The message that came is dropped, for this client only.
    DropNewest,
    /// The oldest waiting messages are dropped until the new one fits, for this client only.
    DropOldest,
}

impl Overflow {
    /// The words of [`FromStr`] and [`Display`](fmt::Display), in the order of the variants.
    pub const WORDS: [&str; 3] = ["disconnect", "drop-newest", "drop-oldest"];
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize])
    }
}

impl FromStr for Overflow {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        [Self::Disconnect, Self::DropNewest, Self::DropOldest]
            .into_iter()
            .find(|overflow| Self::WORDS[*overflow as usize] == word)
            .ok_or_else(|| {
                Error::config(format!("overflow {word:?} is not one of {}", Self::WORDS.join(", ")))
            })
    }
}

/// A page that is served as it is, to GET and HEAD.
///
/// # Examples
///
/// ```
/// use hublet::{Config, Page};
///
/// let page = Page {
///     path: "/",
///     content_type: "text/html; charset=utf-8",
///     headers: &[("Content-Security-Policy", "default-src 'none'")],
///     body: "<!doctype html><title>hub</title>",
/// };
/// let config = Config::default().http(true).pages(vec![page]);
/// assert_eq!(config.pages[0].path, "/");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The path, as requests name it.
    pub path: &'static str,
    /// The type of the body.
    pub content_type: &'static str,
    /// Further headers, names and values.
    pub headers: &'static [(&'static str, &'static str)],
    /// What is served.
    pub body: &'static str,
}

macro_rules! config {
    ($( $(#[$doc:meta])* $field:ident : $type:ty = $default:expr; )*) => {
        /// The limits and waits of a hub, each with its default.
        ///
        /// Every field has a setter of the same name, so that a configuration reads as one
        /// expression. [`Hub::new`](crate::Hub::new) checks it.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::time::Duration;
        /// use hublet::{Config, Overflow};
        ///
        /// let config = Config::default()
        ///     .queue(128)
        ///     .overflow(Overflow::DropOldest)
        ///     .ping_interval(Duration::from_secs(10));
        /// assert_eq!(config.queue, 128);
        /// assert_eq!(config.max_message, Config::MAX_MESSAGE);
        /// ```
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Config {
            $( $(#[$doc])* pub $field: $type, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl Config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

config! {
    /// Messages that may wait for one client. Default 64: 10 to 32 evict healthy clients on small
    /// boards. While a client is behind it costs 16 bytes a message and about 800 bytes.
    queue: usize = Self::QUEUE;
    /// Bytes of frames that may wait for one client. Default 256 KiB; at least one message of
    /// [`max_message`](Self#structfield.max_message) must fit.
    queue_bytes: usize = Self::QUEUE_BYTES;
    /// What happens to a client whose queue is full. Default: it is evicted.
    overflow: Overflow = Overflow::Disconnect;
    /// Commands that may wait for the manager. Default 256; publishers wait beyond it.
    inbox: usize = Self::INBOX;
    /// Bytes of frames that may wait for the manager. Default 1 MiB; publishers wait beyond it.
    inbox_bytes: usize = Self::INBOX_BYTES;
    /// The longest message and the longest frame, in bytes of payload. Default 64 KiB; a longer
    /// one is answered with 1009.
    max_message: usize = Self::MAX_MESSAGE;
    /// Frames that one message may consist of, empty ones counted. Default 1,024; more are
    /// answered with 1008.
    max_fragments: usize = Self::MAX_FRAGMENTS;
    /// The time a peer has to finish a message it began. Default 30 s; then 1008.
    message_timeout: Duration = Self::MESSAGE_TIMEOUT;
    /// The time for a whole request and its answer, however its bytes trickle. Default 5 s.
    handshake_timeout: Duration = Self::HANDSHAKE_TIMEOUT;
    /// How long a connection may wait for its next request. Default 75 s: longer than the 60 s
    /// that proxies keep theirs. It ends sooner when a client needs its place.
    idle_timeout: Duration = Self::IDLE_TIMEOUT;
    /// Handshakes in flight at once. Default 256; beyond it the accept loop waits, and a peer that
    /// has sent nothing for a second gives its place up.
    handshakes: usize = Self::HANDSHAKES;
    /// How long nothing may be heard from a client before it is pinged, give or take a tenth.
    /// Default 25 s: proxies cut idle connections at 60 s.
    ping_interval: Duration = Self::PING_INTERVAL;
    /// How long a ping may stay unanswered. Default 20 s; then the connection counts as lost. On
    /// Linux the kernel gives a TCP connection of a [`Listener`](crate::Listener) up after 20 s in
    /// which the peer's host takes none of what was written, whatever this says.
    pong_timeout: Duration = Self::PONG_TIMEOUT;
    /// How long writing may make no progress while something waits to be written. Default 10 s;
    /// then the client counts as slow. As for [`pong_timeout`](Self#structfield.pong_timeout), on
    /// Linux the kernel has the last word after 20 s.
    write_timeout: Duration = Self::WRITE_TIMEOUT;
    /// How long a peer has to answer a close frame. Default 2 s.
    close_timeout: Duration = Self::CLOSE_TIMEOUT;
    /// Clients that may be connected. Default `None`: the soft limit on file descriptors when the
    /// hub is made, less 64; 16,384 where there is no such limit. Beyond it: 503 with
    /// `Retry-After`.
    max_clients: Option<usize> = None;
    /// Clients that may be connected from one address; an IPv6 address counts by its /64, a Unix
    /// socket is exempt. Default `None`: behind a proxy every client has the proxy's address.
    max_clients_per_ip: Option<usize> = None;
    /// The ceiling of the whole process, in bytes. Default `None`. With it the limits on clients
    /// and on the inbox are what fits ([`Sizing`](crate::Sizing) has the arithmetic), sockets have
    /// small buffers, nobody is admitted and no message begun above 90 %, and above 95 % the
    /// clients that pin the most memory are evicted with 1013. A program that embeds the hub takes
    /// off what it needs itself; what its hooks hold and the buffers of streams of its own are not
    /// known here.
    max_memory: Option<usize> = None;
    /// Rooms that may exist. Default 1,024; beyond it a client is answered 503, a join refused.
    max_rooms: usize = Self::MAX_ROOMS;
    /// Rooms one client may be in. Default 8.
    max_rooms_per_client: usize = Self::MAX_ROOMS_PER_CLIENT;
    /// Origins that may connect beside the hub's own, as clients send them (`https://example.org`,
    /// `app://-`; a path counts for nothing), or `*` for any. Pages of those that are listed by name
    /// may send credentials, but for `null` and `file://`, which any page may have. Default none.
    /// Checked before any hook.
    origins: Vec<String> = Vec::new();
    /// Hosts that are served by name, with or without a port, beside addresses and `localhost`; or
    /// `*` for any, which is the default. Without it a page whose name was made to lead to the hub
    /// (DNS rebinding) is answered 421. Checked before any hook.
    hosts: Vec<String> = vec!["*".to_owned()];
    /// Proxies whose `X-Forwarded-For` is believed: hooks, the limit per address and the log see
    /// the client's address instead of theirs. Default none.
    trusted_proxies: Vec<Network> = Vec::new();
    /// Whether the routes of the binary are served: `/ws`, `/sse` and `/pub`, each also with a
    /// `/{room}`, `/user/{user}`, `/rooms`, `/rooms/{room}`, `/metrics`, `/health` and the
    /// [`pages`](Self::pages). Who may use them is up to
    /// [`on_upgrade`](crate::Handler::on_upgrade), [`on_publish`](crate::Handler::on_publish) and
    /// [`on_inspect`](crate::Handler::on_inspect). Default false: an upgrade on any path reaches
    /// the handler, anything else is answered 404.
    http: bool = false;
    /// Pages that are served as they are, where [`http`](Self#structfield.http) is on. Default none.
    pages: Vec<Page> = Vec::new();
    /// The window over which a drain spreads its close frames. Default 5 s.
    drain: Duration = Self::DRAIN;
}

impl Config {
    /// Default of [`queue`](Self#structfield.queue): 64 messages.
    pub const QUEUE: usize = 64;
    /// Default of [`queue_bytes`](Self#structfield.queue_bytes): 256 KiB.
    pub const QUEUE_BYTES: usize = 256 * 1024;
    /// Default of [`inbox`](Self#structfield.inbox): 256 commands.
    pub const INBOX: usize = 256;
    /// Default of [`inbox_bytes`](Self#structfield.inbox_bytes): 1 MiB.
    pub const INBOX_BYTES: usize = 1024 * 1024;
    /// Default of [`max_message`](Self#structfield.max_message): 64 KiB.
    pub const MAX_MESSAGE: usize = 64 * 1024;
    /// Default of [`max_fragments`](Self#structfield.max_fragments): 1,024 frames.
    pub const MAX_FRAGMENTS: usize = 1024;
    /// Default of [`message_timeout`](Self#structfield.message_timeout): 30 s.
    pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of [`handshake_timeout`](Self#structfield.handshake_timeout): 5 s.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`idle_timeout`](Self#structfield.idle_timeout): 75 s.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
    /// Default of [`handshakes`](Self#structfield.handshakes): 256 in flight.
    pub const HANDSHAKES: usize = 256;
    /// Default of [`ping_interval`](Self#structfield.ping_interval): 25 s.
    pub const PING_INTERVAL: Duration = Duration::from_secs(25);
    /// Default of [`pong_timeout`](Self#structfield.pong_timeout): 20 s.
    pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);
    /// Default of [`write_timeout`](Self#structfield.write_timeout): 10 s.
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`close_timeout`](Self#structfield.close_timeout): 2 s.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
    /// Default of [`max_rooms`](Self#structfield.max_rooms): 1,024.
    pub const MAX_ROOMS: usize = 1024;
    /// Default of [`max_rooms_per_client`](Self#structfield.max_rooms_per_client): 8.
    pub const MAX_ROOMS_PER_CLIENT: usize = 8;
    /// Default of [`drain`](Self#structfield.drain): 5 s.
    pub const DRAIN: Duration = Duration::from_secs(5);

    /// No limit may be past this: 2^30. It keeps every sum of limits inside 32 bits' reach.
    pub const LIMIT_MAX: usize = 1 << 30;
    /// No wait may be past this: a day. One for a peer ends with the first thirty-second of a second
    /// that is not before its time, at most two of them late, so that clients are woken together.
    pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks every value and every relation between values.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let at_least_1 = [
            ("queue", self.queue, "messages"),
            ("inbox", self.inbox, "commands"),
            ("max_message", self.max_message, "bytes"),
            ("max_fragments", self.max_fragments, "frames"),
            ("handshakes", self.handshakes, "handshakes"),
            ("max_clients", self.max_clients.unwrap_or(1), "clients"),
            ("max_clients_per_ip", self.max_clients_per_ip.unwrap_or(1), "clients"),
            ("max_rooms", self.max_rooms, "rooms"),
            ("max_rooms_per_client", self.max_rooms_per_client, "rooms"),
        ];
        for (name, value, unit) in at_least_1 {
            if value == 0 {
                return Err(Error::config(format!(
                    "{name} of 0 {unit} is not allowed: at least 1 is needed"
                )));
            }
        }
        let sizes = [("queue_bytes", self.queue_bytes), ("inbox_bytes", self.inbox_bytes)];
        let limits = at_least_1.iter().map(|&(name, value, _)| (name, value)).chain(sizes);
        for (name, value) in limits {
            if value > Self::LIMIT_MAX {
                return Err(Error::config(format!(
                    "{name} of {value} is not allowed: at most {} is",
                    Self::LIMIT_MAX
                )));
            }
        }
        let frame = self.max_message + FRAME_HEADER_MAX;
        for (name, bytes) in sizes {
            if bytes < frame {
                return Err(Error::config(format!(
                    "{name} of {bytes} bytes cannot hold one message of max_message = {}: at \
                     least {frame} is needed",
                    self.max_message
                )));
            }
        }
        for (name, wait) in [
            ("message_timeout", self.message_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("idle_timeout", self.idle_timeout),
            ("ping_interval", self.ping_interval),
            ("pong_timeout", self.pong_timeout),
            ("write_timeout", self.write_timeout),
            ("close_timeout", self.close_timeout),
        ] {
            if wait.is_zero() {
                return Err(Error::config(format!("{name} of 0 is not allowed")));
            }
            if wait > Self::WAIT_MAX {
                return Err(Error::config(format!(
                    "{name} of {} s is not allowed: at most a day is",
                    wait.as_secs()
                )));
            }
        }
        if self.drain > Self::WAIT_MAX {
            return Err(Error::config(format!(
                "drain of {} s is not allowed: at most a day is",
                self.drain.as_secs()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check() {
        Config::default().check().expect("defaults are valid");
    }
    #[test]
    fn each_impossible_value_is_named() {
        for (config, name) in [
            (Config::default().queue(0), "queue"),
            (Config::default().inbox(0), "inbox"),
            (Config::default().max_message(0), "max_message"),
            (Config::default().max_fragments(0), "max_fragments"),
            (Config::default().handshakes(0), "handshakes"),
            (Config::default().max_clients(Some(0)), "max_clients"),
            (Config::default().max_rooms(usize::MAX), "max_rooms"),
            (Config::default().max_message(512 * 1024), "queue_bytes"),
            (Config::default().inbox_bytes(1), "inbox_bytes"),
            (Config::default().ping_interval(Duration::ZERO), "ping_interval"),
            (Config::default().close_timeout(Duration::MAX), "close_timeout"),
            (Config::default().drain(Duration::MAX), "drain"),
        ] {
            let error = config.check().expect_err(name);
            assert!(error.to_string().starts_with(name), "{error}");
            assert!(error.is_config());
        }
    }
    #[test]
    fn overflow_words_read_back() {
        for word in Overflow::WORDS {
            assert_eq!(word.parse::<Overflow>().expect(word).to_string(), word);
        }
        let error = "drop".parse::<Overflow>().expect_err("no such word");
        assert_eq!(
            error.to_string(),
            "overflow \"drop\" is not one of disconnect, drop-newest, drop-oldest"
        );
    }
}
