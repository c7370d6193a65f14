//! The end of a client's connection: the manager lets go of the client, and its peer is told, or cut
//! off.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::thread;

use futures_lite::FutureExt as _;

use crate::connection::handler::Handler;
use crate::connection::linger::lingering_close;
use crate::connection::outgoing::Outgoing;
use crate::connection::read_pause::ReadPause;
use crate::connection::registration::Registered;
use crate::connection::timeouts::Due;
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::queue_outcome::Drained;
use crate::hub::queue_state::Phase;
use crate::net::stream::Transport;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The connection ends itself, with this: the peer's mistake, the handler's wish, or a close
    /// frame with more behind it.
    Ours(Disconnect),
    /// The peer ends it, with a close frame and nothing behind that.
    Theirs(Disconnect),
    /// The manager closed the queue: a kick or a drain.
    Closing,
    /// The queue overflowed, or the stream took nothing in time.
    Evicted,
    /// The peer is gone: nothing can be said to it.
    Lost(Disconnect),
}

impl End {
    /// What the outcome of a hook asks for: to go on, or an end; of a panic it is always an end.
    pub(crate) fn of_hook(outcome: thread::Result<Result<(), Disconnect>>) -> Result<(), Self> {
        match outcome {
            Ok(outcome) => outcome.map_err(Self::Ours),
            Err(_) => Err(Self::Ours(Disconnect::INTERNAL)),
        }
    }

    /// The end that a queue in `phase` asks for; pending while it asks for none.
    pub(crate) fn of(phase: Phase) -> Poll<Self> {
        match phase {
            Phase::Handshaking | Phase::Open => Poll::Pending,
            Phase::Closing => Poll::Ready(Self::Closing),
            Phase::Evicted => Poll::Ready(Self::Evicted),
            Phase::Dead => Poll::Ready(Self::Lost(Disconnect::ABNORMAL)),
        }
    }
}

/// What the end of a connection needs of it.
pub(crate) trait Ending<'a> {
    type Stream: Transport;

    fn parts(&mut self) -> (&'a Hub, &mut Self::Stream, &mut Outgoing<'a>);

    /// Drains the queue into the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Drained;

    /// Writes and keeps time, while the manager lets go of the client. Ready only with an end.
    fn poll_until_closed(&mut self, cx: &mut Context<'_>) -> Poll<End>;

    /// Appends the last words: what tells the peer the reason.
    fn push_close(&mut self, reason: &Disconnect);

    /// Whether the connection may close without waiting for the end of its peer.
    fn may_close_now(&self, _closed_first: bool) -> bool {
        false
    }
}

/// Has the manager let go of the client, and ends its connection as `end` asks for; returns why it
/// ended.
// Not an `async fn`: only here, where the connection is generic, the compiler sees that it is
// `Send`.
#[expect(clippy::manual_async_fn, reason = "it has to be `Send`")]
pub(crate) fn finish<'a: 'c, 'c, C: Ending<'a> + Send>(
    connection: &'c mut C,
    end: End,
    client: &'c Client,
) -> impl Future<Output = Disconnect> + Send + 'c {
    async move {
        let end = unregister(connection, end, client).await;
        close(connection, end).await
    }
}

/// Ends a connection as `end` asks for; returns why it ended.
///
/// What waits is written under the write timeout, then the last words. Behind them the close
/// lingers. A peer that takes nothing in time is evicted.
pub(crate) async fn close<'a, C: Ending<'a>>(connection: &mut C, end: End) -> Disconnect {
    let (reason, closed_first) = match end {
        End::Ours(reason) => (reason, false),
        End::Theirs(reason) => (reason, true),
        End::Closing => (queue_reason(connection, Disconnect::GOING_AWAY), false),
        End::Evicted => return cut_off(connection),
        End::Lost(reason) => return abort(connection, reason),
    };
    let mut phase = poll_fn(|cx| poll_write_out(connection, cx)).await;
    if !matches!(phase, Phase::Evicted | Phase::Dead) {
        connection.push_close(&reason);
        phase = poll_fn(|cx| poll_write_out(connection, cx)).await;
    }
    match phase {
        Phase::Evicted => return cut_off(connection),
        // That the stream fails on the way does not change the reason (RFC 6455 7.1.5).
        Phase::Dead => return abort(connection, reason),
        Phase::Handshaking | Phase::Open | Phase::Closing => {}
    }
    let may_close_now = connection.may_close_now(closed_first);
    let (hub, stream, _) = connection.parts();
    if let Err(error) = lingering_close(hub, stream, b"", may_close_now).await {
        log::debug!("a peer did not end its stream: {error}");
        stream.abort();
    }
    reason
}

/// Where the connection ends itself, tells the manager, in the order of the client's own messages,
/// and waits until it has let the client go, so that what the client sent before still comes back
/// before the last words. Returns how the connection ends after that.
async fn unregister<'a, C: Ending<'a>>(connection: &mut C, end: End, client: &Client) -> End {
    let (End::Ours(reason) | End::Theirs(reason)) = &end else { return end };
    let (hub, ..) = connection.parts();
    let command = Command::Disconnect { id: client.id(), reason: reason.clone(), reply: None };
    let mut sending = pin!(hub.send_command(command));
    let ended = poll_fn(|cx| {
        // Sent or not, the queue is closed: by the manager, or with it where it has ended.
        let _ = sending.as_mut().poll(cx);
        connection.poll_until_closed(cx)
    });
    match ended.await {
        End::Closing => end,
        End::Lost(_) => End::Lost(reason.clone()),
        ended => ended,
    }
}

/// Writes what waits, under the write timeout. Ready when it is written, and where it cannot be: the
/// queue is evicted or dead.
fn poll_write_out<'a, C: Ending<'a>>(connection: &mut C, cx: &mut Context<'_>) -> Poll<Phase> {
    loop {
        let drained = connection.poll_drain(cx);
        if drained.empty || matches!(drained.phase, Phase::Evicted | Phase::Dead) {
            return Poll::Ready(drained.phase);
        }
        let (hub, _, outgoing) = connection.parts();
        match ready!(outgoing.timeouts.poll(
            cx,
            &hub.shared().config,
            Some(ReadPause::End),
            (None, None)
        )) {
            Due::WriteTimeout => outgoing.queue().evict(),
            // A peer that is being told of its end is not pinged.
            _ => outgoing.timeouts.heard(),
        }
    }
}

/// Ends an evicted connection: one try at the last words, without waiting.
fn cut_off<'a, C: Ending<'a>>(connection: &mut C) -> Disconnect {
    let reason = queue_reason(connection, Disconnect::SLOW);
    connection.push_close(&reason);
    connection.poll_drain(&mut Context::from_waker(Waker::noop()));
    abort(connection, reason)
}

fn abort<'a, C: Ending<'a>>(connection: &mut C, reason: Disconnect) -> Disconnect {
    connection.parts().1.abort();
    reason
}

/// Why the queue was closed or evicted.
fn queue_reason<'a, C: Ending<'a>>(connection: &mut C, unless_known: Disconnect) -> Disconnect {
    connection.parts().2.queue().reason().unwrap_or(unless_known)
}

/// The last step of a client whose stream is closed: leaves the registry, and lets the handler know.
pub(crate) async fn depart<H: Handler>(
    registered: Registered,
    client: &Client,
    reason: &Disconnect,
    handler: &H,
) {
    let rooms = registered.leave(client.id(), reason).await;
    drop(registered);
    let client = client.departed(rooms);
    let hook = async { handler.on_disconnect(&client, reason).await };
    if AssertUnwindSafe(hook).catch_unwind().await.is_err() {
        log::error!("on_disconnect panicked for client {}", client.id());
    }
}
