//! The verbs that publish a message: to a room, a user, a client or all.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::hub::ack::{Ack, Acking, Acknowledged, WAIT_MAX};
use crate::hub::backplane::Link;
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::{Acked, Carry, Command, Dispatched, Publish, PublishReply};
use crate::hub::handle::Hub;
use crate::hub::reply::{Answer, Reply, reply};
use crate::message::Message;
use crate::name::is_name;

impl Hub {
    /// Sends a message to every client; returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::is_too_long`], or [`Error::is_closed`] once the hub has ended; the message comes
    /// back with [`Error::into_message`]. If the hub ended with the message in its inbox it does
    /// not come back: it may have been sent or not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// let mut bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// assert_eq!(hub.broadcast("hello").await?, 2);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("hello"));
    /// assert_eq!(bob.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // A message over the limit comes back.
    /// let long = "x".repeat(Config::MAX_MESSAGE + 1);
    /// let error = hub.broadcast(long.as_str()).await.expect_err("too long");
    /// assert!(error.is_too_long());
    /// assert_eq!(error.into_message(), Some(long.into()));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "emit")]
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::All, message.into())).await
    }

    /// Sends a message to every client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// hub.try_broadcast(vec![1, 2, 3])?;
    /// assert_eq!(ada.next().await.expect("connected").as_bytes(), [1, 2, 3]);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_broadcast(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::All, message.into()))
    }

    /// Sends a message to every client in a room; returns how many. An empty room is no error.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), and [`Error::is_name`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // An empty room is no error, and a name that no room can have is refused.
    /// assert_eq!(hub.publish("sports", "hello").await?, 0);
    /// assert!(hub.publish("", "hello").await.expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "emit")]
    #[doc(alias = "topic")]
    #[doc(alias = "channel")]
    #[doc(alias = "group")]
    pub async fn publish(&self, room: &str, message: impl Into<Message>) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::Room(room.into()), message.into())).await
    }

    /// Sends a message to every client in a room, and waits until it has left for all of them: counts
    /// how many the kernel has taken it for.
    ///
    /// The wait begins when the message is dispatched. It ends when every recipient has got the
    /// message or is lost, or after `wait`, of at most 60 s: a longer one counts as 60 s. What is
    /// still on its way then counts as late, and is delivered all the same.
    ///
    /// "Delivered" says that the kernel has the last byte, not that the peer has read it. With
    /// [`Config::redis`](crate::Config#structfield.redis) the clients of this hub count.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the message is sent or not, and nothing is counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// # use hublet::{Admission, Config, Hub};
    ///
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// // This program takes its messages itself, and does not take this one in time.
    /// let told = hub.publish_acked("news", "hello", Duration::from_millis(1)).await?;
    /// assert_eq!((told.recipients, told.delivered, told.late, told.lost), (1, 0, 1, 0));
    ///
    /// drop(ada);
    /// let told = hub.publish_acked("news", "hello", Duration::from_secs(1)).await?;
    /// assert_eq!(told.recipients, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn publish_acked(
        &self,
        room: &str,
        message: impl Into<Message>,
        wait: Duration,
    ) -> Result<Acknowledged, Error> {
        let publish = Publish::by_hub(Target::Room(room.into()), message.into());
        // Boxed, so that what is rare takes no room in a caller's future.
        Box::pin(self.acknowledge(publish, wait)).await
    }

    /// Sends a message to every client in a room if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast), [`Error::is_name`] and [`Error::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Config, Hub};
    ///
    /// let (hub, _manager) = Hub::new(Config::default().inbox(1)).expect("valid");
    /// assert!(hub.try_publish("main", "first").is_ok());
    ///
    /// // The manager does not run, so the inbox stays full; the message comes back.
    /// let error = hub.try_publish("main", "second").expect_err("no room");
    /// assert!(error.is_full());
    /// assert_eq!(error.into_message(), Some("second".into()));
    /// ```
    pub fn try_publish(&self, room: &str, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::Room(room.into()), message.into()))
    }

    /// Sends a message to one client; returns 1, or 0 if it is not connected (any more).
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast); [`Error::is_one_room`] if the client counts the messages of
    /// its room.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// let id = ada.client().id();
    /// assert_eq!(hub.send(id, "only for you").await?, 1);
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("only for you"));
    ///
    /// hub.disconnect(id, Disconnect::NORMAL).await?;
    /// assert_eq!(hub.send(id, "gone").await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn send(
        &self,
        client: ClientId,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::Client(client), message.into())).await
    }

    /// Sends a message to one client if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`try_broadcast`](Self::try_broadcast). A client that is not connected is no error, nor is
    /// one that counts the messages of its room, which does not get it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// hub.try_send(ada.client().id(), "only for you")?;
    /// assert_eq!(ada.next().await.expect("connected"), Message::from("only for you"));
    ///
    /// // A message over the limit comes back.
    /// let long = "x".repeat(Config::MAX_MESSAGE + 1);
    /// let error = hub.try_send(ada.client().id(), long.as_str()).expect_err("too long");
    /// assert_eq!(error.into_message(), Some(long.into()));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_send(&self, client: ClientId, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::Client(client), message.into()))
    }

    /// Sends a message to every client of a user; returns how many.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut phone = hub.subscribe(Admission::user("ada")).await?;
    /// let mut laptop = hub.subscribe(Admission::user("ada")).await?;
    /// assert_eq!(hub.send_to_user("ada", "hello").await?, 2);
    /// assert_eq!(phone.next().await.expect("connected"), Message::from("hello"));
    /// assert_eq!(laptop.next().await.expect("connected"), Message::from("hello"));
    ///
    /// assert_eq!(hub.send_to_user("bob", "hello").await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn send_to_user(
        &self,
        user: &str,
        message: impl Into<Message>,
    ) -> Result<usize, Error> {
        self.publish_counted(Publish::by_hub(Target::User(user.into()), message.into())).await
    }

    /// Sends a message to every client of a user if the inbox has room now.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish). A user without a client is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut phone = hub.subscribe(Admission::user("ada")).await?;
    /// hub.try_send_to_user("ada", "hello")?;
    /// assert_eq!(phone.next().await.expect("connected"), Message::from("hello"));
    ///
    /// // A name that no user can have is refused.
    /// assert!(hub.try_send_to_user("", "hello").expect_err("no name").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn try_send_to_user(&self, user: &str, message: impl Into<Message>) -> Result<(), Error> {
        self.publish_now(Publish::by_hub(Target::User(user.into()), message.into()))
    }

    /// Publishes a message; returns how many took it.
    pub(crate) async fn publish_counted(&self, publish: Publish) -> Result<usize, Error> {
        let is_direct = matches!(publish.target, Target::Client(_));
        if let Some(link) = self.link(&publish.target) {
            let published = Box::pin(self.publish_shared(link, publish, None)).await?;
            return Ok(published.recipients);
        }
        let published = self.publish_queued(publish).await?.await.ok_or_else(Error::closed)?;
        if published.is_refused && is_direct {
            return Err(Error::new(Kind::OneRoom));
        }
        Ok(published.recipients)
    }

    /// Publishes a message and waits for its recipients.
    async fn acknowledge(&self, publish: Publish, wait: Duration) -> Result<Acknowledged, Error> {
        let acking = Acking::default();
        let ack = &acking.0;
        let published = if let Some(link) = self.link(&publish.target) {
            self.publish_shared(link, publish, Some(Arc::clone(ack))).await?
        } else {
            self.publish_acking(publish, ack).await?.await.ok_or_else(Error::closed)?
        };
        let mut over = self.shared().timers.after(wait.min(WAIT_MAX));
        let _ = over.within(poll_fn(|cx| ack.poll_acknowledged(cx))).await;
        Ok(ack.count(published.recipients, published.position))
    }

    /// Publishes a message through the backplane; returns what became of it in this hub.
    ///
    /// Waits for the backplane as long as a client may take to read.
    async fn publish_shared(
        &self,
        link: &Link,
        publish: Publish,
        ack: Option<Arc<Ack>>,
    ) -> Result<Dispatched, Error> {
        let message = publish.message.clone();
        let unavailable = || Error::new(Kind::Unavailable);
        let (reply, mut answer) = reply();
        let publish = self.check(publish)?;
        let mut deadline = self.shared().timers.after(self.shared().config.write_timeout);
        let carry = Carry { publish, reply: Some(PublishReply::new(reply, ack)), hubs: None };
        if !matches!(deadline.within(link.send(carry)).await, Some(Ok(()))) {
            return Err(unavailable().with_message(message));
        }
        let published = match deadline.within(&mut answer).await {
            Some(published) => published,
            None if answer.withdraw() => return Err(unavailable().with_message(message)),
            // It is on its way: the driver answers within its own deadlines.
            None => answer.await,
        };
        published.ok_or_else(unavailable)
    }

    /// Publishes a message. Ready when the inbox has it: from then on it will be dispatched, and
    /// the answer is what became of it, or `None` if the hub ends before it can say so.
    pub(crate) async fn publish_queued(
        &self,
        publish: Publish,
    ) -> Result<Answer<Dispatched>, Error> {
        let (reply, answer) = reply();
        self.send_command(self.admit(publish, Some(reply))?).await?;
        Ok(answer)
    }

    /// As [`publish_queued`](Self::publish_queued), for a message that its recipients acknowledge.
    pub(crate) async fn publish_acking(
        &self,
        publish: Publish,
        ack: &Arc<Ack>,
    ) -> Result<Answer<Dispatched>, Error> {
        let ((reply, answer), publish) = (reply(), self.check(publish)?);
        self.shared().compress(&publish.message);
        let (ack, reply) = (Arc::clone(ack), Some(reply));
        let acked = Acked { publish, position: None, ack, reply };
        self.send_command(Command::Acked(Box::new(acked))).await?;
        Ok(answer)
    }

    /// Publishes a message if the inbox has room now.
    pub(crate) fn publish_now(&self, publish: Publish) -> Result<(), Error> {
        if let Some(link) = self.link(&publish.target) {
            let carry = Carry { publish: self.check(publish)?, reply: None, hubs: None };
            return link.try_send(carry).map_err(Error::from);
        }
        self.shared().inbox.try_send(self.admit(publish, None)?).map_err(Error::from)
    }

    /// The door for every message, however and by which part of the program it is published: checks
    /// its length and the name of its target, and charges it to the hub's memory.
    ///
    /// A message that a peer sent has been charged since it was read, and is not charged twice.
    fn admit(&self, publish: Publish, reply: Option<Reply<Dispatched>>) -> Result<Command, Error> {
        let publish = self.check(publish)?;
        self.shared().compress(&publish.message);
        Ok(Command::Publish { publish, reply })
    }

    /// As [`admit`](Self::admit), for a message on whatever way.
    pub(crate) fn check(&self, publish: Publish) -> Result<Publish, Error> {
        let (len, max) = (publish.message.len(), self.shared().config.max_message);
        if len > max {
            return Err(Error::new(Kind::TooLong { len, max }).with_message(publish.message));
        }
        if let Target::Room(name) | Target::User(name) = &publish.target {
            // No client can have such a name, and the inbox need not hold it.
            if !is_name(name) {
                return Err(Error::new(Kind::Name).with_message(publish.message));
            }
        }
        publish.message.charge(self.memory());
        Ok(publish)
    }
}
