//! A non-blocking socket, registered with async-io or with a poller of ours.

use std::io;
/// The trait that async-io asks of a socket on this system.
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
#[cfg(target_os = "linux")]
use crate::net::sys;

/// A non-blocking socket and the reactor it is registered with.
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

    /// Registers another non-blocking socket with the reactor of this one.
    pub(crate) fn register<S: Descriptor>(&self, socket: S) -> io::Result<Io<S>> {
        match self {
            Self::Async(_) => Async::new_nonblocking(socket).map(Io::Async),
            #[cfg(target_os = "linux")]
            Self::Watched(this) => EpollSource::new(this.poller(), socket).map(Io::Watched),
        }
    }

    /// Ready when a read may return something.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Async(socket) => socket.poll_readable(cx),
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.poll_readable(cx).map(Ok),
        }
    }

    /// Ready when a write may make progress.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Async(socket) => socket.poll_writable(cx),
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.poll_writable(cx),
        }
    }

    /// Whether a listener was shut down; always `false` with async-io, which does not report it.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Async(_) => false,
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.has_ended(),
        }
    }

    /// Marks the socket readable again, after a read that filled its buffer.
    pub(crate) fn expect_more(&self) {
        match self {
            // async-io is level-triggered: it reports what is left by itself.
            Self::Async(_) => {}
            #[cfg(target_os = "linux")]
            Self::Watched(socket) => socket.expect_more(),
        }
    }
}

#[cfg(target_os = "linux")]
impl Io<sys::Listener> {
    /// Registers the listener with a poller of ours instead.
    pub(crate) fn attach(self, poller: &Arc<Poller>) -> io::Result<Self> {
        let socket = match self {
            Self::Async(socket) => socket.into_inner()?,
            Self::Watched(socket) => socket.get_ref().try_clone()?,
        };
        EpollSource::shared(poller, socket).map(Self::Watched)
    }
}
