//! The end of a stream whose peer is to read all that it was sent.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWriteExt as _};

use crate::hub::detached::Detached;
use crate::hub::handle::Hub;
use crate::memory::read_buffers::READ_BUFFER_BYTES;
use crate::net::stream::Transport;
use crate::stats::add;

/// Bytes that are read and thrown away behind the last that were written, at most. They cost no
/// memory; a peer that sends more sees a reset.
pub(crate) const DISCARD_MAX: usize = 64 * 1024 * 1024;

/// Bytes that one poll throws away, about, before other tasks run.
const DISCARD_BUDGET: usize = 64 * 1024;

/// Writes the last bytes of a stream and shuts its write side down, then reads and discards until the
/// peer has ended it too (RFC 6455 7.1.1). Each of the two has the close timeout: a process that was
/// stopped may write late, and its peer reads after that.
///
/// A socket that is closed with unread bytes, or gets more, resets the connection and destroys what
/// is on its way. With `may_close_now` the end of the peer is not waited for if nothing more has come.
pub(crate) async fn lingering_close<T: Transport>(
    hub: &Hub,
    stream: &mut T,
    last: &[u8],
    mut may_close_now: bool,
) -> io::Result<()> {
    let (timers, timeout) = (&hub.shared().timers, hub.shared().config.close_timeout);
    let written = async {
        stream.write_all(last).await?;
        stream.flush().await?;
        stream.close().await
    };
    timers.after(timeout).within(written).await.unwrap_or_else(timed_out)?;
    let _detached = Detached::new(hub);
    let mut budget = DISCARD_BUDGET;
    let mut left = DISCARD_MAX;
    let discarding = poll_fn(|cx| {
        while left > 0 {
            if budget == 0 {
                budget = DISCARD_BUDGET;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Most peers have not answered yet: a read would find nothing.
            let read = match stream.poll_readable(cx) {
                Poll::Ready(()) => poll_discard(hub, stream, cx)?,
                Poll::Pending => Poll::Pending,
            };
            match read {
                Poll::Pending if !may_close_now => return Poll::Pending,
                Poll::Pending | Poll::Ready(0) => break,
                Poll::Ready(n) => {
                    may_close_now = false;
                    (budget, left) = (budget.saturating_sub(n), left.saturating_sub(n));
                }
            }
        }
        Poll::Ready(Ok(()))
    });
    timers.after(timeout).within(discarding).await.unwrap_or_else(timed_out)
}

/// Reads once and throws away what came; ready with how much.
pub(crate) fn poll_discard<S: AsyncRead + Unpin>(
    hub: &Hub,
    stream: &mut S,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let pool = &hub.shared().read_buffers;
    let mut bytes = pool.acquire();
    let read = Pin::new(stream).poll_read(cx, &mut bytes[..]);
    pool.release(bytes);
    // Not more than there was room for, whatever a stream of the embedding program says.
    read.map_ok(|n| {
        let n = n.min(READ_BUFFER_BYTES);
        add(&hub.shared().counters.bytes_received, n as u64);
        n
    })
}

/// What a step came to that its deadline ended.
pub(crate) fn timed_out<T>() -> io::Result<T> {
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::Waker;

    use fastrand::Rng;

    use super::*;
    use crate::config::Config;
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    /// The process was stopped with half of the last bytes written.
    #[test]
    fn a_peer_has_the_close_timeout_from_the_last_byte_on() {
        let time = VirtualTime::start();
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        for answers in [true, false] {
            let line = Line::new(2, usize::MAX, Rng::with_seed(1));
            let mut socket = Socket::new(&line, false);
            let mut goodbye = pin!(lingering_close(&hub, &mut socket, b"last", false));
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(goodbye.as_mut().poll(cx).is_pending());
            line.grant(2);
            time.advance(2 * Config::CLOSE_TIMEOUT);
            assert!(goodbye.as_mut().poll(cx).is_pending(), "the peer has not read it");
            assert_eq!(line.lock().taken, b"last");
            assert!(line.lock().shut);
            if answers {
                line.end();
            }
            time.advance(2 * Config::CLOSE_TIMEOUT);
            let Poll::Ready(ended) = goodbye.as_mut().poll(cx) else { panic!("it does not end") };
            assert_eq!(ended.is_ok(), answers);
        }
    }
}
