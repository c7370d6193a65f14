//! What a run of several hubs notes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::sim::engine::KEEPS;
use crate::sim::journal::event;

pub(super) const ROOMS: usize = 3;
pub(super) const NEVER: usize = usize::MAX;

pub(super) fn name(room: usize) -> String {
    format!("room {room}")
}

/// Which hub counts a room: the engine does where it keeps messages.
pub(super) fn counter(hub: usize, room: usize) -> usize {
    if name(room) == KEEPS { NEVER } else { hub }
}

/// How a client hears of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not at all.
    Plain,
    /// It is told the position of each message.
    Numbered,
    /// It is told where it begins, and counts: a gap ends it.
    Counting,
}

/// A client of one hub.
pub(super) struct Member {
    pub(super) hub: usize,
    pub(super) client: Option<Client>,
    /// What it has heard, in order.
    pub(super) heard: Vec<String>,
    /// Its times in rooms: the room, the step after which it was surely in, and the step from which
    /// on it may be out.
    pub(super) stays: Vec<(usize, usize, usize)>,
    pub(super) ended: Option<Disconnect>,
    pub(super) kind: Kind,
    /// The position that it says it has heard last, and the one that it is told before it hears
    /// anything.
    pub(super) begins: (Option<u64>, Option<u64>),
    /// Where readers of the room that keeps messages missed none when it came, and how often the engine
    /// had restarted.
    pub(super) whole: Option<(RangeInclusive<u64>, u32)>,
    /// It joins or leaves now: which of two moves was first is not known from outside.
    pub(super) moves: bool,
}

impl Member {
    pub(super) fn new(hub: usize, kind: Kind) -> Self {
        let (heard, stays) = (Vec::new(), Vec::new());
        let (begins, whole) = ((None, None), None);
        Self { hub, client: None, heard, stays, ended: None, kind, begins, whole, moves: false }
    }

    /// It came with `since`: it hears what it says itself.
    pub(super) fn hears_itself(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// Whether a gap ends it.
    pub(super) fn is_counting(&self) -> bool {
        self.kind == Kind::Counting
    }
}

/// A message, and what came of it.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) room: usize,
    pub(super) hub: usize,
    /// The member that does not get it.
    pub(super) except: Option<usize>,
    pub(super) began: usize,
    /// The step in which its publisher was answered.
    pub(super) ended: usize,
    pub(super) result: Option<Result<usize, bool>>,
}

#[derive(Default)]
pub(super) struct Notes {
    pub(super) step: usize,
    pub(super) members: Vec<Member>,
    pub(super) said: Vec<Said>,
    /// What was heard, by hub, room and position.
    pub(super) positioned: BTreeMap<(usize, usize, u64), String>,
    /// Steps in which a hub may have lost messages, by hub.
    pub(super) losses: Vec<Vec<usize>>,
    /// For each hub, when a message to the room that keeps messages passed it over.
    pub(super) passes: Vec<Vec<usize>>,
    /// How often the engine has restarted.
    pub(super) restarts: u32,
    /// Steps in which nothing was on its way.
    pub(super) rests: Vec<usize>,
}

impl Notes {
    /// A member has heard a text, at a position of its room if it is told that or counts.
    pub(super) fn hear(&mut self, nth: usize, room: usize, position: Option<u64>, text: String) {
        event!("client {nth} hears {text} at {position:?}");
        if let Some(position) = position {
            let key = (counter(self.members[nth].hub, room), room, position);
            let other = self.positioned.insert(key, text.clone());
            assert!(
                other.is_none_or(|other| other == text),
                "client {nth} hears {text} where others have heard another message"
            );
        }
        self.members[nth].heard.push(text);
    }
}
