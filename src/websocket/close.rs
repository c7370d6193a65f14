//! The end of a WebSocket: its close frame, and whether the peer's end is waited for.

use std::task::{Context, Poll};

use crate::connection::end::{End, Ending};
use crate::connection::outgoing::Outgoing;
use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::hub::queue_outcome::Drained;
use crate::net::stream::Transport;
use crate::websocket::connection::Connection;

impl<'a, T: Transport> Ending<'a> for Connection<'a, T> {
    type Stream = T;

    fn parts(&mut self) -> (&'a Hub, &mut T, &mut Outgoing<'a>) {
        (self.hub, &mut self.reader.transport, &mut self.outgoing)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Drained {
        Self::poll_drain(self, cx)
    }

    fn poll_until_closed(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.poll_write_and_timeouts(cx)
    }

    fn push_close(&mut self, reason: &Disconnect) {
        self.outgoing.queue().push_close(&reason.frame());
    }

    /// The peer closed first and nothing lay behind its close frame; it was sent nothing but ours, so
    /// it has nothing to answer, not even a ping; and the kernel delivers our frame by itself.
    ///
    /// Otherwise a pong that still comes (RFC 6455 5.5.3) would reset the connection, and cost the
    /// peer what it was sent.
    fn may_close_now(&self, closed_first: bool) -> bool {
        closed_first
            && !self.outgoing.queue().has_sent()
            && self.reader.transport.delivers_after_close()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::config::Config;
    use crate::connection::end::close;
    use crate::hub::tests::support::Wakes;
    use crate::time::virtual_time::VirtualTime;
    use crate::websocket::connection::PING;
    use crate::websocket::connection::tests::connected;
    use crate::websocket::tests::stream::Stream;

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
        let mut ending = pin!(close(connection, end));
        loop {
            if let Poll::Ready(reason) = ending.as_mut().poll(cx) {
                return (reason, woken);
            }
            woken.push(wakes.take());
            assert!(each(time), "it does not end");
        }
    }
    #[test]
    fn a_goodbye_shuts_once_and_reads_all_that_comes_within_its_budget() {
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
    fn a_peer_that_takes_nothing_in_time_is_evicted_with_one_try_at_a_close_frame() {
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
        for (nth, (is_pinged, is_theirs, delivers_alone, unread)) in [
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
                if is_pinged {
                    assert!(connection.outgoing.queue().push_control(&PING));
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
