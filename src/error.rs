//! What can go wrong, and why a connection ended.

use std::borrow::Cow;
use std::{error, fmt, io};

use http::StatusCode;

use crate::Message;

/// The longest reason that fits a close frame: 125 bytes less the code (RFC 6455 5.5.1).
pub(crate) const REASON_MAX: usize = 123;

/// An error of the hub.
///
/// It is opaque: ask it with the `is_*` methods. A refused message comes back with
/// [`into_message`](Error::into_message).
///
/// # Examples
///
/// ```
/// use hublet::{Config, Hub};
///
/// let error = Hub::new(Config::default().queue(0)).err().expect("a queue of 0 is refused");
/// assert!(error.is_config());
/// assert_eq!(error.to_string(), "queue of 0 messages is not allowed: at least 1 is needed");
/// ```
pub struct Error {
    kind: Kind,
    /// The message that was refused, on its way back to the caller.
    message: Option<Message>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A configuration that cannot work; the sentence says which value and what is allowed.
    Config(String),
    /// The hub was drained, or its manager future was dropped.
    Closed,
    /// The inbox has no room now.
    Full,
    /// No client of that id is connected (any more).
    UnknownClient,
    /// A message longer than the limit: its length and the limit, in bytes.
    TooLong { len: usize, max: usize },
    /// A name of a room or a user that is empty, too long or holds control characters.
    Name,
    /// A limit on rooms or clients; the phrase says which.
    Limit(String),
    /// The request was answered with this status instead of an upgrade.
    Refused(StatusCode, Cow<'static, str>),
    /// The stream failed.
    Io(io::Error),
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, message: None }
    }

    pub(crate) fn config(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Config(sentence.into()))
    }

    pub(crate) fn closed() -> Self {
        Self::new(Kind::Closed)
    }

    pub(crate) fn with_message(mut self, message: Message) -> Self {
        self.message = Some(message);
        self
    }

    /// Returns whether a configuration value was refused.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self.kind, Kind::Config(_))
    }

    /// Returns whether the hub has ended: drained, or its manager future dropped. No later call
    /// succeeds.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub};
    /// let (hub, manager) = Hub::new(Config::default()).expect("the defaults are valid");
    /// drop(manager);
    /// assert!(hub.try_broadcast("anyone?").expect_err("the hub has ended").is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.kind, Kind::Closed)
    }

    /// Returns whether the hub's inbox was full; the same call may succeed later.
    /// [`Hub::try_publish`](crate::Hub::try_publish) has an example, as have the verbs for what
    /// they refuse.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.kind, Kind::Full)
    }

    /// Returns whether the client that was named is not connected.
    #[must_use]
    pub fn is_unknown_client(&self) -> bool {
        matches!(self.kind, Kind::UnknownClient)
    }

    /// Returns whether the message was longer than
    /// [`Config::max_message`](crate::Config#structfield.max_message), which stands in the sentence.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub};
    /// let (hub, _manager) = Hub::new(Config::default().max_message(4)).expect("valid");
    /// let error = hub.try_broadcast("hello").expect_err("5 bytes");
    /// assert!(error.is_too_long());
    /// assert_eq!(error.to_string(), "message of 5 bytes exceeds the limit of 4");
    /// ```
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        matches!(self.kind, Kind::TooLong { .. })
    }

    /// Returns whether the name of a room or a user was refused.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Name)
    }

    /// Returns whether a limit on rooms or clients was reached.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self.kind, Kind::Limit(_))
    }

    /// Returns the HTTP status a request was refused with before its upgrade, or would have been.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Refused(status, _) => Some(status),
            _ => None,
        }
    }

    /// Returns the message that was refused, if the call had taken one: to try again, or elsewhere.
    ///
    /// `None` for one that was in the inbox when the hub ended: it may have been sent.
    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Config(sentence) | Kind::Limit(sentence) => f.write_str(sentence),
            Kind::Closed => f.write_str("the hub has ended"),
            Kind::Full => f.write_str("the hub's inbox is full"),
            Kind::UnknownClient => f.write_str("no such client is connected"),
            Kind::TooLong { len, max } => {
                write!(f, "message of {len} bytes exceeds the limit of {max}")
            }
            Kind::Name => f.write_str(
                "the name of a room or a user has 1 to 128 bytes and no control characters",
            ),
            Kind::Refused(status, sentence) => {
                write!(f, "request refused with {}: {sentence}", status.as_u16())
            }
            Kind::Io(_) => f.write_str("the stream failed"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.kind).finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Io(error))
    }
}

/// Why a connection ended: a close code and a reason (RFC 6455 7.4).
///
/// One type in both directions: what a peer is told, and what it told us.
///
/// # Examples
///
/// ```
/// use hublet::Disconnect;
///
/// let kick = Disconnect::new(4000, "the game is over");
/// assert_eq!((kick.code(), kick.reason()), (4000, "the game is over"));
/// assert_eq!(Disconnect::SLOW.code(), 4108);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Disconnect {
    code: u16,
    reason: Cow<'static, str>,
}

impl Disconnect {
    /// 1000: a normal end.
    pub const NORMAL: Self = Self::constant(1000, "");
    /// 1001: the server is going away.
    pub const GOING_AWAY: Self = Self::constant(1001, "going away");
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self::constant(1002, "protocol error");
    /// 1003: a kind of message that is not accepted here.
    pub const UNSUPPORTED: Self = Self::constant(1003, "unsupported kind of message");
    /// 1005: the peer's close frame had no code. Never sent (RFC 6455 7.4.1).
    pub const NO_STATUS: Self = Self::constant(1005, "");
    /// 1006: the connection ended without a close frame. Never sent (RFC 6455 7.4.1).
    pub const ABNORMAL: Self = Self::constant(1006, "connection lost");
    /// 1007: a text message was not UTF-8.
    pub const INVALID_TEXT: Self = Self::constant(1007, "text is not UTF-8");
    /// 1008: the peer broke a rule of this server.
    pub const POLICY: Self = Self::constant(1008, "policy violation");
    /// 1009: a message was longer than the limit.
    pub const TOO_LONG: Self = Self::constant(1009, "message too long");
    /// 1011: our fault.
    pub const INTERNAL: Self = Self::constant(1011, "internal error");
    /// 1012: the service restarts; come back.
    pub const RESTART: Self = Self::constant(1012, "restarting");
    /// 1013: shed under a limit; try again later.
    pub const TRY_LATER: Self = Self::constant(1013, "try again later");
    /// 4108: too slow, its queue overflowed.
    pub const SLOW: Self = Self::constant(4108, "too slow");

    /// Makes a reason of its own.
    ///
    /// A reason over 123 bytes is cut at a character, since a close frame holds no more (RFC 6455
    /// 5.5.1). A code that must not stand in a close frame (below 1000, 1004 to 1006, 1015 to
    /// 2999, 5000 and above; RFC 6455 7.4) is kept for hooks and logs, and the peer is sent a
    /// close frame without a code.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.len() > REASON_MAX {
            let mut end = REASON_MAX;
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.to_mut().truncate(end);
        }
        Self { code, reason }
    }

    /// Returns the close code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the reason, at most 123 bytes.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    const fn constant(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The close frame a server sends for this reason (RFC 6455 5.5.1).
    pub(crate) fn frame(&self) -> Vec<u8> {
        if !is_sendable(self.code) {
            return vec![CLOSE, 0];
        }
        let length = 2 + self.reason.len() as u8;
        [&[CLOSE, length][..], &self.code.to_be_bytes(), self.reason.as_bytes()].concat()
    }
}

/// FIN and the opcode of a close frame (RFC 6455 5.2).
pub(crate) const CLOSE: u8 = 0x88;

/// Whether a close frame may carry `code` (RFC 6455 7.4, and the registry of close codes).
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

impl fmt::Debug for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disconnect({}, {:?})", self.code, self.reason)
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{} {}", self.code, self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = "é".repeat(100);
        let disconnect = Disconnect::new(4000, long);
        assert_eq!(disconnect.reason().len(), 122);
        assert_eq!(disconnect.frame().len(), 2 + 2 + 122);
    }

    #[test]
    fn codes_that_must_not_be_sent_become_an_empty_close_frame() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
            assert_eq!(Disconnect::new(code, "x").frame(), [0x88, 0], "code {code}");
        }
        assert_eq!(Disconnect::new(4000, "x").frame(), [0x88, 3, 0x0f, 0xa0, b'x']);
    }
}
