//! Messages on their way to the members of a target.

use std::sync::Arc;

use slab::Slab;

use crate::hub::ack::Ack;
use crate::hub::batch::{Audience, Batch, JoinedFrames};
use crate::hub::client_id::{ClientId, Target};
use crate::hub::entry::Entry;
use crate::hub::prefixes::{PrefixWalk, Prefixes};
use crate::hub::queue_outcome::Push;
use crate::message::Message;
use crate::stats::DeliveryCount;

/// Empty slots that are passed over in less than the time of one push.
pub(crate) const EMPTY_SLOTS_PER_MEMBER: usize = 64;

/// Clients of a prefix that are looked at in less than the time of one push: the names of at most 8 rooms
/// are compared for each.
pub(crate) const LOOKS_PER_MEMBER: usize = 16;

/// Messages on their way to a target, resumable between two members.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    /// Where the messages go.
    pub(crate) target: &'a Target,
    /// The messages, in order.
    pub(crate) messages: &'a [Message],
    /// The frames of all messages, if they lie side by side.
    pub(crate) joined: &'a JoinedFrames,
    /// For each message the client that must not get it, and how many took it.
    pub(crate) dispatches: &'a mut [Dispatch],
    /// Whether any message has a client that must not get it.
    excepting: bool,
    /// Whether the messages have been counted in their rooms.
    pub(crate) begun: bool,
    /// The position of the one message, if the backplane has given it one.
    pub(crate) position: Option<u64>,
    /// The position before the first message, if they are for a room that exists.
    pub(crate) before: Option<u64>,
    /// Where the one message is acknowledged, if a publisher waits for that.
    pub(crate) ack: Option<Arc<Ack>>,
    /// Whether a client did not take the messages because it hears its room and nothing else.
    pub(crate) is_refused: bool,
    /// How far the clients are served that hear the room by a prefix. They come behind its members.
    pub(crate) walk: PrefixWalk,
    /// How many members have been served; for `All`, how many slots.
    pub(crate) index: usize,
    /// Clients that overflowed or had gone; removed when the last member is served.
    pub(crate) evicted: Vec<u32>,
}

/// A message's way to its target.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// The client that must not get it.
    pub(crate) except: Option<ClientId>,
    /// How many members took it.
    pub(crate) recipients: usize,
}

impl Dispatch {
    /// No member took the message yet, and `except` must not get it.
    pub(crate) fn new(except: Option<ClientId>) -> Self {
        Self { except, recipients: 0 }
    }
}

impl<'a> Delivery<'a> {
    /// At most [`BATCH_MAX`](crate::hub::batch::BATCH_MAX) messages, each with its dispatch;
    /// `joined` are all their frames, or nothing.
    pub(crate) fn new(
        target: &'a Target,
        messages: &'a [Message],
        joined: &'a JoinedFrames,
        dispatches: &'a mut [Dispatch],
    ) -> Self {
        debug_assert_eq!(messages.len(), dispatches.len());
        let excepting = dispatches.iter().any(|dispatch| dispatch.except.is_some());
        Self {
            target,
            messages,
            joined,
            dispatches,
            excepting,
            begun: false,
            position: None,
            before: None,
            ack: None,
            is_refused: false,
            walk: PrefixWalk::default(),
            index: 0,
            evicted: Vec::new(),
        }
    }

    /// Notes that a client did not take all of it.
    #[cold]
    fn missed_by(&mut self, slot: u32, outcome: Push) {
        match outcome {
            Push::Ok => {}
            Push::Full | Push::Gone => self.evicted.push(slot),
            Push::Refused => self.is_refused = true,
        }
    }
}

/// Pushes a batch to the members of a delivery that follow; returns how many took all of it. Without
/// slots all clients are members.
///
/// Apart from what is done once for each batch, so that what is done for each member stays in
/// registers.
#[inline(never)]
#[cfg_attr(hublet_small, optimize(speed))]
pub(crate) fn push_to(
    entries: &Slab<Entry>,
    (slots, len): (Option<&[u32]>, usize),
    delivery: &mut Delivery<'_>,
    (audience, batch): (Audience<'_>, &Batch<'_>),
    tally: &DeliveryCount<'_>,
    budget: usize,
) -> usize {
    if let (Some(slots), false) = (slots, delivery.excepting) {
        let end = len.min(delivery.index.saturating_add(budget));
        let slots = &slots[std::mem::replace(&mut delivery.index, end)..end];
        return push_whole(entries, slots, delivery, batch);
    }
    let mut budget = budget.saturating_mul(EMPTY_SLOTS_PER_MEMBER);
    let mut index = delivery.index;
    // How many took all of it.
    let mut whole = 0;
    while index < len && budget > 0 {
        let slot = slots.map_or(index as u32, |slots| slots[index]);
        index += 1;
        let Some(entry) = entries.get(slot as usize) else {
            budget -= 1;
            continue;
        };
        budget = budget.saturating_sub(EMPTY_SLOTS_PER_MEMBER);
        let id = ClientId { slot, generation: entry.generation };
        let is_excepted =
            delivery.excepting && delivery.dispatches.iter().any(|d| d.except == Some(id));
        let outcome = if is_excepted && !entry.queue.hears_itself() {
            push_rest(entry, id, delivery, audience, tally)
        } else {
            let outcome = entry.queue.push(batch);
            whole += usize::from(matches!(outcome, Push::Ok | Push::Full));
            outcome
        };
        if outcome != Push::Ok {
            delivery.missed_by(slot, outcome);
        }
    }
    delivery.index = index;
    whole
}

/// Pushes a batch to the clients that follow of those that hear a room by a prefix; returns how many took
/// all of it.
#[cold]
pub(crate) fn push_by_prefix(
    (entries, prefixes): (&Slab<Entry>, &Prefixes),
    room: &str,
    delivery: &mut Delivery<'_>,
    to: (Audience<'_>, &Batch<'_>),
    tally: &DeliveryCount<'_>,
    budget: usize,
) -> usize {
    let looks = budget.saturating_mul(LOOKS_PER_MEMBER);
    let hears_first_by =
        |slot: u32, prefix: &str| entries[slot as usize].hears_first_by(prefix, room);
    let slots = prefixes.walk(room, &mut delivery.walk, (budget, looks), hears_first_by);
    let served = std::mem::replace(&mut delivery.index, 0);
    let whole = push_to(entries, (Some(&slots), slots.len()), delivery, to, tally, budget);
    delivery.index = served;
    whole
}

/// Pushes a batch, of which nothing is kept from any client, to the members in these slots; returns how
/// many took all of it. The most frequent way of a message.
fn push_whole(
    entries: &Slab<Entry>,
    slots: &[u32],
    delivery: &mut Delivery<'_>,
    batch: &Batch<'_>,
) -> usize {
    let mut whole = 0;
    for &slot in slots {
        let Some(entry) = entries.get(slot as usize) else { continue };
        let outcome = entry.queue.push(batch);
        whole += usize::from(matches!(outcome, Push::Ok | Push::Full));
        if outcome != Push::Ok {
            delivery.missed_by(slot, outcome);
        }
    }
    whole
}

/// Pushes the messages of a delivery that are not kept from this client.
#[inline(never)]
fn push_rest(
    entry: &Entry,
    id: ClientId,
    delivery: &mut Delivery<'_>,
    audience: Audience<'_>,
    tally: &DeliveryCount<'_>,
) -> Push {
    let goes = |index: &usize| delivery.dispatches[*index].except != Some(id);
    let len = delivery.messages.len();
    let rest: Vec<usize> = (0..len).filter(goes).collect();
    if rest.is_empty() {
        entry.queue.leave_out(audience, len as u64);
        return Push::Ok;
    }
    let some = |all: &[Message]| rest.iter().map(|&index| all[index].clone()).collect::<Vec<_>>();
    let messages = some(delivery.messages);
    let mut apart = delivery.joined.apart();
    let room = delivery.target.room();
    if let Some(memory) = entry.queue.label_memory() {
        apart.set_labelled(some(delivery.joined.labelled(delivery.messages, room, memory)));
    }
    let mut batch = Batch::new(&messages, &apart, audience, tally);
    batch.room = room;
    let outcome = entry.queue.push(&batch.part_of(&rest, len));
    if matches!(outcome, Push::Ok | Push::Full) {
        rest.iter().for_each(|&index| delivery.dispatches[index].recipients += 1);
    }
    outcome
}
