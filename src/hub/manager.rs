//! The manager: the one future that owns the registry.
//!
//! It awaits its inbox and a yield, nothing else: no client and no handler. Time ends a wait for the
//! inbox, when rooms are to be forgotten. So nothing that a client does can stop it, and there is no
//! cycle of waits in which it could take part.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_lite::future::yield_now;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::batch::BATCH_MAX;
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::{Acked, Command, Dispatched};
use crate::hub::delivery::Delivery;
use crate::hub::eviction::MemoryEviction;
use crate::hub::inbox::CommandReceiver;
use crate::hub::publish_batch::{BatchBudget, PublishBatch};
use crate::hub::registry::Registry;
use crate::hub::registry_state::Restored;
use crate::hub::since::Missed;
use crate::hub::state::State;
use crate::hub::subscriptions::{Subscriptions, topics_of};
use crate::hub::topic::Topic;
use crate::hub::waiters::Waiters;
use crate::stats::{Counters, add};
use crate::time::timers::Timers;

/// Members served between two yields: about a millisecond of writes.
pub(crate) const FANOUT: usize = 128;

/// Clients that are handed kept messages between two yields. Each of them takes at most half a queue:
/// many come back at once after a restart, and the others wait for less than a round of a large room.
const REPLAYS_MAX: usize = 32;

/// Owns the registry and does what the inbox says.
#[derive(Debug)]
pub(crate) struct Manager {
    /// Dropped before the inbox: a connection that learns of the end from the inbox finds its
    /// client removed.
    pub(super) registry: Registry,
    commands: CommandReceiver,
    pub(super) counters: Arc<Counters>,
    /// What one batch may take, its first command included.
    budget: BatchBudget,
    /// A command that was taken and is too much for its batch.
    deferred: Option<Command>,
    /// Evicts clients when memory is short.
    eviction: MemoryEviction,
    /// With a backplane: which of its topics the hub hears, and the clients that wait for one.
    pub(super) subscriptions: Option<Box<Subscriptions>>,
    /// Clients that have asked for more of what their room keeps, each once.
    requests: VecDeque<ClientId>,
    /// Readers that wait for the next message of a room.
    pub(super) waiters: Waiters,
    /// The deadlines of the hub; one of them is for rooms without members.
    timers: Arc<Timers>,
    /// The messages in hand; empty between two deliveries, and kept for its memory.
    pub(super) batch: PublishBatch,
}

impl Manager {
    /// `queue` and `queue_bytes` bound one client's queue; the manager fills half of it at most
    /// before it lets the connections run.
    pub(crate) fn new(
        commands: CommandReceiver,
        mut registry: Registry,
        counters: Arc<Counters>,
        queue: usize,
        queue_bytes: usize,
        subscriptions: Option<Box<Subscriptions>>,
        timers: Arc<Timers>,
    ) -> Self {
        let budget =
            BatchBudget { commands: (queue / 2).clamp(1, BATCH_MAX), bytes: queue_bytes / 2 };
        let (eviction, batch) = (MemoryEviction::default(), PublishBatch::default());
        let (deferred, requests, mut waiters) = (None, VecDeque::new(), Waiters::default());
        if subscriptions.is_some() {
            registry.note_vacated();
            waiters.note_vacated();
        }
        Self {
            commands,
            registry,
            counters,
            budget,
            deferred,
            eviction,
            subscriptions,
            requests,
            waiters,
            timers,
            batch,
        }
    }

    /// Takes in the rooms and the clients of another process, before the manager runs.
    pub(crate) fn restore(&mut self, state: &State, clients: Vec<Restored<'_>>) {
        self.registry.restore(state, clients);
        if let Some(subscriptions) = &mut self.subscriptions {
            subscriptions.restore(self.registry.topics(), self.registry.positions());
        }
    }

    /// Runs until the last hub and client are gone, or the hub has drained.
    pub(crate) async fn run(mut self) {
        let mut begun = false;
        let timers = Arc::clone(&self.timers);
        let mut deadline = timers.at(timers.now());
        loop {
            let first = match self.deferred.take() {
                Some(command) => {
                    yield_now().await;
                    command
                }
                None if !self.requests.is_empty() && !self.commands.is_pausing() => {
                    yield_now().await;
                    self.commands.try_next().unwrap_or(Command::Wake)
                }
                None => {
                    // What it forgets is in the roster once the hub is handed over.
                    let due = self.registry.tidy_due().filter(|_| !self.commands.is_held());
                    let due = due.map(|due| {
                        deadline.set(timers.now().plus(due.min(Config::WAIT_MAX)));
                        &mut deadline
                    });
                    let Some(command) = self.commands.next(begun, due).await else { return };
                    command
                }
            };
            begun = true;
            if self.dispatch(first).await.is_break() {
                return;
            }
            if self.commands.is_held() {
                // Nothing changes that the roster has. The release of the inbox wakes the manager.
                continue;
            }
            if let Some(reports) = self.commands.take_reports() {
                for id in reports.gone {
                    self.registry.remove(id, Disconnect::ABNORMAL);
                }
                self.requests.extend(reports.requests);
            }
            self.replay();
            if !self.waiters.is_empty() {
                self.forget_waiters();
            }
            self.registry.tidy();
            self.eviction.run(&mut self.registry);
            if let Some(subscriptions) = &mut self.subscriptions {
                let (registry, waiters) = (&mut self.registry, &mut self.waiters);
                let mut vacated = registry.take_vacated();
                vacated.extend(waiters.take_vacated());
                subscriptions.vacate(vacated, |topic| is_heard(registry, waiters, topic));
                #[cfg(test)]
                subscriptions.check(registry.topics());
            }
        }
    }

    /// Hands clients that have asked more of what their rooms keep.
    fn replay(&mut self) {
        if self.commands.is_pausing() {
            return;
        }
        let BatchBudget { commands: messages, bytes } = self.budget;
        // One message at most, since all others wait for it.
        let mut may_deflate = true;
        for _ in 0..self.requests.len().min(REPLAYS_MAX) {
            let Some(id) = self.requests.pop_front() else { return };
            if self.registry.replay(id, messages, bytes, &mut may_deflate) {
                self.requests.push_back(id);
            }
        }
    }

    /// Does a batch: its first command, and the commands that wait behind it already.
    async fn dispatch(&mut self, first: Command) -> ControlFlow<()> {
        // Commands that arrive during this batch, for example from callers that are answered in it,
        // wait for the next one.
        let mut rest = BatchBudget {
            commands: self.commands.waiting().min(self.budget.commands - 1),
            bytes: self.budget.bytes.saturating_sub(self.frame_bytes(&first)),
        };
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Publish { publish, reply } => {
                    let target = self.batch.add(publish, reply);
                    next = self.extend(&target, &mut rest);
                    self.deliver(&target, None).await;
                    continue;
                }
                Command::PublishAt { publish, position, reply } => {
                    self.publish_at(*publish, position, reply).await;
                }
                Command::Acked(acked) => self.deliver_acked(*acked).await,
                Command::DisconnectUser { user, reason, reply } => {
                    let mut clients = 0;
                    // Nothing comes into the registry at a yield, so this ends.
                    loop {
                        let some = self.registry.remove_clients_of(&user, &reason, FANOUT);
                        clients += some;
                        if some < FANOUT {
                            break;
                        }
                        yield_now().await;
                    }
                    reply.answer(clients);
                }
                Command::Backplane(event) => self.on_link_event(event).await,
                Command::Stop => return ControlFlow::Break(()),
                command => self.carry_out(command),
            }
            next = self.take(&mut rest);
        }
        ControlFlow::Continue(())
    }

    /// Does a command that is no message.
    fn carry_out(&mut self, command: Command) {
        let registry = &mut self.registry;
        match command {
            // A reader that waits hears a room as a member does.
            Command::Register { .. } | Command::Join { .. } | Command::Await { .. } => {
                match &mut self.subscriptions {
                    None => join(registry, &mut self.waiters, command),
                    Some(subscriptions) => {
                        let is_behind = is_behind(registry, &command);
                        if let Some(command) = subscriptions.admit(command, is_behind) {
                            self.join_or_vacate(command);
                        }
                    }
                }
            }
            Command::Disconnect { id, reason, reply } => {
                let removed = registry.remove(id, reason);
                if let Some(reply) = reply {
                    reply.answer(removed);
                }
            }
            Command::Leave { id, room, is_prefix, reply } => {
                reply.answer(registry.exit(id, &room, is_prefix));
            }
            Command::Hears { id, room, reply } => reply.answer(registry.hears(id, &room)),
            Command::Rooms { id, reply } => reply.answer(registry.rooms_of(id)),
            Command::Members { of, reply } => reply.answer(registry.members(&of)),
            Command::ListRooms { after, limit, reply } => {
                reply.answer(registry.list_rooms(&after, limit));
            }
            Command::ListMembers { room, after, limit, reply } => {
                reply.answer(registry.list_members(&room, after, limit));
            }
            Command::History { room, since, limit, reply } => {
                let history = registry.history(&room, since, limit);
                reply.answer(history.filter(|_| !registry.is_behind(&room, since)));
            }
            Command::ReadNext { room, since, reply } => {
                let is_behind = registry.is_behind(&room, since);
                reply.answer(registry.next_after(&room, since).filter(|_| !is_behind));
            }
            Command::ReadEvents { queue, reply } => {
                registry.add_reader(queue);
                reply.answer(());
            }
            Command::GiveUp { room } => self.waiters.give_up(&room),
            Command::HandOver { parked, waits_for, reply } => {
                let roster = registry.hand_over(&parked, waits_for);
                if roster.is_some() {
                    self.commands.hold();
                }
                reply.answer(roster);
            }
            // The first six are done elsewhere, the next are for the outbox only.
            Command::Publish { .. }
            | Command::PublishAt { .. }
            | Command::Acked(_)
            | Command::DisconnectUser { .. }
            | Command::Backplane(_)
            | Command::Stop
            | Command::Carry(_)
            | Command::SumRooms { .. }
            | Command::ReadKept { .. }
            | Command::Wake => {}
        }
    }

    /// Makes a client a member, of topics that are subscribed. If that is refused, the topics may
    /// have no use.
    pub(super) fn join_or_vacate(&mut self, command: Command) {
        let topics = topics_of(&command);
        join(&mut self.registry, &mut self.waiters, command);
        let (registry, waiters) = (&self.registry, &self.waiters);
        if let Some(subscriptions) = &mut self.subscriptions {
            subscriptions.vacate(topics, |topic| is_heard(registry, waiters, topic));
        }
    }

    /// Delivers a message that its recipients acknowledge, alone: what is written at once of a
    /// delivery is counted for all its messages together.
    #[cold]
    async fn deliver_acked(&mut self, acked: Acked) {
        let Acked { publish, position, ack, reply } = acked;
        self.batch.ack = Some(ack);
        if let Some(position) = position {
            self.publish_at(publish, position, reply).await;
            self.batch.ack = None;
        } else {
            let target = self.batch.add(publish, reply);
            self.deliver(&target, None).await;
        }
    }

    /// Bytes of the frame that a command carries, for a client that gets the longest one of it.
    fn frame_bytes(&self, command: &Command) -> usize {
        let labels = if self.registry.has_labels() { command.label_bytes() } else { 0 };
        command.bytes() + labels
    }

    /// Takes the next command of a batch that may take this `rest`.
    fn take(&mut self, rest: &mut BatchBudget) -> Option<Command> {
        rest.commands = rest.commands.checked_sub(1)?;
        let command = self.commands.try_next()?;
        let Some(bytes) = rest.bytes.checked_sub(self.frame_bytes(&command)) else {
            self.deferred = Some(command);
            return None;
        };
        rest.bytes = bytes;
        Some(command)
    }

    /// Adds the messages that follow for the same target; returns the command that ended them.
    fn extend(&mut self, target: &Target, rest: &mut BatchBudget) -> Option<Command> {
        loop {
            match self.take(rest)? {
                Command::Publish { publish, reply } if self.batch.takes(target, &publish) => {
                    self.batch.add(publish, reply);
                }
                other => return Some(other),
            }
        }
    }

    /// Pushes the messages in hand to every member of their target, yielding between slices of a
    /// large room.
    pub(super) async fn deliver(&mut self, target: &Target, position: Option<u64>) {
        let is_shared = self.subscriptions.is_some();
        let Self { registry, counters, batch, .. } = self;
        let PublishBatch { messages, joined, dispatches, replies, ack } = batch;
        joined.join(messages, registry.is_deflating());
        let mut delivery = Delivery::new(target, messages, joined, dispatches);
        delivery.position = position;
        delivery.ack = ack.take();
        while !registry.deliver(&mut delivery, FANOUT) {
            yield_now().await;
        }
        let (before, is_refused) = (delivery.before, delivery.is_refused);
        add(&counters.messages_dispatched, messages.len() as u64);
        let recipients = dispatches.iter().map(|dispatch| dispatch.recipients);
        add(&counters.recipients, recipients.sum::<usize>() as u64);
        for (index, reply) in replies.drain(..) {
            let recipients = dispatches[index].recipients;
            // The count of this hub says nothing to another one.
            let own = before.filter(|_| !is_shared).map(|before| before + index as u64 + 1);
            reply.answer(Dispatched { recipients, position: position.or(own), is_refused });
        }
        if !self.waiters.is_empty() {
            self.answer_waiters(target, before).await;
        }
        let PublishBatch { messages, dispatches, joined, .. } = &mut self.batch;
        joined.forget_labelled();
        messages.clear();
        dispatches.clear();
    }
}

/// Whether anything of this hub hears a topic.
pub(super) fn is_heard(registry: &Registry, waiters: &Waiters, topic: &Topic) -> bool {
    registry.has_members(topic) || waiters.are_any(topic)
}

/// Whether a command has a reader begin behind what this hub has heard of a room.
pub(super) fn is_behind(registry: &Registry, command: &Command) -> bool {
    let (room, since) = match command {
        Command::Register { rooms, reading, .. } => (rooms.first(), reading.since),
        Command::Await { room, since, .. } => (Some(room), Some(*since)),
        _ => return false,
    };
    room.zip(since).is_some_and(|(room, since)| registry.is_behind(room, since))
}

/// Makes a client a member of its first rooms, or of one more, or has a reader wait for a room.
fn join(registry: &mut Registry, waiters: &mut Waiters, command: Command) {
    match command {
        Command::Await { room, since, reply } => match registry.next_after(&room, since) {
            Some(kept) if !kept.messages.is_empty() || kept.missed != Missed::Nothing => {
                reply.answer(kept);
            }
            _ => waiters.add(room, since, reply),
        },
        Command::Register { queue, user, rooms, prefixes, came, reading, reply } => {
            let names = rooms.split_at(rooms.len() - usize::from(prefixes));
            reply.answer(registry.insert_with(queue, user, names, came, *reading));
        }
        Command::Join { id, room, is_prefix, reply } => {
            reply.answer(registry.enter(id, &room, is_prefix));
        }
        _ => {}
    }
}
