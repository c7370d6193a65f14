//! A backplane in memory: the engine that simulated hubs share, and a driver for it.
//!
//! The engine carries out commands one at a time. What it sends is delayed, and overtakes what is
//! about other topics. It may lose a connection with all that is on its way, forget a subscription,
//! and restart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use fastrand::Rng;

use crate::hub::backplane::{ILL_AFTER, Link};
use crate::hub::client_id::ClientId;
use crate::hub::command::{Carry, Command, Dispatched, NotPublished, Publish, PublishReply};
use crate::hub::follower::{Follower, Heard, Step};
use crate::hub::handle::Hub;
use crate::hub::inbox::CommandReceiver;
use crate::hub::link_event::{LinkEvent, Wish};
use crate::hub::reply::{Reply, reply};
use crate::hub::topic::Topic;
use crate::message::Message;

/// Messages that one hub may have in flight: few, so that publishers wait.
const IN_FLIGHT_MAX: usize = 4;

/// How long a topic stays subscribed without a member.
const LINGER: Duration = Duration::from_secs(1);

/// What a driver sends.
#[derive(Debug)]
enum Sent {
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

fn keeps(topic: &Topic) -> bool {
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
struct Stored {
    hub: usize,
    except: Option<ClientId>,
    message: Message,
}

/// What the engine sends to a hub.
#[derive(Debug)]
enum Received {
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
struct Wire {
    is_connected: bool,
    /// Counts connections that were lost.
    lost: u32,
    to_engine: VecDeque<Sent>,
    from_engine: VecDeque<Received>,
    /// What has arrived at the hub.
    arrived: VecDeque<Received>,
    subscribed: BTreeSet<Topic>,
    waker: Option<Waker>,
}

impl Wire {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The engine and the connections of all hubs.
#[derive(Debug, Default)]
pub(super) struct Engine {
    wires: Vec<Rc<RefCell<Wire>>>,
    /// The messages of each topic, in the order in which the engine carried them out.
    pub(super) order: BTreeMap<Topic, Vec<Vec<u8>>>,
    /// What rooms keep; a restart forgets it.
    streams: BTreeMap<Topic, Stream>,
}

impl Engine {
    /// Adds a hub, and returns its driver.
    pub(super) fn add(&mut self, hub: &Hub) -> impl Future<Output = ()> + use<> {
        let wire = Rc::<RefCell<Wire>>::default();
        wire.borrow_mut().is_connected = true;
        let nth = self.wires.len();
        self.wires.push(Rc::clone(&wire));
        let backplane = hub.shared().backplane.as_ref().expect("the hub is not alone");
        let outbox = backplane.take_outbox().expect("no other driver");
        let link = Arc::clone(&backplane.link);
        let driver = Driver { hub: hub.clone(), nth, link, outbox, wire };
        driver.run()
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

    /// Forgets the subscriptions of a hub, which stays connected and deaf.
    pub(super) fn forget(&mut self, nth: usize) {
        self.wires[nth].borrow_mut().subscribed.clear();
    }

    /// The topics that a hub is subscribed to.
    pub(super) fn subscribed(&self, nth: usize) -> BTreeSet<Topic> {
        self.wires[nth].borrow().subscribed.clone()
    }
}

/// What a driver waits for.
enum Woken {
    Arrived(Received),
    Outbox(Command),
    Wishes,
    Time,
    Lost,
    HubEnded,
}

/// The driver of one hub.
struct Driver {
    hub: Hub,
    nth: usize,
    link: Arc<Link>,
    outbox: CommandReceiver,
    wire: Rc<RefCell<Wire>>,
}

/// What a driver keeps while it is connected, or from one connection to the next.
#[derive(Default)]
struct Kept {
    topics: BTreeMap<Topic, bool>,
    vacancies: BTreeMap<Topic, (crate::time::timer_list::Tick, u32)>,
    followers: BTreeMap<Topic, Follower>,
}

/// Where a message in flight is answered, and whether it comes back.
struct InFlight {
    reply: Option<PublishReply>,
    hubs: Option<Reply<Result<usize, NotPublished>>>,
    comes_back: bool,
    is_answered: bool,
}

impl Driver {
    async fn run(self) {
        let mut kept = Kept::default();
        loop {
            let connected = poll_fn(|cx| {
                let mut wire = self.wire.borrow_mut();
                wire.waker = Some(cx.waker().clone());
                if self.outbox.poll_closed(cx).is_ready() {
                    return Poll::Ready(false);
                }
                if wire.is_connected { Poll::Ready(true) } else { Poll::Pending }
            });
            if !connected.await || self.session(&mut kept).await.is_err() {
                return;
            }
        }
    }

    /// One connection; an error once the hub has ended.
    async fn session(&self, kept: &mut Kept) -> Result<(), ()> {
        let mut in_flight: BTreeMap<u64, InFlight> = BTreeMap::new();
        let mut next = 0;
        let mut is_up = false;
        let lost = self.wire.borrow().lost;
        kept.followers.values_mut().for_each(Follower::interrupt);
        self.follow(kept, true).await?;
        loop {
            if !is_up && kept.topics.values().all(|confirmed| *confirmed) {
                is_up = true;
                self.tell(LinkEvent::Up).await?;
                self.link.set_up();
            }
            match self.woken(is_up && in_flight.len() < IN_FLIGHT_MAX, is_up, kept, lost).await {
                Woken::HubEnded => return Err(()),
                Woken::Lost => break,
                Woken::Wishes => self.follow(kept, false).await?,
                Woken::Time => self.ask_vacant(kept).await?,
                Woken::Outbox(command) => {
                    let Command::Carry(carry) = command else { continue };
                    let Carry { publish: Publish { target, except, message }, reply, hubs } =
                        *carry;
                    let wanted = reply.as_ref().is_none_or(PublishReply::begin)
                        && hubs.as_ref().is_none_or(Reply::begin);
                    if let Some(topic) = Topic::of(&target).filter(|_| wanted) {
                        let comes_back = kept.topics.contains_key(&topic);
                        let one = InFlight { reply, hubs, comes_back, is_answered: false };
                        in_flight.insert(next, one);
                        self.send(Sent::Publish { number: next, topic, except, message });
                        next += 1;
                    }
                }
                Woken::Arrived(Received::Subscribed(topic)) if keeps(&topic) => {}
                Woken::Arrived(Received::Kept { topic, top, kept: messages }) => {
                    self.take_kept(kept, &topic, top, messages).await?;
                    let has_read = !kept.followers.get(&topic).is_none_or(Follower::is_reading);
                    let unconfirmed = kept.topics.get_mut(&topic).filter(|is| has_read && !**is);
                    if let Some(confirmed) = unconfirmed {
                        *confirmed = true;
                        if is_up {
                            self.tell(LinkEvent::Subscribed(vec![topic])).await?;
                        }
                    }
                }
                Woken::Arrived(Received::Subscribed(topic)) => {
                    if let Some(confirmed) = kept.topics.get_mut(&topic) {
                        *confirmed = true;
                        if is_up {
                            self.tell(LinkEvent::Subscribed(vec![topic])).await?;
                        }
                    }
                }
                Woken::Arrived(Received::Message { topic, number, position, stored }) => {
                    let Stored { hub, except, message } = stored;
                    let is_own = hub == self.nth;
                    let one = in_flight.get_mut(&number).filter(|_| is_own);
                    let reply = one.and_then(|one| {
                        one.comes_back = false;
                        one.reply.take()
                    });
                    in_flight.retain(|_, one| one.comes_back || !one.is_answered);
                    let except = except.filter(|_| is_own);
                    let publish = Publish { target: topic.target(), except, message };
                    if position > 0 {
                        self.publish_at(kept, &topic, publish, position, reply).await?;
                        continue;
                    }
                    let command = Command::heard(publish, None, reply);
                    self.hub.send_command(command).await.map_err(drop)?;
                }
                Woken::Arrived(Received::Dispatched { number, hubs: heard }) => {
                    // The answer overtakes messages, so what comes back may come later.
                    if let Some(one) = in_flight.get_mut(&number) {
                        one.is_answered = true;
                        if let Some(hubs) = one.hubs.take() {
                            hubs.answer(Ok(heard));
                        }
                        if !one.comes_back {
                            if let Some(reply) = one.reply.take() {
                                reply.answer(Dispatched::to(0));
                            }
                        }
                    }
                    in_flight.retain(|_, one| one.comes_back || !one.is_answered);
                }
            }
        }
        kept.topics.values_mut().for_each(|confirmed| *confirmed = false);
        drop(in_flight);
        if is_up {
            self.link.set_down(self.hub.shared().timers.now().plus(ILL_AFTER));
            let (reply, answer) = reply();
            self.tell(LinkEvent::Down(reply)).await?;
            answer.await.ok_or(())?;
        }
        Ok(())
    }

    fn send(&self, command: Sent) {
        self.wire.borrow_mut().to_engine.push_back(command);
    }

    async fn tell(&self, event: LinkEvent) -> Result<(), ()> {
        self.hub.send_command(Command::Backplane(event)).await.map_err(drop)
    }

    async fn publish_at(
        &self,
        kept: &mut Kept,
        topic: &Topic,
        publish: Publish,
        position: u64,
        reply: Option<PublishReply>,
    ) -> Result<(), ()> {
        let Some(follower) = kept.followers.get_mut(topic) else {
            reply.into_iter().for_each(|reply| reply.answer(Dispatched::to(0)));
            return Ok(());
        };
        match follower.hear(position, reply) {
            Heard::Follows(reply) => {
                let command = Command::heard(publish, Some(position), reply);
                self.hub.send_command(command).await.map_err(drop)?;
            }
            Heard::Reads => self.read(kept, topic),
            Heard::Waits => {}
        }
        Ok(())
    }

    fn read(&self, kept: &mut Kept, topic: &Topic) {
        if keeps(topic) {
            kept.followers.entry(topic.clone()).or_default().read();
            self.send(Sent::Read(topic.clone()));
        }
    }

    async fn take_kept(
        &self,
        kept: &mut Kept,
        topic: &Topic,
        top: u64,
        messages: Vec<(u64, Stored)>,
    ) -> Result<(), ()> {
        let (Some(follower), Topic::Room(room)) = (kept.followers.get_mut(topic), topic) else {
            return Ok(());
        };
        let positions: Vec<_> = messages.iter().map(|(position, _)| *position).collect();
        for step in follower.take(top, &positions).unwrap_or_default() {
            match step {
                Step::Begin { position, .. } => {
                    self.tell(LinkEvent::Begin(Arc::clone(room), position)).await?;
                }
                Step::Message { index, reply } => {
                    let (position, Stored { hub, except, message }) = messages[index].clone();
                    let except = except.filter(|_| hub == self.nth);
                    let publish = Publish { target: topic.target(), except, message };
                    let command = Command::heard(publish, Some(position), reply);
                    self.hub.send_command(command).await.map_err(drop)?;
                }
            }
        }
        Ok(())
    }

    /// Does what the manager asks for; on a new connection all of it once more.
    async fn follow(&self, kept: &mut Kept, is_new: bool) -> Result<(), ()> {
        let mut known = Vec::new();
        let mut joins = Vec::new();
        for (topic, wish) in self.link.take_wishes() {
            let state = kept.topics.get(&topic).copied();
            match wish {
                Wish::Unsubscribed if state.is_some() => {
                    kept.topics.remove(&topic);
                    kept.followers.remove(&topic);
                    if !is_new {
                        self.send(Sent::Unsubscribe(topic));
                    }
                }
                Wish::Unsubscribed => {}
                Wish::Subscribed if state == Some(true) && keeps(&topic) => {
                    kept.topics.insert(topic.clone(), false);
                    kept.followers.remove(&topic);
                    if !is_new {
                        self.read(kept, &topic);
                    }
                }
                Wish::Subscribed if state == Some(true) => known.push(topic),
                Wish::Subscribed if state == Some(false) => {}
                Wish::Subscribed => joins.push(topic),
                Wish::Vacant(number) => {
                    if state.is_none() {
                        joins.push(topic.clone());
                    }
                    let due = self.hub.shared().timers.now().plus(LINGER);
                    kept.vacancies.insert(topic, (due, number));
                }
            }
        }
        kept.topics.extend(joins.iter().map(|topic| (topic.clone(), false)));
        if is_new {
            kept.topics.insert(Topic::All, false);
            joins = kept.topics.keys().cloned().collect();
        }
        for topic in joins {
            self.send(Sent::Subscribe(topic.clone()));
            self.read(kept, &topic);
        }
        if known.is_empty() { Ok(()) } else { self.tell(LinkEvent::Subscribed(known)).await }
    }

    async fn ask_vacant(&self, kept: &mut Kept) -> Result<(), ()> {
        let timers = &self.hub.shared().timers;
        let due: Vec<_> = kept
            .vacancies
            .iter()
            .filter(|(_, (due, _))| timers.has_come(*due))
            .map(|(topic, (_, number))| (topic.clone(), *number))
            .collect();
        for (topic, number) in due {
            kept.vacancies.remove(&topic);
            self.tell(LinkEvent::Vacant(topic, number)).await?;
        }
        Ok(())
    }

    async fn woken(&self, may_send: bool, is_up: bool, kept: &Kept, lost: u32) -> Woken {
        let timers = Arc::clone(&self.hub.shared().timers);
        let first = kept.vacancies.values().map(|(due, _)| *due);
        let first = first.reduce(|a, b| if b.is_before(a) { b } else { a });
        let mut deadline = first.map(|due| timers.at(due));
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            wire.waker = Some(cx.waker().clone());
            if wire.lost != lost {
                return Poll::Ready(Woken::Lost);
            }
            if let Some(arrived) = wire.arrived.pop_front() {
                return Poll::Ready(Woken::Arrived(arrived));
            }
            if may_send {
                match self.outbox.poll_next(cx) {
                    Poll::Ready(Some(command)) => return Poll::Ready(Woken::Outbox(command)),
                    Poll::Ready(None) => return Poll::Ready(Woken::HubEnded),
                    Poll::Pending => {}
                }
            } else if self.outbox.poll_closed(cx).is_ready() {
                return Poll::Ready(Woken::HubEnded);
            }
            if is_up && self.link.poll_wishes(cx).is_ready() {
                return Poll::Ready(Woken::Wishes);
            }
            match &mut deadline {
                Some(deadline) => std::pin::Pin::new(deadline).poll(cx).map(|()| Woken::Time),
                None => Poll::Pending,
            }
        })
        .await
    }
}
