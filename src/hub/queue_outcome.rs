//! What becomes of a push, and what a drain finds and leaves.

use std::task::Waker;
use std::time::Duration;

use crate::hub::client_id::ClientId;
use crate::hub::queue_state::Phase;

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
    /// When the message may go that waits for its time, if one does and nothing else: a time on the clock
    /// of the timers.
    pub(crate) due: Option<Duration>,
}
