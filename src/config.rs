//! Every limit, timeout and default in one place. `Config::check` checks the relations between
//! them.

use std::time::Duration;

use crate::error::Error;
use crate::frame::FRAME_HEADER_MAX;
use crate::history_rule::{HistoryRule, MESSAGES_MAX};
use crate::network::Network;
use crate::overflow::Overflow;
use crate::redis_config::Redis;

/// A page that the hub serves unchanged, to GET and HEAD.
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
    /// Further headers, names and values, in which [`SOCKETS`](Self::SOCKETS) is filled in.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body of the response.
    pub body: &'static str,
}

impl Page {
    /// Stands in the value of a header for the WebSockets of the host that the page was asked for:
    /// in `connect-src 'self'{sockets}` for ` ws://hub.example wss://hub.example`.
    ///
    /// Safari before 15.4 does not take `'self'` for them. It stands for nothing where the host is
    /// an IPv6 address, which no policy can name. It is filled in once in a value.
    pub const SOCKETS: &'static str = "{sockets}";
}

macro_rules! config {
    ($( $(#[$doc:meta])* $field:ident : $type:ty = $default:expr; )*) => {
        /// The limits and timeouts of a hub, each with its default.
        ///
        /// Every field has a setter of the same name, so that a configuration reads as one
        /// expression: `Config::default().queue(128)`. It cannot be written as a struct, since later
        /// versions have more fields. [`Hub::new`](crate::Hub::new) checks it.
        ///
        /// - **Queues**: [`queue`](Self#structfield.queue),
        ///   [`queue_bytes`](Self#structfield.queue_bytes),
        ///   [`overflow`](Self#structfield.overflow), [`inbox`](Self#structfield.inbox),
        ///   [`inbox_bytes`](Self#structfield.inbox_bytes)
        /// - **History**: [`history`](Self#structfield.history),
        ///   [`history_bytes`](Self#structfield.history_bytes),
        ///   [`history_age`](Self#structfield.history_age),
        ///   [`history_memory`](Self#structfield.history_memory)
        /// - **Limits**: [`max_message`](Self#structfield.max_message),
        ///   [`max_fragments`](Self#structfield.max_fragments), [`deflate`](Self#structfield.deflate),
        ///   [`max_clients`](Self#structfield.max_clients),
        ///   [`max_clients_per_ip`](Self#structfield.max_clients_per_ip),
        ///   [`max_memory`](Self#structfield.max_memory),
        ///   [`max_rooms`](Self#structfield.max_rooms),
        ///   [`max_rooms_per_client`](Self#structfield.max_rooms_per_client),
        ///   [`handshakes`](Self#structfield.handshakes)
        /// - **Rates**: [`max_rate`](Self#structfield.max_rate),
        ///   [`max_rate_bytes`](Self#structfield.max_rate_bytes),
        ///   [`max_post_rate`](Self#structfield.max_post_rate)
        /// - **Waits**: [`handshake_timeout`](Self#structfield.handshake_timeout),
        ///   [`message_timeout`](Self#structfield.message_timeout),
        ///   [`ping_interval`](Self#structfield.ping_interval),
        ///   [`pong_timeout`](Self#structfield.pong_timeout),
        ///   [`write_timeout`](Self#structfield.write_timeout),
        ///   [`close_timeout`](Self#structfield.close_timeout),
        ///   [`idle_timeout`](Self#structfield.idle_timeout), [`drain`](Self#structfield.drain)
        /// - **Access**: [`origins`](Self#structfield.origins), [`hosts`](Self#structfield.hosts),
        ///   [`trusted_proxies`](Self#structfield.trusted_proxies)
        /// - **Serving**: [`http`](Self#structfield.http), [`pages`](Self#structfield.pages),
        ///   [`redis`](Self#structfield.redis)
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

        #[cfg(test)]
        const FIELDS: &[&str] = &[$( stringify!($field), )*];

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
    /// Messages that may wait for one client. Default 64: limits of 10 to 32 evict healthy clients
    /// on small boards. A client that is behind costs about 800 bytes, and 16 bytes for each
    /// message.
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
    /// The longest message and the longest frame, in bytes of payload. Default 64 KiB. A longer
    /// one closes its client with 1009.
    max_message: usize = Self::MAX_MESSAGE;
    /// Frames that one message may consist of; empty frames count. Default 1,024. More close the
    /// client with 1008.
    max_fragments: usize = Self::MAX_FRAGMENTS;
    /// Bytes of payload from which a message is compressed for the clients that negotiate
    /// `permessage-deflate` (RFC 7692), if that makes it shorter. Default `None`: the hub offers no
    /// compression. At least 1; 200 is a good start.
    ///
    /// A message is compressed once, by the task that publishes it, and all these clients share the
    /// frame. Nothing is kept for a client: each thread that compresses or inflates takes up to
    /// 392 KiB. What clients send compressed counts as long as it becomes. Only clients whose
    /// requests the hub reads negotiate; [`Hub::upgrade`](crate::Hub::upgrade) does not.
    deflate: Option<usize> = None;
    /// The time a peer has to finish a message it began, or the body of a request. Default 30 s;
    /// then the hub closes the client with 1008, or answers 408.
    message_timeout: Duration = Self::MESSAGE_TIMEOUT;
    /// The time for a handshake, or for the head of any other request and its hooks, however slowly
    /// the bytes arrive. Also how long a body may make no progress. Default 5 s; then 408. A body that
    /// takes longer than this gives up its slot among the
    /// [`handshakes`](Self#structfield.handshakes), and goes on until a client needs its permit.
    handshake_timeout: Duration = Self::HANDSHAKE_TIMEOUT;
    /// How long a connection may wait for its next request. Default 75 s: longer than the 60 s for
    /// which proxies keep connections. The hub closes it sooner if the limit on clients leaves no
    /// room for a new client.
    idle_timeout: Duration = Self::IDLE_TIMEOUT;
    /// Handshakes in progress at once. Default 256. Beyond it the accept loop waits, and a peer
    /// that has sent nothing for a second loses its slot.
    handshakes: usize = Self::HANDSHAKES;
    /// The silence of a client after which the hub pings it, give or take a tenth. Default 25 s:
    /// proxies cut idle connections at 60 s.
    ping_interval: Duration = Self::PING_INTERVAL;
    /// How long a ping may stay unanswered. Default 20 s; then the connection counts as lost. On
    /// Linux a longer value has a limit: the kernel ends a TCP connection of a
    /// [`Listener`](crate::Listener) if the peer's host acknowledges no written byte for 20 s.
    pong_timeout: Duration = Self::PONG_TIMEOUT;
    /// How long writing may make no progress while bytes wait to be written. Default 10 s; then the
    /// client counts as slow. The connection of a response is closed after four times as long, and
    /// after 300 s in all; past `write_timeout` it ends if a client needs its permit. On Linux the
    /// kernel's 20 s apply too, as for [`pong_timeout`](Self#structfield.pong_timeout), but not to a
    /// response of more than 16 KiB.
    write_timeout: Duration = Self::WRITE_TIMEOUT;
    /// How long a peer has to answer a close frame, or to close behind the last response or event.
    /// Default 2 s. Where closing destroys what the peer has not read, under
    /// [`max_memory`](Self#structfield.max_memory) or on a stream of the embedding program, a last
    /// response has 0.5 s more for each KiB, at most 32 s.
    close_timeout: Duration = Self::CLOSE_TIMEOUT;
    /// Clients that may be connected. Default `None`: the soft limit on file descriptors when the
    /// hub is made, less 64; 16,384 on systems without such a limit. Beyond it the hub answers 503
    /// with `Retry-After`.
    max_clients: Option<usize> = None;
    /// Clients that may be connected from one address; an IPv6 address counts by its /64, a Unix
    /// socket is exempt. Default `None`: behind a proxy every client has the proxy's address.
    max_clients_per_ip: Option<usize> = None;
    /// Messages a second that a WebSocket may send; as many may come at once. Default `None`: no
    /// limit. A client that sends faster is read slower: TCP makes it wait. It is not closed for that.
    /// [`Admission::rate`](crate::Admission::rate) sets another rate for one client.
    max_rate: Option<usize> = None;
    /// Bytes of payload a second that a WebSocket may send, as [`max_rate`](Self#structfield.max_rate);
    /// of a compressed message those that it becomes. Default `None`. A message is counted when it has
    /// come whole, so the longest message may always come.
    max_rate_bytes: Option<usize> = None;
    /// Messages a second that one address may publish by request; as many may come at once. Default
    /// `None`: no limit. Beyond it the hub answers 429 with `Retry-After`, and reads a stream of lines
    /// slower. Addresses count as for
    /// [`max_clients_per_ip`](Self#structfield.max_clients_per_ip). As many addresses are remembered
    /// as clients may be connected.
    /// [`Handler::is_rate_limited`](crate::Handler::is_rate_limited) exempts requests.
    max_post_rate: Option<usize> = None;
    /// The memory ceiling of the whole process, in bytes. Default `None`.
    ///
    /// A ceiling lowers the limits on clients and on the inbox to what fits
    /// ([`Sizing`](crate::Sizing) has the arithmetic), and makes socket buffers small. Above 90 %
    /// the hub admits no client and reads no new message. Above 95 % it evicts the clients that pin
    /// the most memory, with 1013.
    ///
    /// A program that embeds the hub subtracts its own memory before it sets this. The hub does not
    /// know what the program's hooks hold, nor the buffers of streams that the program passes in.
    max_memory: Option<usize> = None;
    /// Rooms that may exist. Default 1,024. Beyond it the hub answers a new client 503 and refuses
    /// a join.
    max_rooms: usize = Self::MAX_ROOMS;
    /// Rooms one client may be in. Default 8.
    max_rooms_per_client: usize = Self::MAX_ROOMS_PER_CLIENT;
    /// Origins that may connect besides the hub's own, as clients send them (`https://example.org`,
    /// `app://-`; a path has no effect), or `*` for any. Pages of origins that are listed by name
    /// may send credentials, except `null` and `file://`, which any page may have. Default none.
    /// Checked before any hook.
    origins: Vec<String> = Vec::new();
    /// Host names that the hub answers to, with or without a port, besides addresses and
    /// `localhost`. `*`, the default, allows any. A list without `*` protects against DNS
    /// rebinding: the hub answers 421 to requests for other names. Checked before any hook.
    hosts: Vec<String> = vec!["*".to_owned()];
    /// Proxies whose `X-Forwarded-For` the hub believes: hooks, the limit per address and the log
    /// see the client's address instead of the proxy's. Default none.
    trusted_proxies: Vec<Network> = Vec::new();
    /// Whether the hub serves the routes of the binary: `/ws`, `/sse` and `/pub`, each also with a
    /// `/{room}`, `/user/{user}`, `/rooms`, `/rooms/{room}`, `/rooms/{room}/{client}`, `/all`,
    /// `/metrics`, `/health` and the [`pages`](Self::pages). The hooks
    /// [`on_upgrade`](crate::Handler::on_upgrade), [`on_publish`](crate::Handler::on_publish),
    /// [`on_inspect`](crate::Handler::on_inspect) and [`on_act`](crate::Handler::on_act) decide which
    /// requests are allowed. Default false: an upgrade on any path reaches the handler. Either way
    /// [`on_request`](crate::Handler::on_request) answers anything else, by default 404.
    ///
    /// A stream of events that is asked for with `?probe=1` has its heartbeats as events named
    /// `ping`, with the ping interval in seconds: a page cannot see the comments of the others.
    http: bool = false;
    /// Pages that the hub serves unchanged if [`http`](Self#structfield.http) is on. Default none.
    pages: Vec<Page> = Vec::new();
    /// The Redis or Valkey server that this hub shares with others, so that a message reaches the
    /// room on each of them. Default `None`.
    ///
    /// Run [`Hub::connect_redis`](crate::Hub::connect_redis) beside the manager. While there is no
    /// connection, the hub admits no client and publishes nothing. A
    /// [`history`](Self#structfield.history) is kept by the server, so that all hubs share it.
    redis: Option<Redis> = None;
    /// How many messages a room keeps for readers that come with [`since`](crate::Admission::since)
    /// or are behind; of the rules that match its name the longest counts. Default none. A message
    /// to such a room makes it, also without a member.
    ///
    /// A kept message is the one that the queues share. Beside it the ring takes 24 bytes.
    history: Vec<HistoryRule> = Vec::new();
    /// Bytes of frames that one room keeps. Default 256 KiB; at most
    /// [`history_memory`](Self#structfield.history_memory) counts.
    history_bytes: usize = Self::HISTORY_BYTES;
    /// How long a room that keeps messages, or that has had a reader with
    /// [`since`](crate::Admission::since), is there after its last message or its last member,
    /// whichever was later. Default an hour; 0 for as long as memory allows. Then the room is
    /// forgotten whole: its messages do not expire singly.
    history_age: Duration = Self::HISTORY_AGE;
    /// Bytes of memory that the kept messages of all rooms take. Default 4 MiB; under a
    /// [`max_memory`](Self#structfield.max_memory) at most a quarter of what is left for messages.
    /// Past it, and when memory is short, the room that holds most loses its oldest message first.
    history_memory: usize = Self::HISTORY_MEMORY;
    /// The longest time over which a drain spreads its close frames; it is 2.5 ms for each client.
    /// Default 5 s.
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
    /// Prefixes of rooms that all clients of a hub hear together: 64. A client that wants another one is
    /// refused ([`Admission::prefix`](crate::Admission::prefix)). Each takes less than 500 bytes, and
    /// each publish compares the name of its room with all of them.
    pub const MAX_PREFIXES: usize = 64;
    /// Default of [`history_bytes`](Self#structfield.history_bytes): 256 KiB.
    pub const HISTORY_BYTES: usize = 256 * 1024;
    /// Default of [`history_age`](Self#structfield.history_age): an hour.
    pub const HISTORY_AGE: Duration = Duration::from_secs(60 * 60);
    /// Default of [`history_memory`](Self#structfield.history_memory): 4 MiB.
    pub const HISTORY_MEMORY: usize = 4 * 1024 * 1024;
    /// Default of [`drain`](Self#structfield.drain): 5 s.
    pub const DRAIN: Duration = Duration::from_secs(5);

    /// The shortest interval of [`Admission::every`](crate::Admission::every): 100 ms, three ticks of the
    /// hub's timers.
    pub const EVERY_MIN: Duration = Duration::from_millis(100);

    /// The longest interval of [`Admission::every`](crate::Admission::every): an hour, for which the hub
    /// keeps one message for the client.
    pub const EVERY_MAX: Duration = Duration::from_secs(60 * 60);

    /// The largest limit that is allowed: 2^30. It keeps sums of limits within 32 bits.
    pub const LIMIT_MAX: usize = MESSAGES_MAX;
    /// The longest timeout that is allowed: a day. The hub rounds the timeouts of peers up, by at
    /// most 62.5 ms, so that it wakes clients together.
    pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks every value and every relation between values.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_numbers()?;
        self.check_waits()?;
        self.history.iter().try_for_each(HistoryRule::check)?;
        if self.overflow == Overflow::Replay && self.history.iter().all(|rule| rule.messages == 0) {
            return Err(Error::config(
                "overflow \"replay\" needs a history to replay: none is kept",
            ));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Error> {
        let at_least_1 = [
            ("queue", self.queue, "messages"),
            ("inbox", self.inbox, "commands"),
            ("max_message", self.max_message, "bytes"),
            ("max_fragments", self.max_fragments, "frames"),
            ("handshakes", self.handshakes, "handshakes"),
            ("deflate", self.deflate.unwrap_or(1), "bytes"),
            ("max_clients", self.max_clients.unwrap_or(1), "clients"),
            ("max_clients_per_ip", self.max_clients_per_ip.unwrap_or(1), "clients"),
            ("max_rate", self.max_rate.unwrap_or(1), "messages"),
            ("max_rate_bytes", self.max_rate_bytes.unwrap_or(1), "bytes"),
            ("max_post_rate", self.max_post_rate.unwrap_or(1), "messages"),
            ("max_rooms", self.max_rooms, "rooms"),
            ("max_rooms_per_client", self.max_rooms_per_client, "rooms"),
            ("history_bytes", self.history_bytes, "bytes"),
            ("history_memory", self.history_memory, "bytes"),
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
        Ok(())
    }

    fn check_waits(&self) -> Result<(), Error> {
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
    fn every_field_is_in_one_group_of_the_documentation() {
        let source = include_str!("config.rs");
        let groups =
            source.split("- **Queues**").nth(1).and_then(|rest| rest.split("# Examples").next());
        let groups = groups.expect("the groups");
        for field in FIELDS {
            let link = format!("[`{field}`](Self#structfield.{field})");
            assert_eq!(groups.matches(&link).count(), 1, "{field}");
        }
    }
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
            (Config::default().deflate(Some(0)), "deflate"),
            (Config::default().max_rate(Some(0)), "max_rate"),
            (Config::default().max_rate_bytes(Some(0)), "max_rate_bytes"),
            (Config::default().max_post_rate(Some(usize::MAX)), "max_post_rate"),
            (Config::default().max_rooms(usize::MAX), "max_rooms"),
            (Config::default().max_message(512 * 1024), "queue_bytes"),
            (Config::default().inbox_bytes(1), "inbox_bytes"),
            (Config::default().ping_interval(Duration::ZERO), "ping_interval"),
            (Config::default().close_timeout(Duration::MAX), "close_timeout"),
            (Config::default().drain(Duration::MAX), "drain"),
            (Config::default().history(vec![HistoryRule::new("a*b", 1)]), "history"),
            (Config::default().history(vec![HistoryRule::new("", 1)]), "history"),
            (Config::default().history(vec![HistoryRule::new("**", 1)]), "history"),
            (Config::default().history(vec![HistoryRule::new("a", usize::MAX)]), "history"),
            (Config::default().overflow(Overflow::Replay), "overflow"),
            (
                Config::default()
                    .overflow(Overflow::Replay)
                    .history(vec![HistoryRule::new("*", 0)]),
                "overflow",
            ),
        ] {
            let error = config.check().expect_err(name);
            assert!(error.to_string().starts_with(name), "{error}");
            assert!(error.is_config());
        }
    }
}
