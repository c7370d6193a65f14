//! The queue as plain data: no executor, a socket that takes what the test lets it take.

use std::collections::VecDeque;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use crate::disconnect::Disconnect;
use crate::hub::backlog::backlog_size;
use crate::hub::batch::{Audience, Batch, JoinedFrames};
use crate::hub::client_id::ClientId;
use crate::hub::cursor::{Cursor, Reader, Reading};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::history_config::HistoryConfig;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_outcome::{Drained, Push};
use crate::hub::queue_state::Phase;
use crate::hub::registry::Registry;
use crate::hub::since::Since;
use crate::hub::tests::support::{
    Frame, Sink, Wakes, decode, fates, number_of, numbered, queue_config, seeded,
};
use crate::message::{Encoding, Message};
use crate::overflow::Overflow;
use crate::stats::DeliveryCount;

/// A queue, its socket, and the task that would drain it.
struct Lane {
    queue_config: Arc<QueueConfig>,
    queue: Arc<Queue>,
    sink: Arc<Sink>,
    wakes: Arc<Wakes>,
}

fn drained(wrote: bool, empty: bool, phase: Phase) -> Drained {
    Drained { wrote, empty, phase, request: None, position: None, has_gap: false }
}

impl Lane {
    /// A lane that may be written through; its task has been polled once.
    fn new(messages: usize, bytes: usize, overflow: Overflow, room: usize) -> Self {
        let lane = Self::held(messages, bytes, overflow, room);
        lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
        lane.drain();
        lane.wakes.take();
        lane
    }

    fn held(messages: usize, bytes: usize, overflow: Overflow, room: usize) -> Self {
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

    fn push(&self, messages: &[Message]) -> Push {
        let tally = DeliveryCount::new(&self.queue_config.counters);
        let mut joined = JoinedFrames::default();
        if self.queue.encoding() == Encoding::Deflate {
            joined.join(messages, true);
        }
        self.queue.push(&Batch::new(messages, &joined, Audience::All, &tally))
    }

    /// Pushes small messages one by one, numbered as `numbers` says.
    fn push_each(&self, numbers: std::ops::Range<u32>) -> Push {
        numbers.fold(Push::Ok, |_, number| self.push(&[numbered(number, 4)]))
    }

    fn drain(&self) -> Drained {
        self.drain_at_most(usize::MAX)
    }

    fn drain_at_most(&self, budget: usize) -> Drained {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        self.queue.poll_drain(&mut cx, budget, |cx, unsent| self.sink.poll_write(cx, unsent))
    }

    fn fates(&self) -> [u64; 3] {
        fates(&self.queue_config.counters)
    }

    fn frames(&self) -> Vec<Frame> {
        let (frames, cut) = decode(&self.sink.lock().taken);
        assert_eq!(cut, 0, "the stream ends with a whole frame");
        frames
    }
}

/// A process that takes a client over learns its limits from the handler, after its place.
#[test]
fn a_client_with_replay_of_its_own_waits_in_its_room_after_a_restart_too() {
    for (all, own, waits) in [
        (Overflow::Disconnect, Overflow::Replay, true),
        (Overflow::Replay, Overflow::Disconnect, false),
    ] {
        let lane = Lane::held(2, 1_000, all, 0);
        let mut cursor = Cursor::new("a".into(), Reading::PLAIN, 7, 7);
        cursor.keeps = true;
        lane.queue.set_cursor(cursor);
        let (counters, memory) = (&lane.queue_config.counters, &lane.queue_config.memory);
        let (counters, memory) = (Arc::clone(counters), Arc::clone(memory));
        let terms = QueueConfig { messages: 2, bytes: 1_000, overflow: own, counters, memory };
        lane.queue.set_terms(terms);
        lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
        assert_eq!(lane.push_each(0..2), Push::Ok);
        assert_eq!(lane.push_each(2..3), if waits { Push::Ok } else { Push::Full });
    }
}

/// Another process may take over what neither has anything to write nor a gap to tell of.
#[test]
fn a_client_is_clean_once_it_has_all_and_was_told_of_its_gap() {
    let lane = Lane::held(8, 1_000, Overflow::Disconnect, 0);
    let reading = Reading { reader: Reader::Numbered, since: Some(Since::Now), ends: false };
    lane.queue.set_cursor(Cursor::new("a".into(), reading, 7, 7));
    assert!(lane.queue.clean().is_none(), "it is in its handshake");
    lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
    assert_eq!(lane.queue.clean().and_then(|clean| clean.cursor).map(|at| at.position), Some(7));
    lane.push_each(0..1);
    assert!(lane.queue.clean().is_none(), "a message waits");
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert!(lane.queue.clean().is_some());
    assert!(!lane.queue.begin_anew("a", 50), "it is told of gaps");
    assert!(lane.drain().has_gap);
    lane.queue.note_gap_sent(49);
    assert!(lane.queue.clean().is_none(), "it was told of another one");
    lane.queue.note_gap_sent(50);
    assert_eq!(lane.queue.clean().and_then(|clean| clean.cursor).map(|at| at.position), Some(50));
    lane.queue.close(Disconnect::NORMAL);
    assert!(lane.queue.clean().is_none());
}

/// Takes from a queue without a stream.
fn take(lane: &Lane) -> Poll<Result<u32, Disconnect>> {
    let waker = Waker::from(Arc::clone(&lane.wakes));
    let taken = lane.queue.poll_take(&mut Context::from_waker(&waker));
    taken.map_ok(|taken| number_of(taken.message.as_bytes()))
}

/// Frames of both kinds in one queue, cut at every place: whole on the wire, and in order.
#[test]
fn compressed_frames_wait_and_leave_as_plain_ones_do() {
    let message = |number: u32| {
        let message = numbered(number, 40 * number as usize);
        if number % 3 > 0 {
            message.deflate(&Arc::default());
        }
        message
    };
    for at_most in 1..60 {
        let lane = Lane::held(40, 10_000, Overflow::Disconnect, 0);
        lane.queue.set_encoding(Encoding::Deflate);
        lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
        lane.sink.lock().at_most = at_most;
        lane.sink.lock().room = 7;
        assert_eq!(lane.push(&[message(1), message(2)]), Push::Ok);
        (3..12).for_each(|number| assert_eq!(lane.push(&[message(number)]), Push::Ok));
        let waits: usize = (1..12).map(|n| message(n).frame(Encoding::Deflate).len()).sum();
        assert!(lane.queue.depth().1 <= waits);
        lane.sink.lock().room = usize::MAX;
        while !lane.drain().empty {}
        let frames = lane.frames();
        let numbers: Vec<_> = frames.iter().map(|frame| number_of(&frame.payload)).collect();
        assert_eq!(numbers, (1..12).collect::<Vec<_>>());
        assert!(frames.iter().zip(1..).all(|(f, n): (_, u32)| f.is_compressed == (n % 3 > 0)));
        assert_eq!(lane.fates(), [11, 0, 0]);
    }
}

#[test]
fn taker_gets_every_message_in_order_and_then_the_reason() {
    let lane = Lane::held(40, 1_000, Overflow::Disconnect, 0);
    lane.queue.open(None);
    assert_eq!(take(&lane), Poll::Pending);
    assert_eq!(lane.push_each(0..40), Push::Ok);
    assert_eq!(lane.wakes.take(), 1, "the first push wakes, the others find the task awake");
    lane.queue.close(Disconnect::RESTART);
    for number in 0..40 {
        assert_eq!(take(&lane), Poll::Ready(Ok(number)));
    }
    assert_eq!((lane.queue.depth(), lane.queue.has_backlog()), ((0, 0), false));
    assert_eq!(lane.fates(), [40, 0, 0]);
    for _ in 0..2 {
        assert_eq!(take(&lane), Poll::Ready(Err(Disconnect::RESTART)));
    }
}

#[test]
fn taker_that_does_not_keep_up_is_evicted_and_hears_what_it_missed() {
    let lane = Lane::held(4, 1_000, Overflow::Disconnect, 0);
    lane.queue.open(None);
    assert_eq!(take(&lane), Poll::Pending);
    assert_eq!(lane.push_each(0..4), Push::Ok);
    assert_eq!(take(&lane), Poll::Ready(Ok(0)));
    assert_eq!(lane.push_each(4..6), Push::Full);
    let reason = Disconnect::new(4108, "too slow: missed 5 messages");
    assert_eq!(take(&lane), Poll::Ready(Err(reason)));
    assert_eq!(lane.fates(), [1, 5, 0]);
}

/// The frame of a small numbered message.
const FRAME: usize = 6;

#[test]
fn queue_knows_whether_its_client_was_sent_anything_but_the_end() {
    let lane = || Lane::new(4, 1_000, Overflow::Disconnect, usize::MAX);
    let quiet = lane();
    quiet.queue.close(Disconnect::NORMAL);
    quiet.queue.push_close(&Disconnect::NORMAL.frame());
    quiet.drain();
    assert!(!quiet.queue.has_sent());
    let written = lane();
    written.push_each(0..1);
    assert!(written.queue.has_sent());
    let pinged = lane();
    assert!(pinged.queue.push_control(b"\x89\0") && pinged.queue.has_sent());
}

#[test]
fn idle_queue_writes_through_and_makes_no_channel() {
    let lane = Lane::new(4, 1_000, Overflow::Disconnect, usize::MAX);
    assert_eq!(lane.push_each(0..3), Push::Ok);
    assert_eq!(lane.sink.numbers(), [0, 1, 2]);
    assert_eq!(lane.queue.depth(), (0, 0));
    assert!(!lane.queue.has_backlog());
}

#[test]
fn write_through_wakes_no_task() {
    let lane = Lane::new(4, 1_000, Overflow::Disconnect, usize::MAX);
    lane.push_each(0..3);
    assert_eq!(lane.wakes.take(), 0);
}

#[test]
fn batch_of_messages_leaves_in_one_write() {
    let lane = Lane::new(64, 10_000, Overflow::Disconnect, usize::MAX);
    let run: Vec<_> = (0..32).map(|number| numbered(number, 4)).collect();
    assert_eq!(lane.push(&run), Push::Ok);
    assert_eq!(lane.sink.lock().writes, 1);
    assert_eq!(lane.sink.numbers(), (0..32).collect::<Vec<_>>());
}

#[test]
fn rest_of_a_cut_frame_goes_first_by_drain() {
    let lane = Lane::new(4, 1_000, Overflow::Disconnect, 10);
    assert_eq!(lane.push(&[numbered(0, 4), numbered(1, 4), numbered(2, 4)]), Push::Ok);
    assert_eq!(lane.fates(), [1, 0, 0], "the second is cut, so not delivered");
    assert_eq!(lane.queue.depth(), (2, 2 * FRAME));
    assert_eq!(lane.wakes.take(), 1);
    lane.sink.grant(100);
    assert_eq!(lane.drain(), drained(true, true, Phase::Open));
    assert_eq!(lane.sink.numbers(), [0, 1, 2]);
    assert_eq!(lane.fates(), [3, 0, 0]);
}

#[test]
fn push_that_finds_the_queue_behind_wakes_no_task() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..1);
    assert_eq!(lane.wakes.take(), 1, "the first wakes the task");
    lane.drain();
    lane.push_each(1..5);
    assert_eq!(lane.wakes.take(), 0);
    assert_eq!(lane.queue.depth().0, 5);
}

#[test]
fn push_that_finds_the_queue_behind_makes_no_system_call() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..1);
    let writes = lane.sink.lock().writes;
    lane.sink.grant(100);
    lane.push_each(1..5);
    assert_eq!(lane.sink.lock().writes, writes);
    assert_eq!(lane.sink.numbers(), [], "nothing overtakes what waits");
}

#[test]
fn queue_without_a_direct_writer_lets_its_task_write() {
    let lane = Lane::held(8, 1_000, Overflow::Disconnect, usize::MAX);
    lane.queue.open(None);
    lane.drain();
    lane.push_each(0..2);
    assert_eq!(lane.wakes.take(), 1);
    assert_eq!(lane.sink.numbers(), []);
    lane.drain();
    assert_eq!(lane.sink.numbers(), [0, 1]);
    lane.push_each(2..3);
    assert_eq!(lane.wakes.take(), 1, "a queue that was emptied wakes again");
}

#[test]
fn nothing_is_written_before_the_handshake_is_over() {
    let lane = Lane::held(8, 1_000, Overflow::Disconnect, usize::MAX);
    assert_eq!(lane.push_each(0..2), Push::Ok);
    assert_eq!(lane.drain(), drained(false, false, Phase::Handshaking));
    assert_eq!(lane.sink.lock().writes, 0);
    lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
    assert_eq!(lane.push_each(2..3), Push::Ok);
    lane.drain();
    assert_eq!(lane.sink.numbers(), [0, 1, 2], "what came first goes first");
}

#[test]
fn channel_is_gone_once_drained() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..3);
    assert!(lane.queue.has_backlog());
    lane.sink.grant(2 * FRAME);
    lane.drain();
    assert!(lane.queue.has_backlog(), "one still waits");
    lane.sink.grant(FRAME);
    lane.drain();
    assert!(!lane.queue.has_backlog());
}

#[test]
fn drain_past_its_budget_wakes_its_task() {
    let lane = Lane::new(64, 10_000, Overflow::Disconnect, 0);
    lane.push_each(0..10);
    lane.sink.lock().at_most = FRAME;
    lane.sink.grant(usize::MAX);
    lane.wakes.take();
    assert!(!lane.drain_at_most(3 * FRAME).empty);
    assert_eq!(lane.wakes.take(), 1);
    assert_eq!(lane.queue.depth().0, 7);
}

#[test]
fn control_frame_goes_ahead_of_whole_messages_and_behind_a_cut_one() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 3);
    lane.push_each(0..3);
    assert!(lane.queue.push_control(&[0x8a, 0]));
    lane.sink.grant(usize::MAX);
    lane.drain();
    let order: Vec<_> = lane.frames().iter().map(|frame| frame.opcode).collect();
    assert_eq!(order, [2, 10, 2, 2]);
    assert_eq!(lane.sink.numbers(), [0, 1, 2]);
}

/// Invariant 3: a peer that pings and never reads makes us hold a few pongs at most.
#[test]
fn control_frames_are_bounded() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    let pong = [0x8a; 127];
    let taken = (0..100).take_while(|_| lane.queue.push_control(&pong)).count();
    assert!((2..4).contains(&taken), "{taken} pongs");
}

#[test]
fn nothing_follows_a_close_frame() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.queue.close(Disconnect::NORMAL);
    lane.queue.push_close(&Disconnect::NORMAL.frame());
    lane.queue.evict();
    lane.queue.push_close(&Disconnect::SLOW.frame());
    lane.queue.push_control(&[0x8a, 0]);
    lane.sink.grant(usize::MAX);
    lane.drain();
    let frames = lane.frames();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0].payload[..2], 1000u16.to_be_bytes());
}

/// No byte of one frame stands inside another, and both kinds keep their order.
#[test]
fn frames_stay_whole_and_in_order_at_any_partial_write() {
    seeded(30, |rng| {
        let lane = Lane::held(1 << 20, 1 << 30, Overflow::Disconnect, 0);
        let (mut data, mut control) = (0, 0);
        for _ in 0..400 {
            match rng.u8(0..11) {
                0..4 => {
                    let run: Vec<_> = (0..rng.u32(1..5))
                        .map(|n| {
                            numbered(
                                data + n,
                                *rng.choice(&[4, 9, 125, 126, 300, 900, 4_000, 70_000]).expect(""),
                            )
                        })
                        .collect();
                    data += run.len() as u32;
                    assert_eq!(lane.push(&run), Push::Ok);
                }
                4..6 => {
                    let payload = vec![control; rng.usize(1..126)];
                    let mut frame = vec![0x8a, payload.len() as u8];
                    frame.extend(payload);
                    control += u8::from(lane.queue.push_control(&frame));
                }
                6..8 => {
                    lane.sink.lock().at_most = rng.usize(1..300);
                    lane.sink.grant(*rng.choice(&[1, 5, 100, 5_000, 100_000]).expect(""));
                }
                8 => lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>)),
                _ => drop(lane.drain_at_most(rng.usize(1..100_000))),
            }
        }
        lane.queue.open(None);
        lane.sink.lock().at_most = usize::MAX;
        lane.sink.grant(usize::MAX);
        assert!(lane.drain().empty);
        assert_eq!(lane.sink.numbers(), (0..data).collect::<Vec<_>>());
        let frames = lane.frames();
        let pongs: Vec<u8> =
            frames.iter().filter(|f| f.opcode == 10).map(|f| f.payload[0]).collect();
        assert_eq!(pongs, (0..control).collect::<Vec<_>>());
        assert_eq!(lane.fates(), [u64::from(data), 0, 0]);
    });
}

/// Invariants 3 and 10: neither bound is ever passed, and no message is counted twice or not at
/// all, whatever the policy.
#[test]
fn bounds_hold_and_fates_add_up_under_each_policy() {
    for overflow in [Overflow::Disconnect, Overflow::DropNewest, Overflow::DropOldest] {
        seeded(60, |rng| {
            let (messages, bytes) = (rng.usize(1..10), rng.usize(104..400));
            let mut pushed = 0;
            let lane = Lane::held(messages, bytes, overflow, 0);
            for _ in 0..300 {
                match rng.u8(0..20) {
                    0..9 => {
                        let run: Vec<_> =
                            (0..rng.u32(1..5)).map(|n| numbered(n, rng.usize(4..100))).collect();
                        if lane.push(&run) != Push::Gone {
                            pushed += run.len() as u64;
                        }
                    }
                    9..14 => lane.sink.grant(rng.usize(1..200)),
                    14 => lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>)),
                    _ => drop(lane.drain()),
                }
                let (waiting, waiting_bytes) = lane.queue.depth();
                assert!(waiting <= messages, "{waiting} of {messages} messages wait");
                assert!(waiting_bytes <= bytes, "{waiting_bytes} of {bytes} bytes wait");
                let sum: u64 = lane.fates().iter().sum();
                assert_eq!(sum + waiting as u64, pushed);
            }
            lane.queue.disconnect();
            assert_eq!(lane.fates().iter().sum::<u64>(), pushed);
            assert_eq!(lane.fates()[0], lane.sink.numbers().len() as u64);
        });
    }
}

#[test]
fn each_bound_evicts_by_itself() {
    let by_messages = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    assert_eq!(by_messages.push_each(0..3), Push::Ok);
    assert_eq!(by_messages.push_each(3..4), Push::Full);
    let by_bytes = Lane::new(100, 3 * FRAME, Overflow::Disconnect, 0);
    assert_eq!(by_bytes.push_each(0..3), Push::Ok);
    assert_eq!(by_bytes.push_each(3..4), Push::Full);
}

#[test]
fn drop_newest_keeps_the_oldest() {
    let lane = Lane::new(3, 1_000, Overflow::DropNewest, 0);
    assert_eq!(lane.push_each(0..7), Push::Ok);
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert_eq!(lane.sink.numbers(), [0, 1, 2]);
    assert_eq!(lane.queue.missed(), 4);
}

#[test]
fn drop_oldest_keeps_the_newest_and_a_cut_frame() {
    let lane = Lane::new(3, 1_000, Overflow::DropOldest, 1);
    assert_eq!(lane.push_each(0..7), Push::Ok);
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert_eq!(lane.sink.numbers(), [0, 5, 6]);
    assert_eq!(lane.queue.missed(), 4);
}

/// Messages that a drain has taken out of the channel are older than those in it.
#[test]
fn drop_oldest_drops_what_a_drain_has_taken_out_first() {
    let lane = Lane::new(3, 1_000, Overflow::DropOldest, 0);
    lane.push_each(0..2);
    lane.drain();
    lane.push_each(2..5);
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert_eq!(lane.sink.numbers(), [2, 3, 4]);
}

/// Invariant 7: of an evicted client's backlog nothing is sent but the rest of a cut frame.
#[test]
fn eviction_keeps_only_a_cut_frame_and_control() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, FRAME + 2);
    lane.push_each(0..4);
    assert!(lane.queue.push_control(&[0x8a, 0]));
    assert_eq!(lane.push_each(4..5), Push::Full);
    assert_eq!(lane.queue.depth(), (1, FRAME));
    lane.sink.grant(usize::MAX);
    lane.drain();
    let order: Vec<_> = lane.frames().iter().map(|frame| frame.opcode).collect();
    assert_eq!(order, [2, 2, 10]);
    assert_eq!(lane.sink.numbers(), [0, 1]);
    assert_eq!(lane.fates(), [2, 3, 0]);
}

/// Invariant 7: nor is the channel kept that held it.
#[test]
fn eviction_frees_the_channel_at_once() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..4);
    assert!(!lane.queue.has_backlog());
    assert_eq!(lane.queue.depth(), (0, 0));
}

#[test]
fn eviction_wakes_the_task_and_says_how_many_were_missed() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..3);
    lane.drain();
    lane.wakes.take();
    lane.push_each(3..4);
    assert_eq!(lane.wakes.take(), 1);
    let reason = lane.queue.reason().expect("evicted");
    assert_eq!((reason.code(), reason.reason()), (4108, "too slow: missed 4 messages"));
    assert_eq!(lane.queue_config.counters.clients_evicted.load(Ordering::Relaxed), 1);
}

#[test]
fn close_wakes_the_task() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, usize::MAX);
    lane.queue.close(Disconnect::NORMAL);
    assert_eq!(lane.wakes.take(), 1);
}

#[test]
fn closed_queue_still_writes_what_waits() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..2);
    lane.queue.close(Disconnect::NORMAL);
    lane.sink.grant(usize::MAX);
    assert_eq!(lane.drain(), drained(true, true, Phase::Closing));
    assert_eq!(lane.sink.numbers(), [0, 1]);
}

#[test]
fn first_reason_stands() {
    let closed = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    closed.queue.close(Disconnect::NORMAL);
    closed.queue.close(Disconnect::GOING_AWAY);
    assert_eq!(closed.queue.reason(), Some(Disconnect::NORMAL));

    let evicted = Lane::new(1, 1_000, Overflow::Disconnect, 0);
    evicted.push_each(0..2);
    evicted.queue.close(Disconnect::GOING_AWAY);
    assert_eq!(evicted.queue.reason().map(|reason| reason.code()), Some(4108));
}

#[test]
fn push_after_the_end_is_gone_and_not_counted() {
    type End = fn(&Queue);
    let ends: [End; 3] = [
        |queue| queue.close(Disconnect::NORMAL),
        Queue::evict,
        |queue| assert_eq!(queue.disconnect(), None),
    ];
    for end in ends {
        let lane = Lane::new(3, 1_000, Overflow::Disconnect, usize::MAX);
        end(&lane.queue);
        assert_eq!(lane.push_each(0..1), Push::Gone);
        assert_eq!(lane.fates(), [0, 0, 0]);
        assert_eq!(lane.sink.lock().writes, 0);
    }
}

/// Invariant 6: the mark is the evidence, and it is given out once.
#[test]
fn disconnect_returns_the_id_once() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    let mut registry = Registry::new(
        1,
        1,
        HistoryConfig::none(),
        Arc::clone(&lane.queue_config.counters),
        &lane.queue_config.memory,
    );
    let id: ClientId =
        registry.insert(Arc::clone(&lane.queue), None, &[], 0, Reading::PLAIN).expect("a place").id;
    assert_eq!(lane.queue.disconnect(), Some(id));
    assert_eq!(lane.queue.disconnect(), None);
}

#[test]
fn disconnect_of_a_client_that_the_registry_removed_returns_no_id() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    let mut registry = Registry::new(
        1,
        1,
        HistoryConfig::none(),
        Arc::clone(&lane.queue_config.counters),
        &lane.queue_config.memory,
    );
    let id =
        registry.insert(Arc::clone(&lane.queue), None, &[], 0, Reading::PLAIN).expect("a place").id;
    registry.remove(id, Disconnect::NORMAL);
    assert_eq!(lane.queue.disconnect(), None);
}

#[test]
fn disconnect_counts_what_waits_as_lost_once() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, FRAME + 1);
    lane.push_each(0..4);
    lane.queue.disconnect();
    lane.queue.disconnect();
    assert_eq!(lane.fates(), [1, 0, 3], "the cut one is lost as well");
    assert_eq!(lane.queue.depth(), (0, 0));
    assert!(!lane.queue.has_backlog());
}

#[test]
fn dead_direct_writer_counts_the_batch_as_lost_and_wakes_the_task() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, usize::MAX);
    lane.sink.break_off();
    assert_eq!(lane.push(&[numbered(0, 4), numbered(1, 4)]), Push::Ok);
    assert_eq!(lane.fates(), [0, 0, 2]);
    assert_eq!(lane.wakes.take(), 1);
    assert_eq!(lane.drain().phase, Phase::Dead);
    assert_eq!(lane.push_each(2..3), Push::Gone);
}

#[test]
fn stream_that_fails_in_a_drain_counts_what_waits_as_lost() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, FRAME + 1);
    lane.push_each(0..4);
    lane.sink.break_off();
    assert_eq!(lane.drain().phase, Phase::Dead);
    assert_eq!(lane.fates(), [1, 0, 3]);
}

/// Invariant 12: nor does a stream that lies about what it took harm the count.
#[test]
fn stream_that_claims_too_much_is_not_believed() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..2);
    let mut cx = Context::from_waker(Waker::noop());
    let drained = lane.queue.poll_drain(&mut cx, usize::MAX, |_, unsent| {
        unsent.write_frames(|_| Poll::Ready(Ok(10_000)))
    });
    assert!(drained.empty);
    assert_eq!(lane.fates(), [2, 0, 0]);
}

#[test]
fn stream_that_takes_nothing_is_dead() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    lane.push_each(0..1);
    let mut cx = Context::from_waker(Waker::noop());
    let drained = lane
        .queue
        .poll_drain(&mut cx, usize::MAX, |_, unsent| unsent.write_frames(|_| Poll::Ready(Ok(0))));
    assert_eq!(drained.phase, Phase::Dead);
}

/// A task that moved to another waker is woken by the new one.
#[test]
fn latest_waker_is_the_one_that_is_woken() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    let other = Lane { wakes: Arc::default(), ..lane };
    other.drain();
    other.queue.close(Disconnect::NORMAL);
    assert_eq!(other.wakes.take(), 1);
}

/// The queue holds no frame that it has written.
#[test]
fn written_messages_are_let_go() {
    let memory = Arc::<crate::memory::budget::MemoryBudget>::default();
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    let mut kept = VecDeque::new();
    for number in 0..3 {
        let message = numbered(number, 4);
        message.charge(&memory);
        let size = message.size();
        lane.push(&[message]);
        kept.push_back(memory.charged() / size);
    }
    assert_eq!(kept, [1, 2, 3]);
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert_eq!(memory.charged(), 0);
    assert_eq!(lane.frames().iter().map(|frame| number_of(&frame.payload)).max(), Some(2));
}

#[test]
fn channel_is_held_while_the_client_is_behind() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    assert_eq!(lane.queue_config.memory.charged(), 0);
    lane.push_each(0..3);
    assert_eq!(lane.queue_config.memory.charged(), backlog_size(8));
    lane.sink.grant(usize::MAX);
    lane.drain();
    assert_eq!(lane.queue_config.memory.charged(), 0, "it has caught up");
    for end in [Queue::evict, |queue: &Queue| assert!(queue.disconnect().is_none())] {
        let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
        lane.push_each(0..1);
        assert_eq!(lane.queue_config.memory.charged(), backlog_size(8));
        end(&lane.queue);
        assert_eq!(lane.queue_config.memory.charged(), 0, "it has ended");
    }
}
#[test]
fn a_plain_client_settles_nothing_for_clients_that_get_compressed_frames() {
    let message = Message::from("to be or not to be, ".repeat(20));
    drop(JoinedFrames::none(slice::from_ref(&message), Encoding::Plain));
    assert!(message.deflate(&Arc::default()));
    drop(JoinedFrames::none(slice::from_ref(&message), Encoding::Deflate));
    assert!(message.fix_deflated());
}
