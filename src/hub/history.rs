//! The messages that a room keeps.

use std::collections::VecDeque;

use crate::hub::client_id::ClientId;
use crate::message::{Encoding, Message};

/// The newest messages of a room, oldest first: a ring, bounded in messages and in bytes.
///
/// A kept message is the one that the queues share. The ring knows no positions: the newest message
/// that it keeps is the newest of its room, or it keeps none.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    slots: VecDeque<Slot>,
    /// Bytes of the plain frames.
    frame_bytes: usize,
    /// Bytes of memory that the slots and their messages take.
    kept_bytes: usize,
}

/// A kept message.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) message: Message,
    /// The client that published it and does not hear it, unless the hub did.
    pub(crate) except: Option<ClientId>,
    /// Bytes of memory when it came. Encodings that are made later do not count here.
    bytes: u32,
}

impl Ring {
    /// Appends a message, and drops the oldest ones past the bounds. A message that alone is longer
    /// than `bytes_max` is not kept, nor any before it.
    pub(crate) fn push(
        &mut self,
        message: &Message,
        except: Option<ClientId>,
        messages_max: usize,
        bytes_max: usize,
    ) {
        let frame_bytes = frame_bytes(message);
        while self.slots.len() >= messages_max.max(1) {
            self.drop_oldest();
        }
        while self.frame_bytes + frame_bytes > bytes_max && self.drop_oldest() > 0 {}
        if messages_max == 0 || frame_bytes > bytes_max {
            return self.clear();
        }
        let bytes = message.size() + size_of::<Slot>();
        self.slots.push_back(Slot { message: message.clone(), except, bytes: bytes as u32 });
        self.frame_bytes += frame_bytes;
        self.kept_bytes += bytes;
    }

    /// Drops the oldest message; returns the memory that it took, 0 if there was none.
    pub(crate) fn drop_oldest(&mut self) -> usize {
        let Some(slot) = self.slots.pop_front() else { return 0 };
        self.frame_bytes -= frame_bytes(&slot.message);
        self.kept_bytes -= slot.bytes as usize;
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        slot.bytes as usize
    }

    /// Drops all messages.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The kept messages from the one at `index` on, oldest first.
    pub(crate) fn slots(&self, index: usize) -> impl Iterator<Item = &Slot> {
        self.slots.range(index.min(self.slots.len())..)
    }

    /// Messages that are kept.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory that they take.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }
}

fn frame_bytes(message: &Message) -> usize {
    message.frame(Encoding::Plain).len()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// What a ring should do, written down naively: all messages ever, and which of them are kept.
    #[derive(Default)]
    struct Model(Vec<usize>);
    impl Model {
        /// The lengths of the frames that are kept: as many of the newest as fit.
        fn kept(&self, messages_max: usize, bytes_max: usize) -> &[usize] {
            let fits = |from: usize| {
                let kept = &self.0[from..];
                kept.len() <= messages_max && kept.iter().sum::<usize>() <= bytes_max
            };
            let from = (0..=self.0.len()).find(|&from| fits(from)).expect("none fit");
            &self.0[from..]
        }
    }
    #[test]
    fn a_ring_keeps_the_newest_that_fit() {
        for seed in 0..400 {
            let rng = &mut Rng::with_seed(seed);
            let (messages_max, bytes_max) = (rng.usize(0..9), rng.usize(1..600));
            let (mut ring, mut model) = (Ring::default(), Model::default());
            for number in 0..rng.u32(1..60) {
                if rng.u8(..6) == 0 {
                    let dropped = ring.drop_oldest();
                    let kept = model.kept(messages_max, bytes_max).len();
                    assert_eq!(dropped > 0, kept > 0);
                    model.0 = model.0.split_off(model.0.len() - kept.saturating_sub(1));
                }
                let message = Message::binary(vec![number as u8; rng.usize(0..200)]);
                ring.push(&message, None, messages_max, bytes_max);
                model.0.push(frame_bytes(&message));
                let lens: Vec<_> = ring.slots(0).map(|slot| frame_bytes(&slot.message)).collect();
                let kept = model.kept(messages_max, bytes_max);
                assert_eq!(lens, kept, "seed {seed}");
                assert_eq!((ring.len(), ring.frame_bytes), (kept.len(), kept.iter().sum()));
                assert_eq!(
                    ring.kept_bytes,
                    ring.slots(0).map(|slot| slot.bytes as usize).sum::<usize>()
                );
                assert_eq!(ring.slots(1).count(), kept.len().saturating_sub(1));
            }
        }
    }
}
