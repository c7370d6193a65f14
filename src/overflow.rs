//! What happens to a client whose queue is full.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// What happens to a client when a message comes for it and its queue is full.
///
/// The hub never waits for such a client. [`Stats`](crate::Stats) counts evictions and dropped
/// messages.
///
/// # Examples
///
/// ```
/// use hublet::Overflow;
///
/// assert_eq!("drop-oldest".parse::<Overflow>().ok(), Some(Overflow::DropOldest));
/// assert_eq!(Overflow::default().to_string(), "disconnect");
/// assert!("drop".parse::<Overflow>().is_err());
/// ```
#[doc(alias = "backpressure")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The client is evicted: the hub drops its backlog and closes it with 4108.
    #[default]
    Disconnect,
    /// The new message is dropped, for this client only.
    DropNewest,
    /// The oldest waiting messages are dropped until the new one fits, for this client only.
    DropOldest,
    /// A client that is behind gets the newest message only: it replaces those that wait.
    Latest,
    /// In a room that keeps messages ([`Config::history`](crate::Config::history)) a client that is
    /// behind has no queue: it reads what the room keeps, at its own pace. If what it would read next
    /// is kept no more, the hub closes a WebSocket with 4108, and tells a stream of events of the gap.
    /// In other rooms, and for a client in several rooms, as `Disconnect`.
    Replay,
}

impl Overflow {
    /// The words that [`FromStr`] reads and [`Display`](fmt::Display) writes, in the order of the
    /// variants.
    pub const WORDS: [&str; 5] = ["disconnect", "drop-newest", "drop-oldest", "latest", "replay"];
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize])
    }
}

impl FromStr for Overflow {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        [Self::Disconnect, Self::DropNewest, Self::DropOldest, Self::Latest, Self::Replay]
            .into_iter()
            .find(|overflow| Self::WORDS[*overflow as usize] == word)
            .ok_or_else(|| {
                Error::config(format!("overflow {word:?} is not one of {}", Self::WORDS.join(", ")))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_words_read_back() {
        for word in Overflow::WORDS {
            assert_eq!(word.parse::<Overflow>().expect(word).to_string(), word);
        }
        let error = "drop".parse::<Overflow>().expect_err("no such word");
        assert_eq!(
            error.to_string(),
            "overflow \"drop\" is not one of disconnect, drop-newest, drop-oldest, latest, replay"
        );
    }
}
