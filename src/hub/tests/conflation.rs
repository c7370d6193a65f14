//! Clients that hear the newest message of their room, at most one an interval.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::ack::Ack;
use crate::hub::batch::{Audience, Batch, JoinedFrames};
use crate::hub::client_id::Refusal;
use crate::hub::conflation::Conflation;
use crate::hub::cursor::{Cursor, Reading};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Push;
use crate::hub::queue_state::Phase;
use crate::hub::since::{Missed, Since};
use crate::hub::state;
use crate::hub::tests::lane::{FRAME, Lane, drained};
use crate::hub::tests::reader::{keeping, numbering, position, publish};
use crate::hub::tests::support::{Sink, Stage, numbered, numbers};
use crate::message::Message;
use crate::overflow::Overflow;
use crate::stats::DeliveryCount;

const INTERVAL: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// The lane of a conflated client whose socket takes so many bytes.
fn lane(room: usize) -> Lane {
    let lane = Lane::held(4, 1_000, Overflow::Disconnect, room);
    lane.queue.conflate(INTERVAL, Duration::ZERO);
    lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
    lane.drain();
    lane
}

impl Lane {
    /// Drains at a time, as a connection does.
    fn drain_at(&self, now: Duration) -> Option<Duration> {
        while let Some(due) = self.drain().due {
            if now < due {
                return Some(due);
            }
            self.queue.release(now);
        }
        None
    }

    fn push_to(&self, audience: Audience<'_>, number: u32) -> Push {
        let tally = DeliveryCount::new(&self.queue_config.counters);
        let (messages, joined) = ([numbered(number, 4)], JoinedFrames::default());
        self.queue.push(&Batch::new(&messages, &joined, audience, &tally))
    }
}

#[test]
fn the_first_message_goes_at_once_and_then_the_newest_at_each_interval() {
    let lane = lane(usize::MAX);
    lane.wakes.take();
    assert_eq!(lane.push_each(0..1), Push::Ok);
    assert_eq!(lane.wakes.take(), 1, "the task is told");
    assert_eq!(lane.drain_at(Duration::ZERO), None);
    assert_eq!(lane.sink.numbers(), [0]);
    lane.push_each(1..3);
    assert_eq!(lane.wakes.take(), 1, "it knows of the time already");
    assert_eq!(lane.drain_at(SECOND), Some(INTERVAL));
    lane.push(&[numbered(3, 4), numbered(4, 4)]);
    assert_eq!(lane.drain_at(INTERVAL), None);
    assert_eq!(lane.sink.numbers(), [0, 4]);
    assert_eq!((lane.fates(), lane.queue.missed()), ([2, 3, 0], 3));
    // Nothing came for longer than an interval.
    assert_eq!(lane.drain_at(INTERVAL * 3), None);
    lane.push_each(5..6);
    assert_eq!(lane.drain_at(INTERVAL * 3), None);
    lane.push_each(6..7);
    assert_eq!(lane.drain_at(INTERVAL * 3), Some(INTERVAL * 4));
    assert_eq!(lane.sink.numbers(), [0, 4, 5]);
}

#[test]
fn what_is_for_the_client_or_its_user_goes_at_once_and_leaves_the_interval_alone() {
    let lane = lane(usize::MAX);
    lane.push_each(0..1);
    lane.drain_at(Duration::ZERO);
    lane.push_each(1..2);
    assert_eq!(lane.push_to(Audience::User, 2), Push::Ok);
    assert_eq!(lane.push_to(Audience::Client, 3), Push::Ok);
    assert_eq!(lane.sink.numbers(), [0, 2, 3]);
    assert_eq!(lane.drain_at(SECOND), Some(INTERVAL));
    assert_eq!(lane.drain_at(INTERVAL), None);
    assert_eq!(lane.sink.numbers(), [0, 2, 3, 1]);
}

#[test]
fn a_message_of_a_room_that_has_no_position_is_conflated_too() {
    let lane = lane(usize::MAX);
    let (tally, joined) =
        (DeliveryCount::new(&lane.queue_config.counters), JoinedFrames::default());
    let (messages, room) = ([numbered(0, 4)], Arc::from("main"));
    let mut batch = Batch::new(&messages, &joined, Audience::User, &tally);
    batch.room = Some(&room);
    lane.queue.push(&batch);
    assert!(lane.sink.numbers().is_empty(), "its task writes it");
    assert_eq!(lane.drain_at(Duration::ZERO), None);
    assert_eq!(lane.sink.numbers(), [0]);
}

/// The rest of a message waits in the queue; the newest one behind it is still conflated.
#[test]
fn a_slow_client_has_one_message_in_its_queue_and_the_newest_behind_it() {
    let lane = lane(FRAME - 2);
    lane.push_each(0..1);
    assert_eq!(lane.drain_at(Duration::ZERO), None);
    for number in 1..9 {
        lane.push_each(number..number + 1);
        assert_eq!(lane.drain_at(INTERVAL * number), None, "a message is half written");
    }
    assert_eq!(lane.queue.depth().0, 1);
    lane.sink.grant(usize::MAX);
    assert_eq!(lane.drain_at(INTERVAL * 9), None);
    assert_eq!((lane.sink.numbers(), lane.fates()), (vec![0, 8], [2, 7, 0]));
}

#[test]
fn the_newest_message_goes_ahead_of_the_end_and_is_lost_with_the_connection() {
    let waiting = || {
        let lane = lane(usize::MAX);
        lane.push_each(0..1);
        lane.drain_at(Duration::ZERO);
        lane.push_each(1..3);
        lane
    };
    let closed = waiting();
    closed.queue.close(Disconnect::NORMAL);
    let drained = closed.drain();
    assert_eq!((drained.phase, drained.due), (Phase::Closing, Some(INTERVAL)));
    closed.queue.release(SECOND);
    assert!(closed.drain().empty);
    assert_eq!((closed.sink.numbers(), closed.fates()), (vec![0, 2], [2, 1, 0]));
    let lost = waiting();
    lost.queue.disconnect();
    assert_eq!((lost.sink.numbers(), lost.fates()), (vec![0], [1, 1, 1]));
    let evicted = waiting();
    evicted.queue.evict();
    assert_eq!((evicted.drain().due, evicted.fates()), (None, [1, 2, 0]));
}

#[test]
fn nothing_goes_before_the_handshake_is_over() {
    let lane = Lane::held(4, 1_000, Overflow::Disconnect, usize::MAX);
    lane.queue.conflate(INTERVAL, Duration::ZERO);
    lane.push_each(0..2);
    assert_eq!(lane.drain(), drained(false, true, Phase::Handshaking));
    lane.queue.release(SECOND);
    lane.queue.open(Some(Arc::clone(&lane.sink) as Arc<dyn DirectWriter>));
    assert_eq!(lane.drain_at(SECOND), None);
    assert_eq!((lane.sink.numbers(), lane.fates()), (vec![1], [1, 1, 0]));
}

#[test]
fn a_publisher_that_waits_hears_what_was_left_out() {
    let lane = lane(usize::MAX);
    let acks = [(); 3].map(|()| Arc::new(Ack::default()));
    let tally = DeliveryCount::new(&lane.queue_config.counters);
    let joined = JoinedFrames::default();
    for (ack, number) in acks.iter().zip(0..) {
        let messages = [numbered(number, 4)];
        let mut batch = Batch::new(&messages, &joined, Audience::All, &tally);
        batch.ack = Some(ack);
        lane.queue.push(&batch);
        if number == 0 {
            lane.drain_at(Duration::ZERO);
        }
    }
    let fates = || {
        acks.each_ref().map(|ack| {
            let count = ack.count(1, None);
            (count.delivered, count.late, count.lost)
        })
    };
    assert_eq!(fates(), [(1, 0, 0), (0, 0, 1), (0, 1, 0)]);
    lane.drain_at(INTERVAL);
    assert_eq!(fates()[2], (1, 0, 0));
}

/// It hears of a gap behind the message that waits, which may be an hour later: a restart does not wait
/// for that, nor cut the client off.
#[test]
fn a_client_with_a_gap_behind_the_message_that_waits_goes_along() {
    let lane = lane(usize::MAX);
    lane.queue.set_cursor(Cursor::new("main".into(), numbering(Since::Now), 7, 7));
    lane.push_each(0..1);
    lane.drain_at(Duration::ZERO);
    assert!(!lane.queue.begin_anew("main", 20));
    assert!(lane.queue.clean().is_none(), "it is told of the gap at once");
    lane.queue.note_gap_sent(20);
    lane.push_each(1..2);
    assert!(!lane.queue.begin_anew("main", 40));
    let clean = lane.queue.clean().expect("its position goes along");
    let newest = clean.conflation.and_then(|own| own.newest).expect("it waits");
    assert_eq!((newest.last_position, clean.cursor.map(|at| at.position)), (20, Some(40)));
}

/// What it was told, and what it is told of the message that waits.
#[test]
fn another_process_goes_on_with_the_interval_and_the_message_that_waits() {
    let lane = lane(usize::MAX);
    let reading = numbering(Since::Now);
    lane.queue.set_cursor(Cursor::new("main".into(), reading, 7, 7));
    lane.push_each(0..1);
    lane.drain_at(Duration::ZERO);
    lane.push_each(1..3);
    assert_eq!(lane.queue.last_position(), Some(8));
    let clean = lane.queue.clean().expect("nothing else waits");
    assert_eq!((clean.owed(), clean.cursor.map(|at| at.position)), (1, Some(10)));
    let mut plain = clean.conflation.expect("it is conflated");
    plain.next -= SECOND;
    let newest = state::Newest { message: numbered(2, 4), position: Some(10), last_position: 8 };
    assert_eq!(plain.newest, Some(newest));

    let next = Lane::held(4, 1_000, Overflow::Disconnect, usize::MAX);
    let charged = next.queue_config.memory.charged();
    next.queue.restore_conflation(*plain, INTERVAL * 9);
    assert!(next.queue_config.memory.charged() > charged, "the message counts");
    next.queue.open(Some(Arc::clone(&next.sink) as Arc<dyn DirectWriter>));
    assert_eq!(next.drain_at(INTERVAL * 9), Some(INTERVAL * 9 + SECOND));
    next.push_each(3..4);
    assert_eq!(next.drain_at(INTERVAL * 9 + SECOND), None);
    assert_eq!(next.sink.numbers(), [3]);
    next.queue.disconnect();
    drop((next.queue, lane));
    assert_eq!(next.queue_config.memory.charged(), charged);
}

#[test]
fn a_message_that_waits_for_long_is_pinned_by_its_client() {
    let lane = lane(usize::MAX);
    lane.push_each(0..1);
    lane.drain_at(Duration::ZERO);
    let tick = lane.queue_config.memory.tick();
    assert_eq!(lane.queue.pinned_bytes(tick + 1), 0);
    let message = Message::binary(vec![7; 500]);
    lane.push(std::slice::from_ref(&message));
    assert_eq!(lane.queue.pinned_bytes(tick), 0, "not for a whole tick");
    assert_eq!(lane.queue.pinned_bytes(tick + 1), message.size() / 2, "the test holds it too");
}

/// A client on a stage that is conflated.
fn conflated(stage: &Stage, rooms: &[&str], reading: Reading) -> Result<Arc<Queue>, Refusal> {
    let queue = Queue::new(&stage.hub.shared().queue_config);
    queue.conflate(INTERVAL, Duration::ZERO);
    stage.register_as(&queue, None, rooms, reading).map(|_| queue)
}

#[test]
fn a_conflated_client_is_in_one_room_and_stays_there() {
    let stage = Stage::new(Config::default());
    assert_eq!(conflated(&stage, &[], Reading::PLAIN).err(), Some(Refusal::OneRoom));
    assert_eq!(conflated(&stage, &["a", "b"], Reading::PLAIN).err(), Some(Refusal::OneRoom));
    let queue = Queue::new(&stage.hub.shared().queue_config);
    queue.conflate(INTERVAL, Duration::ZERO);
    queue.set_labels();
    let labelled = stage.register_as(&queue, None, &["a"], Reading::PLAIN);
    assert_eq!(labelled.err(), Some(Refusal::OneRoom));
    let queue = Queue::new(&stage.hub.shared().queue_config);
    queue.conflate(INTERVAL, Duration::ZERO);
    let id = stage.register_as(&queue, None, &["a"], Reading::PLAIN).expect("one room").id;
    let joins = stage.call(move |hub| async move { hub.join(id, "b").await });
    assert!(joins.expect_err("it has one").is_one_room());
    let hears = stage.call(move |hub| async move { hub.enter(id, "b", true).await });
    assert!(hears.expect_err("it has one").is_one_room());
    let leaves = stage.call(move |hub| async move { hub.leave(id, "a").await });
    assert!(leaves.expect_err("it has one").is_one_room());
    assert_eq!(stage.hub.stats().clients, 1);
}

/// What it hears of what is kept is the newest; the messages before it are a gap.
#[test]
fn a_reader_begins_with_the_newest_message_that_its_room_keeps() {
    let stage = Stage::new(keeping(3));
    publish(&stage, 0..5);
    let newest = position(&stage, "main").expect("it keeps messages");
    for (since, missed, heard) in [
        (Since::Oldest, Missed::Messages(2), 1),
        (Since::Newest(1), Missed::Nothing, 1),
        (Since::Position(newest - 5), Missed::Messages(4), 1),
        (Since::Position(newest - 2), Missed::Messages(1), 1),
        (Since::Position(newest), Missed::Nothing, 0),
        (Since::Now, Missed::Nothing, 0),
        (Since::UNREADABLE, Missed::Unknown, 1),
    ] {
        let queue = Queue::new(&stage.hub.shared().queue_config);
        queue.conflate(INTERVAL, Duration::ZERO);
        let recipients = stage.hub.stats().recipients;
        let begin = stage.register_as(&queue, None, &["main"], numbering(since));
        let begin = begin.expect("a place").begin.expect("it is told");
        assert_eq!((begin.missed, begin.position), (missed, newest - heard), "{since}");
        assert_eq!(stage.hub.stats().recipients - recipients, heard);
        let sink = Sink::new(usize::MAX);
        queue.open(Some(Arc::clone(&sink) as Arc<dyn DirectWriter>));
        assert_eq!(queue.last_position(), Some(newest - heard));
        queue.release(Duration::ZERO);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let drained = queue.poll_drain(&mut cx, usize::MAX, |cx, unsent| {
            assert_eq!(unsent.positions().collect::<Vec<_>>(), [newest]);
            sink.poll_write(cx, unsent)
        });
        assert_eq!((drained.position, drained.request), (Some(newest), None));
        assert_eq!(numbers(&sink.lock().taken), [4][..heard as usize]);
    }
}

/// Under `replay` it would read each message from its room.
#[test]
fn a_conflated_client_does_not_read_from_its_room() {
    let stage = Stage::new(keeping(9).overflow(Overflow::Replay));
    let queue = conflated(&stage, &["main"], Reading::PLAIN).expect("one room");
    assert_eq!(queue.with_cursor(|_| ()), None);
    let numbered = conflated(&stage, &["main"], numbering(Since::Now)).expect("one room");
    publish(&stage, 0..3);
    assert_eq!(numbered.with_cursor(|cursor| cursor.is_behind()), Some(false));
    assert_eq!(
        stage.hub.shared().queue_config.counters.messages_dropped.load(Ordering::Relaxed),
        4
    );
}

#[test]
fn a_wait_that_was_over_long_ago_does_not_hold_a_message_back() {
    let memory = Arc::default();
    let plain = state::Conflation { interval: INTERVAL, ..state::Conflation::default() };
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    let conflation = Conflation::restored(plain.clone(), year, &memory);
    assert_eq!(conflation.due(), None);
    assert_eq!(conflation.plain(year * 40), plain);
}
