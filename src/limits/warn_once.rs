//! Warnings that are logged once each, however often their cause comes back.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::time::clock::now;

/// Sentences that are remembered, at 8 bytes each: more than one deployment has names.
const SENTENCES_MAX: usize = 64;

/// How long no new sentence is logged once so many were: a peer that makes names up cannot fill the
/// log, and the name that an operator forgot is still logged within an hour.
const PAUSE: Duration = Duration::from_secs(60 * 60);

/// Logs each sentence once.
#[derive(Debug, Default)]
pub(crate) struct WarnOnce {
    seen: Mutex<Seen>,
}

/// What was logged.
#[derive(Debug, Default)]
struct Seen {
    /// The hashes of the sentences.
    hashes: Vec<u64>,
    /// What they are hashed with.
    hasher: RandomState,
    /// When there was no room for one more.
    full_since: Option<Instant>,
}

/// What to do with a sentence.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// Log it, and that it is the last one for a while.
    LogLast,
    Keep,
}

impl WarnOnce {
    /// Logs a sentence as a warning, unless it was logged before or too many others were.
    pub(crate) fn warn(&self, sentence: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = seen.judge(sentence, now());
        drop(seen);
        if verdict != Verdict::Keep {
            log::warn!("{sentence}");
        }
        if verdict == Verdict::LogLast {
            log::warn!("further refusals of this kind are logged at the level debug for an hour");
        }
    }
}

impl Seen {
    fn judge(&mut self, sentence: &str, now: Instant) -> Verdict {
        let hash = self.hasher.hash_one(sentence);
        if self.full_since.is_some_and(|since| now.duration_since(since) >= PAUSE) {
            *self = Self::default();
        }
        if self.full_since.is_some() || self.hashes.contains(&hash) {
            return Verdict::Keep;
        }
        self.hashes.push(hash);
        if self.hashes.len() < SENTENCES_MAX {
            return Verdict::Log;
        }
        self.full_since = Some(now);
        Verdict::LogLast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_logged_once_and_a_flood_of_them_ends() {
        let start = now();
        let mut seen = Seen::default();
        assert_eq!(seen.judge("a", start), Verdict::Log);
        assert_eq!(seen.judge("a", start), Verdict::Keep);
        let logged = |seen: &mut Seen, at| {
            let verdicts = (0..1000).map(|n| seen.judge(&n.to_string(), at));
            verdicts.filter(|verdict| *verdict != Verdict::Keep).count()
        };
        assert_eq!(logged(&mut seen, start), SENTENCES_MAX - 1);
        assert_eq!(logged(&mut seen, start + PAUSE - Duration::from_secs(1)), 0);
        assert_eq!(logged(&mut seen, start + PAUSE), SENTENCES_MAX);
    }
}
