//! Messages that are pushed together, and their frames.

use std::io::IoSlice;

use crate::hub::unsent::split_at;
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
}

impl JoinedFrames {
    /// Lays the frames side by side, if there are several and they are short.
    pub(crate) fn join(&mut self, messages: &[Message]) {
        self.plain.clear();
        if messages.len() > 1 && frame_bytes(messages) <= JOINED_BYTES_MAX {
            self.plain.reserve_exact(JOINED_BYTES_MAX);
            let frames = messages.iter().map(|message| message.frame(Encoding::Plain));
            frames.for_each(|frame| self.plain.extend_from_slice(frame));
        }
    }
}

/// Messages for several clients, in order, and their frames.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    messages: &'a [Message],
    plain: Frames<'a>,
    /// Where messages are counted that are written at once.
    tally: &'a DeliveryCount<'a>,
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

    pub(crate) fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }
}

impl<'a> Batch<'a> {
    /// At most [`BATCH_MAX`] messages; `joined` are their frames, or empty.
    pub(crate) fn new(
        messages: &'a [Message],
        joined: &'a JoinedFrames,
        tally: &'a DeliveryCount<'a>,
    ) -> Self {
        debug_assert!(messages.len() <= BATCH_MAX);
        debug_assert!(joined.plain.is_empty() || joined.plain.len() == frame_bytes(messages));
        Self { messages, plain: Frames::new(messages, &joined.plain, Encoding::Plain), tally }
    }

    /// The messages.
    pub(crate) fn messages(&self) -> &'a [Message] {
        self.messages
    }

    /// Their frames, as a client of that encoding gets them.
    pub(crate) fn frames(&self, encoding: Encoding) -> &Frames<'a> {
        match encoding {
            Encoding::Plain => &self.plain,
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
            frames.join(&messages);
            assert_eq!(frames.plain.len(), joined, "{lens:?}");
            let each: Vec<_> = messages.iter().map(|m| m.frame(Encoding::Plain)).collect();
            assert!(joined == 0 || frames.plain == each.concat());
            assert!(frames.plain.capacity() <= JOINED_BYTES_MAX);
        }
    }
}
