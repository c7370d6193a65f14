//! The streams that carry a connection.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::hub::direct_writer::DirectWriter;
use crate::hub::holding::Handle;

/// Seconds that a response may take in all while its peer keeps reading: 1 MiB at 3.5 KiB/s. It costs
/// the memory of the response, and an idle permit that no client needs.
pub(crate) const RESPONSE_SECONDS_MAX: u32 = 300;

/// A stream, and what some streams can do beyond reading and writing.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Ready when a read may return something. Pending if nothing arrived since the last read; then
    /// the task is woken when something does. Saves a system call after every message.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The writer through which a queue may write from any thread, if the stream allows it.
    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>>;

    /// What keeps the socket open, if another process can take it over.
    fn handle(&self) -> Option<Arc<Handle>> {
        None
    }

    /// Whether written bytes still reach the peer after the stream is dropped. A kernel socket does
    /// that, except under a memory ceiling, where closing it resets the connection.
    fn delivers_after_close(&self) -> bool;

    /// Shuts down both directions, although others may still own the socket. Under a memory ceiling
    /// this resets the connection, so that the kernel drops what the peer has not taken.
    fn abort(&mut self);

    /// Whether bytes that it had taken before have left since the last call. Most streams hold
    /// nothing back.
    fn has_progressed(&mut self) -> bool {
        false
    }

    /// Lets the peer's host take as long for a response as the hub waits for it
    /// ([`RESPONSE_SECONDS_MAX`]), or no longer than for a client. A kernel has a limit of its own on
    /// Linux, under which a host that takes nothing counts as lost. A slow reader looks like that for as
    /// long as it reads what its host holds.
    fn be_patient(&mut self, _patient: bool) {}
}

/// Any stream of the embedding program. Only its connection's task reads and writes it.
#[derive(Debug)]
pub(crate) struct AnyStream<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for AnyStream<S> {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }

    /// The stream may buffer, so this is not known.
    fn delivers_after_close(&self) -> bool {
        false
    }

    /// Nothing to do: the caller drops the stream.
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
