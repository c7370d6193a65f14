//! The reactor of the hub's own: epoll in the thread that runs the hub.

use std::future::Future;
#[cfg(target_os = "linux")]
use std::sync::Arc;

use crate::error::Error;
#[cfg(target_os = "linux")]
use crate::net::epoll::Poller;
use crate::net::listener::Listener;

/// Waits for a hub's sockets in the thread that runs it, with fewer system calls.
///
/// Without a reactor, the sockets are registered with async-io, like all others in a program on
/// smol. async-io makes five system calls for each wait, and one more for each socket that had an
/// event. A reactor makes one call for a wait and none for a socket. That pays when messages go to
/// few clients at a time, and when clients connect and leave often. Timers, and everything else
/// that the program waits for, stay with async-io.
///
/// A reactor uses `epoll(7)` on Linux. On other systems the sockets stay with async-io, and all
/// else is the same.
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
    /// Makes a reactor: two file descriptors.
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

    /// Runs a future to its end in this thread, and waits for sockets while the future is pending.
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
