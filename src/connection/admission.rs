//! What the hook admits a client with.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::hub::since::Since;
use crate::rate::Rate;

/// The user, the rooms and the rest that a client is admitted with.
///
/// # Examples
///
/// ```
/// use hublet::Admission;
///
/// let admission = Admission::user("ada").room("lobby").room("news");
/// assert_eq!(admission.rooms().collect::<Vec<_>>(), ["lobby", "news"]);
/// assert_eq!(Admission::anonymous().rooms().count(), 0);
/// ```
#[derive(Clone, Default)]
pub struct Admission {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) rooms: Vec<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) extension: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) since: Option<Since>,
    pub(crate) until: Option<u64>,
    pub(crate) rate: Option<Rate>,
}

impl Admission {
    /// Admits a client without a user.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let visitor = hub.subscribe(Admission::anonymous()).await?;
    /// assert_eq!(visitor.client().user(), None);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Admits a client of a user. One user may have many clients.
    ///
    /// The application chooses the id: 1 to 128 bytes without control characters. For any other the
    /// hub answers 500, since the hook is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// assert_eq!(ada.client().user(), Some("ada"));
    ///
    /// let error = hub.subscribe(Admission::user("")).await.expect_err("no name");
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(500));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn user(id: impl Into<Arc<str>>) -> Self {
        Self { user: Some(id.into()), ..Self::default() }
    }

    /// Adds a room that the client is in from the start.
    ///
    /// A name has 1 to 128 bytes and no control characters. For any other the hub answers 500,
    /// since the hook is wrong. The limit on rooms per client applies.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let _ada = hub.subscribe(Admission::user("ada").room("news").room("sports")).await?;
    /// assert_eq!(hub.publish("sports", "goal").await?, 1);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "channel")]
    #[doc(alias = "group")]
    #[doc(alias = "topic")]
    #[must_use]
    pub fn room(mut self, name: impl Into<Arc<str>>) -> Self {
        if self.rooms.is_empty() {
            // Most clients are in one room.
            self.rooms.reserve_exact(1);
        }
        self.rooms.push(name.into());
        self
    }

    /// Answers with this subprotocol (RFC 6455 4.2.2), one that the request offered.
    ///
    /// For a subprotocol that the request did not offer the hub answers 500, since the hook is
    /// wrong. Without this call the answer has no subprotocol, and most clients go on without one.
    /// [`Hub::upgrade`](crate::Hub::upgrade) has an example.
    #[doc(alias = "subprotocol")]
    #[must_use]
    pub fn protocol(mut self, name: impl Into<Arc<str>>) -> Self {
        self.protocol = Some(name.into());
        self
    }

    /// Has the client count the messages of its room, and begin where `since` says.
    ///
    /// A **WebSocket** gets a text as its first frame: the position before its next message. Then it
    /// gets what the room keeps from there, and then each new message: each is one more. It hears
    /// what it publishes itself. It hears nothing but its room, or its count would be wrong:
    /// [`Hub::send`](crate::Hub::send) to it and a further [`join`](crate::Hub::join) fail
    /// ([`Error::is_one_room`](crate::Error::is_one_room)), and
    /// [`Hub::send_to_user`](crate::Hub::send_to_user) passes it over. Only an empty binary message can
    /// be sent to it, which it does not count: the answer to a question of its own
    /// ([`Relay`](crate::Relay)). If it misses a message, the
    /// hub closes it with 4108.
    ///
    /// A **stream of events** and a [`Subscription`](crate::Subscription) go on behind a gap. A stream
    /// has the position of each message as its `id`, and says a gap in an event `gap`; with
    /// [`Config::http`](crate::Config::http) the request says `since` itself.
    ///
    /// The client must be in one room; else the hub answers 500, since the hook is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Config, HistoryRule, Hub, Since};
    ///
    /// # smol::block_on(async {
    /// let (hub, manager) = Hub::new(Config::default().history(vec![HistoryRule::new("*", 10)]))?;
    /// # smol::spawn(manager).detach();
    /// hub.publish("news", "first").await?;
    /// hub.publish("news", "second").await?;
    ///
    /// let reader = || Admission::user("ada").room("news").since(Since::Newest(1));
    /// let mut ada = hub.subscribe(reader()).await?;
    /// assert_eq!(ada.next().await.expect("kept").as_text(), Some("second"));
    /// let heard = ada.position().expect("it counts");
    /// drop(ada);
    ///
    /// // What was said meanwhile is there when it comes back.
    /// hub.publish("news", "third").await?;
    /// let mut ada = hub.subscribe(reader().since(Since::Position(heard))).await?;
    /// assert_eq!(ada.next().await.expect("kept").as_text(), Some("third"));
    /// assert_eq!(ada.position(), Some(heard + 1));
    ///
    /// let error = hub.subscribe(reader().room("sports")).await.expect_err("two rooms");
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(500));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn since(mut self, since: Since) -> Self {
        self.since = Some(since);
        self
    }

    /// Ends a request that waits for a message (`GET /pub/{room}?wait=25s`) at this time, in seconds of
    /// Unix time, with 401: when its token is over, as the claim `exp` says it.
    ///
    /// A client is not ended by this: end it with [`Hub::disconnect`](crate::Hub::disconnect).
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Handler, Peer};
    /// use hublet::http::{Request, StatusCode};
    /// # use hublet::{Client, Disconnect, Message};
    ///
    /// /// Lets each visitor read the news, and wait for more until the end of 2033.
    /// struct News;
    /// impl Handler for News {
    ///     async fn on_upgrade(&self, _: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
    ///         Ok(Admission::anonymous().room("news").until(2_019_686_400))
    ///     }
    /// #   async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> { Ok(()) }
    /// }
    /// # let admitted = News.on_upgrade(&Request::new(()), &Peer::unknown());
    /// # assert_eq!(smol::block_on(admitted).expect("it may").rooms().count(), 1);
    /// ```
    #[must_use]
    pub fn until(mut self, unix_seconds: u64) -> Self {
        self.until = Some(unix_seconds);
        self
    }

    /// Has the client send at most so much, instead of
    /// [`Config::max_rate`](crate::Config#structfield.max_rate) and
    /// [`Config::max_rate_bytes`](crate::Config#structfield.max_rate_bytes). [`Rate`] has an example.
    ///
    /// It is for WebSockets: no other client sends over its connection.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Attaches a value that the later hooks read with
    /// [`Client::extension`](crate::Client::extension).
    #[must_use]
    pub fn extension(mut self, value: impl Any + Send + Sync) -> Self {
        self.extension = Some(Arc::new(value));
        self
    }

    /// Returns the rooms added so far.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(|room| &**room)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("user", &self.user)
            .field("rooms", &self.rooms)
            .field("protocol", &self.protocol)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
