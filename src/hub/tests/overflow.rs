//! What becomes of a client that is behind, under each policy.

use std::future::poll_fn;
use std::sync::Arc;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::backlog::Taken;
use crate::hub::queue_state::Phase;
use crate::hub::since::Since;
use crate::hub::tests::reader::{check_fates, counting, keeping, numbering, publish};
use crate::hub::tests::support::{Stage, finished, number_of, numbered};
use crate::overflow::Overflow;

/// Also a client that is behind by far takes no more than one message of the hub.
#[test]
fn with_replay_a_client_that_is_behind_needs_no_queue() {
    let stage = Stage::new(keeping(100).queue(4).overflow(Overflow::Replay));
    let (slow, plain) =
        (stage.client_with_room(10, None, &["main"]), stage.client(None, &["main"]));
    let pump = stage.start(slow.reader_pump());
    publish(&stage, 0..50);
    let client = slow.client.clone();
    stage.run(async move { client.publish("main", numbered(50, 4)).await }).expect("it runs");
    publish(&stage, 51..60);
    assert!(slow.queue.depth().0 <= 1, "{:?} wait", slow.queue.depth());
    assert!(!pump.is_finished(), "it is not evicted");
    slow.sink.grant(usize::MAX / 2);
    stage.rest();
    let all_but_own: Vec<_> = (0..60).filter(|number| *number != 50).collect();
    assert_eq!(slow.numbers(), all_but_own);
    assert_eq!(plain.numbers(), (0..60).collect::<Vec<_>>());
    publish(&stage, [60]);
    assert_eq!(slow.numbers().last(), Some(&60), "it is live again");
    check_fates(&stage);
}

#[test]
fn with_replay_a_client_that_its_room_has_overtaken_is_closed_with_4108() {
    let stage = Stage::new(keeping(5).queue(4).overflow(Overflow::Replay));
    let slow = stage.client_with_room(0, None, &["main"]);
    let pump = stage.start(slow.reader_pump());
    publish(&stage, 0..50);
    slow.sink.grant(usize::MAX / 2);
    stage.rest();
    assert_eq!(finished(pump), Phase::Evicted);
    assert_eq!(slow.queue.reason().expect("it is told").code(), Disconnect::SLOW.code());
    check_fates(&stage);
}

#[test]
fn with_replay_a_room_without_history_has_queues() {
    let rule = "kept=100".parse().expect("a rule");
    let config = Config::default().history(vec![rule]).queue(4).overflow(Overflow::Replay);
    let stage = Stage::new(config);
    let slow = stage.client_with_room(0, None, &["main"]);
    publish(&stage, 0..5);
    assert_eq!(slow.queue.reason().expect("it is told").code(), Disconnect::SLOW.code());
    check_fates(&stage);
}

#[test]
fn with_latest_a_client_that_is_behind_gets_the_newest_message_only() {
    let stage = Stage::new(Config::default().overflow(Overflow::Latest));
    let slow = stage.client_with_room(0, None, &["main"]);
    let pump = stage.start(slow.pump());
    publish(&stage, 0..5);
    assert_eq!((slow.queue.depth().0, slow.queue.missed()), (1, 4));
    slow.sink.grant(usize::MAX / 2);
    stage.rest();
    assert_eq!(slow.numbers(), [4]);
    publish(&stage, 5..7);
    assert_eq!(slow.numbers(), [4, 5, 6], "it is live again");
    assert!(!pump.is_finished());
    check_fates(&stage);
}

#[test]
fn no_policy_drops_a_message_for_a_reader_that_counts() {
    let policies = [Overflow::Latest, Overflow::DropNewest, Overflow::DropOldest];
    for overflow in policies {
        let stage = Stage::new(Config::default().queue(4).overflow(overflow));
        let (peer, _) = stage.client_as(None, &["main"], counting(Since::Now));
        peer.sink.lock().room = 0;
        peer.open();
        let pump = stage.start(peer.reader_pump());
        publish(&stage, 0..4);
        assert_eq!(peer.queue.depth().0, 4, "{overflow:?}");
        publish(&stage, [4]);
        let reason = peer.queue.reason().expect("it is told");
        assert_eq!(reason.code(), Disconnect::SLOW.code(), "{overflow:?}");
        assert!(pump.is_finished());
        check_fates(&stage);
    }
}

/// A reader that is told positions hears which messages a policy has dropped.
#[test]
fn a_numbered_reader_hears_of_what_a_policy_drops() {
    let policies = [
        (Overflow::Latest, [9, 9]),
        (Overflow::DropOldest, [6, 9]),
        (Overflow::DropNewest, [0, 3]),
    ];
    for (overflow, [first, last]) in policies {
        let stage = Stage::new(Config::default().queue(4).overflow(overflow));
        let (peer, begin) = stage.client_as(None, &["main"], numbering(Since::Now));
        let begin = begin.expect("where it begins").position;
        peer.queue.open(None);
        publish(&stage, 0..10);
        let mut heard = Vec::new();
        for _ in first..=last {
            let queue = Arc::clone(&peer.queue);
            let taken = stage.run(async move { poll_fn(|cx| queue.poll_take(cx)).await });
            let Taken { message, position, .. } = taken.expect("it stays");
            heard.push((number_of(message.as_bytes()), position.expect("it is told")));
        }
        let expected = (first..=last).map(|n| (n, begin + 1 + u64::from(n))).collect::<Vec<_>>();
        assert_eq!(heard, expected, "{overflow:?}");
        check_fates(&stage);
    }
}
