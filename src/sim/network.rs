//! Connections without a network: what a kernel would do with their bytes, as a seed decides.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use fastrand::Rng;
use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::hub::direct_writer::DirectWriter;
use crate::hub::holding::Handle;
use crate::net::stream::Transport;
use crate::sim::journal::{Name, event};

/// One connection as the kernel has it; the peer's end is this, the server's a [`Socket`].
#[derive(Debug)]
pub(crate) struct Line(Mutex<Kernel>);

#[derive(Debug)]
pub(crate) struct Kernel {
    /// The peer, as the journal names it, if it does.
    name: Option<Name>,
    /// Bytes on their way to the server.
    to_server: VecDeque<u8>,
    /// The peer has shut its side down.
    ended: bool,
    /// The server has read all that came before that.
    heard_out: bool,
    /// The peer has reset the connection.
    reset: bool,
    /// Everything that was taken for the peer.
    pub(crate) taken: Vec<u8>,
    /// How much of that the peer has read, in bytes.
    pub(super) read: usize,
    /// How much of it the peer can read at most, in bytes, since the connection was reset.
    cut: Option<usize>,
    /// Bytes that are taken for the peer before writing would block.
    room: usize,
    /// Bytes that one write takes at most.
    at_most: usize,
    /// A read finds all that has come.
    pub(super) is_read_whole: bool,
    /// The server has shut its write side down.
    pub(crate) shut: bool,
    /// The server has aborted: what comes from here on, it refuses.
    deaf: bool,
    /// The server holds no descriptor of it any more.
    pub(crate) closed: bool,
    /// Another process holds a descriptor: that of this one closes nothing.
    pub(super) is_moved: bool,
    /// Whether pushes write to the server's descriptor.
    pub(super) is_own: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    rng: Rng,
}

impl Line {
    /// A line that takes `room` bytes for the peer, and at most `at_most` in one write.
    pub(crate) fn new(room: usize, at_most: usize, rng: Rng) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Kernel {
            name: None,
            to_server: VecDeque::new(),
            ended: false,
            heard_out: false,
            reset: false,
            taken: Vec::new(),
            read: 0,
            cut: None,
            room,
            at_most,
            is_read_whole: false,
            shut: false,
            deaf: false,
            closed: false,
            is_moved: false,
            is_own: false,
            reader: None,
            writer: None,
            rng,
        })))
    }

    /// As [`new`](Self::new), for a peer of which the journal tells.
    pub(super) fn named(name: Name, room: usize, at_most: usize, rng: Rng) -> Arc<Self> {
        let line = Self::new(room, at_most, rng);
        line.lock().name = Some(name);
        line
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Kernel> {
        // A test that fails while it holds the lock still drops the sockets.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer sends. If the server has closed its descriptor, a reset comes back.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.change(|kernel| {
            if bytes.is_empty() {
                return;
            }
            if !kernel.closed && !kernel.deaf {
                kernel.note(|| format!("sends {} bytes", bytes.len()));
                kernel.to_server.extend(bytes);
            } else {
                kernel.note(|| format!("sends {} bytes, which no peer takes", bytes.len()));
                kernel.refuse();
            }
        });
    }

    /// The peer shuts its side down.
    pub(crate) fn end(&self) {
        self.change(|kernel| {
            kernel.note(|| "shuts its side down".to_owned());
            kernel.ended = true;
        });
    }

    /// The peer resets the connection: what was on its way is lost.
    pub(crate) fn reset(&self) {
        self.change(|kernel| {
            kernel.note(|| "resets its connection".to_owned());
            kernel.reset = true;
            kernel.to_server.clear();
            kernel.cut.get_or_insert(kernel.read);
        });
    }

    /// The peer reads `most` bytes, if there are as many, which no reset takes from it any more.
    pub(super) fn read(&self, most: usize) {
        let mut kernel = self.lock();
        let bytes = most.min(kernel.unread());
        if bytes > 0 {
            kernel.note(|| format!("reads {bytes} bytes"));
        }
        kernel.read += bytes;
    }

    /// There is room for `bytes` more.
    pub(crate) fn grant(&self, bytes: usize) {
        self.change(|kernel| kernel.room = kernel.room.saturating_add(bytes));
    }

    /// Whether writing would block.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().room == 0
    }

    fn change(&self, change: impl FnOnce(&mut Kernel)) {
        let mut kernel = self.lock();
        change(&mut kernel);
        let wakers = [kernel.reader.take(), kernel.writer.take()];
        drop(kernel);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Kernel {
    /// Has the journal say what the peer does.
    fn note(&self, what: impl FnOnce() -> String) {
        if let Some(name) = self.name {
            event!("{name} {}", what());
        }
    }

    /// Has the journal say what the server does with the peer's connection.
    fn note_server(&self, what: impl FnOnce() -> String) {
        if let Some(name) = self.name {
            event!("the server, for {name}, {}", what());
        }
    }

    /// What the peer has read and what it still can.
    pub(super) fn legible(&self) -> &[u8] {
        &self.taken[..self.cut.unwrap_or(self.taken.len())]
    }

    /// How much of that it has not read, in bytes.
    pub(super) fn unread(&self) -> usize {
        self.legible().len() - self.read
    }

    /// Whether the kernel takes nothing although the peer has read everything, which no kernel does
    /// for long.
    pub(super) fn is_stuck(&self) -> bool {
        self.room == 0 && self.unread() == 0 && !self.shut && self.cut.is_none()
    }

    /// Whether a reset has cost the peer something.
    pub(super) fn has_lost(&self) -> bool {
        self.legible().len() < self.taken.len()
    }

    /// Whether the peer has read all that it ever will, and knows.
    pub(super) fn is_over(&self) -> bool {
        (self.shut || self.closed || self.cut.is_some()) && self.unread() == 0
    }

    /// Answers the peer with a reset: of what it has not read, all is lost, or at least the end.
    fn refuse(&mut self) {
        if self.cut.is_none() {
            let unread = self.unread();
            let spared = if self.rng.bool() { self.rng.usize(..=unread) } else { 0 };
            self.note_server(|| format!("resets: of {unread} bytes unread {spared} are left"));
            self.cut = Some(self.read + spared);
            self.to_server.clear();
        }
    }

    /// Whether nothing comes to the server behind what has come.
    fn is_at_end(&self) -> bool {
        self.ended || self.deaf
    }

    fn write(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.reset || self.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut left = self.room.min(self.at_most);
        let mut written = 0;
        for frame in frames {
            let step = left.min(frame.len());
            self.taken.extend_from_slice(&frame[..step]);
            (left, written) = (left - step, written + step);
        }
        if self.room < usize::MAX {
            self.room -= written;
        }
        self.note_server(|| format!("writes {written} bytes"));
        Ok(written)
    }
}

/// The server's descriptor, shared by the connection and its queue.
#[derive(Debug)]
struct Descriptor {
    line: Arc<Line>,
    /// Whether it is a socket of a listener, to which pushes may write, and of which what was written
    /// reaches the peer although it is dropped.
    is_own: bool,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut kernel = self.line.lock();
        if kernel.is_moved {
            return;
        }
        let unread = kernel.to_server.len();
        kernel.note_server(|| format!("closes its descriptor, with {unread} bytes unread"));
        kernel.closed = true;
        // A kernel answers unread bytes with a reset. A stream that is no kernel's loses what it has
        // kept to itself, unless the peer was read to its end.
        if !kernel.to_server.is_empty() || !(self.is_own || kernel.heard_out) {
            kernel.refuse();
        }
    }
}

impl DirectWriter for Descriptor {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.line.lock().write(frames)
    }
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Descriptor>);

impl Socket {
    pub(crate) fn new(line: &Arc<Line>, is_own: bool) -> Self {
        line.lock().is_own = is_own;
        Self(Arc::new(Descriptor { line: Arc::clone(line), is_own }))
    }

    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.0.line.lock()
    }
}

impl Transport for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut kernel = self.lock();
        let readable = !kernel.to_server.is_empty() || kernel.is_at_end() || kernel.reset;
        // The reactor's news may be late, but they come.
        if readable && kernel.rng.u8(..4) > 0 {
            return Poll::Ready(());
        }
        if readable {
            cx.waker().wake_by_ref();
        }
        kernel.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        self.0.is_own.then(|| Arc::clone(&self.0) as Arc<dyn DirectWriter>)
    }

    fn handle(&self) -> Option<Arc<Handle>> {
        Some(Arc::clone(&self.0.line) as Arc<Handle>)
    }

    fn delivers_after_close(&self) -> bool {
        self.0.is_own
    }

    fn abort(&mut self) {
        let mut kernel = self.lock();
        kernel.note_server(|| "cuts it off".to_owned());
        kernel.shut = true;
        kernel.deaf = true;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut kernel = self.lock();
        if kernel.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if kernel.to_server.is_empty() && !kernel.is_at_end() {
            kernel.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        kernel.heard_out = kernel.to_server.is_empty();
        let come = kernel.to_server.len().min(into.len());
        // A read may find less than all, but not nothing.
        let n = if come > 1 && !kernel.is_read_whole && kernel.rng.bool() {
            kernel.rng.usize(1..=come)
        } else {
            come
        };
        kernel.note_server(|| match n {
            0 => "reads to the end".to_owned(),
            n => format!("reads {n} bytes"),
        });
        for (byte, slot) in kernel.to_server.drain(..n).zip(into) {
            *slot = byte;
        }
        Poll::Ready(Ok(n))
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
        let mut kernel = self.lock();
        match kernel.write(frames) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                kernel.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut kernel = self.lock();
        kernel.note_server(|| "shuts its side down".to_owned());
        kernel.shut = true;
        Poll::Ready(Ok(()))
    }
}
