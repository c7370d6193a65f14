//! Listening sockets.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(unix)]
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::{fmt, io};

use smol::Async;

use crate::error::Error;
use crate::hub::sizing::Sizing;
#[cfg(target_os = "linux")]
use crate::net::epoll::Poller;
use crate::net::io::Io;
use crate::net::peer::Peer;
use crate::net::socket::Socket;
use crate::net::sys;

/// Connections that may wait to be accepted. async-net's 128 stalls a storm of a thousand.
#[cfg(unix)]
const BACKLOG: i32 = 1024;

/// Seconds without an acknowledgement after which the kernel gives up a connection.
#[cfg(target_os = "linux")]
const UNANSWERED_SECONDS: u32 = 20;

/// A listening socket, TCP or Unix.
///
/// # Examples
///
/// ```
/// use hublet::Listener;
///
/// let listener = Listener::bind("127.0.0.1:0").expect("a free port");
/// let address = listener.local_addr().expect("TCP");
/// assert_ne!(address.port(), 0);
/// assert_eq!(listener.to_string(), address.to_string());
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: Io<sys::Listener>,
    name: Name,
    /// Under a ceiling: bytes of each of a connection's two buffers, as the kernel counts them.
    socket_buffer: Option<usize>,
    /// Whether connections may wait that arrived before the listener had its options, for example
    /// while a supervisor held it. They have inherited none.
    may_lack_options: AtomicBool,
}

/// The address of a listener.
#[derive(Debug)]
enum Name {
    Tcp(SocketAddr),
    /// A socket file, or `None` for an unnamed socket.
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// On Unix the backlog is 1,024; on Linux connections are probed after 20 s of silence and
    /// given up 20 s after a write that is not acknowledged. Resolving a host name blocks, an
    /// address does not.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Listener;
    /// let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    /// let taken = listener.local_addr().expect("TCP");
    /// assert!(Listener::bind(taken).is_err());
    /// ```
    #[doc(alias = "listen")]
    pub fn bind(address: impl ToSocketAddrs) -> Result<Self, Error> {
        Self::try_from(TcpListener::bind(address)?)
    }

    /// Returns the TCP address, with the real port where 0 was asked for; `None` for a Unix
    /// socket, whose path [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.name {
            Name::Tcp(address) => Some(address),
            #[cfg(unix)]
            Name::Unix(_) => None,
        }
    }

    /// Registers the listener, and later its connections, with a poller of ours.
    #[cfg(target_os = "linux")]
    pub(crate) fn attach(self, poller: &Arc<Poller>) -> io::Result<Self> {
        Ok(Self { socket: self.socket.attach(poller)?, ..self })
    }

    /// Applies the memory ceiling: small socket buffers for the connections, a shorter backlog.
    pub(crate) fn apply_limits(&mut self, sizing: &Sizing) -> Result<(), Error> {
        #[cfg(unix)]
        {
            let listener = self.socket.get_ref();
            // TCP connections inherit the sizes, and agree on a window before they are accepted.
            if matches!(self.name, Name::Tcp(_)) {
                set_buffers(listener, sizing.socket_buffer)?;
            }
            rustix::net::listen(listener, sizing.backlog as i32).map_err(io::Error::from)?;
        }
        self.may_lack_options = true.into();
        self.socket_buffer = Some(sizing.socket_buffer);
        Ok(())
    }

    /// Waits until an accept may succeed. Cancel safe; for one task at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        let mut armed = false;
        poll_fn(|cx| {
            let readable = self.socket.poll_readable(cx)?;
            // async-io may answer "not ready" for an event that it has just reported.
            if std::mem::replace(&mut armed, true) { Poll::Ready(Ok(())) } else { readable.map(Ok) }
        })
        .await
    }

    /// Whether an accept would return at once, with a connection or an error.
    #[cfg(unix)]
    pub(crate) fn has_waiting(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut listener = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        // If poll(2) fails, accept fails for the same reason.
        poll(&mut listener, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
    }

    /// Unknown on this system.
    #[cfg(not(unix))]
    pub(crate) fn has_waiting(&self) -> bool {
        true
    }

    /// Accepts a connection that waits; [`ErrorKind::WouldBlock`] if none does.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        let accepted = sys::accept(self.socket.get_ref());
        if matches!(&accepted, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            // The backlog is in order: no connection from before the options is left.
            self.may_lack_options.store(false, Ordering::Relaxed);
            // A Unix listener that was shut down answers accept with "would block". Only epoll
            // reports the shutdown.
            if self.socket.has_ended() {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
        let (stream, address) = accepted?;
        self.set_options(&stream).map_err(as_connection_error)?;
        let peer = match self.name {
            Name::Tcp(_) => Peer::from(address.ok_or(ErrorKind::ConnectionAborted)?),
            #[cfg(unix)]
            Name::Unix(_) => Peer::unix(),
        };
        Ok((Socket::new(self.socket.register(stream)?, self.socket_buffer), peer))
    }

    /// Gives a connection the options that it has not inherited.
    #[cfg(unix)]
    fn set_options(&self, stream: &sys::Stream) -> io::Result<()> {
        let is_early = self.may_lack_options.load(Ordering::Relaxed);
        let is_tcp = matches!(self.name, Name::Tcp(_));
        #[cfg(target_os = "linux")]
        if is_early && is_tcp {
            set_inherited_options(stream)?;
        }
        #[cfg(not(target_os = "linux"))]
        if is_tcp {
            rustix::net::sockopt::set_tcp_nodelay(stream, true)?;
        }
        match self.socket_buffer {
            // Connections of a Unix listener inherit no options.
            Some(bytes) if is_early || !is_tcp => set_buffers(stream, bytes),
            _ => Ok(()),
        }
    }

    #[cfg(not(unix))]
    fn set_options(&self, stream: &sys::Stream) -> io::Result<()> {
        stream.set_nodelay(true)
    }

    /// Makes the socket non-blocking and registers it with async-io, until a reactor takes it.
    fn new(socket: impl Into<sys::Listener>, name: Name) -> Result<Self, Error> {
        let socket = Io::Async(Async::new(socket.into())?);
        Ok(Self { socket, name, socket_buffer: None, may_lack_options: true.into() })
    }
}

impl TryFrom<TcpListener> for Listener {
    type Error = Error;

    /// Takes over a listener, for example one from a supervisor, and applies the settings of
    /// [`bind`](Self::bind). It becomes non-blocking.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Listener;
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    /// let address = socket.local_addr().expect("bound");
    /// let listener = Listener::try_from(socket).expect("it listens");
    /// assert_eq!(listener.local_addr(), Some(address));
    /// ```
    fn try_from(listener: TcpListener) -> Result<Self, Error> {
        #[cfg(unix)]
        rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from)?;
        #[cfg(target_os = "linux")]
        set_inherited_options(&listener)?;
        let name = Name::Tcp(listener.local_addr()?);
        Self::new(listener, name)
    }
}

#[cfg(unix)]
impl TryFrom<UnixListener> for Listener {
    type Error = Error;

    /// Takes over a Unix listener. It becomes non-blocking. The caller removes its file.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Listener;
    /// use std::os::unix::net::UnixListener;
    ///
    /// let path = std::env::temp_dir().join(format!("hublet-doc-{}.sock", std::process::id()));
    /// let socket = UnixListener::bind(&path).expect("a free path");
    /// let listener = Listener::try_from(socket).expect("it listens");
    /// assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
    /// # std::fs::remove_file(path).expect("it is there");
    /// ```
    fn try_from(listener: UnixListener) -> Result<Self, Error> {
        rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from)?;
        let name = listener.local_addr()?.as_pathname().map(Path::to_owned);
        Self::new(listener, Name::Unix(name))
    }
}

/// Sets the options of connections on the listener. On Linux connections inherit them, which saves
/// a system call for each.
#[cfg(target_os = "linux")]
fn set_inherited_options(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    use rustix::net::sockopt;
    use std::time::Duration;

    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(UNANSWERED_SECONDS.into()))?;
    sockopt::set_tcp_user_timeout(socket, UNANSWERED_SECONDS * 1000)?;
    Ok(())
}

/// The error of an accepted socket whose options cannot be set. Some systems report this for a
/// connection that its peer has reset. The connection is dropped and the accept loop goes on: a
/// socket without its buffer sizes would break the memory ceiling.
fn as_connection_error(error: io::Error) -> io::Error {
    log::debug!("a connection that takes no options is dropped: {error}");
    ErrorKind::ConnectionAborted.into()
}

/// Sets both buffers of a socket to `bytes`. The kernel doubles the value that it is given.
#[cfg(unix)]
fn set_buffers(socket: &impl std::os::fd::AsFd, bytes: usize) -> io::Result<()> {
    rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes / 2)?;
    Ok(rustix::net::sockopt::set_socket_recv_buffer_size(socket, bytes / 2)?)
}

impl fmt::Display for Listener {
    /// Writes `127.0.0.1:8080`, or `unix:/run/hublet.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Name::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            #[cfg(unix)]
            Name::Unix(None) => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::peer::Peer;

    #[test]
    fn a_network_is_a_v4_address_or_a_v6_64() {
        let network =
            |text: &str| Peer::from(SocketAddr::new(text.parse().expect(text), 1)).network();
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(Peer::unix().network(), None);
    }
}
