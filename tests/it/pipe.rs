//! A pipe in memory with room for a few bytes: one end for the hub, a blocking one for the test.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::peer::DEADLINE;

/// One direction.
struct Lane {
    state: Mutex<State>,
    /// Wakes the test's end.
    changed: Condvar,
    /// Bytes that the pipe holds, at most.
    room: usize,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    closed: bool,
    /// Wakes the hub's end.
    waker: Option<Waker>,
}

impl Lane {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), room })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no end panics")
    }

    /// Takes bytes out; `None` if there are none.
    fn take(&self, state: &mut State, into: &mut [u8]) -> Option<usize> {
        let n = into.len().min(state.bytes.len());
        if n == 0 && !state.closed {
            return None;
        }
        into.iter_mut().zip(state.bytes.drain(..n)).for_each(|(to, from)| *to = from);
        self.tell(state);
        Some(n)
    }

    /// Puts bytes in; `None` if there is no room.
    fn put(&self, state: &mut State, bytes: &[u8]) -> Option<io::Result<usize>> {
        if state.closed {
            return Some(Err(ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(self.room - state.bytes.len());
        if n == 0 && !bytes.is_empty() {
            return None;
        }
        state.bytes.extend(&bytes[..n]);
        self.tell(state);
        Some(Ok(n))
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.tell(&mut state);
    }

    fn tell(&self, state: &mut State) {
        self.changed.notify_all();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Registers the waker of the hub's end.
    fn poll<T>(&self, cx: &Context<'_>, mut step: impl FnMut(&mut State) -> Option<T>) -> Poll<T> {
        let mut state = self.lock();
        match step(&mut state) {
            Some(done) => Poll::Ready(done),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Blocks the test's end until something changes or the deadline passes.
    fn wait<T>(&self, mut step: impl FnMut(&mut State) -> Option<T>) -> io::Result<T> {
        let mut done = None;
        let waits = |state: &mut State| {
            done = step(state);
            done.is_none()
        };
        let (_state, _) =
            self.changed.wait_timeout_while(self.lock(), DEADLINE, waits).expect("no end panics");
        done.ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

/// The two ends of a pipe with room for `room` bytes in each direction.
pub(crate) fn pipe(room: usize) -> (HubEnd, TestEnd) {
    let (there, back) = (Lane::new(room), Lane::new(room));
    let hub = HubEnd { reads: Arc::clone(&there), writes: Arc::clone(&back) };
    (hub, TestEnd { reads: back, writes: there })
}

pub(crate) struct HubEnd {
    reads: Arc<Lane>,
    writes: Arc<Lane>,
}

impl AsyncRead for HubEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.reads.poll(cx, |state| self.reads.take(state, into)).map(Ok)
    }
}

impl AsyncWrite for HubEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.poll(cx, |state| self.writes.put(state, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for HubEnd {
    fn drop(&mut self) {
        self.reads.close();
        self.writes.close();
    }
}

pub(crate) struct TestEnd {
    reads: Arc<Lane>,
    writes: Arc<Lane>,
}

impl Read for TestEnd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reads.wait(|state| self.reads.take(state, into))
    }
}

impl Write for TestEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.wait(|state| self.writes.put(state, bytes))?
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TestEnd {
    fn drop(&mut self) {
        self.reads.close();
        self.writes.close();
    }
}
