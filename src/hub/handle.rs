//! The hub: no socket, no clock, no executor. All of it runs in a test without I/O.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_lite::future::or;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::error::{Error, Kind};
use crate::hub::ack::{Ack, Acking, Acknowledged, WAIT_MAX};
use crate::hub::backplane::{ILL_AFTER, Link};
use crate::hub::client_id::{ClientId, Member, Refusal, Target};
use crate::hub::command::{Acked, Carry, Command, Dispatched, Publish, Told};
use crate::hub::history_config::{HistoryConfig, messages_max};
use crate::hub::holding::Holding;
use crate::hub::inbox;
use crate::hub::inbox::{CommandReceiver, Inbox, Refused, Sending};
use crate::hub::manager::Manager;
use crate::hub::pending_reply::PendingReply;
use crate::hub::queue_config::QueueConfig;
use crate::hub::registry::Registry;
use crate::hub::reply::{Answer, Reply, reply};
use crate::hub::since::{History, Since};
use crate::hub::sizing::Sizing;
use crate::hub::subscriptions::Subscriptions;
use crate::limits::admission::Admissions;
use crate::limits::descriptors::clients_max;
use crate::limits::post_rates::PostRates;
use crate::limits::warn_once::WarnOnce;
use crate::memory::budget::MemoryBudget;
use crate::memory::read_buffers::ReadBuffers;
use crate::message::Message;
use crate::name::is_name;
use crate::stats::{Counters, Stats, add};
use crate::time::timers::Timers;

/// The handle to a hub: broadcast, publish, send, join, leave, ask.
///
/// It is a reference count: cheap to clone, to store and to send to any thread. Messages that go
/// out through a hub reach everyone they are meant for; those that go out through a
/// [`Client`](crate::Client)
/// reach everyone else.
///
/// Delivery is at most once and ordered: all clients of a room see its messages in the same order.
/// A message is handed to the queue of each recipient; what becomes of it there is counted in
/// [`Stats`].
///
/// # Cancel safety
///
/// The verbs that return a future wait while the hub's inbox is full, and then for the manager to
/// have dispatched the command; none waits for a client. Dropped early, a command is carried out
/// whole or not at all, and its answer is lost: a message never reaches half a room. The `try_`
/// verbs do not wait.
///
/// # Examples
///
/// ```
/// use hublet::{Admission, Config, Hub};
///
/// # smol::block_on(async {
/// let (hub, manager) = Hub::new(Config::default())?;
/// let manager = smol::spawn(manager);
///
/// // No client is there yet.
/// assert_eq!(hub.publish("main", "hello").await?, 0);
///
/// let ada = hub.subscribe(Admission::user("ada").room("main")).await?;
/// assert_eq!(hub.publish("main", "hello").await?, 1);
///
/// // The manager's future ends with the last handle.
/// drop((ada, hub));
/// manager.await;
/// # Ok::<_, hublet::Error>(())
/// # }).expect("it works");
/// ```
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

/// What the handles of a hub share.
pub(crate) struct Shared {
    /// The way to the manager.
    inbox: Inbox,
    /// The configuration, checked.
    pub(crate) config: Config,
    /// What follows from the ceiling, if there is one.
    sizing: Option<Sizing>,
    /// What is counted.
    pub(crate) counters: Arc<Counters>,
    /// What the hub holds for others.
    memory: Arc<MemoryBudget>,
    /// What every client's queue has in common.
    pub(crate) queue_config: Arc<QueueConfig>,
    /// Admits connections and clients.
    pub(crate) admissions: Arc<Admissions>,
    /// What each address has published of late, if that is limited.
    pub(crate) post_rates: Option<Box<PostRates>>,
    /// Read buffers for the connections.
    pub(crate) read_buffers: ReadBuffers,
    /// The deadlines of all connections.
    pub(crate) timers: Arc<Timers>,
    /// When serving began, in seconds of Unix time; set by the first call that serves.
    pub(crate) started: OnceLock<u64>,
    /// What was refused and how to allow it, logged once for each name.
    pub(crate) refusals: WarnOnce,
    /// Whether the hub stands still, so that another process takes it over.
    pub(crate) holding: Holding,
    /// The way to other hubs, if [`Config::redis`] is set.
    pub(crate) backplane: Option<Box<Backplane>>,
}

/// The hub's side of its backplane.
#[derive(Debug)]
pub(crate) struct Backplane {
    pub(crate) link: Arc<Link>,
    /// What publishers have handed over; the driver takes this once.
    outbox: Mutex<Option<CommandReceiver>>,
}

impl Backplane {
    /// Takes the driver's side of the outbox; `None` if a driver has it already.
    pub(crate) fn take_outbox(&self) -> Option<CommandReceiver> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Shared {
    /// The driver of the backplane must see that the last hub and client are gone.
    fn drop(&mut self) {
        if let Some(backplane) = &self.backplane {
            backplane.link.close();
        }
    }
}

impl Shared {
    /// Compresses a message that goes to members of this hub, while any client gets compressed
    /// frames.
    ///
    /// Before the inbox, so that it is done once, by the task that publishes, and neither the manager
    /// nor a client waits for it.
    pub(crate) fn compress(&self, message: &Message) {
        let Self { config, counters, memory, .. } = self;
        if config.deflate.is_some_and(|least| message.len() >= least)
            && counters.deflating.load(Ordering::Relaxed) > 0
        {
            let is_made = message.deflate(memory);
            add(&counters.messages_compressed, u64::from(is_made));
        }
    }
}

impl Hub {
    /// Makes a hub: a handle to it, and the future that drives it.
    ///
    /// Spawn or await the future, the manager; without it nothing is dispatched. It ends when the
    /// last [`Hub`] and [`Client`](crate::Client) are gone, or after a drain. Dropping it ends the
    /// hub: every client is closed with 1001 and every verb fails with [`Error::is_closed`].
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if a value of `config`, or a relation between two, cannot work.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// assert_eq!(hub.stats().clients, 0);
    ///
    /// // What cannot work is refused, in a sentence.
    /// let error = Hub::new(Config::default().queue(0)).err().expect("no queue at all");
    /// assert!(error.is_config());
    /// assert_eq!(error.to_string(), "queue of 0 messages is not allowed: at least 1 is needed");
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn new(config: Config) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Error> {
        let (hub, manager) = Self::assemble(config, None)?;
        Ok((hub, manager.run()))
    }

    /// Makes a hub and its manager, which does not run yet. `name` is the one that the hub has on its
    /// backplane already.
    pub(crate) fn assemble(config: Config, name: Option<u64>) -> Result<(Self, Manager), Error> {
        config.check()?;
        let fds = clients_max();
        let sizing = Sizing::of(&config, fds)?;
        let memory = Arc::new(sizing.as_ref().map_or_else(MemoryBudget::default, Sizing::account));
        let counters = Arc::new(Counters::default());
        let inbox_bytes = sizing.as_ref().map_or(config.inbox_bytes, |sizing| sizing.inbox_bytes);
        let (inbox, commands) = inbox::inbox(config.inbox, inbox_bytes);
        let history = HistoryConfig::new(&config, sizing.as_ref().map(Sizing::messages));
        let registry = Registry::new(
            config.max_rooms,
            config.max_rooms_per_client,
            history,
            Arc::clone(&counters),
            &memory,
        );
        let timers = Timers::new();
        let backplane = config.redis.as_ref().map(|_| {
            let ill_at = timers.now().plus(ILL_AFTER);
            let (link, outbox) = Link::new((config.inbox, inbox_bytes), ill_at, name);
            Box::new(Backplane { link: Arc::new(link), outbox: Mutex::new(Some(outbox)) })
        });
        let subscriptions = backplane
            .as_ref()
            .map(|backplane| Box::new(Subscriptions::new(Arc::clone(&backplane.link), &memory)));
        let manager = Manager::new(
            commands,
            registry,
            Arc::clone(&counters),
            config.queue,
            config.queue_bytes,
            subscriptions,
        );
        let clients_max =
            sizing.as_ref().map_or(config.max_clients.unwrap_or(fds), |sizing| sizing.max_clients);
        let post_rates =
            config.max_post_rate.map(|rate| PostRates::new(rate, clients_max, &memory));
        let admissions = Admissions::new(
            clients_max,
            config.max_clients_per_ip,
            sizing.as_ref().map_or(config.handshakes, |sizing| sizing.handshakes),
            Arc::clone(&counters),
            Arc::clone(&memory),
        );
        let queue_config = QueueConfig {
            messages: config.queue,
            bytes: config.queue_bytes,
            overflow: config.overflow,
            counters: Arc::clone(&counters),
            memory: Arc::clone(&memory),
        };
        let shared = Shared {
            inbox,
            config,
            sizing,
            counters,
            memory,
            queue_config: Arc::new(queue_config),
            admissions: Arc::new(admissions),
            post_rates,
            read_buffers: ReadBuffers::default(),
            timers,
            started: OnceLock::new(),
            refusals: WarnOnce::default(),
            holding: Holding::default(),
            backplane,
        };
        Ok((Self { shared: Arc::new(shared) }, manager))
    }

    /// Sends a message to every client; returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::is_too_long`], or [`Error::is_closed`] once the hub has ended; the message comes
    /// back with [`Error::into_message`]. If the hub ended with the message in its inbox it does
    /// not come back: it may have been sent or not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// assert_eq!(hub.broadcast("hello").await?, 2);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("hello"));
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // A message over the limit comes back.
    /// let long = "x".repeat(Config::MAX_MESSAGE + 1);
    /// let error = hub.broadcast(long.as_str()).await.expect_err("too long");
    /// assert!(error.is_too_long());
    /// assert_eq!(error.into_message(), Some(long.into()));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "emit")]
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::All, message.into())).await
    }

    /// Sends a message to every client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// hub.try_broadcast(vec![1, 2, 3])?;
    /// assert_eq!(ada.next().await.expect("connected").as_bytes(), [1, 2, 3]);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_broadcast(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::All, message.into()))
    }

    /// Sends a message to every client in a room; returns how many. An empty room is no error.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_name`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // An empty room is no error, and a name that no room can have is refused.
    /// assert_eq!(hub.publish("sports", "hello").await?, 0);
    /// assert!(hub.publish("", "hello").await.expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "emit")]
    #[doc(alias = "topic")]
    #[doc(alias = "channel")]
    #[doc(alias = "group")]
    pub async fn publish(&self, room: &str, message: impl Into<Message>) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::Room(room.into()), message.into())).await
    }

    /// Sends a message to every client in a room, and waits until it has left for all of them: counts
    /// how many the kernel has taken it for.
    ///
    /// The wait begins when the message is dispatched. It ends when every recipient has got the
    /// message or is lost, or after `wait`, of at most 60 s: a longer one counts as 60 s. What is
    /// still on its way then counts as late, and is delivered all the same.
    ///
    /// "Delivered" says that the kernel has the last byte, not that the peer has read it. With
    /// [`Config::redis`] the clients of this hub count.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the message is sent or not, and nothing is counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// # use hublet::{Admission, Config, Hub};
    ///
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// // This program takes its messages itself, and does not take this one in time.
    /// let told = hub.publish_acked("news", "hello", Duration::from_millis(1)).await?;
    /// assert_eq!((told.recipients, told.delivered, told.late, told.lost), (1, 0, 1, 0));
    ///
    /// drop(ada);
    /// let told = hub.publish_acked("news", "hello", Duration::from_secs(1)).await?;
    /// assert_eq!(told.recipients, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn publish_acked(
        &self,
        room: &str,
        message: impl Into<Message>,
        wait: Duration,
    ) -> Result<Acknowledged, Error> {
        let publish = Publish::by_hub(Target::Room(room.into()), message.into());
        // Boxed, so that what is rare takes no room in a caller's future.
        Box::pin(self.acknowledge(publish, wait)).await
    }

    /// Publishes a message and waits for its recipients.
    async fn acknowledge(&self, publish: Publish, wait: Duration) -> Result<Acknowledged, Error> {
        let acking = Acking::default();
        let ack = &acking.0;
        let published = if let Some(link) = self.link(&publish.target) {
            self.publish_shared(link, publish, Some(Arc::clone(ack))).await?
        } else {
            self.publish_acking(publish, ack).await?.await.ok_or_else(Error::closed)?
        };
        let mut over = self.shared.timers.after(wait.min(WAIT_MAX));
        let _ = over.within(poll_fn(|cx| ack.poll_settled(cx))).await;
        Ok(ack.count(published.recipients, published.position))
    }

    /// As [`publish_queued`](Self::publish_queued), for a message that its recipients acknowledge.
    pub(crate) async fn publish_acking(
        &self,
        publish: Publish,
        ack: &Arc<Ack>,
    ) -> Result<Answer<Dispatched>, Error> {
        let ((reply, answer), publish) = (reply(), self.check(publish)?);
        self.shared.compress(&publish.message);
        let (ack, reply) = (Arc::clone(ack), Some(reply));
        let acked = Acked { publish, position: None, ack, reply };
        self.send_command(Command::Acked(Box::new(acked))).await?;
        Ok(answer)
    }

    /// Sends a message to every client in a room if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), [`Error::is_name`] and [`Error::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Config, Hub};
    ///
    /// let (hub, _manager) = Hub::new(Config::default().inbox(1)).expect("valid");
    /// assert!(hub.try_publish("main", "first").is_ok());
    ///
    /// // The manager does not run, so the inbox stays full; the message comes back.
    /// let error = hub.try_publish("main", "second").expect_err("no room");
    /// assert!(error.is_full());
    /// assert_eq!(error.into_message(), Some("second".into()));
    /// ```
    pub fn try_publish(&self, room: &str, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::Room(room.into()), message.into()))
    }

    /// Sends a message to one client; returns 1, or 0 if it is not connected (any more).
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// let id = ada.client().id();
    /// assert_eq!(hub.send(id, "only for you").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("only for you"));
    ///
    /// hub.disconnect(id, Disconnect::NORMAL).await?;
    /// assert_eq!(hub.send(id, "gone").await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn send(
        &self,
        client: ClientId,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::Client(client), message.into())).await
    }

    /// Sends a message to one client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`try_broadcast`](Self::try_broadcast). A client that is not connected is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// hub.try_send(ada.client().id(), "only for you")?;
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("only for you"));
    ///
    /// // A message over the limit comes back.
    /// let long = "x".repeat(Config::MAX_MESSAGE + 1);
    /// let error = hub.try_send(ada.client().id(), long.as_str()).expect_err("too long");
    /// assert_eq!(error.into_message(), Some(long.into()));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_send(&self, client: ClientId, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::Client(client), message.into()))
    }

    /// Sends a message to every client of a user; returns how many.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut phone = hub.subscribe(Admission::user("ada")).await?;
    /// let mut laptop = hub.subscribe(Admission::user("ada")).await?;
    /// assert_eq!(hub.send_to_user("ada", "hello").await?, 2);
    /// assert_eq!(phone.next().await.expect("connected"), Message::from("hello"));
    /// assert_eq!(laptop.next().await.expect("connected"), Message::from("hello"));
    ///
    /// assert_eq!(hub.send_to_user("bob", "hello").await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn send_to_user(
        &self,
        user: &str,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::User(user.into()), message.into())).await
    }

    /// Puts a client into a room; being there already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_unknown_client`], [`Error::is_limit`] when as many
    /// rooms exist as may, or the client is in as many as it may; [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// let id = ada.client().id();
    /// hub.join(id, "news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 1);
    ///
    /// // A client may be in 8 rooms at the defaults.
    /// for room in 1..Config::MAX_ROOMS_PER_CLIENT {
    ///     hub.join(id, &room.to_string()).await?;
    /// }
    /// assert!(hub.join(id, "one more").await.expect_err("too many").is_limit());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "subscribe")]
    #[doc(alias = "group")]
    pub async fn join(&self, client: ClientId, room: &str) -> Result<(), Error> {
        if !is_name(room) {
            return Err(Error::new(Kind::Name));
        }
        let room = room.into();
        let answer = self.request(|reply| Command::Join { id: client, room, reply }).await?;
        answer.map_err(|refusal| self.refused(refusal))
    }

    /// Takes a client out of a room; not being there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let id = ada.client().id();
    /// hub.leave(id, "news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 0);
    ///
    /// // It is not there any more, which is what was asked for.
    /// hub.leave(id, "news").await?;
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "unsubscribe")]
    pub async fn leave(&self, client: ClientId, room: &str) -> Result<(), Error> {
        let room = room.into();
        let answer = self.request(|reply| Command::Leave { id: client, room, reply }).await?;
        answer.map_err(|refusal| self.refused(refusal))
    }

    /// Ends a client: it gets what is queued for it, then a close frame with `reason`
    /// (RFC 6455 5.5.1). If its socket takes nothing for the
    /// [`write_timeout`](crate::Config#structfield.write_timeout), the connection is cut instead, and
    /// the client sees 1006.
    ///
    /// Returns once the client is out of the registry; its connection may still be writing.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// let id = ada.client().id();
    /// let kick = Disconnect::new(4000, "the game is over");
    /// hub.disconnect(id, kick.clone()).await?;
    /// assert_eq!(ada.next().await.expect_err("it was told to go"), kick);
    ///
    /// let error = hub.disconnect(id, kick).await.expect_err("it is gone");
    /// assert!(error.is_unknown_client());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "kick")]
    #[doc(alias = "close")]
    pub async fn disconnect(&self, client: ClientId, reason: Disconnect) -> Result<(), Error> {
        let command = |reply| Command::Disconnect { id: client, reason, reply: Some(reply) };
        if self.request(command).await? { Ok(()) } else { Err(Error::new(Kind::UnknownClient)) }
    }

    /// Lists the clients, in no order: of each its id, its user and how far it is behind.
    ///
    /// The list is as long as there are clients; [`stats`](Self::stats) counts them for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// let clients = hub.clients().await?;
    /// assert_eq!(clients.len(), 1);
    /// assert_eq!(clients[0].id, ada.client().id());
    /// assert_eq!(clients[0].user.as_deref(), Some("ada"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn clients(&self) -> Result<Vec<Member>, Error> {
        self.request(|reply| Command::Members { of: Target::All, reply }).await
    }

    /// Lists the members of a room, in no order; a room that does not exist has none.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let _bob = hub.subscribe(Admission::user("bob").room("sports")).await?;
    /// let members = hub.presence("news").await?;
    /// assert_eq!(members.len(), 1);
    /// assert_eq!(members[0].id, ada.client().id());
    /// assert_eq!(hub.presence("empty").await?, []);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "members")]
    pub async fn presence(&self, room: &str) -> Result<Vec<Member>, Error> {
        let of = Target::Room(room.into());
        self.request(|reply| Command::Members { of, reply }).await
    }

    /// Returns the position of a room's newest message, or `None` if there is no such room.
    ///
    /// Each message of a room has a position, one more than the one before it. The count of a room
    /// begins at a random number. A room without a member is there as long as it keeps messages, or
    /// the count of a reader that came with [`since`](crate::Admission::since).
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// assert_eq!(hub.position("news").await?, None);
    ///
    /// let _ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let before = hub.position("news").await?.expect("it has a member");
    /// hub.publish("news", "hello").await?;
    /// assert_eq!(hub.position("news").await?, Some(before + 1));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn position(&self, room: &str) -> Result<Option<u64>, Error> {
        let history = self.kept(room, Since::Now, 0).await?;
        Ok(history.map(|history| history.newest))
    }

    /// Returns what a room keeps, from where `since` says, or `None` if there is no such room.
    ///
    /// [`Config::history`] says which rooms keep messages. The messages are shared with the room, not
    /// copied.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_closed`]; [`Error::is_unavailable`] if the room has no member
    /// here and the server of [`Config::redis`] is away.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Config, Hub, HistoryRule, Message, Missed, Since};
    ///
    /// # smol::block_on(async {
    /// let config = Config::default().history(vec![HistoryRule::new("news", 2)]);
    /// let (hub, manager) = Hub::new(config)?;
    /// # smol::spawn(manager).detach();
    /// // No client is there. The room keeps its newest two messages all the same.
    /// for headline in ["first", "second", "third"] {
    ///     hub.publish("news", headline).await?;
    /// }
    /// let kept = hub.history("news", Since::Oldest).await?.expect("it keeps messages");
    /// assert_eq!(kept.messages, [Message::from("second"), Message::from("third")]);
    ///
    /// let later = hub.history("news", Since::Position(kept.newest - 3)).await?.expect("it is there");
    /// assert_eq!((later.messages.len(), later.missed), (2, Missed::Messages(1)));
    ///
    /// assert_eq!(hub.history("sports", Since::Oldest).await?, None);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "replay")]
    pub async fn history(&self, room: &str, since: Since) -> Result<Option<History>, Error> {
        self.kept(room, since, usize::MAX).await
    }

    /// As [`history`](Self::history), with at most `limit` messages.
    pub(crate) async fn kept(
        &self,
        room: &str,
        since: Since,
        limit: usize,
    ) -> Result<Option<History>, Error> {
        if !is_name(room) {
            return Err(Error::new(Kind::Name));
        }
        let room: Arc<str> = room.into();
        let (name, shared) = (Arc::clone(&room), &self.shared);
        let kept = self.request(|reply| Command::History { room, since, limit, reply }).await?;
        match &shared.backplane {
            Some(backplane)
                if kept.is_none() && messages_max(&shared.config.history, &name) > 0 =>
            {
                Box::pin(self.kept_elsewhere(&backplane.link, name, since, limit)).await
            }
            _ => Ok(kept),
        }
    }

    /// What the backplane keeps of a room that has no member here.
    async fn kept_elsewhere(
        &self,
        link: &Link,
        room: Arc<str>,
        since: Since,
        limit: usize,
    ) -> Result<Option<History>, Error> {
        let (reply, answer) = reply();
        if !link.try_ask(Command::ReadKept { room, since, limit, reply }) {
            return Err(Error::new(Kind::Unavailable));
        }
        answer.await.ok_or_else(|| Error::new(Kind::Unavailable))
    }

    /// Waits for the next message of a room behind where `since` says, or for what the room has of
    /// it already. Makes no room.
    pub(crate) fn next_kept(&self, room: Arc<str>, since: Since) -> PendingReply<'_, History> {
        self.request(|reply| Command::Await { room, since, reply })
    }

    /// Tells the manager that a reader waits no more, if the inbox has room.
    pub(crate) fn give_up(&self) {
        drop(self.shared.inbox.try_send(Command::GiveUp));
    }

    /// Returns what the hub has counted, and what it holds now. It does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// hub.publish("news", "hello").await?;
    /// let stats = hub.stats();
    /// assert_eq!((stats.clients, stats.rooms), (1, 1));
    /// assert_eq!((stats.messages_dispatched, stats.recipients), (1, 1));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read(self.shared.memory.charged())
    }

    /// Returns whether the hub has a server that it shares with other hubs, and no connection to it:
    /// no client may join, and nothing is published.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub};
    /// let (alone, _manager) = Hub::new(Config::default())?;
    /// assert!(!alone.is_away());
    ///
    /// let redis = "redis://127.0.0.1".parse()?;
    /// let (hub, _manager) = Hub::new(Config::default().redis(Some(redis)))?;
    /// assert!(hub.is_away(), "connect_redis was not called");
    /// # Ok::<_, hublet::Error>(())
    /// ```
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared.backplane.as_ref().is_some_and(|backplane| !backplane.link.is_up())
    }

    /// Returns what the ceiling is spent on, if [`Config::max_memory`] is set.
    #[must_use]
    pub fn sizing(&self) -> Option<&Sizing> {
        self.shared.sizing.as_ref()
    }

    /// Tells the manager that a connection waits for memory.
    pub(crate) fn want_eviction(&self) {
        if self.shared.memory.want_eviction() {
            self.shared.inbox.wake();
        }
    }

    /// Where everything is charged that the hub holds for a peer or a publisher.
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.shared.memory
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends a command, and waits for its answer.
    pub(crate) fn request<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> PendingReply<'_, T> {
        let (reply, answer) = reply();
        PendingReply::new(self.shared.inbox.send(command(reply)), answer)
    }

    /// Tells the manager something that needs no answer.
    pub(crate) fn send_command(&self, command: Command) -> Sending<'_> {
        self.shared.inbox.send(command)
    }

    /// Ready when long requests have to end with what is done: the hub drains, or another process
    /// takes it over.
    pub(crate) async fn long_requests_end(&self) {
        or(self.shared.admissions.closed(), self.shared.holding.held()).await;
    }

    /// Brings the hub to a stand; `false` if it stands already.
    pub(crate) fn hold(&self) -> bool {
        let begins = self.shared.holding.begin();
        if begins {
            self.shared.inbox.pause();
            // Each connection waits for a deadline, so all of them look.
            self.shared.timers.wake_all();
        }
        begins
    }

    /// Lets the manager go on that has handed the hub over, and each connection.
    pub(crate) fn go_on(&self) {
        self.shared.holding.end();
        self.shared.inbox.release();
        self.shared.timers.wake_all();
    }

    /// Tells the manager that a client's connection is gone.
    pub(crate) fn report_gone(&self, id: ClientId) {
        self.shared.inbox.report_gone(id);
    }

    /// Waits for the end of the manager.
    pub(crate) async fn ended(&self) {
        self.shared.inbox.ended().await;
    }

    /// The way to other hubs, for a message that is not for one client alone.
    pub(crate) fn link(&self, target: &Target) -> Option<&Arc<Link>> {
        let backplane = self.shared.backplane.as_ref()?;
        (!matches!(target, Target::Client(_))).then_some(&backplane.link)
    }

    /// Has the manager hand a client more of what its room keeps.
    pub(crate) fn ask(&self, id: ClientId) {
        self.shared.inbox.ask(id);
    }

    /// Publishes a message; returns how many took it.
    pub(crate) async fn publish_counted(&self, publish: Publish) -> Result<usize, Error> {
        let is_direct = matches!(publish.target, Target::Client(_));
        if let Some(link) = self.link(&publish.target) {
            let published = Box::pin(self.publish_shared(link, publish, None)).await?;
            return Ok(published.recipients);
        }
        let published = self.publish_queued(publish).await?.await.ok_or_else(Error::closed)?;
        if published.is_refused && is_direct {
            return Err(Error::new(Kind::OneRoom));
        }
        Ok(published.recipients)
    }

    /// Publishes a message through the backplane; returns what became of it in this hub.
    ///
    /// Waits for the backplane as long as a client may take to read.
    async fn publish_shared(
        &self,
        link: &Link,
        publish: Publish,
        ack: Option<Arc<Ack>>,
    ) -> Result<Dispatched, Error> {
        let message = publish.message.clone();
        let unavailable = || Error::new(Kind::Unavailable);
        let (reply, mut answer) = reply();
        let publish = self.check(publish)?;
        let mut deadline = self.shared.timers.after(self.shared.config.write_timeout);
        let carry = Carry { publish, reply: Some(Told::new(reply, ack)), hubs: None };
        if !matches!(deadline.within(link.send(carry)).await, Some(Ok(()))) {
            return Err(unavailable().with_message(message));
        }
        let published = match deadline.within(&mut answer).await {
            Some(published) => published,
            None if answer.withdraw() => return Err(unavailable().with_message(message)),
            // It is on its way: the driver answers within its own deadlines.
            None => answer.await,
        };
        published.ok_or_else(unavailable)
    }

    /// Publishes a message. Ready when the inbox has it: from then on it will be dispatched, and
    /// the answer is what became of it, or `None` if the hub ends before it can say so.
    pub(crate) async fn publish_queued(
        &self,
        publish: Publish,
    ) -> Result<Answer<Dispatched>, Error> {
        let (reply, answer) = reply();
        self.send_command(self.admit(publish, Some(reply))?).await?;
        Ok(answer)
    }

    /// Publishes a message if the inbox has room now.
    pub(crate) fn publish_now(&self, publish: Publish) -> Result<(), Error> {
        if let Some(link) = self.link(&publish.target) {
            let carry = Carry { publish: self.check(publish)?, reply: None, hubs: None };
            return link.try_send(carry).map_err(Error::from);
        }
        self.shared.inbox.try_send(self.admit(publish, None)?).map_err(Error::from)
    }

    /// The door for every message, however and by which part of the program it is published: checks
    /// its length and the name of its target, and charges it to the hub's memory.
    ///
    /// A message that a peer sent has been charged since it was read, and is not charged twice.
    fn admit(&self, publish: Publish, reply: Option<Reply<Dispatched>>) -> Result<Command, Error> {
        let publish = self.check(publish)?;
        self.shared.compress(&publish.message);
        Ok(Command::Publish { publish, reply })
    }

    /// As [`admit`](Self::admit), for a message on whatever way.
    pub(crate) fn check(&self, publish: Publish) -> Result<Publish, Error> {
        let (len, max) = (publish.message.len(), self.shared.config.max_message);
        if len > max {
            return Err(Error::new(Kind::TooLong { len, max }).with_message(publish.message));
        }
        if let Target::Room(name) | Target::User(name) = &publish.target {
            // No client can have such a name, and the inbox need not hold it.
            if !is_name(name) {
                return Err(Error::new(Kind::Name).with_message(publish.message));
            }
        }
        publish.message.charge(&self.shared.memory);
        Ok(publish)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let config = &self.shared.config;
        Error::new(match refusal {
            Refusal::Away => Kind::Unavailable,
            Refusal::Gone | Refusal::UnknownClient => Kind::UnknownClient,
            Refusal::OneRoom => Kind::OneRoom,
            Refusal::Rooms => Kind::Limit(format!("{} rooms exist, the limit", config.max_rooms)),
            Refusal::RoomsPerClient => Kind::Limit(format!(
                "the client is in {} rooms, the limit",
                config.max_rooms_per_client
            )),
        })
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let (error, command) = match refused {
            Refused::Full(command) => (Self::new(Kind::Full), command),
            Refused::Closed(command) => (Self::closed(), command),
        };
        match command {
            Command::Publish { publish, .. } => error.with_message(publish.message),
            Command::Acked(acked) => error.with_message(acked.publish.message),
            Command::Carry(carry) => error.with_message(carry.publish.message),
            _ => error,
        }
    }
}
