//! What a hub hands to the process that takes it over, as plain data.

use std::borrow::Cow;
use std::time::Duration;

use crate::message::Message;
use crate::peer::Peer;

/// A hub without its connections, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// When serving began, in seconds of Unix time.
    pub(crate) started: u64,
    /// What names the hub among those on its backplane, if it has one.
    pub(crate) link: u64,
    /// Nanoseconds on the clock of the rooms.
    pub(crate) uptime: u64,
    /// The generation of the next client.
    pub(crate) generation: u32,
    /// Counters by their names.
    pub(crate) counters: Vec<(String, u64)>,
    /// The counters of refused requests, in the order of the hub.
    pub(crate) refused: Vec<u64>,
    pub(crate) rooms: Vec<Room>,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Room {
    pub(crate) name: String,
    /// The position before its first message.
    pub(crate) born: u64,
    /// The position of its newest message.
    pub(crate) newest: u64,
    /// Whether it outlives its members.
    pub(crate) outlives: bool,
    /// When its newest message came and its last member left, on the clock of the rooms.
    pub(crate) last_message: u64,
    pub(crate) last_member: u64,
    /// The messages that it keeps, oldest first.
    pub(crate) messages: Vec<KeptMessage>,
}

/// A message that a room keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptMessage {
    pub(crate) message: Message,
    /// The client that has published it and does not hear it.
    pub(crate) except: Option<(u32, u32)>,
}

/// A connection. It borrows its texts from the text that it was read from, or from the hub that it is
/// written from. Its descriptor has the same index among the descriptors as its line among the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection<'a> {
    /// Where it comes from.
    pub(crate) peer: Peer,
    /// The client, unless the connection waits for a request.
    pub(crate) client: Option<Client<'a>>,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Client<'a> {
    /// How server-sent events are written; `None` for a WebSocket.
    pub(crate) events: Option<u8>,
    /// Slot and generation.
    pub(crate) id: (u32, u32),
    /// When it came, in seconds of Unix time.
    pub(crate) since: u32,
    pub(crate) user: Option<Cow<'a, str>>,
    /// The rooms, in the order in which it joined them.
    pub(crate) rooms: Vec<Cow<'a, str>>,
    /// The prefixes that it hears.
    pub(crate) prefixes: Vec<Cow<'a, str>>,
    /// Messages that it has missed to the overflow policy.
    pub(crate) missed: u64,
    /// Whether it and the hub may compress what they send.
    pub(crate) deflates: bool,
    /// Whether it gets its messages with labels.
    pub(crate) labels: bool,
    /// Its cursor.
    pub(crate) cursor: Option<Cursor>,
    /// What it has, if it hears the newest message of its room only.
    pub(crate) conflation: Option<Box<Conflation>>,
    /// Milliseconds since bytes came from the peer.
    pub(crate) idle: u32,
    /// What the handler has to say of it.
    pub(crate) about: Cow<'a, str>,
}

/// A client's cursor in its room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub(crate) room: String,
    /// What becomes of positions: 0 for a client that is not told, 1 for one that counts, 2 for one
    /// that is told.
    pub(crate) reader: u8,
    /// The position of the last message that it was handed.
    pub(crate) position: u64,
    /// How many of the messages behind it are for this client.
    pub(crate) unread: u64,
}

/// How often a client hears the newest message of its room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Conflation {
    pub(crate) interval: Duration,
    /// In how long the next message may go.
    pub(crate) next: Duration,
    /// The message that waits for that.
    pub(crate) newest: Option<Newest>,
}

/// A message that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) message: Message,
    /// Its position, for a client that is told positions; 0 if it has none.
    pub(crate) position: Option<u64>,
    /// The position that the client was told last.
    pub(crate) last_position: u64,
}
