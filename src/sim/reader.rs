//! Readers that come with `since`, go, and come back with the position that they have heard last.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fastrand::Rng;

use crate::hub::since::Since;
use crate::hub::tests::support::{decode, number_of};
use crate::sim::journal::Name;
use crate::sim::notes::{Notes, To};
use crate::sim::peer::{GAP, Peer, STAND, Said, Way, behind_welcome, frames_of};
use crate::sim::poller::Poller;
use crate::sim::script::{ROOMS, number_of_text};

/// As what a peer reads the one room that it is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reads {
    pub(super) room: usize,
    /// Where it asks to begin. Without, only events tell positions.
    pub(super) since: Option<Since>,
    /// It asks for the end behind what is kept.
    pub(super) ends: bool,
}

impl Reads {
    /// A reader that was never here, or one that was: it comes back with what it has heard last.
    pub(super) fn any(rng: &mut Rng, peers: &[Peer], way: Way) -> Self {
        let ends = way == Way::Events && rng.u8(..8) == 0;
        let earlier: Vec<_> = peers.iter().filter(|peer| peer.reads.is_some()).collect();
        if let Some(peer) = rng.choice(&earlier).filter(|_| rng.u8(..4) > 0) {
            let room = peer.reads.expect("was filtered").room;
            let kernel = peer.line.lock();
            let read = &kernel.taken[..kernel.read];
            if let Some(last) = peer.last_position(read) {
                return Self { room, since: Some(Since::Position(last)), ends };
            }
        }
        let since = match rng.u8(..8) {
            0 | 1 => Since::Oldest,
            2 => Since::Newest(rng.u32(1..9)),
            3 => Since::Position(rng.u64(1..1 << 52)),
            4 => Since::UNREADABLE,
            _ => Since::Now,
        };
        Self { room: rng.usize(..ROOMS), since: Some(since), ends }
    }

    /// What a request for events has in its target, and in its header, for that.
    pub(super) fn request(&self, rng: &mut Rng) -> (String, String) {
        let (mut query, mut header) = (String::new(), String::new());
        match self.since {
            Some(Since::UNREADABLE) => header.push_str("Last-Event-ID: what was that\r\n"),
            Some(since) if rng.bool() => write!(query, "&since={since}").expect("no limit"),
            Some(since) => {
                // An EventSource that comes back asks with the URL that it had.
                query.push_str(if rng.bool() { "&since=0" } else { "" });
                header = format!("Last-Event-ID: {since}\r\n");
            }
            None => {}
        }
        query.push_str(if self.ends { "&poll=1" } else { "" });
        (query.replacen('&', "?", 1), header)
    }
}

/// What a reader has heard of its room.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The position and the number of each message.
    messages: Vec<(u64, u32)>,
    /// The position of the last message that it has heard, or was told to have missed.
    pub(super) last: Option<u64>,
}

impl Heard {
    /// What was said to a reader; panics if a position is not the next, and that was not told.
    pub(super) fn of(said: &[Said], n: usize, peer: &Peer) -> Self {
        let reads = peer.reads.expect("a reader");
        let mut heard = Self::default();
        if peer.counts() {
            let mut data = said.iter().filter(|said| matches!(said.frame.opcode, 1 | 2));
            let Some(first) = data.next() else { return heard };
            let first = std::str::from_utf8(&first.frame.payload).expect("digits");
            let first: u64 = first.parse().expect("the first frame is a position");
            let messages = data.map(|said| number(said, peer.way));
            heard.messages = (first + 1..).zip(messages).collect();
            heard.last = Some(first + heard.messages.len() as u64);
            return heard;
        }
        heard.last = match reads.since {
            Some(Since::Position(named)) if named < 1 << 53 => Some(named),
            _ => None,
        };
        let mut hears_gap = false;
        for said in said {
            match (said.frame.opcode, said.id) {
                (GAP | STAND, _) => {
                    let position = said.frame.payload.first_chunk().expect("8 bytes");
                    let position = u64::from_be_bytes(*position);
                    hears_gap |= said.frame.opcode == GAP;
                    let missed = said.frame.payload.last_chunk().expect("8 bytes");
                    let missed =
                        Some(u64::from_be_bytes(*missed)).filter(|&missed| missed < u64::MAX);
                    let apart = heard.last.map(|last| position.checked_sub(last));
                    if let (GAP, Some(missed), Some(apart)) = (said.frame.opcode, missed, apart) {
                        assert_eq!(apart, Some(missed), "peer {n} is told how many it has missed");
                    }
                    let stands = hears_gap || heard.last.is_none_or(|last| last == position);
                    assert!(
                        stands,
                        "peer {n} is told that it stands at {position}, and of no gap behind {:?}",
                        heard.last
                    );
                    heard.last = Some(position);
                }
                (1 | 2, Some(id)) => {
                    let is_next = heard.last.is_none_or(|last| last + 1 == id);
                    assert!(
                        is_next,
                        "peer {n} hears position {id} behind {:?}, and is told of no gap",
                        heard.last
                    );
                    let unreadable = reads.since == Some(Since::UNREADABLE);
                    assert!(
                        hears_gap || !unreadable,
                        "peer {n} is told of a gap, since its header cannot be read"
                    );
                    heard.messages.push((id, number(said, peer.way)));
                    heard.last = Some(id);
                }
                _ => {}
            }
        }
        heard
    }
}

fn number(said: &Said, way: Way) -> u32 {
    let payload = &said.frame.payload;
    if said.frame.opcode == 1 { number_of_text(payload, way) } else { number_of(payload) }
}

/// Invariant 14: the positions that readers have heard are consecutive from their first frame, across their
/// connections, unless they were told: each message has one position in a room, and each position one
/// message, for all of them.
pub(super) fn check_readers(notes: &Notes, peers: &[Peer], pollers: &[Poller]) {
    let mut messages: BTreeMap<(usize, u64), u32> = BTreeMap::new();
    let mut positions: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    let mut check = |name: Name, room, heard: &[(u64, u32)]| {
        for &(position, number) in heard {
            let to = notes.messages[number as usize].to;
            let is_meant = matches!(to, To::All) || matches!(to, To::Room(to) if to == room);
            assert!(is_meant, "{name} counts message {number}, which is for {to}");
            let other = *messages.entry((room, position)).or_insert(number);
            assert_eq!(
                number, other,
                "{name} hears at {position} of room {room} the message that others hear there"
            );
            let other = *positions.entry((room, number)).or_insert(position);
            assert_eq!(
                position, other,
                "{name} hears message {number} of room {room} at the position of the others"
            );
        }
    };
    for (n, peer) in peers.iter().enumerate() {
        let Some(Reads { room, .. }) = peer.reads else { continue };
        let Some(said) = peer.frames(&peer.line.lock().taken) else { continue };
        let heard = Heard::of(&said, n, peer);
        assert_eq!(
            heard.last,
            peer.last_position(&peer.line.lock().taken),
            "peer {n} stands where its last frame says"
        );
        check(Name::Peer(n), room, &heard.messages);
    }
    for poller in pollers {
        check(Name::Poller(poller.number), poller.room, &poller.heard);
    }
}

impl Peer {
    /// The frames of what it has heard.
    pub(super) fn frames(&self, heard: &[u8]) -> Option<Vec<Said>> {
        frames_of(heard, self.way, self.reads.is_some_and(|reads| reads.ends))
    }

    /// The position of the last message that it has heard, or was told to have missed, as
    /// [`Heard::of`] has it, of a reader. This looks at as little as it can: it is asked for whenever
    /// the world rests, and the end of the run checks the rest.
    pub(super) fn last_position(&self, heard: &[u8]) -> Option<u64> {
        if self.way != Way::Events {
            return self.counts().then(|| last_counted(behind_welcome(heard, self.way)?))?;
        }
        let (mut end, body) = (heard.len(), behind_welcome(heard, self.way)?);
        // An event is delivered with the end of its chunk, behind which another may have begun. No text
        // has an id at the begin of a line, or the end of a chunk.
        while let Some(at) = heard[..end].windows(5).rposition(|part| part == b"\nid: ") {
            if at + 1 < heard.len() - body.len() {
                break;
            }
            let digits = &heard[at + 5..];
            let len = digits.iter().position(|byte| !byte.is_ascii_digit());
            let event = digits.windows(2).position(|part| part == b"\n\n");
            let is_whole =
                event.is_some_and(|end| digits[end..].windows(2).any(|part| part == b"\r\n"));
            if let (Some(len), true) = (len, is_whole) {
                return std::str::from_utf8(&digits[..len]).expect("digits").parse().ok();
            }
            end = at;
        }
        match self.reads.and_then(|reads| reads.since) {
            Some(Since::Position(named)) if named < 1 << 53 => Some(named),
            _ => None,
        }
    }

    /// Whether it counts what it hears, from the position in its first frame.
    pub(super) fn counts(&self) -> bool {
        self.way != Way::Events && self.reads.is_some_and(|reads| reads.since.is_some())
    }
}

/// The position of the last message of a WebSocket that counts what it hears.
fn last_counted(mut stream: &[u8]) -> Option<u64> {
    let mut last = None;
    while let [opcode, len, rest @ ..] = stream {
        let extended = match len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((long, rest)) = rest.split_at_checked(extended) else { break };
        let len = match extended {
            0 => usize::from(*len),
            _ => long.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
        };
        let Some(behind) = rest.get(len..) else { break };
        if matches!(opcode & 0x0f, 1 | 2) {
            last = Some(match last {
                None => {
                    let (first, _) = decode(&stream[..stream.len() - behind.len()]);
                    let position = std::str::from_utf8(&first[0].payload).expect("digits");
                    position.parse().expect("the first frame is a position")
                }
                Some(last) => last + 1,
            });
        }
        stream = behind;
    }
    last
}
