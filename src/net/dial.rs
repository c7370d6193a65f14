//! Connections that the hub opens itself.

use std::future::poll_fn;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::{io, thread};

use atomic_waker::AtomicWaker;
use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::net::reactor::Reactor;
use crate::redis_config::ServerAddress;

/// A stream of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects, with the sockets of a reactor or else of async-io. The name of a host is resolved anew,
/// and each of its addresses is tried in turn.
///
/// The caller has the deadline.
pub(crate) async fn dial(
    address: &ServerAddress,
    reactor: Option<&Reactor>,
) -> io::Result<Box<dyn Stream>> {
    match address {
        ServerAddress::Tcp(host, port) => {
            let addresses = match host.parse() {
                Ok(address) => vec![SocketAddr::new(address, *port)],
                Err(_) => resolve(host, *port, reactor).await?,
            };
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            for address in addresses {
                match connected::tcp(address, reactor).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        #[cfg(unix)]
        ServerAddress::Unix(path) => connected::unix(path, reactor).await,
    }
}

/// Resolves the name of a host: with a reactor in a thread that ends with the answer, without one in
/// the threads of smol for what blocks. The static binary always has a reactor and goes without those.
async fn resolve(host: &str, port: u16, reactor: Option<&Reactor>) -> io::Result<Vec<SocketAddr>> {
    match reactor {
        #[cfg(not(hublet_reactor_only))]
        None => smol::net::resolve((host, port)).await,
        _ => resolve_in_thread(host, port).await,
    }
}

/// What the thread of a name and the task that waits for it share.
#[derive(Default)]
struct Resolved {
    /// Taken by the task.
    addresses: Mutex<Option<io::Result<Vec<SocketAddr>>>>,
    task: AtomicWaker,
}

/// The C library gives up within the time of resolv.conf(5), 10 s where it is not set. The driver
/// asks every 5 s at most, so there are few threads at once.
async fn resolve_in_thread(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let resolved = Arc::<Resolved>::default();
    let (host, shared) = (host.to_owned(), Arc::clone(&resolved));
    let work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        *shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
        shared.task.wake();
    });
    thread::Builder::new().spawn(work)?;
    poll_fn(|cx| {
        resolved.task.register(cx.waker());
        let addresses = resolved.addresses.lock().unwrap_or_else(PoisonError::into_inner).take();
        addresses.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(target_os = "linux")]
mod connected {
    use std::future::poll_fn;
    use std::io;
    use std::net::SocketAddr;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::io::Errno;
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
    };

    use crate::net::dial::Stream;
    use crate::net::reactor::Reactor;
    use crate::net::socket::Socket;

    pub(super) async fn tcp(
        address: SocketAddr,
        reactor: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = open(family)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let begun = connect(&socket, &address);
        connected(socket, begun, reactor).await
    }

    pub(super) async fn unix(
        path: &Path,
        reactor: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        let socket = open(AddressFamily::UNIX)?;
        let begun = connect(&socket, &SocketAddrUnix::new(path)?);
        connected(socket, begun, reactor).await
    }

    fn open(family: AddressFamily) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(socket_with(family, SocketType::STREAM, flags, None)?)
    }

    /// Waits for a socket, which is writable once it is connected or has failed.
    async fn connected(
        socket: OwnedFd,
        begun: Result<(), Errno>,
        reactor: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        if !matches!(begun, Ok(()) | Err(Errno::INPROGRESS)) {
            begun?;
        }
        let socket = Reactor::register(reactor, socket)?;
        if begun.is_err() {
            poll_fn(|cx| socket.poll_writable(cx)).await?;
            sockopt::socket_error(socket.get_ref())??;
        }
        Ok(Box::new(Socket::new(socket, None)))
    }
}

#[cfg(not(target_os = "linux"))]
mod connected {
    use std::io;
    use std::net::SocketAddr;

    use smol::net::TcpStream;

    use crate::net::dial::Stream;
    use crate::net::reactor::Reactor;

    pub(super) async fn tcp(
        address: SocketAddr,
        _: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    #[cfg(unix)]
    pub(super) async fn unix(
        path: &std::path::Path,
        _: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(smol::net::unix::UnixStream::connect(path).await?))
    }
}
