//! What becomes of a push, and what a drain finds and leaves.

use std::task::Waker;

use crate::hub::client_id::ClientId;
use crate::hub::queue_state::Phase;
use crate::hub::state;
use crate::message::Encoding;

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// Every message was written, waits, or was dropped by a policy that keeps the client.
    Ok,
    /// The queue overflowed and the client is evicted.
    Full,
    /// The client has ended already; nothing was taken.
    Gone,
    /// The client hears its room and nothing else; nothing was taken.
    Refused,
}

/// How far a batch went straight to the client's writer.
pub(super) enum Written {
    /// All of it.
    Whole,
    /// So many messages need not wait any more.
    Part(usize),
    /// The client is gone, and its messages are lost.
    Failed(Option<Waker>),
}

/// The positions of a batch, for a client that is told them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbering {
    /// It is not told.
    Off,
    /// The messages have none.
    None,
    /// They begin behind this one.
    Behind(u64),
}

impl Numbering {
    /// The position of the message at `index`.
    pub(super) fn at(self, index: usize) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::None => Some(0),
            Self::Behind(position) => Some(position + index as u64 + 1),
        }
    }
}

/// What one drain found and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Whether the stream took any bytes.
    pub(crate) wrote: bool,
    /// Whether nothing waits any more.
    pub(crate) empty: bool,
    /// The phase after the drain.
    pub(crate) phase: Phase,
    /// The client, if nothing waits here and messages wait in its room: the manager is to be asked.
    pub(crate) request: Option<ClientId>,
    /// The position of the last message that it was handed, for a client that is told it.
    pub(crate) position: Option<u64>,
    /// Whether the client has not been told whole of a gap before that.
    pub(crate) has_gap: bool,
}

/// What is known of a client that another process may take over.
#[derive(Debug)]
pub(crate) struct Clean {
    /// Messages that it has missed to the overflow policy.
    pub(crate) missed: u64,
    pub(crate) encoding: Encoding,
    /// Whether it gets its messages with labels.
    pub(crate) has_labels: bool,
    /// Its cursor in a room.
    pub(crate) cursor: Option<state::Cursor>,
}
