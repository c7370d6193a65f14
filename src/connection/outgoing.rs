//! The outgoing half of a client's connection: what waits for the client goes to its stream, under
//! the write timeout.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::connection::registration::Registered;
use crate::connection::timeouts::Timeouts;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Drained;
use crate::hub::queue_state::Phase;
use crate::hub::unsent::{Progress, Unsent};
use crate::net::stream::Transport;

/// Bytes that one poll writes to a peer, about, before other tasks run.
const WRITE_BUDGET: usize = 64 * 1024;

/// Makes the bytes of a protocol from what waits in a queue.
pub(crate) trait Encode {
    /// Writes what earlier calls have encoded and the stream has not taken.
    fn poll_rest<T: Transport>(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Output<'_, T>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes what waits in the queue; ready with how far that went.
    fn poll_write<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        unsent: &Unsent<'_>,
        output: &mut Output<'_, T>,
    ) -> Poll<io::Result<Progress>>;

    /// Tells the client of a gap, if messages before the one behind `position` were left out; returns
    /// whether it did.
    fn say_gap(&mut self, _position: u64) -> bool {
        false
    }

    /// Ends the writes of a poll: gives buffers back and counts them. Returns whether the stream has
    /// taken all that was encoded.
    fn end_drain(&mut self, _: &Queue) -> bool {
        true
    }
}

/// The stream of a connection, as its encoder writes to it.
pub(crate) struct Output<'a, T> {
    stream: &'a mut T,
    /// The stream has taken bytes.
    wrote: bool,
}

impl<T: Transport> Output<'_, T> {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.wrote |= matches!(written, Poll::Ready(Ok(n)) if n > 0);
        written
    }
}

/// The outgoing half of a connection. Its stream and its encoder are the caller's.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// The client's queue and its entry in the registry.
    pub(crate) registered: Registered,
    pub(crate) timeouts: Timeouts<'a>,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(hub: &'a Hub, registered: Registered) -> Self {
        Self { registered, timeouts: Timeouts::new(hub) }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.registered.queue
    }

    /// Lets the message go that waits for its time, if that has come; returns whether it did.
    #[cold]
    fn release(&self, drained: &Drained) -> bool {
        let now = self.timeouts.elapsed();
        let is_due = drained.due.is_some_and(|due| now >= due);
        // With the client the message goes along, or goes out ahead of its end.
        let may_go = drained.phase == Phase::Closing || is_due && !self.registered.is_held();
        if may_go {
            self.registered.queue.release(now);
        }
        may_go
    }

    /// Drains the queue into the stream, flushes, and notes progress for the write timeout.
    ///
    /// Afterwards the queue is called empty only if the encoder and the stream hold nothing back.
    pub(crate) fn poll_drain<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut T,
        encoder: &mut impl Encode,
    ) -> Drained {
        let queue = &self.registered.queue;
        let mut output = Output { stream, wrote: false };
        // What is encoded already waits nowhere else.
        let has_failed = matches!(encoder.poll_rest(cx, &mut output), Poll::Ready(Err(_)));
        // In one place, so that the code of a drain is there once for each encoder and stream.
        let mut drained = loop {
            let drained = queue.poll_drain(cx, WRITE_BUDGET, |cx, unsent| {
                encoder.poll_write(cx, unsent, &mut output)
            });
            if drained.due.is_none() || !self.release(&drained) {
                break drained;
            }
        };
        if drained.due.is_some() && self.registered.is_held() {
            drained.due = None;
        }
        drained.wrote = output.wrote;
        if let Some(id) = drained.request {
            self.registered.request_more(id);
        }
        // Messages were left out, and none follows that would say so. An evicted reader is told of none: it
        // comes back with the position that it has heard last, and its room may keep them.
        let may_say = drained.empty && drained.phase != Phase::Evicted;
        let says_gap =
            may_say && drained.position.is_some_and(|position| encoder.say_gap(position));
        if says_gap {
            cx.waker().wake_by_ref();
        }
        if has_failed {
            drained.phase = Phase::Dead;
        }
        // Also for what an earlier drain has written and the stream still holds back.
        if drained.wrote || self.timeouts.is_writing() {
            match Pin::new(&mut *output.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                // A stream that cannot pass on what it has taken is as good as gone.
                Poll::Ready(Err(_)) => drained.phase = Phase::Dead,
                Poll::Pending => drained.empty = false,
            }
        }
        drained.wrote |= output.stream.has_progressed();
        drained.empty &= encoder.end_drain(queue);
        if let (true, true, Some(position)) = (drained.has_gap, drained.empty, drained.position) {
            // Unless it was said only now: then the next drain writes it.
            if !says_gap {
                queue.note_gap_sent(position);
            }
        }
        self.timeouts.wrote(drained.wrote, drained.empty);
        drained
    }
}
