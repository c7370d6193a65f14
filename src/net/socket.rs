//! The sockets that our listeners accept.

use std::io::IoSlice;
use std::net::Shutdown;
use std::num::NonZeroU32;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::hub::direct_writer::DirectWriter;
use crate::hub::holding::Handle;
use crate::net::io::{Io, poll_io};
#[cfg(target_os = "linux")]
use crate::net::options::SocketOption;
use crate::net::stream::Transport;
use crate::net::sys;

/// An accepted socket, shared with the client's queue, which writes through it.
///
/// One type for TCP and Unix sockets, since all operations are the same.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Shared>);

struct Shared {
    stream: Io<sys::Stream>,
    /// Under a memory ceiling: bytes of one write at most. The kernel checks its buffer size before
    /// a write, not during it, and not when it appends to a packet that is already queued.
    write_max: Option<NonZeroU32>,
}

impl Socket {
    pub(crate) fn new(stream: Io<sys::Stream>, write_max: Option<usize>) -> Self {
        let write_max = write_max.map(|max| {
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN)
        });
        Self(Arc::new(Shared { stream, write_max }))
    }
}

/// For a stream that encrypts what the socket carries, and is shared with the client's queue too.
#[cfg(feature = "tls")]
impl Socket {
    /// Hands the kernel what it takes now; `WouldBlock` if it takes nothing.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&[IoSlice::new(bytes)])
    }

    /// Ready when a write may make progress.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream.poll_writable(cx)
    }
}

impl Socket {
    /// Ready when a read may return something, as for [`Transport`].
    pub(crate) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The read reports an error of the poller again.
        self.0.stream.poll_readable(cx).map(drop)
    }

    /// Reads what is there.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.0.stream;
        let is_ready = |cx: &mut Context<'_>| stream.poll_readable(cx);
        let read = ready!(poll_io(cx, is_ready, || sys::read(stream.get_ref(), into)));
        if matches!(read, Ok(n) if n == into.len()) {
            stream.expect_more();
        }
        Poll::Ready(read)
    }

    /// Shuts down the side that writes.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        sys::shutdown(self.0.stream.get_ref(), Shutdown::Write)
    }

    /// See [`Transport::be_patient`].
    pub(crate) fn set_patience(&self, patient: bool) {
        #[cfg(not(target_os = "linux"))]
        let _ = patient;
        #[cfg(target_os = "linux")]
        {
            let timeout =
                if patient { SocketOption::ResponseTimeout } else { SocketOption::UserTimeout };
            // A Unix socket has no such limit, and some systems have none for TCP.
            let _ = timeout.set(self.0.stream.get_ref());
        }
    }

    /// Shuts down both sides: see [`Transport::abort`].
    pub(crate) fn cut_off(&self) {
        let stream = self.0.stream.get_ref();
        // Fails only if the peer has closed the connection already.
        if self.0.write_max.is_some() {
            let _ = sys::reset_when_closed(stream);
        }
        let _ = sys::shutdown(stream, Shutdown::Both);
    }
}

impl fmt::Debug for Shared {
    /// Writes the descriptor only; the reactor's state would say nothing to the reader of a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.get_ref().fmt(f)
    }
}

impl Shared {
    /// In its callers, since each delivery comes through here; what only a ceiling needs is apart.
    #[inline(always)]
    fn write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.stream.get_ref();
        match self.write_max {
            None => sys::write(stream, frames),
            Some(most) => write_records(stream, frames, most.get() as usize),
        }
    }
}

/// Slices of one step at most. Further frames leave with the next step.
const STEP_SLICES_MAX: usize = 16;

#[inline(never)]
fn write_records(stream: &sys::Stream, frames: &[IoSlice<'_>], most: usize) -> io::Result<usize> {
    write_in_steps(frames, most, |step| sys::write_record(stream, step))
}

/// Writes `most` bytes at a time, until all is written or the kernel takes less than a step.
fn write_in_steps(
    frames: &[IoSlice<'_>],
    most: usize,
    mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut written = 0;
    let (mut frame, mut at) = (0, 0);
    while frame < frames.len() {
        let mut step = [IoSlice::new(&[]); STEP_SLICES_MAX];
        let (mut slices, mut bytes) = (0, 0);
        while slices < STEP_SLICES_MAX && bytes < most && frame < frames.len() {
            let rest = &frames[frame][at..];
            let taken = rest.len().min(most - bytes);
            step[slices] = IoSlice::new(&rest[..taken]);
            (slices, bytes, at) = (slices + 1, bytes + taken, at + taken);
            if at == frames[frame].len() {
                (frame, at) = (frame + 1, 0);
            }
        }
        match write(&step[..slices]) {
            Ok(n) => {
                written += n;
                if n < bytes {
                    break;
                }
            }
            // The next write reports the error again.
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_arrived(cx)
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        Some(Arc::clone(&self.0) as Arc<dyn DirectWriter>)
    }

    fn handle(&self) -> Option<Arc<Handle>> {
        Some(Arc::clone(&self.0) as Arc<Handle>)
    }

    fn delivers_after_close(&self) -> bool {
        self.0.write_max.is_none()
    }

    fn abort(&mut self) {
        self.cut_off();
    }

    fn be_patient(&mut self, patient: bool) {
        self.set_patience(patient);
    }
}

impl DirectWriter for Shared {
    #[cfg_attr(hublet_small, optimize(speed))]
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(frames)
    }
}

/// The descriptor of a socket, by its [handle](Transport::handle).
#[cfg(unix)]
pub(crate) fn descriptor(handle: &Handle) -> Option<BorrowedFd<'_>> {
    handle.downcast_ref::<Shared>().map(|shared| shared.stream.get_ref().as_fd())
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, into)
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
        poll_io(cx, |cx| self.0.stream.poll_writable(cx), || self.0.write(frames))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes in steps of `most` to a sink that has room for `room` bytes; returns what was
    /// written, the steps, and how it ended.
    fn steps(lengths: &[usize], most: usize, room: usize) -> (Vec<usize>, Result<usize, ()>) {
        let bytes: Vec<u8> = (0..255).cycle().take(lengths.iter().sum()).collect();
        let mut rest = &bytes[..];
        let frames: Vec<_> = lengths.iter().map(|&len| take(&mut rest, len)).collect();
        let mut taken: Vec<u8> = Vec::new();
        let mut steps = Vec::new();
        let written = write_in_steps(&frames, most, |step| {
            let step: Vec<u8> = step.iter().flat_map(|slice| slice.to_vec()).collect();
            let n = step.len().min(room - taken.len());
            steps.push(n);
            taken.extend(&step[..n]);
            if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        });
        assert_eq!(taken, bytes[..taken.len()], "in order and nothing twice");
        if let Ok(written) = &written {
            assert_eq!(*written, taken.len());
        }
        (steps, written.map_err(drop))
    }
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> IoSlice<'a> {
        let (frame, rest) = bytes.split_at(len);
        *bytes = rest;
        IoSlice::new(frame)
    }
    #[test]
    fn no_step_exceeds_its_bound() {
        assert_eq!(steps(&[10], 4, 99), (vec![4, 4, 2], Ok(10)));
        assert_eq!(steps(&[3, 3, 3], 4, 99), (vec![4, 4, 1], Ok(9)));
        assert_eq!(steps(&[1; 40], 100, 99), (vec![16, 16, 8], Ok(40)));
    }
    #[test]
    fn partial_step_is_the_last() {
        assert_eq!(steps(&[10], 4, 6), (vec![4, 2], Ok(6)));
        assert_eq!(steps(&[10], 4, 4), (vec![4, 0], Ok(4)), "the next write reports the error");
        assert_eq!(steps(&[10], 4, 0), (vec![0], Err(())));
    }
}
