//! The reactor of the hub's own: epoll in the thread that runs the hub.

use std::future::Future;
#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::hub::handle::Hub;
#[cfg(target_os = "linux")]
use crate::net::epoll::Poller;
#[cfg(unix)]
use crate::net::io::Io;
use crate::net::listener::Listener;
#[cfg(unix)]
use crate::net::watch::Watch;
use crate::time::clock::Clock;

/// Waits for a hub's sockets and deadlines in the thread that runs it, with fewer system calls.
///
/// Without a reactor, sockets and timers are registered with async-io, like all others in a program
/// on smol. async-io makes five system calls for each wait, and one more for each socket that had an
/// event. A reactor makes one call for a wait and none for a socket. That pays when messages go to
/// few clients at a time, and when clients connect and leave often.
///
/// [`attach`](Self::attach) moves a listener with its connections here, and
/// [`attach_timers`](Self::attach_timers) the deadlines of a hub. [`sleep`](Self::sleep) and
/// [`watch`](Self::watch) are for what the program itself waits for. A program that uses them all,
/// and no other part of async-io, has neither the thread of async-io nor its memory.
///
/// A reactor uses `epoll(7)` and `timerfd_create(2)` on Linux. On other systems all stays with
/// async-io, and works in the same way.
///
/// # Examples
///
/// ```
/// use hublet::{Client, Config, Disconnect, Handler, Hub, Listener, Message, Reactor};
/// use smol::Executor;
///
/// struct Echo;
/// impl Handler for Echo {
///     async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
///         client.send(message).await.map(drop).map_err(|_| Disconnect::GOING_AWAY)
///     }
/// }
///
/// # fn main() -> Result<(), hublet::Error> {
/// let executor = Executor::new();
/// let reactor = Reactor::new()?;
/// reactor.block_on(executor.run(async {
///     let (hub, manager) = Hub::new(Config::default())?;
///     reactor.attach_timers(&hub);
///     executor.spawn(manager).detach();
///     let listener = reactor.attach(Listener::bind("127.0.0.1:0")?)?;
/// #   let address = listener.local_addr().expect("TCP");
///     let server = hub.serve(&executor, listener, Echo);
///     let program = async {
/// #       // A client from another WebSocket library.
/// #       let stream = smol::net::TcpStream::connect(address).await?;
/// #       let url = format!("ws://{address}/");
/// #       let (mut peer, _) = async_tungstenite::client_async(url, stream).await.expect("101");
/// #       peer.send("hello".into()).await.expect("sent");
/// #       let heard = futures_lite::StreamExt::next(&mut peer).await.expect("an echo");
/// #       assert_eq!(heard.expect("a frame").into_text().expect("text").as_str(), "hello");
/// #       drop(peer);
///         hub.drain(Disconnect::GOING_AWAY).await;
///         Ok(())
///     };
///     smol::future::try_zip(server, program).await.map(drop)
/// }))
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Reactor {
    #[cfg(target_os = "linux")]
    poller: Arc<Poller>,
}

impl Reactor {
    /// Makes a reactor: three file descriptors.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source: there are no file descriptors left.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            poller: Arc::new(Poller::new()?),
        })
    }

    /// Moves a listener to this reactor, with every connection that it will accept. They make
    /// progress only while [`block_on`](Self::block_on) runs.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source.
    pub fn attach(&self, listener: Listener) -> Result<Listener, Error> {
        #[cfg(target_os = "linux")]
        return Ok(listener.attach(&self.poller)?);
        #[cfg(not(target_os = "linux"))]
        Ok(listener)
    }

    /// Moves all deadlines of a hub to this reactor: the timeouts of its connections, whatever
    /// stream they have, and the pauses of its accept loops and of its drain.
    ///
    /// They pass only while [`block_on`](Self::block_on) runs. A hub that is not attached has the
    /// timers of async-io.
    pub fn attach_timers(&self, hub: &Hub) {
        hub.shared().timers.run_on(self.clock());
    }

    /// Waits for a time to pass.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, without further effect.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// # fn main() -> Result<(), hublet::Error> {
    /// let (reactor, begin) = (hublet::Reactor::new()?, Instant::now());
    /// reactor.block_on(reactor.sleep(Duration::from_millis(10)));
    /// assert!(begin.elapsed() >= Duration::from_millis(10));
    /// # Ok(())
    /// # }
    /// ```
    pub fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
        self.clock().after(wait)
    }

    /// Waits until a point in time; ready at once if that has passed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, without further effect.
    pub fn sleep_until(
        &self,
        time: Instant,
    ) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
        self.clock().at(time)
    }

    /// Watches a descriptor of the program, such as a pipe or a socket, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source: a regular file, for example, cannot be
    /// watched.
    #[cfg(unix)]
    pub fn watch(&self, descriptor: impl Into<OwnedFd>) -> Result<Watch, Error> {
        let descriptor = descriptor.into();
        rustix::io::ioctl_fionbio(&descriptor, true).map_err(io::Error::from)?;
        #[cfg(target_os = "linux")]
        return Ok(Watch::new(Io::shared(&self.poller, descriptor)?));
        #[cfg(not(target_os = "linux"))]
        Ok(Watch::new(Io::unattached(descriptor)?))
    }

    /// Registers a non-blocking socket with a reactor, or else with async-io.
    #[cfg(target_os = "linux")]
    pub(crate) fn register(reactor: Option<&Self>, socket: OwnedFd) -> io::Result<Io<OwnedFd>> {
        match reactor {
            Some(reactor) => Io::shared(&reactor.poller, socket),
            None => Io::unattached(socket),
        }
    }

    fn clock(&self) -> Clock {
        #[cfg(target_os = "linux")]
        return Clock::Reactor(Arc::clone(self.poller.alarms()));
        #[cfg(not(target_os = "linux"))]
        Clock::AsyncIo
    }

    /// Runs a future to its end in this thread. While the future is pending, waits for sockets and
    /// deadlines.
    ///
    /// To run an executor on several threads, call this in each. One of them waits for sockets at a
    /// time; when it leaves, another takes over. A future that blocks the waiting thread delays
    /// every socket. So does a nested call.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        #[cfg(target_os = "linux")]
        return self.poller.block_on(future);
        #[cfg(not(target_os = "linux"))]
        smol::block_on(future)
    }
}
