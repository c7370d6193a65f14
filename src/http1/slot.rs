//! What lets a request be under way, and for how long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::hub::handle::Hub;
use crate::limits::admission::{HandshakePermit, KeepAlivePermit};
use crate::time::timers::Deadline;

/// A slot among the handshakes, with the deadline of a handshake.
///
/// What makes a client of a connection, the head of any request and the hooks run inside of it. Only
/// a body and a response may take longer, and then without the permit: see
/// [`poll_lost`](Self::poll_lost).
pub(crate) struct Slot<'a> {
    hub: &'a Hub,
    pub(crate) permit: Option<HandshakePermit>,
    /// The idle permit of a connection whose body or response takes longer than a handshake may, or that
    /// stays for its next request.
    pub(crate) keep_alive: Option<KeepAlivePermit>,
    pub(crate) deadline: Deadline<'a>,
}

impl<'a> Slot<'a> {
    /// A slot from now on.
    pub(crate) fn new(hub: &'a Hub, permit: HandshakePermit) -> Self {
        let deadline = hub.shared().timers.after(hub.shared().config.handshake_timeout);
        Self { hub, permit: Some(permit), keep_alive: None, deadline }
    }

    /// Runs a future to its end or to the deadline; `None` if that is earlier.
    pub(crate) fn within<F: Future>(
        &mut self,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> {
        self.deadline.within(future)
    }

    /// Whether the permit was given after the drain had begun.
    pub(crate) fn is_late(&self) -> bool {
        self.permit.as_ref().is_none_or(HandshakePermit::is_late)
    }

    /// Takes an idle permit, for the time behind the request; `false` if clients need them all.
    pub(crate) fn takes_idle_permit(&mut self) -> bool {
        self.keep_alive = self.keep_alive.take().or_else(|| self.hub.shared().admissions.idle());
        self.keep_alive.is_some()
    }

    /// Gives both permits back: the request has that of a client, and lasts as long as it may.
    pub(crate) fn release(&mut self) {
        (self.permit, self.keep_alive) = (None, None);
    }

    /// Ready once a request that is still under way has to end. Past the deadline it gives the permit
    /// back and stays for as long as it has an idle permit.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.permit.is_some() {
            ready!(Pin::new(&mut self.deadline).poll(cx));
            self.permit = None;
            // A connection that stays for its next request has an idle permit already.
            self.takes_idle_permit();
        }
        let Some(permit) = &mut self.keep_alive else { return Poll::Ready(()) };
        ready!(permit.poll_leave(cx));
        // Given back, and not polled again: its future has ended.
        self.keep_alive = None;
        Poll::Ready(())
    }
}
