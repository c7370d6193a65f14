//! What happened in a run, in the words of its failure message.
//!
//! A run is written down only while its thread records: a seed that fails is run once more for that,
//! and HUBLET_TEST_SEED records from the beginning.

use std::cell::RefCell;
use std::fmt;

use crate::time::clock::now;

/// Events of a peer that a failure message names.
const LAST: usize = 20;

thread_local! {
    static JOURNAL: RefCell<Option<Journal>> = const { RefCell::new(None) };
}

/// The events of one run.
#[derive(Debug)]
struct Journal {
    /// Each event is printed as it happens too.
    prints: bool,
    began: std::time::Instant,
    events: Vec<String>,
}

/// The owner of a line, as events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Peer(usize),
    Poster(usize),
    Poller(usize),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(n) => write!(f, "peer {n}"),
            Self::Poster(n) => write!(f, "poster {n}"),
            Self::Poller(n) => write!(f, "poller {n}"),
        }
    }
}

/// Writes an event down, if the thread records.
macro_rules! event {
    ($($format:tt)*) => {
        if $crate::sim::journal::is_open() {
            $crate::sim::journal::add(format!($($format)*));
        }
    };
}
pub(super) use event;

/// From here on the thread records.
pub(super) fn open(prints: bool) {
    let journal = Journal { prints, began: now(), events: Vec::new() };
    JOURNAL.set(Some(journal));
}

/// The thread records no more; its events.
pub(super) fn close() -> Vec<String> {
    JOURNAL.take().map(|journal| journal.events).unwrap_or_default()
}

/// A run begins, in a time of its own.
pub(super) fn begin() {
    JOURNAL.with_borrow_mut(|journal| {
        if let Some(journal) = journal {
            journal.began = now();
        }
    });
}

pub(super) fn is_open() -> bool {
    JOURNAL.with_borrow(Option::is_some)
}

pub(super) fn add(event: String) {
    JOURNAL.with_borrow_mut(|journal| {
        let Some(journal) = journal else { return };
        let time = now().saturating_duration_since(journal.began).as_secs_f64();
        let event = format!("{time:9.3} s  {event}");
        if journal.prints {
            eprintln!("{event}");
        }
        journal.events.push(event);
    });
}

/// The message of a run that failed: the promise that was broken, the last events of what
/// it names (of all, if it names none), and how to replay the run.
pub(super) fn message(test: &str, seed: u64, promise: &str, events: &[String]) -> String {
    let promise = match promise.strip_prefix(COMPARED) {
        Some(promise) => format!("not so: {promise}"),
        None => promise.to_owned(),
    };
    let name = named(&promise).filter(|name| events.iter().any(|event| mentions(event, name)));
    let about: Vec<_> = match &name {
        Some(name) => events.iter().filter(|event| mentions(event, name)).collect(),
        None => events.iter().collect(),
    };
    let last = &about[about.len().saturating_sub(LAST)..];
    let whose = name.as_deref().unwrap_or("the run");
    let mut message = format!(
        "{promise}\n  The last {} of {} events of {whose}, by the virtual time:\n",
        last.len(),
        about.len()
    );
    for event in last {
        message.push_str(&format!("  {event}\n"));
    }
    message.push_str(&format!(
        "  Replay it, with all events:\n  HUBLET_TEST_SEED={seed} cargo test --release --lib \
         {test} -- --nocapture\n"
    ));
    message
}

/// A number of bytes, as events name it.
pub(super) fn bytes(n: usize) -> String {
    if n == usize::MAX { "any number of bytes".to_owned() } else { format!("{n} bytes") }
}

/// What `assert_eq!` says ahead of the promise.
const COMPARED: &str = "assertion `left == right` failed: ";

/// The first peer, poster, poller, client or message that a sentence names, in this order.
fn named(sentence: &str) -> Option<String> {
    ["peer ", "poster ", "poller ", "client ", "message "].iter().find_map(|word| {
        let (_, rest) = sentence.split_once(word)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        (!digits.is_empty()).then(|| format!("{word}{digits}"))
    })
}

/// Whether an event names it, and not another whose number begins like its own.
fn mentions(event: &str, name: &str) -> bool {
    event
        .match_indices(name)
        .any(|(at, _)| !event[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

#[test]
fn a_failure_names_the_promise_the_last_events_of_its_peer_and_the_replay() {
    let mut events: Vec<_> = (0..30).map(|n| format!("peer 2 says {n}")).collect();
    events.push("peer 20 goes".to_owned());
    events.push("the program kicks peer 2".to_owned());
    let promise = "assertion `left == right` failed: peer 2 hears of its end";
    let message = message("sim::seeds::every", 7, promise, &events);
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(lines[0], "not so: peer 2 hears of its end");
    assert_eq!(lines[1], "  The last 20 of 31 events of peer 2, by the virtual time:");
    assert_eq!((lines[2], lines[21]), ("  peer 2 says 11", "  the program kicks peer 2"));
    let replay = "  HUBLET_TEST_SEED=7 cargo test --release --lib sim::seeds::every -- --nocapture";
    assert_eq!(lines[23], replay);
    assert_eq!(lines.len(), 24);
}
