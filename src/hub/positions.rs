//! The positions of messages that wait, or are about to.

use std::collections::VecDeque;

/// The positions of a batch, for a client that is told them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbering {
    /// It is not told.
    Off,
    /// The messages have none.
    None,
    /// They begin behind this one.
    Behind(u64),
}

impl Numbering {
    /// The position of the message at `index`.
    pub(super) fn at(self, index: usize) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::None => Some(0),
            Self::Behind(position) => Some(position + index as u64 + 1),
        }
    }
}

/// The position of each message of a backlog, or 0 for one that has none: it was not for the room
/// whose messages the client counts. Consecutive positions take one span together.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    spans: VecDeque<Span>,
}

/// Messages with consecutive positions, or without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// The position of the first, or 0.
    first: u64,
    len: u32,
}

impl Span {
    /// The position of the message at `index`.
    fn at(self, index: u32) -> u64 {
        if self.first == 0 { 0 } else { self.first + u64::from(index) }
    }
}

impl Positions {
    /// Adds the position of a message behind all others.
    pub(crate) fn push(&mut self, position: u64) {
        match self.spans.back_mut() {
            Some(span) if span.at(span.len) == position => span.len += 1,
            _ => self.spans.push_back(Span { first: position, len: 1 }),
        }
    }

    /// Removes the position of the oldest message; returns it.
    pub(crate) fn pop(&mut self) -> Option<u64> {
        let span = self.spans.front_mut()?;
        let position = span.first;
        if span.len == 1 {
            self.spans.pop_front();
        } else {
            *span = Span { first: span.at(1), len: span.len - 1 };
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
        self.spans.clear();
        head.into_iter().for_each(|position| self.push(position));
    }

    /// The positions, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.spans.iter().flat_map(|span| (0..span.len).map(|index| span.at(index)))
    }

    fn push_front(&mut self, position: u64) {
        match self.spans.front_mut() {
            Some(span) if span.first == 0 && position == 0 => span.len += 1,
            _ => self.spans.push_front(Span { first: position, len: 1 }),
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
            let spans = positions.spans.len();
            assert!(spans <= model.len(), "{spans} runs");
        }
    }
}
