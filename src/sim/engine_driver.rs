//! The driver of a simulated hub: it carries messages between the hub and the engine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::hub::backplane::{ILL_AFTER, Link};
use crate::hub::command::{Carry, Command, Dispatched, NotPublished, Publish, PublishReply};
use crate::hub::follower::{Follower, Heard, Step};
use crate::hub::handle::Hub;
use crate::hub::inbox::CommandReceiver;
use crate::hub::link_event::{LinkEvent, Wish};
use crate::hub::reply::{Reply, reply};
use crate::hub::topic::Topic;
use crate::sim::engine::{Engine, LateRead, Log, Received, Sent, Stored, Wire, keeps};

/// Messages that one hub may have in flight: few, so that publishers wait.
const IN_FLIGHT_MAX: usize = 4;

/// How long a topic stays subscribed without a member.
const LINGER: Duration = Duration::from_secs(1);

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
    log: Rc<Log>,
}

/// Adds a hub to an engine, and returns its driver.
pub(super) fn drive(engine: &mut Engine, hub: &Hub) -> impl Future<Output = ()> + use<> {
    let (nth, wire) = engine.add();
    let backplane = hub.shared().backplane.as_ref().expect("the hub is not alone");
    let outbox = backplane.take_outbox().expect("no other driver");
    let link = Arc::clone(&backplane.link);
    let driver = Driver { hub: hub.clone(), nth, link, outbox, wire, log: Rc::clone(&engine.log) };
    driver.run()
}

/// What a driver keeps while it is connected, or from one connection to the next.
#[derive(Default)]
struct Kept {
    topics: BTreeMap<Topic, bool>,
    vacancies: BTreeMap<Topic, (crate::time::timer_list::Tick, u32)>,
    followers: BTreeMap<Topic, Follower>,
    /// The position up to which the manager was told of a room, to compare with.
    reported: BTreeMap<Topic, u64>,
}

impl Kept {
    /// The manager has forgotten what it was told of a room.
    fn forget_follower(&mut self, topic: &Topic) {
        self.followers.remove(topic);
        self.reported.remove(topic);
    }
}

/// Where a message in flight is answered, and whether it comes back.
struct InFlight {
    reply: Option<PublishReply>,
    hubs: Option<Reply<Result<usize, NotPublished>>>,
    comes_back: bool,
    is_answered: bool,
}

/// The messages in flight, by the numbers that the engine returns.
#[derive(Default)]
struct OnTheWay {
    all: BTreeMap<u64, InFlight>,
    next: u64,
}

impl OnTheWay {
    fn add(&mut self, one: InFlight) -> u64 {
        let number = self.next;
        self.all.insert(number, one);
        self.next += 1;
        number
    }

    /// A message has come back; returns where it is answered.
    fn came_back(&mut self, number: u64) -> Option<PublishReply> {
        let reply = self.all.get_mut(&number).and_then(|one| {
            one.comes_back = false;
            one.reply.take()
        });
        self.forget_done();
        reply
    }

    /// The engine has dispatched a message to so many hubs. The answer overtakes messages, so what
    /// comes back may come later.
    fn answer(&mut self, number: u64, heard: usize) {
        if let Some(one) = self.all.get_mut(&number) {
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
        self.forget_done();
    }

    fn forget_done(&mut self) {
        self.all.retain(|_, one| one.comes_back || !one.is_answered);
    }
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
        let mut in_flight = OnTheWay::default();
        let (mut is_back, mut is_up) = (false, false);
        let lost = self.wire.borrow().lost;
        kept.followers.values_mut().for_each(Follower::interrupt);
        self.follow(kept, true).await?;
        loop {
            if !is_up && kept.topics.values().all(|confirmed| *confirmed) {
                is_up = true;
                self.come_back(&mut is_back).await?;
                self.report(LinkEvent::Up).await?;
                self.link.set_up();
            }
            match self.woken(is_up && in_flight.all.len() < IN_FLIGHT_MAX, is_up, kept, lost).await
            {
                Woken::HubEnded => return Err(()),
                Woken::Lost => break,
                Woken::Wishes => self.follow(kept, false).await?,
                Woken::Time => self.report_vacant(kept).await?,
                Woken::Outbox(command) => {
                    if let Command::Carry(carry) = command {
                        self.carry(kept, *carry, &mut in_flight);
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
                            self.report(LinkEvent::Subscribed(vec![topic])).await?;
                        }
                    }
                }
                Woken::Arrived(Received::Subscribed(topic)) => {
                    if let Some(confirmed) = kept.topics.get_mut(&topic) {
                        *confirmed = true;
                        if is_up {
                            self.report(LinkEvent::Subscribed(vec![topic])).await?;
                        }
                    }
                }
                Woken::Arrived(Received::Message { topic, number, position, stored }) => {
                    let Stored { hub, except, message } = stored;
                    let is_own = hub == self.nth;
                    let reply = if is_own { in_flight.came_back(number) } else { None };
                    let except = except.filter(|_| is_own);
                    let publish = Publish { target: topic.target(), except, message };
                    if position > 0 {
                        self.publish_at(kept, &topic, publish, position, reply).await?;
                        continue;
                    }
                    self.come_back(&mut is_back).await?;
                    let command = Command::heard(publish, None, reply);
                    self.hub.send_command(command).await.map_err(drop)?;
                }
                Woken::Arrived(Received::Dispatched { number, hubs: heard }) => {
                    in_flight.answer(number, heard);
                }
            }
        }
        kept.topics.values_mut().for_each(|confirmed| *confirmed = false);
        drop(in_flight);
        if is_up {
            self.link.set_down(self.hub.shared().timers.now().plus(ILL_AFTER));
            let (reply, answer) = reply();
            self.report(LinkEvent::Down(reply)).await?;
            answer.await.ok_or(())?;
        }
        Ok(())
    }

    /// Sends a message to the engine, unless its publisher has given up.
    fn carry(&self, kept: &Kept, carry: Carry, in_flight: &mut OnTheWay) {
        let Carry { publish: Publish { target, except, message }, reply, hubs } = carry;
        let wanted = reply.as_ref().is_none_or(PublishReply::begin)
            && hubs.as_ref().is_none_or(Reply::begin);
        if let Some(topic) = Topic::of(&target).filter(|_| wanted) {
            let comes_back = kept.topics.contains_key(&topic);
            let number = in_flight.add(InFlight { reply, hubs, comes_back, is_answered: false });
            self.send(Sent::Publish { number, topic, except, message });
        }
    }

    fn send(&self, command: Sent) {
        self.wire.borrow_mut().to_engine.push_back(command);
    }

    /// Tells the manager that messages come again, once.
    async fn come_back(&self, is_back: &mut bool) -> Result<(), ()> {
        if std::mem::replace(is_back, true) { Ok(()) } else { self.report(LinkEvent::Back).await }
    }

    async fn report(&self, event: LinkEvent) -> Result<(), ()> {
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
                let before = kept.reported.insert(topic.clone(), position);
                assert_eq!(
                    before,
                    Some(position - 1),
                    "{topic:?} goes on with what does not follow"
                );
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
        // A room that has begun a new life is told whole.
        let reported = kept.reported.insert(topic.clone(), top).filter(|last| *last <= top);
        let mut before = reported;
        let is_new = |position: u64| reported.is_none_or(|last| position > last);
        let new = messages.iter().filter(|(position, _)| is_new(*position));
        let texts = new.map(|(_, stored)| stored.message.as_bytes().to_vec()).collect();
        let step = self.log.step.get();
        self.log.late_reads.borrow_mut().push(LateRead { hub: self.nth, step, texts });
        for step in follower.take(top, &positions) {
            match step {
                Step::Begin { position, .. } => {
                    before = Some(position);
                    self.report(LinkEvent::Begin(Arc::clone(room), position)).await?;
                }
                Step::Message { index, reply } => {
                    let (position, Stored { hub, except, message }) = messages[index].clone();
                    let before = before.replace(position);
                    assert_eq!(before, Some(position - 1), "{topic:?} has a gap that is not told");
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
                    kept.forget_follower(&topic);
                    if !is_new {
                        self.send(Sent::Unsubscribe(topic));
                    }
                }
                Wish::Unsubscribed => {}
                Wish::Subscribed if state == Some(true) && keeps(&topic) => {
                    kept.topics.insert(topic.clone(), false);
                    kept.forget_follower(&topic);
                    if !is_new {
                        self.read(kept, &topic);
                    }
                }
                Wish::Current if state.is_some() => {
                    kept.topics.insert(topic.clone(), false);
                    if !is_new {
                        self.read(kept, &topic);
                    }
                }
                Wish::Current => {}
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
        if known.is_empty() { Ok(()) } else { self.report(LinkEvent::Subscribed(known)).await }
    }

    async fn report_vacant(&self, kept: &mut Kept) -> Result<(), ()> {
        let timers = &self.hub.shared().timers;
        let due: Vec<_> = kept
            .vacancies
            .iter()
            .filter(|(_, (due, _))| timers.has_come(*due))
            .map(|(topic, (_, number))| (topic.clone(), *number))
            .collect();
        for (topic, number) in due {
            kept.vacancies.remove(&topic);
            self.report(LinkEvent::Vacant(topic, number)).await?;
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
