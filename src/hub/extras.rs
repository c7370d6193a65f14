//! What only some clients need.

use std::sync::Arc;

use crate::hub::conflation::Conflation;
use crate::hub::cursor::Cursor;
use crate::hub::queue_config::QueueConfig;

/// What only some clients need, behind one optional box of the client's queue: a client without any
/// of it has a pointer, and its messages pass one check.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// Messages that the client has missed to the overflow policy, or to a room that keeps them no
    /// more.
    pub(crate) missed: u64,
    /// Its cursor in the one room whose messages it counts.
    pub(crate) cursor: Option<Cursor>,
    /// Whether the client is the embedding program: it has no peer, and no process takes it over.
    pub(crate) is_program: bool,
    /// Whether the client gets each message with a label, which names its room.
    pub(crate) has_labels: bool,
    /// The limits of its queue, if they are not those of all.
    pub(crate) terms: Option<Arc<QueueConfig>>,
    /// The newest message of its room, for a client that hears one an interval at most.
    pub(crate) conflation: Option<Box<Conflation>>,
}
