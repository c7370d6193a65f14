//! What a hub counts.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sync::AtomicU64;

use http::{Method, Request, StatusCode};

macro_rules! stats {
    ($( $(#[$doc:meta])* $field:ident : $atomic:ty => $plain:ty; )*) => {
        /// The counters of a hub since it was made, and what it holds now.
        ///
        /// Every recipient of a message ends as exactly one of delivered, dropped or lost, so
        /// when no message is on its way, the three add up to the recipients.
        ///
        /// Counters only grow, from 0 at [`Hub::new`](crate::Hub::new); each is exact, and they are
        /// read one after another, so that two of them may differ by what happened in between.
        ///
        /// # Examples
        ///
        /// ```
        /// use hublet::{Admission, Config, Hub};
        ///
        /// # smol::block_on(async {
        /// # let (hub, manager) = Hub::new(Config::default())?;
        /// # smol::spawn(manager).detach();
        /// let mut ada = hub.subscribe(Admission::user("ada").room("news")).await?;
        /// let _bob = hub.subscribe(Admission::user("bob").room("news")).await?;
        /// hub.publish("news", "hello").await?;
        /// ada.next().await.expect("connected");
        ///
        /// // Ada has read it; for the other client it waits.
        /// let stats = hub.stats();
        /// assert_eq!((stats.recipients, stats.messages_delivered), (2, 1));
        /// # Ok::<_, hublet::Error>(())
        /// # }).expect("it works");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $( $(#[$doc])* pub $field: $plain, )*
            /// Bytes of memory held now on behalf of peers and publishers. A message counts once,
            /// however many queues share it.
            pub held_bytes: usize,
        }

        /// The counters behind [`Stats`]; relaxed, since no counter depends on another.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $( pub(crate) $field: $atomic, )*
            /// Refused requests, in the order of [`Requested`] and [`RefusalReason`].
            pub(crate) refused: [[AtomicU64; RefusalReason::NAMES.len()]; Requested::NAMES.len()],
            /// Clients in the registry that get compressed frames: publishers compress while there
            /// are any.
            pub(crate) deflating: AtomicUsize,
            /// Whether a peer has spoken TLS, which no port of ours does: the log warns once.
            pub(crate) has_seen_tls: AtomicBool,
            /// Whether a reader that waited has given up while the inbox was full: the manager looks
            /// for all that have.
            pub(crate) has_given_up: AtomicBool,
        }

        impl Counters {
            /// Each counter and gauge with its name.
            pub(crate) fn named(&self) -> impl Iterator<Item = (String, u64)> {
                [$( (stringify!($field).to_owned(), self.$field.load(Ordering::Relaxed) as u64), )*]
                    .into_iter()
            }

            /// Sets what another process has counted. The gauges count what is here now, and a name
            /// that is not known is one that this version does not count.
            pub(crate) fn restore(&self, counters: &[(String, u64)], refused: &[u64]) {
                for (name, count) in counters {
                    match name.as_str() {
                        "clients" | "rooms" | "connections" | "history_bytes" => {}
                        $( stringify!($field) => self.$field.store(*count as _, Ordering::Relaxed), )*
                        _ => {}
                    }
                }
                for (counter, count) in self.refused.iter().flatten().zip(refused) {
                    counter.store(*count, Ordering::Relaxed);
                }
            }

            pub(crate) fn read(&self, held_bytes: usize) -> Stats {
                Stats { $( $field: self.$field.load(Ordering::Relaxed), )* held_bytes }
            }
        }
    };
}

stats! {
    /// Clients in the registry now.
    clients: AtomicUsize => usize;
    /// Rooms that exist now: those with a member, and those that outlive their members.
    rooms: AtomicUsize => usize;
    /// Bytes of memory that the kept messages of all rooms take now.
    history_bytes: AtomicUsize => usize;
    /// Kept messages that were dropped because the history of all rooms was too large or memory was
    /// short, and not because newer ones of their room took their place.
    history_shed: AtomicU64 => u64;
    /// Times that a reader was told of a gap: at its begin, or when its room had dropped what it was
    /// to read next.
    gaps: AtomicU64 => u64;
    /// Open connections, handshakes included.
    connections: AtomicUsize => usize;
    /// Messages received from clients.
    messages_received: AtomicU64 => u64;
    /// Messages dispatched: broadcast, published or sent.
    messages_dispatched: AtomicU64 => u64;
    /// Messages that were compressed, each once for all its recipients.
    messages_compressed: AtomicU64 => u64;
    /// Recipients over all dispatched messages.
    recipients: AtomicU64 => u64;
    /// Recipients whose message was taken by the kernel to its last byte.
    messages_delivered: AtomicU64 => u64;
    /// Recipients whose message was dropped by the overflow policy.
    messages_dropped: AtomicU64 => u64;
    /// Recipients whose connection ended while the message waited.
    messages_lost: AtomicU64 => u64;
    /// Clients evicted because their queue overflowed, because their socket took nothing in time, or
    /// because memory was short.
    clients_evicted: AtomicU64 => u64;
    /// Evicted clients whose socket took nothing in time.
    clients_stuck: AtomicU64 => u64;
    /// Evicted clients that held the most of
    /// [`Config::max_memory`](crate::Config#structfield.max_memory) when memory was short.
    clients_shed: AtomicU64 => u64;
    /// Times that a client was read later because it had sent as much as its rate allows.
    rate_pauses: AtomicU64 => u64;
    /// Requests to publish that were refused because of
    /// [`Config::max_post_rate`](crate::Config#structfield.max_post_rate).
    posts_over_rate: AtomicU64 => u64;
    /// Upgrades that became clients.
    upgrades_accepted: AtomicU64 => u64;
    /// Requests of any kind that were refused, and requests that never became whole.
    upgrades_refused: AtomicU64 => u64;
    /// Bytes read from peers.
    bytes_received: AtomicU64 => u64;
    /// Bytes written to peers. A server-sent event counts as the frame of its message.
    bytes_sent: AtomicU64 => u64;
}

/// What a refused request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Requested {
    /// A WebSocket.
    WebSocket,
    /// A room as server-sent events.
    Events,
    /// To send a message.
    Publish,
    /// What a room keeps, or its next message.
    Read,
    /// Metrics, rooms or members, or what an administrator does.
    Admin,
    /// A page, an unknown path, or a request without a head that could be read.
    #[default]
    Other,
}

impl Requested {
    /// The names of the variants, in their order.
    pub(crate) const NAMES: [&str; 6] = ["websocket", "sse", "post", "get", "admin", "other"];

    /// The kind that a request stands for, if the routes of the binary are served.
    pub(crate) fn of(request: &Request<()>) -> Self {
        match request.uri().path().split('/').nth(1) {
            Some("ws") => Self::WebSocket,
            Some("sse") => Self::Events,
            Some("pub") if matches!(*request.method(), Method::GET | Method::HEAD) => Self::Read,
            Some("pub" | "user") => Self::Publish,
            Some("metrics" | "rooms" | "events" | "all") => Self::Admin,
            _ => Self::Other,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// The request is malformed or not supported: 400, 411, 413, 415, 426, 431, 501, 505.
    Malformed,
    /// The request has no valid token: 401.
    Unauthorized,
    /// The origin or the token does not allow the request: 403.
    Forbidden,
    /// There is no such route, or not for this method: 404, 405.
    NotFound,
    /// The request did not arrive in time: 408.
    Late,
    /// The Host is not allowed: 421.
    Host,
    /// A limit is reached: 429, 503.
    Full,
    /// The peer left before the request was complete.
    Left,
    /// Any other status.
    Other,
}

impl RefusalReason {
    /// The names of the variants, in their order.
    pub(crate) const NAMES: [&str; 9] = [
        "malformed",
        "unauthorized",
        "forbidden",
        "not_found",
        "late",
        "host",
        "full",
        "left",
        "other",
    ];

    /// The reason that a status stands for.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 411 | 413 | 415 | 426 | 431 | 501 | 505 => Self::Malformed,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 | 405 => Self::NotFound,
            408 => Self::Late,
            421 => Self::Host,
            429 | 503 => Self::Full,
            _ => Self::Other,
        }
    }
}

impl Counters {
    /// Counts a refused request.
    pub(crate) fn refuse(&self, requested: Requested, wrong: RefusalReason) {
        add(&self.upgrades_refused, 1);
        add(&self.refused[requested as usize][wrong as usize], 1);
    }
}

/// What the pushes of one delivery have written. It is added to the counters when this is dropped,
/// once for many clients: an atomic addition costs as much as the rest of a push.
#[derive(Debug)]
pub(crate) struct DeliveryCount<'a> {
    counters: &'a Counters,
    messages: Cell<u64>,
    bytes: Cell<u64>,
}

impl<'a> DeliveryCount<'a> {
    pub(crate) fn new(counters: &'a Counters) -> Self {
        Self { counters, messages: Cell::new(0), bytes: Cell::new(0) }
    }

    /// How many whole messages it has counted.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Counts whole messages, and their bytes.
    pub(crate) fn wrote(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() + messages as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

impl Drop for DeliveryCount<'_> {
    fn drop(&mut self) {
        add(&self.counters.messages_delivered, self.messages.get());
        add(&self.counters.bytes_sent, self.bytes.get());
    }
}

/// Adds `n` to a counter. Does not touch the counter if `n` is 0.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
