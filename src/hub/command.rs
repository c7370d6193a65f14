//! The commands that the manager carries out.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::ack::Ack;
use crate::hub::client_id::{ClientId, Member, Refusal, Target};
use crate::hub::cursor::Reading;
use crate::hub::event_queue::EventQueue;
use crate::hub::holding::{Roster, Standing, WaitsFor};
use crate::hub::link_event::LinkEvent;
use crate::hub::queue::Queue;
use crate::hub::reply::Reply;
use crate::hub::shared_rooms::SharedRooms;
use crate::hub::since::{Begin, History, Since};
use crate::label::label_bytes;
use crate::message::{Encoding, Message};

/// A message on its way to its target.
///
/// [`Hub`](crate::Hub) sends every one through a door that checks it.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) target: Target,
    /// The member that must not get it: the client that published it, unless the hub did.
    pub(crate) except: Option<ClientId>,
    pub(crate) message: Message,
}

impl Publish {
    /// What the program publishes: every member gets it.
    pub(crate) fn by_hub(target: Target, message: Message) -> Self {
        Self { target, except: None, message }
    }

    /// What a client publishes: every other member gets it.
    pub(crate) fn by_client(client: ClientId, target: Target, message: Message) -> Self {
        Self { target, except: Some(client), message }
    }
}

/// A message on its way to the engine.
#[derive(Debug)]
pub(crate) struct Carry {
    pub(crate) publish: Publish,
    /// Hears what became of it in this hub. Dropped unanswered if it was not published, or
    /// if that is not known.
    pub(crate) reply: Option<PublishReply>,
    /// Hears how many hubs heard it, or that it was not published.
    pub(crate) hubs: Option<Reply<Result<usize, NotPublished>>>,
}

/// Where is told what became of a message in this hub.
#[derive(Debug)]
pub(crate) struct PublishReply {
    reply: Reply<Dispatched>,
    /// Where its recipients acknowledge it, if the publisher waits for that.
    ack: Option<Arc<Ack>>,
}

impl PublishReply {
    pub(crate) fn new(reply: Reply<Dispatched>, ack: Option<Arc<Ack>>) -> Self {
        Self { reply, ack }
    }

    /// As [`Reply::answer`].
    pub(crate) fn answer(self, dispatched: Dispatched) {
        self.reply.answer(dispatched);
    }

    /// As [`Reply::begin`].
    pub(crate) fn begin(&self) -> bool {
        self.reply.begin()
    }

    /// Takes it apart, for a command.
    pub(crate) fn parts(reply: Option<Self>) -> (Option<Reply<Dispatched>>, Option<Arc<Ack>>) {
        reply.map_or((None, None), |reply| (Some(reply.reply), reply.ack))
    }
}

/// A message that its recipients acknowledge.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) publish: Publish,
    /// Its position, if the backplane has given it one.
    pub(crate) position: Option<u64>,
    pub(crate) ack: Arc<Ack>,
    pub(crate) reply: Option<Reply<Dispatched>>,
}

/// The engine refused a message: no hub has heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotPublished;

/// What became of a message that was dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatched {
    /// How many took it.
    pub(crate) recipients: usize,
    /// Its position, if it went to a room that exists.
    pub(crate) position: Option<u64>,
    /// Whether a client that it was for did not take it, since it hears its room and nothing else.
    pub(crate) is_refused: bool,
}

impl Dispatched {
    /// What reached so many clients, and no room.
    pub(crate) const fn to(recipients: usize) -> Self {
        Self { recipients, position: None, is_refused: false }
    }
}

/// A client that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inserted {
    pub(crate) id: ClientId,
    /// Where it begins, if it is told of positions.
    pub(crate) begin: Option<Begin>,
}

/// What the manager does for the rest of the hub.
#[derive(Debug)]
pub(crate) enum Command {
    /// A connection has a client for the registry.
    Register {
        queue: Arc<Queue>,
        user: Option<Arc<str>>,
        /// Its rooms, and behind them the prefixes that it hears.
        rooms: Box<[Arc<str>]>,
        /// How many prefixes there are.
        prefixes: u16,
        /// When it came, in seconds of Unix time.
        came: u32,
        /// As what it reads its room, if it has one.
        reading: Box<Reading>,
        reply: Reply<Result<Inserted, Refusal>>,
    },
    /// A connection ends, or a caller ends it: `reply` hears whether the client was there.
    Disconnect { id: ClientId, reason: Disconnect, reply: Option<Reply<bool>> },
    /// A message for a target; `reply` hears what became of it.
    Publish { publish: Publish, reply: Option<Reply<Dispatched>> },
    /// A message of a room, with its position from the backplane.
    PublishAt { publish: Box<Publish>, position: u64, reply: Option<Reply<Dispatched>> },
    /// A message that its recipients acknowledge.
    Acked(Box<Acked>),
    /// Into a room, or all rooms of a prefix.
    Join { id: ClientId, room: Arc<str>, is_prefix: bool, reply: Reply<Result<(), Refusal>> },
    /// Out of a room, or off a prefix.
    Leave { id: ClientId, room: Arc<str>, is_prefix: bool, reply: Reply<Result<(), Refusal>> },
    /// Whether a client hears a room.
    Hears { id: ClientId, room: Arc<str>, reply: Reply<bool> },
    /// The rooms of a client.
    Rooms { id: ClientId, reply: Reply<Option<Vec<Arc<str>>>> },
    /// The caller ends every client of a user: `reply` hears how many there were.
    DisconnectUser { user: Arc<str>, reason: Disconnect, reply: Reply<usize> },
    /// The clients that a target names.
    Members { of: Target, reply: Reply<Vec<Member>> },
    /// A page of the rooms, and how many members each has.
    ListRooms { after: String, limit: usize, reply: Reply<Vec<(Arc<str>, usize)>> },
    /// A page of the members of a room.
    ListMembers { room: String, after: Option<u32>, limit: usize, reply: Reply<Vec<Member>> },
    /// A message for the backplane; only the outbox has this.
    Carry(Box<Carry>),
    /// A question for the rooms of the other hubs, of a page; only the outbox has this.
    SumRooms { after: String, limit: usize, reply: Reply<SharedRooms> },
    /// A question for what a room without a member here keeps; only the outbox has this.
    ReadKept { room: Arc<str>, since: Since, limit: usize, reply: Reply<Option<History>> },
    /// The driver of the backplane tells the manager something.
    Backplane(LinkEvent),
    /// At most `limit` of the messages that a room keeps; `None` if there is no such room.
    History { room: Arc<str>, since: Since, limit: usize, reply: Reply<Option<History>> },
    /// What a room keeps next for a reader that is told where it stands; `None` if there is no such
    /// room.
    ReadNext { room: Arc<str>, since: Since, reply: Reply<Option<History>> },
    /// A reader waits for the next message of a room: `reply` hears it, or what is there already.
    Await { room: Arc<str>, since: Since, reply: Reply<History> },
    /// A reader that waited for a room has given up.
    GiveUp { room: Arc<str> },
    /// A reader of events: `reply` hears from when on it is one.
    ReadEvents { queue: Arc<EventQueue>, reply: Reply<()> },
    /// Another process takes the hub over: `parked` are the clients of the connections that are clean.
    /// When the manager has an answer it takes no further command, until the hub goes on.
    HandOver { parked: Vec<Option<Standing>>, waits_for: WaitsFor, reply: Reply<Option<Roster>> },
    /// A connection is gone and reported elsewhere, or memory is short: look.
    Wake,
    /// The hub has drained: end.
    Stop,
}

// Each message is moved as a command several times, and what is longer than 64 bytes is no longer
// moved in registers.
const _: () = assert!(size_of::<Command>() <= 64);

impl Command {
    /// The command for a message from the backplane.
    pub(crate) fn heard(
        publish: Publish,
        position: Option<u64>,
        reply: Option<PublishReply>,
    ) -> Self {
        match (PublishReply::parts(reply), position) {
            ((reply, Some(ack)), position) => {
                Self::Acked(Box::new(Acked { publish, position, ack, reply }))
            }
            ((reply, None), Some(position)) => {
                Self::PublishAt { publish: Box::new(publish), position, reply }
            }
            ((reply, None), None) => Self::Publish { publish, reply },
        }
    }

    /// Bytes of the frame the command carries.
    pub(crate) fn bytes(&self) -> usize {
        self.publish().map_or(0, |publish| publish.message.frame(Encoding::Plain).len())
    }

    /// Bytes by which the frame is longer with a label, about.
    #[cold]
    pub(crate) fn label_bytes(&self) -> usize {
        let room = |publish: &Publish| publish.target.room().map_or(1, |room| label_bytes(room));
        self.publish().map_or(0, room)
    }

    /// The message the command carries.
    fn publish(&self) -> Option<&Publish> {
        match self {
            Self::Publish { publish, .. } => Some(publish),
            Self::PublishAt { publish, .. } => Some(publish),
            Self::Acked(acked) => Some(&acked.publish),
            Self::Carry(carry) => Some(&carry.publish),
            _ => None,
        }
    }
}
