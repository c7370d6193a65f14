//! The naive model of a client: what its queue, its task and its socket do with messages, and the rooms
//! that it is in.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::client_id::ClientId;
use crate::hub::queue::Queue;
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{Sink, decode, number_of};
use crate::label::split_label;
use crate::message::Encoding;
use crate::overflow::Overflow;

/// A client as it should be in the registry, and its queue as it is.
#[derive(Debug)]
pub(super) struct Naive {
    pub(super) id: ClientId,
    pub(super) user: Option<&'static str>,
    pub(super) rooms: Vec<&'static str>,
    pub(super) prefixes: Vec<&'static str>,
    pub(super) wire: Wire,
    pub(super) queue: Arc<Queue>,
    pub(super) sink: Arc<Sink>,
    pub(super) encoding: Encoding,
    pub(super) has_labels: bool,
}

impl Naive {
    pub(super) fn hears(&self, room: &str) -> bool {
        self.rooms.contains(&room) || self.prefixes.iter().any(|prefix| room.starts_with(prefix))
    }

    pub(super) fn compare(&self, labels: &[String]) {
        let (frames, _) = decode(&self.sink.lock().taken);
        let numbers = frames.iter().map(|frame| {
            if !self.has_labels {
                return number_of(&frame.payload);
            }
            let (room, payload) = split_label(&frame.payload).expect("a label");
            let number = number_of(payload);
            assert_eq!(room, labels[number as usize], "the label of {number}");
            number
        });
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers, self.wire.received, "received by {}", self.id);
    }
}

/// A list of waiting messages and a socket.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) overflow: Overflow,
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) phase: Phase,
    pub(crate) through: bool,
    /// Number and length of frame of each message that waits; of the first `cut` bytes are out.
    pub(crate) waiting: VecDeque<(u32, usize)>,
    pub(crate) cut: usize,
    pub(crate) room: usize,
    pub(crate) at_most: usize,
    pub(crate) broken: bool,
    pub(crate) received: Vec<u32>,
    pub(crate) missed: u64,
    pub(crate) lost: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Ok,
    Full,
    Gone,
}

impl Wire {
    pub(crate) fn push(&mut self, run: &[(u32, usize)]) -> Pushed {
        if matches!(self.phase, Phase::Closing | Phase::Evicted | Phase::Dead) {
            return Pushed::Gone;
        }
        let mut rest = run;
        if self.phase == Phase::Open && self.through && self.waiting.is_empty() {
            if self.broken {
                self.lost += run.len() as u64;
                self.phase = Phase::Dead;
                return Pushed::Ok;
            }
            let mut taken = run.iter().map(|m| m.1).sum::<usize>().min(self.room).min(self.at_most);
            self.room -= taken;
            while let Some((&(number, len), after)) = rest.split_first() {
                if taken < len {
                    if taken > 0 {
                        self.waiting.push_back((number, len));
                        self.cut = taken;
                        rest = after;
                    }
                    break;
                }
                taken -= len;
                self.received.push(number);
                rest = after;
            }
        }
        for (index, &(number, len)) in rest.iter().enumerate() {
            if self.make_room(len) {
                self.waiting.push_back((number, len));
            } else if self.overflow == Overflow::Disconnect {
                let kept = usize::from(self.cut > 0);
                self.missed += (self.waiting.len() - kept + rest.len() - index) as u64;
                self.waiting.truncate(kept);
                self.phase = Phase::Evicted;
                return Pushed::Full;
            } else {
                self.missed += 1;
            }
        }
        Pushed::Ok
    }

    fn make_room(&mut self, len: usize) -> bool {
        loop {
            let bytes: usize = self.waiting.iter().map(|m| m.1).sum();
            if self.waiting.len() < self.messages_max && bytes + len <= self.bytes_max {
                return true;
            }
            let oldest = usize::from(self.cut > 0);
            if self.overflow != Overflow::DropOldest || self.waiting.len() <= oldest {
                return false;
            }
            self.waiting.remove(oldest);
            self.missed += 1;
        }
    }

    pub(crate) fn drain(&mut self) {
        if matches!(self.phase, Phase::Handshaking | Phase::Dead) {
            return;
        }
        if self.broken && !self.waiting.is_empty() {
            self.kill();
            return;
        }
        while let Some(&(number, len)) = self.waiting.front() {
            let taken = self.room.min(len - self.cut);
            self.room -= taken;
            self.cut += taken;
            if self.cut < len {
                return;
            }
            self.cut = 0;
            self.waiting.pop_front();
            self.received.push(number);
        }
    }

    pub(crate) fn kill(&mut self) {
        self.lost += self.waiting.len() as u64;
        self.waiting.clear();
        self.cut = 0;
        self.phase = Phase::Dead;
    }
}
