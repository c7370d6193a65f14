//! The queue as plain data: what is written through, what waits, and in which order it leaves.

use std::collections::VecDeque;
use std::slice;
use std::sync::Arc;
use std::task::Poll;

use crate::disconnect::Disconnect;
use crate::hub::backlog::backlog_size;
use crate::hub::batch::JoinedFrames;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Push;
use crate::hub::queue_state::Phase;
use crate::hub::tests::lane::{FRAME, Lane, drained, take};
use crate::hub::tests::support::{number_of, numbered, seeded};
use crate::message::{Encoding, Message};
use crate::overflow::Overflow;

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
fn channel_is_charged_while_the_client_is_behind() {
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
fn a_plain_client_fixes_nothing_for_clients_that_get_compressed_frames() {
    let message = Message::from("to be or not to be, ".repeat(20));
    drop(JoinedFrames::none(slice::from_ref(&message), Encoding::Plain));
    assert!(message.deflate(&Arc::default()));
    drop(JoinedFrames::none(slice::from_ref(&message), Encoding::Deflate));
    assert!(message.fix_deflated());
}
