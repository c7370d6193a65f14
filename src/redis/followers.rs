//! The part of a session that keeps the positions of rooms without a gap.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::command::{Command, Dispatched, Publish, PublishReply};
use crate::hub::follower::{Follower, Heard, Step};
use crate::hub::link_event::LinkEvent;
use crate::hub::room::Room;
use crate::hub::topic::Topic;
use crate::redis::in_flight::{KeptQuery, Positioned, Published, Sent};
use crate::redis::incoming::Incoming;
use crate::redis::resp;
use crate::redis::session::{End, Session};
use crate::stats::add;
use crate::time::clock::now;

impl Session<'_> {
    /// Asks for what a topic keeps, if it is a room that keeps messages.
    pub(crate) fn read_kept(&mut self, topic: &Topic) {
        let Topic::Room(room) = topic else { return };
        let driver = &mut *self.driver;
        if driver.script.keeps(topic) {
            let of = (&driver.reader.names, &*driver.run_id);
            driver.script.read(&mut self.connection.output, of, room, true);
            driver.followers.entry(Arc::clone(room)).or_default().read();
            self.in_flight.push(Sent::Read(Arc::clone(room)));
        }
    }

    /// Asks for what a room keeps, for a reader that is no member.
    pub(crate) fn query_kept(&mut self, query: KeptQuery) {
        let driver = &*self.driver;
        let of = (&driver.reader.names, &*driver.run_id);
        driver.script.read(&mut self.connection.output, of, &query.room, false);
        self.in_flight.push(Sent::Query(Box::new(query)));
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

    /// Has the server keep rooms that have members here for longer, twice within the age at which it
    /// forgets them.
    pub(crate) fn keep_alive(&mut self) {
        let Some(age) = self.driver.script.config.age else { return };
        let time = now();
        if time.saturating_duration_since(self.kept_alive) < Duration::from_millis(age / 2) {
            return;
        }
        self.kept_alive = time;
        let age = age.to_string();
        for room in self.driver.followers.keys() {
            for key in self.driver.reader.names.keys(&self.driver.run_id, room) {
                let command: [&[u8]; 3] = [b"PEXPIRE", &key, age.as_bytes()];
                resp::command(&mut self.connection.output, &command);
                self.in_flight.push(Sent::Other);
            }
        }
    }

    /// A topic that is subscribed still has a member again. The manager has forgotten what it was told
    /// of a room that keeps messages: returns whether this is read first.
    pub(crate) fn reads_again(&mut self, topic: &Topic) -> bool {
        let keeps = self.driver.script.keeps(topic);
        if keeps {
            if let Topic::Room(room) = topic {
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
        // Without steps it was unsubscribed and subscribed again meanwhile.
        let Some(steps) = follower.take(top, &positions) else { return };
        let mut kept: Vec<_> = kept.into_iter().map(Some).collect();
        for step in steps {
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
