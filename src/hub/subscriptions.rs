//! Which topics of a backplane the hub hears, and the clients that wait for one. Plain data, a part
//! of the manager.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::backplane::Link;
use crate::hub::client_id::Refusal;
use crate::hub::command::Command;
use crate::hub::link_event::{LinkEvent, Wish};
use crate::hub::sizing::NAME;
use crate::hub::topic::Topic;
use crate::memory::budget::MemoryBudget;

/// Clients and joins that wait for a subscription at once: four times the handshakes at the
/// defaults. More are refused. Each holds its command, about 128 bytes.
const DEFERRED_MAX: usize = 1024;

/// Bytes of a topic: its name here, with the driver, and among the wishes.
const TOPIC: usize = 3 * NAME;

/// What the manager knows of its backplane.
///
/// A topic is here while the hub has members of it, or a client waits to become one, and for a
/// second after that. A client becomes a member once each of its topics is subscribed, so that it
/// misses nothing from its 101 on.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    link: Arc<Link>,
    /// Whether the driver has said that the link is up.
    is_up: bool,
    topics: HashMap<Topic, Entry>,
    /// Commands that wait for a subscription, in the order of their keys, in which they came.
    deferred: Vec<Deferred>,
    /// The key of the next one.
    next: u64,
    /// Where the memory of the topics is reserved.
    memory: Arc<MemoryBudget>,
    /// Bytes that are reserved.
    reserved: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether the driver has confirmed it. It counts while the link is up.
    confirmed: bool,
    /// The keys of the commands that wait for it.
    waiting: Vec<u64>,
    /// How often its last member has gone.
    vacancies: u32,
}

#[derive(Debug)]
struct Deferred {
    key: u64,
    command: Command,
    topics: Vec<Topic>,
    /// Topics that are not confirmed, or that are to be current.
    missing: usize,
    /// Whether what its room has was wanted after the command came.
    is_current: bool,
}

impl Subscriptions {
    pub(crate) fn new(link: Arc<Link>, memory: &Arc<MemoryBudget>) -> Self {
        let (topics, deferred) = (HashMap::new(), Vec::new());
        let memory = Arc::clone(memory);
        Self { link, is_up: false, topics, deferred, next: 0, memory, reserved: 0 }
    }

    /// Returns a command that makes a member, if its topics are subscribed. Otherwise keeps it
    /// until they are, or refuses it while the backplane is away. `is_behind` says that it is of a
    /// reader that has heard more of its room than this hub: it waits until the hub has heard that.
    pub(crate) fn admit(&mut self, command: Command, is_behind: bool) -> Option<Command> {
        let topics = topics_of(&command);
        if !self.is_up || !self.link.is_up() {
            refuse(command);
            return None;
        }
        let is_confirmed =
            |topic: &&Topic| self.topics.get(topic).is_some_and(|entry| entry.confirmed);
        let missing: Vec<_> = topics.iter().filter(|topic| !is_confirmed(topic)).cloned().collect();
        if missing.is_empty() && !is_behind {
            return Some(command);
        }
        if self.deferred.len() >= DEFERRED_MAX {
            refuse(command);
            return None;
        }
        let key = self.next;
        self.next += 1;
        let is_current = missing.is_empty();
        let rooms = || topics.iter().filter(|topic| is_room(topic));
        let missing = if is_current { rooms().count() } else { missing.len() };
        for topic in &topics {
            let is_new = !self.topics.contains_key(topic);
            let entry = self.topics.entry(topic.clone()).or_default();
            if is_current && is_room(topic) || !entry.confirmed {
                entry.waiting.push(key);
            }
            if is_current {
                // What is said to a user is kept nowhere.
                if is_room(topic) {
                    self.link.wish(topic.clone(), Wish::Current);
                }
            } else if is_new {
                self.link.wish(topic.clone(), Wish::Subscribed);
            }
        }
        self.deferred.push(Deferred { key, command, topics, missing, is_current });
        self.reserve();
        None
    }

    /// Asks for topics whose members came from another process. They are confirmed when the link is
    /// up. `positions` are the rooms that the driver goes on in, and their positions.
    pub(crate) fn restore(
        &mut self,
        topics: impl Iterator<Item = Topic>,
        positions: Vec<(Arc<str>, u64)>,
    ) {
        self.link.restore(positions);
        for topic in topics {
            self.link.wish(topic.clone(), Wish::Subscribed);
            self.topics.entry(topic).or_default();
        }
        self.reserve();
    }

    /// Does what the driver says; returns the commands that need not wait any more, and the topics
    /// that may have lost their last use. `has_members` says whether the registry has members of a
    /// topic, `is_behind` whether a command is of a reader that has heard more than this hub.
    pub(crate) fn on_event(
        &mut self,
        event: LinkEvent,
        has_members: impl Fn(&Topic) -> bool,
        is_behind: impl Fn(&Command) -> bool,
    ) -> (Vec<Command>, Vec<Topic>) {
        match event {
            LinkEvent::Up => {
                self.is_up = true;
                // Joins are refused while the link is down: nothing waits.
                self.topics.values_mut().for_each(|entry| entry.confirmed = true);
                (Vec::new(), Vec::new())
            }
            LinkEvent::Down(reply) => {
                self.is_up = false;
                let keys: Vec<_> = self.deferred.iter().map(|deferred| deferred.key).collect();
                let unused = keys.into_iter().flat_map(|key| self.give_up(key)).collect();
                reply.answer(());
                (Vec::new(), unused)
            }
            LinkEvent::Subscribed(topics) => {
                let ready = topics.iter().flat_map(|topic| self.confirm(topic, &is_behind));
                (ready.collect(), Vec::new())
            }
            LinkEvent::Refused(topics) => {
                let waiting = |topic| self.topics.get(topic).map(|entry| entry.waiting.clone());
                let keys: Vec<_> = topics.iter().filter_map(waiting).flatten().collect();
                let unused = keys.into_iter().flat_map(|key| self.give_up(key)).collect();
                // The driver has forgotten them already.
                topics.iter().for_each(|topic| drop(self.topics.remove(topic)));
                self.reserve();
                (Vec::new(), unused)
            }
            LinkEvent::Back | LinkEvent::Begin(..) => (Vec::new(), Vec::new()),
            LinkEvent::Vacant(topic, number) => {
                let is_current = |entry: &Entry| entry.vacancies == number;
                if self.topics.get(&topic).is_some_and(is_current)
                    && !self.is_used(&topic, has_members)
                {
                    self.topics.remove(&topic);
                    self.link.wish(topic, Wish::Unsubscribed);
                    self.reserve();
                }
                (Vec::new(), Vec::new())
            }
        }
    }

    /// Notes topics that may have lost their last member: a second later they are unsubscribed,
    /// unless they have members again.
    pub(crate) fn vacate(&mut self, topics: Vec<Topic>, has_members: impl Fn(&Topic) -> bool) {
        for topic in topics {
            if self.is_used(&topic, &has_members) {
                continue;
            }
            if let Some(entry) = self.topics.get_mut(&topic) {
                entry.vacancies = entry.vacancies.wrapping_add(1);
                self.link.wish(topic, Wish::Vacant(entry.vacancies));
            }
        }
    }

    /// Whether a topic is subscribed, or is to be.
    pub(crate) fn contains(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a topic has members, or a client that waits to be one.
    fn is_used(&self, topic: &Topic, has_members: impl Fn(&Topic) -> bool) -> bool {
        let waits = |entry: &Entry| !entry.waiting.is_empty();
        has_members(topic)
            || self.topics.get(topic).is_some_and(waits)
            || self.deferred.iter().any(|deferred| deferred.topics.contains(topic))
    }

    /// Marks a topic as subscribed; returns the commands that waited for it alone.
    fn confirm(&mut self, topic: &Topic, is_behind: impl Fn(&Command) -> bool) -> Vec<Command> {
        let Some(entry) = self.topics.get_mut(topic) else { return Vec::new() };
        entry.confirmed = true;
        let (mut ready, mut behind) = (Vec::new(), Vec::new());
        for key in std::mem::take(&mut entry.waiting) {
            let Ok(at) = self.deferred.binary_search_by_key(&key, |deferred| deferred.key) else {
                continue;
            };
            let deferred = &mut self.deferred[at];
            deferred.missing -= 1;
            if deferred.missing > 0 {
                continue;
            }
            if !deferred.is_current && is_behind(&deferred.command) {
                // That was on its way before this command came. Once is enough.
                (deferred.is_current, deferred.missing) = (true, 1);
                // It may be its user that was confirmed last.
                let room = deferred.topics.iter().find(|topic| is_room(topic));
                behind.push((room.unwrap_or(topic).clone(), key));
            } else {
                ready.push(self.deferred.remove(at).command);
            }
        }
        for (room, key) in behind {
            if let Some(entry) = self.topics.get_mut(&room) {
                entry.waiting.push(key);
                self.link.wish(room, Wish::Current);
            }
        }
        ready
    }

    /// Refuses a command that waits; returns its topics.
    fn give_up(&mut self, key: u64) -> Vec<Topic> {
        let at = self.deferred.binary_search_by_key(&key, |deferred| deferred.key);
        let Ok(deferred) = at.map(|at| self.deferred.remove(at)) else { return Vec::new() };
        for topic in &deferred.topics {
            if let Some(entry) = self.topics.get_mut(topic) {
                entry.waiting.retain(|&other| other != key);
            }
        }
        refuse(deferred.command);
        deferred.topics
    }

    fn reserve(&mut self) {
        let bytes = self.topics.len() * TOPIC;
        self.memory.reserve(std::mem::replace(&mut self.reserved, bytes), bytes);
    }

    /// Checks what must hold between two commands.
    #[cfg(test)]
    pub(crate) fn check(&self, topics_with_members: impl Iterator<Item = Topic>) {
        for topic in topics_with_members {
            assert!(self.topics.contains_key(&topic), "{topic:?} has members and no subscription");
        }
        for deferred in &self.deferred {
            let missing = deferred
                .topics
                .iter()
                .filter(|topic| self.topics[*topic].waiting.contains(&deferred.key));
            assert_eq!(missing.count(), deferred.missing);
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.memory.reserve(self.reserved, 0);
    }
}

/// The topics that a command makes a client a member of, or has a reader wait for, each once.
pub(crate) fn topics_of(command: &Command) -> Vec<Topic> {
    let mut topics: Vec<_> = match command {
        Command::Register { user, rooms, .. } => {
            let rooms = rooms.iter().map(|room| Topic::Room(Arc::clone(room)));
            rooms.chain(user.iter().map(|user| Topic::User(Arc::clone(user)))).collect()
        }
        Command::Join { room, .. } | Command::Await { room, .. } => {
            vec![Topic::Room(Arc::clone(room))]
        }
        _ => Vec::new(),
    };
    topics.sort_unstable();
    topics.dedup();
    topics
}

fn is_room(topic: &Topic) -> bool {
    matches!(topic, Topic::Room(_))
}

/// Answers a command that the backplane does not allow now.
fn refuse(command: Command) {
    match command {
        Command::Register { reply, .. } => reply.answer(Err(Refusal::Away)),
        Command::Join { reply, .. } => reply.answer(Err(Refusal::Away)),
        _ => {}
    }
}
