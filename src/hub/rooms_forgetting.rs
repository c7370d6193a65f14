//! Rooms forget: kept messages when memory is short, and rooms without members when time is over.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::room::Room;
use crate::hub::rooms::Rooms;
use crate::stats::add;

/// Nanoseconds between two looks for rooms that are over, at least: each passes over all rooms.
const SWEEP_INTERVAL: u64 = 1_000_000_000;

/// Past its bound the history shrinks by a further 32nd of it, so that the rooms are not all looked
/// at for each message.
const SHED_SHARE: usize = 32;

impl Rooms {
    /// Drops kept messages until they take at most `target` bytes, if they take more. The room that
    /// holds most loses its oldest message first. The newest message of a room goes only when no
    /// room has two.
    pub(crate) fn shed_to(&mut self, target: usize) {
        if self.kept_bytes > target {
            self.forget_over();
        }
        if self.kept_bytes > target {
            let target = target - target / SHED_SHARE;
            self.shed_while(|rooms| rooms.kept_bytes > target);
        }
    }

    /// Drops kept messages as [`shed_to`](Self::shed_to) does, while something wants it.
    pub(crate) fn shed_while(&mut self, goes_on: impl Fn(&Self) -> bool) {
        self.forget_over();
        while goes_on(self) {
            let rank = |room: &Room| {
                let (messages, bytes) = room.holds();
                (messages > 1, bytes)
            };
            // The largest loses messages until another one is the largest.
            let (mut largest, mut second) = (None, (false, 0));
            for (name, room) in &self.rooms {
                let rank = rank(room);
                match &mut largest {
                    // Of two equal ones the first by name, so that a run can be repeated.
                    Some((first, most)) if (rank, &*first) <= (*most, name) => {
                        second = second.max(rank);
                    }
                    _ => {
                        let before = largest.replace((Arc::clone(name), rank));
                        second = before.map_or(second, |(_, rank)| rank);
                    }
                }
            }
            let Some((name, _)) = largest else { return };
            loop {
                let Some(room) = self.rooms.get_mut(&name) else { return };
                let freed = room.shed();
                if freed == 0 {
                    return;
                }
                add(&self.counters.history_shed, 1);
                let rank = rank(room);
                self.set_kept_bytes(self.kept_bytes - freed);
                if rank <= second || !goes_on(self) {
                    break;
                }
            }
        }
    }

    /// Forgets the rooms that are over, at most once in a second.
    pub(crate) fn sweep(&mut self) {
        let Some(age) = self.config.age.filter(|_| self.memberless > 0) else { return };
        let now = self.clock.nanos();
        if now < self.sweep_at {
            return;
        }
        self.forget_over();
        let left = self.rooms.values().filter(|room| room.is_empty());
        let next = left.map(|room| room.over_at(age)).min().unwrap_or(u64::MAX);
        self.sweep_at = next.max(now + SWEEP_INTERVAL);
    }

    /// In how long rooms that are over are to be looked for, if any room has no member.
    pub(crate) fn sweep_due(&self) -> Option<Duration> {
        self.config.age?;
        let is_any = self.memberless > 0 && self.sweep_at < u64::MAX;
        is_any.then(|| Duration::from_nanos(self.sweep_at.saturating_sub(self.clock.nanos())))
    }

    /// A room has no member from `now` on.
    pub(super) fn sweep_after(&mut self, now: u64) {
        if let Some(age) = self.config.age {
            self.sweep_at = self.sweep_at.min(now.saturating_add(age));
        }
    }

    pub(super) fn forget_over(&mut self) {
        self.forget_all(|rooms, room| room.is_empty() && rooms.is_over(room));
    }
}
