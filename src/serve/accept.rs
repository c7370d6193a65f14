//! Serving: from a listener to a client.

use std::future::{Future, pending, ready};
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_lite::future::or;
use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::connection::handler::Handler;
use crate::connection::memory_wait;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::limits::admission::HandshakePermit;
use crate::net::acceptor::Acceptor;
#[cfg(not(feature = "tls"))]
use crate::net::acceptor::Plain;
use crate::net::incoming::Incoming;
use crate::net::listener::Listener;
use crate::net::socket::Socket;
use crate::net::stream::{AnyStream, Transport};
#[cfg(feature = "tls")]
use crate::net::tls::acceptor::Secure;
use crate::peer::Peer;
use crate::serve::http_connection::{HttpConnection, Outcome};
use crate::serve::spawn::{Spawn, SpawnWith};
use crate::sse::connection::run as run_events;
use crate::time::clock::unix_seconds;
use crate::websocket::connection::Connection;
use crate::websocket::run::{open, run_open};

/// The first pause after an accept that failed; it doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause after an accept that failed: how late the hub notices that descriptors are
/// free again.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long an executor may not run before the log says so: soon enough for a developer that waits
/// for an answer, and longer than a program is busy at its start.
const EXECUTOR_WAIT: Duration = Duration::from_millis(500);

impl Hub {
    /// Accepts connections and runs each on `executor`, until a drain begins.
    ///
    /// `executor` is a reference to an executor, or an `Arc` of one ([`Spawn`]). **Something must
    /// run it**, for example `smol::block_on(executor.run(..))` around this future, or the hub
    /// accepts connections and never answers. If nothing has run it half a second after the
    /// begin, the log says so at the level WARN. Under tokio, use [`serve_with`](Self::serve_with).
    ///
    /// An accept that fails, as when file descriptors run out, is logged and tried again after a
    /// pause of 10 ms, doubling to 1 s. Several listeners are several calls, with one handler in an
    /// [`Arc`](std::sync::Arc).
    ///
    /// # Errors
    ///
    /// If the listener accepts nothing any more, as when another process that shares the socket has
    /// shut it down, if the socket buffers cannot be set that
    /// [`Config::max_memory`](crate::Config::max_memory) asks for, or if async-io cannot register the
    /// listener. With it the future ends: there is no use in waiting for that to pass.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener; connections that were accepted go on.
    ///
    /// # Examples
    ///
    /// With a clone of the `Arc` the future is a task of its own:
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use hublet::{Config, Disconnect, Hub, Listener, Relay};
    /// use smol::Executor;
    ///
    /// let executor = Arc::new(Executor::new());
    /// smol::block_on(executor.run(async {
    ///     let (hub, manager) = Hub::new(Config::default()).expect("the defaults are valid");
    ///     let manager = executor.spawn(manager);
    ///     let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    ///     let serving = hub.serve(Arc::clone(&executor), listener, Relay::new());
    ///     let server = executor.spawn(serving);
    ///
    ///     hub.drain(Disconnect::GOING_AWAY).await;
    ///     assert!(server.await.is_ok());
    ///     manager.await;
    ///     assert!(hub.broadcast("anyone?").await.expect_err("the hub has ended").is_closed());
    /// }));
    /// ```
    pub fn serve<S: Spawn, H: Handler>(
        &self,
        executor: S,
        listener: Listener,
        handler: H,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<S, H> {
        let hub = self.clone();
        async move {
            let runs = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&runs);
            executor.spawn(async move { seen.store(true, Ordering::Relaxed) });
            let idle: Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(watch_executor(hub.clone(), runs));
            or(hub.serve_on(executor, listener, Arc::new(handler)), idle).await
        }
    }

    /// Accepts connections and has `spawn` run each, until a drain begins: for tokio and any other
    /// runtime.
    ///
    /// The futures need nothing of the runtime: async-io waits for the sockets and the timers, in a
    /// thread of its own. `spawn` is called in the task that runs the future of this call. Hooks may
    /// use the runtime. The manager's future wants a task too.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener; connections that were accepted go on.
    ///
    /// # Examples
    ///
    /// On tokio, `spawn` is `|connection| { tokio::spawn(connection); }`; `examples/tokio` is a whole
    /// program. On the global executor of smol:
    ///
    /// ```
    /// use hublet::{Config, Disconnect, Hub, Listener, Relay};
    ///
    /// smol::block_on(async {
    ///     let (hub, manager) = Hub::new(Config::default())?;
    ///     let manager = smol::spawn(manager);
    ///     let listener = Listener::bind("127.0.0.1:0")?;
    ///     let serving = hub.serve_with(listener, Relay::new(), |connection| {
    ///         smol::spawn(connection).detach();
    ///     });
    ///     let server = smol::spawn(serving);
    ///
    ///     hub.drain(Disconnect::GOING_AWAY).await;
    ///     server.await?;
    ///     manager.await;
    ///     Ok::<_, hublet::Error>(())
    /// })
    /// .expect("it works");
    /// ```
    #[doc(alias = "tokio")]
    pub fn serve_with<H: Handler, F>(
        &self,
        listener: Listener,
        handler: H,
        spawn: F,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<H, F>
    where
        F: Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync,
    {
        self.serve(SpawnWith(spawn), listener, handler)
    }

    async fn serve_on<S: Spawn, H: Handler>(
        &self,
        executor: S,
        mut listener: Listener,
        handler: Arc<H>,
    ) -> Result<(), Error> {
        if let Some(sizing) = self.sizing() {
            listener.apply_limits(sizing)?;
        }
        #[cfg(feature = "tls")]
        let acceptor = Secure::new(listener.tls.take(), self.memory());
        #[cfg(not(feature = "tls"))]
        let acceptor = Plain;
        let listener = Incoming::new(listener)?;
        self.shared().started.get_or_init(unix_seconds);
        self.serve_through(&executor, &listener, acceptor, handler).await
    }

    /// Serves connections whose streams `acceptor` makes.
    async fn serve_through<S: Spawn, A: Acceptor, H: Handler>(
        &self,
        executor: &S,
        listener: &Incoming,
        acceptor: A,
        handler: Arc<H>,
    ) -> Result<(), Error> {
        let admissions = &self.shared().admissions;
        let mut closed = pin!(admissions.closed());
        let mut pause = ACCEPT_PAUSE;
        // Whether another connection may wait: after a successful accept there is no use in waiting
        // for readiness.
        let mut more = false;
        loop {
            // The end comes before another accept: a connection that waits in the backlog is for the
            // next process that has the socket.
            let ended = async {
                closed.as_mut().await;
                None
            };
            let accepted = or(ended, async { Some(self.accept(listener, more).await) });
            let error = match accepted.await {
                None => return Ok(()),
                Some(Ok((socket, peer, permit))) => {
                    (pause, more) = (ACCEPT_PAUSE, true);
                    let arrived = Box::new((acceptor.clone(), socket, peer, permit));
                    executor.spawn(run(self.clone(), arrived, Arc::clone(&handler)));
                    continue;
                }
                Some(Err(error)) => error,
            };
            more = error.kind() != ErrorKind::WouldBlock;
            if !more || is_about_one_connection(&error) {
                continue;
            }
            if is_permanent(&error) {
                return Err(error.into());
            }
            let millis = pause.as_millis() as u64;
            log::warn!("accepting on {listener} failed, next try in {millis} ms: {error}");
            let _backing_off = admissions.back_off();
            let slept = async {
                self.shared().timers.clock().after(pause).await;
                false
            };
            // After it has ended, the future may not be polled again.
            let ended = async {
                closed.as_mut().await;
                true
            };
            if or(slept, ended).await {
                return Ok(());
            }
            pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
        }
    }

    /// Waits for a connection and accepts it. `more` is whether one may be there already.
    async fn accept(
        &self,
        listener: &Incoming,
        more: bool,
    ) -> io::Result<(Socket, Peer, HandshakePermit)> {
        let admissions = &self.shared().admissions;
        if !more {
            listener.readable().await?;
        }
        // The permit is taken before the connection is accepted, so that none is refused for want of
        // one: it waits in the backlog.
        memory_wait::available(self).await;
        // To wait for a permit makes handshakes under way end early, so wait only when a connection
        // is pending.
        while admissions.is_full() && !listener.has_waiting() {
            listener.readable().await?;
        }
        let permit = admissions.handshake().await;
        // What arrives while another process takes the hub over waits for that in the backlog.
        self.shared().holding.released().await;
        let (socket, peer) = listener.accept()?;
        Ok((socket, peer, permit))
    }

    /// Runs one connection, from its request to its end: for an accept loop of your own, for TLS,
    /// for a pipe.
    ///
    /// Returns why the client was disconnected, or [`Disconnect::NORMAL`] if the connection sent
    /// requests and the last was answered with what it asked for. Waits while as many handshakes are
    /// in flight as [`Config::handshakes`](crate::Config#structfield.handshakes) allows.
    ///
    /// # Errors
    ///
    /// [`Error::status`] if the last request was refused, an error with a source if the stream failed
    /// or ended before a request.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream; the client is out of the registry then.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use futures_lite::{AsyncReadExt, AsyncWriteExt};
    /// use hublet::{Config, Disconnect, Hub, Peer, Relay};
    /// use smol::net::unix::UnixStream;
    ///
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let relay = Relay::new();
    /// // A pipe, whose other end is a client in the same program.
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let talk = async {
    ///     let connected = async_tungstenite::client_async("ws://localhost/", theirs).await;
    ///     let (mut client, _) = connected.expect("the hub answers 101");
    ///     client.close(None).await.expect("it is connected");
    /// };
    /// let served = hub.serve_connection(ours, Peer::unknown(), &relay);
    /// let (reason, ()) = futures_lite::future::zip(served, talk).await;
    /// assert_eq!(reason?, Disconnect::NO_STATUS);
    ///
    /// // Another request is answered too. This one asks for what is not there.
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let talk = async {
    ///     let request = "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    ///     theirs.write_all(request.as_bytes()).await?;
    ///     let mut answer = String::new();
    ///     theirs.read_to_string(&mut answer).await?;
    ///     Ok::<_, std::io::Error>(answer)
    /// };
    /// let served = hub.serve_connection(ours, Peer::unknown(), &relay);
    /// let (refused, answer) = futures_lite::future::zip(served, talk).await;
    /// assert!(answer?.starts_with("HTTP/1.1 404 "));
    /// assert_eq!(refused.expect_err("no such page").status().map(|s| s.as_u16()), Some(404));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// # }
    /// ```
    pub async fn serve_connection<S, H>(
        &self,
        stream: S,
        peer: Peer,
        handler: &H,
    ) -> Result<Disconnect, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Handler,
    {
        self.shared().started.get_or_init(unix_seconds);
        let admissions = &self.shared().admissions;
        let _counted = admissions.connection();
        let permit = admissions.handshake().await;
        match connect(self, AnyStream(stream), peer, handler, permit).await {
            Err(error) if error.is_answered() => Ok(Disconnect::NORMAL),
            ended => ended,
        }
    }
}

/// Warns if nothing has run an executor for [`EXECUTOR_WAIT`]. Never ready.
async fn watch_executor(hub: Hub, runs: Arc<AtomicBool>) -> Result<(), Error> {
    hub.shared().timers.clock().after(EXECUTOR_WAIT).await;
    drop(hub);
    if !runs.load(Ordering::Relaxed) {
        log::warn!(
            "nothing runs the executor that Hub::serve was given, so connections are accepted and \
             not answered: run it, for example with smol::block_on(executor.run(..)), or use \
             Hub::serve_with under tokio"
        );
    }
    pending().await
}

/// Runs a connection that was accepted.
// Not an `async fn`: what a task is given keeps its memory for as long as the task lives, moved on
// or not, and a pointer is the smallest.
fn run<A: Acceptor, H: Handler>(
    hub: Hub,
    arrived: Box<(A, Socket, Peer, HandshakePermit)>,
    handler: Arc<H>,
) -> impl Future<Output = ()> + Send {
    let counted = hub.shared().admissions.connection();
    async move {
        let _counted = counted;
        let (acceptor, socket, peer, permit) = {
            let arrived = arrived;
            *arrived
        };
        // The log and the hooks were told of its end.
        drop(connect_through(&hub, acceptor.accept(socket), peer, &*handler, permit).await);
    }
}

/// A connection on a stream that is there: its requests, then its client.
pub(crate) fn connect<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    peer: Peer,
    handler: &'a H,
    permit: HandshakePermit,
) -> impl Future<Output = Result<Disconnect, Error>> + Send {
    connect_through(hub, ready(Ok(transport)), peer, handler, permit)
}

/// A connection: its stream, its requests, then its client.
// Not an `async fn`, which would keep memory for every argument beside what becomes of it.
fn connect_through<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    accepting: impl Future<Output = io::Result<T>> + Send + 'a,
    peer: Peer,
    handler: &'a H,
    permit: HandshakePermit,
) -> impl Future<Output = Result<Disconnect, Error>> + Send {
    // Boxed, so that its state is freed before the client's long life begins.
    let beginning = Box::pin(HttpConnection::run(hub, accepting, peer, handler, permit));
    async move {
        // What is matched around an await stays in the future: here two pointers, until the 101.
        let (connection, client) = {
            let (outcome, transport) = beginning.await?;
            match begin(hub, transport, outcome, handler) {
                Begun::WebSocket(upgrade) => upgrade.await?,
                Begun::Events(life) => return Ok(life.await),
            }
        };
        Ok(run_open(connection, client, handler).await)
    }
}

/// The connection of a client, and the client.
type Opened<'a, T> = (Box<Connection<'a, T>>, Client);

type BoxedFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a connection becomes when the requests are over.
// Both boxed: the upgrade is over before the client's long life, and the connection of a WebSocket has
// no room for a stream of events.
enum Begun<'a, T: Transport> {
    /// A WebSocket, once its 101 is written.
    WebSocket(BoxedFuture<'a, Result<Opened<'a, T>, Error>>),
    /// A stream of events, to its end.
    Events(BoxedFuture<'a, Disconnect>),
}

/// Makes a client of a connection whose last request asked for one.
fn begin<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    mut transport: T,
    outcome: Outcome<'a>,
    handler: &'a H,
) -> Begun<'a, T> {
    match outcome {
        Outcome::WebSocket(upgrade) => Begun::WebSocket(Box::pin(async move {
            let (admitted, early) = upgrade.complete(hub, &mut transport).await?;
            Ok(open(hub, transport, admitted, early))
        })),
        Outcome::Events(admitted, head) => {
            Begun::Events(Box::pin(run_events(hub, transport, admitted, head, handler)))
        }
    }
}

/// Whether a listener does not listen any more (EINVAL, `accept(2)`).
fn is_permanent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidInput
}

/// Whether an accept failed for the connection that was to be accepted, and not for all.
fn is_about_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
