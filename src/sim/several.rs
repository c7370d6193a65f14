//! Two or three hubs on one simulated engine.
//!
//! A run lets clients join and leave rooms on each hub, publish through the hub and through
//! clients, and lets the engine lose connections, forget and restart. What must be so: all hubs
//! have one order for a room; the recipients that a publisher is told are exact; a message that is
//! refused reaches no client; a client misses no message that was published while its hub was
//! connected; positions of a hub that follow each other are messages that follow each other, so that
//! a reader with `since` has no silent gap; nothing but publishers and joins waits for the engine; a
//! room without members is not subscribed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::config::Config;
use crate::connection::admission::Admission;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::history_rule::HistoryRule;
use crate::hub::handle::Hub;
use crate::hub::since::Since;
use crate::message::Message;
use crate::sim::engine::{Engine, KEEPS, KEPT};
use crate::sim::engine_driver::drive;
use crate::sim::executor::{Executor, Order, TaskId};
use crate::sim::journal;
use crate::sim::journal::event;
use crate::sim::several_checks::check;
use crate::sim::several_notes::{Kind, Member, NEVER, Notes, ROOMS, Said, counter, name};
use crate::sim::several_readers::{count, read};
use crate::sim::sweep::Sweep;
use crate::stats::Stats;
use crate::time::virtual_time::VirtualTime;

const CLIENTS_MAX: usize = 24;
/// Readers that wait at a time; the next one to come has one of them give up.
const WAITS_MAX: usize = 3;
const TICKS_MAX: usize = 200_000;

struct World {
    rng: Rng,
    executor: Executor,
    time: VirtualTime,
    hubs: Vec<Hub>,
    engine: Engine,
    notes: Rc<RefCell<Notes>>,
    /// What may wait for neither the engine nor time.
    verbs: Vec<TaskId>,
    deaf: BTreeSet<usize>,
    /// Readers that wait: the hub, the room, and the task.
    waits: Vec<(usize, usize, TaskId)>,
}

impl World {
    fn new(mut rng: Rng) -> Self {
        fastrand::seed(rng.u64(..));
        let order = if rng.bool() { Order::Fair } else { Order::Wild };
        let time = VirtualTime::start();
        journal::begin();
        let mut executor = Executor::new(order);
        let (mut hubs, mut engine) = (Vec::new(), Engine::default());
        let redis: crate::redis_config::Redis = "redis://localhost".parse().expect("a URL");
        for _ in 0..rng.usize(2..=3) {
            let config = Config::default()
                .redis(Some(redis.clone()))
                .history(vec![HistoryRule::new(KEEPS, KEPT)])
                .queue(10_000)
                .queue_bytes(1 << 20)
                .inbox(rng.usize(1..8))
                .write_timeout(Duration::from_secs(rng.u64(1..12)));
            let (hub, manager) = Hub::new(config).expect("a valid configuration");
            executor.spawn(manager);
            executor.spawn(drive(&mut engine, &hub));
            hubs.push(hub);
        }
        let [losses, passes] = [vec![Vec::new(); hubs.len()], vec![Vec::new(); hubs.len()]];
        let notes = Notes { losses, passes, ..Notes::default() };
        let notes = Rc::new(RefCell::new(notes));
        let (verbs, deaf) = (Vec::new(), BTreeSet::new());
        let waits = Vec::new();
        Self { rng, executor, time, hubs, engine, notes, verbs, deaf, waits }
    }

    fn step(&mut self) {
        self.count_step();
        match self.rng.u8(..100) {
            0..=29 => {
                for _ in 0..self.rng.u8(1..8) {
                    self.executor.tick(&mut self.rng);
                }
            }
            30..=54 => {
                for _ in 0..self.rng.u8(1..8) {
                    self.engine.step(&mut self.rng);
                }
            }
            55..=62 => self.connect(),
            63 => self.wait(),
            64..=70 => self.move_member(),
            71..=89 => self.publish(),
            90..=92 => self.rest(),
            93 => self.advance(),
            94 => self.lose(),
            95 => self.forget(),
            96 => self.pass_over(),
            97 => {
                event!("the engine restarts");
                self.engine.restart();
                self.notes.borrow_mut().restarts += 1;
                (0..self.hubs.len()).for_each(|nth| self.lose_hub(nth));
                (0..self.hubs.len()).for_each(|nth| self.engine.connect(nth));
            }
            _ => {
                let nth = self.rng.usize(..self.hubs.len());
                event!("hub {nth} may connect");
                self.engine.connect(nth);
            }
        }
    }

    fn count_step(&mut self) -> usize {
        let mut notes = self.notes.borrow_mut();
        notes.step += 1;
        self.engine.log.step.set(notes.step);
        notes.step
    }

    fn connect(&mut self) {
        if self.notes.borrow().members.len() >= CLIENTS_MAX {
            return;
        }
        let (hub, room) = (self.rng.usize(..self.hubs.len()), self.rng.usize(..ROOMS));
        let nth = self.notes.borrow().members.len();
        let since = self.since(hub, room);
        let kind = match since {
            None => Kind::Plain,
            Some(_) if self.rng.bool() => Kind::Numbered,
            Some(_) => Kind::Counting,
        };
        let mut member = Member::new(hub, kind);
        if let (Some(Since::Position(position)), KEEPS) = (since, &*name(room)) {
            let restarts = self.notes.borrow().restarts;
            member.whole = self.engine.whole().map(|whole| (whole, restarts));
            member.begins.0 = Some(position);
        }
        self.notes.borrow_mut().members.push(member);
        event!("client {nth}, {kind:?}, asks hub {hub} for room {room} since {since:?}");
        let (hub, notes) = (self.hubs[hub].clone(), Rc::clone(&self.notes));
        let mut admission = Admission::anonymous().room(name(room));
        if let Some(since) = since {
            admission = admission.since(since);
        }
        if kind == Kind::Counting {
            self.executor.spawn(count(hub, notes, nth, room, admission));
        } else {
            self.executor.spawn(read(hub, notes, nth, room, admission));
        }
    }

    /// Where a client begins that counts: often where another one has ended.
    fn since(&mut self, hub: usize, room: usize) -> Option<Since> {
        let notes = self.notes.borrow();
        let known =
            notes.positioned.keys().filter(|key| (key.0, key.1) == (counter(hub, room), room));
        let known: Vec<_> = known.map(|key| key.2).collect();
        match self.rng.u8(..4) {
            0 | 1 => None,
            2 => Some(self.rng.choice(known).map_or(Since::Oldest, Since::Position)),
            _ => Some(Since::Now),
        }
    }

    /// A client joins or leaves a room. To leave waits for no engine.
    fn move_member(&mut self) {
        let count = self.notes.borrow().members.len();
        if count == 0 {
            return;
        }
        let (nth, room) = (self.rng.usize(..count), self.rng.usize(..ROOMS));
        if self.notes.borrow().members[nth].is_counting() {
            return;
        }
        let Some(client) = self.notes.borrow().members[nth].client.clone() else { return };
        if std::mem::replace(&mut self.notes.borrow_mut().members[nth].moves, true) {
            return;
        }
        let notes = Rc::clone(&self.notes);
        if self.rng.bool() {
            event!("client {nth} joins room {room}");
            self.executor.spawn(async move {
                let joined = client.join(&name(room)).await;
                let mut notes = notes.borrow_mut();
                notes.members[nth].moves = false;
                if joined.is_ok() {
                    let step = notes.step;
                    notes.members[nth].stays.push((room, step, NEVER));
                }
            });
            return;
        }
        event!("client {nth} leaves room {room}");
        let step = notes.borrow().step;
        for stay in &mut notes.borrow_mut().members[nth].stays {
            if stay.0 == room {
                stay.2 = stay.2.min(step);
            }
        }
        let leaves = async move {
            client.leave(&name(room)).await.expect("the hub runs");
            notes.borrow_mut().members[nth].moves = false;
        };
        let verb = self.executor.spawn(leaves);
        self.verbs.push(verb);
    }

    /// A reader that waits gives up.
    fn wait_no_more(&mut self) {
        let (nth, room, task) = self.waits.swap_remove(self.rng.usize(..self.waits.len()));
        event!("a reader waits no more for room {room} of hub {nth}");
        self.executor.cancel(task);
        self.hubs[nth].give_up(name(room).into());
    }

    /// A reader waits for the next message of a room, or has waited long enough.
    fn wait(&mut self) {
        if self.waits.len() > WAITS_MAX {
            self.wait_no_more();
            return;
        }
        let (nth, room) = (self.rng.usize(..self.hubs.len()), self.rng.usize(..ROOMS));
        event!("a reader waits for room {room} of hub {nth}");
        let (hub, notes) = (self.hubs[nth].clone(), Rc::clone(&self.notes));
        let task = self.executor.spawn(async move {
            let Ok(heard) = hub.next_kept(name(room).into(), Since::Now).await else { return };
            let text = heard.messages.first().and_then(Message::as_text).map(str::to_owned);
            event!("a reader hears {text:?} in room {room} of hub {nth}");
            let notes = notes.borrow();
            let is_said =
                |text: &String| notes.said.iter().any(|s| s.room == room && s.text == *text);
            assert!(
                text.as_ref().is_none_or(is_said),
                "{text:?}, which a reader hears in room {room}, was said there"
            );
        });
        self.waits.push((nth, room, task));
    }

    fn publish(&mut self) {
        let (hub, room) = (self.rng.usize(..self.hubs.len()), self.rng.usize(..ROOMS));
        self.publish_to(hub, room);
    }

    fn publish_to(&mut self, hub: usize, room: usize) {
        let mut notes = self.notes.borrow_mut();
        let (nth, began) = (notes.said.len(), notes.step);
        let clients = notes.members.iter().enumerate().filter(|(_, member)| member.hub == hub);
        let clients: Vec<_> =
            clients.filter_map(|(n, member)| Some((n, member.client.clone()?))).collect();
        let client = self.rng.choice(clients).filter(|_| self.rng.bool());
        let except = client.as_ref().map(|(n, _)| *n);
        let text = format!("message {nth}");
        let (ended, result) = (NEVER, None);
        notes.said.push(Said { text: text.clone(), room, hub, except, began, ended, result });
        drop(notes);
        event!("hub {hub} publishes {text} to room {room}, not to {except:?}");
        let waits = self.rng.u8(..4) > 0;
        let (hub, notes) = (self.hubs[hub].clone(), Rc::clone(&self.notes));
        self.executor.spawn(async move {
            let room = name(room);
            let result: Result<Option<usize>, Error> = match (&client, waits) {
                (None, true) => hub.publish(&room, text).await.map(Some),
                (None, false) => hub.try_publish(&room, text).map(|()| None),
                (Some((_, client)), true) => client.publish(&room, text).await.map(Some),
                (Some((_, client)), false) => client.try_publish(&room, text).map(|()| None),
            };
            drop(hub);
            let mut notes = notes.borrow_mut();
            let step = notes.step;
            event!("message {nth} is done: {result:?}");
            let said = &mut notes.said[nth];
            match result {
                Ok(None) => {}
                Ok(Some(recipients)) => {
                    (said.ended, said.result) = (step, Some(Ok(recipients)));
                }
                Err(error) => {
                    let is_surely_not = error.is_full() || error.into_message().is_some();
                    (said.ended, said.result) = (step, Some(Err(is_surely_not)));
                }
            }
        });
    }

    fn lose_hub(&mut self, nth: usize) {
        event!("hub {nth} loses its connection");
        let mut notes = self.notes.borrow_mut();
        let step = notes.step;
        notes.losses[nth].push(step);
        drop(notes);
        self.deaf.remove(&nth);
        self.engine.disconnect(nth);
    }

    fn lose(&mut self) {
        let nth = self.rng.usize(..self.hubs.len());
        self.lose_hub(nth);
    }

    /// One message does not reach a hub; the next one tells it so.
    fn pass_over(&mut self) {
        let nth = self.rng.usize(..self.hubs.len());
        if self.engine.pass_over(nth, &mut self.rng) {
            event!("a message passes hub {nth} over");
            let mut notes = self.notes.borrow_mut();
            let step = notes.step;
            notes.losses[nth].push(step);
            notes.passes[nth].push(step);
        }
    }

    fn forget(&mut self) {
        let nth = self.rng.usize(..self.hubs.len());
        event!("the engine forgets hub {nth}");
        self.deaf.insert(nth);
        self.engine.forget(nth);
    }

    /// A driver notices within 20 s that its hub is deaf, and connects again.
    fn notice(&mut self) {
        for nth in std::mem::take(&mut self.deaf) {
            self.lose_hub(nth);
            self.engine.connect(nth);
        }
    }

    /// Lets all that needs neither the engine nor time come to rest.
    fn rest(&mut self) {
        let mut ticks = 0;
        while self.executor.tick(&mut self.rng) {
            ticks += 1;
            assert!(ticks < TICKS_MAX, "the world never rests");
        }
        for verb in std::mem::take(&mut self.verbs) {
            assert!(!self.executor.runs(verb), "a client that leaves waits for the engine");
        }
        for hub in self.hubs.clone() {
            let clients = Rc::new(RefCell::new(None));
            let answer = Rc::clone(&clients);
            self.executor.spawn(async move { *answer.borrow_mut() = Some(hub.clients().await) });
            while self.executor.tick(&mut self.rng) {}
            assert!(clients.borrow().is_some(), "the manager waits for the engine");
        }
    }

    /// Lets everything arrive.
    fn come_to_rest(&mut self) {
        self.rest();
        while self.engine.is_busy() {
            self.engine.step(&mut self.rng);
            while self.executor.tick(&mut self.rng) {}
        }
        self.rest();
        let step = self.count_step();
        self.notes.borrow_mut().rests.push(step);
    }

    fn advance(&mut self) {
        let by = Duration::from_millis(self.rng.u64(..3_000));
        self.time.advance(by);
        event!("{by:?} have passed");
    }

    /// Everything connects, arrives and is answered.
    fn end(&mut self) {
        self.notice();
        for nth in 0..self.hubs.len() {
            if !self.engine.is_connected(nth) {
                self.engine.connect(nth);
            }
        }
        self.come_to_rest();
        for room in 0..ROOMS {
            self.publish_to(0, room);
            self.come_to_rest();
        }
        for (nth, room, task) in std::mem::take(&mut self.waits) {
            let waits = self.executor.runs(task);
            assert!(
                !waits,
                "a reader of hub {nth} that waits for room {room} hears its next message"
            );
        }
        // No message comes to these, and some give up before their room is subscribed.
        for _ in 0..self.rng.usize(..=WAITS_MAX) {
            self.wait();
            if self.rng.bool() {
                self.come_to_rest();
            }
        }
        while !self.waits.is_empty() {
            self.wait_no_more();
        }
        // Longer than a publisher waits, and than an empty room stays.
        for _ in 0..20 {
            self.time.advance(Duration::from_secs(1));
            self.come_to_rest();
        }
    }
}

fn run(rng: &mut Rng) -> Stats {
    let mut world = World::new(rng.fork());
    for nth in 0..world.rng.usize(50..400) {
        world.step();
        if nth % 60 == 59 {
            // Most of the time all is well.
            world.notice();
            (0..world.hubs.len()).for_each(|hub| world.engine.connect(hub));
            world.come_to_rest();
        }
    }
    world.end();
    check(&world.hubs, &world.engine, &world.notes.borrow());
    let stats = world.hubs.iter().map(Hub::stats).max_by_key(|stats| stats.recipients);
    let World { mut executor, mut rng, hubs, notes, engine, .. } = world;
    for hub in &hubs {
        let hub = hub.clone();
        executor.spawn(async move { hub.drain(Disconnect::GOING_AWAY).await });
    }
    drop((hubs, notes, engine));
    while executor.tick(&mut rng) {}
    stats.expect("a hub")
}

#[test]
fn several_hubs_keep_the_invariants() {
    let sweep = Sweep::from_environment("sim::several");
    let totals = sweep.run(|rng| run(rng).into());
    assert!(totals.recipients > totals.runs || sweep.replays(), "nothing happens");
}
