//! Peers that hear the newest message of their room, at most one an interval.

use std::time::{Duration, Instant};

use crate::hub::tests::support::number_of;
use crate::sim::notes::{NEVER, Notes, To};
use crate::sim::peer::Peer;
use crate::sim::script::number_of_text;
use crate::sim::world::World;
use crate::time::clock::now;

/// How much later than it may a message goes: deadlines are rounded up to a tick, and the interval
/// begins at one.
const LATE_MAX: Duration = Duration::from_millis(63);

/// What is known of such a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conflated {
    interval: Duration,
    /// When it came.
    came: Instant,
    /// The position of the newest message of its room, and since when that has been it.
    newest: Option<(u64, Instant)>,
}

impl Conflated {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, came: now(), newest: None }
    }

    /// Whether the peer must have heard the newest message of its room, at this position.
    pub(super) fn must_have(&mut self, position: u64) -> bool {
        match self.newest {
            Some((newest, since)) if newest == position => {
                now() - since >= self.interval + LATE_MAX
            }
            _ => {
                self.newest = Some((position, now()));
                false
            }
        }
    }
}

impl World {
    /// No peer was told more messages of its room than intervals have begun since it came. The last one
    /// goes ahead of its end, whenever that is.
    pub(super) fn check_conflated(&self) {
        let notes = self.script.notes();
        for (n, peer) in self.peers.iter().enumerate() {
            let Some(Conflated { interval, came, .. }) = peer.conflated else { continue };
            let taken = taken(&notes, peer);
            let intervals = (now() - came).as_nanos() / interval.as_nanos();
            let may_have_ended = notes.peers[n].gone.from < NEVER;
            let most = intervals as usize + 1 + usize::from(may_have_ended);
            assert!(
                taken <= most,
                "peer {n} was told {taken} messages of its room, {most} at most every {interval:?}"
            );
        }
    }
}

/// How many messages of its room, and to all, the kernel has taken for a peer.
fn taken(notes: &Notes, peer: &Peer) -> usize {
    let said = peer.frames(&peer.line.lock().taken).unwrap_or_default();
    let numbers = said.iter().filter_map(|said| match said.frame.opcode {
        1 => Some(number_of_text(&said.frame.payload, peer.way)),
        2 => Some(number_of(&said.frame.payload)),
        _ => None,
    });
    numbers.filter(|&number| is_conflated(notes, number)).count()
}

/// Whether a message is for a room, or for all, which counts in each room.
pub(super) fn is_conflated(notes: &Notes, number: u32) -> bool {
    matches!(notes.messages[number as usize].to, To::Room(_) | To::All)
}

/// The message that a peer must hear whatever came before it: one that was surely for it, and begun
/// when all others that may have been for it were done.
pub(super) fn last_message(notes: &Notes, n: usize) -> Option<usize> {
    let may_have = |number: &usize| {
        let message = &notes.messages[*number];
        let is_meant =
            is_conflated(notes, *number as u32) && !message.refused && message.except != Some(n);
        is_meant && notes.got(n, message.to, message.span).1
    };
    let others: Vec<_> = (0..notes.messages.len()).filter(may_have).collect();
    let last = *others.iter().max_by_key(|number| notes.messages[**number].span.from)?;
    let from = notes.messages[last].span.from;
    let is_last = |other: &usize| *other == last || notes.messages[*other].span.by < from;
    others.iter().all(is_last).then_some(last)
}
