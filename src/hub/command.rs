//! The commands that the manager carries out.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::hub::client_id::{ClientId, Member, Refusal, Target};
use crate::hub::link_event::LinkEvent;
use crate::hub::queue::Queue;
use crate::hub::reply::Reply;
use crate::hub::shared_rooms::SharedRooms;
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
    /// Hears how many members of this hub took it. Dropped unanswered if it was not published, or
    /// if that is not known.
    pub(crate) reply: Option<Reply<usize>>,
    /// Hears how many hubs heard it, or that it was not published.
    pub(crate) hubs: Option<Reply<Result<usize, NotPublished>>>,
}

/// The engine refused a message: no hub has heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotPublished;

/// What the manager does for the rest of the hub.
#[derive(Debug)]
pub(crate) enum Command {
    /// A connection has a client for the registry.
    Register {
        queue: Arc<Queue>,
        user: Option<Arc<str>>,
        rooms: Vec<Arc<str>>,
        /// When it came, in seconds of Unix time.
        since: u32,
        reply: Reply<Result<ClientId, Refusal>>,
    },
    /// A connection ends, or a caller ends it: `reply` hears whether the client was there.
    Disconnect { id: ClientId, reason: Disconnect, reply: Option<Reply<bool>> },
    /// A message for a target; `reply` hears how many members took it.
    Publish { publish: Publish, reply: Option<Reply<usize>> },
    /// Into a room.
    Join { id: ClientId, room: Arc<str>, reply: Reply<Result<(), Refusal>> },
    /// Out of a room.
    Leave { id: ClientId, room: Arc<str>, reply: Reply<Result<(), Refusal>> },
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
    /// The driver of the backplane tells the manager something.
    Backplane(LinkEvent),
    /// A connection is gone and reported elsewhere, or memory is short: look.
    Wake,
    /// The hub has drained: end.
    Stop,
}

impl Command {
    /// Bytes of the frame the command carries.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish { publish, .. } => publish.message.frame(Encoding::Plain).len(),
            Self::Carry(carry) => carry.publish.message.frame(Encoding::Plain).len(),
            _ => 0,
        }
    }
}
