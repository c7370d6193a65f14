//! What a client may do: the rooms that it may subscribe to and publish to.

use hublet::http::StatusCode;

/// What a client with a token, or without one, may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The user of the token.
    pub(crate) user: Option<String>,
    /// When the token expires, in seconds of Unix time.
    pub(crate) until: Option<u64>,
    pub(crate) listen: Rooms,
    pub(crate) send: Rooms,
    /// Whether the request has a token: a refusal without one is 401, otherwise 403.
    pub(crate) shown: bool,
}

/// A set of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rooms {
    All,
    /// Exact names, and prefixes that end in `*`.
    These(Vec<String>),
}

impl Rooms {
    pub(crate) fn none() -> Self {
        Self::These(Vec::new())
    }

    pub(crate) fn if_so(so: bool) -> Self {
        if so { Self::All } else { Self::none() }
    }

    /// The names and prefixes; `*` for all rooms.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = &str> {
        let (all, these) = match self {
            Self::All => (Some("*"), &[][..]),
            Self::These(names) => (None, &names[..]),
        };
        all.into_iter().chain(these.iter().map(|name| &**name))
    }

    /// Whether every room is in the set whose name begins so.
    fn contains_all_of(&self, prefix: &str) -> bool {
        let Self::These(names) = self else { return true };
        let mut patterns = names.iter().filter_map(|name| name.strip_suffix('*'));
        patterns.any(|beginning| prefix.starts_with(beginning))
    }

    pub(crate) fn contains(&self, room: &str) -> bool {
        let Self::These(names) = self else { return true };
        names.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => room.starts_with(beginning),
            None => name == room,
        })
    }
}

impl Grant {
    /// Whether the client may subscribe to a room.
    ///
    /// # Errors
    ///
    /// 401 if the request has no token, 403 if its token does not allow this.
    pub(crate) fn listens_to(&self, room: &str) -> Result<(), StatusCode> {
        self.check(self.listen.contains(room))
    }

    /// Whether the client may subscribe to every room whose name begins so.
    ///
    /// # Errors
    ///
    /// As [`listens_to`](Self::listens_to).
    pub(crate) fn listens_to_all_of(&self, prefix: &str) -> Result<(), StatusCode> {
        self.check(self.listen.contains_all_of(prefix))
    }

    /// Whether the client may publish to a room.
    ///
    /// # Errors
    ///
    /// As [`listens_to`](Self::listens_to).
    pub(crate) fn sends_to(&self, room: &str) -> Result<(), StatusCode> {
        self.check(self.send.contains(room))
    }

    /// Whether the client may send to users, in whatever rooms they are: it may if it may publish
    /// to every room.
    ///
    /// # Errors
    ///
    /// As [`listens_to`](Self::listens_to).
    pub(crate) fn sends_to_users(&self) -> Result<(), StatusCode> {
        let everywhere = match &self.send {
            Rooms::All => true,
            Rooms::These(names) => names.iter().any(|name| name == "*"),
        };
        self.check(everywhere)
    }

    fn check(&self, allowed: bool) -> Result<(), StatusCode> {
        match allowed {
            true => Ok(()),
            false if self.shown => Err(StatusCode::FORBIDDEN),
            false => Err(StatusCode::UNAUTHORIZED),
        }
    }
}
