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
use crate::hub::queue::Drained;
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
    /// Bytes that may still be read in this turn.
    pub(super) read_budget: u32,
    /// Compressed messages have used up the turn: what else was read waits for the next one.
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
        // The lane first: it stores the waker, and a seal or an eviction goes before reading.
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

    /// Counts what a message has become: a peer that sends bombs has no longer turn than one that
    /// sends as much.
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
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            let began = self.reader.began();
            let config = &self.hub.shared().config;
            match ready!(self.outgoing.timeouts.poll(cx, config, self.pause, began)) {
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
        let news = matches!(self.poll_fill(cx), Poll::Ready(Ok(n)) if n > 0);
        self.end_poll();
        news
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
pub(super) mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use futures_lite::future::block_on;
    use smol::Executor;

    use super::*;
    use crate::config::Config;
    use crate::connection::admission::Admission;
    use crate::connection::registration;
    use crate::connection::registration::ClientKind;
    use crate::connection::timeouts::Due;
    use crate::hub::tests::support::deflated;
    use crate::memory::read_buffers::READ_BUFFER_BYTES;
    use crate::time::virtual_time::VirtualTime;
    use crate::websocket::decoder::tests::frame;
    use crate::websocket::tests::stream::Stream;

    /// Has `act` do something with a connection over `stream` in a virtual time.
    pub(crate) fn connected<T>(
        stream: &mut Stream,
        early: Vec<u8>,
        act: impl FnOnce(&VirtualTime, &mut Connection<'_, &mut Stream>) -> T,
    ) -> T {
        let time = VirtualTime::start();
        let executor = Executor::new();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        executor.spawn(manager).detach();
        let admitted = registration::admit(&hub, Admission::anonymous(), ClientKind::WebSocket);
        let admitted = block_on(executor.run(admitted)).expect("there is a place");
        act(&time, &mut Connection::new(&hub, stream, admitted.registered, early, false))
    }
    #[test]
    fn a_close_frame_is_the_last_word_if_nothing_lies_behind_it() {
        let close = frame(0x88, b"\x03\xe8");
        let is_last = |early: &[u8], unread: Vec<u8>| {
            let mut stream = Stream { unread: unread.into(), ..Stream::default() };
            connected(&mut stream, early.to_vec(), |_, connection| {
                let cx = &mut Context::from_waker(Waker::noop());
                loop {
                    match connection.poll_next(cx) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(End::Theirs(_))) => return true,
                        Poll::Ready(Err(End::Ours(_))) => return false,
                        other => panic!("{other:?}"),
                    }
                }
            })
        };
        assert!(is_last(&close, Vec::new()));
        assert!(is_last(b"", close.clone()));
        let more = [&close[..], b"\x8a"].concat();
        assert!(!is_last(&more, Vec::new()));
        // The frame comes with two reads.
        assert!(is_last(&close[..1], close[1..].to_vec()));
        assert!(!is_last(&more[..1], more[1..].to_vec()));
        // A read that takes as much as it can may have left some.
        for (less, last) in [(0, false), (1, true)] {
            let message = frame(0x82, &vec![0; READ_BUFFER_BYTES - close.len() - 8 - less]);
            let bytes = [&message[..], &close].concat();
            assert_eq!(bytes.len(), READ_BUFFER_BYTES - less);
            assert_eq!(is_last(b"", bytes), last);
        }
    }
    /// As a stream of TLS does while its socket is full.
    #[test]
    fn what_a_stream_holds_back_is_flushed_until_it_has_gone() {
        let mut stream = Stream { holds_back: true, ..Stream::default() };
        connected(&mut stream, Vec::new(), |_, connection| {
            let cx = &mut Context::from_waker(Waker::noop());
            connection.outgoing.queue().push_control(b"\x8a\0");
            let drained = connection.poll_drain(cx);
            assert!(drained.wrote && !drained.empty);
            let drained = connection.poll_drain(cx);
            assert!(!drained.wrote && !drained.empty);
            connection.reader.transport.holds_back = false;
            assert!(connection.poll_drain(cx).empty);
            assert_eq!(connection.reader.transport.flushes, 3);
            assert!(connection.poll_drain(cx).empty);
            assert_eq!(connection.reader.transport.flushes, 3, "nothing is left to flush");
        });
    }
    /// It could not be heard meanwhile.
    #[test]
    fn a_peer_has_its_time_to_answer_a_ping_again_after_a_pause() {
        let mut stream = Stream::default();
        connected(&mut stream, Vec::new(), |time, connection| {
            let cx = &mut Context::from_waker(Waker::noop());
            let config = Config::default();
            connection.outgoing.timeouts.pinged();
            connection.pause = Some(ReadPause::Hook);
            time.advance(2 * config.pong_timeout);
            connection.resume_reading();
            let timeouts = &mut connection.outgoing.timeouts;
            assert!(timeouts.poll(cx, &config, None, None).is_pending());
            time.advance(2 * config.pong_timeout);
            assert_eq!(timeouts.poll(cx, &config, None, None), Poll::Ready(Due::PongTimeout));
        });
    }
    /// The queue has room for two of the longest pongs. Of the others, the newest answers all pings before
    /// it (RFC 6455 5.5.3).
    #[test]
    fn every_ping_is_answered_and_while_there_is_no_room_the_newest() {
        let ping = |number: u8| frame(0x89, &[number; 125]);
        let pong = |number: u8| [&[0x8a, 125][..], &[number; 125]].concat();
        let pings: Vec<u8> = (0..5).flat_map(ping).collect();
        let mut stream = Stream { full: true, ..Stream::default() };
        connected(&mut stream, pings, |_, connection| {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(connection.poll_next(cx).is_pending());
            assert!(connection.has_pong());
            connection.reader.transport.full = false;
            assert!(connection.poll_next(cx).is_pending() && !connection.has_pong());
            assert!(connection.poll_next(cx).is_pending());
            let pongs = [pong(0), pong(1), pong(4)].concat();
            assert_eq!(connection.reader.transport.written, pongs);
            // A pong that has room takes the place of one that waits.
            connection.reader.transport.full = true;
            for number in 5..8 {
                connection.answer(&[number; 125]);
            }
            assert!(connection.has_pong());
            connection.answer(b"8");
            assert!(!connection.has_pong());
            connection.reader.transport.full = false;
            assert!(connection.poll_next(cx).is_pending());
            let pongs = [pongs, pong(5), pong(6), b"\x8a\x018".to_vec()].concat();
            assert_eq!(connection.reader.transport.written, pongs);
        });
    }
    /// Invariant 12: what a compressed message becomes counts as read, so that a peer that sends
    /// bombs has no longer turn than one that sends as much.
    #[test]
    fn a_turn_ends_with_what_compressed_messages_become() {
        // Half a turn each.
        let message = vec![0; READ_BUDGET as usize / 2];
        let bomb = frame(0xc2, &deflated(&message));
        let (mut stream, bombs) = (Stream::default(), bomb.repeat(7));
        connected(&mut stream, bombs, |_, connection| {
            connection.reader.inflates = true;
            let cx = &mut Context::from_waker(Waker::noop());
            let mut turns = Vec::new();
            while connection.reader.has_unread() {
                let mut messages = 0;
                while let Poll::Ready(next) = connection.poll_next(cx) {
                    assert_eq!(next.expect("no end").expect("a message").as_bytes(), message);
                    messages += 1;
                }
                turns.push(messages);
            }
            assert_eq!(turns, [2, 2, 2, 1]);
        });
    }
    /// Neither what is sent faster, nor its client, is lost.
    #[test]
    fn a_client_is_read_no_faster_than_its_rate_in_what_its_messages_become() {
        let message = vec![0; 10_000];
        let (bomb, ping) = (frame(0xc2, &deflated(&message)), frame(0x89, b""));
        for (rate, dues) in [
            (Rate::messages(2), [0, 0, 500, 1000, 1500, 2000]),
            (Rate::UNLIMITED.bytes(20_000), [0, 0, 0, 500, 1000, 1500]),
            (Rate::messages(9).bytes(5_000), [0, 1000, 3000, 5000, 7000, 9000]),
        ] {
            let mut stream = Stream::default();
            let sent = [bomb.repeat(6), ping.clone()].concat();
            connected(&mut stream, sent, |time, connection| {
                connection.reader.inflates = true;
                connection.set_rate(rate);
                let cx = &mut Context::from_waker(Waker::noop());
                let mut come = Vec::new();
                let begun = now();
                while come.len() < 6 {
                    match connection.poll_next(cx) {
                        Poll::Ready(Ok(Some(message))) => {
                            assert_eq!(message.len(), 10_000);
                            connection.count_rate(message.len());
                            come.push(now() - begun);
                        }
                        other @ Poll::Ready(_) => panic!("{other:?}"),
                        Poll::Pending => time.advance(Duration::from_millis(10)),
                    }
                }
                for (come, due) in come.into_iter().zip(dues.map(Duration::from_millis)) {
                    let late = come.saturating_sub(due);
                    assert!(
                        come >= due && late.as_millis() < 300,
                        "{rate:?}: {come:?} for {due:?}"
                    );
                }
            });
        }
    }
    /// If the connection wakes up late, what lies in the socket counts, also with its read budget spent.
    #[test]
    fn a_message_that_lies_in_the_socket_is_read_before_it_is_called_late() {
        let message = frame(0x82, &[7; 100]);
        for comes in [true, false] {
            connected(&mut Stream::default(), message[..50].to_vec(), |time, connection| {
                let cx = &mut Context::from_waker(Waker::noop());
                assert!(connection.poll_next(cx).is_pending());
                if comes {
                    connection.reader.transport.unread = message[50..].to_vec().into();
                }
                connection.read_budget = 0;
                time.advance(2 * Config::MESSAGE_TIMEOUT);
                let late = connection.poll_next(cx);
                if comes {
                    assert!(late.is_pending(), "{late:?}");
                    let Poll::Ready(Ok(Some(message))) = connection.poll_next(cx) else {
                        panic!("lost")
                    };
                    assert_eq!(message.as_bytes(), [7; 100]);
                } else {
                    let Poll::Ready(Err(End::Ours(reason))) = late else { panic!("{late:?}") };
                    assert_eq!(reason.code(), 1008);
                }
            });
        }
    }
}
