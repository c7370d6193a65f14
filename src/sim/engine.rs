//! A backplane in memory: the engine that simulated hubs share.
//!
//! The engine carries out commands one at a time. What it sends is delayed, and overtakes what is
//! about other topics. It may lose a connection with all that is on its way, pass a hub over with one
//! message, forget a subscription, and restart.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::task::Waker;

use fastrand::Rng;

use crate::hub::client_id::ClientId;
use crate::hub::topic::Topic;
use crate::message::Message;

/// What a driver sends.
#[derive(Debug)]
pub(super) enum Sent {
    Subscribe(Topic),
    Unsubscribe(Topic),
    Publish {
        number: u64,
        topic: Topic,
        except: Option<ClientId>,
        message: Message,
    },
    /// What a room keeps is asked for.
    Read(Topic),
}

/// The room that keeps messages.
pub(super) const KEEPS: &str = "room 0";

/// Messages that it keeps.
pub(super) const KEPT: usize = 4;

pub(super) fn keeps(topic: &Topic) -> bool {
    matches!(topic, Topic::Room(room) if **room == *KEEPS)
}

/// What the engine counts and keeps of a room.
#[derive(Debug, Default)]
struct Stream {
    top: u64,
    kept: VecDeque<(u64, Stored)>,
}

/// A message as the engine has it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) hub: usize,
    pub(super) except: Option<ClientId>,
    pub(super) message: Message,
}

/// What the engine sends to a hub.
#[derive(Debug)]
pub(super) enum Received {
    Subscribed(Topic),
    Message { topic: Topic, number: u64, position: u64, stored: Stored },
    Kept { topic: Topic, top: u64, kept: Vec<(u64, Stored)> },
    Dispatched { number: u64, hubs: usize },
}

impl Received {
    /// What it must not overtake: what is about the same topic, or also an answer.
    fn lane(&self) -> Option<&Topic> {
        match self {
            Self::Subscribed(topic) | Self::Message { topic, .. } | Self::Kept { topic, .. } => {
                Some(topic)
            }
            Self::Dispatched { .. } => None,
        }
    }
}

/// The connection of one hub.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) is_connected: bool,
    /// Counts connections that were lost.
    pub(super) lost: u32,
    pub(super) to_engine: VecDeque<Sent>,
    from_engine: VecDeque<Received>,
    /// What has arrived at the hub.
    pub(super) arrived: VecDeque<Received>,
    subscribed: BTreeSet<Topic>,
    pub(super) waker: Option<Waker>,
}

impl Wire {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What a hub has read that a room keeps, of what it had not heard before: its members hear it.
#[derive(Debug)]
pub(super) struct LateRead {
    pub(super) hub: usize,
    /// The step in which it came.
    pub(super) step: usize,
    pub(super) texts: Vec<Vec<u8>>,
}

/// What the engine and all drivers note for the invariants.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The step of the run.
    pub(super) step: Cell<usize>,
    pub(super) late_reads: RefCell<Vec<LateRead>>,
}

/// The engine and the connections of all hubs.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) log: Rc<Log>,
    wires: Vec<Rc<RefCell<Wire>>>,
    /// The messages of each topic, in the order in which the engine carried them out.
    pub(super) order: BTreeMap<Topic, Vec<Vec<u8>>>,
    /// What rooms keep; a restart forgets it.
    streams: BTreeMap<Topic, Stream>,
}

impl Engine {
    /// Connects another hub; returns its number and its connection.
    pub(super) fn add(&mut self) -> (usize, Rc<RefCell<Wire>>) {
        let wire = Rc::<RefCell<Wire>>::default();
        wire.borrow_mut().is_connected = true;
        self.wires.push(Rc::clone(&wire));
        (self.wires.len() - 1, wire)
    }

    /// Carries out one command of a hub, or lets something of what was sent to it arrive.
    pub(super) fn step(&mut self, rng: &mut Rng) {
        let nth = rng.usize(..self.wires.len());
        if rng.bool() {
            let command = self.wires[nth].borrow_mut().to_engine.pop_front();
            if let Some(command) = command {
                self.carry_out(nth, command);
            }
            return;
        }
        let mut wire = self.wires[nth].borrow_mut();
        if wire.from_engine.is_empty() {
            return;
        }
        let any = rng.usize(..wire.from_engine.len());
        let lane = wire.from_engine[any].lane().cloned();
        let first = wire.from_engine.iter().position(|item| item.lane() == lane.as_ref());
        let item = first.and_then(|first| wire.from_engine.remove(first)).expect("was found");
        wire.arrived.push_back(item);
        wire.wake();
    }

    fn carry_out(&mut self, nth: usize, command: Sent) {
        match command {
            Sent::Subscribe(topic) => {
                let mut wire = self.wires[nth].borrow_mut();
                wire.subscribed.insert(topic.clone());
                wire.from_engine.push_back(Received::Subscribed(topic));
            }
            Sent::Unsubscribe(topic) => {
                self.wires[nth].borrow_mut().subscribed.remove(&topic);
            }
            Sent::Read(topic) => {
                let stream = self.stream(&topic);
                let (top, kept) = (stream.top, stream.kept.iter().cloned().collect());
                let item = Received::Kept { topic, top, kept };
                self.wires[nth].borrow_mut().from_engine.push_back(item);
            }
            Sent::Publish { number, topic, except, message } => {
                let stored = Stored { hub: nth, except, message };
                let message = &stored.message;
                let mut position = 0;
                if keeps(&topic) {
                    let stream = self.stream(&topic);
                    stream.top += 1;
                    position = stream.top;
                    stream.kept.push_back((position, stored.clone()));
                    stream.kept.drain(..stream.kept.len().saturating_sub(KEPT));
                }
                let order = self.order.entry(topic.clone()).or_default();
                order.push(message.as_bytes().to_vec());
                let mut hubs = 0;
                for wire in &self.wires {
                    let mut wire = wire.borrow_mut();
                    if wire.subscribed.contains(&topic) {
                        hubs += 1;
                        let (topic, stored) = (topic.clone(), stored.clone());
                        let item = Received::Message { topic, number, position, stored };
                        wire.from_engine.push_back(item);
                    }
                }
                let answer = Received::Dispatched { number, hubs };
                self.wires[nth].borrow_mut().from_engine.push_back(answer);
            }
        }
    }

    fn stream(&mut self, topic: &Topic) -> &mut Stream {
        let new = || Stream { top: fastrand::u64(1..1 << 52), kept: VecDeque::new() };
        self.streams.entry(topic.clone()).or_insert_with(new)
    }

    /// Forgets what rooms keep.
    pub(super) fn restart(&mut self) {
        self.streams.clear();
    }

    /// From which position on a reader of the room that keeps messages misses none, and the position of
    /// its newest message. Other lives of the room have others.
    pub(super) fn whole(&self) -> Option<RangeInclusive<u64>> {
        let stream = self.streams.get(&Topic::Room(KEEPS.into()))?;
        Some(stream.top - stream.kept.len() as u64..=stream.top)
    }

    /// Whether anything is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.wires.iter().any(|wire| {
            let wire = wire.borrow();
            !wire.to_engine.is_empty() || !wire.from_engine.is_empty()
        })
    }

    /// The connection of a hub breaks, with all that is on its way.
    pub(super) fn disconnect(&mut self, nth: usize) {
        let mut wire = self.wires[nth].borrow_mut();
        wire.is_connected = false;
        wire.lost += 1;
        wire.to_engine.clear();
        wire.from_engine.clear();
        wire.arrived.clear();
        wire.subscribed.clear();
        wire.wake();
    }

    /// A hub may connect again.
    pub(super) fn connect(&mut self, nth: usize) {
        let mut wire = self.wires[nth].borrow_mut();
        wire.is_connected = true;
        wire.wake();
    }

    pub(super) fn is_connected(&self, nth: usize) -> bool {
        self.wires[nth].borrow().is_connected
    }

    /// A message of another hub to the room that keeps messages does not reach a hub, which stays
    /// connected. Returns whether there was one on its way.
    pub(super) fn pass_over(&mut self, nth: usize, rng: &mut Rng) -> bool {
        let on_their_way = &mut self.wires[nth].borrow_mut().from_engine;
        let may_miss = |item: &Received| matches!(item, Received::Message { position: 1.., stored, .. } if stored.hub != nth);
        let followers = (0..on_their_way.len()).filter(|&at| may_miss(&on_their_way[at]));
        let chosen = rng.choice(followers.collect::<Vec<_>>());
        chosen.is_some_and(|at| on_their_way.remove(at).is_some())
    }

    /// Forgets the subscriptions of a hub, which stays connected and deaf.
    pub(super) fn forget(&mut self, nth: usize) {
        self.wires[nth].borrow_mut().subscribed.clear();
    }

    /// The topics that a hub is subscribed to.
    pub(super) fn subscribed(&self, nth: usize) -> BTreeSet<Topic> {
        self.wires[nth].borrow().subscribed.clone()
    }
}
