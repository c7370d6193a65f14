//! What a client is called, and what a message or a listing names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Kind};

/// Names one client of a hub, and no other for as long as the hub lives.
///
/// A slot of the registry is used again by the very next client, so an id carries the slot's
/// generation beside its index: the id of a client that has gone names no other client.
///
/// # Examples
///
/// ```
/// use hublet::{Admission, Config, Hub};
///
/// # smol::block_on(async {
/// # let (hub, manager) = Hub::new(Config::default())?;
/// # smol::spawn(manager).detach();
/// let ada = hub.subscribe(Admission::user("ada")).await?;
/// let gone = ada.client().id();
/// drop(ada);
/// let bob = hub.subscribe(Admission::user("bob")).await?;
/// assert_ne!(bob.client().id(), gone);
/// assert_eq!(hub.send(gone, "for ada").await?, 0);
/// # Ok::<_, hublet::Error>(())
/// # }).expect("it works");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// Index into the slab.
    pub(super) slot: u32,
    /// The registry's count of inserts when this client came, so no two clients of a slot share it
    /// within 2^32 inserts.
    pub(super) generation: u32,
}

impl ClientId {
    /// The id of a slot and its generation, for a hub that takes over another.
    pub(crate) fn of((slot, generation): (u32, u32)) -> Self {
        Self { slot, generation }
    }

    /// The slot and its generation.
    pub(crate) fn parts(self) -> (u32, u32) {
        (self.slot, self.generation)
    }

    /// The id as a number, for a hub that hands it to another.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// The id that was made a number.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { slot: (bits >> 32) as u32, generation: bits as u32 }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.slot, self.generation)
    }
}

/// Reads an id as [`Display`](fmt::Display) writes it, and as `/rooms/{room}` lists it.
///
/// # Errors
///
/// [`Error::is_unknown_client`] for a text that no id is written as.
///
/// # Examples
///
/// ```
/// let id: hublet::ClientId = "3-17".parse()?;
/// assert_eq!(id.to_string(), "3-17");
/// assert!("3".parse::<hublet::ClientId>().is_err());
/// # Ok::<_, hublet::Error>(())
/// ```
impl FromStr for ClientId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // `u32::from_str` takes a plus sign too.
        let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
        text.split_once('-')
            .and_then(|(slot, count)| {
                Some(Self { slot: number(slot)?, generation: number(count)? })
            })
            .ok_or_else(|| Error::new(Kind::UnknownClient))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// A connected client and the user it belongs to, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The client.
    pub id: ClientId,
    /// Its user, unless it is anonymous.
    pub user: Option<Arc<str>>,
    /// When it came, in seconds of Unix time.
    pub since: u64,
    /// Messages that wait for it now.
    pub waiting: usize,
    /// Bytes of their frames.
    pub waiting_bytes: usize,
    /// Messages it has missed to the overflow policy.
    pub missed: u64,
}

/// A room and how many members it has, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomInfo {
    /// The name of the room.
    pub name: Arc<str>,
    /// Clients that are in it now.
    pub members: usize,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Every client.
    All,
    /// The members of a room.
    Room(Arc<str>),
    /// The clients of a user.
    User(Arc<str>),
    /// One client.
    Client(ClientId),
}

impl Target {
    /// The room, if it is one.
    pub(crate) fn room(&self) -> Option<&Arc<str>> {
        if let Self::Room(room) = self { Some(room) } else { None }
    }
}

/// Why the registry refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The connection was gone before its client was inserted.
    Gone,
    /// The backplane is away: no client may join a room now.
    Away,
    /// No client of that id.
    UnknownClient,
    /// As many rooms as allowed exist.
    Rooms,
    /// As many prefixes as allowed exist.
    Prefixes,
    /// The client is in as many rooms as allowed.
    RoomsPerClient,
    /// The client counts the messages of its one room.
    OneRoom,
}
