//! The messages that wait for a client that is behind.

use std::collections::VecDeque;
use std::sync::Arc;

use async_channel::{Receiver, Sender, bounded};

use crate::hub::ack::{Owed, OwedList};
use crate::hub::positions::Positions;
use crate::hub::queue_config::QueueConfig;
use crate::hub::unsent::{Progress, Unsent};
use crate::label::LABEL_BYTES_MAX;
use crate::memory::budget::{Charge, allocation};
use crate::message::{Encoding, Message};

/// Messages taken out of the channel at a time, so that one write has several to carry.
const STAGE_MAX: usize = 32;

/// A client's messages, oldest first, bounded in messages and in bytes.
///
/// Messages wait in a bounded channel, filled by `try_send`. The oldest are taken out of it and
/// staged: a channel has no slot for the rest of a message, and cannot be looked into.
///
/// Sizes are 32 bits wide, as no limit is past 2^30
/// ([`Config::LIMIT_MAX`](crate::Config::LIMIT_MAX)).
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The oldest messages, the first of them perhaps half written.
    staged: VecDeque<Message>,
    /// The messages behind them; made for the first message that is not half written.
    channel: Option<Channel>,
    /// Messages in `staged` and `channel`.
    len: u32,
    /// Bytes of their frames, those already written of the first one included.
    bytes: u32,
    /// Bytes of the first message that are written already.
    head_written: u32,
    /// The tick since which a message has waited all the time.
    since: u32,
    /// What the client's frames are written in.
    encoding: Encoding,
    /// The position of each message, for a client that is told them; else empty.
    positions: Positions,
    /// What is owed for these messages to publishers that wait for it.
    owed: Option<Box<OwedList>>,
    /// The room of each message, for a client that is the program; else `None`.
    rooms: Option<Box<MessageRooms>>,
}

/// The room of each message that waits for the program, if it was for one.
#[derive(Debug)]
struct MessageRooms {
    rooms: VecDeque<Option<Arc<str>>>,
    /// The memory of as many as may wait.
    _charge: Charge,
}

/// A message that the program has taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) message: Message,
    /// Its position, if the client is told it.
    pub(crate) position: Option<u64>,
    /// The room that it was for, if it was for one.
    pub(crate) room: Option<Arc<str>>,
}

#[derive(Debug)]
struct Channel {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// The memory of the channel, and of the messages' slots in `staged`.
    _charge: Charge,
}

impl Channel {
    fn new(config: &QueueConfig) -> Self {
        let (sender, receiver) = bounded(config.messages);
        let is_reserved = config.memory.is_limited();
        let size = if is_reserved { 0 } else { backlog_size(config.messages) };
        Self { sender, receiver, _charge: config.memory.charge(size) }
    }
}

/// The memory that the backlog of a client takes, beside its messages.
///
/// A channel is about 700 bytes, and a slot in it a message and a count.
pub(crate) const fn backlog_size(messages: usize) -> usize {
    const CHANNEL: usize = 768;
    const SLOT: usize = size_of::<Message>() + size_of::<usize>();
    let channel = allocation(messages.saturating_mul(SLOT).saturating_add(CHANNEL));
    channel.saturating_add(allocation(messages.saturating_mul(size_of::<Message>())))
}

impl Backlog {
    /// Makes an empty backlog at the tick `since`.
    // Boxed: few clients are behind, and every queue has room for one.
    pub(crate) fn new(encoding: Encoding, since: u32) -> Box<Self> {
        Box::new(Self {
            staged: VecDeque::new(),
            channel: None,
            len: 0,
            bytes: 0,
            head_written: 0,
            since,
            encoding,
            positions: Positions::default(),
            owed: None,
            rooms: None,
        })
    }

    /// Appends a message; `false` if that is past a bound. `position` is the message's, for a client
    /// that is told it.
    pub(crate) fn push(
        &mut self,
        message: &Message,
        position: Option<u64>,
        config: &QueueConfig,
    ) -> bool {
        let bytes = self.length(message);
        if !self.has_room(bytes, config) {
            return false;
        }
        let channel = self.channel.get_or_insert_with(|| Channel::new(config));
        if channel.sender.try_send(message.clone()).is_err() {
            return false;
        }
        self.count(bytes, position);
        true
    }

    /// Appends a message that a room keeps: without a channel, which few of those need that read at
    /// their own pace; `false` if that is past a bound.
    pub(crate) fn push_kept(
        &mut self,
        message: &Message,
        position: Option<u64>,
        config: &QueueConfig,
    ) -> bool {
        if self.channel.is_some() {
            return self.push(message, position, config);
        }
        let bytes = self.length(message);
        let has_room = self.has_room(bytes, config);
        if has_room {
            self.staged.push_back(message.clone());
            self.count(bytes, position);
        }
        has_room
    }

    /// The longest message has room where nothing waits. With a label it may be longer than that.
    fn has_room(&self, bytes: u32, config: &QueueConfig) -> bool {
        let label = if self.len == 0 { LABEL_BYTES_MAX } else { 0 };
        let most = config.bytes + label;
        (self.len as usize) < config.messages && (self.bytes + bytes) as usize <= most
    }

    /// Notes the room of the newest message, for the program.
    pub(crate) fn note_room(&mut self, room: Option<&Arc<str>>, config: &QueueConfig) {
        let new = || {
            let bytes = config.messages.saturating_mul(size_of::<Option<Arc<str>>>());
            let _charge = config.memory.charge(allocation(bytes));
            Box::new(MessageRooms { rooms: VecDeque::new(), _charge })
        };
        self.rooms.get_or_insert_with(new).rooms.push_back(room.cloned());
    }

    /// Takes the room of the oldest message, which is gone from here.
    fn pop_room(&mut self) -> Option<Arc<str>> {
        self.rooms.as_mut()?.rooms.pop_front()?
    }

    fn count(&mut self, bytes: u32, position: Option<u64>) {
        self.len += 1;
        self.bytes += bytes;
        if let Some(position) = position {
            self.positions.push(position);
        }
    }

    /// Takes a message into the empty backlog of which `written` bytes are written.
    pub(crate) fn push_cut(&mut self, message: &Message, written: u32) {
        debug_assert_eq!(self.len, 0);
        self.len = 1;
        self.bytes = self.length(message);
        self.head_written = written;
        self.staged.push_back(message.clone());
    }

    /// Owes an acknowledgement for the message at an index.
    #[cold]
    pub(crate) fn owe(&mut self, index: usize, owed: Owed, config: &QueueConfig) {
        let new = || OwedList::new(&config.memory);
        self.owed.get_or_insert_with(new).push_index(index, owed);
    }

    /// Acknowledges the oldest message, which is gone from here.
    fn acknowledge(&mut self) {
        if let Some(list) = &mut self.owed {
            list.pass().into_iter().for_each(Owed::deliver);
        }
    }

    /// Takes the oldest message, of which nothing may be written.
    pub(crate) fn pop(&mut self) -> Option<Taken> {
        debug_assert_eq!(self.head_written, 0);
        self.stage(STAGE_MAX);
        let message = self.staged.pop_front()?;
        self.forget(&message);
        self.acknowledge();
        let position = self.positions.pop().filter(|position| *position > 0);
        Some(Taken { message, position, room: self.pop_room() })
    }

    /// Drops the oldest message that is not half written; `false` if there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let oldest = usize::from(self.head_written > 0);
        let message = if self.staged.len() > oldest {
            self.staged.remove(oldest)
        } else {
            self.channel.as_ref().and_then(|channel| channel.receiver.try_recv().ok())
        };
        let Some(message) = message else { return false };
        self.forget(&message);
        self.positions.drop_oldest_but(oldest);
        // No message for the program is half written.
        self.pop_room();
        self.owed.iter_mut().for_each(|list| list.lose(oldest));
        true
    }

    /// Drops every message that is not half written; returns how many.
    pub(crate) fn drop_all_but_cut(&mut self) -> usize {
        let kept = usize::from(self.head_written > 0);
        let dropped = self.len as usize - kept;
        let head = if kept > 0 { self.staged.pop_front() } else { None };
        self.staged = head.into_iter().collect();
        self.channel = None;
        self.len = kept as u32;
        self.positions.truncate(kept);
        self.rooms = None;
        self.owed.iter_mut().for_each(|list| list.keep(kept));
        self.bytes = self.staged.iter().map(|message| self.length(message)).sum();
        dropped
    }

    /// What is to be written next, together with `control` frames.
    pub(crate) fn unsent<'a>(&'a mut self, control: &'a [u8]) -> Unsent<'a> {
        self.stage(STAGE_MAX);
        Unsent::new(self.staged.iter(), self.head_written, control, self.encoding)
            .numbered(&self.positions)
    }

    /// Lets go of what is written; returns the bytes of it.
    pub(crate) fn advance(&mut self, progress: Progress) -> usize {
        let mut sent = 0;
        for _ in 0..progress.messages {
            let Some(message) = self.staged.pop_front() else { break };
            self.positions.pop();
            self.acknowledge();
            sent += self.forget(&message) - std::mem::take(&mut self.head_written);
        }
        sent += progress.head_written - self.head_written;
        self.head_written = progress.head_written;
        sent as usize
    }

    /// Every message.
    pub(crate) fn iter(&mut self) -> impl Iterator<Item = &Message> {
        self.stage(usize::MAX);
        self.staged.iter()
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of their frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tick since which a message has waited all the time.
    pub(crate) fn since(&self) -> u32 {
        self.since
    }

    /// Takes messages out of the channel until `most` are staged.
    fn stage(&mut self, most: usize) {
        let Some(channel) = &self.channel else { return };
        let wanted = most.min(self.len as usize);
        while self.staged.len() < wanted {
            let Ok(message) = channel.receiver.try_recv() else { break };
            self.staged.push_back(message);
        }
    }

    /// Takes a message that was taken out off the count; returns the bytes of its frame.
    fn forget(&mut self, message: &Message) -> u32 {
        let bytes = self.length(message);
        self.len -= 1;
        self.bytes -= bytes;
        bytes
    }

    /// The length of a message's frame.
    fn length(&self, message: &Message) -> u32 {
        message.frame(self.encoding).len() as u32
    }
}
