//! What a hub counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

macro_rules! stats {
    ($( $(#[$doc:meta])* $field:ident : $atomic:ty => $plain:ty; )*) => {
        /// What a hub has counted since it was made, and what it holds now.
        ///
        /// Every recipient of a message ends as exactly one of delivered, dropped or lost, so
        /// once nothing is on its way the three add up to the recipients.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $( $(#[$doc])* pub $field: $plain, )*
            /// Bytes of memory held now on behalf of peers and publishers, each message once however
            /// many queues share it.
            pub held_bytes: usize,
        }

        /// The counters behind [`Stats`]; relaxed, since each stands for itself.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $( pub(crate) $field: $atomic, )*
        }

        impl Counters {
            pub(crate) fn read(&self, held_bytes: usize) -> Stats {
                Stats { $( $field: self.$field.load(Ordering::Relaxed), )* held_bytes }
            }
        }
    };
}

stats! {
    /// Clients in the registry now.
    clients: AtomicUsize => usize;
    /// Rooms that have a member now.
    rooms: AtomicUsize => usize;
    /// Connections accepted that are not yet gone, handshakes included.
    connections: AtomicUsize => usize;
    /// Messages received from clients.
    messages_received: AtomicU64 => u64;
    /// Messages dispatched: broadcast, published or sent.
    messages_dispatched: AtomicU64 => u64;
    /// Recipients over all dispatched messages.
    recipients: AtomicU64 => u64;
    /// Of the recipients: those whose message was taken by the kernel to its last byte.
    messages_delivered: AtomicU64 => u64;
    /// Of the recipients: those whose message was dropped by the overflow policy.
    messages_dropped: AtomicU64 => u64;
    /// Of the recipients: those whose connection ended while the message waited.
    messages_lost: AtomicU64 => u64;
    /// Clients evicted because their queue overflowed or their socket took nothing in time.
    clients_evicted: AtomicU64 => u64;
    /// Upgrades that became clients.
    upgrades_accepted: AtomicU64 => u64;
    /// Requests that were refused before an upgrade, failed handshakes included.
    upgrades_refused: AtomicU64 => u64;
}

/// Adds `n` to a counter, or nothing at all for 0.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
