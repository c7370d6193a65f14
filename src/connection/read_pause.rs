//! Why a connection does not read from its peer.

/// A reason for not reading. While there is one, what the peer has sent may lie unread in the socket:
/// the pong timeout and the message timeout are suspended, and count anew when reading resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPause {
    /// A hook has not decided about the last message.
    Hook,
    /// Memory is short, and no message has begun.
    Memory,
    /// Another process takes the hub over.
    HandOver,
    /// The client has sent as much as its rate allows, and no message has begun.
    Rate,
    /// The connection ends.
    End,
}
