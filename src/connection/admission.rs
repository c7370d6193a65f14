//! What the hook admits a client with.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::frame::FRAME_HEADER_MAX;
use crate::hub::queue_config::QueueConfig;
use crate::hub::since::Since;
use crate::overflow::Overflow;
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
    pub(crate) prefixes: Vec<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) extension: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) since: Option<Since>,
    pub(crate) until: Option<u64>,
    pub(crate) rate: Option<Rate>,
    pub(crate) has_labels: bool,
    /// What only some clients have; boxed, since the admission of most has nothing of it.
    pub(crate) terms: Option<Box<Terms>>,
}

/// The limits of one client, where they are not those of [`Config`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    queue: Option<usize>,
    queue_bytes: Option<usize>,
    overflow: Option<Overflow>,
    pub(crate) max_message: Option<usize>,
    /// The interval of a client that hears the newest message of its room only.
    pub(crate) every: Option<Duration>,
}

impl Terms {
    /// The limits of the client's queue, if they are not those of all.
    ///
    /// Under a ceiling each connection has reserved what the limits of all allow, and no more.
    pub(crate) fn queue_config(&self, all: &QueueConfig, config: &Config) -> Option<QueueConfig> {
        let Self { queue, queue_bytes, overflow, .. } = self;
        if queue.is_none() && queue_bytes.is_none() && overflow.is_none() {
            return None;
        }
        let limit = |own: &Option<usize>, all: usize, least: usize| {
            let most = if config.max_memory.is_some() { all } else { Config::LIMIT_MAX };
            own.map_or(all, |own| own.clamp(least.min(most), most))
        };
        Some(QueueConfig {
            messages: limit(queue, all.messages, 1),
            bytes: limit(queue_bytes, all.bytes, config.max_message + FRAME_HEADER_MAX),
            overflow: overflow.unwrap_or(all.overflow),
            counters: Arc::clone(&all.counters),
            memory: Arc::clone(&all.memory),
        })
    }
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

    /// Has the client hear every room whose name begins so, also rooms that begin to exist later. A `*` at
    /// the end stands for whatever follows, and may be left out: `sensor/*` is `sensor/`. An empty prefix
    /// is for all rooms.
    ///
    /// The client is a recipient of what is published there, and no member: it is not listed, and a room
    /// that only a prefix covers does not exist. It hears a message once, however many of its rooms and
    /// prefixes are for it. Its messages have [labels](Self::labels).
    ///
    /// A prefix has at most 128 bytes and no control characters; for any other the hub answers 500, since
    /// the hook is wrong. It counts as a room of the client
    /// ([`Config::max_rooms_per_client`](crate::Config#structfield.max_rooms_per_client)), and not among
    /// the rooms of the hub. Past [`Config::MAX_PREFIXES`](crate::Config::MAX_PREFIXES) different ones the
    /// hub answers 503; with [`Config::redis`](crate::Config#structfield.redis) it answers 400.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut sensors = hub.subscribe(Admission::anonymous().prefix("sensor/*")).await?;
    /// assert_eq!(hub.publish("sensor/1", "21.5").await?, 1);
    /// assert_eq!(hub.publish("door/1", "open").await?, 0);
    /// assert_eq!(sensors.next().await.expect("connected").as_text(), Some("21.5"));
    /// assert_eq!(sensors.room(), Some("sensor/1"));
    /// assert_eq!(hub.stats().rooms, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        let prefix = prefix.as_ref();
        let prefix: Arc<str> = prefix.strip_suffix('*').unwrap_or(prefix).into();
        if !self.prefixes.contains(&prefix) {
            self.prefixes.push(prefix);
        }
        self.labels()
    }

    /// Has each message say its room: the client is sent it with a label ahead of the payload, as
    /// [`Message::with_label`](crate::Message::with_label) makes it. A message that is for no room, as
    /// for a user or for all, has an empty line there.
    ///
    /// For a client that is in several rooms and has to tell them apart. What it sends reaches
    /// [`on_message`](crate::Handler::on_message) as it came;
    /// [`Message::split_label`](crate::Message::split_label) reads a label.
    ///
    /// It is for WebSockets and for streams of events, where the label is the first line of the data,
    /// and is no part of the base64 of a binary message. A [`Subscription`](crate::Subscription) says the
    /// room of each message by itself. The client is not told of positions:
    /// with [`since`](Self::since) the hub answers 500, since the hook is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Client, Disconnect, Handler, Message, Peer};
    /// use hublet::http::{Request, StatusCode};
    ///
    /// /// Every client is in two rooms, and says with each message which of them it is for.
    /// struct Two;
    /// impl Handler for Two {
    ///     async fn on_upgrade(&self, _: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
    ///         Ok(Admission::anonymous().room("news").room("sports").labels())
    ///     }
    ///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
    ///         let (room, message) = message.split_label().ok_or(Disconnect::UNSUPPORTED)?;
    ///         if !client.rooms().await?.iter().any(|own| **own == *room) {
    ///             return Err(Disconnect::POLICY);
    ///         }
    ///         client.publish(&room, message).await?;
    ///         Ok(())
    ///     }
    /// }
    /// # use hublet::{Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// # let ada = hub.subscribe(Admission::anonymous().room("news").room("sports").labels()).await?;
    /// # let mut bob = hub.subscribe(Admission::anonymous().room("sports")).await?;
    /// # Two.on_message(ada.client(), "sports\ngoal".into()).await.expect("it may");
    /// # assert_eq!(bob.next().await.expect("connected").as_text(), Some("goal"));
    /// # let other = Two.on_message(ada.client(), "weather\nrain".into()).await;
    /// # assert_eq!(other, Err(Disconnect::POLICY));
    /// # let none = Two.on_message(ada.client(), "goal".into()).await;
    /// # assert_eq!(none, Err(Disconnect::UNSUPPORTED));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn labels(mut self) -> Self {
        self.has_labels = true;
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
    /// ([`Relay`](crate::Relay)). If it misses a message, the hub closes it with 4108.
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
    /// Unix time, with 401: when its token expires, as the claim `exp` says it.
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
    /// # let (request, peer) = (Request::new(()), Peer::unknown());
    /// # let admitted = News.on_upgrade(&request, &peer);
    /// # assert_eq!(smol::block_on(admitted).expect("it may").rooms().count(), 1);
    /// ```
    #[must_use]
    pub fn until(mut self, unix_seconds: u64) -> Self {
        self.until = Some(unix_seconds);
        self
    }

    /// Limits what the client may send in a second, instead of
    /// [`Config::max_rate`](crate::Config#structfield.max_rate) and
    /// [`Config::max_rate_bytes`](crate::Config#structfield.max_rate_bytes). [`Rate`] has an example.
    ///
    /// It is for WebSockets: no other client sends over its connection.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets how many messages may wait for the client, instead of
    /// [`Config::queue`](crate::Config#structfield.queue); at least 1. Below half of that, a client that
    /// keeps up may still overflow, since the hub sends as many at once. Under
    /// [`Config::max_memory`](crate::Config#structfield.max_memory) more than that field has no effect.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub, Overflow};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// // A display: it shows the newest state, and need not hear of the others.
    /// let display = Admission::anonymous().room("state").overflow(Overflow::Latest);
    /// let mut display = hub.subscribe(display.queue(1)).await?;
    /// for state in ["red", "yellow", "green"] {
    ///     hub.publish("state", state).await?;
    /// }
    /// assert_eq!(display.next().await.expect("connected").as_text(), Some("green"));
    /// assert_eq!(display.missed(), 2);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn queue(mut self, messages: usize) -> Self {
        self.terms().queue = Some(messages);
        self
    }

    /// Sets how many bytes of frames may wait for the client, instead of
    /// [`Config::queue_bytes`](crate::Config#structfield.queue_bytes); as many as the longest message
    /// needs at least. Under [`Config::max_memory`](crate::Config#structfield.max_memory) more than
    /// that field has no effect.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.terms().queue_bytes = Some(bytes);
        self
    }

    /// Sets what happens to the client when its queue is full, instead of
    /// [`Config::overflow`](crate::Config#structfield.overflow).
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.terms().overflow = Some(overflow);
        self
    }

    /// Sets the longest message of the client, in bytes; a longer one closes it with 1009. More
    /// than [`Config::max_message`](crate::Config#structfield.max_message) has no effect. It is for
    /// WebSockets.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.terms().max_message = Some(bytes);
        self
    }

    /// Has the client hear the newest message of its room only, at most one an interval.
    ///
    /// The first message goes at once, and so does each that comes when the last one was sent longer
    /// ago. Another one waits until the interval is over, and a newer one takes its place: the newest
    /// always goes in the end, also ahead of the client's own end. The interval is 100 ms
    /// ([`Config::EVERY_MIN`](crate::Config::EVERY_MIN)) at least and an hour
    /// ([`Config::EVERY_MAX`](crate::Config::EVERY_MAX)) at most; a
    /// value outside counts as the nearest of these.
    ///
    /// A message to all clients counts as one of the room. One to the client or to its user goes at
    /// once, ahead of what waits. A message that was left out counts as dropped in
    /// [`Stats`](crate::Stats), and as lost for
    /// [`Hub::publish_acked`](crate::Hub::publish_acked). A stream of events is told how many those were
    /// in an event `gap`.
    ///
    /// The client must be in one room, without a prefix and labels, and a WebSocket must not have
    /// [`since`](Self::since): else the hub answers 500, since the hook is wrong. It stays in that room: a
    /// later [`join`](crate::Hub::join) or [`leave`](crate::Hub::leave) fails with
    /// [`Error::is_one_room`](crate::Error::is_one_room). A
    /// [`Subscription`](crate::Subscription) takes its messages when it likes, so this is not for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hublet::http::{Request, StatusCode};
    /// use hublet::{Admission, Client, Disconnect, Handler, Message, Peer, every_of};
    ///
    /// /// Shows the state to displays, each as often as it asks for, or twice a second.
    /// struct Displays;
    /// impl Handler for Displays {
    ///     async fn on_upgrade(
    ///         &self,
    ///         request: &Request<()>,
    ///         _: &Peer,
    ///     ) -> Result<Admission, StatusCode> {
    ///         let every = every_of(request.uri()).map_err(|_| StatusCode::BAD_REQUEST)?;
    ///         let every = every.unwrap_or(Duration::from_millis(500));
    ///         Ok(Admission::anonymous().room("state").every(every))
    ///     }
    ///     async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
    ///         Err(Disconnect::POLICY)
    ///     }
    /// }
    /// # let admit = |uri: &str| {
    /// #     let request = Request::get(uri).body(()).expect("well-formed");
    /// #     smol::block_on(Displays.on_upgrade(&request, &Peer::unknown()))
    /// # };
    /// # assert!(admit("/ws").is_ok() && admit("/ws?every=2s").is_ok());
    /// # assert_eq!(admit("/ws?every=never").err(), Some(StatusCode::BAD_REQUEST));
    /// ```
    #[doc(alias = "conflate")]
    #[doc(alias = "throttle")]
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.terms().every = Some(interval.clamp(Config::EVERY_MIN, Config::EVERY_MAX));
        self
    }

    fn terms(&mut self) -> &mut Terms {
        self.terms.get_or_insert_default()
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
