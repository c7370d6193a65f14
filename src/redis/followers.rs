//! The part of a session that keeps the positions of rooms without a gap.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::command::{Command, Dispatched, Publish, PublishReply};
use crate::hub::follower::{Follower, Heard, Step};
use crate::hub::link_event::{LinkEvent, Wish};
use crate::hub::room::Room;
use crate::hub::since::Since;
use crate::hub::topic::Topic;
use crate::redis::in_flight::{KeptQuery, Positioned, Published, Sent};
use crate::redis::incoming::Incoming;
use crate::redis::session::{End, Session};
use crate::stats::add;
use crate::time::clock::now;

impl Session<'_> {
    /// Asks for what a topic keeps, if it is a room that keeps messages.
    pub(crate) fn read_kept(&mut self, topic: &Topic) {
        let Topic::Room(room) = topic else { return };
        if self.driver.script.keeps(topic) {
            self.driver.followers.entry(Arc::clone(room)).or_default().read();
            self.reads.push_back(Arc::clone(room));
            self.send_reads();
        }
    }

    /// Sends questions for what rooms keep, as many as may be on their way.
    pub(crate) fn send_reads(&mut self) {
        while self.in_flight.may_read() {
            let Some(room) = self.reads.pop_front() else { return };
            if !self.driver.followers.contains_key(&room) {
                // It was unsubscribed meanwhile.
                continue;
            }
            let driver = &*self.driver;
            let of = (&driver.reader.names, &*driver.run_id);
            driver.script.read(&mut self.connection.output, of, &room);
            self.in_flight.read(Sent::Read(room), driver.script.read_bytes());
        }
    }

    /// Asks for what a room keeps, for a reader that is no member.
    pub(crate) fn query_kept(&mut self, query: KeptQuery) {
        let driver = &*self.driver;
        let of = (&driver.reader.names, &*driver.run_id);
        // A reader of the last value, which is what most of them are, needs no other.
        let most = match query.since {
            Since::Newest(count) if query.limit == 1 => count as usize,
            _ => usize::MAX,
        };
        driver.script.peek(&mut self.connection.output, of, &query.room, most);
        self.in_flight.read(Sent::Query(Box::new(query)), driver.script.read_bytes());
    }

    /// Answers a reader that is no member: `top` is 0 if there is no such room.
    pub(crate) fn answer_kept(&self, query: KeptQuery, top: u64, kept: Vec<Incoming>) {
        let KeptQuery { room, since, limit, reply } = query;
        let config = &self.driver.script.config;
        let mut copy = Room::new(config.messages_max(&room), 0);
        copy.begin_at(top);
        for incoming in kept {
            if let Incoming::Message { position, except, message, .. } = incoming {
                copy.append_at(position, &message, except, config.bytes, 0);
            }
        }
        reply.answer((top > 0).then(|| copy.history(since, limit)));
    }

    /// When the server is to be told that rooms have members here, for rooms to be forgotten at an
    /// age: twice within it.
    pub(crate) fn keep_alive_due(&self) -> Option<Instant> {
        let age = self.driver.script.age().filter(|_| self.is_up)?;
        self.kept_alive.checked_add(Duration::from_millis(age / 2))
    }

    /// Has the server keep rooms that have members here for longer.
    pub(crate) fn keep_alive(&mut self) {
        self.kept_alive = now();
        let rooms: Vec<_> = self.driver.followers.keys().cloned().collect();
        rooms.iter().for_each(|room| self.keep(room));
    }

    /// Has the server keep a room for its age from now on: it has a member here, or had one last.
    pub(crate) fn keep(&mut self, room: &str) {
        let driver = &*self.driver;
        let of = (&driver.reader.names, &*driver.run_id);
        let commands = driver.script.keep(&mut self.connection.output, of, room);
        (0..commands).for_each(|_| self.in_flight.push(Sent::Other));
    }

    /// A topic that is subscribed still has a member again, or is to be current. Returns whether it is a
    /// room that keeps messages, which is read first.
    pub(crate) fn reads_again(&mut self, topic: &Topic, wish: Wish) -> bool {
        let keeps = self.driver.script.keeps(topic);
        if keeps {
            if let (Topic::Room(room), Wish::Subscribed) = (topic, wish) {
                // The manager has forgotten what it was told of it.
                self.driver.followers.remove(room);
            }
            self.driver.topics.entry(topic.clone()).or_default().confirmed = false;
            self.read_kept(topic);
        }
        keeps
    }

    /// Whether what a topic keeps is on its way.
    pub(crate) fn is_reading(&self, topic: &Topic) -> bool {
        let Topic::Room(room) = topic else { return false };
        self.driver.followers.get(room).is_some_and(Follower::is_reading)
    }

    /// Takes a message that came over the channel of a room. One that does not follow the last is
    /// read from what the room keeps, with all before it.
    pub(crate) fn follow(
        &mut self,
        room: &Arc<str>,
        positioned: Positioned,
        reply: Option<PublishReply>,
    ) -> Option<Command> {
        let position = positioned.position;
        let Some(follower) = self.driver.followers.get_mut(room) else {
            // It was unsubscribed meanwhile.
            let dispatched = Dispatched { position: Some(position), ..Dispatched::to(0) };
            reply.into_iter().for_each(|reply| reply.answer(dispatched));
            return None;
        };
        match follower.hear(position, reply) {
            Heard::Follows(reply) => return Some(self.positioned(room, positioned, reply)),
            Heard::Reads => self.read_kept(&Topic::Room(Arc::clone(room))),
            Heard::Waits => {}
        }
        None
    }

    fn positioned(
        &self,
        room: &Arc<str>,
        positioned: Positioned,
        reply: Option<PublishReply>,
    ) -> Command {
        let Positioned { position, except, message } = positioned;
        let target = Topic::Room(Arc::clone(room)).target();
        self.heard(Publish { target, except, message }, Some(position), reply)
    }

    /// Takes what a room keeps: `top` is the position of its newest message, `kept` are the newest
    /// messages, oldest first.
    pub(crate) fn take_kept(&mut self, room: &Arc<str>, top: u64, kept: Vec<Incoming>) {
        let Some(follower) = self.driver.followers.get_mut(room) else { return };
        let positioned = |incoming| match incoming {
            Incoming::Message { position, except, message, .. } => {
                Some(Positioned { position, except, message })
            }
            _ => None,
        };
        let kept: Vec<_> = kept.into_iter().filter_map(positioned).collect();
        let positions: Vec<_> = kept.iter().map(|positioned| positioned.position).collect();
        let mut kept: Vec<_> = kept.into_iter().map(Some).collect();
        for step in follower.take(top, &positions) {
            match step {
                Step::Begin { position, is_gap } => {
                    add(&self.driver.link.counters.gaps, u64::from(is_gap));
                    let event = LinkEvent::Begin(Arc::clone(room), position);
                    self.commands.push_back(Command::Backplane(event));
                }
                Step::Message { index, reply } => {
                    if let Some(positioned) = kept.get_mut(index).and_then(Option::take) {
                        let command = self.positioned(room, positioned, reply);
                        self.commands.push_back(command);
                    }
                }
            }
        }
        let topic = Topic::Room(Arc::clone(room));
        if self.driver.topics.get(&topic).is_some_and(|state| !state.confirmed) {
            let command = self.subscribed(vec![topic]);
            self.commands.extend(command);
        }
    }

    /// The server does not know the script: a message that was refused for that goes once more, with
    /// the script. None is taken from the outbox until all of these are done, so that their order
    /// stays.
    pub(crate) fn publish_again(&mut self, sent: Published) {
        self.is_retrying = true;
        let Some((carry, comes_back)) = self.in_flight.take_back(sent) else { return };
        self.send(carry, comes_back, true);
    }

    /// The error of an answer that has to be a list.
    pub(crate) fn unreadable(&self) -> End {
        self.lost(io::Error::other("the server cannot read what a room keeps"))
    }
}
