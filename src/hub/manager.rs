//! The manager: the one future that owns the registry.
//!
//! It awaits its inbox and a yield, nothing else: no client, no handler, no clock. So nothing that
//! a client does can stop it, and there is no cycle of waits in which it could take part.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_lite::future::yield_now;

use crate::disconnect::Disconnect;
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::Command;
use crate::hub::eviction::MemoryEviction;
use crate::hub::inbox::CommandReceiver;
use crate::hub::queue::BATCH_MAX;
use crate::hub::registry::{Delivery, Dispatch, Registry, frame_bytes};
use crate::hub::reply::Reply;
use crate::message::Message;
use crate::stats::{Counters, add};

/// Members served between two yields: about a millisecond of writes.
const FANOUT: usize = 128;

/// Bytes of frames that are laid side by side at most; a hub keeps as many for that.
///
/// The kernel takes what is in one piece in half the time of what is in 32. One copy serves all
/// members, and where there is one alone it costs what it saves.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// Owns the registry and does what the inbox says.
#[derive(Debug)]
pub(crate) struct Manager {
    commands: CommandReceiver,
    registry: Registry,
    counters: Arc<Counters>,
    /// What one batch may take, its first command included.
    budget: BatchBudget,
    /// A command that was taken and is too much for its batch.
    deferred: Option<Command>,
    /// Who goes when memory is short.
    eviction: MemoryEviction,
    /// The run in hand; empty between two, and kept for its room.
    batch: PublishBatch,
}

/// What a batch may take, or may take still.
#[derive(Debug)]
struct BatchBudget {
    /// Commands, and so messages of a run: half a queue at most.
    commands: usize,
    /// Bytes of frames: half a queue at most, past the first command.
    bytes: usize,
}

/// A run of consecutive publishes to one target.
#[derive(Debug, Default)]
struct PublishBatch {
    messages: Vec<Message>,
    /// For each message whom it is kept from, and how many took it.
    dispatches: Vec<Dispatch>,
    /// Who wants to hear how many took a message, in the order of messages.
    replies: Vec<(usize, Reply<usize>)>,
    /// The frames of the messages side by side, where there are several and they are short.
    joined: Vec<u8>,
}

impl Manager {
    /// `queue` and `queue_bytes` bound one client's queue; the manager fills half of it at most
    /// before it lets the connections run.
    pub(crate) fn new(
        commands: CommandReceiver,
        registry: Registry,
        counters: Arc<Counters>,
        queue: usize,
        queue_bytes: usize,
    ) -> Self {
        let batch =
            BatchBudget { commands: (queue / 2).clamp(1, BATCH_MAX), bytes: queue_bytes / 2 };
        let (eviction, run) = (MemoryEviction::default(), PublishBatch::default());
        Self { commands, registry, counters, budget: batch, deferred: None, eviction, batch: run }
    }

    /// Runs until the last hub and client are gone, or the hub has drained.
    pub(crate) async fn run(mut self) {
        let mut begun = false;
        loop {
            let first = match self.deferred.take() {
                Some(command) => {
                    yield_now().await;
                    command
                }
                None => match self.commands.next(begun).await {
                    Some(command) => command,
                    None => return,
                },
            };
            begun = true;
            if self.dispatch(first).await.is_break() {
                return;
            }
            for id in self.commands.take_gone() {
                self.registry.remove(id, Disconnect::ABNORMAL);
            }
            self.eviction.run(&mut self.registry);
        }
    }

    /// Does a batch: its first command, and what waits behind it already.
    async fn dispatch(&mut self, first: Command) -> ControlFlow<()> {
        // What comes from now on, as from those who are answered, is for the next batch.
        let mut rest = BatchBudget {
            commands: self.commands.waiting().min(self.budget.commands - 1),
            bytes: self.budget.bytes.saturating_sub(first.bytes()),
        };
        let mut next = Some(first);
        while let Some(command) = next {
            let registry = &mut self.registry;
            match command {
                Command::Publish { target, except, message, reply } => {
                    self.batch.add(except, message, reply);
                    next = self.extend(&target, &mut rest);
                    self.deliver(&target).await;
                    continue;
                }
                Command::Register { queue, user, rooms, since, reply } => {
                    reply.answer(registry.insert(queue, user, &rooms, since));
                }
                Command::Disconnect { id, reason, reply } => {
                    let removed = registry.remove(id, reason);
                    if let Some(reply) = reply {
                        reply.answer(removed);
                    }
                }
                Command::Join { id, room, reply } => reply.answer(registry.join(id, &room)),
                Command::Leave { id, room, reply } => reply.answer(registry.leave(id, &room)),
                Command::Rooms { id, reply } => reply.answer(registry.rooms_of(id)),
                Command::Members { room, reply } => {
                    let members = match room {
                        Some(room) => registry.presence(&room),
                        None => registry.clients(),
                    };
                    reply.answer(members);
                }
                Command::ListRooms { after, limit, reply } => {
                    reply.answer(registry.list_rooms(&after, limit));
                }
                Command::ListMembers { room, after, limit, reply } => {
                    reply.answer(registry.list_members(&room, after, limit));
                }
                Command::Wake => {}
                Command::Stop => return ControlFlow::Break(()),
            }
            next = self.take(&mut rest);
        }
        ControlFlow::Continue(())
    }

    /// Takes the next command of a batch, of which there is this `rest`.
    fn take(&mut self, rest: &mut BatchBudget) -> Option<Command> {
        rest.commands = rest.commands.checked_sub(1)?;
        let command = self.commands.try_next()?;
        let Some(bytes) = rest.bytes.checked_sub(command.bytes()) else {
            self.deferred = Some(command);
            return None;
        };
        rest.bytes = bytes;
        Some(command)
    }

    /// Adds to the run what follows for the same target; returns the command that ended it.
    fn extend(&mut self, target: &Target, rest: &mut BatchBudget) -> Option<Command> {
        loop {
            match self.take(rest)? {
                Command::Publish { target: same, except, message, reply } if same == *target => {
                    self.batch.add(except, message, reply);
                }
                other => return Some(other),
            }
        }
    }

    /// Pushes the run in hand to every member of its target, yielding between slices of a large
    /// room.
    async fn deliver(&mut self, target: &Target) {
        let Self { registry, counters, batch: run, .. } = self;
        run.join();
        let PublishBatch { messages, joined, dispatches, .. } = run;
        let mut delivery = Delivery::new(target, messages, joined, dispatches);
        while !registry.deliver(&mut delivery, FANOUT) {
            yield_now().await;
        }
        add(&counters.messages_dispatched, run.messages.len() as u64);
        let recipients = run.dispatches.iter().map(|dispatch| dispatch.recipients);
        add(&counters.recipients, recipients.sum::<usize>() as u64);
        for (index, reply) in run.replies.drain(..) {
            reply.answer(run.dispatches[index].recipients);
        }
        run.messages.clear();
        run.dispatches.clear();
    }
}

impl PublishBatch {
    fn add(&mut self, except: Option<ClientId>, message: Message, reply: Option<Reply<usize>>) {
        if let Some(reply) = reply {
            self.replies.push((self.messages.len(), reply));
        }
        self.messages.push(message);
        self.dispatches.push(Dispatch::new(except));
    }

    /// Lays the frames side by side, if there are several and they are short.
    fn join(&mut self) {
        self.joined.clear();
        if self.messages.len() > 1 && frame_bytes(&self.messages) <= JOINED_BYTES_MAX {
            self.joined.reserve_exact(JOINED_BYTES_MAX);
            self.messages.iter().for_each(|message| self.joined.extend_from_slice(message.frame()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_short_frames_are_laid_side_by_side_and_no_more_is_kept_for_that() {
        let mut run = PublishBatch::default();
        // Each with a header of 4 bytes.
        for (lens, joined) in [
            (&[600][..], 0),
            (&[600, 700], 1308),
            (&[600, JOINED_BYTES_MAX - 608], JOINED_BYTES_MAX),
            (&[600, JOINED_BYTES_MAX - 607], 0),
        ] {
            run.messages = lens.iter().map(|&len| Message::binary(vec![7; len])).collect();
            run.join();
            assert_eq!(run.joined.len(), joined, "{lens:?}");
            let frames: Vec<_> = run.messages.iter().map(Message::frame).collect();
            assert!(joined == 0 || run.joined == frames.concat());
            assert!(run.joined.capacity() <= JOINED_BYTES_MAX);
        }
    }
}
