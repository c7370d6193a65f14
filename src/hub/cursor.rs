//! A client's cursor in a room.

use std::sync::Arc;

use crate::hub::ack::{Ack, Owed, OwedList};
use crate::hub::batch::Audience;
use crate::hub::since::Since;
use crate::hub::state;
use crate::memory::budget::MemoryBudget;

/// What becomes of the positions of messages on their way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// It is not told of them: only the room that it is behind in counts them.
    Plain,
    /// It counts what it hears, so it hears all messages of one room and nothing else, and a gap
    /// ends it: a WebSocket that came with `since`.
    Counting,
    /// It is told the position of each message, and of each gap: a stream of events, and a
    /// subscription that came with `since`.
    Numbered,
}

impl Reader {
    /// All of them, in the order of the numbers that stand for them in the state of a hub.
    const ALL: [Self; 3] = [Self::Plain, Self::Counting, Self::Numbered];
}

/// As what a client reads its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What becomes of the positions.
    pub(crate) reader: Reader,
    /// Where it begins, if it said so.
    pub(crate) since: Option<Since>,
    /// Whether it ends once it has what is kept.
    pub(crate) ends: bool,
}

impl Reading {
    /// A client that is not told of positions.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { reader: Reader::Plain, since: None, ends: false };
}

/// Where a client is among the messages of a room: behind it are the messages that the client has
/// been handed, before it those that it reads from what the room keeps.
///
/// A client whose cursor stands at the newest message is live: it is pushed each message as it comes.
/// One that is behind is passed over, and its connection asks for more.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The room, its only one when it came.
    pub(crate) room: Arc<str>,
    pub(crate) reader: Reader,
    /// Whether the client ends when the cursor meets the newest message.
    pub(crate) ends: bool,
    /// Whether the room keeps messages. Then it does what a queue does with
    /// [`Overflow::Replay`](crate::Overflow::Replay): the cursor stays behind what does not go out at once.
    pub(crate) keeps: bool,
    /// Whether the positions of the room come from the backplane, so that only what has one counts.
    pub(crate) is_positioned: bool,
    /// Whether the connection has asked for more, and has not been answered.
    pub(crate) has_requested: bool,
    /// Whether the client has not been told whole of a gap before its position.
    pub(crate) has_gap: bool,
    /// The position of the last message that it was handed, or that is not for it.
    position: u64,
    /// The position of the room's newest message.
    newest: u64,
    /// How many of the messages between the two count the client as a recipient.
    unread: u64,
    /// What is owed for some of them to publishers that wait for it.
    acks: Option<Box<OwedList>>,
}

impl Cursor {
    /// A cursor at a position of a room. What follows counts the client as a recipient from now on.
    pub(crate) fn new(room: Arc<str>, reading: Reading, position: u64, newest: u64) -> Self {
        Self {
            room,
            reader: reading.reader,
            ends: reading.ends,
            keeps: false,
            is_positioned: false,
            has_requested: false,
            has_gap: false,
            position,
            newest,
            unread: newest - position,
            acks: None,
        }
    }

    /// The cursor of a client that came from another process; `None` for one that cannot be.
    pub(crate) fn restored(room: &Arc<str>, cursor: &state::Cursor, newest: u64) -> Option<Self> {
        let state::Cursor { reader, position, unread, .. } = *cursor;
        let reader = *Reader::ALL.get(usize::from(reader))?;
        let is_whole = newest.checked_sub(position).is_some_and(|span| {
            if reader == Reader::Plain { unread <= span } else { unread == span }
        });
        let reading = Reading { reader, since: None, ends: false };
        let cursor = || Self { unread, ..Self::new(Arc::clone(room), reading, position, newest) };
        is_whole.then(cursor)
    }

    /// The cursor as plain data.
    pub(crate) fn plain(&self) -> state::Cursor {
        let reader = Reader::ALL.iter().position(|reader| *reader == self.reader);
        state::Cursor {
            room: self.room.to_string(),
            reader: reader.unwrap_or_default() as u8,
            position: self.position,
            unread: self.unread,
        }
    }

    /// Whether messages for such clients are counted in the room.
    pub(crate) fn counts(&self, audience: Audience<'_>) -> bool {
        audience.counts_in(&self.room) && !(self.is_positioned && audience == Audience::All)
    }

    /// Whether messages wait in the room.
    pub(crate) fn is_behind(&self) -> bool {
        self.position < self.newest
    }

    /// The position of the last message that the client was handed.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the client hears what it publishes itself.
    pub(crate) fn hears_itself(&self) -> bool {
        self.reader != Reader::Plain
    }

    /// New messages of the room, `len` of them for this client, that it has to fetch.
    pub(crate) fn pass_over(&mut self, span: u64, len: usize) {
        self.newest += span;
        self.unread += len as u64;
    }

    /// Owes an acknowledgement for the newest message of the room, which waits there.
    #[cold]
    pub(crate) fn owe(&mut self, ack: &Arc<Ack>, memory: &Arc<MemoryBudget>) {
        let list = self.acks.get_or_insert_with(|| OwedList::new(memory));
        list.push_at(self.newest, ack.owe());
    }

    /// Takes what is owed for messages that the client was handed.
    pub(crate) fn take_acks(&mut self) -> Vec<(u64, Owed)> {
        let Some(list) = &mut self.acks else { return Vec::new() };
        let taken = list.take_until(self.position).collect();
        if list.is_empty() {
            self.acks = None;
        }
        taken
    }

    /// The client was handed what lies within the next `span` positions: `len` messages.
    pub(crate) fn hand_over(&mut self, span: u64, len: usize) {
        self.position += span;
        self.unread = self.unread.saturating_sub(len as u64);
    }

    /// New messages of the room that are not for this client.
    pub(crate) fn leave_out(&mut self, span: u64) {
        let is_live = !self.is_behind();
        self.newest += span;
        if is_live {
            self.position = self.newest;
        }
    }

    /// Leaves out what comes before a position; returns how many messages the client loses.
    pub(crate) fn skip_to(&mut self, position: u64) -> u64 {
        // What lies behind the position is owed still. Only a plain reader has messages there that
        // are not for it, and none of them skips.
        self.has_gap = self.reader == Reader::Numbered;
        let left = self.unread.min(self.newest - position);
        self.position = position;
        drop(self.take_acks());
        std::mem::replace(&mut self.unread, left) - left
    }

    /// The room has begun a new life at a position; returns how many messages the client loses.
    pub(crate) fn begin_anew(&mut self, position: u64) -> u64 {
        self.has_gap = self.reader == Reader::Numbered;
        (self.position, self.newest) = (position, position);
        self.acks = None;
        std::mem::take(&mut self.unread)
    }

    /// Leaves out everything; returns how many messages the client loses.
    pub(crate) fn give_up(&mut self) -> u64 {
        self.position = self.newest;
        self.acks = None;
        std::mem::take(&mut self.unread)
    }
}
