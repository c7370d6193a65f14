//! A client's connection after its handshake: read and write in one task, keep time, end well.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use futures_lite::FutureExt as _;

use super::Handler;
use super::clock::{Clock, Verdict};
use super::handshake::{Admitted, Registered};
use super::protocol::Protocol;
use super::scan::Said;
use super::strain::Strain;
use super::transport::Transport;
use super::wire::Wire;
use crate::hub::{Command, Drained, Phase, add};
use crate::scratch::SCRATCH_BYTES;
use crate::time::now;
use crate::timekeeper::Deadline;
use crate::{Client, Disconnect, Hub, Message};

/// Bytes that one poll reads from or writes to a peer, about, before others get their turn.
const TURN: u32 = 64 * 1024;

/// A ping without payload (RFC 6455 5.5.2).
const PING: [u8; 2] = [0x89, 0];

/// Why a pump stopped.
#[derive(Debug)]
enum End {
    /// The connection ends itself, with this: the peer's mistake, the handler's wish, and a close
    /// frame with more behind it.
    Ours(Disconnect),
    /// The peer ends it, with a close frame and nothing behind that.
    Theirs(Disconnect),
    /// The manager sealed the queue: a kick or a drain.
    Sealed,
    /// The queue overflowed, or the socket took nothing in time.
    Evicted,
    /// There is nobody to say anything to any more.
    Lost(Disconnect),
}

impl End {
    /// This end of a connection that was ending already: that the stream fails on the way changes
    /// nothing about the reason (RFC 6455 7.1.5).
    fn after(self, reason: Disconnect) -> Self {
        match self {
            Self::Lost(_) => Self::Lost(reason),
            end => end,
        }
    }
}

/// How a connection ends, and how far it has come with that.
struct Ending<'a> {
    /// What the client is told, if it can be, and the handler.
    reason: Disconnect,
    stage: Stage<'a>,
}

enum Stage<'a> {
    /// What waits is written, and then the close frame, which may wait already. The peer may have
    /// closed first.
    Writing { closed_first: bool, closing: bool },
    /// The write side is shut down, and what comes is thrown away until the peer has shut its own: a
    /// socket that is dropped with unread bytes, or gets more, resets the connection and destroys what
    /// is on its way. Who is heard out is not waited for: that is our close frame alone.
    Goodbye { heard_out: bool, shut: bool, deadline: Deadline<'a> },
    /// Without ceremony; the evicted get one try at a close frame, without waiting.
    CutOff { tries: bool },
}

/// Runs a client from its 101 to its end; returns why it ended. `early` came behind its request.
///
/// Not an `async fn`, which would keep a place for every argument beside what becomes of it.
pub(crate) fn run<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    admitted: Admitted,
    early: Vec<u8>,
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    let Admitted { registered, client } = admitted;
    let mut connection = Connection::new(hub, transport, registered, early);
    async move {
        let end = connection.serve(&client, handler).await;
        let end = connection.unregister(end, &client).await;
        let reason = connection.end(end).await;
        // The socket is closed with the queue, which may write through it, before the hook.
        let registered = connection.into_registered();
        // A block of its own, where the reason lies in the room of the long life before.
        let departure = async {
            registered.leave().await;
            drop(registered);
            let hook = async { handler.on_disconnect(&client, &reason).await };
            if AssertUnwindSafe(hook).catch_unwind().await.is_err() {
                log::error!("on_disconnect panicked for client {}", client.id());
            }
            reason
        };
        departure.await
    }
}

/// The I/O side of a client.
struct Connection<'a, T> {
    hub: &'a Hub,
    /// Reads, checks and answers; what it writes goes into the queue.
    protocol: Protocol<T>,
    /// The client's queue and its place in the registry.
    registered: Registered,
    clock: Clock<'a>,
    /// Bytes that may still be read in this turn.
    turn: u32,
    /// The last read filled its buffer, so the socket probably holds more.
    more: bool,
    /// A wake was armed, and this may be it, even if the transport denies it: what the reactor
    /// delivers in the round in which it was asked, it takes for an answer to an earlier question.
    armed: bool,
    /// Tungstenite may have a frame to write, or has not been asked since it gave one.
    pending: bool,
    /// Frames were written that the transport may still hold back.
    unflushed: bool,
    /// Whether reading waits because memory is short.
    strain: Strain<'a>,
}

/// An idle client is mostly this: past 236 bytes musl's next larger piece of memory takes 48 more.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Connection<'_, super::transport::Socket>>() <= 236);

impl<'a, T: Transport> Connection<'a, T> {
    /// Boxed, since a future that holds it by value holds it twice where it hands it on.
    fn new(hub: &'a Hub, transport: T, registered: Registered, early: Vec<u8>) -> Box<Self> {
        let queue = &registered.queue;
        let wire = Wire::new(transport, std::sync::Arc::clone(queue), early, hub);
        queue.open(wire.outlet());
        Box::new(Self {
            hub,
            protocol: Protocol::new(wire),
            registered,
            clock: Clock::new(hub),
            turn: TURN,
            more: false,
            armed: false,
            pending: false,
            unflushed: false,
            strain: Strain::default(),
        })
    }

    /// Closes the socket, with what is still in it.
    fn into_registered(self) -> Registered {
        self.registered
    }

    /// Hands messages to the handler until something ends the connection.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    fn serve<H: Handler>(
        &mut self,
        client: &Client,
        handler: &H,
    ) -> impl Future<Output = End> + Send {
        async move {
            {
                let hook = pin!(async { handler.on_connect(client).await });
                if let Err(end) = self.beside(hook).await {
                    return end;
                }
            }
            loop {
                let message = match poll_fn(|cx| self.poll_next(cx)).await {
                    Ok(message) => message,
                    Err(end) => return end,
                };
                add(&self.hub.shared().counters.messages_received, 1);
                let hook = pin!(async { handler.on_message(client, message).await });
                if let Err(end) = self.beside(hook).await {
                    return end;
                }
            }
        }
    }

    /// Runs a hook while the client is written to and kept alive; only reading waits for it.
    fn beside<F: Future<Output = Result<(), Disconnect>>>(
        &mut self,
        hook: Pin<&mut F>,
    ) -> impl Future<Output = Result<(), End>> {
        let mut hook = AssertUnwindSafe(hook).catch_unwind();
        let mut waited = false;
        poll_fn(move |cx| {
            if let Poll::Ready(outcome) = Pin::new(&mut hook).poll(cx) {
                if waited {
                    self.clock.listens_again();
                    self.protocol.wire.listens_again(&self.hub.shared().timekeeper);
                }
                return Poll::Ready(match outcome {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(disconnect)) => Err(End::Ours(disconnect)),
                    Err(_) => Err(End::Ours(Disconnect::INTERNAL)),
                });
            }
            waited = true;
            self.settle();
            self.turn = TURN;
            self.poll_lane(cx, false).map(Err)
        })
    }

    /// Finds the next message; on the way it writes, answers pings and keeps time.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        // The lane first: it stores the waker, and a seal or an eviction goes before reading.
        if let Poll::Ready(end) = self.poll_write(cx) {
            return Poll::Ready(Err(end));
        }
        let next = self.poll_read(cx);
        if next.is_ready() {
            return next;
        }
        self.settle();
        self.poll_lane(cx, !self.strain.is_waiting()).map(Err)
    }

    /// Reads through tungstenite until there is a message, an end, or nothing more to read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        loop {
            if self.poll_strain(cx).is_pending() {
                self.turn = TURN;
                return Poll::Pending;
            }
            if self.pending || self.protocol.wire.has_unread() {
                self.pending = true;
                match self.protocol.next(&self.hub.shared().scratch) {
                    Some(Ok(Said::Message(message))) => return Poll::Ready(Ok(message)),
                    Some(Ok(Said::Control)) => continue,
                    Some(Ok(Said::Close(reason))) => {
                        let is_last = !self.more && self.protocol.is_heard_out();
                        let end = if is_last { End::Theirs(reason) } else { End::Ours(reason) };
                        return Poll::Ready(Err(end));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(self.fault(error))),
                    None => self.pending = false,
                }
            }
            if self.turn == 0 {
                self.turn = TURN;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let wire = &mut self.protocol.wire;
            // Asked before the read, so that an answer that has come is used up by it: one left
            // over would cost a read that finds nothing.
            let quiet = !self.more && wire.transport.poll_readable(cx).is_pending();
            if quiet && !std::mem::replace(&mut self.armed, true) {
                self.turn = TURN;
                return Poll::Pending;
            }
            match ready!(self.poll_fill(cx)) {
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(&error))),
            }
        }
    }

    /// Ready when reading may go on: a message that has begun has its memory set aside, another one
    /// waits while memory is short.
    fn poll_strain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.protocol.wire.has_begun() {
            self.strain.leave();
        } else if ready!(self.strain.poll_eased(cx, self.hub)) {
            self.clock.listens_again();
        }
        Poll::Ready(())
    }

    /// Reads once from the transport.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.protocol.wire.poll_fill(cx, &self.hub.shared().scratch);
        match &filled {
            Poll::Ready(Ok(n)) => {
                self.more = *n == SCRATCH_BYTES;
                self.armed = false;
                self.turn = self.turn.saturating_sub(*n as u32);
                self.clock.heard();
                add(&self.hub.shared().counters.bytes_received, *n as u64);
                let memory = self.hub.memory();
                if memory.is_limited() {
                    memory.set_time(now());
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.more = false;
                self.armed = true;
                self.turn = TURN;
            }
        }
        filled
    }

    /// Before a poll ends: lets go of what the next one does not need.
    fn settle(&mut self) {
        self.protocol.settle(self.hub.shared(), self.pending);
    }

    /// Writes, then judges deadlines; `listening` is whether the peer is being read as well.
    ///
    /// Ready only with an end.
    fn poll_lane(&mut self, cx: &mut Context<'_>, listening: bool) -> Poll<End> {
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            let began = self.protocol.wire.began();
            match ready!(self.clock.poll(cx, &self.hub.shared().config, listening, began)) {
                Verdict::Ping => {
                    // Without a place for it the write deadline judges the peer instead.
                    self.registered.queue.control(&PING);
                    self.clock.pinged();
                }
                Verdict::WriteTimeout => {
                    self.registered.queue.evict();
                    return Poll::Ready(End::Evicted);
                }
                // What the socket holds already is heard before the peer is judged: a process
                // that was stopped wakes up late, not deaf. A message has one turn for that, or
                // whoever sends anything but its rest would put its end off for ever.
                Verdict::PongTimeout if self.has_news(cx) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Verdict::MessageTimeout if self.clock.grants_a_turn() && self.has_news(cx) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Verdict::PongTimeout => {
                    let reason = "no pong in time";
                    let code = Disconnect::ABNORMAL.code();
                    return Poll::Ready(End::Lost(Disconnect::new(code, reason)));
                }
                Verdict::MessageTimeout => {
                    let reason = "message not finished in time";
                    let code = Disconnect::POLICY.code();
                    return Poll::Ready(End::Ours(Disconnect::new(code, reason)));
                }
            }
        }
    }

    /// Whether the socket holds bytes that have not been read; they are read.
    fn has_news(&mut self, cx: &mut Context<'_>) -> bool {
        if self.protocol.wire.has_unread() {
            return true;
        }
        let news = matches!(self.poll_fill(cx), Poll::Ready(Ok(n)) if n > 0);
        self.settle();
        news
    }

    /// Writes what waits. Ready only with an end.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.poll_drain(cx).phase {
            Phase::Held | Phase::Open => Poll::Pending,
            Phase::Sealed => Poll::Ready(End::Sealed),
            Phase::Evicted => Poll::Ready(End::Evicted),
            Phase::Dead => Poll::Ready(End::Lost(Disconnect::ABNORMAL)),
        }
    }

    /// Drains the queue into the transport and notes progress.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Drained {
        let queue = &self.registered.queue;
        let wire = &mut self.protocol.wire;
        let mut drained =
            queue.poll_drain(cx, TURN as usize, |cx, frames| wire.poll_write_frames(cx, frames));
        self.unflushed |= drained.wrote;
        if self.unflushed {
            match wire.poll_flush_transport(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                // A stream that keeps what it was given to itself is as good as gone.
                Poll::Ready(Err(_)) => drained.phase = Phase::Dead,
                Poll::Pending => {}
            }
        }
        self.clock.wrote(drained.wrote, drained.empty && !self.unflushed);
        if drained.empty && wire.take_starved() {
            self.pending = true;
            cx.waker().wake_by_ref();
        }
        drained
    }

    /// What tungstenite's error, or the wire's, means for the peer.
    fn fault(&mut self, error: WsError) -> End {
        End::Ours(match error {
            // The wire looks ahead of tungstenite: its fault counts once tungstenite has come to it.
            WsError::Io(error) => match self.protocol.wire.take_fault() {
                Some(fault) => fault,
                None => return lost(&error),
            },
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => Disconnect::TOO_LONG,
            WsError::Utf8(_) => Disconnect::INVALID_TEXT,
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Disconnect::ABNORMAL,
            WsError::Protocol(error) => {
                Disconnect::new(Disconnect::PROTOCOL_ERROR.code(), broken_rule(&error))
            }
            _ => Disconnect::PROTOCOL_ERROR,
        })
    }

    /// Where the connection ends itself, tells the manager, in the order of the client's own
    /// messages, and waits until it has let the client go, so that what it sent before still comes
    /// back before the close frame. Returns how it ends after that.
    async fn unregister(&mut self, end: End, client: &Client) -> End {
        // Nothing that came behind the end is read, and the borrowed buffer is not kept over it.
        self.protocol.wire.discard(&self.hub.shared().scratch);
        self.strain.leave();
        let (End::Ours(reason) | End::Theirs(reason)) = &end else { return end };
        let command = Command::Disconnect { id: client.id(), reason: reason.clone(), reply: None };
        let mut told = self.hub.tell(command);
        let cut_off = poll_fn(|cx| {
            // Heard or not, the queue is sealed: by the manager, or with it where it has ended.
            let _ = Pin::new(&mut told).poll(cx);
            match self.poll_lane(cx, false) {
                Poll::Ready(End::Sealed) => Poll::Ready(None),
                Poll::Ready(end) => Poll::Ready(Some(end)),
                Poll::Pending => Poll::Pending,
            }
        });
        match cut_off.await {
            Some(cut_off) => cut_off.after(reason.clone()),
            None => end,
        }
    }

    /// Ends the connection as `end` asks for; returns why it ended.
    ///
    /// By hand, which takes half the room of an `async fn`.
    fn end(&mut self, end: End) -> impl Future<Output = Disconnect> {
        let goodbye = |closed_first| Stage::Writing { closed_first, closing: false };
        let (reason, stage) = match end {
            End::Ours(reason) => (reason, goodbye(false)),
            End::Theirs(reason) => (reason, goodbye(true)),
            End::Sealed => (self.reason(Disconnect::GOING_AWAY), goodbye(false)),
            End::Evicted => (self.reason(Disconnect::SLOW), Stage::CutOff { tries: true }),
            End::Lost(reason) => (reason, Stage::CutOff { tries: false }),
        };
        let mut ending = Ending { reason, stage };
        poll_fn(move |cx| {
            ready!(self.poll_end(cx, &mut ending));
            Poll::Ready(std::mem::replace(&mut ending.reason, Disconnect::ABNORMAL))
        })
    }

    /// Why the queue was sealed or evicted.
    fn reason(&self, unless_told: Disconnect) -> Disconnect {
        self.registered.queue.reason().unwrap_or(unless_told)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, ending: &mut Ending<'a>) -> Poll<()> {
        loop {
            match &mut ending.stage {
                Stage::Writing { closed_first, closing } => match ready!(self.poll_write_out(cx)) {
                    Phase::Evicted => {
                        ending.reason = self.reason(Disconnect::SLOW);
                        ending.stage = Stage::CutOff { tries: true };
                    }
                    // As `End::after` has it.
                    Phase::Dead => ending.stage = Stage::CutOff { tries: false },
                    _ if *closing => {
                        // Pings and pongs may still come (RFC 6455 5.5.2, 5.5.3), and would cost the
                        // peer what was sent.
                        let heard_out = *closed_first
                            && !self.registered.queue.has_told()
                            && self.protocol.wire.transport.delivers_alone();
                        let shared = self.hub.shared();
                        let deadline = shared.timekeeper.after(shared.config.close_timeout);
                        ending.stage = Stage::Goodbye { heard_out, shut: false, deadline };
                    }
                    _ => {
                        self.registered.queue.close_frame(&ending.reason.frame());
                        *closing = true;
                    }
                },
                Stage::Goodbye { heard_out, shut, deadline } => {
                    let said = match self.poll_goodbye(cx, heard_out, shut) {
                        Poll::Ready(said) => said,
                        Poll::Pending => {
                            ready!(Pin::new(deadline).poll(cx));
                            Err(io::ErrorKind::TimedOut.into())
                        }
                    };
                    if let Err(error) = said {
                        log::debug!("a peer did not answer its close frame: {error}");
                        self.protocol.wire.transport.abort();
                    }
                    return Poll::Ready(());
                }
                Stage::CutOff { tries } => {
                    if *tries {
                        self.registered.queue.close_frame(&ending.reason.frame());
                        self.poll_drain(cx);
                    }
                    self.protocol.wire.transport.abort();
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Writes what is queued, under the write deadline. Ready when it is written, and where it
    /// cannot be: the queue is evicted or dead.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        loop {
            let drained = self.poll_drain(cx);
            let is_over = matches!(drained.phase, Phase::Evicted | Phase::Dead);
            if is_over || (drained.empty && !self.unflushed) {
                return Poll::Ready(drained.phase);
            }
            match ready!(self.clock.poll(cx, &self.hub.shared().config, false, None)) {
                Verdict::WriteTimeout => self.registered.queue.evict(),
                // Nobody is pinged who is being told goodbye.
                _ => self.clock.pinged(),
            }
        }
    }

    /// Shuts the write side down, unless it is `shut`, and discards what comes; ready when the peer
    /// has shut its own, or at once where it is `heard_out` and has said no more (RFC 6455 7.1.1).
    fn poll_goodbye(
        &mut self,
        cx: &mut Context<'_>,
        heard_out: &mut bool,
        shut: &mut bool,
    ) -> Poll<io::Result<()>> {
        let scratch = &self.hub.shared().scratch;
        if !*shut {
            ready!(Pin::new(&mut self.protocol.wire.transport).poll_close(cx))?;
            *shut = true;
        }
        self.protocol.wire.discard(scratch);
        let mut turn = 0;
        while turn < TURN {
            // Most have not answered yet: a read would find nothing.
            let come = match self.protocol.wire.transport.poll_readable(cx) {
                Poll::Ready(()) => self.poll_fill(cx)?,
                Poll::Pending => Poll::Pending,
            };
            match come {
                Poll::Pending if !*heard_out => return Poll::Pending,
                Poll::Pending | Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(n) => turn += n as u32,
            }
            *heard_out = false;
            self.protocol.wire.discard(scratch);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What a peer did wrong (RFC 6455 5.2, 5.4, 5.5), in few words: tungstenite's own take 2 KB.
fn broken_rule(error: &ProtocolError) -> &'static str {
    match error {
        ProtocolError::NonZeroReservedBits => "a frame with reserved bits",
        ProtocolError::InvalidOpcode(_)
        | ProtocolError::UnknownControlFrameType(_)
        | ProtocolError::UnknownDataFrameType(_) => "a frame with a reserved opcode",
        ProtocolError::FragmentedControlFrame => "a control frame in fragments",
        ProtocolError::UnexpectedContinueFrame => "a fragment of no message",
        ProtocolError::ExpectedFragment(_) => "a message within a message",
        ProtocolError::InvalidCloseSequence => "a close frame that is malformed",
        _ => "protocol error",
    }
}

/// The end of a connection whose stream failed.
fn lost(error: &io::Error) -> End {
    log::debug!("a connection was lost: {error}");
    End::Lost(Disconnect::ABNORMAL)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::IoSlice;
    use std::sync::Arc;
    use std::task::Waker;

    use futures_lite::future::block_on;
    use futures_lite::io::{AsyncRead, AsyncWrite};
    use smol::Executor;

    use super::*;
    use crate::hub::Outlet;
    use crate::hub::tests::support::Wakes;
    use crate::serve::handshake;
    use crate::serve::scan::tests::frame;
    use crate::time::virtual_time::VirtualTime;
    use crate::{Admission, Config};

    /// A stream whose peer has sent what is `unread` and says nothing more, and takes what is written
    /// unless it is `full`.
    #[derive(Default)]
    struct Stream {
        unread: VecDeque<u8>,
        ended: bool,
        full: bool,
        delivers_alone: bool,
        written: Vec<u8>,
        closes: u32,
        aborts: u32,
    }

    impl Transport for &mut Stream {
        fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if !self.unread.is_empty() || self.ended { Poll::Ready(()) } else { Poll::Pending }
        }

        fn outlet(&self) -> Option<Arc<dyn Outlet>> {
            None
        }

        fn delivers_alone(&self) -> bool {
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
            into.iter_mut().zip(self.unread.drain(..n)).for_each(|(place, byte)| *place = byte);
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

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closes += 1;
            Poll::Ready(Ok(()))
        }
    }

    /// Has `act` do something with a connection over `stream` in a virtual time.
    fn connected<T>(
        stream: &mut Stream,
        early: Vec<u8>,
        act: impl FnOnce(&VirtualTime, &mut Connection<'_, &mut Stream>) -> T,
    ) -> T {
        let time = VirtualTime::start();
        let executor = Executor::new();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        executor.spawn(manager).detach();
        let admitted = handshake::admit(&hub, Admission::anonymous());
        let admitted = block_on(executor.run(admitted)).expect("there is a place");
        act(&time, &mut Connection::new(&hub, stream, admitted.registered, early))
    }

    /// Ends a connection over `stream`, and has `each` do something behind each poll that is pending;
    /// returns why it ended, and how often it was woken.
    fn end(
        stream: &mut Stream,
        end: End,
        each: impl FnMut(&VirtualTime) -> bool,
    ) -> (Disconnect, Vec<usize>) {
        connected(stream, Vec::new(), |time, connection| end_of(connection, end, time, each))
    }

    fn end_of(
        connection: &mut Connection<'_, &mut Stream>,
        end: End,
        time: &VirtualTime,
        mut each: impl FnMut(&VirtualTime) -> bool,
    ) -> (Disconnect, Vec<usize>) {
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let (cx, mut woken) = (&mut Context::from_waker(&waker), Vec::new());
        let mut ending = pin!(connection.end(end));
        loop {
            if let Poll::Ready(reason) = ending.as_mut().poll(cx) {
                return (reason, woken);
            }
            woken.push(wakes.take());
            assert!(each(time), "it does not end");
        }
    }

    #[test]
    fn a_goodbye_shuts_once_and_reads_all_that_comes_in_turns() {
        let mut stream =
            Stream { unread: vec![0; 200 * 1024].into(), ended: true, ..Stream::default() };
        let mut polls = 0;
        let (reason, woken) = end(&mut stream, End::Ours(Disconnect::NORMAL), |_| {
            polls += 1;
            polls < 9
        });
        assert_eq!((reason, &stream.written[..]), (Disconnect::NORMAL, &b"\x88\x02\x03\xe8"[..]));
        assert_eq!(woken, [1, 1, 1], "it goes on by itself");
        assert_eq!((stream.closes, stream.aborts), (1, 0));
    }

    #[test]
    fn who_does_not_answer_a_goodbye_is_cut_off_after_the_close_timeout() {
        let mut stream = Stream::default();
        let mut rest = Config::CLOSE_TIMEOUT;
        let (reason, _) = end(&mut stream, End::Ours(Disconnect::NORMAL), |time| {
            let step = time.until_next().expect("it waits for a deadline");
            let Some(left) = (rest + std::time::Duration::from_secs(1) / 16).checked_sub(step)
            else {
                return false;
            };
            rest = left;
            time.advance(step);
            true
        });
        assert_eq!(reason, Disconnect::NORMAL);
        assert_eq!((stream.closes, stream.aborts), (1, 1));
    }

    #[test]
    fn who_takes_nothing_in_time_is_evicted_and_told_once_without_waiting() {
        let mut stream = Stream { full: true, ..Stream::default() };
        let (reason, _) = end(&mut stream, End::Ours(Disconnect::NORMAL), |time| {
            time.until_next().map(|step| time.advance(step)).is_some()
        });
        assert_eq!(reason.code(), Disconnect::SLOW.code());
        assert_eq!((stream.closes, stream.aborts), (0, 1));
        let mut stream = Stream::default();
        let (reason, _) = end(&mut stream, End::Evicted, |_| false);
        assert_eq!(reason, Disconnect::SLOW);
        assert_eq!(stream.written, Disconnect::SLOW.frame());
        assert_eq!((stream.closes, stream.aborts), (0, 1));
        let mut stream = Stream::default();
        let (reason, _) = end(&mut stream, End::Lost(Disconnect::ABNORMAL), |_| false);
        assert_eq!((reason, &stream.written[..]), (Disconnect::ABNORMAL, &[][..]));
        assert_eq!((stream.closes, stream.aborts), (0, 1));
    }

    #[test]
    fn who_closes_first_and_was_told_nothing_is_not_waited_for() {
        for (nth, (is_told, is_theirs, delivers_alone, unread)) in [
            (false, true, true, 0),
            (false, false, true, 0),
            (false, true, false, 0),
            (true, true, true, 0),
            // It has said more since.
            (false, true, true, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let unread = vec![0x8a; unread].into();
            let mut stream = Stream { unread, delivers_alone, ..Stream::default() };
            connected(&mut stream, Vec::new(), |time, connection| {
                if is_told {
                    assert!(connection.registered.queue.control(&PING));
                }
                let end = if is_theirs { End::Theirs } else { End::Ours };
                let end = end(Disconnect::NORMAL);
                let (reason, woken) = end_of(connection, end, time, |time| {
                    time.until_next().map(|step| time.advance(step)).is_some()
                });
                assert_eq!((reason, woken.is_empty()), (Disconnect::NORMAL, nth == 0));
            });
            assert_eq!((stream.closes, stream.aborts), (1, u32::from(nth > 0)));
            assert!(stream.unread.is_empty(), "it would be reset");
            assert!(stream.written.ends_with(b"\x88\x02\x03\xe8"));
        }
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
        // Tungstenite, which has the beginning, takes the rest whatever it is.
        assert!(!is_last(&more[..1], more[1..].to_vec()));
        // A read that takes as much as it can may have left some.
        for (less, last) in [(0, false), (1, true)] {
            let message = frame(0x82, &vec![0; SCRATCH_BYTES - close.len() - 8 - less]);
            let bytes = [&message[..], &close].concat();
            assert_eq!(bytes.len(), SCRATCH_BYTES - less);
            assert_eq!(is_last(b"", bytes), last);
        }
    }
}
