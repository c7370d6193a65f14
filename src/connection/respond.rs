//! How responses are written, and the end of a connection behind its last one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::yield_now;

use crate::connection::linger::{DISCARD_MAX, lingering_close, poll_discard, timed_out};
use crate::connection::patience::{Patience, Waits};
use crate::http1::slot::Slot;
use crate::hub::handle::Hub;
use crate::net::stream::{RESPONSE_SECONDS_MAX, Transport};
use crate::stats::add;

/// Write timeouts without progress that end a response. A peer that reads slowly first reads what its
/// host holds, and nothing shows that: 128 KiB on Linux, at 3.5 KiB/s.
const STALLS: u32 = 4;

/// Writes a response.
///
/// A peer may read slowly as long as it makes progress: with a `slot` there may be none for
/// [`STALLS`] write timeouts, and it takes [`RESPONSE_SECONDS_MAX`] at most, and beyond the time of a
/// handshake an idle permit. Without one, or once that is lost, the response has the
/// write timeout in all.
pub(crate) async fn write_response<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    bytes: &[u8],
    slot: Option<&mut Slot<'_>>,
) -> io::Result<()> {
    let shared = hub.shared();
    add(&shared.counters.bytes_sent, bytes.len() as u64);
    let without_slot = shared.config.write_timeout;
    let whole = Duration::from_secs(RESPONSE_SECONDS_MAX.into());
    let waits = Waits { without_slot, stall: without_slot * STALLS, whole };
    let mut patience = Patience::new(hub, waits, slot);
    let mut written = 0;
    while written < bytes.len() {
        let write =
            poll_fn(|cx| match Pin::new(&mut *transport).poll_write(cx, &bytes[written..]) {
                Poll::Pending => patience.poll_over(cx).map(|()| timed_out()),
                written => written,
            });
        match write.await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => written += n,
        }
        patience.renew();
    }
    poll_fn(|cx| match Pin::new(&mut *transport).poll_flush(cx) {
        Poll::Pending => patience.poll_over(cx).map(|()| timed_out()),
        flushed => flushed,
    })
    .await
}

/// The last response of a connection.
pub(crate) struct LastResponse<'a> {
    pub(crate) bytes: &'a [u8],
    /// The peer may still send a body, which is not read.
    pub(crate) has_unread_body: bool,
}

impl LastResponse<'_> {
    /// Writes the response and ends the connection.
    pub(crate) async fn write<T: Transport>(
        self,
        hub: &Hub,
        transport: &mut T,
        mut slot: Option<&mut Slot<'_>>,
    ) {
        match write_response(hub, transport, self.bytes, slot.as_deref_mut()).await {
            Ok(()) => self.end(hub, transport, slot).await,
            Err(error) => lost(transport, &error),
        }
    }

    /// Ends the connection behind the response, which is written.
    pub(crate) async fn end<T: Transport>(
        self,
        hub: &Hub,
        transport: &mut T,
        slot: Option<&mut Slot<'_>>,
    ) {
        if let Err(error) = self.linger(hub, transport, slot).await {
            lost(transport, &error);
        }
    }

    async fn linger<T: Transport>(
        self,
        hub: &Hub,
        transport: &mut T,
        slot: Option<&mut Slot<'_>>,
    ) -> io::Result<()> {
        let config = &hub.shared().config;
        // A kernel delivers by itself what it has taken. All others lose it when they are closed.
        let reading = if transport.delivers_after_close() {
            Duration::ZERO
        } else {
            reading_time(self.bytes.len())
        };
        let wait = config.close_timeout + reading;
        let whole = if self.has_unread_body { config.message_timeout } else { wait };
        match slot {
            Some(slot) if self.has_unread_body || !reading.is_zero() => {
                let waits = Waits { without_slot: wait, stall: wait, whole };
                let patience = Patience::new(hub, waits, Some(slot));
                discard(hub, transport, patience).await
            }
            _ => lingering_close(hub, transport, b"", false).await,
        }
    }
}

/// Ends a connection whose peer does not read its last response.
fn lost<T: Transport>(transport: &mut T, error: &io::Error) {
    log::debug!("a response may not have reached its peer: {error}");
    transport.abort();
}

/// The time in which a slow peer reads what a stream may still hold of a response of `len` bytes:
/// each KiB takes half a second. A buffer of the kernel is at most 64 KiB, so that this is at most
/// 32 s. A short response has none.
fn reading_time(len: usize) -> Duration {
    const LEN_MAX: usize = 64 * 1024;
    Duration::from_millis(500) * (len.min(LEN_MAX) / 1024) as u32
}

/// Shuts the write side down, and reads to the end of the stream, at most [`DISCARD_MAX`] bytes.
///
/// Many clients read a response only when they have sent all of their body. A socket that is closed
/// before has unread bytes, and resets the connection: they would see that instead of the status.
///
/// While that takes, the connection has a slot as for a body that is read. Without it, which a new
/// client may need, it still has the time that is granted without progress.
async fn discard<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    mut patience: Patience<'_, '_, '_>,
) -> io::Result<()> {
    poll_fn(|cx| match Pin::new(&mut *transport).poll_close(cx) {
        Poll::Pending => patience.poll_over(cx).map(|()| timed_out()),
        closed => closed,
    })
    .await?;
    let mut discarded = 0;
    while discarded < DISCARD_MAX {
        let read = poll_fn(|cx| match poll_discard(hub, transport, cx) {
            Poll::Pending => patience.poll_over(cx).map(|()| timed_out()),
            read => read,
        });
        match read.await? {
            0 => return Ok(()),
            n => discarded += n,
        }
        patience.renew();
        // A body that comes as fast as it is read keeps no other connection waiting.
        yield_now().await;
    }
    Err(io::Error::other("the body is too long to be read to its end"))
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use fastrand::Rng;
    use futures_lite::future::block_on;

    use super::*;
    use crate::config::Config;
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    /// Its host holds what it reads meanwhile, and takes nothing more.
    #[test]
    fn a_slow_reader_has_several_write_timeouts_for_what_its_host_holds() {
        let time = VirtualTime::start();
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        for (has_slot, timeouts) in [(true, STALLS), (false, 1)] {
            let permit = block_on(hub.shared().admissions.handshake());
            let mut slot = Slot::new(&hub, permit);
            let slot = has_slot.then_some(&mut slot);
            let line = Line::new(4, usize::MAX, Rng::with_seed(1));
            let mut socket = Socket::new(&line, true);
            let mut writing = pin!(write_response(&hub, &mut socket, b"response", slot));
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(writing.as_mut().poll(cx).is_pending());
            for _ in 1..timeouts {
                time.advance(Config::WRITE_TIMEOUT);
                assert!(writing.as_mut().poll(cx).is_pending(), "it may read on");
            }
            time.advance(Config::WRITE_TIMEOUT);
            let Poll::Ready(written) = writing.as_mut().poll(cx) else { panic!("it does not end") };
            assert_eq!(written.expect_err("late").kind(), io::ErrorKind::TimedOut);
        }
    }
}
