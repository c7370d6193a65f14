//! Eviction when memory is short: registry and queues as plain data, a ceiling of 100,000 bytes.

use std::sync::Arc;
use std::time::Instant;

use crate::disconnect::Disconnect;
use crate::hub::batch::JoinedFrames;
use crate::hub::client_id::{ClientId, Target};
use crate::hub::cursor::Reading;
use crate::hub::delivery::{Delivery, Dispatch};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::eviction::MemoryEviction;
use crate::hub::history_config::HistoryConfig;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_state::Phase;
use crate::hub::registry::Registry;
use crate::hub::tests::support::{Sink, numbered};
use crate::memory::budget::{AGING_TICK, MemoryBudget, Watermarks};
use crate::overflow::Overflow;

const CEILING: usize = 100_000;

/// A hub without its manager: the memory, the clients, and their eviction.
struct Table {
    memory: Arc<MemoryBudget>,
    queue_config: Arc<QueueConfig>,
    registry: Registry,
    eviction: MemoryEviction,
    began: Instant,
    number: u32,
}

impl Table {
    fn new() -> Self {
        Self::with_connections_of(0)
    }

    fn with_connections_of(bytes: usize) -> Self {
        let memory = Arc::new(MemoryBudget::new(Watermarks::below(CEILING), 0, bytes));
        let queue_config = Arc::new(QueueConfig {
            messages: 64,
            bytes: CEILING,
            overflow: Overflow::Disconnect,
            counters: Arc::default(),
            memory: Arc::clone(&memory),
        });
        let registry = Registry::new(
            64,
            8,
            HistoryConfig::none(),
            Arc::clone(&queue_config.counters),
            &memory,
        );
        let began = Instant::now();
        memory.set_time(began);
        Self {
            memory,
            queue_config,
            registry,
            eviction: MemoryEviction::default(),
            began,
            number: 0,
        }
    }

    /// A client that takes nothing.
    fn client(&mut self) -> (ClientId, Arc<Queue>) {
        let queue = Queue::new(&self.queue_config);
        let id = self
            .registry
            .insert(Arc::clone(&queue), None, &["main".into()], 0, Reading::PLAIN)
            .expect("a place")
            .id;
        queue.open(Some(Sink::new(0) as Arc<dyn DirectWriter>));
        (id, queue)
    }

    /// Sends a message that takes about `bytes` of memory.
    fn send(&mut self, target: &Target, bytes: usize) {
        let message = numbered(self.number, bytes * 8 / 9);
        self.number += 1;
        message.charge(&self.memory);
        let messages = [message];
        let mut dispatches = [Dispatch::new(None)];
        let joined = JoinedFrames::default();
        let mut delivery = Delivery::new(target, &messages, &joined, &mut dispatches);
        assert!(self.registry.deliver(&mut delivery, usize::MAX));
    }

    /// Lets `ticks` pass.
    fn wait(&self, ticks: u32) {
        self.memory.set_time(self.began + AGING_TICK * (self.memory.tick() + ticks));
    }

    fn look(&mut self) {
        self.eviction.run(&mut self.registry);
    }
}

/// The clients among `queues` that were evicted.
fn evicted(queues: &[(ClientId, Arc<Queue>)]) -> Vec<usize> {
    let gone = |(_, (_, queue)): &(usize, &(ClientId, Arc<Queue>))| {
        let reason = queue.reason();
        reason.is_some_and(|reason| reason.code() == Disconnect::TRY_LATER.code())
    };
    queues.iter().enumerate().filter(gone).map(|(nth, _)| nth).collect()
}

#[test]
fn client_that_pins_the_most_goes_first_and_no_more_go_than_must() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..5).map(|_| table.client()).collect();
    for (bytes, (id, _)) in [15_000, 30_000, 10_000, 20_000, 21_000].into_iter().zip(&clients) {
        table.send(&Target::Client(*id), bytes);
    }
    table.wait(2);
    table.look();
    assert_eq!(evicted(&clients), [1]);
    assert_eq!(table.registry.members(&Target::All).len(), 4);
    assert!(table.memory.used() < CEILING * 85 / 100);
    table.look();
    assert_eq!(evicted(&clients), [1], "memory is not short any more");
    let stats = table.queue_config.counters.read(0);
    assert_eq!((stats.clients_evicted, stats.clients_shed, stats.clients_stuck), (1, 1, 0));
}

/// Messages that pass through pin nothing, however many they are.
#[test]
fn client_that_was_behind_for_less_than_a_tick_stays() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..2).map(|_| table.client()).collect();
    table.send(&Target::Client(clients[0].0), 30_000);
    table.wait(1);
    table.send(&Target::Client(clients[1].0), 66_000);
    table.look();
    assert_eq!(evicted(&clients), [], "none has pinned it for a whole tick");
    table.wait(1);
    table.look();
    assert_eq!(evicted(&clients), [0], "the smaller part is the older one");
    table.wait(1);
    table.send(&Target::Client(clients[1].0), 31_000);
    table.look();
    assert_eq!(evicted(&clients), [0, 1]);
}

/// The last resort: what was read before cannot be refused, and the ceiling holds.
#[test]
fn largest_goes_at_once_when_there_is_hardly_any_memory_left() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..2).map(|_| table.client()).collect();
    table.send(&Target::Client(clients[0].0), 40_000);
    table.send(&Target::Client(clients[1].0), 59_000);
    table.look();
    assert_eq!(evicted(&clients), [1]);
}

/// Ten clients that share a message pin a tenth of it each.
#[test]
fn shared_message_is_pinned_in_parts() {
    let mut table = Table::new();
    let sharers: Vec<_> = (0..10).map(|_| table.client()).collect();
    table.send(&Target::Room("main".into()), 60_000);
    let alone = [table.client()];
    table.send(&Target::Client(alone[0].0), 37_000);
    table.wait(2);
    table.look();
    assert_eq!((evicted(&alone), evicted(&sharers)), (vec![0], vec![]));
    let alone = [table.client()];
    table.send(&Target::Client(alone[0].0), 3_000);
    table.send(&Target::Room("main".into()), 33_000);
    table.wait(2);
    table.look();
    assert_eq!(evicted(&alone), [], "they pin more than it does, each");
    assert_eq!(evicted(&sharers).len(), 10, "the clients that are left pin what the others did");
}

/// Out of the registry is not out of the process.
#[test]
fn client_that_is_being_closed_and_takes_nothing_is_evicted_too() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..2).map(|_| table.client()).collect();
    table.send(&Target::Client(clients[0].0), 60_000);
    table.send(&Target::Client(clients[1].0), 36_000);
    table.registry.remove(clients[0].0, Disconnect::NORMAL);
    table.wait(2);
    table.look();
    assert!(table.memory.used() < 50_000);
    let queue = &clients[0].1;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let drained = queue.poll_drain(&mut cx, 1, |_, _| std::task::Poll::Pending);
    assert_eq!(drained.phase, Phase::Evicted);
    assert_eq!(queue.reason(), Some(Disconnect::NORMAL), "the first reason stands");
    assert_eq!(table.registry.members(&Target::All).len(), 1);
}

/// An unfinished message goes with its connection, a moment after the eviction.
#[test]
fn what_is_about_to_go_counts_as_gone() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..3).map(|_| table.client()).collect();
    let held: Vec<_> = clients.iter().map(|_| table.memory.charge(32_000)).collect();
    for (_, queue) in &clients {
        queue.set_private_bytes(32_000, table.memory.tick());
    }
    table.wait(2);
    table.look();
    table.look();
    assert_eq!(evicted(&clients).len(), 1, "though it is held still");
    let gone = evicted(&clients)[0];
    clients[gone].1.disconnect();
    table.wait(1);
    table.look();
    assert_eq!(evicted(&clients).len(), 2, "it has ended, and memory is short");
    drop(held);
}

/// From 90 % on no connection reads, and a connection that waits asks for an eviction. Without that
/// there is none before 95 %.
#[test]
fn client_goes_at_ninety_percent_only_when_others_wait() {
    let mut table = Table::new();
    let clients = [table.client()];
    table.send(&Target::Client(clients[0].0), 92_000);
    table.wait(2);
    table.look();
    assert_eq!(evicted(&clients), []);
    assert!(table.memory.want_eviction(), "the first that asks");
    assert!(!table.memory.want_eviction(), "the manager has been asked");
    table.look();
    assert_eq!(evicted(&clients), [0]);
    assert!(table.memory.want_eviction(), "it can be asked again");
}

#[test]
fn client_that_pins_nothing_stays_however_short_memory_is() {
    let mut table = Table::new();
    let clients = [table.client(), table.client()];
    let _charge = table.memory.charge(CEILING);
    table.wait(9);
    table.look();
    assert_eq!(evicted(&clients), []);
}

/// A client that lags a little does no harm, and its eviction would free too little.
#[test]
fn client_that_pins_little_stays() {
    let mut table = Table::with_connections_of(4_000);
    let clients = [table.client(), table.client()];
    table.send(&Target::Client(clients[0].0), 500);
    table.send(&Target::Client(clients[1].0), 2_000);
    let _charge = table.memory.charge(CEILING);
    table.wait(9);
    table.look();
    assert_eq!(evicted(&clients), [1]);
}

/// Every room and what waits for its members is off the account when they have gone.
#[test]
fn account_is_at_its_baseline_when_all_have_gone() {
    let mut table = Table::new();
    let clients: Vec<_> = (0..40).map(|_| table.client()).collect();
    assert!(table.memory.used() > 0 && table.memory.charged() == 0, "a room is set aside");
    for _ in 0..20 {
        table.send(&Target::Room("main".into()), 4_000);
        table.send(&Target::Client(clients[7].0), 2_000);
        table.wait(1);
        table.look();
    }
    assert!(evicted(&clients).contains(&7));
    for (id, queue) in &clients {
        queue.disconnect();
        table.registry.remove(*id, Disconnect::ABNORMAL);
    }
    assert_eq!((table.memory.used(), table.memory.charged()), (0, 0));
}
