//! How many messages the rooms of a pattern keep.

use std::str::FromStr;

use crate::error::Error;
use crate::name::is_name;

/// Messages that a room keeps, at most.
pub(crate) const MESSAGES_MAX: usize = 1 << 30;

/// How many messages the rooms of a pattern keep, as `PATTERN=N` says it.
///
/// A pattern is the name of a room, or a prefix with a `*` behind it. Of several that match a room
/// the longest counts. A number alone is for every room.
///
/// # Examples
///
/// ```
/// use hublet::HistoryRule;
///
/// let rule: HistoryRule = "chat-*=50".parse()?;
/// assert_eq!(rule, HistoryRule::new("chat-*", 50));
/// assert_eq!("100".parse::<HistoryRule>()?, HistoryRule::new("*", 100));
///
/// let error = "*-chat=50".parse::<HistoryRule>().expect_err("a star in front");
/// assert!(error.is_config());
/// # Ok::<_, hublet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryRule {
    /// The name of a room, or a prefix with a `*` behind it.
    pub pattern: String,
    /// Messages that each of these rooms keeps, at most 2^30; 0 for none.
    pub messages: usize,
}

impl HistoryRule {
    /// Makes a rule. [`Hub::new`](crate::Hub::new) checks it.
    #[must_use]
    pub fn new(pattern: impl Into<String>, messages: usize) -> Self {
        Self { pattern: pattern.into(), messages }
    }

    /// Whether the rule is for a room.
    pub(crate) fn matches(&self, room: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == self.pattern,
        }
    }

    /// How much of a name the pattern says; a whole name says more than a prefix.
    pub(crate) fn length(&self) -> usize {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => prefix.len(),
            None => usize::MAX,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { pattern, messages } = self;
        let prefix = pattern.strip_suffix('*');
        let name = prefix.unwrap_or(pattern);
        if name.contains('*') || !(is_name(name) || prefix == Some("")) {
            return Err(Error::config(format!(
                "history of {pattern:?} is not allowed: a pattern is the name of a room, or a prefix \
                 with a * behind it"
            )));
        }
        if *messages > MESSAGES_MAX {
            return Err(Error::config(format!(
                "history of {messages} messages is not allowed: at most {MESSAGES_MAX} is"
            )));
        }
        Ok(())
    }
}

impl FromStr for HistoryRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (pattern, messages) = text.rsplit_once('=').unwrap_or(("*", text));
        let messages = messages.parse().map_err(|_| {
            Error::config(format!(
                "history {text:?} is neither N nor PATTERN=N, N a number of messages"
            ))
        })?;
        let rule = Self::new(pattern, messages);
        rule.check().map(|()| rule)
    }
}
