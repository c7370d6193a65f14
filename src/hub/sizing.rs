//! The arithmetic of the ceiling: what `max_memory` is spent on.
//!
//! Everything here is worst case: a connection sets aside what it can come to at its limits, its
//! socket buffers in the kernel included, so that what remains is for messages alone.

use std::fmt;

use crate::config::Config;
use crate::error::Error;
use crate::frame::FRAME_HEADER_MAX;
use crate::hub::backlog::backlog_size;
use crate::memory::budget::{MemoryBudget, Watermarks, allocation};

/// Bytes of what a connection has only while its peer sends or its end is on the way: the state of an
/// unfinished message, control frames that wait, and a margin. The message itself is not included.
const BUFFERS: usize = allocation(1024) + allocation(3 * 1024) + allocation(1024);

/// Bytes of a name of 128 bytes in an index, with its list of members and its count of messages. What
/// the room keeps is charged where it is kept.
pub(crate) const NAME: usize = allocation(128 + 16) + 2 * 72 + allocation(16);

/// Bytes of a client's membership in a room: its own entry, and its index in the list of members,
/// each in a list that doubles.
const MEMBERSHIP: usize = 2 * (24 + 4);

/// Bytes that the kernel takes for a connection that is not accepted yet.
const KERNEL: usize = 4096;

/// Bytes of a command's slot in the inbox.
const COMMAND: usize = 128;

/// Bytes of a request head of 8 KiB with 64 headers, read and parsed.
const HEAD: usize = allocation(16 * 1024) + allocation(8 * 1024);

/// What the kernel holds beyond the size of a socket's two buffers: one packet that came before
/// the limit was looked at in each, and the page that it takes ahead.
const OVERHANG: usize = 8 * 1024;

/// The smallest send buffer that the kernel gives.
const SEND_MIN: usize = 4608;

/// The smallest and the largest buffer that a socket is given, in bytes as the kernel counts them.
const BUFFER_MIN: usize = 4 * 1024;

const BUFFER_MAX: usize = 64 * 1024;

/// The buffer that a socket is given where the number of clients follows from the ceiling: a
/// 4,096th of it, within these.
const BUFFER_DEFAULT_MAX: usize = 8 * 1024;

/// Handshakes at once at least.
const HANDSHAKES_MIN: usize = 2;

/// What a ceiling is spent on: [`Hub::sizing`](crate::Hub::sizing), and what the binary logs at
/// its start.
///
/// `max_memory` = `start` + (`max_clients` + `handshakes`) x `connection` + [`messages`].
/// A connection is counted when it is accepted, so with fewer of them more is left for messages.
///
/// [`messages`]: Self::messages
///
/// # Examples
///
/// ```
/// use hublet::{Config, Hub};
///
/// let config = Config::default().max_memory(Some(32 << 20));
/// let (hub, _manager) = Hub::new(config).expect("enough");
/// let sizing = hub.sizing().expect("there is a ceiling");
/// let connections = sizing.max_clients + sizing.handshakes;
/// let spent = sizing.start + connections * sizing.connection + sizing.messages();
/// assert_eq!(spent, 32 << 20);
///
/// let error = Hub::new(Config::default().max_memory(Some(1 << 20))).err().expect("too little");
/// assert!(error.is_config());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizing {
    /// The ceiling, in bytes.
    pub max_memory: usize,
    /// Bytes before the first connection: the process, the inbox, and connections that are not
    /// accepted yet.
    pub start: usize,
    /// Bytes that one connection sets aside: an idle client, the channel it needs while it is
    /// behind, and its full socket buffers.
    pub connection: usize,
    /// Clients at once: what is configured, or less if no more fit.
    pub max_clients: usize,
    /// Handshakes at once: what is configured, or less if no more fit.
    pub handshakes: usize,
    /// Connections that wait to be accepted, for each listener.
    pub backlog: usize,
    /// Bytes of each of a socket's two buffers, as the kernel counts them.
    pub socket_buffer: usize,
    /// Bytes of messages that may wait for the manager.
    pub inbox_bytes: usize,
}

impl Sizing {
    /// Bytes that the binary takes before its first client, with a thread's read buffer, the spare
    /// one of a message and that of a run: its pages, the kernel's tables for them, and what an
    /// allocator keeps after a storm.
    ///
    /// `cargo bench --bench ceiling` measures it in a cgroup, and fails when it is more.
    pub const START: usize = 1_900_000;

    /// Bytes of an idle client without what is in its buffers: in the process its task, its queue
    /// and its entry in the registry, in the kernel its socket, its file and its entry in epoll.
    ///
    /// `cargo bench --bench ceiling` measures it in a cgroup, and fails when it is more.
    pub const IDLE_CLIENT: usize = 6_600;

    /// Derives the sizes; `None` without a ceiling. `fds` is how many clients the limit on file
    /// descriptors lets in.
    pub(crate) fn of(config: &Config, fds: usize) -> Result<Option<Self>, Error> {
        let Some(max_memory) = config.max_memory else { return Ok(None) };
        let least = least(config);
        // What cannot be reckoned in an integer cannot be had either.
        if max_memory < least || least == usize::MAX {
            return Err(Error::config(format!(
                "max_memory of {max_memory} bytes cannot hold one client with max_message = {}: at \
                 least {least} is needed",
                config.max_message
            )));
        }
        let share = share(max_memory) - fixed(config);
        let fits = |bytes: usize, each: usize| bytes / each;
        let default = (max_memory / 4096).clamp(BUFFER_MIN, BUFFER_DEFAULT_MAX);
        let smallest = if config.max_clients.is_some() { BUFFER_MIN } else { default };
        // A quarter of the share is for connections that are not clients yet.
        let handshakes = fits(share / 4, handshake(config, smallest))
            .clamp(HANDSHAKES_MIN.min(config.handshakes), config.handshakes);
        let for_clients = share - handshakes * handshake(config, smallest);
        let most = fits(for_clients, connection(config, smallest)).max(1);
        let max_clients = config.max_clients.unwrap_or(fds).min(most);
        // What is left by a smaller number of clients makes their buffers larger.
        let mut socket_buffer = smallest;
        let fit = |buffer: usize| {
            let clients = connection(config, buffer).saturating_mul(max_clients);
            let others = handshake(config, buffer).saturating_mul(handshakes);
            clients.saturating_add(others) <= share
        };
        while socket_buffer < BUFFER_MAX && fit(2 * socket_buffer) {
            socket_buffer *= 2;
        }
        let backlog = 2 * handshakes;
        let connection = connection(config, socket_buffer);
        let extra = handshakes * (handshake(config, socket_buffer) - connection);
        let frame = config.max_message + FRAME_HEADER_MAX;
        Ok(Some(Self {
            max_memory,
            start: fixed(config) + extra,
            connection,
            max_clients,
            handshakes,
            backlog,
            socket_buffer,
            inbox_bytes: config.inbox_bytes.min(max_memory / 16).max(frame),
        }))
    }

    /// The account of a hub of this size.
    pub(crate) fn account(&self) -> MemoryBudget {
        MemoryBudget::new(Watermarks::below(self.max_memory), self.start, self.connection)
    }

    /// Bytes that are left for messages, heads and bodies when every connection is there.
    #[must_use]
    pub fn messages(&self) -> usize {
        let connections = (self.max_clients + self.handshakes) * self.connection;
        self.max_memory.saturating_sub(self.start + connections)
    }
}

impl fmt::Display for Sizing {
    /// Writes the arithmetic as one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watermarks = Watermarks::below(self.max_memory);
        write!(
            f,
            "{} bytes = {} at start + ({} clients + {} handshakes) x {} + {} for messages; socket \
             buffers of {}, inbox of {}; admits and reads below {}, evicts from {}",
            self.max_memory,
            self.start,
            self.max_clients,
            self.handshakes,
            self.connection,
            self.messages(),
            self.socket_buffer,
            self.inbox_bytes,
            watermarks.high,
            watermarks.critical,
        )
    }
}

/// What connections may set aside in all: 65 %, so that 25 % are left for messages below the level
/// at which reading pauses.
fn share(max_memory: usize) -> usize {
    max_memory / 100 * 65
}

/// What is there before the first connection.
fn fixed(config: &Config) -> usize {
    config.inbox.saturating_mul(COMMAND).saturating_add(Sizing::START)
}

/// What a client can come to at its limits, with socket buffers of `buffer` bytes.
fn connection(config: &Config, buffer: usize) -> usize {
    let names = config.max_rooms_per_client.saturating_mul(MEMBERSHIP).saturating_add(NAME);
    let filled = names.saturating_add(backlog_size(config.queue));
    // Writes are of a buffer's length at most, and the kernel looks at its limit before a write.
    let send = buffer.max(SEND_MIN) + buffer;
    filled.saturating_add(Sizing::IDLE_CLIENT + BUFFERS + send + buffer + OVERHANG)
}

/// What a handshake can come to, and two connections that wait behind it.
fn handshake(config: &Config, buffer: usize) -> usize {
    connection(config, buffer).saturating_add(HEAD + 2 * (KERNEL + buffer + OVERHANG / 2))
}

/// The smallest ceiling that works: one client and two handshakes within the share of connections,
/// and a message, gathered in a buffer that doubles, is a tenth at most.
fn least(config: &Config) -> usize {
    let connections = fixed(config)
        .saturating_add(connection(config, BUFFER_MIN))
        .saturating_add(handshake(config, BUFFER_MIN).saturating_mul(HANDSHAKES_MIN));
    let share = (connections / 65 + 1).saturating_mul(100);
    share.max(allocation(config.max_message.saturating_mul(2)).saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizing(config: &Config, max_memory: usize) -> Result<Sizing, Error> {
        let config = config.clone().max_memory(Some(max_memory));
        Sizing::of(&config, 20_000).map(|sizing| sizing.expect("there is a ceiling"))
    }
    #[test]
    fn without_a_ceiling_nothing_is_derived() {
        assert_eq!(Sizing::of(&Config::default(), 100).expect("valid"), None);
    }
    #[test]
    fn the_smallest_ceiling_that_the_error_names_works() {
        for config in [
            Config::default(),
            Config::default().max_message(1 << 20).queue_bytes(4 << 20).inbox_bytes(4 << 20),
            Config::default().queue(10_000).max_clients(Some(1)),
            Config::default().inbox(100_000).handshakes(1),
        ] {
            let error = sizing(&config, 1).expect_err("too little");
            let sentence = error.to_string();
            let least = sentence.rsplit(' ').nth(2).and_then(|word| word.parse().ok());
            let least: usize = least.expect(&sentence);
            assert!(sizing(&config, least - 1).is_err());
            let smallest = sizing(&config, least).expect("as it was told");
            assert!(smallest.max_clients >= 1 && smallest.handshakes >= 1);
        }
    }
    /// As on a machine of 32 bits, where much less is too much.
    #[test]
    fn what_cannot_be_reckoned_is_too_much_for_any_ceiling() {
        for config in [
            Config::default().inbox(usize::MAX),
            Config::default().inbox(usize::MAX / COMMAND),
            Config::default().queue(usize::MAX / 16),
            Config::default().max_message(usize::MAX / 2),
            Config::default().max_message(usize::MAX / 10),
            Config::default().max_rooms_per_client(usize::MAX),
        ] {
            let error = sizing(&config, usize::MAX).expect_err("more than there is");
            let sentence = error.to_string();
            assert!(
                sentence.ends_with(&format!("at least {} is needed", usize::MAX)),
                "{sentence}"
            );
        }
    }
    #[test]
    fn a_quarter_is_left_for_messages_below_the_level_where_reading_pauses() {
        for config in [
            Config::default(),
            Config::default().max_clients(Some(10)),
            Config::default().max_clients(Some(100_000)),
            Config::default().max_message(100).queue(4),
        ] {
            for megabytes in [4, 16, 32, 64, 512, 4095] {
                let sizing = sizing(&config, megabytes << 20).expect("enough");
                let full = sizing.max_memory - sizing.messages();
                let left = Watermarks::below(sizing.max_memory).high - full;
                assert!(left >= sizing.max_memory / 100 * 24, "{sizing}");
                assert!(sizing.inbox_bytes <= sizing.messages() / 2, "{sizing}");
                assert!(sizing.handshakes <= config.handshakes, "{sizing}");
            }
        }
    }
    #[test]
    fn fewer_clients_have_larger_buffers_and_more_memory_more_clients() {
        let few = sizing(&Config::default().max_clients(Some(20)), 32 << 20).expect("enough");
        assert_eq!((few.max_clients, few.socket_buffer), (20, BUFFER_MAX / 2));
        let many = sizing(&Config::default().max_clients(Some(100_000)), 32 << 20).expect("enough");
        assert_eq!(many.socket_buffer, BUFFER_MIN);
        assert!(many.max_clients < 100_000);
        let larger = sizing(&Config::default(), 64 << 20).expect("enough");
        assert!(
            larger.max_clients > sizing(&Config::default(), 32 << 20).expect("enough").max_clients
        );
    }
}
