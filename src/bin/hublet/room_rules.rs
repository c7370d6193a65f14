//! What is set for the rooms of a pattern: `--room`.

use hublet::{Admission, Config, HistoryRule, Overflow, Rate};

use crate::flags::value::{bytes, count};

/// What a value of the flag must be.
const FORM: &str = "PATTERN:option=value,... where a PATTERN is the name of a room or a prefix with a * \
                    behind it, and the options are history, overflow, queue, queue-bytes, max-message, \
                    rate, rate-bytes and publish";

/// The options for the rooms of one pattern; each that is not given is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RoomRule {
    pattern: String,
    /// For the configuration, beside the rules of `--history`.
    pub(crate) history: Option<HistoryRule>,
    queue: Option<usize>,
    queue_bytes: Option<usize>,
    overflow: Option<Overflow>,
    max_message: Option<usize>,
    rate: Option<usize>,
    rate_bytes: Option<usize>,
    /// Whether only the publish and the admin token allow to publish.
    backend_only: Option<bool>,
}

impl RoomRule {
    /// Reads a rule, or one more option of the last one: the commas of a variable stand between both.
    pub(crate) fn add(rules: &mut Vec<Self>, text: &str) -> Result<(), String> {
        let (rule, options) = match (text.rsplit_once(':'), rules.last_mut()) {
            (Some((pattern, options)), _) => {
                if history(pattern, "0").is_none() {
                    return Err(FORM.to_owned());
                }
                rules.push(Self { pattern: pattern.to_owned(), ..Self::default() });
                (rules.last_mut(), options)
            }
            (None, last) => (last, text),
        };
        let rule = rule.ok_or(FORM)?;
        options.split(',').try_for_each(|option| rule.set(option.trim()))
    }

    fn set(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option.split_once('=').ok_or(FORM)?;
        let max = Config::LIMIT_MAX;
        match name {
            "history" => self.history = Some(history(&self.pattern, value).ok_or(FORM)?),
            "overflow" => {
                self.overflow = Some(value.parse().map_err(|_| Overflow::WORDS.join(", "))?);
            }
            "queue" => self.queue = Some(count(value, max)?),
            "queue-bytes" => self.queue_bytes = Some(bytes(value, max)?),
            "max-message" => self.max_message = Some(bytes(value, max)?),
            "rate" => self.rate = Some(count(value, max)?),
            "rate-bytes" => self.rate_bytes = Some(bytes(value, max)?),
            "publish" => {
                let words = ["all", "backend"];
                let word = words.iter().position(|word| *word == value);
                self.backend_only = Some(word.ok_or("publish is all or backend")? == 1);
            }
            _ => return Err(FORM.to_owned()),
        }
        Ok(())
    }

    /// Checks that a room keeps messages if its clients are to replay them.
    pub(crate) fn check(&self, history: &[HistoryRule]) -> Result<(), String> {
        let patterns = history.iter().map(|rule| &*rule.pattern);
        let is_kept = |room: &str| {
            let matching =
                history.iter().filter_map(|rule| Some((length(&rule.pattern, room)?, rule)));
            matching.max_by_key(|(length, _)| *length).is_some_and(|(_, rule)| rule.messages > 0)
        };
        // One room stands for all that a pattern matches and no longer pattern does.
        let rooms = patterns.chain([&*self.pattern]).map(any_room);
        let mut rooms = rooms.filter(|room| length(&self.pattern, room).is_some());
        if self.overflow == Some(Overflow::Replay) && !rooms.any(|room| is_kept(&room)) {
            return Err(format!(
                "--room {}:overflow=replay needs a history to replay: none of these rooms keeps any",
                self.pattern
            ));
        }
        Ok(())
    }
}

/// How much of a name a pattern says, if it matches a room; a whole name says the most.
fn length(pattern: &str, room: &str) -> Option<usize> {
    match pattern.strip_suffix('*') {
        Some(prefix) => room.starts_with(prefix).then_some(prefix.len()),
        None => (pattern == room).then_some(usize::MAX),
    }
}

/// A room that a pattern matches; of a prefix one that no whole name is, by a character that no name
/// has.
fn any_room(pattern: &str) -> String {
    pattern.replace('*', "\n")
}

fn history(pattern: &str, messages: &str) -> Option<HistoryRule> {
    format!("{pattern}={messages}").parse().ok()
}

/// The rules of all rooms, and what holds where they say nothing.
#[derive(Debug)]
pub(crate) struct RoomRules {
    rules: Vec<RoomRule>,
    max_rate: Option<usize>,
    max_rate_bytes: Option<usize>,
}

impl RoomRules {
    pub(crate) fn new(rules: Vec<RoomRule>, config: &Config) -> Self {
        let (max_rate, max_rate_bytes) = (config.max_rate, config.max_rate_bytes);
        Self { rules, max_rate, max_rate_bytes }
    }

    /// What the longest pattern says of those that match a room and name an option.
    fn longest<T: Copy>(&self, room: &str, option: fn(&RoomRule) -> Option<T>) -> Option<T> {
        let rules = self.rules.iter().filter(|rule| option(rule).is_some());
        let matching = rules.filter_map(|rule| Some((length(&rule.pattern, room)?, rule)));
        matching.max_by_key(|(length, _)| *length).and_then(|(_, rule)| option(rule))
    }

    /// Whether only the publish and the admin token allow to publish to a room.
    pub(crate) fn is_backend_only(&self, room: &str) -> bool {
        self.longest(room, |rule| rule.backend_only) == Some(true)
    }

    /// Admits a client on the terms of its room.
    pub(crate) fn admit(&self, room: &str, mut admission: Admission) -> Admission {
        if self.rules.is_empty() {
            return admission;
        }
        if let Some(messages) = self.longest(room, |rule| rule.queue) {
            admission = admission.queue(messages);
        }
        if let Some(bytes) = self.longest(room, |rule| rule.queue_bytes) {
            admission = admission.queue_bytes(bytes);
        }
        if let Some(overflow) = self.longest(room, |rule| rule.overflow) {
            admission = admission.overflow(overflow);
        }
        if let Some(bytes) = self.longest(room, |rule| rule.max_message) {
            admission = admission.max_message(bytes);
        }
        let rate = self.longest(room, |rule| rule.rate);
        let rate_bytes = self.longest(room, |rule| rule.rate_bytes);
        if rate.or(rate_bytes).is_some() {
            let rate = rate.or(self.max_rate).map_or(Rate::UNLIMITED, Rate::messages);
            let rate_bytes = rate_bytes.or(self.max_rate_bytes);
            admission = admission.rate(rate_bytes.map_or(rate, |bytes| rate.bytes(bytes)));
        }
        admission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Result<RoomRules, String> {
        let mut rules = Vec::new();
        texts.iter().try_for_each(|text| RoomRule::add(&mut rules, text))?;
        Ok(RoomRules::new(rules, &Config::default()))
    }
    #[test]
    fn the_longest_pattern_that_names_an_option_decides_it() {
        let texts = ["*:queue=9,publish=backend", "a:b*:overflow=latest,history=1", "a:b:queue=2"];
        let rules = rules(&texts).expect("valid");
        let decided = |room| {
            let queue = rules.longest(room, |rule| rule.queue);
            (queue, rules.longest(room, |rule| rule.overflow), rules.is_backend_only(room))
        };
        assert_eq!(decided("a:b"), (Some(2), Some(Overflow::Latest), true));
        assert_eq!(decided("a:bc"), (Some(9), Some(Overflow::Latest), true));
        assert_eq!(decided("a"), (Some(9), None, true));
        assert_eq!(rules.rules[1].history, Some(HistoryRule::new("a:b*", 1)));
    }
    #[test]
    fn what_no_room_keeps_is_not_replayed() {
        let check = |rule: &str, history: &[&str]| {
            let mut rules = Vec::new();
            RoomRule::add(&mut rules, rule).expect(rule);
            let kept = rules.iter().filter_map(|rule| rule.history.clone());
            let history = history.iter().map(|rule| rule.parse().expect(rule));
            rules[0].check(&history.chain(kept).collect::<Vec<_>>()).is_ok()
        };
        for (rule, history) in [
            ("a*:overflow=latest", &[][..]),
            ("a*:overflow=replay,history=1", &[]),
            ("a*:overflow=replay", &["1"]),
            ("a*:overflow=replay", &["ab=1"]),
            ("a*:overflow=replay", &["ab*=1"]),
            ("a*:overflow=replay", &["1", "a=0", "ab*=0"]),
            ("a*:overflow=replay", &["a*=0", "a=1"]),
            ("a:overflow=replay", &["a*=1"]),
            ("*:overflow=replay", &["a=1"]),
        ] {
            assert!(check(rule, history), "{rule} {history:?}");
        }
        for (rule, history) in [
            ("a*:overflow=replay", &[][..]),
            ("a*:overflow=replay,history=0", &["1"]),
            ("a*:overflow=replay", &["b=1"]),
            ("a*:overflow=replay", &["1", "a*=0"]),
            ("a:overflow=replay", &["1", "a=0"]),
            ("a:overflow=replay", &["ab*=1"]),
            ("*:overflow=replay", &["a=0"]),
        ] {
            assert!(!check(rule, history), "{rule} {history:?}");
        }
    }
    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "a",
            "queue=1",
            ":queue=1",
            "a:",
            "a:queue",
            "a:queue=0",
            "a*b:queue=1",
            "a:x=1",
            "a:overflow=no",
            "a:publish=me",
            "a:history=-1",
            "a:rate=0",
            "a:queue=1,",
        ] {
            assert!(rules(&[text]).is_err(), "{text}");
        }
        // As a variable has it.
        let rules = rules(&["a:queue=1", "rate=2", "b:rate=3"]).expect("valid");
        assert_eq!(rules.rules.len(), 2);
        assert_eq!(rules.rules[0].rate, Some(2));
    }
}
