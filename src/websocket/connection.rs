//! The I/O side of a client: reads, writes and keeps time, until something ends it.

use std::io;
use std::task::{Context, Poll, ready};

use crate::connection::end::End;
use crate::connection::memory_wait::MemoryWait;
use crate::connection::outgoing::{Encode, Outgoing, Output};
use crate::connection::rate_limit::RateLimit;
use crate::connection::read_pause::ReadPause;
use crate::connection::registration::Registered;
use crate::connection::timeouts::Due;
use crate::disconnect::Disconnect;
use crate::frame::header;
use crate::hub::handle::Hub;
use crate::hub::queue_outcome::Drained;
use crate::hub::unsent::{Progress, Unsent};
use crate::message::Message;
use crate::net::stream::Transport;
use crate::rate::Rate;
use crate::stats::add;
use crate::time::clock::now;
use crate::websocket::decoder::Event;
use crate::websocket::reader::Reader;

/// Bytes that one poll reads from a peer, about, before other tasks run.
pub(super) const READ_BUDGET: u32 = 64 * 1024;

/// A ping (RFC 6455 5.5.2), with a payload, since some small clients mishandle one without.
pub(crate) const PING: [u8; 5] = *b"\x89\x03hub";

/// FIN and the opcode of a pong (RFC 6455 5.5.3).
const PONG: u8 = 0x8a;

/// The frame of a pong.
struct Pong(Vec<u8>);

/// What only some connections need, at some times.
#[derive(Default)]
pub(super) struct Rare<'a> {
    /// The pong for the newest ping, while the queue has no room for it.
    pong: Option<Pong>,
    /// What the client has sent, if its rate is limited.
    rate: Option<RateLimit<'a>>,
    /// The longest message that the client may send, if all others may send longer ones.
    max_message: Option<u32>,
}

/// What waits in the queue leaves as frames.
struct Frames;

impl Encode for Frames {
    fn poll_write<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        unsent: &Unsent<'_>,
        output: &mut Output<'_, T>,
    ) -> Poll<io::Result<Progress>> {
        unsent.write_frames(|frames| output.poll_write_vectored(cx, frames))
    }
}

/// The I/O side of a client.
pub(crate) struct Connection<'a, T> {
    pub(super) hub: &'a Hub,
    /// The transport, and what the peer says.
    pub(super) reader: Reader<T>,
    /// The client's queue, and what is written from it.
    pub(super) outgoing: Outgoing<'a>,
    /// Bytes that may still be read in this poll.
    pub(super) read_budget: u32,
    /// Compressed messages have used up the budget: what else was read waits for the next poll.
    is_spent: bool,
    /// Why the peer is not read, while it is not.
    pub(super) pause: Option<ReadPause>,
    /// The wait for memory, while memory is short.
    memory_wait: MemoryWait<'a>,
    /// What most connections have nothing of.
    pub(super) rare: Option<Box<Rare<'a>>>,
}

impl<'a, T: Transport> Connection<'a, T> {
    // Boxed, since a future that holds it by value holds it twice where it hands it on.
    pub(super) fn new(
        hub: &'a Hub,
        transport: T,
        registered: Registered,
        early: Vec<u8>,
        inflates: bool,
    ) -> Box<Self> {
        registered.queue.open(transport.direct_writer());
        Box::new(Self {
            hub,
            reader: Reader::new(transport, early, inflates, hub),
            outgoing: Outgoing::new(hub, registered),
            read_budget: READ_BUDGET,
            is_spent: false,
            pause: None,
            memory_wait: MemoryWait::default(),
            rare: None,
        })
    }

    /// Reads no faster than a rate allows.
    pub(super) fn set_rate(&mut self, rate: Rate) {
        if let Some(rate) = RateLimit::new(rate) {
            self.rare.get_or_insert_default().rate = Some(rate);
        }
    }

    /// Takes no longer messages.
    pub(super) fn set_max_message(&mut self, bytes: u32) {
        if bytes < u32::MAX {
            self.rare.get_or_insert_default().max_message = Some(bytes);
        }
    }

    /// Counts a message against the rate.
    #[inline(never)]
    pub(super) fn count_rate(&mut self, bytes: usize) {
        let rate = self.rare.as_mut().and_then(|rare| rare.rate.as_mut());
        rate.into_iter().for_each(|rate| rate.count(bytes));
    }

    /// Closes the socket, with what is still in it.
    pub(super) fn into_registered(self) -> Registered {
        self.outgoing.registered
    }

    /// Nothing that came behind the end is read, and the borrowed buffer is not kept over it.
    pub(super) fn stop_reading(&mut self) {
        self.reader.discard(self.hub, self.outgoing.queue());
        self.memory_wait.cancel();
        self.pause = Some(ReadPause::End);
    }

    /// Whether the hub is held, and the peer has begun nothing that is not read whole.
    fn is_clean_and_held(&self) -> bool {
        self.hub.shared().holding.is_held()
            && self.reader.is_between()
            && self.rare.as_ref().is_none_or(|rare| rare.pong.is_none())
    }

    /// Finds the next message; on the way it writes, answers pings and keeps time. `None` if another
    /// process takes the hub over, and the connection is clean.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        // The queue first: it stores the waker, and the end of the client goes before reading.
        if let Poll::Ready(end) = self.poll_write(cx) {
            return Poll::Ready(Err(end));
        }
        let next = self.poll_read(cx);
        if next.is_ready() {
            return next;
        }
        self.end_poll();
        self.poll_write_and_timeouts(cx).map(Err)
    }

    /// Decodes and reads until there is a message, an end, or nothing more to read.
    #[cfg_attr(hublet_small, optimize(speed))]
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        loop {
            if self.is_clean_and_held() {
                self.end_poll();
                return Poll::Ready(Ok(None));
            }
            if self.rare.is_some() && self.poll_rate(cx).is_pending() {
                self.pause = Some(ReadPause::Rate);
                self.read_budget = READ_BUDGET;
                return Poll::Pending;
            }
            if self.poll_memory(cx).is_pending() {
                self.pause = Some(ReadPause::Memory);
                self.read_budget = READ_BUDGET;
                return Poll::Pending;
            }
            if std::mem::take(&mut self.is_spent) {
                self.read_budget = READ_BUDGET;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.reader.has_unread() {
                let longest = self.rare.as_ref().and_then(|rare| rare.max_message);
                let longest = longest.unwrap_or(u32::MAX);
                match self.reader.next(self.hub, self.outgoing.queue(), longest) {
                    Some(Ok(Event::Message(message))) => return Poll::Ready(Ok(Some(message))),
                    Some(Ok(Event::Inflated(message))) => {
                        self.spend(message.len());
                        return Poll::Ready(Ok(Some(message)));
                    }
                    Some(Ok(Event::Ping(payload))) => self.answer(&payload),
                    Some(Ok(Event::Pong)) => {}
                    Some(Ok(Event::Close(reason))) => {
                        let is_last = !self.reader.may_have_more();
                        let end = if is_last { End::Theirs(reason) } else { End::Ours(reason) };
                        return Poll::Ready(Err(end));
                    }
                    Some(Err(violation)) => return Poll::Ready(Err(End::Ours(violation))),
                    None => {}
                }
                continue;
            }
            if self.reader.has_ended() {
                return Poll::Ready(Err(End::Ours(Disconnect::ABNORMAL)));
            }
            if self.read_budget == 0 {
                self.read_budget = READ_BUDGET;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Asked before the read, so that an answer that has come is used up by it: one left
            // over would cost a read that finds nothing.
            if !self.reader.is_full() && self.reader.transport.poll_readable(cx).is_pending() {
                self.read_budget = READ_BUDGET;
                return Poll::Pending;
            }
            match ready!(self.poll_fill(cx)) {
                Ok(_) => {}
                Err(error) => {
                    log::debug!("a connection was lost: {error}");
                    return Poll::Ready(Err(End::Lost(Disconnect::ABNORMAL)));
                }
            }
        }
    }

    /// Counts what a message has become: a peer that sends bombs is read no longer in a poll than one
    /// that sends as much.
    fn spend(&mut self, inflated: usize) {
        self.read_budget = self.read_budget.saturating_sub(inflated as u32);
        self.is_spent = self.read_budget == 0;
    }

    /// Answers a ping, in the queue. While that has no room for the pong, only the newest pong waits
    /// (RFC 6455 5.5.3).
    fn answer(&mut self, ping: &[u8]) {
        let pong = [&header(PONG, ping.len()), ping].concat();
        let has_room = self.outgoing.queue().push_control(&pong);
        if !has_room {
            self.rare.get_or_insert_default().pong = Some(Pong(pong));
        } else if self.rare.is_some() {
            self.take_pong();
        }
    }

    /// Ready when the client may send more, or finish what it has begun. What was read is not kept
    /// back from another process.
    #[inline(never)]
    fn poll_rate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.hub.shared().holding.is_held() {
            self.resume_reading();
            return Poll::Ready(());
        }
        let rate = self.rare.as_mut().and_then(|rare| rare.rate.as_mut());
        if let Some(rate) = rate.filter(|_| !self.reader.has_begun()) {
            if ready!(rate.poll_ready(cx, self.hub)) {
                self.resume_reading();
            }
        }
        Poll::Ready(())
    }

    /// Ready when reading may go on: a message that has begun has its memory set aside, another one
    /// waits while memory is short.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reader.has_begun() {
            self.memory_wait.cancel();
        } else if ready!(self.memory_wait.poll_available(cx, self.hub)) {
            self.resume_reading();
        }
        Poll::Ready(())
    }

    /// Ends a pause, if there is one.
    pub(super) fn resume_reading(&mut self) {
        if self.pause.take().is_some() {
            self.outgoing.timeouts.resume_reading();
            self.reader.resume(&self.hub.shared().timers);
        }
    }

    /// Reads once from the transport.
    #[cfg_attr(hublet_small, optimize(speed))]
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.reader.poll_fill(cx, &self.hub.shared().read_buffers);
        match &filled {
            Poll::Ready(Ok(n)) => {
                self.read_budget = self.read_budget.saturating_sub(*n as u32);
                self.outgoing.timeouts.heard();
                add(&self.hub.shared().counters.bytes_received, *n as u64);
                let memory = self.hub.memory();
                if memory.is_limited() {
                    memory.set_time(now());
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.read_budget = READ_BUDGET,
        }
        filled
    }

    /// Before a poll ends: lets go of what the next one does not need.
    pub(super) fn end_poll(&mut self) {
        self.reader.end_poll(self.hub, self.outgoing.queue());
    }

    /// Writes, then judges deadlines. Ready only with an end.
    pub(super) fn poll_write_and_timeouts(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let drained = self.poll_drain(cx);
            if let Poll::Ready(end) = End::of(drained.phase) {
                return Poll::Ready(end);
            }
            let times = (self.reader.began(), drained.due);
            let config = &self.hub.shared().config;
            match ready!(self.outgoing.timeouts.poll(cx, config, self.pause, times)) {
                // The drain that follows writes it.
                Due::Message => {}
                Due::Ping => {
                    // If the socket has no room for it, the write deadline judges the peer instead.
                    self.outgoing.queue().push_control(&PING);
                    self.outgoing.timeouts.pinged();
                }
                Due::WriteTimeout => {
                    self.outgoing.queue().evict();
                    return Poll::Ready(End::Evicted);
                }
                // What the socket holds already is read before the peer is judged: a process that
                // was stopped reads late. A message has one read for that: otherwise a peer that
                // sends anything but its rest would put its end off for ever.
                Due::PongTimeout if self.read_available(cx) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Due::MessageTimeout
                    if self.outgoing.timeouts.grants_last_read() && self.read_available(cx) =>
                {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Due::PongTimeout => {
                    let reason = "no pong in time";
                    let code = Disconnect::ABNORMAL.code();
                    return Poll::Ready(End::Lost(Disconnect::new(code, reason)));
                }
                Due::MessageTimeout => {
                    let reason = "message not finished in time";
                    let code = Disconnect::POLICY.code();
                    return Poll::Ready(End::Ours(Disconnect::new(code, reason)));
                }
            }
        }
    }

    /// Whether the socket holds bytes that have not been read; they are read.
    fn read_available(&mut self, cx: &mut Context<'_>) -> bool {
        if self.reader.has_unread() || self.reader.has_ended() {
            return true;
        }
        let has_read = matches!(self.poll_fill(cx), Poll::Ready(Ok(n)) if n > 0);
        self.end_poll();
        has_read
    }

    /// Writes what waits. Ready only with an end.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        End::of(self.poll_drain(cx).phase)
    }

    /// Takes the pong that waits.
    fn take_pong(&mut self) -> Option<Pong> {
        let rare = self.rare.as_mut()?;
        let pong = rare.pong.take();
        if rare.rate.is_none() && rare.max_message.is_none() {
            self.rare = None;
        }
        pong
    }

    /// Whether a pong waits.
    #[cfg(test)]
    fn has_pong(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.pong.is_some())
    }

    /// Drains the queue into the transport and notes progress.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Drained {
        let drained = self.outgoing.poll_drain(cx, &mut self.reader.transport, &mut Frames);
        if drained.empty {
            if let Some(pong) = self.take_pong() {
                self.outgoing.queue().push_control(&pong.0);
                cx.waker().wake_by_ref();
            }
        }
        drained
    }
}

#[cfg(test)]
pub(super) mod tests;
