//! A stream whose peer a test plays.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::hub::direct_writer::DirectWriter;
use crate::net::stream::Transport;

/// A stream whose peer has sent what is `unread` and says nothing more, and takes what is written
/// unless it is `full`.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) unread: VecDeque<u8>,
    pub(crate) ended: bool,
    pub(crate) full: bool,
    /// It holds back what it has taken.
    pub(crate) holds_back: bool,
    pub(crate) delivers_alone: bool,
    pub(crate) written: Vec<u8>,
    pub(crate) flushes: u32,
    pub(crate) closes: u32,
    pub(crate) aborts: u32,
}

impl Transport for &mut Stream {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if !self.unread.is_empty() || self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }

    fn delivers_after_close(&self) -> bool {
        self.delivers_alone
    }

    fn abort(&mut self) {
        self.aborts += 1;
    }
}

impl AsyncRead for &mut Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx));
        let n = self.unread.len().min(into.len());
        into.iter_mut().zip(self.unread.drain(..n)).for_each(|(into, byte)| *into = byte);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for &mut Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.full {
            return Poll::Pending;
        }
        frames.iter().for_each(|frame| self.written.extend_from_slice(frame));
        Poll::Ready(Ok(frames.iter().map(|frame| frame.len()).sum()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        if self.holds_back { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closes += 1;
        Poll::Ready(Ok(()))
    }
}
