//! Verbs about a user, and the listing of rooms.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::error::{Error, Kind};
use crate::hub::client_id::{Member, RoomInfo, Target};
use crate::hub::command::{Command, Publish};
use crate::hub::handle::Hub;
use crate::message::Message;
use crate::name::is_name;

impl Hub {
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

    /// Lists the clients of a user, in no order. A user without a client is not connected.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let phone = hub.subscribe(Admission::user("ada")).await?;
    /// let clients = hub.user_clients("ada").await?;
    /// assert_eq!(clients.len(), 1);
    /// assert_eq!(clients[0].id, phone.client().id());
    ///
    /// assert_eq!(hub.user_clients("bob").await?, [], "bob is not connected");
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "online")]
    pub async fn user_clients(&self, user: &str) -> Result<Vec<Member>, Error> {
        let of = Target::User(user.into());
        self.request(|reply| Command::Members { of, reply }).await
    }

    /// Ends every client of a user, as [`disconnect`](Self::disconnect) ends one; returns how many.
    ///
    /// Returns once all of them are out of the registry; their connections may still be writing. A
    /// client of the user that comes later is not affected.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_closed`]. A user without a client is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut phone = hub.subscribe(Admission::user("ada")).await?;
    /// let _laptop = hub.subscribe(Admission::user("ada")).await?;
    /// let logout = Disconnect::new(4000, "logged out");
    /// assert_eq!(hub.disconnect_user("ada", logout.clone()).await?, 2);
    /// assert_eq!(phone.next().await.expect_err("it was told to go"), logout);
    ///
    /// assert_eq!(hub.disconnect_user("ada", logout).await?, 0);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "kick")]
    #[doc(alias = "logout")]
    pub async fn disconnect_user(&self, user: &str, reason: Disconnect) -> Result<usize, Error> {
        if !is_name(user) {
            return Err(Error::new(Kind::Name));
        }
        let user: Arc<str> = user.into();
        self.request(|reply| Command::DisconnectUser { user, reason, reply }).await
    }

    /// Lists the rooms, in the order of their names, each with the number of its members.
    ///
    /// The list is as long as there are rooms; [`stats`](Self::stats) counts them for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let _ada = hub.subscribe(Admission::user("ada").room("news").room("lobby")).await?;
    /// let _bob = hub.subscribe(Admission::user("bob").room("news")).await?;
    /// let rooms = hub.rooms().await?;
    /// assert_eq!((&*rooms[0].name, rooms[0].members), ("lobby", 1));
    /// assert_eq!((&*rooms[1].name, rooms[1].members), ("news", 2));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>, Error> {
        // A name of no bytes comes before every room.
        let (after, limit) = (String::new(), usize::MAX);
        let rooms = self.request(|reply| Command::ListRooms { after, limit, reply }).await?;
        Ok(rooms.into_iter().map(|(name, members)| RoomInfo { name, members }).collect())
    }
}
