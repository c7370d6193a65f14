//! What carries bytes to a peer: the sockets of our listeners, or any stream of the embedder's.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};
use smol::Async;

use crate::hub::Outlet;

/// A stream, and what some streams can do beyond reading and writing.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ready when a read is worth trying; pending, and armed, when nothing came since the last
    /// one. Saves a system call at every wake that is not about reading.
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
#[derive(Debug, Clone)]
pub(crate) enum Socket {
    Tcp(Arc<Async<TcpStream>>),
    #[cfg(unix)]
    Unix(Arc<Async<UnixStream>>),
}

/// Does the same with whichever socket it is.
macro_rules! each {
    ($socket:expr, $stream:ident => $do:expr) => {
        match $socket {
            Socket::Tcp($stream) => $do,
            #[cfg(unix)]
            Socket::Unix($stream) => $do,
        }
    };
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error of the poller shows itself again in the read.
        each!(self, stream => stream.poll_readable(cx)).map(drop)
    }

    fn outlet(&self) -> Option<Arc<dyn Outlet>> {
        Some(each!(self, stream => Arc::clone(stream) as Arc<dyn Outlet>))
    }

    fn abort(&mut self) {
        // The peer may have closed it already; then there is nothing left to end.
        drop(each!(self, stream => stream.get_ref().shutdown(Shutdown::Both)));
    }
}

impl Outlet for Async<TcpStream> {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        write(self.get_ref(), frames)
    }
}

#[cfg(unix)]
impl Outlet for Async<UnixStream> {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        write(self.get_ref(), frames)
    }
}

/// One plain write for one frame, a vectored one for several.
fn write(mut stream: impl Write, frames: &[IoSlice<'_>]) -> io::Result<usize> {
    match frames {
        [frame] => stream.write(frame),
        frames => stream.write_vectored(frames),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        each!(&*self, stream => Pin::new(&mut &**stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(&*self, stream => Pin::new(&mut &**stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&*self, stream => Pin::new(&mut &**stream).poll_write_vectored(cx, frames))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(each!(&*self, stream => stream.get_ref().shutdown(Shutdown::Write)))
    }
}
