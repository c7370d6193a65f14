//! A peer's end of a connection, and what it does of itself.

use std::sync::Arc;

use super::executor::TaskId;
use super::network::Line;
use crate::hub::tests::support::decode;

/// A peer's end.
pub(super) struct Peer {
    pub(super) line: Arc<Line>,
    /// The connection's task.
    pub(super) task: TaskId,
    pub(super) steady: bool,
    /// It reads what it is sent, answers pings and closes in return.
    pub(super) answers: bool,
    /// It came with a request, so what it hears begins with a response.
    pub(super) asks: bool,
    /// What it has begun to send and not finished.
    pub(super) half: Vec<u8>,
    /// How much of what was taken for it, in bytes, it has looked at.
    pub(super) seen: usize,
    /// It has sent its last byte.
    pub(super) silent: bool,
    /// Time has passed while it had a message unfinished, which may have ended it.
    pub(super) dawdled: bool,
}

impl Peer {
    /// Reads what has come, and answers it; `false` if there is nothing to answer.
    pub(super) fn answer(&mut self) -> bool {
        let (heard, closed) = {
            let kernel = self.line.lock();
            if !self.answers || kernel.taken.len() == self.seen {
                return false;
            }
            (kernel.taken.clone(), kernel.closed)
        };
        self.seen = heard.len();
        if !self.steady {
            self.line.grant(200);
        }
        let frames = frames_of(&heard, self.asks).map(|frames| decode(frames).0);
        let Some(last) = frames.as_ref().and_then(|frames| frames.last()) else {
            return !self.steady;
        };
        match last.opcode {
            _ if closed || self.silent => !self.steady,
            8 => {
                self.line.end();
                self.silent = true;
                true
            }
            // A frame in the middle would be torn by what is sent now.
            9 if self.half.is_empty() || self.steady => {
                self.line.send(&std::mem::take(&mut self.half));
                self.line.send(&frame(0x8a, &last.payload));
                true
            }
            _ => !self.steady,
        }
    }
}

/// A masked frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if payload.len() < 126 {
        frame.push(0x80 | payload.len() as u8);
    } else {
        frame.push(0x80 | 126);
        frame.extend((payload.len() as u16).to_be_bytes());
    }
    let key = [1, 2, 3, 4];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The frames of what a peer has heard: behind the 101, if it asked for it. `None` before that,
/// and for a refusal.
pub(super) fn frames_of(heard: &[u8], asks: bool) -> Option<&[u8]> {
    if !asks {
        return Some(heard);
    }
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n")?;
    heard.starts_with(b"HTTP/1.1 101 ").then(|| &heard[end + 4..])
}
