//! What the program does with the clients of a user.

use std::sync::Arc;

use crate::disconnect::Disconnect;
use crate::error::{Error, Kind};
use crate::hub::client_id::{Member, Target};
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::name::is_name;

impl Hub {
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
}
