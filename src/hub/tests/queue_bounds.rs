//! The bounds of a queue, and what each policy does at them.

use std::sync::Arc;
use std::task::Poll;

use crate::disconnect::Disconnect;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue_outcome::Push;
use crate::hub::tests::lane::{FRAME, Lane, take};
use crate::hub::tests::support::{numbered, seeded};
use crate::overflow::Overflow;

/// Invariant 3: a peer that pings and never reads makes us hold a few pongs at most.
#[test]
fn control_frames_are_bounded() {
    let lane = Lane::new(8, 1_000, Overflow::Disconnect, 0);
    let pong = [0x8a; 127];
    let taken = (0..100).take_while(|_| lane.queue.push_control(&pong)).count();
    assert!((2..4).contains(&taken), "{taken} pongs");
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
