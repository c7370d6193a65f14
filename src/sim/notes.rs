//! What happened in a run, as the callers of the hub saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::hub::client_id::ClientId;
use crate::sim::script::{PREFIXES, ROOMS, is_covered};

/// A moment of a run; no two things happen in the same one.
pub(super) type Step = u64;

/// Later than everything.
pub(super) const NEVER: Step = Step::MAX;

/// From when on something was asked for, and by when it was done, if the asker was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Step,
    pub(super) by: Step,
}

/// A wish to be in a room or out of it.
#[derive(Debug, Clone, Copy)]
struct Change {
    joins: bool,
    span: Span,
}

/// One peer and the client it became.
#[derive(Debug)]
pub(super) struct PeerNote {
    pub(super) user: Option<usize>,
    /// Its client's id, from `on_connect` on.
    pub(super) id: Option<ClientId>,
    /// From when on it may be in the registry, and by when it was.
    pub(super) here: Span,
    /// From when on it may go, and by when it had gone.
    pub(super) gone: Span,
    /// Whether it reads all it is sent and answers pings, so that it must not be ended by the hub.
    pub(super) steady: bool,
    /// When it was kicked, and with which code.
    pub(super) kicks: Vec<(Step, u16)>,
    /// Close codes that it may be sent.
    pub(super) codes: Vec<u16>,
    /// The reasons that `on_disconnect` was given.
    pub(super) reasons: Vec<u16>,
    /// It is told what its room keeps from before it came, if it is one that came with `since`.
    pub(super) since: bool,
    /// It counts what it hears: its own messages too, and those of one room only.
    pub(super) counts: bool,
    /// How often it hears the newest message of its room, if not each. It stays in that room.
    pub(super) every: Option<Duration>,
    /// When its messages were heard.
    pub(super) sent: Vec<Instant>,
    /// Its connection was dropped as it stood.
    pub(super) cancelled: bool,
    /// Hooks that run for it.
    pub(super) hooks: usize,
    rooms: BTreeMap<usize, Vec<Change>>,
}

/// The target of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    All,
    Room(usize),
    User(usize),
    Peer(usize),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Room(room) => write!(f, "room {room}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// One message; its number is its place.
#[derive(Debug)]
pub(super) struct MessageNote {
    pub(super) to: To,
    /// The peer that must not get it.
    pub(super) except: Option<usize>,
    pub(super) span: Span,
    /// The recipients that the publisher was told of.
    pub(super) recipients: Option<usize>,
    /// How many of them it was told to be delivered, late and lost, if it has waited for that.
    pub(super) fates: Option<[usize; 3]>,
    /// Whether the hub refused it.
    pub(super) refused: bool,
}

/// Everything that the invariants are held against.
#[derive(Debug, Default)]
pub(super) struct Notes {
    now: Step,
    pub(super) peers: Vec<PeerNote>,
    pub(super) messages: Vec<MessageNote>,
    /// Kicks so far, for a close code of its own each.
    kicks: u16,
    /// Users that are being kicked, each with the code.
    kicked_users: Vec<(usize, u16)>,
    /// The requests of pollers whose hook has run.
    pub(super) polls: BTreeSet<usize>,
    /// Whether another process takes the hub over: rates do not hold then.
    pub(super) is_held: bool,
    /// The first message that no other process has had.
    pub(super) first_of_process: usize,
}

impl Notes {
    pub(super) fn moment(&mut self) -> Step {
        self.now += 1;
        self.now
    }

    pub(super) fn peer(&mut self, user: Option<usize>, rooms: &[usize], steady: bool) -> usize {
        let here = Span { from: self.moment(), by: NEVER };
        let change = Change { joins: true, span: here };
        let rooms = rooms.iter().map(|&room| (room, vec![change])).collect();
        self.peers.push(PeerNote {
            user,
            id: None,
            here,
            gone: Span { from: if steady { NEVER } else { 0 }, by: NEVER },
            steady,
            kicks: Vec::new(),
            codes: Vec::new(),
            reasons: Vec::new(),
            since: false,
            counts: false,
            every: None,
            sent: Vec::new(),
            cancelled: false,
            hooks: 0,
            rooms,
        });
        let peer = self.peers.len() - 1;
        let meanwhile: Vec<_> =
            self.kicked_users.iter().filter(|(kicked, _)| user == Some(*kicked)).copied().collect();
        for (_, code) in meanwhile {
            self.may_end(peer, &[code]);
        }
        peer
    }

    /// `on_connect` ran.
    pub(super) fn connected(&mut self, peer: usize, id: ClientId) {
        let now = self.moment();
        let note = &mut self.peers[peer];
        if note.id == Some(id) {
            // It came from another process, and is there already.
            return;
        }
        assert!(note.id.replace(id).is_none(), "a client connects once");
        note.here.by = now;
        for changes in note.rooms.values_mut() {
            changes[0].span.by = now;
        }
        let twins = self.peers.iter().filter(|other| other.id == Some(id)).count();
        assert_eq!(twins, 1, "no two clients have one id");
    }

    /// A peer that has not connected yet may be ended by the hub from its beginning on; `false` if it
    /// has.
    pub(super) fn may_end_early(&mut self, peer: usize) -> bool {
        let note = &mut self.peers[peer];
        if note.id.is_some() {
            return false;
        }
        note.steady = false;
        note.gone.from = 0;
        true
    }

    /// A peer was heard: of `rate` messages a second no more than twice as many come in one second,
    /// those that may come at once and those of the second.
    pub(super) fn sent(&mut self, peer: usize, now: Instant, rate: Option<usize>) {
        if self.is_held {
            // It is busy, and may be left behind.
            self.may_end(peer, &[1012]);
            self.peers[peer].steady = false;
            return;
        }
        let sent = &mut self.peers[peer].sent;
        sent.push(now);
        let Some(rate) = rate else { return };
        if let Some(first) = sent.len().checked_sub(2 * rate + 1) {
            let came = now - sent[first];
            assert!(
                came + Duration::from_millis(1) >= Duration::from_secs(1),
                "peer {peer} has sent more than two seconds of its rate in {came:?}"
            );
        }
    }

    /// Something begins that may end a peer with one of `codes`.
    pub(super) fn may_end(&mut self, peer: usize, codes: &[u16]) {
        let now = self.moment();
        let note = &mut self.peers[peer];
        note.gone.from = note.gone.from.min(now);
        note.codes.extend(codes);
    }

    /// A peer is about to be kicked, with a code that no other kick has.
    pub(super) fn kick(&mut self, peer: usize) -> u16 {
        self.kicks += 1;
        let code = 4200 + self.kicks;
        self.may_end(peer, &[code]);
        let now = self.moment();
        self.peers[peer].kicks.push((now, code));
        code
    }

    /// All peers of a user are about to be kicked, with a code that no other kick has; returns the
    /// clients that have connected before.
    pub(super) fn kick_user(&mut self, user: usize) -> (Vec<ClientId>, u16) {
        self.kicks += 1;
        let code = 4200 + self.kicks;
        let mut here = Vec::new();
        for peer in 0..self.peers.len() {
            // One that comes meanwhile may be ended too.
            if self.peers[peer].user == Some(user) && self.peers[peer].gone.by == NEVER {
                self.may_end(peer, &[code]);
                let now = self.moment();
                self.peers[peer].kicks.push((now, code));
                here.extend(self.peers[peer].id);
            }
        }
        self.kicked_users.push((user, code));
        (here, code)
    }

    /// A user was kicked.
    pub(super) fn user_kicked(&mut self, code: u16) {
        self.kicked_users.retain(|(_, other)| *other != code);
    }

    pub(super) fn publish(&mut self, to: To, except: Option<usize>) -> u32 {
        let span = Span { from: self.moment(), by: NEVER };
        let (recipients, fates, refused) = (None, None, false);
        self.messages.push(MessageNote { to, except, span, recipients, fates, refused });
        (self.messages.len() - 1) as u32
    }

    pub(super) fn published(&mut self, number: u32, recipients: Option<usize>) {
        let by = self.moment();
        let note = &mut self.messages[number as usize];
        note.span.by = by;
        note.recipients = recipients;
    }

    /// The hub has said that it did not take a message.
    pub(super) fn refused(&mut self, number: u32) {
        self.messages[number as usize].refused = true;
    }

    /// A peer is about to be in a room, or out of it; `None` if such a wish is under way.
    pub(super) fn change(&mut self, peer: usize, room: usize, joins: bool) -> Option<usize> {
        let span = Span { from: self.moment(), by: NEVER };
        let changes = self.peers[peer].rooms.entry(room).or_default();
        if changes.last().is_some_and(|last| last.span.by == NEVER) {
            return None;
        }
        changes.push(Change { joins, span });
        Some(changes.len() - 1)
    }

    /// A wish was granted, or refused and without effect.
    pub(super) fn changed(&mut self, peer: usize, room: usize, change: usize, granted: bool) {
        let by = self.moment();
        let changes = self.peers[peer].rooms.get_mut(&room).expect("was noted");
        changes[change].span.by = by;
        if !granted {
            // As it was before.
            changes[change].joins = change > 0 && changes[change - 1].joins;
        }
    }

    /// A client that has ended knows the rooms that it was in, and no other.
    pub(super) fn check_left(&self, peer: usize, rooms: &[usize], now: Step) {
        let note = &self.peers[peer];
        let span = Span { from: note.gone.from.min(now), by: now };
        for &room in note.rooms.keys().filter(|&&room| room < ROOMS).chain(rooms) {
            let (surely, perhaps) = note.is_in(room, span);
            let left = rooms.contains(&room);
            assert!(perhaps || !left, "peer {peer} has left room {room}, where it was not");
            assert!(left || !surely, "peer {peer} does not know that it has left room {room}");
        }
    }

    /// Whether a peer was a recipient of what was published in a span: surely, and perhaps.
    pub(super) fn got(&self, peer: usize, to: To, span: Span) -> (bool, bool) {
        self.got_before(peer, to, span, self.peers[peer].gone.from)
    }

    /// Whether a peer was a member of a room at a moment: surely, and perhaps.
    pub(super) fn is_member(&self, peer: usize, room: usize, span: Span) -> (bool, bool) {
        let (surely_here, perhaps_here) = self.got(peer, To::All, span);
        let (surely, perhaps) = self.peers[peer].is_in(room, span);
        (surely_here && surely, perhaps_here && perhaps)
    }

    /// Whether a peer may have been told what was published before it came: it came with `since`.
    pub(super) fn got_kept(&self, peer: usize, to: To, span: Span) -> bool {
        let note = &self.peers[peer];
        let is_room = match to {
            To::All => true,
            To::Room(room) => note.rooms.contains_key(&room),
            To::User(_) | To::Peer(_) => false,
        };
        note.since && is_room && span.from < note.gone.by
    }

    /// As [`got`](Self::got), for a peer that was here until a moment at least.
    pub(super) fn got_before(&self, peer: usize, to: To, span: Span, end: Step) -> (bool, bool) {
        let note = &self.peers[peer];
        let surely_here = note.here.by < span.from && span.by < end;
        let perhaps_here = note.here.from < span.by && span.from < note.gone.by;
        if !surely_here && !perhaps_here {
            return (false, false);
        }
        let (surely, perhaps) = match to {
            To::All => (true, true),
            To::User(_) | To::Peer(_) if note.counts => (false, false),
            To::User(user) => (note.user == Some(user), note.user == Some(user)),
            To::Peer(other) => (peer == other, peer == other),
            To::Room(room) => note.hears(room, span),
        };
        (surely_here && surely, perhaps_here && perhaps)
    }
}

impl PeerNote {
    /// Whether the peer was asked to join or leave a room after it came.
    pub(super) fn was_moved(&self, room: usize) -> bool {
        self.rooms.get(&room).is_some_and(|changes| changes.len() > 1)
    }

    /// Whether the peer heard a room for the whole of a span, as a member or by a prefix, and whether
    /// for any of it.
    fn hears(&self, which: usize, span: Span) -> (bool, bool) {
        let prefixes = (0..PREFIXES.len()).filter(|&prefix| is_covered(which, prefix));
        let prefixes = prefixes.map(|prefix| ROOMS + prefix);
        let ways = prefixes.map(|prefix| self.is_in(prefix, span));
        ways.fold(self.is_in(which, span), |all, one| (all.0 || one.0, all.1 || one.1))
    }

    /// Whether the peer was in a room for the whole of a span, and whether for any of it.
    fn is_in(&self, room: usize, span: Span) -> (bool, bool) {
        let changes = self.rooms.get(&room).map_or(&[][..], |changes| changes);
        let before = changes.iter().rposition(|change| change.span.by < span.from);
        let was_in = before.is_some_and(|at| changes[at].joins);
        let later = &changes[before.map_or(0, |at| at + 1)..];
        let mut meanwhile = later.iter().filter(|change| change.span.from < span.by);
        let left = meanwhile.clone().any(|change| !change.joins);
        (was_in && !left, was_in || meanwhile.any(|change| change.joins))
    }
}
