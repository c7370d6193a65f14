//! What the peer of a stream of events sends behind its request, for which there is no use.

use std::task::{Context, Poll, ready};

use crate::connection::linger::poll_discard;
use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::net::stream::Transport;

/// Bytes that a peer may send behind its request.
const DISCARD_MAX: usize = 64 * 1024;

/// Bytes that came from a peer and were thrown away.
#[derive(Debug, Default)]
pub(crate) struct Discarded(usize);

impl Discarded {
    /// Throws away what the peer sends; ready with a reason when it has left, or sends too much.
    pub(crate) fn poll_end<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
        transport: &mut T,
    ) -> Poll<Disconnect> {
        loop {
            ready!(transport.poll_readable(cx));
            match ready!(poll_discard(hub, transport, cx)) {
                Ok(n) if n > 0 => {
                    self.0 += n;
                    if self.0 > DISCARD_MAX {
                        let reason = "the peer sends too many bytes behind its request";
                        return Poll::Ready(Disconnect::new(Disconnect::POLICY.code(), reason));
                    }
                }
                _ => return Poll::Ready(Disconnect::ABNORMAL),
            }
        }
    }
}
