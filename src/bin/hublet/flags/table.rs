//! The table of flags: name, help and effect of each.

use crate::failure::Failure;
use crate::flags::options::Options;
use crate::flags::sets::Sets;

/// The prefix of a flag's name in the environment.
pub(super) const PREFIX: &str = "HUBLET_";

/// The flag that names a file of variables.
pub(super) const ENV_FILE: &str = "env-file";

/// Where a value comes from.
pub(super) struct Origin {
    /// The flag, the variable, or the line.
    pub(super) name: String,
    /// Whether it is the line of a file, whose content is not shown.
    pub(super) is_line: bool,
}

/// One flag.
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// The placeholder of its value in the help; empty for a switch, which has none.
    pub(super) value: &'static str,
    pub(super) help: &'static str,
    /// The option that it sets, which also determines how its value is parsed.
    pub(super) sets: Sets,
}

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        value: "ADDR",
        help: "address to listen on: 127.0.0.1:8080, 8080 for that port on loopback, :8080 for all \
               interfaces, [::1]:8080, port 0 for any free port, \
               unix:/run/hublet.sock,mode=0660,group=www-data (mode and group are optional); \
               sockets from systemd are served as well",
        sets: Sets::Listen,
    },
    #[cfg(feature = "tls")]
    Flag {
        name: "tls-cert",
        value: "FILE",
        help: "PEM file with a certificate and its chain: every TCP address of --listen speaks TLS, \
               except those with plain: before them, like plain:127.0.0.1:8080; read anew when the \
               file has changed",
        sets: Sets::TlsFile(|options| &mut options.tls_cert),
    },
    #[cfg(feature = "tls")]
    Flag {
        name: "tls-key",
        value: "FILE",
        help: "PEM file with the key of that certificate: ECDSA, Ed25519 or RSA",
        sets: Sets::TlsFile(|options| &mut options.tls_key),
    },
    Flag {
        name: "no-echo",
        value: "",
        help: "do not send a message back to its sender; a client gets its own messages with \
               ?echo=1",
        sets: Sets::NoEcho,
    },
    Flag {
        name: "no-page",
        value: "",
        help: "do not serve the page at / and the client module at /hublet.js",
        sets: Sets::NoPage,
    },
    Flag { name: "threads", value: "N", help: "executor threads", sets: Sets::Threads },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "origin of pages that may connect, besides the hub's own, like https://example.org, \
               app://-, file:// or null; * for any",
        sets: Sets::Origins,
    },
    Flag {
        name: "allow-host",
        value: "HOST",
        help: "Host header to accept besides IP addresses and localhost (others get 421 unless a \
               token is required to subscribe); * for any",
        sets: Sets::Hosts,
    },
    Flag {
        name: "trusted-proxy",
        value: "ADDR",
        help: "proxy that may set X-Forwarded-For: an address, a network like 10.0.0.0/8, or unix",
        sets: Sets::Proxies,
    },
    Flag {
        name: "protocol",
        value: "NAME",
        help: "WebSocket subprotocol that the hub may answer, besides hublet.token; Chromium \
               gives up if the hub answers none of those that a page offers",
        sets: Sets::Protocols,
    },
    Flag {
        name: "token",
        value: "TOKEN",
        help: "token required to subscribe, and to publish unless --publish-token is set; sent as \
               Authorization: Bearer, as ?token=, or as the subprotocols hublet.token and the \
               token",
        sets: Sets::Secret(|secrets| &mut secrets.token),
    },
    Flag {
        name: "token-file",
        value: "FILE",
        help: "file with that token; files and variables do not show in the list of processes",
        sets: Sets::SecretFile(|secrets| &mut secrets.token),
    },
    Flag {
        name: "publish-token",
        value: "TOKEN",
        help: "token required to publish, by POST and by WebSocket; it also allows to subscribe",
        sets: Sets::Secret(|secrets| &mut secrets.publish_token),
    },
    Flag {
        name: "publish-token-file",
        value: "FILE",
        help: "file with that token",
        sets: Sets::SecretFile(|secrets| &mut secrets.publish_token),
    },
    Flag {
        name: "admin-token",
        value: "TOKEN",
        help: "token required for /metrics, /rooms and /events, which answer loopback only without \
               it, and for DELETE and POST /all, which need it always",
        sets: Sets::Secret(|secrets| &mut secrets.admin_token),
    },
    Flag {
        name: "admin-token-file",
        value: "FILE",
        help: "file with that token",
        sets: Sets::SecretFile(|secrets| &mut secrets.admin_token),
    },
    Flag {
        name: "jwt-secret",
        value: "KEY",
        help: "key of JSON Web Tokens (HS256): sub is the user, exp, nbf and aud are checked, \
               rooms and publish list the rooms to subscribe (default: all) and to publish to (default: \
               none)",
        sets: Sets::Secret(|secrets| &mut secrets.jwt_secret),
    },
    Flag {
        name: "jwt-secret-file",
        value: "FILE",
        help: "file with that key",
        sets: Sets::SecretFile(|secrets| &mut secrets.jwt_secret),
    },
    Flag {
        name: "jwt-audience",
        value: "NAME",
        help: "name that the claim aud of a JSON Web Token must have; without this flag a token \
               with aud is refused",
        sets: Sets::Audience,
    },
    Flag {
        name: "max-clients",
        value: "N",
        help: "clients at once; more get 503 (default: the limit on file descriptors less 64)",
        sets: Sets::SomeCount(|config| &mut config.max_clients),
    },
    Flag {
        name: "max-clients-per-ip",
        value: "N",
        help: "clients at once from one IPv4 address or IPv6 /64; more get 503",
        sets: Sets::SomeCount(|config| &mut config.max_clients_per_ip),
    },
    Flag {
        name: "max-rate",
        value: "N",
        help: "messages a second from one WebSocket, and as many at once; one that sends faster is \
               read slower (default: no limit)",
        sets: Sets::SomeCount(|config| &mut config.max_rate),
    },
    Flag {
        name: "max-rate-bytes",
        value: "BYTES",
        help: "the same in bytes; a compressed message counts with its inflated size",
        sets: Sets::SomeBytes(|config| &mut config.max_rate_bytes),
    },
    Flag {
        name: "max-post-rate",
        value: "N",
        help: "messages a second by POST from one IPv4 address or IPv6 /64, and as many at once; more \
               get 429; the publish and the admin token have no limit, nor has a WebSocket that shows \
               one",
        sets: Sets::SomeCount(|config| &mut config.max_post_rate),
    },
    Flag {
        name: "max-rooms",
        value: "N",
        help: "rooms at once; more get 503",
        sets: Sets::Count(|config| &mut config.max_rooms),
    },
    Flag {
        name: "max-message",
        value: "BYTES",
        help: "longest message; a longer one closes its client with 1009",
        sets: Sets::MaxMessage,
    },
    Flag {
        name: "max-memory",
        value: "BYTES",
        help: "memory for the whole process and its sockets, like 32m; the limits on clients and \
               inbox follow from it, and the clients that hold the most are closed with 1013 \
               before it is reached",
        sets: Sets::MaxMemory,
    },
    Flag {
        name: "max-fragments",
        value: "N",
        help: "frames of one message; more close the client with 1008",
        sets: Sets::Count(|config| &mut config.max_fragments),
    },
    Flag {
        name: "redis",
        value: "URL",
        help: "Redis or Valkey server that several hubs share: redis://[user:password@]host[:port][/db] \
               or unix:/path; a message reaches the room on each of them",
        sets: Sets::Redis,
    },
    Flag {
        name: "redis-file",
        value: "FILE",
        help: "file with that URL; files and variables do not show in the list of processes",
        sets: Sets::RedisFile,
    },
    Flag {
        name: "redis-prefix",
        value: "NAME",
        help: "prefix of the names of channels and keys; hubs with the same prefix share their rooms",
        sets: Sets::RedisPrefix,
    },
    Flag {
        name: "deflate",
        value: "BYTES",
        help: "compress messages of at least so many bytes, once for all clients that negotiate \
               permessage-deflate, like 200 (default: no compression)",
        sets: Sets::SomeBytes(|config| &mut config.deflate),
    },
    Flag {
        name: "queue",
        value: "N",
        help: "messages queued for one client",
        sets: Sets::Count(|config| &mut config.queue),
    },
    Flag {
        name: "queue-bytes",
        value: "BYTES",
        help: "bytes queued for one client; unless given, at least two messages of --max-message",
        sets: Sets::QueueBytes,
    },
    Flag {
        name: "overflow",
        value: "POLICY",
        help: "what to do when the queue of a client is full: disconnect (4108), drop-newest, \
               drop-oldest, latest (only the newest message waits), replay (the client goes on with \
               what --history keeps)",
        sets: Sets::Overflow,
    },
    Flag {
        name: "history",
        value: "[PATTERN=]N",
        help: "messages that each room keeps for readers that come back with ?since=; \
               PATTERN=N is for one room or, with * at the end, for all whose name begins so, and the \
               longest that matches wins (default: none)",
        sets: Sets::History,
    },
    Flag {
        name: "room",
        value: "PATTERN:option=value,...",
        help: "terms of the rooms of a pattern, as in --history: history=N, overflow=POLICY, queue=N, \
               queue-bytes=BYTES, max-message=BYTES, rate=N, rate-bytes=BYTES for their clients, and \
               publish=backend, so that only the publish and the admin token may publish; the longest \
               pattern that names an option decides it",
        sets: Sets::Rooms,
    },
    Flag {
        name: "history-bytes",
        value: "BYTES",
        help: "bytes that one room keeps",
        sets: Sets::Bytes(|config| &mut config.history_bytes),
    },
    Flag {
        name: "history-age",
        value: "TIME",
        help: "time that a room without members keeps its messages, or its count for readers with \
               ?since=, after its last message or member; 0 for as long as memory allows",
        sets: Sets::HistoryAge,
    },
    Flag {
        name: "history-memory",
        value: "BYTES",
        help: "memory for the messages that all rooms keep; with --max-memory at most a quarter of \
               what is for messages; past it the largest room loses its oldest first",
        sets: Sets::Bytes(|config| &mut config.history_memory),
    },
    Flag {
        name: "handshake-timeout",
        value: "TIME",
        help: "time for a handshake or the head of a request, and the longest pause in a body",
        sets: Sets::Time(|config| &mut config.handshake_timeout),
    },
    Flag {
        name: "ping-interval",
        value: "TIME",
        help: "silence after which a client gets a ping",
        sets: Sets::Time(|config| &mut config.ping_interval),
    },
    Flag {
        name: "pong-timeout",
        value: "TIME",
        help: "time to answer a ping; then the connection counts as lost",
        sets: Sets::Time(|config| &mut config.pong_timeout),
    },
    Flag {
        name: "write-timeout",
        value: "TIME",
        help: "time without progress in writing; then the client counts as slow",
        sets: Sets::Time(|config| &mut config.write_timeout),
    },
    Flag {
        name: "close-timeout",
        value: "TIME",
        help: "time to answer a close frame",
        sets: Sets::Time(|config| &mut config.close_timeout),
    },
    Flag {
        name: "drain",
        value: "TIME",
        help: "longest time over which a shutdown spreads its close frames (1012); the time is 2.5 ms \
               for each client",
        sets: Sets::Drain,
    },
    Flag {
        name: "stdin",
        value: "ROOM",
        help: "publish each line of standard input to this room; at its end the hub shuts down",
        sets: Sets::Room(|options| &mut options.stdin),
    },
    Flag {
        name: "stdout",
        value: "ROOM",
        help: "print each message of this room as a line, a binary one in base64; the hub shuts \
               down when the reader is gone",
        sets: Sets::Room(|options| &mut options.stdout),
    },
    Flag {
        name: ENV_FILE,
        value: "FILE",
        help: "file of variables, HUBLET_NAME=VALUE a line; it wins over the environment, a flag \
               wins over it; SIGUSR2 reads it anew",
        sets: Sets::EnvFile,
    },
    Flag { name: "log", value: "LEVEL", help: "error, warn, info or debug", sets: Sets::Log },
];

impl Flag {
    /// The flag's name in the environment.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    pub(super) fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Sets a value that came from `origin`, for example `--queue` or `HUBLET_QUEUE`.
    pub(super) fn set(
        &self,
        options: &mut Options,
        origin: &Origin,
        text: &str,
    ) -> Result<(), Failure> {
        self.sets.set(options, text).map_err(|allowed| {
            // A secret is not printed, not even an invalid one.
            let Origin { name: origin, is_line } = origin;
            let given = if *is_line {
                format!("a value for {} that is not allowed", self.variable())
            } else if matches!(self.sets, Sets::Secret(_) | Sets::Redis) {
                "a secret".to_owned()
            } else {
                format!("{text:?}")
            };
            Failure::usage(format!("{origin} was given {given}; allowed is {allowed}"))
        })
    }
}
