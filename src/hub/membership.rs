//! What the program does with its clients and rooms: it moves, lists and ends them.

use crate::disconnect::Disconnect;
use crate::error::{Error, Kind};
use crate::hub::client_id::{ClientId, Member, Refusal, RoomInfo, Target};
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::reply::Reply;
use crate::name::is_name;

impl Hub {
    /// Puts a client into a room; being there already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_unknown_client`], [`Error::is_limit`] when as many
    /// rooms exist as may, or the client is in as many as it may; [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// let id = ada.client().id();
    /// hub.join(id, "news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 1);
    ///
    /// // A client may be in 8 rooms at the defaults.
    /// for room in 1..Config::MAX_ROOMS_PER_CLIENT {
    ///     hub.join(id, &room.to_string()).await?;
    /// }
    /// assert!(hub.join(id, "one more").await.expect_err("too many").is_limit());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "subscribe")]
    #[doc(alias = "group")]
    pub async fn join(&self, client: ClientId, room: &str) -> Result<(), Error> {
        if !is_name(room) {
            return Err(Error::new(Kind::Name));
        }
        self.enter(client, room, false).await
    }

    /// Puts a client into a room, or has it hear a prefix.
    pub(crate) async fn enter(
        &self,
        id: ClientId,
        room: &str,
        is_prefix: bool,
    ) -> Result<(), Error> {
        let room = room.into();
        self.move_client(|reply| Command::Join { id, room, is_prefix, reply }).await
    }

    /// Takes a client out of a room, or off a prefix.
    pub(crate) async fn exit(
        &self,
        id: ClientId,
        room: &str,
        is_prefix: bool,
    ) -> Result<(), Error> {
        let room = room.into();
        self.move_client(|reply| Command::Leave { id, room, is_prefix, reply }).await
    }

    /// Has the manager carry out a command that it may refuse.
    async fn move_client(
        &self,
        command: impl FnOnce(Reply<Result<(), Refusal>>) -> Command,
    ) -> Result<(), Error> {
        self.request(command).await?.map_err(|refusal| self.refused(refusal))
    }

    /// Takes a client out of a room; not being there is no error.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let id = ada.client().id();
    /// hub.leave(id, "news").await?;
    /// assert_eq!(hub.publish("news", "hello").await?, 0);
    ///
    /// // It is not there any more, which is what was asked for.
    /// hub.leave(id, "news").await?;
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "unsubscribe")]
    pub async fn leave(&self, client: ClientId, room: &str) -> Result<(), Error> {
        self.exit(client, room, false).await
    }

    /// Ends a client: it gets what is queued for it, then a close frame with `reason`
    /// (RFC 6455 5.5.1). If its socket takes nothing for the
    /// [`write_timeout`](crate::Config#structfield.write_timeout), the connection is cut instead, and
    /// the client sees 1006.
    ///
    /// Returns once the client is out of the registry; its connection may still be writing.
    ///
    /// # Errors
    ///
    /// [`Error::is_unknown_client`], [`Error::is_closed`].
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
    /// let kick = Disconnect::new(4000, "the game is over");
    /// hub.disconnect(id, kick.clone()).await?;
    /// assert_eq!(ada.next().await.expect_err("it was told to go"), kick);
    ///
    /// let error = hub.disconnect(id, kick).await.expect_err("it is gone");
    /// assert!(error.is_unknown_client());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "kick")]
    #[doc(alias = "close")]
    pub async fn disconnect(&self, client: ClientId, reason: Disconnect) -> Result<(), Error> {
        let command = |reply| Command::Disconnect { id: client, reason, reply: Some(reply) };
        if self.request(command).await? { Ok(()) } else { Err(Error::new(Kind::UnknownClient)) }
    }

    /// Lists the clients, in no order: of each its id, its user and how far it is behind.
    ///
    /// The list is as long as there are clients; [`stats`](Self::stats) counts them for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada")).await?;
    /// let clients = hub.clients().await?;
    /// assert_eq!(clients.len(), 1);
    /// assert_eq!(clients[0].id, ada.client().id());
    /// assert_eq!(clients[0].user.as_deref(), Some("ada"));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn clients(&self) -> Result<Vec<Member>, Error> {
        self.request(|reply| Command::Members { of: Target::All, reply }).await
    }

    /// Lists the members of a room, in no order; a room that does not exist has none.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Disconnect, Hub, Message};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let _bob = hub.subscribe(Admission::user("bob").room("sports")).await?;
    /// let members = hub.presence("news").await?;
    /// assert_eq!(members.len(), 1);
    /// assert_eq!(members[0].id, ada.client().id());
    /// assert_eq!(hub.presence("empty").await?, []);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "members")]
    pub async fn presence(&self, room: &str) -> Result<Vec<Member>, Error> {
        let of = Target::Room(room.into());
        self.request(|reply| Command::Members { of, reply }).await
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
