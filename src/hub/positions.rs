//! The positions of messages that wait.

use std::collections::VecDeque;

/// The position of each message of a backlog, or 0 for one that has none: it was not for the room
/// whose messages the client counts. Consecutive positions take one place together.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    runs: VecDeque<Run>,
}

/// Messages with consecutive positions, or without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The position of the first, or 0.
    first: u64,
    len: u32,
}

impl Run {
    /// The position of the message at `index`.
    fn at(self, index: u32) -> u64 {
        if self.first == 0 { 0 } else { self.first + u64::from(index) }
    }
}

impl Positions {
    /// Adds the position of a message behind all others.
    pub(crate) fn push(&mut self, position: u64) {
        match self.runs.back_mut() {
            Some(run) if run.at(run.len) == position => run.len += 1,
            _ => self.runs.push_back(Run { first: position, len: 1 }),
        }
    }

    /// Removes the position of the oldest message; returns it.
    pub(crate) fn pop(&mut self) -> Option<u64> {
        let run = self.runs.front_mut()?;
        let position = run.first;
        if run.len == 1 {
            self.runs.pop_front();
        } else {
            *run = Run { first: run.at(1), len: run.len - 1 };
        }
        Some(position)
    }

    /// Removes the position of the oldest message but `kept`, which is 0 or 1.
    pub(crate) fn drop_oldest_but(&mut self, kept: usize) {
        let head = if kept > 0 { self.pop() } else { None };
        self.pop();
        if let Some(position) = head {
            self.push_front(position);
        }
    }

    /// Removes all positions but the first `kept` of them, which is 0 or 1.
    pub(crate) fn truncate(&mut self, kept: usize) {
        let head = if kept > 0 { self.pop() } else { None };
        self.runs.clear();
        head.into_iter().for_each(|position| self.push(position));
    }

    /// The positions, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().flat_map(|run| (0..run.len).map(|index| run.at(index)))
    }

    fn push_front(&mut self, position: u64) {
        match self.runs.front_mut() {
            Some(run) if run.first == 0 && position == 0 => run.len += 1,
            _ => self.runs.push_front(Run { first: position, len: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    #[test]
    fn positions_are_those_that_were_pushed() {
        for seed in 0..200 {
            let rng = &mut Rng::with_seed(seed);
            let (mut positions, mut model, mut next) = (Positions::default(), Vec::new(), 7);
            for _ in 0..100 {
                match rng.u8(..10) {
                    0..=5 => {
                        next += u64::from(rng.u8(..4) == 0);
                        let position = if rng.u8(..5) == 0 { 0 } else { next };
                        next += u64::from(position > 0);
                        positions.push(position);
                        model.push(position);
                    }
                    6 | 7 => {
                        let oldest = (!model.is_empty()).then(|| model.remove(0));
                        assert_eq!(positions.pop(), oldest);
                    }
                    8 => {
                        let kept = rng.usize(..2);
                        positions.drop_oldest_but(kept);
                        if model.len() > kept {
                            model.remove(kept);
                        }
                    }
                    _ if rng.u8(..5) == 0 => {
                        let kept = rng.usize(..2);
                        positions.truncate(kept);
                        model.truncate(kept);
                    }
                    _ => {}
                }
                assert_eq!(positions.iter().collect::<Vec<_>>(), model, "seed {seed}");
            }
            let runs = positions.runs.len();
            assert!(runs <= model.len(), "{runs} runs");
        }
    }
}
