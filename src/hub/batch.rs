//! Messages that are pushed together, and their frames.

use std::cell::OnceCell;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

use crate::hub::ack::Ack;
use crate::hub::client_id::Target;
use crate::hub::unsent::split_at;
use crate::memory::budget::MemoryBudget;
use crate::message::{Encoding, Message};
use crate::stats::DeliveryCount;

/// Messages that are pushed together at most. Half a queue at the defaults.
pub(crate) const BATCH_MAX: usize = 32;

/// Bytes of frames that are laid side by side at most; a hub keeps as many for that.
///
/// The kernel takes what is in one piece in half the time of what is in 32. One copy serves all
/// members, and where there is one alone it costs what it saves.
pub(crate) const JOINED_BYTES_MAX: usize = 16 * 1024;

/// The frames of several short messages side by side; kept from batch to batch for its memory.
#[derive(Debug, Default)]
pub(crate) struct JoinedFrames {
    plain: Vec<u8>,
    /// The same for clients that get compressed frames, where there are any.
    deflated: Vec<u8>,
    /// Whether such a client gets another frame than the plain one for any of the messages.
    is_deflated: bool,
    /// The messages with their labels, made for the first client that gets them so.
    labelled: OnceLock<Vec<Message>>,
}

impl JoinedFrames {
    /// Lays the frames side by side, if there are several and they are short. `is_deflating` is
    /// whether any client gets compressed frames.
    pub(crate) fn join(&mut self, messages: &[Message], is_deflating: bool) {
        self.plain.clear();
        self.labelled.take();
        self.is_deflated = is_deflating && fix_deflated(messages);
        if messages.len() > 1 && frame_bytes(messages) <= JOINED_BYTES_MAX {
            lay(&mut self.plain, messages, Encoding::Plain);
        }
        self.deflated.clear();
        if self.is_deflated && !self.plain.is_empty() {
            // No longer than the plain ones.
            lay(&mut self.deflated, messages, Encoding::Deflate);
        }
    }

    /// No frame side by side, of messages for one client that gets frames of this encoding. A plain
    /// one fixes nothing for others.
    pub(crate) fn none(messages: &[Message], encoding: Encoding) -> Self {
        let is_deflated = encoding == Encoding::Deflate && fix_deflated(messages);
        Self { is_deflated, ..Self::default() }
    }

    /// No frame side by side, for some of these messages.
    pub(crate) fn apart(&self) -> Self {
        Self { is_deflated: self.is_deflated, ..Self::default() }
    }

    /// The messages, which these are the frames of, with the label of a room; made once for all
    /// clients. One whose plain frame has a compressed one has one too.
    pub(crate) fn labelled(
        &self,
        messages: &[Message],
        room: Option<&Arc<str>>,
        memory: &Arc<MemoryBudget>,
    ) -> &[Message] {
        let label = |message: &Message| {
            let labelled = message.with_label_in(room.map_or("", |room| room), memory);
            if self.is_deflated && message.fix_deflated() {
                labelled.deflate(memory);
            }
            labelled
        };
        self.labelled.get_or_init(|| messages.iter().map(label).collect())
    }

    /// Takes messages that have their labels already.
    pub(crate) fn set_labelled(&mut self, labelled: Vec<Message>) {
        self.labelled = labelled.into();
    }

    /// Lets go of the messages with labels.
    pub(crate) fn forget_labelled(&mut self) {
        self.labelled.take();
    }
}

/// Messages for several clients, in order, and their frames.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    messages: &'a [Message],
    /// Where the frames come from.
    joined: &'a JoinedFrames,
    plain: Frames<'a>,
    /// Those of clients that get compressed ones, if any of them differs.
    // Boxed, so that a batch without them has no room for them.
    deflated: Option<Box<Frames<'a>>>,
    /// Whose members get them.
    audience: Audience<'a>,
    /// Which of the messages of a longer run these are, by index, if some are left out, and how long
    /// that run is.
    part: Option<(&'a [usize], usize)>,
    /// Where messages are counted that are written at once.
    tally: &'a DeliveryCount<'a>,
    /// Where its one message is acknowledged, if a publisher waits for that.
    pub(crate) ack: Option<&'a Arc<Ack>>,
    /// The room that the messages are for, if they are for one.
    pub(crate) room: Option<&'a Arc<str>>,
    /// The same messages with their labels, once a client of this slice has got them.
    labelled: OnceCell<Box<Self>>,
}

/// Whose members a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience<'a> {
    /// Every client, so every room.
    All,
    /// The members of a room.
    Room(&'a Arc<str>),
    /// The clients of a user.
    User,
    /// One client.
    Client,
}

impl<'a> Audience<'a> {
    pub(crate) fn of(target: &'a Target) -> Self {
        match target {
            Target::All => Self::All,
            Target::Room(room) => Self::Room(room),
            Target::User(_) => Self::User,
            Target::Client(_) => Self::Client,
        }
    }

    /// Whether these are messages of a room, or of all.
    pub(crate) fn counts_in(self, room: &Arc<str>) -> bool {
        match self {
            Self::All => true,
            Self::Room(name) => name == room,
            Self::User | Self::Client => false,
        }
    }
}

/// Frames that are ready for a vectored write: a slice for each, or one for all.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    slices: [IoSlice<'a>; BATCH_MAX],
    len: usize,
    /// Bytes of all slices.
    pub(crate) bytes: usize,
}

impl<'a> Frames<'a> {
    #[cfg_attr(hublet_small, optimize(speed))]
    fn new(messages: &'a [Message], joined: &'a [u8], encoding: Encoding) -> Self {
        let mut slices = [IoSlice::new(&[]); BATCH_MAX];
        if !joined.is_empty() {
            slices[0] = IoSlice::new(joined);
            return Self { slices, len: 1, bytes: joined.len() };
        }
        let mut bytes = 0;
        for (slice, message) in slices.iter_mut().zip(messages) {
            *slice = IoSlice::new(message.frame(encoding));
            bytes += slice.len();
        }
        Self { slices, len: messages.len().min(BATCH_MAX), bytes }
    }

    #[inline]
    pub(crate) fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }
}

impl<'a> Batch<'a> {
    /// At most [`BATCH_MAX`] messages; `joined` are their frames, or empty.
    pub(crate) fn new(
        messages: &'a [Message],
        joined: &'a JoinedFrames,
        audience: Audience<'a>,
        tally: &'a DeliveryCount<'a>,
    ) -> Self {
        debug_assert!(messages.len() <= BATCH_MAX);
        debug_assert!(joined.plain.is_empty() || joined.plain.len() == frame_bytes(messages));
        let plain = Frames::new(messages, &joined.plain, Encoding::Plain);
        let frames = || Box::new(Frames::new(messages, &joined.deflated, Encoding::Deflate));
        let deflated = joined.is_deflated.then(frames);
        let (part, ack, room, labelled) = (None, None, None, OnceCell::new());
        Self { messages, joined, plain, deflated, audience, part, tally, ack, room, labelled }
    }

    /// The same messages as a client gets them that hears several rooms: with labels.
    #[cold]
    pub(crate) fn labelled(&self, memory: &Arc<MemoryBudget>) -> &Self {
        self.labelled.get_or_init(|| {
            let messages = self.joined.labelled(self.messages, self.room, memory);
            let is_deflated = self.joined.is_deflated && fix_deflated(messages);
            let frames = || Box::new(Frames::new(messages, &[], Encoding::Deflate));
            Box::new(Self {
                messages,
                joined: self.joined,
                plain: Frames::new(messages, &[], Encoding::Plain),
                deflated: is_deflated.then(frames),
                audience: self.audience,
                part: None,
                tally: self.tally,
                ack: self.ack,
                room: self.room,
                labelled: OnceCell::new(),
            })
        })
    }

    /// Says that these are the messages at `indexes` of a run of `len`; the others are not for this
    /// client.
    pub(crate) fn part_of(self, indexes: &'a [usize], len: usize) -> Self {
        debug_assert_eq!(indexes.len(), self.messages.len());
        Self { part: Some((indexes, len)), ..self }
    }

    /// Whose members the messages are for.
    pub(crate) fn audience(&self) -> Audience<'a> {
        self.audience
    }

    /// Whether this is the answer to a question that a client asked in an empty binary message: it is
    /// one itself. A client that counts its messages knows that it has asked.
    pub(crate) fn is_answer(&self) -> bool {
        let is_empty = |message: &Message| message.is_empty() && !message.is_text();
        self.audience == Audience::Client && self.messages.iter().all(is_empty)
    }

    /// How many positions the first `messages` take, and what is left out behind them if they are
    /// all.
    pub(crate) fn span(&self, messages: usize) -> u64 {
        match self.part {
            None => messages as u64,
            Some((indexes, len)) if messages == indexes.len() => len as u64,
            Some((indexes, _)) => {
                messages.checked_sub(1).map_or(0, |last| indexes[last] as u64 + 1)
            }
        }
    }

    /// The index of the message that lies so many positions behind the one before the first.
    pub(crate) fn index_of(&self, offset: u64) -> Option<usize> {
        let offset = (offset as usize).checked_sub(1)?;
        match self.part {
            None => Some(offset),
            Some((indexes, _)) => indexes.iter().position(|index| *index == offset),
        }
    }

    /// The messages.
    pub(crate) fn messages(&self) -> &'a [Message] {
        self.messages
    }

    /// Their frames, as a client of that encoding gets them.
    #[cfg_attr(hublet_small, optimize(speed))]
    pub(crate) fn frames(&self, encoding: Encoding) -> &Frames<'a> {
        match encoding {
            Encoding::Plain => &self.plain,
            Encoding::Deflate => self.deflated.as_deref().unwrap_or_else(|| {
                debug_assert!(
                    !fix_deflated(self.messages),
                    "the manager fixes what such a client gets before"
                );
                &self.plain
            }),
        }
    }

    /// Counts all messages as written.
    pub(crate) fn count_whole(&self, bytes: usize) {
        self.tally.wrote(self.messages.len(), bytes);
    }

    /// Counts `bytes` of the frames as written; returns how many messages are whole, and how many
    /// bytes of the next one are written.
    pub(crate) fn count_part(&self, encoding: Encoding, bytes: usize) -> (usize, u32) {
        let (whole, cut) = split_at(self.messages.iter(), encoding, bytes);
        self.tally.wrote(whole, bytes);
        (whole, cut)
    }
}

/// Fixes what clients that get compressed frames get of messages; returns whether any of it
/// differs from the plain frames.
///
/// Once for all of them: a frame must not become another one while a client has a part of it.
fn fix_deflated(messages: &[Message]) -> bool {
    // Each of them, not only up to the first.
    messages.iter().filter(|message| message.fix_deflated()).count() > 0
}

/// Lays frames side by side.
#[cfg_attr(hublet_small, optimize(speed))]
fn lay(side_by_side: &mut Vec<u8>, messages: &[Message], encoding: Encoding) {
    side_by_side.reserve_exact(JOINED_BYTES_MAX);
    for message in messages {
        side_by_side.extend_from_slice(message.frame(encoding));
    }
}

/// Bytes of the plain frames of messages.
fn frame_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.frame(Encoding::Plain).len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_short_frames_are_laid_side_by_side_and_no_more_is_kept_for_that() {
        let mut frames = JoinedFrames::default();
        // Each with a header of 4 bytes.
        for (lens, joined) in [
            (&[600][..], 0),
            (&[600, 700], 1308),
            (&[600, JOINED_BYTES_MAX - 608], JOINED_BYTES_MAX),
            (&[600, JOINED_BYTES_MAX - 607], 0),
        ] {
            let messages: Vec<_> = lens.iter().map(|&len| Message::binary(vec![7; len])).collect();
            frames.join(&messages, false);
            assert_eq!(frames.plain.len(), joined, "{lens:?}");
            let each: Vec<_> = messages.iter().map(|m| m.frame(Encoding::Plain)).collect();
            assert!(joined == 0 || frames.plain == each.concat());
            assert!(frames.plain.capacity() <= JOINED_BYTES_MAX);
        }
    }
}
