//! A peer's end of a connection, and what it does of itself.

use std::sync::Arc;

use base64ct::{Base64, Encoding as _};

use super::executor::TaskId;
use super::network::Line;
use crate::hub::tests::support::{Frame, decode};
use crate::serve::scan::tests::frame;

/// How a peer comes, and so what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It asks for a WebSocket.
    Asks,
    /// It was upgraded elsewhere.
    Upgraded,
    /// It asks for events.
    Events,
}

/// A peer's end.
pub(super) struct Peer {
    pub(super) line: Arc<Line>,
    /// The connection's task.
    pub(super) task: TaskId,
    pub(super) steady: bool,
    /// It reads what it is sent, answers pings and closes in return.
    pub(super) answers: bool,
    pub(super) way: Way,
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
        if self.way == Way::Events {
            return self.answer_events();
        }
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
        let frames = frames_of(&heard, self.way);
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

    /// Reads the events that have come, and leaves at the end of them; `false` if neither.
    fn answer_events(&mut self) -> bool {
        let (taken, shut) = {
            let kernel = self.line.lock();
            (kernel.taken.len(), kernel.shut)
        };
        if !self.answers {
            return false;
        }
        let reads = taken > self.seen && !self.steady;
        self.seen = taken;
        if reads {
            self.line.grant(200);
        }
        let leaves = shut && !self.silent;
        if leaves {
            self.line.end();
            self.silent = true;
        }
        reads || leaves
    }
}

/// The frames of what a peer has heard, or what stands for them: behind a response, if it asked.
/// `None` before that, and for a refusal.
pub(super) fn frames_of(heard: &[u8], way: Way) -> Option<Vec<Frame>> {
    let welcome = match way {
        Way::Asks => "HTTP/1.1 101 ",
        Way::Upgraded => "",
        Way::Events => "HTTP/1.1 200 ",
    };
    let body = if way == Way::Upgraded {
        heard
    } else {
        let end = heard.windows(4).position(|window| window == b"\r\n\r\n")?;
        &heard[end + 4..]
    };
    let of = if way == Way::Events { events } else { |body: &[u8]| decode(body).0 };
    heard.starts_with(welcome.as_bytes()).then(|| of(body))
}

/// The events of a stream as the frames that they stand for; the last one may be cut off.
fn events(stream: &[u8]) -> Vec<Frame> {
    let mut rest = std::str::from_utf8(stream).expect("events are text");
    let mut frames = Vec::new();
    while let Some((event, behind)) = rest.split_once("\n\n") {
        rest = behind;
        if event == ":" {
            continue;
        }
        frames.push(if let Some(encoded) = event.strip_prefix("event: binary\ndata: ") {
            let payload = Base64::decode_vec(encoded).expect("the base64 of one message");
            Frame { opcode: 2, payload }
        } else if let Some(lines) = event.strip_prefix("data: ") {
            Frame { opcode: 1, payload: lines.replace("\ndata: ", "\n").into_bytes() }
        } else if let Some(close) = event.strip_prefix("event: close\ndata: {\"code\":") {
            let code = close.split_once(',').and_then(|(code, _)| code.parse().ok());
            let code: u16 = code.expect("a close code");
            Frame { opcode: 8, payload: code.to_be_bytes().to_vec() }
        } else {
            panic!("nobody sent an event like {event:?}")
        });
    }
    frames
}
