//! What the manager does between two yields: at most half a queue for each client, and no command that
//! came after the batch began.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::config::Config;
use crate::hub::command::Command;
use crate::hub::cursor::Reading;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Drained;
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{Stage, numbered};
use crate::message::Encoding;

/// Polls the manager once: all that it does between two yields.
fn segment(manager: std::pin::Pin<&mut impl Future<Output = ()>>) {
    let _: Poll<()> = manager.poll(&mut Context::from_waker(Waker::noop()));
}

/// Queues, without a socket, of clients that were registered by hand.
fn queues(
    hub: &Hub,
    mut manager: std::pin::Pin<&mut impl Future<Output = ()>>,
    clients: usize,
    (room, has_labels): (&str, bool),
) -> Vec<Arc<Queue>> {
    let queues: Vec<_> = (0..clients).map(|_| Queue::new(&hub.shared().queue_config)).collect();
    for (nth, queue) in queues.iter().enumerate() {
        if nth == 0 && has_labels {
            queue.set_labels();
        }
        let command = |reply| Command::Register {
            queue: Arc::clone(queue),
            user: None,
            rooms: Box::new([room.into()]),
            prefixes: 0,
            came: 0,
            reading: Box::new(Reading::PLAIN),
            reply,
        };
        let mut register = pin!(hub.request(command));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(register.as_mut().poll(&mut cx).is_pending());
        segment(manager.as_mut());
        assert!(register.poll(&mut cx).is_ready());
        queue.open(None);
    }
    queues
}

fn drain(queue: &Queue) -> Drained {
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |_, unsent| {
        unsent.write_frames(|frames| Poll::Ready(Ok(frames.iter().map(|frame| frame.len()).sum())))
    })
}

/// Fills the inbox again and again and holds the manager, segment by segment, to half a queue.
fn queued_in_a_segment(config: Config, clients: usize, len: usize) -> (usize, usize) {
    queued_in_a_segment_of(config, clients, len, ("main", false))
}

/// The same in a room, where the first client has labels or not.
fn queued_in_a_segment_of(
    config: Config,
    clients: usize,
    len: usize,
    room: (&str, bool),
) -> (usize, usize) {
    let (hub, manager) = Hub::new(config).expect("valid");
    let mut manager = pin!(manager);
    let queues = queues(&hub, manager.as_mut(), clients, room);
    let (mut most, mut number) = ((0, 0), 0);
    let rooms = [room.0, "empty"];
    for _ in 0..2_000 {
        while hub.try_publish(rooms[number % 11 / 10], numbered(number as u32, len)).is_ok() {
            number += 1;
        }
        segment(manager.as_mut());
        for queue in &queues {
            let (messages, bytes) = queue.depth();
            most = (most.0.max(messages), most.1.max(bytes));
            drain(queue);
        }
    }
    assert_eq!(hub.stats().clients_evicted, 0);
    assert!(hub.stats().messages_delivered > 1_000);
    most
}

/// Invariant 8: in messages.
#[test]
fn manager_queues_at_most_half_a_queue_of_messages_between_two_yields() {
    for (queue, half) in [(64, 32), (63, 31), (2, 1), (1, 1), (1_000, 32)] {
        let config = Config::default().queue(queue);
        let (messages, _) = queued_in_a_segment(config, 3, 4);
        assert!(messages <= half, "{messages} messages for a queue of {queue}");
    }
}

/// Invariant 8: in bytes, with messages as long as allowed.
#[test]
fn manager_queues_at_most_half_a_queue_of_bytes_between_two_yields() {
    let config = Config::default();
    let half = config.queue_bytes / 2;
    for len in [Config::MAX_MESSAGE, 60_000, 5_000] {
        let (_, bytes) = queued_in_a_segment(config.clone(), 2, len);
        assert!(bytes <= half, "{bytes} bytes of messages of {len}");
    }
}

/// Invariant 8: a label may be many times as long as its message.
#[test]
fn manager_counts_the_labels_of_what_it_queues() {
    let config = Config::default().max_message(500).queue_bytes(4_000);
    let half = config.queue_bytes / 2;
    let room = "\u{fc}".repeat(64);
    let bytes = |has_labels| queued_in_a_segment_of(config.clone(), 2, 4, (&room, has_labels)).1;
    let labelled = bytes(true);
    assert!(labelled <= half, "{labelled} bytes of messages with labels of 384");
    assert!(labelled >= half - 400, "no more is left of the budget than one message takes");
    assert!(bytes(false) > half / 16, "a hub without such a client counts no labels");
}

/// Invariant 8: a room of several slices yields inside a batch, and is held to it all the same.
#[test]
fn manager_keeps_to_half_a_queue_in_a_room_of_several_slices() {
    let (messages, _) = queued_in_a_segment(Config::default().queue(16), 300, 4);
    assert!(messages <= 8, "{messages} messages for a queue of 16");
}

/// A client that is only ever written to by its own task, which counts and forgets.
fn counting_client(stage: &Stage) -> (Arc<Queue>, Arc<AtomicUsize>) {
    let queue = Queue::new(&stage.hub.shared().queue_config);
    stage.register(&queue, None, &["main"]).expect("a place");
    queue.open(None);
    let taken = Arc::new(AtomicUsize::new(0));
    let (draining, counter) = (Arc::clone(&queue), Arc::clone(&taken));
    let pump = poll_fn(move |cx| {
        let drained = draining.poll_drain(cx, usize::MAX, |_, unsent| {
            unsent.write_frames(|frames| {
                let bytes = frames.iter().map(|frame| frame.len()).sum();
                counter.fetch_add(bytes, Ordering::Relaxed);
                Poll::Ready(Ok(bytes))
            })
        });
        if drained.phase == Phase::Open { Poll::Pending } else { Poll::Ready(()) }
    });
    stage.executor.spawn(pump).detach();
    (queue, taken)
}

/// Invariant 8: readers with tasks that run only when woken get 5,000 messages of 64 KiB through a
/// queue of 64, and none is evicted by scheduling.
#[test]
fn healthy_reader_of_5000_long_messages_is_not_evicted() {
    let stage = Stage::new(Config::default().queue(64));
    let clients: Vec<_> = (0..3).map(|_| counting_client(&stage)).collect();
    stage.rest();
    let message = numbered(0, Config::MAX_MESSAGE);
    for _ in 0..10 {
        let (hub, message) = (stage.hub.clone(), message.clone());
        let publish = async move {
            for _ in 0..500 {
                hub.publish("main", message.clone()).await.expect("the hub runs");
            }
        };
        stage.executor.spawn(publish).detach();
    }
    stage.rest();
    assert_eq!(stage.hub.stats().clients_evicted, 0);
    assert_eq!(stage.hub.stats().messages_delivered, 15_000);
    let all = 5_000 * message.frame(Encoding::Plain).len();
    assert!(clients.iter().all(|(_, taken)| taken.load(Ordering::Relaxed) == all));
}

/// Invariant 8: and short ones that come as fast as the inbox takes them.
#[test]
fn healthy_reader_of_a_flood_of_short_messages_is_not_evicted() {
    let stage = Stage::new(Config::default().queue(64));
    let clients: Vec<_> = (0..5).map(|_| counting_client(&stage)).collect();
    stage.rest();
    let mut sent = 0;
    while sent < 5_000 {
        while sent < 5_000 && stage.hub.try_publish("main", numbered(sent, 4)).is_ok() {
            sent += 1;
        }
        stage.executor.try_tick();
    }
    stage.rest();
    assert_eq!(stage.hub.stats().clients_evicted, 0);
    assert!(clients.iter().all(|(_, taken)| taken.load(Ordering::Relaxed) == 5_000 * 6));
}

/// A waker that does something, once, where it is woken: as another thread might in that moment.
struct Then(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Then {
    fn wake(self: Arc<Self>) {
        let then = self.0.lock().expect("not poisoned").take();
        then.into_iter().for_each(|then| then());
    }
}

/// A batch is what waited when it began. So a caller that asks behind an answer hears what happened
/// before it, and no publisher keeps the manager busy by sending again as it is answered.
#[test]
fn command_behind_an_answer_is_for_the_next_batch() {
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    let mut manager = pin!(manager);
    let queues = queues(&hub, manager.as_mut(), 1, ("main", false));
    let count = async |hub: Hub| hub.clients().await.expect("the hub runs").len();
    let id = queues[0].disconnect().expect("registered");
    hub.report_gone(id);
    let second = Arc::new(Mutex::new(Box::pin(count(hub.clone()))));
    let query = Arc::clone(&second);
    let then = Then(Mutex::new(Some(Box::new(move || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(query.lock().expect("not poisoned").as_mut().poll(&mut cx).is_pending());
    }))));
    let mut first = pin!(count(hub.clone()));
    let waker = Waker::from(Arc::new(then));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..2 {
        segment(manager.as_mut());
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(first.poll(&mut cx), Poll::Ready(1), "sent before the manager looked");
    let mut second = second.lock().expect("not poisoned");
    assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(0), "it has looked since");
}
