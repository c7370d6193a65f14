//! What only some clients need.

use crate::hub::cursor::Cursor;

/// What only some clients need, behind one optional box of the client's queue: a client without any
/// of it has a pointer, and its messages pass one check.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// Messages that the client has missed to the overflow policy, or to a room that keeps them no
    /// more.
    pub(crate) missed: u64,
    /// Its place in the one room whose messages it counts.
    pub(crate) cursor: Option<Cursor>,
}
