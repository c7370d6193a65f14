//! A peer's end of a connection, and what it does of itself.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use fastrand::Rng;

use crate::hub::tests::support::{Frame, decode};
use crate::sim::conflated::Conflated;
use crate::sim::executor::TaskId;
use crate::sim::network::Line;
use crate::sim::reader::Reads;
use crate::sim::response::behind_head;
use crate::websocket::decoder::tests::frame;

/// How a peer comes, and so what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It asks for a WebSocket.
    Upgrades,
    /// It was upgraded elsewhere.
    Upgraded,
    /// It asks for events.
    Events,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upgrades => "asks for a WebSocket",
            Self::Upgraded => "comes with a WebSocket",
            Self::Events => "asks for events",
        })
    }
}

/// What a peer still says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Voice {
    /// What it likes.
    Free,
    /// It has sent a close frame, behind which it answers pings.
    Closing,
    /// Nothing.
    Silent,
    /// Nothing, and the server has been told.
    Ended,
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
    /// As what it reads its room, if it is told positions.
    pub(super) reads: Option<Reads>,
    /// It may compress, and be sent compressed frames.
    pub(super) deflates: bool,
    /// Each message says its room.
    pub(super) has_labels: bool,
    /// It hears the newest message of its room, at most one an interval.
    pub(super) conflated: Option<Conflated>,
    /// What it has begun to send and not finished.
    pub(super) half: Vec<u8>,
    /// How much of what it has read, in bytes, it has looked at.
    pub(super) seen: usize,
    /// How much of that, in bytes, is frames that it has understood, and the response before them.
    pub(super) understood: usize,
    pub(super) voice: Voice,
    /// It has reset its connection.
    pub(super) has_reset: bool,
    /// Time has passed while it had a message unfinished, which may have ended it.
    pub(super) dawdled: bool,
}

impl Peer {
    /// Says nothing of itself any more.
    pub(super) fn is_silent(&self) -> bool {
        self.voice > Voice::Free
    }

    /// Whether a close frame from it would be one.
    pub(super) fn can_close(&self) -> bool {
        self.voice == Voice::Free && self.way != Way::Events
    }

    /// Shuts its side down.
    pub(super) fn end(&mut self) {
        self.line.end();
        self.voice = Voice::Ended;
    }

    /// Resets its connection.
    pub(super) fn reset(&mut self) {
        self.line.reset();
        self.voice = Voice::Ended;
        self.has_reset = true;
    }

    /// Reads what has come, or the beginning of it, and answers it; `false` if there is nothing new.
    pub(super) fn answer(&mut self, rng: &mut Rng) -> bool {
        if !self.answers {
            return false;
        }
        // What it says meanwhile may cost it the rest.
        let unread = self.line.lock().unread();
        self.line.read(if rng.bool() { unread } else { rng.usize(unread.min(1)..=unread) });
        let (heard, over, reads) = {
            let kernel = self.line.lock();
            let (read, over) = (kernel.read, kernel.is_over());
            let leaves = over && self.voice < Voice::Ended;
            if read == self.seen && !leaves {
                let is_stuck = kernel.is_stuck();
                drop(kernel);
                if is_stuck {
                    self.line.grant(200);
                }
                return is_stuck;
            }
            let reads = read > self.seen;
            self.seen = read;
            let new = if self.way == Way::Events { self.seen } else { self.understood };
            (kernel.taken[new..read].to_vec(), over, reads)
        };
        if reads && !self.steady {
            self.line.grant(200);
        }
        self.answer_frames(&heard);
        if over && self.voice < Voice::Ended {
            self.end();
        }
        true
    }

    /// Answers the frames in what it has not understood yet.
    fn answer_frames(&mut self, heard: &[u8]) {
        let is_welcome = self.way == Way::Upgrades && self.understood == 0;
        let Some(frames) = (if is_welcome { behind_welcome(heard, self.way) } else { Some(heard) })
        else {
            return;
        };
        let (frames, rest) = decode(frames);
        self.understood += heard.len() - rest;
        for Frame { opcode, payload, .. } in &frames {
            match opcode {
                8 if self.voice < Voice::Ended => self.end(),
                // A frame in the middle would be torn by what is sent now.
                9 if self.voice < Voice::Silent && (self.half.is_empty() || self.steady) => {
                    self.line.send(&std::mem::take(&mut self.half));
                    self.line.send(&frame(0x8a, payload));
                }
                _ => {}
            }
        }
    }
}

/// The opcode that stands for the event of a gap, with the position in it and how many were missed, or
/// [`u64::MAX`] if that is unknown.
pub(super) const GAP: u8 = 15;

/// The opcode that stands for a block that says where the peer stands, with the position in it.
pub(super) const STAND: u8 = 14;

/// A frame, or an event that stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) frame: Frame,
    /// The position of an event, if it has one.
    pub(super) id: Option<u64>,
}

/// The frames of what a peer has heard, or what stands for them: behind a response, if it asked.
/// `None` before that, and for a refusal. `ends` is whether the peer asked for the end behind what is
/// kept, which no event follows.
pub(super) fn frames_of(heard: &[u8], way: Way, ends: bool) -> Option<Vec<Said>> {
    let body = behind_welcome(heard, way)?;
    Some(if way == Way::Events {
        events(body, ends)
    } else {
        decode(body).0.into_iter().map(|frame| Said { frame, id: None }).collect()
    })
}

/// What a peer has heard behind the response, if it asked; `None` before that, and for a refusal.
pub(super) fn behind_welcome(heard: &[u8], way: Way) -> Option<&[u8]> {
    let welcome = match way {
        Way::Upgrades => "HTTP/1.1 101 ",
        Way::Upgraded => return Some(heard),
        Way::Events => "HTTP/1.1 200 ",
    };
    let body = behind_head(heard)?;
    heard.starts_with(welcome.as_bytes()).then_some(body)
}

/// The events of a stream as the frames that they stand for; the last one may be cut off.
fn events(stream: &[u8], may_end: bool) -> Vec<Said> {
    let (body, ends) = whole_chunks(stream);
    let mut rest = std::str::from_utf8(&body).expect("events are text");
    let mut frames: Vec<Said> = Vec::new();
    while let Some((event, behind)) = rest.split_once("\n\n") {
        rest = behind;
        // Heartbeats stand ahead of an event, and end none.
        let event = event.trim_start_matches(":\n");
        let number = |id: &str| id.parse::<u64>().expect("a position");
        let (id, event) = match event.strip_prefix("id: ").and_then(|e| e.split_once('\n')) {
            Some((id, event)) => (Some(number(id)), event),
            None => (None, event),
        };
        let (opcode, payload) = if let Some(encoded) = event.strip_prefix("event: binary\ndata: ") {
            let (label, encoded) = match encoded.split_once("\ndata: ") {
                Some((label, encoded)) => (format!("{label}\n"), encoded),
                None => (String::new(), encoded),
            };
            let payload = Base64::decode_vec(encoded).expect("the base64 of one message");
            (2, [label.into_bytes(), payload].concat())
        } else if let Some(lines) = event.strip_prefix("data: ") {
            (1, lines.replace("\ndata: ", "\n").into_bytes())
        } else if let Some(gap) = event.strip_prefix("event: gap\nid: ") {
            let (position, missed) = gap.split_once("\ndata: ").expect("what was missed");
            let missed = if missed == "unknown" { u64::MAX } else { number(missed) };
            assert!(missed > 0);
            (GAP, [number(position), missed].map(u64::to_be_bytes).concat())
        } else if let Some(position) = event.strip_prefix("id: ") {
            (STAND, number(position).to_be_bytes().to_vec())
        } else if let Some(close) = event.strip_prefix("event: close\ndata: {\"code\":") {
            let code = close.split_once(',').and_then(|(code, _)| code.parse().ok());
            let code: u16 = code.expect("a close code");
            (8, code.to_be_bytes().to_vec())
        } else {
            panic!("no peer sent an event like {event:?}")
        };
        frames.push(Said { frame: Frame::new(opcode, payload), id });
    }
    let last = frames.last().map(|said| said.frame.opcode);
    assert!(!ends || may_end || last == Some(8), "a body ends with the event that says why");
    frames
}

/// What the whole chunks of a body hold, and whether the last of them ends it. An event is delivered
/// with the end of its chunk.
fn whole_chunks(mut stream: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = stream.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&stream[..line]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        let Some(chunk) = stream.get(line + 2..line + 2 + size + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        stream = &stream[line + 2 + size + 2..];
        if size == 0 {
            assert!(stream.is_empty(), "nothing follows the end of the body");
            return (body, true);
        }
        body.extend_from_slice(&chunk[..size]);
    }
    (body, false)
}
