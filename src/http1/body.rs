//! Reading the body of a request.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use futures_lite::io::AsyncWriteExt as _;

use crate::http1::response::{request_timeout, short_of_memory};
use crate::http1::slot::Slot;
use crate::http1::stream::{Failure, HttpStream};
use crate::memory::budget::allocation;
use crate::net::stream::Transport;
use crate::time::clock::now;

impl<T: Transport> HttpStream<'_, T> {
    /// Reads a body of `len` bytes, which then are the first of the buffer.
    ///
    /// A body may be slow as long as it makes progress. It is late if no byte comes for the time of a
    /// handshake, or if it is not whole in the time that any message has
    /// ([`Config::message_timeout`](crate::Config#structfield.message_timeout), 30 s). Its slot among
    /// the handshakes it keeps no longer than a handshake may: a peer that trickles bytes keeps no
    /// other out.
    pub(crate) async fn read_body(
        &mut self,
        len: usize,
        expects_continue: bool,
        slot: &mut Slot<'_>,
    ) -> Result<(), Failure> {
        if self.hub.memory().is_high() {
            // A request is refused rather than delayed, so the manager is asked for an eviction at
            // once. A newcomer never causes one.
            self.hub.memory().set_time(now());
            self.hub.want_eviction();
            return Err(short_of_memory().into());
        }
        // All of it at once, so that it can come when memory is short; the buffer doubles.
        self.charge.resize(allocation(self.buffer.capacity().max(2 * len)));
        // A body that has begun to come needs no asking for it (RFC 9110 10.1.1).
        if expects_continue && self.buffer.is_empty() && len > 0 {
            slot.within(async {
                self.transport.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                self.transport.flush().await
            })
            .await
            .ok_or_else(request_timeout)??;
        }
        let shared = self.hub.shared();
        let (timers, patience) = (&shared.timers, shared.config.handshake_timeout);
        let last = timers.tick_of(now() + shared.config.message_timeout.max(patience));
        let mut progress = timers.after(patience);
        while self.buffer.len() < len {
            let rest = len - self.buffer.len();
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.poll_fill(cx, rest) {
                    return Poll::Ready(Some(read));
                }
                let is_over = Pin::new(&mut progress).poll(cx).is_ready();
                if is_over || slot.poll_lost(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            });
            if read.await.ok_or_else(request_timeout)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let next = timers.tick_of(now() + patience);
            progress.set(if next.is_before(last) { next } else { last });
        }
        Ok(())
    }
}
