//! The models: what threads do at the same time, and the result that must follow.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::thread;

use crate::hub::batch::{Audience, Batch, JoinedFrames};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Push;
use crate::hub::queue_state::Phase;
use crate::hub::queue_config::QueueConfig;
use crate::hub::reply::reply;
use crate::stats::DeliveryCount;
use crate::limits::semaphore::FifoSemaphore;
use crate::sync::Mutex;
use crate::time::alarms::{Alarm, Alarms};
use crate::time::clock;
use crate::time::timers::Timers;
use crate::net::readiness::{READABLE, WRITABLE, Readiness};
use crate::overflow::Overflow;
use crate::disconnect::Disconnect;
use crate::message::Message;

/// Each model by its name.
pub(crate) const ALL: [(&str, fn()); 11] = [
    ("a message pushed during a drain is drained", pushed_while_drained),
    ("bytes that do not fit are written when there is room", written_when_there_is_room),
    ("a message pushed while the connection ends is counted once", counted_once),
    ("queued messages go before the end", queued_before_the_end),
    ("the task learns of an overflow, however late it polls", overflow_is_reported),
    ("a reply, or its absence, wakes the caller", reply_wakes),
    ("a permit has one holder and is passed on", permit_is_passed_on),
    ("the readiness of a socket wakes its task", readiness_wakes),
    ("a deadline wakes its task while another is cancelled", deadlines_wake),
    ("an earlier deadline wakes in time while the timer fires", earlier_deadlines_wake),
    ("an alarm wakes its task while others fire and are cancelled", alarms_wake),
];

/// Bytes of the frame of "x".
const FRAME: usize = 3;

fn queue(messages: usize) -> (Arc<Queue>, Arc<QueueConfig>) {
    let queue_config = Arc::new(QueueConfig {
        messages,
        bytes: 1000,
        overflow: Overflow::Disconnect,
        counters: Arc::default(),
        memory: Arc::default(),
    });
    (Queue::new(&queue_config), queue_config)
}

fn push(queue: &Queue, queue_config: &QueueConfig) -> Push {
    let tally = DeliveryCount::new(&queue_config.counters);
    let message = Message::text("x");
    let (messages, joined) = (std::slice::from_ref(&message), JoinedFrames::default());
    queue.push(&Batch::new(messages, &joined, Audience::All, &tally))
}

/// Drains as the connection's task does, until `bytes` have gone or the queue takes no more.
fn drain(queue: &Queue, bytes: usize) -> (usize, Phase) {
    let mut written = 0;
    let phase = block_on(poll_fn(|cx| {
        let drained = queue.poll_drain(cx, usize::MAX, |_, unsent| {
            unsent.write_frames(|frames| {
                let n = frames.iter().map(|frame| frame.len()).sum();
                written += n;
                Poll::Ready(Ok(n))
            })
        });
        match drained.phase {
            Phase::Open if written < bytes => Poll::Pending,
            Phase::Closing if !drained.empty => Poll::Pending,
            phase => Poll::Ready(phase),
        }
    }));
    (written, phase)
}

fn pushed_while_drained() {
    let (queue, queue_config) = queue(9);
    queue.open(None);
    let pushing = Arc::clone(&queue);
    let manager = thread::spawn(move || {
        assert_eq!(push(&pushing, &queue_config), Push::Ok);
        assert_eq!(push(&pushing, &queue_config), Push::Ok);
    });
    assert_eq!(drain(&queue, 2 * FRAME), (2 * FRAME, Phase::Open));
    manager.join().expect("no panic");
}

/// A socket with room for a number of bytes.
#[derive(Debug)]
struct Socket(Mutex<(usize, Option<Waker>)>);

impl Socket {
    fn take(&self, frames: &[IoSlice<'_>], waker: Option<&Waker>) -> io::Result<usize> {
        let mut socket = self.0.lock().expect("not poisoned");
        let n = frames.iter().map(|frame| frame.len()).sum::<usize>().min(socket.0);
        if n == 0 {
            socket.1 = waker.cloned().or(socket.1.take());
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.0 -= n;
        Ok(n)
    }
}

impl DirectWriter for Socket {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(frames, None)
    }
}

/// Two bytes of a frame fit at once, the third when the peer reads. The manager, the task and the
/// network run at the same time.
fn written_when_there_is_room() {
    let (queue, queue_config) = queue(9);
    let socket = Arc::new(Socket(Mutex::new((2, None))));
    queue.open(Some(Arc::clone(&socket) as Arc<dyn DirectWriter>));
    let (pushing, counting) = (Arc::clone(&queue), Arc::clone(&queue_config));
    let manager = thread::spawn(move || assert_eq!(push(&pushing, &counting), Push::Ok));
    let peer = Arc::clone(&socket);
    let network = thread::spawn(move || {
        let mut socket = peer.0.lock().expect("not poisoned");
        socket.0 += 1;
        let waker = socket.1.take();
        drop(socket);
        waker.into_iter().for_each(Waker::wake);
    });
    block_on(poll_fn(|cx| {
        queue.poll_drain(cx, usize::MAX, |cx, unsent| {
            unsent.write_frames(|frames| match socket.take(frames, Some(cx.waker())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                taken => Poll::Ready(taken),
            })
        });
        // The manager may have written everything before this task drains; then there is no wake.
        let delivered = queue_config.counters.messages_delivered.load(Ordering::Relaxed);
        if delivered == 1 || push_is_idle(&queue) { Poll::Ready(()) } else { Poll::Pending }
    }));
    manager.join().expect("no panic");
    network.join().expect("no panic");
    // Bytes that the manager pushed after the task's last poll are written by the manager or here.
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |_, unsent| {
        unsent.write_frames(|frames| match socket.take(frames, None) {
            Err(_) => Poll::Pending,
            taken => Poll::Ready(taken),
        })
    });
    assert_eq!(queue_config.counters.messages_delivered.load(Ordering::Relaxed), 1);
}

/// Whether the queue is empty, so that the next push writes directly and needs no task.
fn push_is_idle(queue: &Queue) -> bool {
    queue.depth().0 == 0
}

fn counted_once() {
    let (queue, queue_config) = queue(1);
    queue.open(None);
    let (pushing, counting) = (Arc::clone(&queue), Arc::clone(&queue_config));
    let manager = thread::spawn(move || {
        let pushes = [push(&pushing, &counting), push(&pushing, &counting)];
        pushes.iter().filter(|&&push| push != Push::Gone).count() as u64
    });
    queue.disconnect();
    let recipients = manager.join().expect("no panic");
    let counters = &queue_config.counters;
    let fates = [&counters.messages_delivered, &counters.messages_dropped, &counters.messages_lost];
    let fates: u64 = fates.iter().map(|fate| fate.load(Ordering::Relaxed)).sum();
    assert_eq!(recipients, fates, "every recipient has one fate");
}

fn queued_before_the_end() {
    let (queue, queue_config) = queue(9);
    queue.open(None);
    let sealing = Arc::clone(&queue);
    let manager = thread::spawn(move || {
        assert_eq!(push(&sealing, &queue_config), Push::Ok);
        sealing.close(Disconnect::NORMAL);
    });
    assert_eq!(drain(&queue, usize::MAX), (FRAME, Phase::Closing));
    manager.join().expect("no panic");
}

fn overflow_is_reported() {
    let (queue, queue_config) = queue(1);
    queue.open(None);
    let pushing = Arc::clone(&queue);
    let manager = thread::spawn(move || {
        assert_eq!(push(&pushing, &queue_config), Push::Ok);
        assert_eq!(push(&pushing, &queue_config), Push::Full);
    });
    // The socket takes nothing: the task is woken by the eviction, or waits for ever.
    let phase = block_on(poll_fn(|cx| {
        let drained = queue.poll_drain(cx, usize::MAX, |_, _| Poll::Pending);
        if drained.phase == Phase::Open { Poll::Pending } else { Poll::Ready(drained.phase) }
    }));
    assert_eq!(phase, Phase::Evicted);
    manager.join().expect("no panic");
}

fn reply_wakes() {
    for answers in [true, false] {
        let (reply, answer) = reply();
        let manager = thread::spawn(move || {
            if answers {
                reply.answer(7)
            }
        });
        assert_eq!(block_on(answer), answers.then_some(7));
        manager.join().expect("no panic");
    }
}

fn permit_is_passed_on() {
    let semaphore = Arc::new(FifoSemaphore::new(1));
    let inside = Arc::new(Mutex::new(false));
    let enter = |semaphore: Arc<FifoSemaphore>, inside: Arc<Mutex<bool>>| {
        let _permit = block_on(semaphore.acquire());
        assert!(!std::mem::replace(&mut *inside.lock().expect("alone"), true), "one at a time");
        *inside.lock().expect("alone") = false;
    };
    let (other, within) = (Arc::clone(&semaphore), Arc::clone(&inside));
    let second = thread::spawn(move || enter(other, within));
    {
        // Another future asks, and is dropped before it gets a permit, or with one.
        let mut impatient = pin!(semaphore.acquire());
        let mut cx = Context::from_waker(Waker::noop());
        drop(impatient.as_mut().poll(&mut cx));
    }
    enter(semaphore, inside);
    second.join().expect("no panic");
}

fn readiness_wakes() {
    let watch = Arc::new(Readiness::default());
    let telling = Arc::clone(&watch);
    let poller = thread::spawn(move || {
        telling.set(WRITABLE);
        telling.set(READABLE);
    });
    block_on(poll_fn(|cx| watch.poll(cx, READABLE)));
    block_on(poll_fn(|cx| watch.poll(cx, WRITABLE)));
    poller.join().expect("no panic");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(watch.poll(&mut cx, READABLE).is_pending(), "used up");
    watch.end();
}

const SECOND: Duration = Duration::from_secs(1);

/// The timer fires for a first deadline, which is cancelled, while a second is registered.
fn deadlines_wake() {
    clock::start();
    let timers = Timers::new();
    let [first, second] = [1, 2].map(|n| timers.after(n * SECOND));
    let mut first = Box::pin(first);
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let reactor = thread::spawn(|| {
        clock::advance(SECOND);
        clock::advance(SECOND);
    });
    drop(first);
    block_on(second);
    reactor.join().expect("no panic");
}

/// A deadline before that of the timer is registered while the timer fires.
fn earlier_deadlines_wake() {
    clock::start();
    let timers = Timers::new();
    let due = [1, 2].map(|n| timers.tick_of(clock::now() + n * SECOND));
    let mut last = Box::pin(timers.at(due[1]));
    assert!(last.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let reactor = thread::spawn(|| {
        clock::advance(SECOND);
        clock::advance(SECOND);
    });
    block_on(timers.at(due[0]));
    reactor.join().expect("no panic");
}

/// The timer of the kernel fires for one alarm, while one is cancelled and another one is set.
fn alarms_wake() {
    clock::start();
    let alarms = Arc::new(Alarms::new().expect("no system call"));
    let begin = clock::now();
    let [first, second, third] = [1, 2, 3].map(|n| {
        let mut alarm = Alarm::new(&alarms);
        alarm.set_at(begin + n * SECOND);
        alarm
    });
    for alarm in [&first, &second] {
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(alarm.poll(cx, clock::now()).is_pending());
    }
    let reactor = {
        let alarms = Arc::clone(&alarms);
        thread::spawn(move || {
            // The task may set its alarm afterwards, so the last turns are the main thread's.
            for _ in 0..2 {
                if clock::advance_to_kernel_timer() {
                    alarms.fire(clock::now());
                }
            }
        })
    };
    drop(second);
    let woken = Arc::new(AtomicBool::new(false));
    let waker = Waker::from(Arc::new(Note(Arc::clone(&woken))));
    let is_over = third.poll(&mut Context::from_waker(&waker), clock::now()).is_ready();
    reactor.join().expect("no panic");
    while clock::advance_to_kernel_timer() {
        alarms.fire(clock::now());
    }
    assert!(is_over || woken.load(Ordering::SeqCst), "the alarm is lost");
    assert!(clock::now() >= begin + 3 * SECOND, "too early");
    drop(first);
}

/// A waker that notes that it was called.
struct Note(Arc<AtomicBool>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
