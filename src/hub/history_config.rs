//! Which rooms keep how many messages, and for how long.

use crate::config::Config;
use crate::history_rule::HistoryRule;

/// The limits of the history of a hub.
#[derive(Debug, Clone)]
pub(crate) struct HistoryConfig {
    /// How many messages the rooms of a pattern keep.
    rules: Vec<HistoryRule>,
    /// Bytes of frames that a room keeps at most.
    pub(crate) bytes: usize,
    /// Bytes of memory that the kept messages of all rooms take at most.
    pub(crate) memory: usize,
    /// Nanoseconds that a room without members stays; `None` for as long as memory allows.
    pub(crate) age: Option<u64>,
    /// Bytes of payload from which a kept message is compressed for the first client that gets it so;
    /// `None` for never.
    pub(crate) deflate: Option<usize>,
}

impl HistoryConfig {
    /// As configured; under a ceiling `for_messages` bytes are for messages, and at most a quarter of
    /// them for those that are kept.
    pub(crate) fn new(config: &Config, for_messages: Option<usize>) -> Self {
        let share = for_messages.map_or(usize::MAX, |bytes| bytes / 4);
        let nanos = |age: std::time::Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Self {
            rules: config.history.clone(),
            bytes: config.history_bytes.min(config.history_memory),
            memory: config.history_memory.min(share),
            age: Some(config.history_age).filter(|age| !age.is_zero()).map(nanos),
            deflate: config.deflate,
        }
    }

    /// No room keeps any message.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(&Config::default(), None)
    }

    /// Whether any room keeps messages.
    pub(crate) fn keeps_any(&self) -> bool {
        self.rules.iter().any(|rule| rule.messages > 0)
    }

    /// How many messages a room keeps at most: the longest pattern that matches its name says it, a
    /// whole name before a prefix.
    pub(crate) fn messages_max(&self, room: &str) -> usize {
        messages_max(&self.rules, room)
    }
}

/// How many messages a room keeps at most, by these rules.
pub(crate) fn messages_max(rules: &[HistoryRule], room: &str) -> usize {
    let matching = rules.iter().filter(|rule| rule.matches(room));
    matching.max_by_key(|rule| rule.length()).map_or(0, |rule| rule.messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_that_matches_counts() {
        let rules = ["7", "chat-*=5", "chat-news=1", "chat-news*=2", "quiet=0", "7=3"];
        let rules = rules.map(|rule| rule.parse().expect(rule)).to_vec();
        let config = HistoryConfig::new(&Config::default().history(rules), None);
        for (room, messages) in [
            ("main", 7),
            ("chat-", 5),
            ("chat", 7),
            ("chat-a", 5),
            ("chat-news", 1),
            ("chat-newsroom", 2),
            ("quiet", 0),
            ("7", 3),
        ] {
            assert_eq!(config.messages_max(room), messages, "{room}");
        }
        assert_eq!(HistoryConfig::new(&Config::default(), None).messages_max("main"), 0);
    }
}
