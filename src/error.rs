//! The errors that the hub returns.

use std::borrow::Cow;
use std::{error, fmt, io};

use http::StatusCode;

use crate::disconnect::Disconnect;
use crate::message::Message;

/// An error of the hub.
///
/// It is opaque: the `is_*` methods tell its kind. [`into_message`](Error::into_message) returns a
/// refused message.
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
    /// The refused message, for the caller to take back.
    message: Option<Message>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// An invalid configuration; the sentence names the value and what is allowed.
    Config(String),
    /// The hub was drained, or its manager future was dropped.
    Closed,
    /// The inbox has no room now.
    Full,
    /// No client with this id is connected.
    UnknownClient,
    /// A message longer than the limit: its length and the limit, in bytes.
    TooLong { len: usize, max: usize },
    /// A name of a room or a user that is empty, too long or holds control characters.
    Name,
    /// A limit on rooms or clients was reached; the phrase names it.
    Limit(String),
    /// The client counts the messages of its one room, and hears nothing else.
    OneRoom,
    /// The request was answered with this status instead of an upgrade.
    Refused(StatusCode, Cow<'static, str>),
    /// The backplane is away, so that nothing can be shared with other hubs.
    Unavailable,
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
    /// [`Hub::try_publish`](crate::Hub::try_publish) has an example.
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
    /// [`Config::max_message`](crate::Config#structfield.max_message). The text of the error names
    /// the limit.
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

    /// Returns whether the hub has lost the connection to the engine that it shares with other hubs
    /// ([`Config::redis`](crate::Config#structfield.redis)); the same call may succeed later.
    ///
    /// A message that no hub has heard comes back with [`into_message`](Self::into_message). If it
    /// does not come back, it may have been published.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// let redis = "redis://127.0.0.1".parse()?;
    /// let (hub, manager) = Hub::new(Config::default().redis(Some(redis)))?;
    /// # smol::spawn(manager).detach();
    /// // The program has not called `Hub::connect_redis`: no client can join.
    /// let error = hub.subscribe(Admission::anonymous().room("news")).await.expect_err("away");
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(503));
    /// let error = hub.try_publish("news", "hello").expect_err("away");
    /// assert!(error.is_full() && !error.is_unavailable());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable)
    }

    /// Returns whether the client came with [`since`](crate::Admission::since) and counts the messages
    /// of its one room: a message for it alone, or another room, would make its count wrong.
    #[must_use]
    pub fn is_one_room(&self) -> bool {
        matches!(self.kind, Kind::OneRoom)
    }

    /// Returns the HTTP status with which a request was refused, or would have been, before an
    /// upgrade.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Refused(status, _) => Some(status),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    fn is_at_limit(&self) -> bool {
        let is_full = matches!(self.kind, Kind::Limit(_) | Kind::Full);
        is_full || self.status() == Some(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Whether the last request was answered with what it asked for.
    pub(crate) fn is_answered(&self) -> bool {
        let status = self.status();
        status.is_some_and(|status| !status.is_client_error() && !status.is_server_error())
    }

    /// Returns the refused message, if the call took one, to be sent again.
    ///
    /// `None` for a message that was in the inbox when the hub ended: it may have been sent.
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
            Kind::OneRoom => f.write_str(
                "the client came with `since` or `every`, and hears the messages of its one room only",
            ),
            Kind::Refused(status, sentence) => {
                write!(f, "request refused with {}: {sentence}", status.as_u16())
            }
            Kind::Unavailable => f.write_str("the connection to the other hubs is lost"),
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

/// What a hook ends its client with when the hub refuses what the hook asks for: 1001 once the hub
/// has ended, 1013 at a limit or without the other hubs, 1008 for anything else. The reason is the
/// sentence of the error, so `?` is enough in a hook.
///
/// At a limit is [`Error::is_limit`], [`Error::is_full`], and the [`Error::status`] 503; without the
/// other hubs is [`Error::is_unavailable`].
///
/// # Examples
///
/// ```
/// use hublet::{Client, Disconnect, Handler, Message};
///
/// /// Sends each message to the rooms of its sender.
/// struct Rooms;
///
/// impl Handler for Rooms {
///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
///         for room in client.rooms().await? {
///             client.publish(&room, message.clone()).await?;
///         }
///         Ok(())
///     }
/// }
/// # use hublet::{Config, Hub};
/// # let (hub, manager) = Hub::new(Config::default()).expect("the defaults are valid");
/// let error = hub.try_publish("", "hello").expect_err("no name");
/// assert_eq!(Disconnect::from(error).code(), 1008);
///
/// drop(manager);
/// let error = hub.try_publish("news", "hello").expect_err("the hub has ended");
/// assert_eq!(Disconnect::from(error), Disconnect::GOING_AWAY);
/// ```
impl From<Error> for Disconnect {
    fn from(error: Error) -> Self {
        if error.is_closed() {
            return Self::GOING_AWAY;
        }
        let is_late = error.is_at_limit() || error.is_unavailable();
        let code = if is_late { Self::TRY_LATER } else { Self::POLICY };
        Self::new(code.code(), error.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Io(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_ends_a_client_with_the_code_of_its_kind() {
        let refused = |status| Kind::Refused(status, "no".into());
        for (kind, code, reason) in [
            (Kind::Closed, 1001, "going away"),
            (Kind::Limit("8 rooms exist, the limit".into()), 1013, "8 rooms exist, the limit"),
            (Kind::Full, 1013, "the hub's inbox is full"),
            (Kind::Unavailable, 1013, "the connection to the other hubs is lost"),
            (refused(StatusCode::SERVICE_UNAVAILABLE), 1013, "request refused with 503: no"),
            (refused(StatusCode::INTERNAL_SERVER_ERROR), 1008, "request refused with 500: no"),
            (Kind::UnknownClient, 1008, "no such client is connected"),
            (Kind::TooLong { len: 5, max: 4 }, 1008, "message of 5 bytes exceeds the limit of 4"),
        ] {
            let disconnect = Disconnect::from(Error::new(kind));
            assert_eq!((disconnect.code(), disconnect.reason()), (code, reason));
        }
    }

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
