//! What a client may do: the rooms that it may subscribe to and publish to.

use std::sync::Arc;

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

/// Names and prefixes of rooms to publish to that a client in several rooms keeps: the longest token has
/// 8 KiB, so each such client takes at most as much, and 48 bytes for each.
pub(crate) const PATTERNS_MAX: usize = 64;

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

    /// The part of the set that matters to a client in these rooms, which also hears these prefixes.
    ///
    /// # Errors
    ///
    /// A sentence if it has more than [`PATTERNS_MAX`] names and prefixes.
    pub(crate) fn within(self, rooms: &[Arc<str>], prefixes: &[Arc<str>]) -> Result<Self, String> {
        let Self::These(mut names) = self else { return Ok(self) };
        names.retain(|name| match name.strip_suffix('*') {
            Some(beginning) => {
                let is_near =
                    |own: &Arc<str>| own.starts_with(beginning) || beginning.starts_with(&**own);
                rooms.iter().any(|room| room.starts_with(beginning)) || prefixes.iter().any(is_near)
            }
            None => {
                rooms.iter().any(|room| **room == **name)
                    || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
            }
        });
        names.shrink_to_fit();
        if names.len() > PATTERNS_MAX {
            return Err(format!(
                "the token names {} rooms to publish to that this client could hear, more than {PATTERNS_MAX}: name prefixes",
                names.len()
            ));
        }
        Ok(Self::These(names))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_several_rooms_keeps_what_matters_to_them_of_its_rights() {
        let all: Vec<Arc<str>> = ["a", "b/1"].map(Arc::from).to_vec();
        let prefixes: Vec<Arc<str>> = vec!["s/".into()];
        let names = ["a", "c", "b/*", "c/*", "s/1", "s", "s*", "s/2/*", "*"];
        let these = Rooms::These(names.map(str::to_owned).to_vec());
        let within = these.within(&all, &prefixes).expect("few");
        assert_eq!(within.patterns().collect::<Vec<_>>(), ["a", "b/*", "s/1", "s*", "s/2/*", "*"]);
        assert_eq!(Rooms::All.within(&all, &prefixes), Ok(Rooms::All));
        let many = |count: usize| Rooms::These((0..count).map(|n| format!("s/{n}")).collect());
        assert!(many(PATTERNS_MAX).within(&all, &prefixes).is_ok());
        let sentence = many(PATTERNS_MAX + 1).within(&all, &prefixes).expect_err("too many");
        assert!(sentence.contains("names 65 rooms"), "{sentence}");
        assert!(many(1_000).within(&all, &[]).is_ok(), "it hears none of them");
    }
}
