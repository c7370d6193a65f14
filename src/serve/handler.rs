//! What an embedder writes: who may come in, and what a message means.

use std::any::Any;
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

use http::{Request, StatusCode};

use super::Peer;
use super::routes::room_of;
use crate::{Client, Disconnect, Message, Target};

/// The hooks of a server, one per event in a client's life.
///
/// Only [`on_message`](Handler::on_message) has to be written. A hook may await: it makes its own
/// client wait and no other, and while it waits the client is still written to and kept alive. A
/// panic in a hook closes its client with 1011 (before the upgrade: status 500).
///
/// `on_upgrade` runs under the handshake deadline. `on_connect` and `on_message` are dropped if
/// their client is evicted, disconnected or lost while they wait, so they must be cancel safe;
/// `on_disconnect` runs once for every client whose `on_connect` ran, after its socket is closed.
/// Only the end of the executor itself drops it.
///
/// # Examples
///
/// ```
/// use hublet::{Client, Disconnect, Handler, Message};
///
/// /// Everyone hears what anyone says.
/// struct Chat;
///
/// impl Handler for Chat {
///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
///         match client.hub().broadcast(message).await {
///             Ok(recipients) => assert!(recipients > 0),
///             Err(_) => return Err(Disconnect::GOING_AWAY),
///         }
///         Ok(())
///     }
/// }
/// ```
#[doc(alias = "session")]
pub trait Handler: Send + Sync + 'static {
    /// Decides on an upgrade: who comes in as what, or the status of the refusal.
    ///
    /// The default admits everyone: anonymous, into the room that the path names (`/ws/{room}`)
    /// or `main`. [`Config::origins`](crate::Config::origins) was checked before.
    fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<Admission, StatusCode>> + Send {
        let _ = peer;
        let room = room_of(request.uri().path()).unwrap_or_else(|| "main".into());
        ready(Ok(Admission::anonymous().room(room)))
    }

    /// Decides on a message that comes by `POST`, where [`Config::http`](crate::Config::http) is
    /// on: to a room (`/pub/{room}`) or to a user (`/user/{user}`); an `Err` is the status of the
    /// refusal.
    ///
    /// The default refuses all with 403. Runs before the body is read, under the deadline of the
    /// request; [`Config::origins`](crate::Config::origins) was checked before.
    fn on_publish(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        let _ = (request, peer, target);
        ready(Err(StatusCode::FORBIDDEN))
    }

    /// Decides on a look inside, where [`Config::http`](crate::Config::http) is on: `/metrics`,
    /// `/rooms` and `/rooms/{room}`; an `Err` is the status of the refusal.
    ///
    /// The default allows it to peers on this machine ([`Peer::is_local`]), and refuses those that
    /// a proxy speaks for with 403.
    fn on_inspect(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        let proxied = proxied.iter().any(|name| request.headers().contains_key(*name));
        ready(if peer.is_local() && !proxied { Ok(()) } else { Err(StatusCode::FORBIDDEN) })
    }

    /// Runs when a client has been registered and has its 101; an `Err` closes it.
    fn on_connect(&self, client: &Client) -> impl Future<Output = Result<(), Disconnect>> + Send {
        let _ = client;
        ready(Ok(()))
    }

    /// Takes a message from a client; an `Err` closes the client. The next message is read when
    /// this one is done with.
    fn on_message(
        &self,
        client: &Client,
        message: Message,
    ) -> impl Future<Output = Result<(), Disconnect>> + Send;

    /// Runs when a client is out of the registry and its socket closed.
    fn on_disconnect(
        &self,
        client: &Client,
        reason: &Disconnect,
    ) -> impl Future<Output = ()> + Send {
        let _ = (client, reason);
        ready(())
    }
}

/// A shared handler is a handler, so that several listeners can have the same one.
impl<H: Handler> Handler for Arc<H> {
    fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<Admission, StatusCode>> + Send {
        (**self).on_upgrade(request, peer)
    }

    fn on_publish(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        (**self).on_publish(request, peer, target)
    }

    fn on_inspect(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        (**self).on_inspect(request, peer)
    }

    fn on_connect(&self, client: &Client) -> impl Future<Output = Result<(), Disconnect>> + Send {
        (**self).on_connect(client)
    }

    fn on_message(
        &self,
        client: &Client,
        message: Message,
    ) -> impl Future<Output = Result<(), Disconnect>> + Send {
        (**self).on_message(client, message)
    }

    fn on_disconnect(
        &self,
        client: &Client,
        reason: &Disconnect,
    ) -> impl Future<Output = ()> + Send {
        (**self).on_disconnect(client, reason)
    }
}

/// As what a client is admitted.
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
}

impl Admission {
    /// Admits a client without a user.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Admits a client of a user: 1 to 128 bytes without control characters. One user may have
    /// many clients.
    #[must_use]
    pub fn user(id: impl Into<Arc<str>>) -> Self {
        Self { user: Some(id.into()), ..Self::default() }
    }

    /// Adds a room the client is in from the first moment.
    ///
    /// A name of 1 to 128 bytes without control characters; any other is answered with status 500,
    /// since it is the hook's mistake. The limit on rooms per client counts.
    #[must_use]
    pub fn room(mut self, name: impl Into<Arc<str>>) -> Self {
        self.rooms.push(name.into());
        self
    }

    /// Answers with this subprotocol (RFC 6455 4.2.2), one that the request offered.
    ///
    /// One that it did not offer is answered with status 500, since it is the hook's mistake.
    #[must_use]
    pub fn protocol(mut self, name: impl Into<Arc<str>>) -> Self {
        self.protocol = Some(name.into());
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
            .finish_non_exhaustive()
    }
}
