//! What carries the records of a stream: a socket, or what the tests have in its place.

use std::task::{Context, Poll};
use std::{fmt, io};

use crate::net::socket::Socket;

/// Carries bytes, and wakes one task: that of the connection.
pub(crate) trait Wire: fmt::Debug + Send + Sync + 'static {
    /// Hands over what is taken now; `WouldBlock` if nothing is.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ready when [`try_send`](Self::try_send) may make progress.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when [`poll_receive`](Self::poll_receive) may return something that no call has returned.
    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Reads what is there; 0 at the end of the stream.
    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Shuts down the side that writes.
    fn shut_down(&self) -> io::Result<()>;
}

impl Wire for Socket {
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_send(self, bytes)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_writable(self, cx)
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_arrived(self, cx)
    }

    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Self::poll_receive(self, cx, into)
    }

    fn shut_down(&self) -> io::Result<()> {
        Self::shut_down(self)
    }
}
