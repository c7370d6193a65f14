//! Why a connection ends: close code and reason.

use std::borrow::Cow;
use std::fmt;

/// The longest reason that fits a close frame: 125 bytes less the code (RFC 6455 5.5.1).
pub(crate) const REASON_MAX: usize = 123;

/// Why a connection ended: a close code and a reason (RFC 6455 7.4).
///
/// The same type in both directions: the close frame that the hub sends, and the peer's.
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
    /// 1003: the server does not accept this kind of message.
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
    /// 1011: the server failed.
    pub const INTERNAL: Self = Self::constant(1011, "internal error");
    /// 1012: the service restarts; the client should reconnect.
    pub const RESTART: Self = Self::constant(1012, "restarting");
    /// 1013: the server is at a limit; the client should try again later.
    pub const TRY_LATER: Self = Self::constant(1013, "try again later");
    /// 4108: the client was too slow and its queue overflowed.
    pub const SLOW: Self = Self::constant(4108, "too slow");
    /// 4109: messages of its room passed the hub unheard, and the client counts them
    /// ([`Config::redis`](crate::Config#structfield.redis)).
    pub const GAP: Self = Self::constant(4109, "gap");

    /// Makes a reason with a code of your choice.
    ///
    /// A reason over 123 bytes is cut at a character, since a close frame holds no more (RFC 6455
    /// 5.5.1). Some codes must not be in a close frame: below 1000, 1004 to 1006, 1015 to 2999,
    /// 5000 and above (RFC 6455 7.4). Hooks and logs see such a code, and the peer gets a close
    /// frame without one.
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
pub(crate) fn is_sendable(code: u16) -> bool {
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
