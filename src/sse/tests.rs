//! Readers of events, and what they cost, on a network and a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_lite::future::block_on;
use smol::Executor;

use crate::config::Config;
use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::registration;
use crate::connection::registration::ClientKind;
use crate::disconnect::Disconnect;
use crate::history_rule::HistoryRule;
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::memory::budget::AGING_TICK;
use crate::message::Message;
use crate::sim::network::{Line, Socket};
use crate::sse::connection::{response, run};
use crate::sse::events_query::EventsQuery;
use crate::time::virtual_time::{VirtualTime, now};

const EVENTS: ClientKind = ClientKind::Events { ends: false };

struct Anyone;

impl Handler for Anyone {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

/// A hub and its readers, on an executor and a clock that the test moves.
struct Stage {
    time: VirtualTime,
    executor: Executor<'static>,
    hub: Hub,
}

impl Stage {
    fn new(config: Config) -> Self {
        let (time, executor) = (VirtualTime::start(), Executor::new());
        let (hub, manager) = Hub::new(config).expect("valid");
        executor.spawn(manager).detach();
        hub.memory().set_time(now());
        Self { time, executor, hub }
    }

    /// A reader of the room `main` that has read so far, and for which the kernel takes `room`
    /// bytes more.
    fn reader(&self, room: usize) -> Arc<Line> {
        let query = EventsQuery::default();
        let head = response(query.format, &self.hub.shared().config).encode(false, None);
        let line = Line::new(head.len().saturating_add(room), usize::MAX, Rng::with_seed(1));
        let (hub, socket) = (self.hub.clone(), Socket::new(&line, false));
        let connection = async move {
            let _counted = hub.shared().admissions.connection();
            let admission = Admission::anonymous().room("main");
            let admitted = registration::admit(&hub, admission, EVENTS).await.expect("a place");
            run(&hub, socket, admitted, (head, query), &Anyone).await;
        };
        self.executor.spawn(connection).detach();
        self.rest();
        line
    }

    fn publish(&self, message: Message) {
        block_on(self.executor.run(self.hub.publish("main", message))).expect("it runs");
        self.rest();
    }

    fn rest(&self) {
        while self.executor.try_tick() {}
    }

    /// Lets time pass until something is so; returns how much.
    fn until(&self, is_so: impl Fn(&Self) -> bool) -> Duration {
        let begin = now();
        while !is_so(self) {
            self.time.advance(self.time.until_next().expect("nothing will come of it"));
            self.rest();
        }
        now() - begin
    }
}

#[test]
fn what_is_encoded_and_not_taken_is_counted() {
    let stage = Stage::new(Config::default());
    let slow = stage.reader(100);
    assert_eq!(stage.hub.memory().charged(), 0, "an idle reader holds nothing");
    stage.publish("x".repeat(60_000).into());
    let message = stage.hub.memory().charged();
    let quick = stage.reader(usize::MAX);
    let slower = stage.reader(100);
    stage.publish("y".repeat(60_000).into());
    let both = stage.hub.memory().charged();
    assert!(message > 60_000 + 16 * 1024, "{message} bytes for a message and a piece of it");
    assert!(both > 2 * message - 16 * 1024, "{both} bytes for two of each");
    assert!(quick.lock().taken.len() > 60_000, "it has all of the second");
    slow.grant(usize::MAX);
    slower.grant(usize::MAX);
    stage.rest();
    assert_eq!(stage.hub.memory().charged(), 0);
}

/// Sends each client away.
struct SendsAway;

impl Handler for SendsAway {
    async fn on_connect(&self, _: &Client) -> Result<(), Disconnect> {
        Err(Disconnect::new(4000, "not today"))
    }

    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

/// The inbox is full and the manager busy, so that it does not hear that the client goes: the
/// client's deadlines count all the same.
#[test]
fn the_deadlines_of_a_client_that_is_sent_away_count_while_it_waits_for_the_manager() {
    let stage = Stage::new(Config::default().inbox(1));
    let (line, beside) = (Line::new(0, usize::MAX, Rng::with_seed(1)), Executor::new());
    let (hub, socket) = (stage.hub.clone(), Socket::new(&line, false));
    let admitting = registration::admit(&hub, Admission::anonymous(), EVENTS);
    let admitted = block_on(stage.executor.run(admitting)).expect("a place");
    hub.try_publish("empty room", "x").expect("there is room");
    let query = EventsQuery::default();
    let head = response(query.format, &stage.hub.shared().config).encode(false, None);
    let ending = hub.clone();
    let connection = beside
        .spawn(async move { run(&ending, socket, admitted, (head, query), &SendsAway).await });
    let begin = now();
    while beside.try_tick() {}
    while !line.lock().closed {
        stage.time.advance(stage.time.until_next().expect("nothing will come of it"));
        while beside.try_tick() {}
    }
    assert_eq!(now() - begin, Config::WRITE_TIMEOUT);
    assert_eq!(hub.stats().clients_stuck, 1);
    stage.rest();
    while beside.try_tick() {}
    stage.rest();
    assert_eq!(hub.stats().clients, 0);
    drop(connection);
}

/// A message for all is owed by each in part, which is little; what it became for a reader that
/// does not take it is that one's alone.
#[test]
fn readers_that_take_nothing_are_evicted_when_memory_is_short() {
    const SLOW: usize = 6;
    let config = Config::default().max_memory(Some(4 << 20)).queue_bytes(4 << 20);
    let stage = Stage::new(config);
    let memory = Arc::clone(stage.hub.memory());
    let quick = stage.reader(usize::MAX);
    let slow: Vec<_> = (0..SLOW).map(|_| stage.reader(100)).collect();
    let before = memory.used();
    let message = Message::from("x".repeat(20_000));
    let share = message.size() / SLOW;
    assert!(share < memory.least_evictable(), "of a message, {share} bytes are no debt");
    stage.publish(message);
    let encoded = memory.used() - before;
    assert!(encoded > SLOW * 16 * 1024, "{encoded} bytes are encoded");
    // Others take the rest, and one of them waits.
    let _others = memory.charge(memory.watermarks().high.saturating_sub(memory.used()));
    for _ in 0..2 {
        stage.time.advance(AGING_TICK);
        memory.set_time(now());
    }
    stage.hub.want_eviction();
    stage.rest();
    assert_eq!(stage.hub.stats().clients_evicted as usize, SLOW);
    assert!(slow.iter().all(|line| line.lock().closed), "they have ended");
    assert!(memory.used() < memory.watermarks().low, "{} bytes are used", memory.used());
    assert!(!quick.lock().closed && stage.hub.stats().clients == 1);
    assert!(quick.lock().taken.len() > 20_000, "it has heard all");
}

/// It comes back behind what it has heard, and its room may keep what it has missed.
#[test]
fn an_evicted_reader_hears_of_no_gap() {
    let config = Config::default().queue(2).history(vec![HistoryRule::new("*", 10)]);
    let stage = Stage::new(config);
    let quick = stage.reader(usize::MAX);
    let begun = quick.lock().taken.len();
    stage.publish("heard".into());
    let event = quick.lock().taken.len() - begun;
    // It takes one event whole and not a byte of the next.
    let slow = stage.reader(event);
    stage.publish("heard".into());
    stage.publish("missed".into());
    stage.publish("missed".into());
    // It reads again at the moment at which its queue is past its bound.
    stage.hub.try_publish("main", "missed").expect("there is room");
    slow.grant(usize::MAX);
    stage.rest();
    assert_eq!(stage.hub.stats().clients_evicted, 1);
    let line = slow.lock();
    let taken = String::from_utf8_lossy(&line.taken);
    assert!(line.closed && taken.contains("data: heard"), "{taken}");
    assert!(!taken.contains("gap") && !taken.contains("data: missed"), "{taken}");
}

/// No message comes, so that it is the heartbeat that the peer does not take.
#[test]
fn a_vanished_reader_is_noticed_within_a_ping_interval_and_twenty_seconds() {
    let stage = Stage::new(Config::default());
    let gone = stage.reader(0);
    let here = stage.reader(usize::MAX);
    let noticed = stage.until(|_| gone.lock().closed);
    let (soonest, latest) = (Config::PING_INTERVAL * 9 / 10, Config::PING_INTERVAL * 11 / 10);
    assert!(noticed >= soonest + Config::WRITE_TIMEOUT, "{noticed:?}");
    assert!(noticed <= latest + Config::WRITE_TIMEOUT, "{noticed:?}");
    assert!(noticed <= Config::PING_INTERVAL + Duration::from_secs(20), "{noticed:?}");
    assert_eq!(stage.hub.stats().clients_stuck, 1);
    assert!(!here.lock().closed && stage.hub.stats().clients == 1);
    assert!(here.lock().taken.ends_with(b":\n"));
}
