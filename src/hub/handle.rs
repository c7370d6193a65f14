//! The hub: no socket and no executor; the clock is given to it. All of it runs in a test without I/O.

use std::fmt;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_lite::future::or;

use crate::config::Config;
use crate::error::{Error, Kind};
use crate::hub::backplane::{ILL_AFTER, Link};
use crate::hub::client_id::{ClientId, Refusal, Target};
use crate::hub::command::Command;
use crate::hub::history_config::HistoryConfig;
use crate::hub::holding::Holding;
use crate::hub::inbox;
use crate::hub::inbox::{CommandReceiver, Inbox, Refused, Sending};
use crate::hub::manager::Manager;
use crate::hub::pending_reply::PendingReply;
use crate::hub::queue_config::QueueConfig;
use crate::hub::registry::Registry;
use crate::hub::reply::{Reply, reply};
use crate::hub::sizing::Sizing;
use crate::hub::subscriptions::Subscriptions;
use crate::limits::admission::Admissions;
use crate::limits::descriptors::clients_max;
use crate::limits::post_rates::PostRates;
use crate::limits::warn_once::WarnOnce;
use crate::memory::budget::MemoryBudget;
use crate::memory::read_buffers::ReadBuffers;
use crate::message::Message;
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
    pub(super) inbox: Inbox,
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
            Arc::clone(&timers),
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
    pub(crate) fn request_more(&self, id: ClientId) {
        self.shared.inbox.request_more(id);
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        let config = &self.shared.config;
        Error::new(match refusal {
            Refusal::Away => Kind::Unavailable,
            Refusal::Gone | Refusal::UnknownClient => Kind::UnknownClient,
            Refusal::OneRoom => Kind::OneRoom,
            Refusal::Rooms => Kind::Limit(format!("{} rooms exist, the limit", config.max_rooms)),
            Refusal::Prefixes => {
                Kind::Limit(format!("{} prefixes exist, the limit", Config::MAX_PREFIXES))
            }
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
