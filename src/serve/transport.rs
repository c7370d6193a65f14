//! What carries bytes to a peer: the sockets of our listeners, or any stream of the embedder's.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead, AsyncWrite};
use smol::Async;

use crate::hub::Outlet;

/// A stream, and what some streams can do beyond reading and writing.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ready when a read is worth trying; pending, and armed, when nothing came since the last
    /// one. Saves a system call after every message.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Where others may write without waiting, if they may.
    fn outlet(&self) -> Option<Arc<dyn Outlet>>;

    /// Ends both directions at once, for what other holders of the socket still hold.
    fn abort(&mut self);
}

/// A stream of the embedder's: only its connection's task reads and writes it.
#[derive(Debug)]
pub(crate) struct Foreign<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for Foreign<S> {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn outlet(&self) -> Option<Arc<dyn Outlet>> {
        None
    }

    /// Dropping the stream is all that can be done.
    fn abort(&mut self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Foreign<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Foreign<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, frames)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A socket of one of our listeners, shared with the client's queue, which writes through it.
///
/// TCP and Unix sockets are one type: what is done with them is the same.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<Async<sys::Stream>>);

impl Socket {
    /// Registers an accepted stream with the reactor.
    pub(crate) fn new(stream: impl Into<sys::Stream>) -> io::Result<Self> {
        Ok(Self(Arc::new(Async::new(stream.into())?)))
    }
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error of the poller shows itself again in the read.
        self.0.poll_readable(cx).map(drop)
    }

    fn outlet(&self) -> Option<Arc<dyn Outlet>> {
        Some(Arc::clone(&self.0) as Arc<dyn Outlet>)
    }

    fn abort(&mut self) {
        // The peer may have closed it already; then there is nothing left to end.
        let _ = sys::shutdown(self.0.get_ref(), Shutdown::Both);
    }
}

impl Outlet for Async<sys::Stream> {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::write(self.get_ref(), frames)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match sys::read(self.0.get_ref(), into) {
                Err(error) if is_early(&error) => ready!(self.0.poll_readable(cx))?,
                read => return Poll::Ready(read),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match sys::write(self.0.get_ref(), frames) {
                Err(error) if is_early(&error) => ready!(self.0.poll_writable(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(sys::shutdown(self.0.get_ref(), Shutdown::Write))
    }
}

/// Whether a call only came too early: the socket has nothing, or no room, just now.
fn is_early(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Sockets by descriptor, so that a TCP and a Unix socket are one type. No write raises SIGPIPE,
/// whatever program the library is embedded in.
#[cfg(unix)]
mod sys {
    use std::io::{self, IoSlice};
    use std::net::Shutdown;

    use rustix::io::retry_on_intr;
    use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags};

    pub(crate) use std::os::fd::OwnedFd as Stream;

    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: SendFlags = SendFlags::NOSIGNAL;
    /// Here it is an option, which the standard library has set on the socket.
    #[cfg(target_vendor = "apple")]
    const FLAGS: SendFlags = SendFlags::empty();

    pub(crate) fn read(stream: &Stream, into: &mut [u8]) -> io::Result<usize> {
        let (read, _) = retry_on_intr(|| net::recv(stream, &mut *into, RecvFlags::empty()))?;
        Ok(read)
    }

    /// One plain send for one frame, a vectored one for several.
    pub(crate) fn write(stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(retry_on_intr(|| match frames {
            [frame] => net::send(stream, frame, FLAGS),
            frames => net::sendmsg(stream, frames, &mut SendAncillaryBuffer::default(), FLAGS),
        })?)
    }

    pub(crate) fn shutdown(stream: &Stream, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => net::Shutdown::Read,
            Shutdown::Write => net::Shutdown::Write,
            Shutdown::Both => net::Shutdown::Both,
        };
        Ok(net::shutdown(stream, how)?)
    }
}

/// Sockets as the standard library has them.
#[cfg(not(unix))]
mod sys {
    use std::io::{self, IoSlice, Read, Write};
    use std::net::Shutdown;

    pub(crate) use std::net::TcpStream as Stream;

    pub(crate) fn read(mut stream: &Stream, into: &mut [u8]) -> io::Result<usize> {
        stream.read(into)
    }

    pub(crate) fn write(mut stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        stream.write_vectored(frames)
    }

    pub(crate) fn shutdown(stream: &Stream, how: Shutdown) -> io::Result<()> {
        stream.shutdown(how)
    }
}
