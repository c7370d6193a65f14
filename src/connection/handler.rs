//! The hooks of an embedding program: which clients to admit, and what to do with a message.

use std::borrow::Cow;
use std::future::{Future, pending, ready};

use http::{Request, Response, StatusCode};

use crate::connection::admission::Admission;
use crate::connection::request_body::Body;
use crate::disconnect::Disconnect;
use crate::http1::origin::is_local;
use crate::http1::url::room_of;
use crate::hub::client::Client;
use crate::hub::client_id::Target;
use crate::message::Message;
use crate::peer::Peer;

/// The hooks of a server, one per event in a client's life.
///
/// Only [`on_message`](Handler::on_message) is required; [`Relay`](crate::Relay) is a handler that
/// is ready to use. In a hook of a client `?` ends the client when the hub refuses something: see
/// the [conversion](Disconnect#impl-From<Error>-for-Disconnect). A hook may await: only its own client
/// waits for it, and the hub still writes to that client and pings it. A panic in a hook closes its
/// client with 1011 (before the upgrade: status 500) and affects no other client. The status of a
/// refusal must be an error, 400 to 599; for any other the hub answers 500, since the hook is
/// wrong.
///
/// Its hooks are async functions, so it cannot be a trait object (`dyn Handler`): make the type that
/// serves generic, or an enum. An [`Arc`](std::sync::Arc) of a handler is a handler.
///
/// # Cancel safety
///
/// The hub drops `on_upgrade`, `on_publish`, `on_act` and `on_request` at the deadline of the request
/// ([`Config::handshake_timeout`](crate::Config#structfield.handshake_timeout)). It drops
/// `on_connect` and `on_message` if their client is evicted, disconnected or lost meanwhile, so
/// these hooks must be cancel safe. `on_disconnect` runs once for every client whose `on_connect`
/// ran, after its socket is closed. Only the end of the executor drops it.
///
/// # Examples
///
/// ```
/// use hublet::http::{Request, StatusCode};
/// use hublet::{Admission, Client, Config, Disconnect, Handler, Hub, Message, Peer};
///
/// /// Admits clients with the right key, and sends each message to all of them.
/// struct Club;
///
/// impl Handler for Club {
///     async fn on_upgrade(
///         &self,
///         request: &Request<()>,
///         _: &Peer,
///     ) -> Result<Admission, StatusCode> {
///         let token = request.headers().get("authorization");
///         if token.is_some_and(|token| token == "Bearer open sesame") {
///             Ok(Admission::user("ali").room("cave"))
///         } else {
///             Err(StatusCode::UNAUTHORIZED)
///         }
///     }
///
///     async fn on_message(
///         &self,
///         client: &Client,
///         message: Message,
///     ) -> Result<(), Disconnect> {
///         client.hub().publish("cave", message).await?;
///         Ok(())
///     }
/// }
///
/// # smol::block_on(async {
/// let request = Request::get("/").header("authorization", "Bearer open sesame").body(());
/// let admission = Club.on_upgrade(&request.expect("well-formed"), &Peer::unknown()).await;
/// assert_eq!(admission.expect("the right key").rooms().collect::<Vec<_>>(), ["cave"]);
///
/// let refused = Club.on_upgrade(&Request::new(()), &Peer::unknown()).await;
/// assert_eq!(refused.err(), Some(StatusCode::UNAUTHORIZED));
/// # });
/// ```
#[doc(alias = "session")]
#[doc(alias = "callback")]
#[doc(alias = "middleware")]
pub trait Handler: Send + Sync + 'static {
    /// Decides on an upgrade: the user and the rooms of the new client, or the status of a refusal.
    ///
    /// The default admits every client: anonymous, into the room that the path names (`/ws/{room}`)
    /// or `main`. Before this hook runs, the hub has checked that the request is an opening
    /// handshake (RFC 6455 4.2.1), and [`Config::origins`](crate::Config#structfield.origins) and
    /// [`Config::hosts`](crate::Config#structfield.hosts). The manager registers the client before
    /// its 101 is written, so that a client that has its 101 misses no message.
    ///
    /// [`Admission::protocol`](Admission::protocol) answers a subprotocol that the client offers.
    ///
    /// With [`Config::http`](crate::Config::http) this hook also decides about `GET /sse/{room}`, and
    /// about `GET /pub/{room}`, which reads what the room keeps: the request says by its path which of
    /// them it is. It reads the room of the admission; of several the one that the path names. There
    /// is no client then, and no other hook runs.
    #[doc(alias = "authenticate")]
    fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<Admission, StatusCode>> + Send {
        let _ = peer;
        let room = room_of(request.uri().path()).unwrap_or_else(|| "main".into());
        ready(Ok(Admission::anonymous().room(room)))
    }

    /// Decides on a `POST` to a room (`/pub/{room}`) or to a user (`/user/{user}`), if
    /// [`Config::http`](crate::Config::http) is on. An `Err` is the status of the refusal.
    ///
    /// The default refuses all with 403. Runs before the body is read, under the deadline of the
    /// request. [`Config::origins`](crate::Config::origins) was checked before.
    fn on_publish(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        let _ = (request, peer, target);
        ready(Err(StatusCode::FORBIDDEN))
    }

    /// Resolves when a stream of lines may publish no more, with the status that ends it.
    ///
    /// A `POST` with `?lines` or `Content-Type: application/x-ndjson` publishes each line of its body
    /// as it comes, for as long as it lasts. [`on_publish`](Self::on_publish) decides on it; this hook
    /// runs beside it, for the end of a token or of a permission. The hub answers with the status
    /// and with how many messages it has sent until then. The status must be an error, 400 to 599.
    ///
    /// The default never resolves. The hub drops the future with the stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hublet::http::{Request, StatusCode};
    /// use hublet::{Client, Disconnect, Handler, Message, Peer, Target};
    ///
    /// /// Lets anyone publish, for an hour at a time.
    /// struct Hourly;
    ///
    /// impl Handler for Hourly {
    ///     async fn on_publish(
    ///         &self,
    ///         _: &Request<()>,
    ///         _: &Peer,
    ///         _: &Target,
    ///     ) -> Result<(), StatusCode> {
    ///         Ok(())
    ///     }
    ///     async fn publish_until(&self, _: &Request<()>, _: &Peer, _: &Target) -> StatusCode {
    ///         smol::Timer::after(Duration::from_secs(3600)).await;
    ///         StatusCode::UNAUTHORIZED
    ///     }
    ///     async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
    ///         Err(Disconnect::UNSUPPORTED)
    ///     }
    /// }
    ///
    /// # let (request, peer, target) = (Request::new(()), Peer::unknown(), Target::All);
    /// # let mut until = Box::pin(Hourly.publish_until(&request, &peer, &target));
    /// # assert!(smol::block_on(smol::future::poll_once(&mut until)).is_none());
    /// ```
    fn publish_until(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = StatusCode> + Send {
        let _ = (request, peer, target);
        pending()
    }

    /// Decides on what an administrator does, if [`Config::http`](crate::Config::http) is on: a
    /// `DELETE` that ends a client (`/rooms/{room}/{client}`) or all clients of a user
    /// (`/user/{user}`), a `POST` that says something to every client (`/all`). An `Err` is the status
    /// of the refusal.
    ///
    /// The default refuses all with 403. Before it runs, the hub has refused pages of other origins
    /// that [`Config::origins`](crate::Config#structfield.origins) does not list by name: `*`, `null`
    /// and `file://` do not count here. Runs before a body is read, under the deadline of the request.
    /// Take the token from a header: a link on a page can send a query, and not a header.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::http::{Request, StatusCode};
    /// use hublet::{Client, Disconnect, Handler, Message, Peer, Target};
    ///
    /// struct Guarded;
    ///
    /// impl Handler for Guarded {
    ///     async fn on_act(
    ///         &self,
    ///         request: &Request<()>,
    ///         _: &Peer,
    ///         target: &Target,
    ///     ) -> Result<(), StatusCode> {
    ///         let token = request.headers().get("authorization");
    ///         let token = token.ok_or(StatusCode::UNAUTHORIZED)?;
    ///         // A moderator ends clients, and does not speak to all.
    ///         let is_moderator = token == "Bearer mod" && *target != Target::All;
    ///         if is_moderator || token == "Bearer boss" {
    ///             Ok(())
    ///         } else {
    ///             Err(StatusCode::FORBIDDEN)
    ///         }
    ///     }
    ///
    ///     async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
    ///         Err(Disconnect::UNSUPPORTED)
    ///     }
    /// }
    ///
    /// # smol::block_on(async {
    /// let request = Request::post("/all").header("authorization", "Bearer mod").body(());
    /// let request = request.expect("well-formed");
    /// let answer = Guarded.on_act(&request, &Peer::unknown(), &Target::All).await;
    /// assert_eq!(answer, Err(StatusCode::FORBIDDEN));
    ///
    /// let answer = Guarded.on_act(&request, &Peer::unknown(), &Target::User("ada".into())).await;
    /// assert_eq!(answer, Ok(()));
    /// # });
    /// ```
    fn on_act(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        let _ = (request, peer, target);
        ready(Err(StatusCode::FORBIDDEN))
    }

    /// Answers a request that the hub has no route for: endpoints of your own, on the hub's port.
    ///
    /// The default refuses all with 404, in the hub's own words; so does a hook that returns this
    /// status for what it does not know. Routes of the hub and
    /// [`Config::pages`](crate::Config#structfield.pages) come first. Any method comes here, HEAD too,
    /// to which the hub sends no body. Before it runs, the hub has checked
    /// [`Config::origins`](crate::Config#structfield.origins) and
    /// [`Config::hosts`](crate::Config#structfield.hosts), and has answered the preflight of a page
    /// that may.
    ///
    /// The hub writes `Content-Length`, `Connection`, `Date` and the CORS headers of a listed page.
    /// A response without a `Content-Type` is plain text if it is UTF-8. A peer that reads slowly has
    /// what [`write_timeout`](crate::Config#structfield.write_timeout) says: large files belong to a
    /// web server. The status must be 200 to 599.
    ///
    /// # Cancel safety
    ///
    /// The hub drops the hook at the deadline of the request, with 408, and once the body is read
    /// after the [`handshake_timeout`](crate::Config#structfield.handshake_timeout), with 500. It
    /// drops it as well if the peer leaves while it reads the body.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::http::{Request, Response, StatusCode};
    /// use hublet::{Body, Client, Disconnect, Handler, Hub, Message, Peer};
    ///
    /// struct Game {
    ///     hub: Hub,
    /// }
    ///
    /// impl Handler for Game {
    ///     async fn on_request(
    ///         &self,
    ///         request: &Request<()>,
    ///         _: &Peer,
    ///         body: Body<'_>,
    ///     ) -> Result<Response<Vec<u8>>, StatusCode> {
    ///         match (request.method().as_str(), request.uri().path()) {
    ///             ("GET", "/api/players") => {
    ///                 let players = self.hub.stats().clients;
    ///                 let json = format!("{{\"players\":{players}}}");
    ///                 Response::builder()
    ///                     .header("Content-Type", "application/json")
    ///                     .body(json.into_bytes())
    ///                     .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    ///             }
    ///             ("POST", "/api/score") => {
    ///                 let score = body.read().await?;
    ///                 if self.hub.try_publish("scores", score).is_err() {
    ///                     return Err(StatusCode::SERVICE_UNAVAILABLE);
    ///                 }
    ///                 Ok(Response::new(Vec::new()))
    ///             }
    ///             _ => Err(StatusCode::NOT_FOUND),
    ///         }
    ///     }
    ///
    ///     async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
    ///         Err(Disconnect::UNSUPPORTED)
    ///     }
    /// }
    /// # use hublet::Config;
    /// # smol::block_on(async {
    /// # let (hub, _manager) = Hub::new(Config::default()).expect("valid");
    /// let game = Game { hub };
    /// let request = Request::get("/api/players").body(()).expect("well-formed");
    /// let none = Body::from(Vec::new());
    /// let response = game.on_request(&request, &Peer::unknown(), none).await;
    /// assert_eq!(response.expect("it is there").body(), b"{\"players\":0}");
    /// # });
    /// ```
    #[doc(alias = "endpoint")]
    #[doc(alias = "route")]
    fn on_request(
        &self,
        request: &Request<()>,
        peer: &Peer,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Response<Vec<u8>>, StatusCode>> + Send {
        let _ = (request, peer, body);
        ready(Err(StatusCode::NOT_FOUND))
    }

    /// Decides on a request to the admin endpoints `/metrics`, `/rooms`, `/rooms/{room}` and `/events`,
    /// if [`Config::http`](crate::Config::http) is on. An `Err` is the status of the refusal.
    ///
    /// The default allows requests from loopback ([`is_local`](crate::is_local)), and refuses others
    /// with 403.
    fn on_inspect(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        ready(if is_local(request, peer) { Ok(()) } else { Err(StatusCode::FORBIDDEN) })
    }

    /// Waits for the moment from which a request for events (`GET /events`) is not allowed any more:
    /// when its token ends, for example. The stream ends then with 1008; the reason is that of
    /// [`on_refusal`](Self::on_refusal) for the status.
    ///
    /// By default there is no such moment.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the stream ends before.
    fn inspect_until(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = StatusCode> + Send {
        let _ = (request, peer);
        pending()
    }

    /// Returns whether a request to publish counts against
    /// [`Config::max_post_rate`](crate::Config#structfield.max_post_rate). The default is `true`; a
    /// request of the application's own backend, for example, need not count.
    fn is_rate_limited(&self, request: &Request<()>, peer: &Peer) -> bool {
        let _ = (request, peer);
        true
    }

    /// Returns why [`on_upgrade`](Self::on_upgrade), [`on_publish`](Self::on_publish),
    /// [`on_inspect`](Self::on_inspect), [`on_act`](Self::on_act) or
    /// [`on_request`](Self::on_request) has refused a request with this status.
    ///
    /// The sentence is the body of the response and in the log; with 401 it is also the
    /// `error_description` of `WWW-Authenticate`, and the log has it once at the level WARN. The peer
    /// reads it, so it must contain no secret. The default is `None`: a sentence by the status.
    fn on_refusal(&self, request: &Request<()>, status: StatusCode) -> Option<Cow<'static, str>> {
        let _ = (request, status);
        None
    }

    /// Runs when a client is registered and has its 101. An `Err` closes it.
    ///
    /// Messages may reach the client already. The hub reads the client's own messages when this
    /// hook is done. So a greeting that is sent here comes before the answer to any of them.
    #[doc(alias = "on_open")]
    fn on_connect(&self, client: &Client) -> impl Future<Output = Result<(), Disconnect>> + Send {
        let _ = client;
        ready(Ok(()))
    }

    /// Takes a message from a client. An `Err` closes the client, after the messages that are
    /// queued for it.
    ///
    /// The hub reads the client's next message when this hook is done: messages of a client are
    /// handled in order, and TCP slows down a client whose messages take long. Text is valid UTF-8,
    /// and fragments are assembled (RFC 6455 5.4).
    fn on_message(
        &self,
        client: &Client,
        message: Message,
    ) -> impl Future<Output = Result<(), Disconnect>> + Send;

    /// Describes a client for the process that takes the hub over, or returns `None` if it cannot go
    /// along: the hub closes it with 1012 then.
    ///
    /// [`on_take_over`](Self::on_take_over) of that process reads the description. User, rooms and
    /// address go along by themselves. The default keeps a client without an
    /// [extension](Admission::extension) and describes nothing. [`Hub::hand_over`] has an example.
    ///
    /// [`Hub::hand_over`]: crate::Hub::hand_over
    fn on_hand_over(&self, client: &Client) -> Option<String> {
        (!client.has_extension()).then(String::new)
    }

    /// Makes the extension of a client that another process had, from its description. Of the
    /// admission the hub takes the extension and the limits alone: [`rate`](Admission::rate),
    /// [`queue`](Admission::queue) and those beside it. With `None` it closes the client with 1012.
    ///
    /// [`on_connect`](Self::on_connect) runs next, as for a client that has just come.
    fn on_take_over(&self, description: &str) -> Option<Admission> {
        description.is_empty().then(Admission::anonymous)
    }

    /// Runs when a client was removed from the registry and its socket is closed.
    ///
    /// [`Client::rooms`] returns the rooms that it has left; a message to them reaches the others.
    ///
    /// `reason` is the close frame of the peer or of the hub, whichever came first; 1005 or 1006 if
    /// there was none (RFC 6455 7.1.5). A peer that reads nothing at the end has not seen the close
    /// frame of the hub.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Client, Disconnect, Handler, Message};
    ///
    /// /// Tells the others in a room that a client has left it.
    /// struct Farewell;
    ///
    /// impl Handler for Farewell {
    ///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
    ///         client.broadcast(message).await?;
    ///         Ok(())
    ///     }
    ///
    ///     async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
    ///         let user = client.user().unwrap_or("a guest");
    ///         for room in client.rooms().await.unwrap_or_default() {
    ///             let text = format!("{user} has left {room} ({})", reason.code());
    ///             // This fails only if the hub has ended.
    ///             let _ = client.hub().publish(&room, text).await;
    ///         }
    ///     }
    /// }
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// # let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// # let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// # Farewell.on_disconnect(ada.client(), &Disconnect::NORMAL).await;
    /// # let message = bob.next().await.expect("connected");
    /// # assert_eq!(message.as_text(), Some("ada has left news (1000)"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "on_close")]
    fn on_disconnect(
        &self,
        client: &Client,
        reason: &Disconnect,
    ) -> impl Future<Output = ()> + Send {
        let _ = (client, reason);
        ready(())
    }
}
