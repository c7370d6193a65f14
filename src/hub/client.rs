//! A client, as the application sees it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::{Command, Publish};
use crate::hub::handle::Hub;
use crate::message::Message;
use crate::name::is_prefix;
use crate::peer::Peer;

/// One connected peer, as hooks see it.
///
/// Its verbs reach everyone else: what a client [`publish`](Client::publish)es does not come back
/// to it. To reach everyone, itself included, use its [`hub`](Client::hub). It is cheap to clone,
/// and to keep is harmless: it keeps the hub, not the connection. Cancel safety: as
/// [the hub's](Hub#cancel-safety).
///
/// # Examples
///
/// ```
/// use hublet::{Client, Disconnect, Handler, Message};
///
/// /// `/join news` joins a room; anything else goes to everyone else in the rooms one is in.
/// struct Rooms;
///
/// impl Handler for Rooms {
///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
///         let text = message.as_text().ok_or(Disconnect::UNSUPPORTED)?;
///         // What the hub refuses, as a room too many, ends the client.
///         if let Some(room) = text.strip_prefix("/join ") {
///             client.join(room).await?;
///         } else {
///             for room in client.rooms().await? {
///                 client.publish(&room, text).await?;
///             }
///         }
///         Ok(())
///     }
/// }
/// # use hublet::{Admission, Config, Hub};
/// # smol::block_on(async {
/// # let (hub, manager) = Hub::new(Config::default())?;
/// # smol::spawn(manager).detach();
/// let ada = hub.subscribe(Admission::user("ada")).await?;
/// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
/// for said in ["/join news", "hello"] {
///     Rooms.on_message(ada.client(), said.into()).await.expect("it stays");
/// }
/// assert_eq!(bob.next().await.expect("connected").as_text(), Some("hello"));
///
/// let picture = Message::binary([0xff, 0xd8]);
/// assert_eq!(Rooms.on_message(ada.client(), picture).await, Err(Disconnect::UNSUPPORTED));
/// # Ok::<_, hublet::Error>(())
/// # }).expect("it works");
/// ```
#[doc(alias = "session")]
#[doc(alias = "connection")]
#[derive(Clone)]
pub struct Client {
    hub: Hub,
    id: ClientId,
    user: Option<Arc<str>>,
    /// Where its connection comes from.
    peer: Peer,
    /// What `on_upgrade` attached for the later hooks; once the client has left, [`Departed`].
    extension: Option<Arc<dyn Any + Send + Sync>>,
}

/// What `on_disconnect` knows of its client. In the place of the extension, so that a client that
/// is connected has no room for it.
struct Departed {
    /// The rooms that it left.
    rooms: Vec<Arc<str>>,
    extension: Option<Arc<dyn Any + Send + Sync>>,
}

impl Client {
    pub(crate) fn new(
        hub: Hub,
        id: ClientId,
        user: Option<Arc<str>>,
        peer: Peer,
        extension: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self { hub, id, user, peer, extension }
    }

    /// The client for `on_disconnect`, with the rooms that it left.
    pub(crate) fn departed(&self, rooms: Vec<Arc<str>>) -> Self {
        let departed = Departed { rooms, extension: self.extension.clone() };
        Self { extension: Some(Arc::new(departed)), ..self.clone() }
    }

    /// Returns the client's id, which names it among all clients of the hub, past ones included.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Returns the client's user, as [`Admission::user`](crate::Admission::user) set it, or `None`
    /// if it is anonymous.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns where the client's connection comes from, as `on_upgrade` was told it: the peer, or
    /// the client that a proxy of [`Config::trusted_proxies`](crate::Config::trusted_proxies) names.
    ///
    /// [`Peer::unknown`] for a [`Subscription`](crate::Subscription) and for a client of
    /// [`Hub::serve_upgraded`], whose request the hub has not read.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Client, Disconnect, Handler, Message};
    ///
    /// /// Sends each message with the address of its sender before it.
    /// struct Named;
    ///
    /// impl Handler for Named {
    ///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
    ///         let text = message.as_text().ok_or(Disconnect::UNSUPPORTED)?;
    ///         let sender = match client.peer().address() {
    ///             Some(address) => address.ip().to_string(),
    ///             None => "no address".to_owned(),
    ///         };
    ///         client.hub().broadcast(format!("{sender}: {text}")).await?;
    ///         Ok(())
    ///     }
    /// }
    /// # use hublet::{Admission, Config, Hub, Peer};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// # let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// # assert!(ada.client().peer().address().is_none());
    /// # Named.on_message(ada.client(), "hello".into()).await.expect("it stays");
    /// # let message = ada.next().await.expect("connected");
    /// # assert_eq!(message.as_text(), Some("no address: hello"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns the hub the client is connected to.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Returns what [`Admission::extension`](crate::Admission::extension) attached, if it is a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// /// What a token allowed.
    /// struct Rights {
    ///     admin: bool,
    /// }
    ///
    /// let ada = hub.subscribe(Admission::user("ada").extension(Rights { admin: true })).await?;
    /// let rights = ada.client().extension::<Rights>();
    /// assert!(rights.is_some_and(|rights| rights.admin));
    /// assert!(ada.client().extension::<String>().is_none());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn extension<T: Any>(&self) -> Option<&T> {
        let extension = match self.left() {
            Some(departed) => &departed.extension,
            None => &self.extension,
        };
        extension.as_ref()?.downcast_ref()
    }

    /// Whether an extension is attached.
    pub(crate) fn has_extension(&self) -> bool {
        self.extension.is_some()
    }

    /// What is known of a client that has left; only `on_disconnect` is given one.
    fn left(&self) -> Option<&Departed> {
        self.extension.as_ref()?.downcast_ref()
    }

    /// Asks for the rooms the client is in, in the order it joined them.
    ///
    /// In [`on_disconnect`](crate::Handler::on_disconnect) these are the rooms that it has left,
    /// and the answer needs no wait.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`] once it is gone, [`Error::is_closed`]. None in `on_disconnect`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// ada.client().join("sports").await?;
    /// let rooms = ada.client().rooms().await?;
    /// assert_eq!(rooms.iter().map(|room| &**room).collect::<Vec<_>>(), ["news", "sports"]);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn rooms(&self) -> Result<Vec<Arc<str>>, Error> {
        if let Some(departed) = self.left() {
            return Ok(departed.rooms.clone());
        }
        let rooms = self.hub.request(|reply| Command::Rooms { id: self.id, reply }).await?;
        rooms.ok_or_else(|| Error::new(Kind::UnknownClient))
    }

    /// Sends a message to this client; returns 1, or 0 if it is gone.
    ///
    /// # Errors
    ///
    /// As [`Hub::broadcast`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// assert_eq!(ada.client().send("only for you").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("only for you"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn send(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub.send(self.id, message).await
    }

    /// Sends a message to everyone else in a room; returns how many.
    ///
    /// The client need not be in the room.
    ///
    /// # Errors
    ///
    /// As [`Hub::publish`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// let ada = ada.client();
    ///
    /// assert_eq!(ada.publish("news", "hello").await?, 1);
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // Through the hub it reaches the sender too.
    /// assert_eq!(ada.hub().publish("news", "hello").await?, 2);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn publish(&self, room: &str, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub
            .publish_counted(Publish::by_client(self.id, Target::Room(room.into()), message.into()))
            .await
    }

    /// Sends a message to everyone else in a room if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`Hub::try_publish`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// let ada = ada.client();
    ///
    /// ada.try_publish("news", "hello")?;
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    /// assert!(ada.try_publish("", "hello").expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_publish(&self, room: &str, message: impl Into<Message>) -> Result<(), Error> {
        self.hub.publish_now(Publish::by_client(self.id, Target::Room(room.into()), message.into()))
    }

    /// Sends a message to every other client; returns how many.
    ///
    /// # Errors
    ///
    /// As [`Hub::broadcast`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// let ada = ada.client();
    ///
    /// assert_eq!(ada.broadcast("hello").await?, 1);
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "emit")]
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub.publish_counted(Publish::by_client(self.id, Target::All, message.into())).await
    }

    /// Sends a message to every other client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`Hub::try_broadcast`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// let ada = ada.client();
    ///
    /// ada.try_broadcast("hello")?;
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_broadcast(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.hub.publish_now(Publish::by_client(self.id, Target::All, message.into()))
    }

    /// Puts this client into a room.
    ///
    /// # Errors
    ///
    /// As [`Hub::join`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// ada.client().join("news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 1);
    /// assert!(ada.client().join("").await.expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "subscribe")]
    pub async fn join(&self, room: &str) -> Result<(), Error> {
        self.hub.join(self.id, room).await
    }

    /// Has this client hear every room whose name begins so, as
    /// [`Admission::prefix`](crate::Admission::prefix) does. Being there already is no error.
    ///
    /// Only a client that was admitted with labels or with a prefix gets labels.
    ///
    /// # Errors
    ///
    /// As [`Hub::join`]; [`Error::is_limit`] also past
    /// [`Config::MAX_PREFIXES`](crate::Config::MAX_PREFIXES) prefixes of all clients, and
    /// [`Error::is_config`] with [`Config::redis`](crate::Config#structfield.redis).
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// ada.client().join_prefix("sensor/*").await?;
    /// assert_eq!(hub.publish("sensor/1", "21.5").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected").as_text(), Some("21.5"));
    /// assert_eq!(ada.room(), Some("sensor/1"));
    /// assert!(ada.client().hears("sensor/2").await?);
    ///
    /// ada.client().leave_prefix("sensor/*").await?;
    /// assert_eq!(hub.publish("sensor/1", "21.5").await?, 0);
    /// assert!(ada.client().join_prefix("a\n").await.expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn join_prefix(&self, prefix: &str) -> Result<(), Error> {
        let prefix = prefix.strip_suffix('*').unwrap_or(prefix);
        if !is_prefix(prefix) {
            return Err(Error::new(Kind::Name));
        }
        if self.hub.shared().backplane.is_some() {
            return Err(Error::config("a hub with redis has rooms and no prefixes".to_owned()));
        }
        self.hub.enter(self.id, prefix, true).await
    }

    /// Has this client hear a prefix no more. Rooms that it is in, it hears still.
    ///
    /// # Errors
    ///
    /// As [`Hub::leave`].
    pub async fn leave_prefix(&self, prefix: &str) -> Result<(), Error> {
        let prefix = prefix.strip_suffix('*').unwrap_or(prefix);
        self.hub.exit(self.id, prefix, true).await
    }

    /// Returns whether the client hears a room: as a member of it, or by a prefix. A client that is gone
    /// hears none. [`join_prefix`](Self::join_prefix) has an example.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    pub async fn hears(&self, room: &str) -> Result<bool, Error> {
        let room = room.into();
        self.hub.request(|reply| Command::Hears { id: self.id, room, reply }).await
    }

    /// Takes this client out of a room.
    ///
    /// # Errors
    ///
    /// As [`Hub::leave`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// ada.client().leave("news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "unsubscribe")]
    pub async fn leave(&self, room: &str) -> Result<(), Error> {
        self.hub.leave(self.id, room).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("user", &self.user).finish()
    }
}
