//! A non-blocking socket and what watches it.

use std::io;
/// What async-io takes on this system.
#[cfg(unix)]
pub(crate) use std::os::fd::AsFd as Descriptor;
#[cfg(windows)]
pub(crate) use std::os::windows::io::AsSocket as Descriptor;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::task::{Context, Poll};

use smol::Async;

#[cfg(target_os = "linux")]
use crate::net::epoll::{EpollSource, Poller};
use crate::net::sys;

/// A non-blocking socket, and who tells when it is ready.
#[derive(Debug)]
pub(crate) enum Io<T: Descriptor> {
    Async(Async<T>),
    #[cfg(target_os = "linux")]
    Watched(EpollSource<T>),
}

impl<T: Descriptor> Io<T> {
    pub(crate) fn get_ref(&self) -> &T {
        match self {
            Self::Async(socket) => socket.get_ref(),
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.get_ref(),
        }
    }

    /// Has another non-blocking socket told of by who tells of this one.
    pub(crate) fn register<S: Descriptor>(&self, socket: S) -> io::Result<Io<S>> {
        match self {
            Self::Async(_) => Async::new_nonblocking(socket).map(Io::Async),
            #[cfg(target_os = "linux")]
            Self::Watched(this) => EpollSource::new(this.poller(), socket).map(Io::Watched),
        }
    }

    /// Ready when a read is worth trying.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Async(socket) => socket.poll_readable(cx),
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.poll_readable(cx).map(Ok),
        }
    }

    /// Ready when a write is worth trying again.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Async(socket) => socket.poll_writable(cx),
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.poll_writable(cx),
        }
    }

    /// Whether a listener was shut down, as far as anybody has told.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Async(_) => false,
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.has_ended(),
        }
    }

    /// A read took as much as it could: there may be more.
    pub(crate) fn expect_more(&self) {
        match self {
            // It tells of what is there, and not of what comes.
            Self::Async(_) => {}
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.expect_more(),
        }
    }
}

#[cfg(target_os = "linux")]
impl Io<sys::Listener> {
    /// Has the listener told of by a poller of our own.
    pub(crate) fn attach(self, poller: &Arc<Poller>) -> io::Result<Self> {
        let socket = match self {
            Self::Async(socket) => socket.into_inner()?,
            Self::Watched(socket) => socket.get_ref().try_clone()?,
        };
        EpollSource::shared(poller, socket).map(Self::Watched)
    }
}
