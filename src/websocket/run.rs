//! A client after its handshake, in one task: its messages go to the handler, until something ends it.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_lite::FutureExt as _;

use crate::connection::end::{End, depart, finish};
use crate::connection::handler::Handler;
use crate::connection::park::{Details, park_client};
use crate::connection::read_pause::ReadPause;
use crate::connection::registration::Admitted;
use crate::disconnect::Disconnect;
use crate::frame::{TEXT, header};
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::net::stream::Transport;
use crate::stats::add;
use crate::websocket::connection::{Connection, READ_BUDGET};

/// Runs a client from its 101 to its end; returns why it ended. `early` came behind its request.
///
/// By hand, as [`Connection::serve`] is: an `async fn` keeps its arguments beside what becomes of them,
/// which are 128 bytes for each client here and 24 there.
pub(crate) fn run<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    admitted: Admitted,
    early: Vec<u8>,
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    let (connection, client) = open(hub, transport, admitted, early);
    run_open(connection, client, handler)
}

/// Runs a client that another process had, to its end; `idle` is for how long its peer has said
/// nothing.
pub(crate) fn resume<'a, T: Transport + 'a, H: Handler>(
    hub: &'a Hub,
    transport: T,
    admitted: Admitted,
    idle: Duration,
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    let (mut connection, client) = open(hub, transport, admitted, Vec::new());
    connection.outgoing.timeouts.heard_before(idle);
    run_open(connection, client, handler)
}

/// Makes the connection of a client, and opens its queue.
pub(crate) fn open<T: Transport>(
    hub: &Hub,
    transport: T,
    admitted: Admitted,
    early: Vec<u8>,
) -> (Box<Connection<'_, T>>, Client) {
    let Admitted { registered, client, begin, inflates, rate, max_message } = admitted;
    if let Some(begin) = begin {
        // Before all messages: none is written before the queue is opened, and control frames go first.
        let position = begin.position.to_string();
        registered
            .queue
            .push_control(&[&header(TEXT, position.len()), position.as_bytes()].concat());
    }
    let mut connection = Connection::new(hub, transport, registered, early, inflates);
    connection.set_rate(rate);
    connection.set_max_message(max_message);
    (connection, client)
}

/// Runs a client whose queue is open, to its end.
#[expect(clippy::manual_async_fn, reason = "as run says")]
pub(crate) fn run_open<'a, T: Transport + 'a, H: Handler>(
    mut connection: Box<Connection<'a, T>>,
    client: Client,
    handler: &'a H,
) -> impl Future<Output = Disconnect> + Send {
    async move {
        let end = connection.serve(&client, handler).await;
        connection.stop_reading();
        // Boxed, so that the long life before has no room for the end.
        Box::pin(async {
            let reason = finish(&mut *connection, end, &client).await;
            // The socket is closed with the queue, which may write through it, before the hook.
            let registered = connection.into_registered();
            depart(registered, &client, &reason, handler).await;
            reason
        })
        .await
    }
}

impl<T: Transport> Connection<'_, T> {
    /// Hands messages to the handler until something ends the connection.
    #[expect(clippy::manual_async_fn, reason = "as run says")]
    fn serve<H: Handler>(
        &mut self,
        client: &Client,
        handler: &H,
    ) -> impl Future<Output = End> + Send {
        async move {
            {
                let hook = pin!(async { handler.on_connect(client).await });
                if let Err(end) = self.run_hook(hook).await {
                    return end;
                }
            }
            loop {
                // What is matched around an await stays in the future.
                let message = match poll_fn(|cx| self.poll_next(cx)).await {
                    Ok(message) => message,
                    Err(end) => return end,
                };
                let Some(message) = message else {
                    // Boxed, since it is rare.
                    if let Err(end) = Box::pin(self.stand_still(client, handler)).await {
                        return end;
                    }
                    continue;
                };
                add(&self.hub.shared().counters.messages_received, 1);
                if self.rare.is_some() {
                    self.count_rate(message.len());
                }
                let hook = pin!(async { handler.on_message(client, message).await });
                if let Err(end) = self.run_hook(hook).await {
                    return end;
                }
            }
        }
    }

    /// Runs a hook while the client is written to and kept alive; only reading waits for it.
    fn run_hook<F: Future<Output = Result<(), Disconnect>>>(
        &mut self,
        hook: Pin<&mut F>,
    ) -> impl Future<Output = Result<(), End>> {
        let mut hook = AssertUnwindSafe(hook).catch_unwind();
        poll_fn(move |cx| {
            if let Poll::Ready(outcome) = Pin::new(&mut hook).poll(cx) {
                self.resume_reading();
                return Poll::Ready(End::of_hook(outcome));
            }
            self.pause = Some(ReadPause::Hook);
            self.end_poll();
            self.read_budget = READ_BUDGET;
            self.poll_write_and_timeouts(cx).map(Err)
        })
    }

    /// Says that the connection is clean, and does not read while the hub is held. It still writes.
    async fn stand_still<H: Handler>(&mut self, client: &Client, handler: &H) -> Result<(), End> {
        let idle = self.outgoing.timeouts.idle();
        let socket = self.reader.transport.handle();
        let _parked = park_client(socket.as_ref(), client, handler, Details { idle, events: None });
        self.pause = Some(ReadPause::HandOver);
        let ended = poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_write_and_timeouts(cx) {
                return Poll::Ready(Err(end));
            }
            if self.hub.shared().holding.is_held() { Poll::Pending } else { Poll::Ready(Ok(())) }
        });
        ended.await?;
        self.resume_reading();
        Ok(())
    }
}
