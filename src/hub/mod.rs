//! The hub: no socket, no clock, no executor. All of it runs in a test without I/O.

mod gate;
mod inbox;
mod manager;
mod queue;
mod registry;
mod reply;
mod scratch;
mod stats;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use registry::{ClientId, Member, Target};
pub use stats::Stats;

pub(crate) use gate::{Connection, Crowded, Gate, Handshake, Idle, Permit};
pub(crate) use manager::Command;
pub(crate) use queue::{Drained, Outlet, Phase, Queue};
pub(crate) use registry::Refusal;
pub(crate) use scratch::{SCRATCH_BYTES, Scratch};
pub(crate) use stats::{Counters, add};

use inbox::{Inbox, Refused};
use manager::Manager;
use queue::Terms;
use registry::Registry;
use reply::{Reply, reply};

use crate::error::Kind;
use crate::memory::Memory;
use crate::{Config, Disconnect, Error, Message};

/// The longest name of a room or a user, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// File descriptors left for everything that is not a client, when the limit on clients follows
/// the limit on descriptors.
#[cfg(unix)]
const SPARE_FDS: usize = 64;

/// The limit on clients where neither the configuration nor the platform gives one.
#[cfg(not(unix))]
const CLIENTS_MAX: usize = 16 * 1024;

/// The handle to a hub: broadcast, publish, send, join, leave, ask.
///
/// It is cheap to clone and to send anywhere. Messages that go out through a hub reach everyone
/// they are meant for; those that go out through a [`Client`] reach everyone else.
///
/// Delivery is at most once and ordered: all clients of a room see its messages in the same order.
/// A message is handed to the queue of each recipient; what becomes of it there is counted in
/// [`Stats`].
///
/// The verbs that return a future wait while the hub's inbox is full, and then for the manager to
/// have dispatched the command; none waits for a client. Cancel safety: dropped early, a command
/// is either carried out whole or not at all.
///
/// # Examples
///
/// ```
/// use hublet::{Config, Hub};
///
/// # smol::block_on(async {
/// let (hub, manager) = Hub::new(Config::default()).expect("the defaults are valid");
/// let manager = smol::spawn(manager);
///
/// // Nobody is there yet.
/// assert_eq!(hub.publish("main", "hello").await.expect("the hub runs"), 0);
///
/// // The manager's future ends with the last handle.
/// drop(hub);
/// manager.await;
/// # });
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
    /// What is counted.
    pub(crate) counters: Arc<Counters>,
    /// What the hub holds for others.
    memory: Arc<Memory>,
    /// What every client's queue has in common.
    pub(crate) terms: Arc<Terms>,
    /// Who may come in.
    pub(crate) gate: Arc<Gate>,
    /// Read buffers for the connections.
    pub(crate) scratch: Scratch,
}

impl Hub {
    /// Makes a hub: a handle to it, and the future that drives it.
    ///
    /// Spawn or await the future, the manager; without it nothing is dispatched. It ends when the
    /// last [`Hub`] and [`Client`] are gone, or after a drain. Dropping it ends the hub: every
    /// client is closed with 1001 and every verb fails with [`Error::is_closed`].
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if a value of `config`, or a relation between two, cannot work.
    pub fn new(config: Config) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Error> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let memory = Arc::new(Memory::default());
        let (inbox, outbox) = inbox::inbox(config.inbox, config.inbox_bytes);
        let registry =
            Registry::new(config.max_rooms, config.max_rooms_per_client, Arc::clone(&counters));
        let manager =
            Manager::new(outbox, registry, Arc::clone(&counters), config.queue, config.queue_bytes);
        let gate = Gate::new(
            config.max_clients.unwrap_or_else(clients_max),
            config.max_clients_per_ip,
            config.handshakes,
            Arc::clone(&counters),
        );
        let terms = Terms {
            messages: config.queue,
            bytes: config.queue_bytes,
            overflow: config.overflow,
            counters: Arc::clone(&counters),
            memory: Arc::clone(&memory),
        };
        let shared = Shared {
            inbox,
            config,
            counters,
            memory,
            terms: Arc::new(terms),
            gate: Arc::new(gate),
            scratch: Scratch::default(),
        };
        Ok((Self { shared: Arc::new(shared) }, manager.run()))
    }

    /// Sends a message to every client; returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::is_too_long`], or [`Error::is_closed`] once the hub has ended; the message comes
    /// back with [`Error::into_message`].
    #[doc(alias = "emit")]
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.deliver(Target::All, None, message.into()).await
    }

    /// Sends a message to every client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_full`].
    pub fn try_broadcast(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.try_deliver(Target::All, None, message.into())
    }

    /// Sends a message to every client in a room; returns how many. An empty room is no error.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_name`].
    #[doc(alias = "emit")]
    #[doc(alias = "topic")]
    pub async fn publish(&self, room: &str, message: impl Into<Message>) -> Result<usize, Error> {
        self.deliver(Target::Room(room.into()), None, message.into()).await
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
        self.try_deliver(Target::Room(room.into()), None, message.into())
    }

    /// Sends a message to one client; returns 1, or 0 if it is not connected (any more).
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub async fn send(
        &self,
        client: ClientId,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.deliver(Target::Client(client), None, message.into()).await
    }

    /// Sends a message to every client of a user; returns how many.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_to_user(
        &self,
        user: &str,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.deliver(Target::User(user.into()), None, message.into()).await
    }

    /// Puts a client into a room; being there already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_unknown_client`], [`Error::is_limit`] when as many
    /// rooms exist as may, or the client is in as many as it may; [`Error::is_closed`].
    #[doc(alias = "subscribe")]
    pub async fn join(&self, client: ClientId, room: &str) -> Result<(), Error> {
        if !is_name(room) {
            return Err(Error::new(Kind::Name));
        }
        let room = room.into();
        let answer = self.ask(|reply| Command::Join { id: client, room, reply }).await?;
        answer.map_err(|refusal| self.refused(refusal))
    }

    /// Takes a client out of a room; not being there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
    #[doc(alias = "unsubscribe")]
    pub async fn leave(&self, client: ClientId, room: &str) -> Result<(), Error> {
        let room = room.into();
        let answer = self.ask(|reply| Command::Leave { id: client, room, reply }).await?;
        answer.map_err(|refusal| self.refused(refusal))
    }

    /// Ends a client: it gets what is queued for it, then a close frame with `reason`.
    ///
    /// Returns once the client is out of the registry; its connection may still be writing.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
    #[doc(alias = "kick")]
    pub async fn disconnect(&self, client: ClientId, reason: Disconnect) -> Result<(), Error> {
        let command = |reply| Command::Disconnect { id: client, reason, reply: Some(reply) };
        if self.ask(command).await? { Ok(()) } else { Err(Error::new(Kind::UnknownClient)) }
    }

    /// Lists the clients.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    pub async fn clients(&self) -> Result<Vec<Member>, Error> {
        self.ask(|reply| Command::Members { room: None, reply }).await
    }

    /// Lists the members of a room.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    #[doc(alias = "members")]
    pub async fn presence(&self, room: &str) -> Result<Vec<Member>, Error> {
        let room = Some(room.into());
        self.ask(|reply| Command::Members { room, reply }).await
    }

    /// Returns what the hub has counted, and what it holds now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read(self.shared.memory.held())
    }

    /// The account on which everything is that the hub holds for a peer or a publisher.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = reply();
        self.shared.inbox.send(command(reply)).await.map_err(Refused::into_error)?;
        answer.await.ok_or_else(Error::closed)
    }

    /// Tells the manager something that needs no answer.
    pub(crate) async fn tell(&self, command: Command) -> Result<(), Error> {
        self.shared.inbox.send(command).await.map_err(Refused::into_error)
    }

    /// Tells the manager that a client's connection is gone.
    pub(crate) fn depart(&self, id: ClientId) {
        self.shared.inbox.depart(id);
    }

    /// Sends a message to a target; returns how many took it.
    pub(crate) async fn deliver(
        &self,
        target: Target,
        except: Option<ClientId>,
        message: Message,
    ) -> Result<usize, Error> {
        let message = self.take_in(&target, message)?;
        self.ask(|reply| Command::Publish { target, except, message, reply: Some(reply) }).await
    }

    fn try_deliver(
        &self,
        target: Target,
        except: Option<ClientId>,
        message: Message,
    ) -> Result<(), Error> {
        let message = self.take_in(&target, message)?;
        let command = Command::Publish { target, except, message, reply: None };
        self.shared.inbox.try_send(command).map_err(Refused::into_error)
    }

    /// Checks a message's length and its target's name, and counts it as held.
    fn take_in(&self, target: &Target, message: Message) -> Result<Message, Error> {
        let (len, max) = (message.len(), self.shared.config.max_message);
        if len > max {
            return Err(Error::new(Kind::TooLong { len, max }).with_message(message));
        }
        if let Target::Room(name) | Target::User(name) = target {
            // Nobody can be found under such a name, and the inbox need not hold it.
            if !is_name(name) {
                return Err(Error::new(Kind::Name).with_message(message));
            }
        }
        message.hold(&self.shared.memory);
        Ok(message)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let config = &self.shared.config;
        Error::new(match refusal {
            Refusal::Gone | Refusal::UnknownClient => Kind::UnknownClient,
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

impl Refused {
    fn into_error(self) -> Error {
        let (error, command) = match self {
            Self::Full(command) => (Error::new(Kind::Full), command),
            Self::Closed(command) => (Error::closed(), command),
        };
        match command {
            Command::Publish { message, .. } => error.with_message(message),
            _ => error,
        }
    }
}

/// One connected peer, as hooks see it.
///
/// Its verbs reach everyone else: what a client [`publish`](Client::publish)es does not come back
/// to it. To reach everyone, itself included, use its [`hub`](Client::hub).
#[derive(Clone)]
pub struct Client {
    hub: Hub,
    id: ClientId,
    user: Option<Arc<str>>,
    /// What `on_upgrade` attached for the later hooks.
    extension: Option<Arc<dyn Any + Send + Sync>>,
}

impl Client {
    pub(crate) fn new(
        hub: Hub,
        id: ClientId,
        user: Option<Arc<str>>,
        extension: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self { hub, id, user, extension }
    }

    /// Returns the client's id.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Returns the client's user, or `None` if it is anonymous.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the hub the client is connected to.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Returns what [`Admission::extension`](crate::Admission::extension) attached, if it is a `T`.
    #[must_use]
    pub fn extension<T: Any>(&self) -> Option<&T> {
        self.extension.as_ref()?.downcast_ref()
    }

    /// Asks for the rooms the client is in.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`] once it is gone, [`Error::is_closed`].
    pub async fn rooms(&self) -> Result<Vec<Arc<str>>, Error> {
        let rooms = self.hub.ask(|reply| Command::Rooms { id: self.id, reply }).await?;
        rooms.ok_or_else(|| Error::new(Kind::UnknownClient))
    }

    /// Sends a message to this client; returns 1, or 0 if it is gone.
    ///
    /// # Errors
    ///
    /// As [`Hub::broadcast`].
    pub async fn send(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub.send(self.id, message).await
    }

    /// Sends a message to everyone else in a room; returns how many.
    ///
    /// # Errors
    ///
    /// As [`Hub::broadcast`].
    pub async fn publish(&self, room: &str, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub.deliver(Target::Room(room.into()), Some(self.id), message.into()).await
    }

    /// Sends a message to everyone else in a room if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`Hub::try_publish`].
    pub fn try_publish(&self, room: &str, message: impl Into<Message>) -> Result<(), Error> {
        self.hub.try_deliver(Target::Room(room.into()), Some(self.id), message.into())
    }

    /// Sends a message to every other client; returns how many.
    ///
    /// # Errors
    ///
    /// As [`Hub::broadcast`].
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.hub.deliver(Target::All, Some(self.id), message.into()).await
    }

    /// Puts this client into a room.
    ///
    /// # Errors
    ///
    /// As [`Hub::join`].
    #[doc(alias = "subscribe")]
    pub async fn join(&self, room: &str) -> Result<(), Error> {
        self.hub.join(self.id, room).await
    }

    /// Takes this client out of a room.
    ///
    /// # Errors
    ///
    /// As [`Hub::leave`].
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

/// Whether a room or a user may be called `name`: 1 to 128 bytes, no control characters.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The limit on clients that the platform's limit on file descriptors leaves.
fn clients_max() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let fds = limit.map_or(Config::LIMIT_MAX, |fds| usize::try_from(fds).unwrap_or(usize::MAX));
        fds.saturating_sub(SPARE_FDS).clamp(1, Config::LIMIT_MAX)
    }
    #[cfg(not(unix))]
    CLIENTS_MAX
}
