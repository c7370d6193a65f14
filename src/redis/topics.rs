//! The topics of a connection: what is subscribed, and what the manager asks for.

use std::time::Duration;

use crate::hub::command::Command;
use crate::hub::follower::Follower;
use crate::hub::link_event::{LinkEvent, TopicState, Wish};
use crate::hub::topic::Topic;
use crate::redis::in_flight::Sent;
use crate::redis::resp;
use crate::redis::session::Session;

/// Channels of one SUBSCRIBE or UNSUBSCRIBE at most. The server runs no other command meanwhile.
const CHANNELS_MAX: usize = 512;

/// How long a topic stays subscribed without a member.
const LINGER: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Asks for every channel that the hub needs.
    pub(crate) fn subscribe_all(&mut self) {
        let _ = self.take_wishes();
        self.driver.followers.values_mut().for_each(Follower::interrupt);
        let names = &self.driver.reader.names;
        let first = [names.own(), names.channel(&Topic::All)];
        let arguments: Vec<&[u8]> = vec![b"SUBSCRIBE", &first[0], &first[1]];
        resp::command(&mut self.connection.output, &arguments);
        self.in_flight.push(Sent::Subscribe { topics: Vec::new(), left: first.len() });
        let topics: Vec<_> = self.driver.topics.keys().cloned().collect();
        self.subscribe(topics);
    }

    fn subscribe(&mut self, topics: Vec<Topic>) {
        for topics in topics.chunks(CHANNELS_MAX) {
            self.channels(b"SUBSCRIBE", topics);
            self.in_flight.push(Sent::Subscribe { left: topics.len(), topics: topics.to_vec() });
            topics.iter().for_each(|topic| self.read_kept(topic));
        }
    }

    pub(crate) fn unsubscribe(&mut self, topics: Vec<Topic>) {
        for topics in topics.chunks(CHANNELS_MAX) {
            self.channels(b"UNSUBSCRIBE", topics);
            self.in_flight.push(Sent::Unsubscribe { left: topics.len() });
        }
    }

    fn channels(&mut self, command: &[u8], topics: &[Topic]) {
        let output = &mut self.connection.output;
        resp::begin(output, 1 + topics.len());
        resp::argument(output, &[command]);
        topics.iter().for_each(|topic| {
            resp::argument(output, &[&self.driver.reader.names.channel(topic)]);
        });
    }

    /// Topics are subscribed; one that keeps messages counts as subscribed once these have come.
    pub(crate) fn subscribed(&mut self, mut topics: Vec<Topic>) -> Option<Command> {
        topics.retain(|topic| !self.is_reading(topic));
        for topic in &topics {
            if let Some(state) = self.driver.topics.get_mut(topic) {
                state.confirmed = true;
            }
        }
        let is_news = self.is_up && !topics.is_empty();
        is_news.then(|| Command::Backplane(LinkEvent::Subscribed(topics)))
    }

    /// Does what the manager asks for.
    pub(crate) fn follow_wishes(&mut self) -> Option<Command> {
        if !self.is_up {
            return None;
        }
        let (joins, leaves, mut known) = self.take_wishes();
        self.unsubscribe(leaves);
        self.subscribe(joins);
        known.retain(|(topic, wish)| !self.reads_again(topic, *wish));
        let known: Vec<_> = known.into_iter().map(|(topic, _)| topic).collect();
        (!known.is_empty()).then(|| Command::Backplane(LinkEvent::Subscribed(known)))
    }

    /// Notes what the manager asks for. Returns the topics that are new, those that are gone, and
    /// those that are subscribed already, with what is asked of them.
    fn take_wishes(&mut self) -> (Vec<Topic>, Vec<Topic>, Vec<(Topic, Wish)>) {
        let (mut joins, mut leaves, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (topic, wish) in self.driver.link.take_wishes() {
            let state = self.driver.topics.get(&topic).map(|state| state.confirmed);
            if let Wish::Unsubscribed = wish {
                if self.driver.topics.contains_key(&topic) {
                    self.driver.forget(&topic);
                    if let (Topic::Room(room), true) = (&topic, self.driver.script.keeps(&topic)) {
                        self.keep(room);
                    }
                    leaves.push(topic);
                }
                continue;
            }
            if state.is_none() {
                self.driver.topics.insert(topic.clone(), TopicState::default());
                joins.push(topic.clone());
            }
            match wish {
                Wish::Vacant(number) => self.linger(topic, number),
                Wish::Current if state.is_some() => known.push((topic, wish)),
                _ if state == Some(true) => known.push((topic, wish)),
                _ => {}
            }
        }
        (joins, leaves, known)
    }

    fn linger(&mut self, topic: Topic, number: u32) {
        let Some(state) = self.driver.topics.get_mut(&topic) else { return };
        state.number = number;
        let due = self.driver.timers.now().plus(LINGER);
        if state.due.replace(due).is_none() {
            self.driver.lingering.push_back((due, topic));
        }
    }
}
