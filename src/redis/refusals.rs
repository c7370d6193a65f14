//! What the log says of a server that refuses commands.

use std::time::{Duration, Instant};

use crate::time::clock::now;

/// How often the log says that the server refuses commands for the same reason.
const REFUSALS_PACE: Duration = Duration::from_secs(60);

/// Reasons that the log tells apart at once; all others wait until one of these is a minute old. A
/// server has few, for example OOM, NOPERM, READONLY, MISCONF and LOADING.
const REFUSALS_MAX: usize = 8;

/// The refusals of the server, in the log: a server without memory refuses every message.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The first word of each error that was logged in the last minute, and when.
    logged: Vec<(String, Instant)>,
    /// Refusals since the last line that were not logged.
    others: u64,
}

impl Refusals {
    /// The server has refused a command with this error.
    #[cold]
    pub(crate) fn note(&mut self, error: &str) {
        if let Some(line) = self.line(error, now()) {
            log::error!("{line}");
        }
    }

    /// What the log says of it, if anything.
    fn line(&mut self, error: &str, now: Instant) -> Option<String> {
        let kind = error.split(' ').next().unwrap_or_default();
        self.logged.retain(|(_, when)| now.saturating_duration_since(*when) < REFUSALS_PACE);
        let is_known = self.logged.iter().any(|(logged, _)| logged == kind);
        if is_known || self.logged.len() == REFUSALS_MAX {
            self.others += 1;
            return None;
        }
        self.logged.push((kind.to_owned(), now));
        Some(match std::mem::take(&mut self.others) {
            0 => format!("the server refuses a command: {error}"),
            others => format!("the server refuses a command: {error} ({others} others before it)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_everything_does_not_fill_the_log() {
        let (mut refusals, begin) = (Refusals::default(), now());
        let oom = "OOM command not allowed";
        let mut line = |error, seconds| refusals.line(error, begin + Duration::from_secs(seconds));
        assert_eq!(
            line(oom, 0).as_deref(),
            Some("the server refuses a command: OOM command not allowed")
        );
        assert!((0..60).all(|second| line(oom, second).is_none()));
        let later = line(oom, 60).expect("a minute later");
        assert!(later.ends_with("not allowed (60 others before it)"), "{later}");
        assert_eq!(
            line("NOPERM no", 61).as_deref(),
            Some("the server refuses a command: NOPERM no")
        );
    }

    #[test]
    fn alternating_reasons_do_not_fill_the_log() {
        let (mut refusals, begin) = (Refusals::default(), now());
        let mut line = |error: &str, seconds| {
            refusals.line(error, begin + Duration::from_secs(seconds)).is_some()
        };
        assert!(line("OOM no memory", 0) && line("NOPERM no", 0));
        assert!((1..60).all(|second| !line("OOM no memory", second) && !line("NOPERM no", second)));
        assert!(line("OOM no memory", 60) && line("NOPERM no", 60));
        let lines = (0..100).filter(|nth| line(&format!("KIND{nth} no"), 61)).count();
        assert_eq!(lines, REFUSALS_MAX - 2, "the list of reasons does not grow");
    }
}
