//! Listening sockets.

use std::fmt;
#[cfg(unix)]
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(unix)]
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::Arc;

use crate::error::Error;
use crate::hub::sizing::Sizing;
#[cfg(target_os = "linux")]
use crate::net::epoll::Poller;
use crate::net::io::Io;
#[cfg(unix)]
use crate::net::options::{self, Refused, SocketOption};
use crate::net::sys;
#[cfg(feature = "tls")]
use crate::net::tls::certificate::Tls;

/// Connections that may wait to be accepted. async-net's 128 stalls a storm of a thousand.
#[cfg(unix)]
const BACKLOG: i32 = 1024;

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
    pub(crate) socket: ListeningSocket,
    pub(crate) name: Name,
    /// Under a ceiling: bytes of each of a connection's two buffers, as the kernel counts them.
    pub(crate) socket_buffer: Option<usize>,
    /// The options that its connections go without.
    #[cfg(unix)]
    pub(crate) refused: Refused,
    /// What its connections speak TLS with.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// The socket of a listener.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// Registered with no reactor yet: a program that attaches it to a reactor of ours does not
    /// start that of async-io.
    Unattached(sys::Listener),
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "other systems have no reactor")
    )]
    Attached(Io<sys::Listener>),
}

#[cfg(unix)]
impl ListeningSocket {
    fn get_ref(&self) -> &sys::Listener {
        match self {
            Self::Unattached(socket) => socket,
            Self::Attached(socket) => socket.get_ref(),
        }
    }
}

/// The address of a listener.
#[derive(Debug)]
pub(crate) enum Name {
    Tcp(SocketAddr),
    /// A socket file, or `None` for an unnamed socket.
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// On Unix the backlog is 1,024; on Linux connections are probed after 20 s of silence and
    /// given up 20 s after a write that is not acknowledged. An option that the system refuses, as
    /// for MPTCP, is a warning in the log. Resolving a host name blocks, an
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

    /// Has all connections of the listener speak TLS; only with the feature `tls`.
    ///
    /// What serves it stays as it is, and so do the limits: a handshake of TLS is a part of the
    /// handshake, under its deadline. `examples/tls` is a whole program.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use hublet::{Listener, Tls};
    /// let tls = Tls::from_files("cert.pem", "key.pem")?;
    /// let listener = Listener::bind("0.0.0.0:443")?.tls(&tls);
    /// # Ok::<_, hublet::Error>(())
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
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
        let socket = match self.socket {
            ListeningSocket::Unattached(socket) => socket,
            ListeningSocket::Attached(socket) => socket.get_ref().try_clone()?,
        };
        Ok(Self { socket: ListeningSocket::Attached(Io::shared(poller, socket)?), ..self })
    }

    /// Applies the memory ceiling: small socket buffers for the connections, a shorter backlog.
    pub(crate) fn apply_limits(&mut self, sizing: &Sizing) -> Result<(), Error> {
        #[cfg(unix)]
        {
            let listener = self.socket.get_ref();
            // TCP connections inherit the sizes, and agree on a window before they are accepted. A
            // Unix listener only shows whether the system has the option.
            let buffers = SocketOption::Buffers(sizing.socket_buffer);
            self.refused.set_on_listener(listener, &[buffers]);
            rustix::net::listen(listener, sizing.backlog as i32).map_err(io::Error::from)?;
        }
        self.socket_buffer = Some(sizing.socket_buffer);
        Ok(())
    }

    fn new(socket: sys::Listener, name: Name) -> Self {
        Self {
            socket: ListeningSocket::Unattached(socket),
            name,
            socket_buffer: None,
            #[cfg(unix)]
            refused: Refused::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
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
        listener.set_nonblocking(true)?;
        let name = Name::Tcp(listener.local_addr()?);
        #[cfg_attr(not(unix), expect(unused_mut, reason = "options are set on Unix"))]
        #[cfg_attr(not(unix), expect(clippy::useless_conversion, reason = "on Unix it is one"))]
        let mut listener = Self::new(listener.into(), name);
        #[cfg(unix)]
        listener.refused.set_on_listener(listener.socket.get_ref(), options::TCP);
        Ok(listener)
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
        listener.set_nonblocking(true)?;
        let name = listener.local_addr()?.as_pathname().map(Path::to_owned);
        Ok(Self::new(listener.into(), Name::Unix(name)))
    }
}

/// For a copy of the descriptor that another process may take over. The hub alone accepts on it.
#[cfg(unix)]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl fmt::Display for Listener {
    /// Writes `127.0.0.1:8080`, or `unix:/run/hublet.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            #[cfg(unix)]
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}
