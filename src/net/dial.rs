//! Connections that the hub opens itself.

use std::io;
use std::net::SocketAddr;

use futures_lite::io::{AsyncRead, AsyncWrite};
use smol::net::resolve;

use crate::net::reactor::Reactor;
use crate::redis_config::Place;

/// A stream of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects, with the sockets of a reactor or else of async-io. The name of a host is resolved anew,
/// on a thread of the runtime that is there for what blocks, and each of its addresses is tried in
/// turn.
///
/// The caller has the deadline.
pub(crate) async fn dial(place: &Place, reactor: Option<&Reactor>) -> io::Result<Box<dyn Stream>> {
    match place {
        Place::Tcp(host, port) => {
            let addresses = match host.parse() {
                Ok(address) => vec![SocketAddr::new(address, *port)],
                Err(_) => resolve((host.as_str(), *port)).await?,
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
        Place::Unix(path) => connected::unix(path, reactor).await,
    }
}

#[cfg(target_os = "linux")]
mod connected {
    use std::future::poll_fn;
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;

    use rustix::io::Errno;
    use rustix::net::addr::SocketAddrArg;
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
        open(family, &address, reactor).await
    }

    pub(super) async fn unix(
        path: &Path,
        reactor: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        open(AddressFamily::UNIX, &SocketAddrUnix::new(path)?, reactor).await
    }

    /// Connects a socket, which is writable once it is connected or has failed.
    async fn open(
        family: AddressFamily,
        address: &impl SocketAddrArg,
        reactor: Option<&Reactor>,
    ) -> io::Result<Box<dyn Stream>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        if family != AddressFamily::UNIX {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        let begun = connect(&socket, address);
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
