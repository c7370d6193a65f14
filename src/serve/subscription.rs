//! A client without a peer: the embedding program subscribes to rooms.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;

use crate::connection::admission::Admission;
use crate::connection::registration;
use crate::connection::registration::{Admitted, ClientKind, Registered};
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::hub::backlog::Taken;
use crate::hub::client::Client;
use crate::hub::detached::Detached;
use crate::hub::handle::Hub;
use crate::limits::admission::ConnectionGuard;
use crate::message::Message;

/// A client that is the program itself. [`next`](Subscription::next) returns the messages of its
/// rooms.
///
/// It is a client like any other: a member of its rooms, with a queue of the same bounds and the
/// same overflow policy if it does not keep up. What it publishes through its
/// [`client`](Subscription::client) reaches all other members. Dropping it disconnects it.
///
/// # Examples
///
/// ```
/// use hublet::{Admission, Config, Hub};
///
/// # smol::block_on(async {
/// let (hub, manager) = Hub::new(Config::default()).expect("the defaults are valid");
/// let manager = smol::spawn(manager);
///
/// let admission = Admission::anonymous().room("news");
/// let mut news = hub.subscribe(admission).await.expect("there is room");
/// assert_eq!(hub.publish("news", "hello").await.expect("the hub runs"), 1);
/// assert_eq!(hub.publish("sports", "goal").await.expect("the hub runs"), 0);
/// assert_eq!(news.next().await.expect("connected").as_text(), Some("hello"));
///
/// // The room has no other member.
/// assert_eq!(news.client().publish("news", "to the others").await.expect("the hub runs"), 0);
///
/// let kick = hublet::Disconnect::new(4000, "enough");
/// hub.disconnect(news.client().id(), kick.clone()).await.expect("it is connected");
/// assert_eq!(news.next().await.expect_err("it was disconnected"), kick);
/// # drop((news, hub));
/// # manager.await;
/// # });
/// ```
#[doc(alias = "Subscriber")]
#[doc(alias = "Receiver")]
pub struct Subscription {
    /// The queue and the entry in the registry, which ends when this is dropped.
    registered: Registered,
    client: Client,
    /// The position of the last message that was taken, if it came with `since`.
    position: Option<u64>,
    /// The room of that message.
    room: Option<Arc<str>>,
    /// Counts this as a connection, so that a drain waits until the program has taken its messages.
    _counted: ConnectionGuard,
    /// Counts this as a connection that no process takes over.
    _detached: Detached,
}

impl Hub {
    /// Makes this program a client of the hub, with the user and the rooms of `admission`.
    ///
    /// No hook runs, and a subprotocol has no effect. The subscription counts as a client, and
    /// [`drain`](Self::drain) waits until it is dropped, as it waits for every client.
    ///
    /// # Errors
    ///
    /// An error with the [`status`](Error::status) that a peer would get, if the limit on clients
    /// or rooms is reached or a name is not allowed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, no client is left.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default().max_clients(Some(1)))?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// assert_eq!(hub.presence("news").await?[0].id, ada.client().id());
    ///
    /// // This hub allows one client.
    /// let error = hub.subscribe(Admission::anonymous()).await.expect_err("the limit is reached");
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(503));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn subscribe(&self, admission: Admission) -> Result<Subscription, Error> {
        let counted = self.shared().admissions.connection();
        let detached = Detached::new(self);
        let admitting = registration::admit(self, admission, ClientKind::Subscription);
        let Admitted { registered, client, begin, .. } = admitting.await?;
        registered.queue.open(None);
        let (position, room) = (begin.map(|begin| begin.position), None);
        let (_counted, _detached) = (counted, detached);
        Ok(Subscription { registered, client, position, room, _counted, _detached })
    }
}

impl Subscription {
    /// Waits for the next message.
    ///
    /// Cancel safety: dropped early, no message is lost.
    ///
    /// # Errors
    ///
    /// The reason of the disconnect, after the last queued message: that of [`Hub::disconnect`] or
    /// [`Hub::drain`], 4108 if the program was too slow, 1001 if the hub has ended. Each later call
    /// returns the same.
    pub async fn next(&mut self) -> Result<Message, Disconnect> {
        poll_fn(|cx| self.poll_take(cx)).await
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Disconnect>> {
        let queue = &self.registered.queue;
        let taken = queue.poll_take(cx);
        if let Some(id) = queue.take_request() {
            self.client.hub().request_more(id);
        }
        let Taken { message, position, room } = ready!(taken)?;
        self.position = position.or(self.position);
        self.room = room;
        Poll::Ready(Ok(message))
    }

    /// Returns the room of the last message that [`next`](Self::next) has returned; `None` before the
    /// first one, and for a message that was for no room: for all clients, a user or this client.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Config, Hub};
    ///
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut both = hub.subscribe(Admission::anonymous().room("news").room("sports")).await?;
    /// hub.publish("sports", "goal").await?;
    /// assert_eq!(both.next().await.expect("connected").as_text(), Some("goal"));
    /// assert_eq!(both.room(), Some("sports"));
    ///
    /// hub.broadcast("to all").await?;
    /// assert_eq!(both.next().await.expect("connected").as_text(), Some("to all"));
    /// assert_eq!(both.room(), None);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        self.room.as_deref()
    }

    /// Returns the position of the last message of the room that [`next`](Self::next) has returned,
    /// if the subscription came with [`since`](Admission::since).
    ///
    /// Before the first message it is the position before that. Each message is one more than the one
    /// before it; any other number is a gap. [`Admission::since`] has an example.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// Returns the client: its id, and the verbs that reach all other clients.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns how many messages the overflow policy has dropped.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.registered.queue.missed()
    }
}

/// The messages of the subscription, for the combinators of futures crates. The stream ends with the
/// client; [`next`](Subscription::next) says why. Each message counts as delivered when it is taken.
///
/// # Examples
///
/// ```
/// use futures_lite::StreamExt;
/// use hublet::{Admission, Config, Disconnect, Hub};
///
/// # smol::block_on(async {
/// # let (hub, manager) = Hub::new(Config::default())?;
/// # smol::spawn(manager).detach();
/// let news = hub.subscribe(Admission::anonymous().room("news")).await?;
/// hub.publish("news", "one").await?;
/// hub.publish("news", "two").await?;
/// hub.disconnect(news.client().id(), Disconnect::NORMAL).await?;
/// let texts = news.filter_map(|news| news.as_text().map(str::to_owned));
/// let texts: Vec<_> = texts.collect().await;
/// assert_eq!(texts, ["one", "two"]);
/// # Ok::<_, hublet::Error>(())
/// # }).expect("it works");
/// ```
impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_take(cx).map(Result::ok)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("client", &self.client).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::config::Config;

    #[test]
    fn drain_waits_until_queued_messages_were_taken() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let _manager = executor.spawn(manager);
        block_on(executor.run(async {
            let lobby = Admission::user("ada").room("lobby");
            let mut subscription = hub.subscribe(lobby).await.expect("a permit");
            let member = &hub.presence("lobby").await.expect("it runs")[0];
            assert_eq!((member.id, member.waiting_bytes), (subscription.client().id(), 0));
            assert_eq!(hub.publish("lobby", "last words").await.expect("it runs"), 1);
            let member = &hub.presence("lobby").await.expect("it runs")[0];
            assert_eq!((member.waiting, member.waiting_bytes), (1, 2 + 10));
            let mut drain = Box::pin(hub.drain(Disconnect::RESTART));
            while hub.stats().clients > 0 {
                assert!(poll_once(&mut drain).await.is_none(), "a client is still here");
                futures_lite::future::yield_now().await;
            }
            assert_eq!(subscription.next().await, Ok("last words".into()));
            assert_eq!(subscription.next().await, Err(Disconnect::RESTART));
            assert!(poll_once(&mut drain).await.is_none(), "a connection is still here");
            drop(subscription);
            drain.await;
        }));
    }
    #[test]
    fn dropped_subscription_is_no_client_any_more() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default().max_clients(Some(1))).expect("valid");
        let _manager = executor.spawn(manager);
        block_on(executor.run(async {
            let first = hub.subscribe(Admission::anonymous()).await.expect("a permit");
            let refused = hub.subscribe(Admission::anonymous()).await.expect_err("no permit");
            assert_eq!(refused.status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
            drop(first);
            hub.subscribe(Admission::anonymous()).await.expect("the permit is free again");
            // By the answer to this, the manager has removed the client.
            hub.publish("empty", "message").await.expect("it runs");
            assert_eq!((hub.stats().clients, hub.stats().connections), (0, 0));
        }));
    }
}
