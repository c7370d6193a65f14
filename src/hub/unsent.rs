//! What a queue hands its connection to write, and how far the connection got with it.

use std::collections::vec_deque::Iter;
use std::io::{self, IoSlice};
use std::task::{Poll, ready};

use crate::hub::positions::Positions;
use crate::message::{Encoding, Message};

/// Frames that leave in one write at most. 64 is a whole queue at the defaults; the kernel takes
/// 1,024.
const WRITE_FRAMES_MAX: usize = 64;

/// The messages and control frames that a queue has not sent yet, oldest first.
///
/// They leave in this order: the rest of a message that has begun, the control frames, the other
/// messages.
#[derive(Debug, Clone)]
pub(crate) struct Unsent<'a> {
    messages: Iter<'a, Message>,
    /// How far the first message is written; 0 before it has begun.
    head_written: u32,
    /// Whole control frames, the first of them perhaps cut.
    control: &'a [u8],
    /// What the frames are written in.
    encoding: Encoding,
    /// The positions of the messages, for a client that is told them.
    positions: Option<&'a Positions>,
}

/// How far a connection got with what was [`Unsent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Messages that are written whole.
    pub(crate) messages: usize,
    /// How far the message behind them is written, in bytes of its frame; 0 if it has not begun.
    pub(crate) head_written: u32,
    /// Bytes of control frames that are written.
    pub(crate) control: usize,
}

impl<'a> Unsent<'a> {
    pub(crate) fn new(
        messages: Iter<'a, Message>,
        head_written: u32,
        control: &'a [u8],
        encoding: Encoding,
    ) -> Self {
        Self { messages, head_written, control, encoding, positions: None }
    }

    /// Adds the positions of the messages.
    pub(crate) fn numbered(self, positions: &'a Positions) -> Self {
        Self { positions: Some(positions), ..self }
    }

    /// The position of each message, if the client is told them; 0 for a message that has none.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> {
        self.positions.into_iter().flat_map(Positions::iter)
    }

    /// Control frames alone.
    pub(crate) fn control(control: &'a [u8]) -> Self {
        Self::new(Iter::default(), 0, control, Encoding::Plain)
    }

    /// The messages, the first of them perhaps begun.
    pub(crate) fn messages(&self) -> Iter<'a, Message> {
        self.messages.clone()
    }

    /// Whether a part of the first message is written.
    pub(crate) fn has_begun(&self) -> bool {
        self.head_written > 0
    }

    /// Writes everything as WebSocket frames, in one vectored write.
    pub(crate) fn write_frames(
        &self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<Progress>> {
        let mut frames = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
        let mut len = 0;
        let mut put = |bytes| {
            if len < WRITE_FRAMES_MAX {
                frames[len] = IoSlice::new(bytes);
                len += 1;
            }
        };
        let mut messages = self.messages();
        if self.has_begun() {
            if let Some(message) = messages.next() {
                put(&message.frame(self.encoding)[self.head_written as usize..]);
            }
        }
        if !self.control.is_empty() {
            put(self.control);
        }
        messages.for_each(|message| put(message.frame(self.encoding)));
        let frames = &frames[..len];
        match ready!(write(frames))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => {
                // A stream that claims more than it was given is not believed.
                let given = frames.iter().map(|frame| frame.len()).sum();
                Poll::Ready(Ok(self.progress(n.min(given))))
            }
        }
    }

    /// Where `bytes` end that were written in the order of [`write_frames`](Self::write_frames).
    fn progress(&self, mut bytes: usize) -> Progress {
        let mut progress = Progress::default();
        let mut messages = self.messages();
        if self.has_begun() {
            let len = messages.next().map_or(0, |message| message.frame(self.encoding).len());
            let rest = len - self.head_written as usize;
            if bytes < rest {
                progress.head_written = self.head_written + bytes as u32;
                return progress;
            }
            bytes -= rest;
            progress.messages = 1;
        }
        progress.control = bytes.min(self.control.len());
        bytes -= progress.control;
        let (whole, cut) = split_at(messages, self.encoding, bytes);
        progress.messages += whole;
        progress.head_written = cut;
        progress
    }
}

/// How many of the messages' frames lie whole within the first `bytes`, and how many bytes of the
/// next frame.
pub(crate) fn split_at<'a>(
    messages: impl Iterator<Item = &'a Message>,
    encoding: Encoding,
    mut bytes: usize,
) -> (usize, u32) {
    let mut whole = 0;
    for message in messages {
        let len = message.frame(encoding).len();
        if bytes < len {
            break;
        }
        bytes -= len;
        whole += 1;
    }
    (whole, bytes as u32)
}
