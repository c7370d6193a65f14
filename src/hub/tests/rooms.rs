//! The rooms and what they keep, against a naive model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::config::Config;
use crate::history_rule::HistoryRule;
use crate::hub::history_config::HistoryConfig;
use crate::hub::rooms::Rooms;
use crate::hub::since::{Begin, Missed, Since};
use crate::hub::tests::support::{numbered, seeded};
use crate::message::{Encoding, Message};
use crate::stats::Counters;
use crate::time::virtual_time::VirtualTime;

const NAMES: [&str; 6] = ["a", "b", "keep 1", "keep 2", "last", "another"];

/// What a room should be, written down naively: its members, and all messages of its life.
#[derive(Debug, Default)]
struct Model {
    members: Vec<u32>,
    /// The position before the first message, once one is known.
    born: Option<u64>,
    said: Vec<Message>,
    /// Messages that are kept, the newest.
    kept: usize,
    messages_max: usize,
    is_counted: bool,
    last_message: u64,
    last_member: u64,
}

impl Model {
    fn kept(&self) -> &[Message] {
        &self.said[self.said.len() - self.kept..]
    }

    fn is_recorded(&self) -> bool {
        self.is_counted || self.messages_max > 0
    }

    fn outlives(&self) -> bool {
        self.is_counted || self.messages_max > 0 && !self.said.is_empty()
    }

    /// Whether it loses a message before a room that has one, and the memory of what it keeps.
    fn rank(&self, kept: usize) -> (bool, usize) {
        let kept = &self.said[self.said.len() - kept..];
        // A place in the ring takes 24 bytes.
        (kept.len() > 1, kept.iter().map(|message| message.size() + 24).sum())
    }

    fn is_over(&self, age: u64, now: u64) -> bool {
        self.members.is_empty() && now - self.last_message.max(self.last_member) >= age
    }
}

/// Rooms, and what they should be.
struct World<'a> {
    rng: &'a mut Rng,
    time: VirtualTime,
    now: u64,
    rooms: Rooms,
    rooms_max: usize,
    age: u64,
    bytes: usize,
    memory: usize,
    models: BTreeMap<&'static str, Model>,
    number: u32,
}

impl<'a> World<'a> {
    fn new(rng: &'a mut Rng) -> Self {
        let time = VirtualTime::start();
        let rules = vec![HistoryRule::new("keep*", rng.usize(1..6)), HistoryRule::new("last", 1)];
        let (bytes, memory) = (rng.usize(60..400), rng.usize(400..2_000));
        let (age, rooms_max) = (rng.u64(1..5_000), rng.usize(2..8));
        let config = Config::default()
            .history(rules)
            .history_bytes(bytes)
            .history_memory(memory)
            .history_age(Duration::from_millis(age));
        let config = HistoryConfig::new(&config, None);
        let rooms = Rooms::new(rooms_max, config, Arc::<Counters>::default(), Arc::default());
        let (models, bytes) = (BTreeMap::new(), bytes.min(memory));
        Self { rng, time, now: 0, rooms, rooms_max, age, bytes, memory, models, number: 0 }
    }

    fn step(&mut self) {
        let (age, now) = (self.age, self.now);
        self.models.retain(|_, room| !room.is_over(age, now));
        let name = NAMES[self.rng.usize(..NAMES.len())];
        match self.rng.u8(..20) {
            0..=2 => self.add(name),
            3..=5 => self.remove(name),
            6..=13 => self.append(name),
            14 => self.append_everywhere(),
            15 => self.keep_count(name),
            16 | 17 => self.wait(),
            _ => {
                let target = self.rng.usize(..self.memory);
                self.rooms.shed_to(target);
                self.shed(target);
            }
        }
        self.check();
        // No two messages of two steps come in the same moment.
        self.pass(1);
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.time.advance(Duration::from_millis(millis));
    }

    fn wait(&mut self) {
        let wait = self.rng.u64(1..3_000);
        self.pass(wait);
        let (age, now) = (self.age, self.now);
        self.models.retain(|_, room| !room.is_over(age, now));
        if self.rng.bool() {
            self.rooms.sweep();
        }
    }

    /// Has a room made for an operation that may make it; returns whether there is one.
    fn made(&mut self, name: &'static str) -> bool {
        if self.models.contains_key(name) {
            return true;
        }
        if self.rooms.get(name).is_none() {
            let all_have_members = self.models.values().all(|room| !room.members.is_empty());
            assert!(all_have_members && self.models.len() >= self.rooms_max, "{name} is not made");
            return false;
        }
        let gone: Vec<_> =
            self.models.keys().copied().filter(|name| self.rooms.get(name).is_none()).collect();
        // A room that is over may have its place still: it goes first.
        assert!(gone.len() <= 1 && self.models.len() - gone.len() < self.rooms_max, "{gone:?}");
        for name in gone {
            let last =
                |room: &Model| (!room.members.is_empty(), room.last_message, room.last_member);
            let oldest = self.models.values().map(last).min().expect("one has gone");
            assert_eq!(last(&self.models[name]), oldest, "another one is older");
            assert!(!oldest.0, "{name} had members");
            self.models.remove(name);
        }
        let (messages_max, now) = (self.rooms.messages_max(name), self.now);
        let room = Model { messages_max, last_member: now, ..Model::default() };
        self.models.insert(name, room);
        true
    }

    fn add(&mut self, name: &'static str) {
        self.number += 1;
        let added = self.rooms.add(&name.into(), self.number);
        assert_eq!(self.made(name), added.is_some());
        if let Some((own, index)) = added {
            let members = &mut self.models.get_mut(name).expect("made").members;
            assert_eq!((&*own, index as usize), (name, members.len()));
            members.push(self.number);
        }
    }

    fn remove(&mut self, name: &'static str) {
        let has_members = |room: &&mut Model| !room.members.is_empty();
        let Some(room) = self.models.get_mut(name).filter(has_members) else { return };
        let index = self.rng.usize(..room.members.len());
        room.members.swap_remove(index);
        if room.members.is_empty() {
            room.last_member = self.now;
        }
        let moved = self.rooms.remove(&name.into(), index as u32);
        assert_eq!(moved, room.members.get(index).copied());
        if room.members.is_empty() && !room.outlives() {
            self.models.remove(name);
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        let len = self.rng.usize(1..4);
        let mut next = || {
            self.number += 1;
            numbered(self.number, self.rng.usize(4..120))
        };
        (0..len).map(|_| next()).collect()
    }

    fn append(&mut self, name: &'static str) {
        let messages = self.messages();
        let before = match self.rooms.find(name) {
            Some(room) if !room.is_recorded() => Some(room.count(messages.len())),
            _ => {
                let kept = self.rooms.append_kept(&name.into(), &messages, None, |_| None);
                kept.map(|(_, before)| before)
            }
        };
        let may_make = self.rooms.messages_max(name) > 0;
        let exists = if may_make { self.made(name) } else { self.models.contains_key(name) };
        assert_eq!(before.is_some(), exists, "{name}");
        if let Some(before) = before {
            self.say(name, &messages, Some(before));
            self.shed(self.memory);
        }
    }

    fn append_everywhere(&mut self) {
        let messages = self.messages();
        self.rooms.append_everywhere(&messages, |_| None);
        let names: Vec<_> = self.models.keys().copied().collect();
        names.into_iter().for_each(|name| self.say(name, &messages, None));
        self.shed(self.memory);
    }

    fn say(&mut self, name: &str, messages: &[Message], before: Option<u64>) {
        let room = self.models.get_mut(name).expect("it exists");
        if let Some(before) = before {
            let born = before - room.said.len() as u64;
            assert_eq!(*room.born.get_or_insert(born), born, "positions are consecutive");
        }
        room.last_message = self.now;
        for message in messages {
            room.said.push(message.clone());
            room.kept += 1;
            let fits = |kept: &[Message]| {
                let bytes = kept.iter().map(|message| message.frame(Encoding::Plain).len());
                kept.len() <= room.messages_max && bytes.sum::<usize>() <= self.bytes
            };
            let from = (room.said.len() - room.kept..).find(|&from| fits(&room.said[from..]));
            room.kept = room.said.len() - from.expect("none fit");
        }
    }

    fn keep_count(&mut self, name: &str) {
        let Some(room) = self.models.get_mut(name) else { return };
        self.rooms.keep_count(name);
        if !room.is_recorded() {
            room.last_message = if room.said.is_empty() { 0 } else { self.now };
            room.last_member = self.now;
        }
        room.is_counted = true;
    }

    fn kept_bytes(&self) -> usize {
        self.models.values().map(|room| room.rank(room.kept).1).sum()
    }

    /// Looks at what was dropped, if the history took more than `bound` bytes.
    fn shed(&mut self, bound: usize) {
        let target = bound - bound / 32;
        let before: Vec<_> = self.models.values().map(|room| room.kept).collect();
        let is_past = self.kept_bytes() > bound;
        for (name, room) in &mut self.models {
            let real = self.rooms.get(name).expect("it exists");
            let kept = (real.newest() - real.before_oldest()) as usize;
            assert!(kept <= room.kept, "{name} keeps more than it should");
            room.kept = kept;
        }
        assert!(is_past || before.iter().eq(self.models.values().map(|room| &room.kept)));
        assert!(!is_past || self.kept_bytes() <= target);
        let ranks: Vec<_> = self.models.values().map(|room| room.rank(room.kept)).collect();
        let mut last_dropped = Vec::new();
        for (room, before) in self.models.values().zip(before) {
            if room.kept < before {
                // Before its last message went, no room held more: they only lose.
                let rank = room.rank(room.kept + 1);
                assert!(ranks.iter().all(|other| *other <= rank), "another room held more");
                last_dropped.push(rank.1 - room.rank(room.kept).1);
            }
        }
        // One message less would not have done.
        let kept_bytes = self.kept_bytes();
        assert!(
            last_dropped.is_empty() || last_dropped.iter().any(|bytes| kept_bytes + bytes > target)
        );
    }

    fn check(&mut self) {
        self.rooms.check();
        for name in NAMES {
            let real = self.rooms.get(name);
            assert_eq!(real.is_some(), self.models.contains_key(name), "{name}");
            let (Some(real), Some(room)) = (real, self.models.get_mut(name)) else { continue };
            assert_eq!(real.members(), room.members);
            assert_eq!(
                (real.outlives(), real.keeps_messages()),
                (room.outlives(), room.messages_max > 0)
            );
            let born = *room.born.get_or_insert(real.newest() - room.said.len() as u64);
            let newest = born + room.said.len() as u64;
            let first = newest - room.kept as u64;
            assert_eq!((real.newest(), real.before_oldest()), (newest, first));
            assert_eq!(real.oldest(), (room.kept > 0).then_some(first + 1));
            let kept: Vec<_> = real.after(first).map(|slot| &slot.message).collect();
            assert_eq!(kept, room.kept().iter().collect::<Vec<_>>(), "{name}");
            // Wherever a reader begins, the number that it is told and what follows fit together.
            let since = (born + self.rng.u64(..20)).saturating_sub(5);
            let Begin { position, missed } = real.begin(Since::Position(since));
            let expected = match since {
                since if since < born || since > newest => (first, Missed::Unknown),
                since if since < first => (first, Missed::Messages(first - since)),
                since => (since, Missed::Nothing),
            };
            assert_eq!((position, missed), expected);
            let follow: Vec<_> = real.after(position).map(|slot| &slot.message).collect();
            let behind = room.said.len() - (newest - position) as usize;
            assert_eq!(follow, room.said[behind..].iter().collect::<Vec<_>>());
            let count = self.rng.u32(1..9);
            let begin = real.begin(Since::Newest(count));
            assert_eq!(newest - begin.position, u64::from(count).min(room.kept as u64));
        }
    }
}

#[test]
fn rooms_are_what_the_model_says() {
    seeded(800, |rng| {
        let mut world = World::new(rng);
        (0..world.rng.usize(20..120)).for_each(|_| world.step());
    });
}

/// Another process has left more than may be here.
#[test]
fn rooms_without_members_go_until_the_limit_holds() {
    let _time = VirtualTime::start();
    let config = Config::default().history(vec![HistoryRule::new("keep*", 1)]);
    let config = || HistoryConfig::new(&config, None);
    let mut before = Rooms::new(20, config(), Arc::<Counters>::default(), Arc::default());
    for number in 0..20 {
        let name = format!("keep {number}").into();
        before.append_kept(&name, &[numbered(number, 4)], None, |_| None).expect("made");
    }
    let (uptime, plain) = before.plain();
    let mut rooms = Rooms::new(4, config(), Arc::<Counters>::default(), Arc::default());
    rooms.resume(uptime);
    plain.iter().for_each(|room| rooms.restore(room));
    for slot in 0..3 {
        rooms.add_restored(&format!("keep {slot}"), slot);
    }
    let comes = |rooms: &mut Rooms, name: &str| {
        let is_made = rooms.add(&name.into(), 7).is_some();
        (is_made, rooms.len())
    };
    assert_eq!(comes(&mut rooms, "first"), (true, 13), "eight go");
    assert_eq!(comes(&mut rooms, "second"), (false, 13), "as many as may be have members");
    rooms.remove(&"first".into(), 0);
    assert_eq!(comes(&mut rooms, "second"), (true, 5));
    rooms.remove(&"second".into(), 0);
    assert_eq!(comes(&mut rooms, "third"), (true, 4), "one goes");
    rooms.check();
}
