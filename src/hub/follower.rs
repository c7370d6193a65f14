//! Where a hub is in a room that the backplane counts and keeps. Plain data, a part of a driver.

use crate::hub::command::{Dispatched, PublishReply};

/// Where a hub is in a room that keeps messages.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The position of the last message that the manager was told, or of the one before the first.
    last: Option<u64>,
    /// How often what the room keeps is asked for. Meanwhile messages that come and do not follow the
    /// last are dropped: the answer has them, or tells of a gap.
    reads: u32,
    /// Where own messages are answered that were dropped, by position: at most as many as are in
    /// flight.
    deferred: Vec<(u64, PublishReply)>,
}

/// What becomes of a message that came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It follows the last, and is for the manager.
    Follows(Option<PublishReply>),
    /// It is dropped, and what the room keeps is to be read.
    Reads,
    /// It is dropped: what the room keeps is on its way.
    Waits,
}

/// What the manager is to be told of what a room keeps.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next message has the position after this one; whether something was missed before it.
    Begin { position: u64, is_gap: bool },
    /// The message at this index.
    Message { index: usize, reply: Option<PublishReply> },
}

impl Follower {
    /// Where another process was.
    pub(crate) fn restored(last: u64) -> Self {
        Self { last: Some(last), ..Self::default() }
    }

    /// What the room keeps is asked for.
    pub(crate) fn read(&mut self) {
        self.reads += 1;
    }

    /// Whether what the room keeps is on its way.
    pub(crate) fn is_reading(&self) -> bool {
        self.reads > 0
    }

    /// The connection is lost, with what was asked for.
    pub(crate) fn interrupt(&mut self) {
        self.reads = 0;
        self.deferred.clear();
    }

    /// A message came at a position; `reply` hears what becomes of it.
    pub(crate) fn hear(&mut self, position: u64, reply: Option<PublishReply>) -> Heard {
        if self.last.is_some_and(|last| last + 1 == position) {
            self.last = Some(position);
            return Heard::Follows(reply);
        }
        self.deferred.extend(reply.map(|reply| (position, reply)));
        if self.reads == 0 { Heard::Reads } else { Heard::Waits }
    }

    /// What the room keeps has come: `top` is the position of its newest message, `kept` those of
    /// the newest messages, in order.
    pub(crate) fn take(&mut self, top: u64, kept: &[u64]) -> Vec<Step> {
        self.reads = self.reads.saturating_sub(1);
        let mut deferred = std::mem::take(&mut self.deferred);
        let is_gap = self.last.is_some();
        // A higher one belongs to an earlier life of the room.
        let mut last = self.last.filter(|last| *last <= top);
        self.last = Some(top);
        let mut steps = Vec::new();
        for (index, &position) in kept.iter().enumerate() {
            if last.is_some_and(|last| position <= last) {
                continue;
            }
            if last.is_none_or(|last| last + 1 != position) {
                steps.push(Step::Begin { position: position - 1, is_gap });
            }
            last = Some(position);
            let own = deferred.iter().position(|(deferred, _)| *deferred == position);
            let reply = own.map(|own| deferred.swap_remove(own).1);
            steps.push(Step::Message { index, reply });
        }
        if last != Some(top) {
            // What came last is kept no more, or is longer than the longest message.
            steps.push(Step::Begin { position: top, is_gap });
        }
        for (position, reply) in deferred {
            reply.answer(Dispatched { position: Some(position), ..Dispatched::to(0) });
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the manager is told, as numbers: a negative one is where it begins.
    fn take(follower: &mut Follower, top: u64, kept: &[u64]) -> Vec<i64> {
        let steps = follower.take(top, kept);
        let number = |step| match step {
            Step::Begin { position, .. } => -(position as i64),
            Step::Message { index, .. } => kept[index] as i64,
        };
        steps.into_iter().map(number).collect()
    }
    fn follows(follower: &mut Follower, position: u64) -> bool {
        matches!(follower.hear(position, None), Heard::Follows(None))
    }

    /// Invariant 14, between hubs.
    #[test]
    fn what_followers_hear_has_no_silent_gap() {
        let mut follower = Follower::default();
        follower.read();
        assert!(matches!(follower.hear(12, None), Heard::Waits));
        assert_eq!(take(&mut follower, 12, &[10, 11, 12]), [-9, 10, 11, 12]);
        assert!(follows(&mut follower, 13));
        assert!(matches!(follower.hear(15, None), Heard::Reads), "it does not follow");
        follower.read();
        assert_eq!(take(&mut follower, 15, &[13, 14, 15]), [14, 15]);
        follower.read();
        assert_eq!(take(&mut follower, 20, &[18, 19, 20]), [-17, 18, 19, 20], "16 and 17 are gone");
        follower.read();
        assert_eq!(take(&mut follower, 22, &[]), [-22], "nothing is kept");
        follower.read();
        assert_eq!(take(&mut follower, 5, &[4, 5]), [-3, 4, 5], "another life");
        assert!(follows(&mut follower, 6) && !follows(&mut follower, 6));
    }

    #[test]
    fn each_of_several_reads_counts_and_a_lost_one_is_not_waited_for() {
        let mut follower = Follower::default();
        follower.read();
        follower.read();
        assert_eq!(take(&mut follower, 11, &[10, 11]), [-9, 10, 11]);
        assert!(follower.is_reading(), "another answer is on its way");
        assert!(matches!(follower.hear(13, None), Heard::Waits));
        assert_eq!(take(&mut follower, 13, &[12, 13]), [12, 13]);
        assert!(!follower.is_reading());
        follower.read();
        follower.interrupt();
        assert!(!follower.is_reading() && follows(&mut follower, 14));
    }

    /// A reader makes its hub read a room; the room may keep less than comes meanwhile.
    #[test]
    fn what_follows_is_heard_during_a_read() {
        let mut follower = Follower::restored(100);
        follower.read();
        assert!(follows(&mut follower, 101) && follows(&mut follower, 102));
        assert_eq!(take(&mut follower, 102, &[102]), [], "both were told");
        assert!(follows(&mut follower, 103));
    }
}
