//! The registry against a naive model of clients, rooms, users and wires.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};

use fastrand::Rng;

use crate::disconnect::Disconnect;
use crate::hub::batch::JoinedFrames;
use crate::hub::client_id::{ClientId, Refusal, Target};
use crate::hub::command::Inserted;
use crate::hub::cursor::Reading;
use crate::hub::delivery::{Delivery, Dispatch};
use crate::hub::direct_writer::DirectWriter;
use crate::hub::history_config::HistoryConfig;
use crate::hub::queue::Queue;
use crate::hub::queue_config::QueueConfig;
use crate::hub::queue_state::Phase;
use crate::hub::registry::Registry;
use crate::hub::tests::model::{Naive, Pushed, Wire};
use crate::hub::tests::support::{Sink, fates, numbered, queue_config, seeded};
use crate::message::{Encoding, Message};
use crate::overflow::Overflow;
use crate::stats::Counters;

const ROOMS: [&str; 6] = ["a", "b", "c", "d", "aa", "ab"];

/// The first of them is for all rooms, and the last for none.
const PREFIXES: [&str; 5] = ["", "a", "aa", "b", "x"];

const USERS: [&str; 3] = ["ada", "bob", "eve"];

const ROOMS_MAX: usize = 5;

const ROOMS_PER_CLIENT_MAX: usize = 3;

const OPERATIONS: usize = 1_500;

/// The registry, and beside it what should be in it.
struct Pair {
    registry: Registry,
    queue_config: Arc<QueueConfig>,
    counters: Arc<Counters>,
    clients: Vec<Naive>,
    gone: Vec<Naive>,
    recipients: u64,
    number: u32,
    /// The room of each message by its number; empty if it was for none.
    labels: Vec<String>,
}

impl Pair {
    fn new(rng: &mut Rng) -> Self {
        let overflow = [Overflow::Disconnect, Overflow::DropNewest, Overflow::DropOldest];
        let overflow = *rng.choice(&overflow).expect("not empty");
        let queue_config = queue_config(rng.usize(1..6), rng.usize(200..600), overflow);
        let counters = Arc::clone(&queue_config.counters);
        let registry = Registry::new(
            ROOMS_MAX,
            ROOMS_PER_CLIENT_MAX,
            HistoryConfig::none(),
            Arc::clone(&counters),
            &Arc::default(),
        );
        let (clients, gone) = (Vec::new(), Vec::new());
        let (recipients, number, labels) = (0, 0, vec![String::new()]);
        Self { registry, queue_config, counters, clients, gone, recipients, number, labels }
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.u8(0..100) {
            0..14 => self.insert(rng),
            14..20 => self.remove(rng),
            20..30 => self.join(rng),
            30..38 => self.leave(rng),
            38..75 => self.deliver(rng),
            75..95 => self.touch(rng),
            95..98 => self.kill(rng),
            _ => self.reap(),
        }
    }

    fn any(&self, rng: &mut Rng) -> Option<usize> {
        (!self.clients.is_empty()).then(|| rng.usize(0..self.clients.len()))
    }

    /// The id of a live client mostly, of one that has gone now and then.
    fn id(&self, rng: &mut Rng) -> Option<ClientId> {
        let from = if rng.u8(0..5) == 0 { &self.gone } else { &self.clients };
        rng.choice(from).map(|client| client.id)
    }

    fn rooms(&self) -> BTreeSet<&'static str> {
        self.clients.iter().flat_map(|client| client.rooms.iter().copied()).collect()
    }

    /// What becomes of a client in these rooms, with so many prefixes, that joins a room.
    fn joined(
        &self,
        rooms: &[&'static str],
        prefixes: usize,
        room: &'static str,
    ) -> Result<(), Refusal> {
        let existing: BTreeSet<_> = self.rooms().into_iter().chain(rooms.iter().copied()).collect();
        if rooms.contains(&room) {
            Ok(())
        } else if rooms.len() + prefixes >= ROOMS_PER_CLIENT_MAX {
            Err(Refusal::RoomsPerClient)
        } else if !existing.contains(room) && existing.len() >= ROOMS_MAX {
            Err(Refusal::Rooms)
        } else {
            Ok(())
        }
    }

    fn insert(&mut self, rng: &mut Rng) {
        let queue = Queue::new(&self.queue_config);
        let encoding = if rng.bool() { Encoding::Deflate } else { Encoding::Plain };
        queue.set_encoding(encoding);
        let has_labels = rng.u8(0..4) == 0;
        if has_labels {
            queue.set_labels();
        }
        let dead = rng.u8(0..12) == 0;
        if dead {
            assert_eq!(queue.disconnect(), None, "it has no id yet");
        }
        let user = if rng.bool() { rng.choice(USERS) } else { None };
        let wanted: Vec<_> = (0..rng.usize(0..5)).filter_map(|_| rng.choice(ROOMS)).collect();
        let mut expected = if dead { Err(Refusal::Gone) } else { Ok(()) };
        let mut rooms = Vec::new();
        for room in &wanted {
            expected = expected.and_then(|()| self.joined(&rooms, 0, room));
            if expected.is_ok() && !rooms.contains(room) {
                rooms.push(*room);
            }
        }
        let wanted_prefixes: Vec<_> =
            (0..rng.usize(0..3)).filter_map(|_| rng.choice(PREFIXES)).collect();
        let mut prefixes = Vec::new();
        for prefix in &wanted_prefixes {
            let is_new = !prefixes.contains(prefix);
            if expected.is_ok() && is_new && rooms.len() + prefixes.len() >= ROOMS_PER_CLIENT_MAX {
                expected = Err(Refusal::RoomsPerClient);
            }
            if expected.is_ok() && is_new {
                prefixes.push(*prefix);
            }
        }
        let arcs = |names: &[&str]| names.iter().map(|&name| Arc::from(name)).collect::<Vec<_>>();
        let outcome = self.registry.insert_with(
            Arc::clone(&queue),
            user.map(Arc::from),
            (&arcs(&wanted), &arcs(&wanted_prefixes)),
            0,
            Reading::PLAIN,
        );
        assert_eq!(outcome.map(drop), expected, "insert into {wanted:?}");
        let Ok(Inserted { id, .. }) = outcome else {
            return;
        };
        let known = self.clients.iter().chain(&self.gone).any(|client| client.id == id);
        assert!(!known, "{id} named another client before");
        let (queue_config, sink) = (&self.queue_config, Sink::new(0));
        let at_most = if rng.bool() { usize::MAX } else { rng.usize(1..80) };
        sink.lock().at_most = at_most;
        let wire = Wire {
            overflow: queue_config.overflow,
            messages_max: queue_config.messages,
            bytes_max: queue_config.bytes,
            phase: Phase::Handshaking,
            through: rng.u8(0..4) > 0,
            waiting: VecDeque::new(),
            cut: 0,
            room: 0,
            at_most,
            broken: false,
            received: Vec::new(),
            missed: 0,
            lost: 0,
        };
        self.clients.push(Naive {
            id,
            user,
            rooms,
            prefixes,
            wire,
            queue,
            sink,
            encoding,
            has_labels,
        });
    }

    fn remove(&mut self, rng: &mut Rng) {
        let Some(id) = self.id(rng) else { return };
        let removed = self.registry.remove(id, Disconnect::GOING_AWAY);
        let at = self.clients.iter().position(|client| client.id == id);
        assert_eq!(removed, at.is_some());
        at.into_iter().for_each(|at| self.bury(at));
    }

    /// What the model does when the registry lets a client go.
    fn bury(&mut self, at: usize) {
        let mut client = self.clients.swap_remove(at);
        if matches!(client.wire.phase, Phase::Handshaking | Phase::Open) {
            client.wire.phase = Phase::Closing;
        }
        self.gone.push(client);
    }

    fn join(&mut self, rng: &mut Rng) {
        if rng.bool() {
            return self.join_prefix(rng);
        }
        let (Some(id), Some(room)) = (self.id(rng), rng.choice(ROOMS)) else { return };
        let at = self.clients.iter().position(|client| client.id == id);
        let expected = match at {
            Some(at) => {
                let client = &self.clients[at];
                self.joined(&client.rooms, client.prefixes.len(), room)
            }
            None => Err(Refusal::UnknownClient),
        };
        assert_eq!(self.registry.join(id, &room.into()), expected, "join {room}");
        if let (Some(at), Ok(())) = (at, expected) {
            let rooms = &mut self.clients[at].rooms;
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
    }

    fn join_prefix(&mut self, rng: &mut Rng) {
        let (Some(id), Some(prefix)) = (self.id(rng), rng.choice(PREFIXES)) else { return };
        let client = self.clients.iter_mut().find(|client| client.id == id);
        let expected = match &client {
            None => Err(Refusal::UnknownClient),
            Some(client) if client.prefixes.contains(&prefix) => Ok(()),
            Some(client) if client.rooms.len() + client.prefixes.len() >= ROOMS_PER_CLIENT_MAX => {
                Err(Refusal::RoomsPerClient)
            }
            Some(_) => Ok(()),
        };
        assert_eq!(self.registry.enter(id, &prefix.into(), true), expected, "join {prefix}*");
        if let Some(client) = client.filter(|client| !client.prefixes.contains(&prefix)) {
            client.prefixes.extend(expected.is_ok().then_some(prefix));
        }
    }

    fn leave_prefix(&mut self, rng: &mut Rng) {
        let (Some(id), Some(prefix)) = (self.id(rng), rng.choice(PREFIXES)) else { return };
        let client = self.clients.iter_mut().find(|client| client.id == id);
        let expected = client.as_ref().map(drop).ok_or(Refusal::UnknownClient);
        assert_eq!(self.registry.exit(id, prefix, true), expected, "leave {prefix}*");
        client.into_iter().for_each(|client| client.prefixes.retain(|other| *other != prefix));
    }

    fn leave(&mut self, rng: &mut Rng) {
        if rng.bool() {
            return self.leave_prefix(rng);
        }
        let (Some(id), Some(room)) = (self.id(rng), rng.choice(ROOMS)) else { return };
        let client = self.clients.iter_mut().find(|client| client.id == id);
        let expected = client.as_ref().map(drop).ok_or(Refusal::UnknownClient);
        assert_eq!(self.registry.leave(id, room), expected, "leave {room}");
        client.into_iter().for_each(|client| client.rooms.retain(|other| *other != room));
    }

    fn deliver(&mut self, rng: &mut Rng) {
        let target = match (rng.u8(0..4), self.id(rng)) {
            (0, _) => Target::All,
            (1, _) => Target::Room(rng.choice(ROOMS).expect("not empty").into()),
            (2, Some(id)) => Target::Client(id),
            _ => Target::User(rng.choice(USERS).expect("not empty").into()),
        };
        let run: Vec<Message> = (0..rng.usize(1..6))
            .map(|_| {
                self.number += 1;
                numbered(self.number, rng.usize(4..190))
            })
            .collect();
        let first = self.number + 1 - run.len() as u32;
        // Some are compressed in time.
        for message in run.iter().filter(|_| rng.bool()) {
            message.deflate(&self.queue_config.memory);
        }
        let label = target.room().map_or("", |room| room);
        self.labels.extend(run.iter().map(|_| label.to_owned()));
        let labelled = run.iter().map(|message| {
            let labelled = message.with_label(label);
            if self.registry.is_deflating() && message.fix_deflated() {
                labelled.deflate(&self.queue_config.memory);
            }
            labelled
        });
        let labelled: Vec<_> = labelled.collect();
        let kept = |_| if rng.bool() { None } else { self.id(rng) };
        let except: Vec<Option<ClientId>> = run.iter().map(kept).collect();

        let mut expected = vec![0; run.len()];
        let mut ended = Vec::new();
        for client in &mut self.clients {
            let is_member = match &target {
                Target::All => true,
                Target::Room(room) => client.hears(room),
                Target::User(user) => client.user == Some(&**user),
                Target::Client(id) => client.id == *id,
            };
            let due: Vec<usize> =
                (0..run.len()).filter(|&index| except[index] != Some(client.id)).collect();
            if !is_member || due.is_empty() {
                continue;
            }
            let messages = if client.has_labels { &labelled } else { &run };
            let frames: Vec<_> = due
                .iter()
                .map(|&i| (first + i as u32, messages[i].frame(client.encoding).len()))
                .collect();
            let pushed = client.wire.push(&frames);
            if pushed != Pushed::Gone {
                due.iter().for_each(|&index| expected[index] += 1);
            }
            if pushed != Pushed::Ok {
                ended.push(client.id);
            }
        }
        self.recipients += expected.iter().sum::<usize>() as u64;

        let mut dispatches: Vec<_> = except.iter().copied().map(Dispatch::new).collect();
        // Written from where they lie, or from side by side.
        let mut joined = JoinedFrames::default();
        if rng.bool() || self.registry.is_deflating() {
            joined.join(&run, self.registry.is_deflating());
        }
        let mut delivery = Delivery::new(&target, &run, &joined, &mut dispatches);
        let budget = rng.usize(1..4);
        let calls = (0..).take_while(|_| !self.registry.deliver(&mut delivery, budget)).count();
        assert!(calls <= self.registry.capacity(), "each call gets on");
        let recipients: Vec<_> = dispatches.iter().map(|dispatch| dispatch.recipients).collect();
        assert_eq!(recipients, expected, "recipients of {target:?} except {except:?}");
        for id in ended {
            let at = self.clients.iter().position(|client| client.id == id);
            self.bury(at.expect("it was a member"));
        }
    }

    /// Something happens at a socket: it opens, takes more, breaks, or its task drains.
    fn touch(&mut self, rng: &mut Rng) {
        let all = self.clients.len() + self.gone.len();
        if all == 0 {
            return;
        }
        let at = rng.usize(0..all);
        let client = match self.clients.len() {
            live if at < live => &mut self.clients[at],
            live => &mut self.gone[at - live],
        };
        let (wire, queue, sink) = (&mut client.wire, &client.queue, &client.sink);
        match rng.u8(0..20) {
            0 => {
                sink.break_off();
                wire.broken = true;
            }
            1..6 if wire.phase == Phase::Handshaking => {
                queue.open(wire.through.then(|| Arc::clone(sink) as Arc<dyn DirectWriter>));
                wire.phase = Phase::Open;
            }
            1..9 => {
                let more = rng.usize(1..400);
                sink.grant(more);
                wire.room += more;
            }
            _ => {
                drain(queue, sink);
                wire.drain();
            }
        }
    }

    /// A connection is gone; half of them tell the registry.
    fn kill(&mut self, rng: &mut Rng) {
        let Some(at) = self.any(rng) else { return };
        let client = &mut self.clients[at];
        client.queue.disconnect();
        client.wire.kill();
        if rng.bool() {
            let id = client.id;
            assert!(self.registry.remove(id, Disconnect::ABNORMAL));
            self.bury(at);
        }
    }

    /// Keeps the list of the gone short, so that the rest of a round stays quick.
    fn reap(&mut self) {
        while self.gone.len() > 20 {
            let mut client = self.gone.remove(0);
            client.queue.disconnect();
            client.wire.kill();
            client.compare(&self.labels);
        }
    }

    fn compare(&self) {
        self.registry.check();
        let ids = |clients: Vec<ClientId>| clients.into_iter().collect::<BTreeSet<_>>();
        let members = self.registry.members(&Target::All);
        assert_eq!(
            ids(members.iter().map(|member| member.id).collect()),
            ids(self.clients.iter().map(|client| client.id).collect()),
        );
        for member in members {
            let client = self.clients.iter().find(|client| client.id == member.id);
            let client = client.expect("compared above");
            assert_eq!(member.user.as_deref(), client.user);
            assert_eq!(member.waiting, client.wire.waiting.len(), "waiting for {}", client.id);
            assert_eq!(member.missed, client.wire.missed, "missed by {}", client.id);
            let rooms = self.registry.rooms_of(client.id).expect("it is there");
            let rooms: Vec<_> = rooms.iter().map(|room| &**room).collect();
            assert_eq!(rooms, client.rooms, "in the order in which {} joined them", client.id);
        }
        for room in ROOMS {
            let present = self
                .registry
                .members(&Target::Room((*room).into()))
                .iter()
                .map(|member| member.id)
                .collect();
            let expected = self.clients.iter().filter(|client| client.rooms.contains(&room));
            assert_eq!(ids(present), ids(expected.map(|client| client.id).collect()));
        }
        for client in &self.clients {
            for room in ROOMS {
                assert_eq!(self.registry.hears(client.id, room), client.hears(room), "{room}");
            }
        }
        for client in &self.gone {
            assert_eq!(self.registry.rooms_of(client.id), None, "{} is gone", client.id);
        }
    }
}

fn drain(queue: &Queue, sink: &Sink) {
    let mut cx = Context::from_waker(Waker::noop());
    queue.poll_drain(&mut cx, usize::MAX, |cx, unsent| sink.poll_write(cx, unsent));
}

/// Invariants 4, 5 and 10: at any moment the indexes agree with the clients, an old id names
/// no client, and recipients and what each client receives are as in the model.
#[test]
fn registry_does_what_a_naive_model_does() {
    seeded(24, |rng| {
        let mut pair = Pair::new(rng);
        for operation in 0..OPERATIONS {
            pair.step(rng);
            pair.compare();
            if operation % 50 == 0 {
                let all = pair.clients.iter().chain(&pair.gone);
                all.for_each(|client| client.compare(&pair.labels));
            }
        }
        let mut all: Vec<_> = pair.clients.drain(..).chain(pair.gone.drain(..)).collect();
        for client in &mut all {
            pair.registry.remove(client.id, Disconnect::NORMAL);
            client.queue.disconnect();
            client.wire.kill();
            client.compare(&pair.labels);
        }
        pair.registry.check();
        let sum: u64 = fates(&pair.counters).iter().sum();
        assert_eq!(sum, pair.recipients, "each recipient is delivered, dropped or lost");
    });
}
