//! What a backplane carries messages for.

use std::sync::Arc;

use crate::hub::client_id::Target;

/// Names a stream of messages that several hubs share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Every client of every hub. Each hub hears it always.
    All,
    /// The members of a room.
    Room(Arc<str>),
    /// The clients of a user.
    User(Arc<str>),
}

impl Topic {
    /// The topic of a target; `None` for one client, which is a client of this hub.
    pub(crate) fn of(target: &Target) -> Option<Self> {
        match target {
            Target::All => Some(Self::All),
            Target::Room(room) => Some(Self::Room(Arc::clone(room))),
            Target::User(user) => Some(Self::User(Arc::clone(user))),
            Target::Client(_) => None,
        }
    }

    /// The clients of this hub that its messages are for.
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::All => Target::All,
            Self::Room(room) => Target::Room(Arc::clone(room)),
            Self::User(user) => Target::User(Arc::clone(user)),
        }
    }
}
