//! What carries the bytes of a connection.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::hub::queue::DirectWriter;

/// A stream, and what some streams can do beyond reading and writing.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ready when a read is worth trying; pending, and armed, when nothing came since the last
    /// one. Saves a system call after every message.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Where others may write without waiting, if they may.
    fn outlet(&self) -> Option<Arc<dyn DirectWriter>>;

    /// Whether what was written reaches the peer although the stream is dropped: the kernel keeps it
    /// for as long as that takes, which a ceiling forbids.
    fn delivers_after_close(&self) -> bool;

    /// Ends both directions at once, for what other holders of the socket still hold. Under a ceiling
    /// with a reset, so that the kernel keeps nothing of what the peer did not take.
    fn abort(&mut self);
}

/// A stream of the embedder's: only its connection's task reads and writes it.
#[derive(Debug)]
pub(crate) struct AnyStream<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for AnyStream<S> {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn outlet(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }

    /// Nobody knows what the embedder's stream keeps to itself.
    fn delivers_after_close(&self) -> bool {
        false
    }

    /// Dropping the stream is all that can be done.
    fn abort(&mut self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyStream<S> {
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
