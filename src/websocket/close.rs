//! The end of a client's connection: the manager lets go of it, and its peer is told, heard out, or
//! cut off.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::connection::timeouts::Due;
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::command::Command;
use crate::hub::queue::Phase;
use crate::net::stream::Transport;
use crate::time::timers::Deadline;
use crate::websocket::connection::{Connection, End, READ_BUDGET};

/// How a connection ends, and how far it has come with that.
struct Closing<'a> {
    /// What the client is told, if it can be, and the handler.
    reason: Disconnect,
    stage: Stage<'a>,
}

enum Stage<'a> {
    /// What waits is written, and then the close frame, which may wait already. The peer may have
    /// closed first.
    Flush { closed_first: bool, closing: bool },
    /// The write side is shut down, and what comes is thrown away until the peer has shut its own: a
    /// socket that is dropped with unread bytes, or gets more, resets the connection and destroys what
    /// is on its way. Where the connection may close now, nothing is waited for.
    Linger { may_close_now: bool, shut: bool, deadline: Deadline<'a> },
    /// Without ceremony; the evicted get one try at a close frame, without waiting.
    Abort { tries: bool },
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

impl<'a, T: Transport> Connection<'a, T> {
    /// Where the connection ends itself, tells the manager, in the order of the client's own
    /// messages, and waits until it has let the client go, so that what it sent before still comes
    /// back before the close frame. Returns how it ends after that.
    pub(crate) async fn unregister(&mut self, end: End, client: &Client) -> End {
        // Nothing that came behind the end is read, and the borrowed buffer is not kept over it.
        self.discard();
        self.memory_wait.cancel();
        let (End::Ours(reason) | End::Theirs(reason)) = &end else { return end };
        let command = Command::Disconnect { id: client.id(), reason: reason.clone(), reply: None };
        let mut told = self.hub.send_command(command);
        let cut_off = poll_fn(|cx| {
            // Heard or not, the queue is sealed: by the manager, or with it where it has ended.
            let _ = Pin::new(&mut told).poll(cx);
            match self.poll_write_and_timeouts(cx, false) {
                Poll::Ready(End::Closing) => Poll::Ready(None),
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
    pub(crate) async fn end(&mut self, end: End) -> Disconnect {
        let goodbye = |closed_first| Stage::Flush { closed_first, closing: false };
        let (reason, stage) = match end {
            End::Ours(reason) => (reason, goodbye(false)),
            End::Theirs(reason) => (reason, goodbye(true)),
            End::Closing => (self.reason(Disconnect::GOING_AWAY), goodbye(false)),
            End::Evicted => (self.reason(Disconnect::SLOW), Stage::Abort { tries: true }),
            End::Lost(reason) => (reason, Stage::Abort { tries: false }),
        };
        let mut ending = Closing { reason, stage };
        poll_fn(|cx| self.poll_end(cx, &mut ending)).await;
        ending.reason
    }

    /// Why the queue was sealed or evicted.
    fn reason(&self, unless_told: Disconnect) -> Disconnect {
        self.registered.queue.reason().unwrap_or(unless_told)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, ending: &mut Closing<'a>) -> Poll<()> {
        loop {
            match &mut ending.stage {
                Stage::Flush { closed_first, closing } => match ready!(self.poll_write_out(cx)) {
                    Phase::Evicted => {
                        ending.reason = self.reason(Disconnect::SLOW);
                        ending.stage = Stage::Abort { tries: true };
                    }
                    // As `End::after` has it.
                    Phase::Dead => ending.stage = Stage::Abort { tries: false },
                    _ if *closing => {
                        let may_close_now = self.may_close_now(*closed_first);
                        let shared = self.hub.shared();
                        let deadline = shared.timers.after(shared.config.close_timeout);
                        ending.stage = Stage::Linger { may_close_now, shut: false, deadline };
                    }
                    _ => {
                        self.registered.queue.push_close(&ending.reason.frame());
                        *closing = true;
                    }
                },
                Stage::Linger { may_close_now, shut, deadline } => {
                    let said = match self.poll_linger(cx, may_close_now, shut) {
                        Poll::Ready(said) => said,
                        Poll::Pending => {
                            ready!(Pin::new(deadline).poll(cx));
                            Err(io::ErrorKind::TimedOut.into())
                        }
                    };
                    if let Err(error) = said {
                        log::debug!("a peer did not answer its close frame: {error}");
                        self.reader.transport.abort();
                    }
                    return Poll::Ready(());
                }
                Stage::Abort { tries } => {
                    if *tries {
                        self.registered.queue.push_close(&ending.reason.frame());
                        self.poll_drain(cx);
                    }
                    self.reader.transport.abort();
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
            match ready!(self.timeouts.poll(cx, &self.hub.shared().config, false, None)) {
                Due::WriteTimeout => self.registered.queue.evict(),
                // A peer that is being told of its end is not pinged.
                _ => self.timeouts.pinged(),
            }
        }
    }

    /// Whether the connection may end without waiting for the end of its peer, behind our close frame:
    /// the peer closed first and nothing lay behind its close frame; it was sent nothing but ours, so
    /// it has nothing to answer, not even a ping; and the kernel delivers our frame by itself.
    ///
    /// Otherwise a pong that still comes (RFC 6455 5.5.3) would reset the connection, and cost the
    /// peer what it was sent.
    fn may_close_now(&self, closed_first: bool) -> bool {
        closed_first
            && !self.registered.queue.has_sent()
            && self.reader.transport.delivers_after_close()
    }

    /// Throws away what was read.
    fn discard(&mut self) {
        self.reader.discard(self.hub, &self.registered.queue);
    }

    /// Shuts the write side down, unless it is `shut`, and discards what comes; ready when the peer
    /// has shut its own (RFC 6455 7.1.1), or at once where that is not waited for and nothing more has
    /// come.
    fn poll_linger(
        &mut self,
        cx: &mut Context<'_>,
        may_close_now: &mut bool,
        shut: &mut bool,
    ) -> Poll<io::Result<()>> {
        if !*shut {
            ready!(Pin::new(&mut self.reader.transport).poll_close(cx))?;
            *shut = true;
        }
        self.discard();
        let mut turn = 0;
        while turn < READ_BUDGET {
            // Most have not answered yet: a read would find nothing.
            let come = match self.reader.transport.poll_readable(cx) {
                Poll::Ready(()) => self.poll_fill(cx)?,
                Poll::Pending => Poll::Pending,
            };
            match come {
                Poll::Pending if !*may_close_now => return Poll::Pending,
                Poll::Pending | Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(n) => turn += n as u32,
            }
            *may_close_now = false;
            self.discard();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::config::Config;
    use crate::hub::tests::support::Wakes;
    use crate::time::virtual_time::VirtualTime;
    use crate::websocket::connection::PING;
    use crate::websocket::connection::tests::{Stream, connected};

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
    fn a_peer_that_does_not_answer_a_close_frame_is_cut_off_after_the_close_timeout() {
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
    fn a_peer_that_takes_nothing_in_time_is_evicted_and_told_once_without_waiting() {
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
    fn a_peer_that_closes_first_and_was_sent_nothing_is_not_waited_for() {
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
                    assert!(connection.registered.queue.push_control(&PING));
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
}
