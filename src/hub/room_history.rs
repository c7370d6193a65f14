//! What a hub keeps of its rooms' messages, and where a room stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Kind};
use crate::hub::backplane::Link;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::history_config::messages_max;
use crate::hub::pending_reply::PendingReply;
use crate::hub::reply::{Reply, reply};
use crate::hub::since::{History, Since};
use crate::name::is_name;

impl Hub {
    /// Returns the position of a room's newest message, or `None` if there is no such room.
    ///
    /// Each message of a room has a position, one more than the one before it. The count of a room
    /// begins at a random number. A room without a member is there as long as it keeps messages, or
    /// the count of a reader that came with [`since`](crate::Admission::since), or read it by request.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// assert_eq!(hub.position("news").await?, None);
    ///
    /// let _ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let before = hub.position("news").await?.expect("it has a member");
    /// hub.publish("news", "hello").await?;
    /// assert_eq!(hub.position("news").await?, Some(before + 1));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn position(&self, room: &str) -> Result<Option<u64>, Error> {
        let history = self.kept(room, Since::Now, 0).await?;
        Ok(history.map(|history| history.newest))
    }

    /// Returns what a room keeps, from where `since` says, or `None` if there is no such room.
    ///
    /// [`Config::history`](crate::Config#structfield.history) says which rooms keep
    /// messages. The messages are shared with the room, not copied.
    ///
    /// # Errors
    ///
    /// [`Error::is_name`], [`Error::is_closed`]; [`Error::is_unavailable`] if the room has no member
    /// here and the server of [`Config::redis`](crate::Config#structfield.redis) is away.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Config, Hub, HistoryRule, Message, Missed, Since};
    ///
    /// # smol::block_on(async {
    /// let config = Config::default().history(vec![HistoryRule::new("news", 2)]);
    /// let (hub, manager) = Hub::new(config)?;
    /// # smol::spawn(manager).detach();
    /// // No client is there. The room keeps its newest two messages all the same.
    /// for headline in ["first", "second", "third"] {
    ///     hub.publish("news", headline).await?;
    /// }
    /// let kept = hub.history("news", Since::Oldest).await?.expect("it keeps messages");
    /// assert_eq!(kept.messages, [Message::from("second"), Message::from("third")]);
    ///
    /// let since = Since::Position(kept.newest - 3);
    /// let later = hub.history("news", since).await?.expect("it is there");
    /// assert_eq!((later.messages.len(), later.missed), (2, Missed::Messages(1)));
    ///
    /// assert_eq!(hub.history("sports", Since::Oldest).await?, None);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "replay")]
    pub async fn history(&self, room: &str, since: Since) -> Result<Option<History>, Error> {
        self.kept(room, since, usize::MAX).await
    }

    /// As [`history`](Self::history), with at most `limit` messages.
    pub(crate) async fn kept(
        &self,
        room: &str,
        since: Since,
        limit: usize,
    ) -> Result<Option<History>, Error> {
        let command = |room, reply| Command::History { room, since, limit, reply };
        self.kept_here_or_elsewhere(room, since, limit, command).await
    }

    /// As [`history`](Self::history), with at most one message, for a reader that comes back with the
    /// position that it is told: the room keeps its count.
    pub(crate) async fn next_of(&self, room: &str, since: Since) -> Result<Option<History>, Error> {
        let command = |room, reply| Command::ReadNext { room, since, reply };
        self.kept_here_or_elsewhere(room, since, 1, command).await
    }

    /// What a room keeps: the manager answers a command, or the backplane if the room has no member
    /// here.
    async fn kept_here_or_elsewhere(
        &self,
        room: &str,
        since: Since,
        limit: usize,
        command: impl FnOnce(Arc<str>, Reply<Option<History>>) -> Command,
    ) -> Result<Option<History>, Error> {
        if !is_name(room) {
            return Err(Error::new(Kind::Name));
        }
        let room: Arc<str> = room.into();
        let (name, shared) = (Arc::clone(&room), self.shared());
        let kept = self.request(|reply| command(room, reply)).await?;
        match &shared.backplane {
            Some(backplane)
                if kept.is_none() && messages_max(&shared.config.history, &name) > 0 =>
            {
                Box::pin(self.kept_elsewhere(&backplane.link, name, since, limit)).await
            }
            _ => Ok(kept),
        }
    }

    /// What the backplane keeps of a room that has no member here.
    async fn kept_elsewhere(
        &self,
        link: &Link,
        room: Arc<str>,
        since: Since,
        limit: usize,
    ) -> Result<Option<History>, Error> {
        let (reply, answer) = reply();
        if !link.try_query(Command::ReadKept { room, since, limit, reply }) {
            return Err(Error::new(Kind::Unavailable));
        }
        answer.await.ok_or_else(|| Error::new(Kind::Unavailable))
    }

    /// Waits for the next message of a room behind where `since` says, or for what the room has of
    /// it already. Makes no room.
    pub(crate) fn next_kept(&self, room: Arc<str>, since: Since) -> PendingReply<'_, History> {
        self.request(|reply| Command::Await { room, since, reply })
    }

    /// Tells the manager that a reader waits no more for a room. Its answer has been dropped.
    pub(crate) fn give_up(&self, room: Arc<str>) {
        let shared = self.shared();
        if shared.inbox.try_send(Command::GiveUp { room }).is_err() {
            shared.counters.has_given_up.store(true, Ordering::Release);
            // Refused again, the manager has more to do. It looks for this after that.
            drop(shared.inbox.try_send(Command::Wake));
        }
    }
}
