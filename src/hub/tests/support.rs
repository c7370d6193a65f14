//! What the tests share: seeds, a peer that takes what the test lets it take, a stage for the manager.

use std::future::{Future, poll_fn};
use std::io;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;
use futures_lite::future::{block_on, poll_once};
use smol::{Executor, Task};

use crate::config::Config;
use crate::hub::client::Client;
use crate::hub::client_id::{ClientId, Refusal};
use crate::hub::command::{Command, Inserted};
use crate::hub::cursor::Reading;
use crate::hub::direct_writer::DirectWriter;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_outcome::Drained;
use crate::hub::queue_state::Phase;
use crate::hub::since::Begin;
use crate::hub::unsent::{Progress, Unsent};
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::overflow::Overflow;
use crate::stats::Counters;

/// Ticks after which a stage that still moves counts as one that never rests.
const TICKS_MAX: usize = 2_000_000;

/// Runs a test with `rounds` seeds, or with the one that HUBLET_TEST_SEED gives; names the seed
/// when the test fails.
pub(crate) fn seeded(rounds: u64, test: impl Fn(&mut Rng)) {
    let seeds = match std::env::var("HUBLET_TEST_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("HUBLET_TEST_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..rounds,
    };
    for seed in seeds {
        let round = AssertUnwindSafe(|| test(&mut Rng::with_seed(seed)));
        if let Err(panic) = catch_unwind(round) {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            match said {
                Some(said) => panic!("with HUBLET_TEST_SEED={seed}: {said}"),
                None => resume_unwind(panic),
            }
        }
    }
}

/// A binary message that carries its number and is filled with it, `len` bytes of payload.
pub(crate) fn numbered(number: u32, len: usize) -> Message {
    let mut payload = vec![number as u8; len.max(4)];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    Message::from(payload)
}

/// The number of a message's payload; fails if a byte of it is another message's.
pub(crate) fn number_of(payload: &[u8]) -> u32 {
    let (number, filling) = payload.split_first_chunk::<4>().expect("a numbered message");
    let number = u32::from_le_bytes(*number);
    assert!(filling.iter().all(|&byte| byte == number as u8), "message {number} is torn");
    number
}

/// One frame of a decoded stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
    /// It came compressed; the payload is what it stands for.
    pub(crate) is_compressed: bool,
}

impl Frame {
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { opcode, payload: payload.into(), is_compressed: false }
    }
}

/// Decodes a stream of unmasked whole frames; returns the bytes of an unfinished one as well.
pub(crate) fn decode(mut stream: &[u8]) -> (Vec<Frame>, usize) {
    let mut frames = Vec::new();
    while stream.len() >= 2 {
        let opcode = stream[0] & 0x0f;
        let is_compressed = stream[0] & 0x40 != 0;
        let first = if is_compressed { 0xc0 } else { 0x80 };
        assert_eq!(stream[0] & 0xf0, first, "a frame begins here");
        assert!(!is_compressed || opcode < 3, "only a message is compressed");
        assert!(matches!(opcode, 1 | 2 | 8 | 9 | 10), "opcode {opcode} was never sent");
        let (header, len) = match stream[1] {
            126 if stream.len() < 4 => break,
            126 => (4, usize::from(u16::from_be_bytes([stream[2], stream[3]]))),
            127 if stream.len() < 10 => break,
            127 => {
                let len = stream[2..10].try_into().expect("8 bytes");
                (10, u64::from_be_bytes(len) as usize)
            }
            len => {
                assert!(len < 126, "a server's frame is not masked");
                (2, usize::from(len))
            }
        };
        let Some(payload) = stream.get(header..header + len) else { break };
        let payload = if is_compressed { inflated(payload) } else { payload.to_vec() };
        frames.push(Frame { opcode, payload, is_compressed });
        stream = &stream[header + len..];
    }
    (frames, stream.len())
}

thread_local! {
    /// The states in which tests compress and inflate: to make one costs more than to use it.
    static MEMORY: MemoryBudget = MemoryBudget::default();
}

/// What a compressed payload stands for, which is shorter than that.
fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    let result =
        MEMORY.with(|memory| memory.inflate(payload, usize::MAX / 4, &mut inflated, |_| ()));
    result.expect("a stream of its own");
    assert!(payload.len() < inflated.len(), "what would not become shorter is not compressed");
    inflated
}

/// The payload of a compressed message.
pub(crate) fn deflated(payload: &[u8]) -> Vec<u8> {
    MEMORY
        .with(|memory| memory.compress(payload, usize::MAX / 2, <[u8]>::to_vec))
        .expect("no limit")
}

/// The numbers of the data frames in a stream, in order.
pub(crate) fn numbers(stream: &[u8]) -> Vec<u32> {
    let (frames, _) = decode(stream);
    frames.iter().filter(|frame| frame.opcode == 2).map(|frame| number_of(&frame.payload)).collect()
}

/// A peer's socket buffer: takes as many bytes as it has room for.
#[derive(Debug)]
pub(crate) struct Sink(Mutex<Taking>);

#[derive(Debug)]
pub(crate) struct Taking {
    /// Everything taken so far.
    pub(crate) taken: Vec<u8>,
    /// Bytes that are taken before writing would block.
    pub(crate) room: usize,
    /// Bytes one write takes at most.
    pub(crate) at_most: usize,
    /// Every write fails.
    pub(crate) broken: bool,
    /// Writes that were tried.
    pub(crate) writes: usize,
    /// Wakes the task that waits for room.
    armed: Option<Waker>,
}

impl Sink {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        let (taken, at_most) = (Vec::new(), usize::MAX);
        let taking = Taking { taken, room, at_most, broken: false, writes: 0, armed: None };
        Arc::new(Self(Mutex::new(taking)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Taking> {
        self.0.lock().expect("not poisoned")
    }

    /// Makes room for `bytes` more, and wakes the task that waits for it.
    pub(crate) fn grant(&self, bytes: usize) {
        let mut taking = self.lock();
        taking.room = taking.room.saturating_add(bytes);
        if let Some(waker) = taking.armed.take() {
            drop(taking);
            waker.wake();
        }
    }

    /// Every write fails from now on.
    pub(crate) fn break_off(&self) {
        self.lock().broken = true;
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        numbers(&self.lock().taken)
    }

    /// As [`DirectWriter::try_write`], for the connection's task.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        unsent: &Unsent<'_>,
    ) -> Poll<io::Result<Progress>> {
        unsent.write_frames(|frames| match self.try_write(frames) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lock().armed = Some(cx.waker().clone());
                Poll::Pending
            }
            taken => Poll::Ready(taken),
        })
    }
}

impl DirectWriter for Sink {
    fn try_write(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taking = self.lock();
        taking.writes += 1;
        if taking.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if taking.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut left = taking.room.min(taking.at_most);
        let mut written = 0;
        for frame in frames {
            let step = left.min(frame.len());
            taking.taken.extend_from_slice(&frame[..step]);
            (left, written) = (left - step, written + step);
        }
        taking.room = taking.room.saturating_sub(written);
        Ok(written)
    }
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    /// How often since the last call.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// The configuration of a queue that stands alone.
pub(crate) fn queue_config(messages: usize, bytes: usize, overflow: Overflow) -> Arc<QueueConfig> {
    Arc::new(QueueConfig {
        messages,
        bytes,
        overflow,
        counters: Arc::default(),
        memory: Arc::default(),
    })
}

/// What a queue's counters say of its recipients: delivered, dropped, lost.
pub(crate) fn fates(counters: &Counters) -> [u64; 3] {
    let fates = [&counters.messages_delivered, &counters.messages_dropped, &counters.messages_lost];
    fates.map(|fate| fate.load(Ordering::Relaxed))
}

/// A hub whose manager runs on an executor that only the test ticks.
pub(crate) struct Stage {
    pub(crate) executor: Executor<'static>,
    pub(crate) hub: Hub,
    pub(crate) manager: Task<()>,
}

impl Stage {
    pub(crate) fn new(config: Config) -> Self {
        let executor = Executor::new();
        let (hub, manager) = Hub::new(config).expect("a valid configuration");
        let manager = executor.spawn(manager);
        Self { executor, hub, manager }
    }

    /// Ticks until nothing moves any more.
    pub(crate) fn rest(&self) {
        let ticks = (0..TICKS_MAX).take_while(|_| self.executor.try_tick()).count();
        assert!(ticks < TICKS_MAX, "the stage never comes to rest");
    }

    /// Starts a future and lets everything settle.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let task = self.executor.spawn(future);
        self.rest();
        task
    }

    /// Runs a future that must end without help from outside.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        finished(self.start(future))
    }

    /// Runs what `verb` makes of the hub.
    pub(crate) fn call<T, F>(&self, verb: impl FnOnce(Hub) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.run(verb(self.hub.clone()))
    }

    /// Has a client inserted.
    pub(crate) fn register(
        &self,
        queue: &Arc<Queue>,
        user: Option<&str>,
        rooms: &[&str],
    ) -> Result<ClientId, Refusal> {
        self.register_as(queue, user, rooms, Reading::PLAIN).map(|inserted| inserted.id)
    }

    /// Has a client inserted that reads its room in some way.
    pub(crate) fn register_as(
        &self,
        queue: &Arc<Queue>,
        user: Option<&str>,
        rooms: &[&str],
        reading: Reading,
    ) -> Result<Inserted, Refusal> {
        let (hub, queue, user) = (self.hub.clone(), Arc::clone(queue), user.map(Arc::from));
        let rooms = rooms.iter().map(|&room| Arc::from(room)).collect();
        let reading = Box::new(reading);
        let (prefixes, came) = (0, 0);
        let register =
            move |reply| Command::Register { queue, user, rooms, prefixes, came, reading, reply };
        self.run(async move { hub.request(register).await }).expect("the manager runs")
    }

    /// A client that takes everything at once.
    pub(crate) fn client(&self, user: Option<&str>, rooms: &[&str]) -> Peer {
        self.client_with_room(usize::MAX, user, rooms)
    }

    /// A client with a socket that takes `room` bytes and then blocks; no task drains its queue.
    pub(crate) fn client_with_room(&self, room: usize, user: Option<&str>, rooms: &[&str]) -> Peer {
        let (peer, _) = self.client_as(user, rooms, Reading::PLAIN);
        peer.sink.lock().room = room;
        peer.open();
        peer
    }

    /// A client in its handshake that reads its room in some way, and where it begins.
    pub(crate) fn client_as(
        &self,
        user: Option<&str>,
        rooms: &[&str],
        reading: Reading,
    ) -> (Peer, Option<Begin>) {
        let queue = Queue::new(&self.hub.shared().queue_config);
        let inserted = self.register_as(&queue, user, rooms, reading);
        let Inserted { id, begin } = inserted.expect("a place in the registry");
        let (user, origin) = (user.map(Arc::from), crate::peer::Peer::unknown());
        let client = Client::new(self.hub.clone(), id, user, origin, None);
        (Peer { client, queue, sink: Sink::new(usize::MAX) }, begin)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.manager.is_finished()
    }
}

/// A task's result, which must be there.
pub(crate) fn finished<T>(task: Task<T>) -> T {
    assert!(task.is_finished(), "the future still waits");
    block_on(poll_once(task)).expect("a finished task is ready")
}

/// A client on a stage: what the connection would hold.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) queue: Arc<Queue>,
    pub(crate) sink: Arc<Sink>,
}

impl Peer {
    pub(crate) fn id(&self) -> ClientId {
        self.client.id()
    }

    /// Ends the handshake: what is pushed goes to the socket.
    pub(crate) fn open(&self) {
        self.queue.open(Some(Arc::clone(&self.sink) as Arc<dyn DirectWriter>));
    }

    /// The numbers of the messages it was sent.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.sink.numbers()
    }

    /// The texts it was sent.
    pub(crate) fn texts(&self) -> Vec<String> {
        let (frames, cut) = decode(&self.sink.lock().taken);
        assert_eq!(cut, 0, "a frame is whole");
        let text = |frame: Frame| String::from_utf8(frame.payload).expect("text");
        frames.into_iter().map(text).collect()
    }

    /// The connection's task: drains whenever it is woken, until the queue takes no more.
    pub(crate) fn pump(&self) -> impl Future<Output = Phase> + Send + 'static {
        self.pump_with(|_| ())
    }

    /// As [`pump`](Self::pump), for a client that may be behind in its room: it asks for more.
    pub(crate) fn reader_pump(&self) -> impl Future<Output = Phase> + Send + 'static {
        let hub = self.client.hub().clone();
        self.pump_with(move |id| hub.request_more(id))
    }

    fn pump_with(
        &self,
        request: impl Fn(ClientId) + Send + 'static,
    ) -> impl Future<Output = Phase> + Send + 'static {
        let (queue, sink) = (Arc::clone(&self.queue), Arc::clone(&self.sink));
        poll_fn(move |cx| {
            let drained =
                queue.poll_drain(cx, usize::MAX, |cx, unsent| sink.poll_write(cx, unsent));
            drained.request.into_iter().for_each(&request);
            match drained {
                Drained { phase: Phase::Handshaking | Phase::Open, .. } => Poll::Pending,
                Drained { phase: Phase::Closing, empty: false, .. } => Poll::Pending,
                Drained { phase, .. } => Poll::Ready(phase),
            }
        })
    }
}
