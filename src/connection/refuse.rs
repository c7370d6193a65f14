//! Responses that refuse a request, and the end of a connection behind its last response.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use futures_lite::future::yield_now;
use futures_lite::io::AsyncWriteExt as _;

use crate::connection::linger::{DISCARD_MAX, lingering_close, poll_discard, timed_out};
use crate::http1::response::Response;
use crate::http1::slot::Slot;
use crate::hub::handle::Hub;
use crate::net::stream::Transport;
use crate::peer::Peer;
use crate::stats::{RefusalReason, Requested, add};
use crate::time::clock::now;

/// Counts a response that refuses what was asked, and logs it: each one at the level DEBUG, and once
/// at WARN if a flag would allow it.
pub(crate) fn count_refusal(
    hub: &Hub,
    requested: Requested,
    client_address: &Peer,
    response: &Response,
) {
    let status = response.status;
    if !response.is_of_program() && (status.is_client_error() || status.is_server_error()) {
        hub.shared().counters.refuse(requested, RefusalReason::of(status));
        log::debug!("{client_address} refused: {} {}", status.as_u16(), response.body);
        if let Some(sentence) = &response.warning {
            hub.shared().refusals.warn(sentence);
        }
    }
}

/// Writes a response under the write timeout.
pub(crate) async fn write_response<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    bytes: &[u8],
) -> io::Result<()> {
    let shared = hub.shared();
    add(&shared.counters.bytes_sent, bytes.len() as u64);
    let written = async {
        transport.write_all(bytes).await?;
        transport.flush().await
    };
    let mut deadline = shared.timers.after(shared.config.write_timeout);
    deadline.within(written).await.unwrap_or_else(timed_out)
}

/// Ends a connection whose last response was `written`, or could not be. `body` is the slot of a
/// request whose peer may still send a body.
pub(crate) async fn end_after_response<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    written: io::Result<()>,
    body: Option<&mut Slot<'_>>,
) {
    let ended = match (written, body) {
        (Ok(()), Some(slot)) => discard_body(hub, transport, slot).await,
        (Ok(()), None) => lingering_close(hub, transport, b"", false).await,
        (error, _) => error,
    };
    if let Err(error) = ended {
        log::debug!("a response may not have reached its peer: {error}");
        transport.abort();
    }
}

/// Shuts the write side down, and reads to the end of the stream, at most [`DISCARD_MAX`] bytes.
///
/// Many clients read a response only when they have sent all of their body. A socket that is closed
/// before has unread bytes, and resets the connection: they would see that instead of the status.
///
/// The peer has the close timeout to make progress and the time of a message in all, and a slot as
/// for a body that is read. Without its slot, which a new client may need, the connection still has
/// the close timeout, as any that has written its last response.
async fn discard_body<T: Transport>(
    hub: &Hub,
    transport: &mut T,
    slot: &mut Slot<'_>,
) -> io::Result<()> {
    transport.close().await?;
    let shared = hub.shared();
    let (timers, patience) = (&shared.timers, shared.config.close_timeout);
    let begin = now();
    let mut last = timers.tick_of(begin + shared.config.message_timeout.max(patience));
    let mut progress = timers.after(patience);
    let mut has_slot = true;
    let mut discarded = 0;
    while discarded < DISCARD_MAX {
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = poll_discard(hub, transport, cx) {
                return Poll::Ready(read);
            }
            if has_slot && slot.poll_lost(cx).is_ready() {
                has_slot = false;
                last = timers.tick_of(begin + patience);
                progress.set(last);
            }
            Pin::new(&mut progress).poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        });
        match read.await? {
            0 => return Ok(()),
            n => discarded += n,
        }
        let next = timers.tick_of(now() + patience);
        progress.set(if next.is_before(last) { next } else { last });
        // A body that comes as fast as it is read keeps no other connection waiting.
        yield_now().await;
    }
    Err(io::Error::other("the body is too long to be read to its end"))
}
