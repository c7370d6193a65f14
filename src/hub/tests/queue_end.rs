//! How a queue ends: evicted, closed, or with its connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use crate::disconnect::Disconnect;
use crate::hub::client_id::ClientId;
use crate::hub::cursor::Reading;
use crate::hub::history_config::HistoryConfig;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Push;
use crate::hub::queue_state::Phase;
use crate::hub::registry::Registry;
use crate::hub::tests::lane::{FRAME, Lane, drained};
use crate::hub::tests::support::numbered;
use crate::overflow::Overflow;

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

/// The registry of a lane's client, and its id.
fn registered(lane: &Lane) -> (Registry, ClientId) {
    let mut registry = Registry::new(
        1,
        1,
        HistoryConfig::none(),
        Arc::clone(&lane.queue_config.counters),
        &lane.queue_config.memory,
    );
    let admitted = registry.insert(Arc::clone(&lane.queue), None, &[], 0, Reading::PLAIN);
    let id = admitted.expect("a place").id;
    (registry, id)
}

/// Invariant 6: the mark is the evidence, and it is given out once.
#[test]
fn disconnect_returns_the_id_once() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    let (_registry, id) = registered(&lane);
    assert_eq!(lane.queue.disconnect(), Some(id));
    assert_eq!(lane.queue.disconnect(), None);
}

#[test]
fn disconnect_of_a_client_that_the_registry_removed_returns_no_id() {
    let lane = Lane::new(3, 1_000, Overflow::Disconnect, 0);
    let (mut registry, id) = registered(&lane);
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
