//! A non-blocking socket, registered with async-io or with a poller of ours.

use std::io;
/// The trait that async-io asks of a socket on this system.
#[cfg(unix)]
pub(crate) use std::os::fd::AsFd as Descriptor;
#[cfg(windows)]
pub(crate) use std::os::windows::io::AsSocket as Descriptor;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::task::{Context, Poll, ready};

#[cfg(target_os = "linux")]
use crate::net::epoll::{EpollSource, Poller};

/// A non-blocking socket and the reactor it is registered with.
#[derive(Debug)]
pub(crate) enum Io<T: Descriptor> {
    Async(AsyncSource<T>),
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

    /// Registers a non-blocking socket with async-io, which starts its thread if this is the first.
    pub(crate) fn unattached(socket: T) -> io::Result<Self> {
        AsyncSource::new(socket).map(Self::Async)
    }

    /// Registers a non-blocking socket, of which other descriptors may exist, with a poller of ours.
    #[cfg(target_os = "linux")]
    pub(crate) fn shared(poller: &Arc<Poller>, socket: T) -> io::Result<Self> {
        EpollSource::shared(poller, socket).map(Self::Watched)
    }

    /// Registers another non-blocking socket with the reactor of this one.
    pub(crate) fn register<S: Descriptor>(&self, socket: S) -> io::Result<Io<S>> {
        match self {
            Self::Async(_) => Io::unattached(socket),
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

/// Repeats `read_or_write` until it does not report `WouldBlock`; in between waits for `is_ready`.
pub(crate) fn poll_io<R>(
    cx: &mut Context<'_>,
    mut is_ready: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut read_or_write: impl FnMut() -> io::Result<R>,
) -> Poll<io::Result<R>> {
    loop {
        match read_or_write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(is_ready(cx))?,
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(not(hublet_reactor_only))]
pub(crate) use self::async_io::AsyncSource;
#[cfg(hublet_reactor_only)]
pub(crate) use self::none::AsyncSource;

#[cfg(not(hublet_reactor_only))]
mod async_io {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    use smol::Async;

    use crate::net::io::Descriptor;

    /// A non-blocking socket, registered with async-io.
    #[derive(Debug)]
    pub(crate) struct AsyncSource<T: Descriptor> {
        socket: Async<T>,
        /// Whether the task waits to read, so that its next poll may be for that.
        waits: AtomicBool,
    }

    impl<T: Descriptor> AsyncSource<T> {
        pub(crate) fn new(socket: T) -> io::Result<Self> {
            Ok(Self { socket: Async::new_nonblocking(socket)?, waits: false.into() })
        }

        pub(crate) fn get_ref(&self) -> &T {
            self.socket.get_ref()
        }

        /// Ready in the first poll after one that was pending, even if async-io denies it: what
        /// async-io reports in the round in which it was asked, it takes for an answer to an earlier
        /// question. The read then shows whether there is something.
        pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let readable = self.socket.poll_readable(cx)?;
            // Only this task reads and writes it.
            let was_woken = self.waits.load(Ordering::Relaxed);
            let waits = readable.is_pending() && !was_woken;
            self.waits.store(waits, Ordering::Relaxed);
            if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.socket.poll_writable(cx)
        }
    }
}

/// In the static binary, which has a reactor of its own for everything, async-io would be 25 KB of
/// code that never runs.
#[cfg(hublet_reactor_only)]
mod none {
    use std::convert::Infallible;
    use std::io;
    use std::marker::PhantomData;
    use std::task::{Context, Poll};

    /// No socket.
    #[derive(Debug)]
    pub(crate) struct AsyncSource<T>(Infallible, PhantomData<T>);

    impl<T> AsyncSource<T> {
        pub(crate) fn new(_: T) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn get_ref(&self) -> &T {
            match self.0 {}
        }

        pub(crate) fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.0 {}
        }

        pub(crate) fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.0 {}
        }
    }
}
