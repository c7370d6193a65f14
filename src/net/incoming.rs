//! The connections that arrive at a listener.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use crate::net::io::Io;
use crate::net::listener::{Listener, ListeningSocket, Name};
#[cfg(unix)]
use crate::net::options::{self, Refused, SocketOption};
use crate::net::socket::Socket;
use crate::net::sys;
use crate::peer::Peer;

/// A listener that is registered with a reactor, and accepts.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: Io<sys::Listener>,
    name: Name,
    /// Under a ceiling: bytes of each of a connection's two buffers, as the kernel counts them.
    socket_buffer: Option<usize>,
    /// Whether connections may wait that arrived before the listener had its options, for example
    /// while a supervisor held it. They have inherited none.
    may_lack_options: AtomicBool,
    /// The options that its connections go without.
    #[cfg(unix)]
    refused: Refused,
}

impl Incoming {
    /// Registers a listener with async-io, unless a reactor has it.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        let socket = match listener.socket {
            ListeningSocket::Attached(socket) => socket,
            ListeningSocket::Unattached(socket) => Io::unattached(socket)?,
        };
        Ok(Self {
            socket,
            name: listener.name,
            socket_buffer: listener.socket_buffer,
            may_lack_options: true.into(),
            #[cfg(unix)]
            refused: listener.refused,
        })
    }

    /// Waits until an accept may succeed. Cancel safe; for one task at a time.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_readable(cx)).await
    }

    /// Whether an accept would return at once, with a connection or an error.
    #[cfg(unix)]
    pub(crate) fn has_waiting(&self) -> bool {
        // If poll(2) fails, accept fails for the same reason.
        #[cfg(not(all(target_arch = "mips", target_endian = "big")))]
        {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let mut listener = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
            poll(&mut listener, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
        }
        // There rustix misplaces the nanoseconds of a time, and the call might wait.
        #[cfg(all(target_arch = "mips", target_endian = "big"))]
        {
            use std::os::fd::AsFd as _;

            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            let mut listener = [PollFd::new(self.socket.get_ref().as_fd(), PollFlags::POLLIN)];
            poll(&mut listener, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
        }
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
        let inherits = cfg!(target_os = "linux") && !is_early;
        if is_tcp && !inherits {
            self.refused.set_on_connection(stream, options::TCP)?;
        }
        match self.socket_buffer {
            // Connections of a Unix listener inherit no options.
            Some(bytes) if is_early || !is_tcp => {
                self.refused.set_on_connection(stream, &[SocketOption::Buffers(bytes)])
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(unix))]
    fn set_options(&self, stream: &sys::Stream) -> io::Result<()> {
        stream.set_nodelay(true)
    }
}

/// The error of an accepted socket whose options cannot be set. Some systems report this for a
/// connection that its peer has reset. The connection is dropped and the accept loop goes on: a
/// socket without its buffer sizes would break the memory ceiling.
fn as_connection_error(error: io::Error) -> io::Error {
    log::debug!("a connection that takes no options is dropped: {error}");
    ErrorKind::ConnectionAborted.into()
}

impl fmt::Display for Incoming {
    /// Writes the address, as [`Listener`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
