//! Acknowledged publishing: each recipient is delivered, late or lost, exactly.

use std::time::Duration;

use fastrand::Rng;
use smol::Task;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::hub::ack::Acknowledged;
use crate::hub::cursor::{Reader, Reading};
use crate::hub::queue_state::Phase;
use crate::hub::since::Since;
use crate::hub::tests::support::{Peer, Stage, fates, finished, numbered, seeded};
use crate::overflow::Overflow;
use crate::time::virtual_time::VirtualTime;

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);

type Publishing = Task<Result<Acknowledged, Error>>;

/// Publishes a message that its recipients acknowledge.
fn publish(stage: &Stage, number: u32, wait: Duration) -> Publishing {
    let hub = stage.hub.clone();
    stage.start(async move { hub.publish_acked("main", numbered(number, 20), wait).await })
}

/// Recipients, and how many of them are delivered, late and lost.
fn fates_of(publishing: Publishing) -> [usize; 4] {
    let acked = finished(publishing).expect("it runs");
    [acked.recipients, acked.delivered, acked.late, acked.lost]
}

fn keeping(messages: usize) -> Config {
    Config::default().history(vec![messages.to_string().parse().expect("a rule")])
}

fn reading(reader: Reader, since: Since) -> Reading {
    Reading { reader, since: Some(since), ends: false }
}

#[test]
fn what_is_written_at_once_is_delivered() {
    let stage = Stage::new(Config::default());
    let _peers = [1, 2, 3].map(|_| stage.client(None, &["main"]));
    let position = stage.call(|hub| async move { hub.position("main").await }).expect("it runs");
    let acked = finished(publish(&stage, 0, Duration::ZERO)).expect("it runs");
    let Acknowledged { recipients, delivered, late, lost, .. } = acked;
    assert_eq!([recipients, delivered, late, lost], [3, 3, 0, 0]);
    assert_eq!(acked.position, position.map(|position| position + 1));
}

#[test]
fn what_waits_is_late_once_the_time_is_over() {
    let time = VirtualTime::start();
    let stage = Stage::new(Config::default());
    let _quick = stage.client(None, &["main"]);
    // Of the second one the first byte is with the kernel.
    let _slow = [0, 1].map(|room| stage.client_with_room(room, None, &["main"]));
    let waiting = publish(&stage, 0, Duration::from_secs(1));
    assert!(!waiting.is_finished());
    time.advance(Duration::from_secs(2));
    stage.rest();
    assert_eq!(fates_of(waiting), [3, 1, 2, 0]);
    assert_eq!(fates_of(publish(&stage, 1, Duration::ZERO)), [3, 1, 2, 0], "it does not wait");
    let waiting = publish(&stage, 2, Duration::from_secs(3600));
    time.advance(Duration::from_secs(61));
    stage.rest();
    assert_eq!(fates_of(waiting), [3, 1, 2, 0], "60 seconds at most");
}

#[test]
fn the_wait_ends_with_the_last_recipient() {
    let stage = Stage::new(Config::default());
    let slow = stage.client_with_room(3, None, &["main"]);
    let (other, _pump) = (stage.client_with_room(0, None, &["main"]), stage.start(slow.pump()));
    let waiting = publish(&stage, 0, LONG);
    slow.sink.grant(18);
    stage.rest();
    assert!(!waiting.is_finished(), "the last byte is not with the kernel");
    slow.sink.grant(1);
    stage.rest();
    assert!(!waiting.is_finished(), "the other one has nothing");
    other.queue.disconnect();
    stage.rest();
    assert_eq!(fates_of(waiting), [2, 1, 0, 1]);
}

#[test]
fn what_a_policy_drops_is_lost() {
    for (overflow, first, second) in [
        (Overflow::Disconnect, [1, 0, 0, 1], [1, 0, 0, 1]),
        (Overflow::DropOldest, [1, 0, 0, 1], [1, 0, 1, 0]),
        (Overflow::Latest, [1, 0, 0, 1], [1, 0, 1, 0]),
        (Overflow::DropNewest, [1, 0, 1, 0], [1, 0, 0, 1]),
    ] {
        let time = VirtualTime::start();
        let stage = Stage::new(Config::default().queue(1).overflow(overflow));
        let _peer = stage.client_with_room(0, None, &["main"]);
        let waiting = publish(&stage, 0, LONG);
        let next = publish(&stage, 1, LONG);
        time.advance(2 * LONG);
        stage.rest();
        assert_eq!((fates_of(waiting), fates_of(next)), (first, second), "{overflow:?}");
    }
}

#[test]
fn a_reader_that_is_behind_is_delivered_when_it_is_written_and_lost_when_it_is_overtaken() {
    let stage = Stage::new(keeping(2).overflow(Overflow::Replay));
    let peer = stage.client_with_room(0, None, &["main"]);
    let waiting: Vec<_> = (0..5).map(|number| publish(&stage, number, LONG)).collect();
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    // It had one message in its queue, and the room has two of the four behind it.
    let _pump = stage.start(peer.reader_pump());
    peer.sink.grant(usize::MAX);
    stage.rest();
    let all: Vec<_> = waiting.into_iter().map(fates_of).collect();
    let (delivered, lost) = ([1, 1, 0, 0], [1, 0, 0, 1]);
    assert_eq!(all, [delivered, lost, lost, lost, lost], "it counts and is closed: {all:?}");

    let stage = Stage::new(keeping(4).overflow(Overflow::Replay));
    let peer = stage.client_with_room(0, None, &["main"]);
    let waiting: Vec<_> = (0..5).map(|number| publish(&stage, number, LONG)).collect();
    let _pump = stage.start(peer.reader_pump());
    for _ in 0..30 {
        peer.sink.grant(7);
        stage.rest();
    }
    assert_eq!(waiting.into_iter().map(fates_of).collect::<Vec<_>>(), [delivered; 5]);
}

#[test]
fn a_reader_that_came_later_is_no_recipient() {
    let stage = Stage::new(keeping(10));
    let slow = stage.client_with_room(0, None, &["main"]);
    let waiting = publish(&stage, 0, LONG);
    let (later, _) = stage.client_as(None, &["main"], reading(Reader::Counting, Since::Oldest));
    later.open();
    let pump = stage.start(later.reader_pump());
    assert_eq!(later.numbers(), [0]);
    drop(pump);
    later.queue.disconnect();
    assert!(!waiting.is_finished());
    slow.queue.disconnect();
    assert_eq!(fates_after(&stage, waiting), [1, 0, 0, 1]);
}

fn fates_after(stage: &Stage, publishing: Publishing) -> [usize; 4] {
    stage.rest();
    fates_of(publishing)
}

#[test]
fn a_publisher_that_gives_up_leaves_nothing() {
    let stage = Stage::new(Config::default());
    let slow = stage.client_with_room(0, None, &["main"]);
    drop(publish(&stage, 0, LONG));
    stage.rest();
    let held = stage.hub.memory().charged();
    slow.queue.disconnect();
    stage.rest();
    assert!(stage.hub.memory().charged() < held);
    assert_eq!(fates_of(publish(&stage, 1, LONG))[1..], [0, 0, 0]);
}

/// Every message is acknowledged, so their counts are what the hub has counted.
#[test]
fn the_counts_of_all_messages_add_up_to_those_of_the_hub() {
    seeded(400, |rng| {
        let time = VirtualTime::start();
        let keeps = rng.bool();
        let overflow = *rng
            .choice(match keeps {
                true => &[Overflow::Replay, Overflow::Disconnect, Overflow::Latest][..],
                false => &[Overflow::DropOldest, Overflow::DropNewest, Overflow::Disconnect][..],
            })
            .expect("some");
        let config = if keeps { keeping(rng.usize(1..6)) } else { Config::default() };
        let stage = Stage::new(config.queue(rng.usize(1..6)).overflow(overflow));
        let (mut peers, mut pumps, mut publishing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rng.usize(20..80) {
            match rng.u8(..10) {
                0..=1 => join(&stage, rng, &mut peers, &mut pumps),
                2..=5 if publishing.len() < 60 => {
                    publishing.push(publish(&stage, publishing.len() as u32, LONG));
                }
                6 => {
                    let position = |stage: &Stage| {
                        stage
                            .call(|hub| async move { hub.position("main").await })
                            .expect("it runs")
                    };
                    assert!(position(&stage).is_some() || !keeps || publishing.is_empty());
                }
                _ if peers.is_empty() => {}
                7 => leave(&stage, &peers[rng.usize(..peers.len())], rng),
                _ => {
                    peers[rng.usize(..peers.len())].sink.grant(rng.usize(1..60));
                    stage.rest();
                }
            }
        }
        if rng.bool() {
            peers.iter().for_each(|peer| peer.sink.grant(usize::MAX));
            stage.rest();
        }
        for peer in &peers {
            peer.queue.disconnect().into_iter().for_each(|id| stage.hub.report_gone(id));
        }
        stage.rest();
        // Without a recipient left, nothing waits for the time to be over.
        let mut sums = [0; 4];
        for one in publishing {
            let fates = fates_of(one);
            assert_eq!(fates[0], fates[1] + fates[2] + fates[3]);
            sums.iter_mut().zip(fates).for_each(|(sum, part)| *sum += part as u64);
        }
        let [delivered, dropped, lost] = fates(&stage.hub.shared().queue_config.counters);
        let recipients = stage.hub.stats().recipients;
        assert_eq!(sums, [recipients, delivered, 0, dropped + lost], "{overflow:?}");
        drop((pumps, time));
    });
}

/// A client comes, of any kind; what was published before is not for it.
fn join(stage: &Stage, rng: &mut Rng, peers: &mut Vec<Peer>, pumps: &mut Vec<Task<Phase>>) {
    let reader = *rng.choice(&[Reader::Plain, Reader::Counting, Reader::Numbered]).expect("some");
    let since = (reader != Reader::Plain).then_some(Since::Now);
    let (peer, _) = stage.client_as(None, &["main"], Reading { reader, since, ends: false });
    {
        let mut sink = peer.sink.lock();
        sink.room = *rng.choice(&[0, 5, 30, usize::MAX]).expect("some");
        sink.at_most = *rng.choice(&[3, 40, usize::MAX]).expect("some");
    }
    if rng.u8(..4) > 0 {
        peer.open();
    }
    pumps.push(stage.start(peer.reader_pump()));
    peers.push(peer);
}

/// A client goes, one way or another.
fn leave(stage: &Stage, peer: &Peer, rng: &mut Rng) {
    let (hub, id) = (stage.hub.clone(), peer.id());
    match rng.u8(..5) {
        0 => peer.sink.break_off(),
        1 => peer.queue.evict(),
        2 => drop(stage.run(async move { hub.leave(id, "main").await })),
        3 => drop(stage.run(async move { hub.disconnect(id, Disconnect::NORMAL).await })),
        _ => peer.queue.disconnect().into_iter().for_each(|id| stage.hub.report_gone(id)),
    }
    stage.rest();
}
