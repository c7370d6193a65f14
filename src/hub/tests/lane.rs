//! A queue as plain data: no executor, a socket that takes what the test lets it take.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::disconnect::Disconnect;
use crate::hub::batch::{Audience, Batch, JoinedFrames};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_outcome::{Drained, Push};
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{
    Frame, Sink, Wakes, decode, fates, number_of, numbered, queue_config,
};
use crate::message::{Encoding, Message};
use crate::overflow::Overflow;
use crate::stats::DeliveryCount;

/// The frame of a small numbered message.
pub(super) const FRAME: usize = 6;

/// A queue, its socket, and the task that would drain it.
pub(super) struct Lane {
    pub(super) queue_config: Arc<QueueConfig>,
    pub(super) queue: Arc<Queue>,
    pub(super) sink: Arc<Sink>,
    pub(super) wakes: Arc<Wakes>,
}

pub(super) fn drained(wrote: bool, empty: bool, phase: Phase) -> Drained {
    Drained { wrote, empty, phase, request: None, position: None, has_gap: false, due: None }
}

impl Lane {
    /// A lane that may be written through; its task has been polled once.
    pub(super) fn new(messages: usize, bytes: usize, overflow: Overflow, room: usize) -> Self {
        let lane = Self::held(messages, bytes, overflow, room);
        lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
        lane.drain();
        lane.wakes.take();
        lane
    }

    pub(super) fn held(messages: usize, bytes: usize, overflow: Overflow, room: usize) -> Self {
        // Every other one has its limits as terms of its own.
        let own = queue_config(messages, bytes, overflow);
        let all = queue_config(messages + 1, bytes * 2, Overflow::Disconnect);
        let queue_config = if bytes % 2 == 0 { own } else { all };
        let queue = Queue::new(&queue_config);
        if bytes % 2 == 1 {
            let (counters, memory) = (&queue_config.counters, &queue_config.memory);
            let (counters, memory) = (Arc::clone(counters), Arc::clone(memory));
            queue.set_terms(QueueConfig { messages, bytes, overflow, counters, memory });
        }
        Self { queue_config, queue, sink: Sink::new(room), wakes: Arc::default() }
    }

    pub(super) fn push(&self, messages: &[Message]) -> Push {
        let tally = DeliveryCount::new(&self.queue_config.counters);
        let mut joined = JoinedFrames::default();
        if self.queue.encoding() == Encoding::Deflate {
            joined.join(messages, true);
        }
        self.queue.push(&Batch::new(messages, &joined, Audience::All, &tally))
    }

    /// Pushes small messages one by one, numbered as `numbers` says.
    pub(super) fn push_each(&self, numbers: std::ops::Range<u32>) -> Push {
        numbers.fold(Push::Ok, |_, number| self.push(&[numbered(number, 4)]))
    }

    pub(super) fn drain(&self) -> Drained {
        self.drain_at_most(usize::MAX)
    }

    pub(super) fn drain_at_most(&self, budget: usize) -> Drained {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        self.queue.poll_drain(&mut cx, budget, |cx, unsent| self.sink.poll_write(cx, unsent))
    }

    pub(super) fn fates(&self) -> [u64; 3] {
        fates(&self.queue_config.counters)
    }

    pub(super) fn frames(&self) -> Vec<Frame> {
        let (frames, cut) = decode(&self.sink.lock().taken);
        assert_eq!(cut, 0, "the stream ends with a whole frame");
        frames
    }
}

/// Takes from a queue without a stream.
pub(super) fn take(lane: &Lane) -> Poll<Result<u32, Disconnect>> {
    let waker = Waker::from(Arc::clone(&lane.wakes));
    let taken = lane.queue.poll_take(&mut Context::from_waker(&waker));
    taken.map_ok(|taken| number_of(taken.message.as_bytes()))
}
