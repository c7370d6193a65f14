//! What peers and the program ask of the hub, and how it is noted.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use futures_lite::future::yield_now;
use http::{Request, StatusCode};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::url::query_of;
use crate::hub::client::Client;
use crate::hub::client_id::Target;
use crate::hub::handle::Hub;
use crate::hub::since::Since;
use crate::hub::tests::support::numbered;
use crate::message::Message;
use crate::peer::Peer;
use crate::sim::journal::event;
use crate::sim::notes::{NEVER, Notes, To};
use crate::sim::peer::Way;
use crate::sim::reader::Reads;
use crate::time::clock::Clock;
use crate::time::clock::now;

/// Rooms that are spoken of.
pub(super) const ROOMS: usize = 5;

/// Prefixes that are spoken of. The first one is for all rooms, the second for one of them. Where a
/// room is meant by its number, the numbers behind those of rooms mean prefixes.
pub(super) const PREFIXES: [&str; 2] = ["room ", "room 1"];

/// Users that are spoken of.
pub(super) const USERS: usize = 3;

/// The code of a client whose handler said so.
pub(super) const HANDLER: u16 = 4100;

/// One thing that is asked of the hub. A peer sends it as a message, and its handler does it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// Publishes `len` bytes, through the client (to everyone else) or through the hub.
    Publish {
        to: To,
        through_client: bool,
        waits: bool,
        len: usize,
    },
    Join {
        peer: usize,
        room: usize,
    },
    Leave {
        peer: usize,
        room: usize,
    },
    Kick {
        peer: usize,
    },
    /// Ends all clients of a user.
    KickUser {
        user: usize,
    },
    Yield(u8),
    Sleep(u8),
    Fail,
    Panic,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish { to, through_client, waits, len } => {
                let how = if *waits { "publish" } else { "try to publish" };
                let through = if *through_client { " through its client" } else { "" };
                write!(f, "{how} {len} bytes to {to}{through}")
            }
            Self::Join { peer, room } => write!(f, "let peer {peer} join room {room}"),
            Self::Leave { peer, room } => write!(f, "let peer {peer} leave room {room}"),
            Self::Kick { peer } => write!(f, "kick peer {peer}"),
            Self::KickUser { user } => write!(f, "kick user {user}"),
            Self::Yield(times) => write!(f, "yield {times} times"),
            Self::Sleep(seconds) => write!(f, "sleep {seconds} s"),
            Self::Fail => f.write_str("fail"),
            Self::Panic => f.write_str("panic"),
        }
    }
}

impl Op {
    pub(super) fn any(rng: &mut Rng, peers: usize, len_max: usize) -> Self {
        let (peer, room) = (rng.usize(..peers.max(1)), rng.usize(..ROOMS));
        let joined = rng.usize(..ROOMS + PREFIXES.len());
        match rng.u8(..40) {
            0..=23 => Self::Publish {
                to: match rng.u8(..10) {
                    0 => To::All,
                    1 => To::User(rng.usize(..USERS)),
                    2 => To::Peer(peer),
                    _ => To::Room(room),
                },
                through_client: rng.bool(),
                waits: rng.u8(..3) > 0,
                len: if rng.u8(..4) == 0 { rng.usize(4..=len_max) } else { rng.usize(4..=40) },
            },
            24..=29 => Self::Join { peer, room: joined },
            30..=32 => Self::Leave { peer, room: joined },
            33 if rng.u8(..4) == 0 => Self::KickUser { user: rng.usize(..USERS) },
            33 => Self::Kick { peer },
            34..=36 => Self::Yield(rng.u8(..9)),
            37 => Self::Sleep(rng.u8(..50)),
            38 => Self::Fail,
            _ => Self::Panic,
        }
    }
}

/// The notes, the operations that peers have sent, and the handler of them all.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    notes: Arc<Mutex<Notes>>,
    /// What peers have sent, by the number they sent it with.
    ops: Arc<Mutex<Vec<Op>>>,
    /// As what each peer is admitted.
    plans: Arc<Mutex<Vec<Plan>>>,
}

/// The user that a peer will have, and the rooms it will be in.
#[derive(Debug, Clone)]
struct Plan {
    user: Option<usize>,
    rooms: Vec<usize>,
    /// Where it begins, if that is no request for events.
    since: Option<Since>,
    /// Whether each message says its room.
    has_labels: bool,
    /// How often it hears the newest message of its room, if not each.
    every: Option<Duration>,
}

pub(super) fn room(room: usize) -> String {
    format!("room {room}")
}

/// Whether a prefix covers a room. It makes no name of the room, since each peer and message asks.
pub(super) fn is_covered(room: usize, prefix: usize) -> bool {
    let behind = PREFIXES[prefix].strip_prefix("room ");
    behind.is_some_and(|number| number.is_empty() || number.parse() == Ok(room))
}

fn user(user: usize) -> String {
    format!("user {user}")
}

/// What fills a text: lines of every end.
const LINES: &str = "the quick brown fox jumps over the lazy dog\r\nand is gone\n\rwhile the dog \
                     sleeps on, and on, and on\n";

/// The same, as it comes out of events: they know one end of a line.
const EVENT_LINES: &str = "the quick brown fox jumps over the lazy dog\nand is gone\n\nwhile the \
                           dog sleeps on, and on, and on\n";

/// What ends a text, and stands nowhere else in it.
const END: char = '!';

/// A message of about `len` bytes that carries its number: binary every fourth time, since base64
/// takes long where nothing is optimized, else a text.
pub(super) fn said(number: u32, len: usize) -> Message {
    if number % 4 == 0 { numbered(number, len) } else { text(number, len, LINES).into() }
}

/// A message without a line end that carries its number, at most 40 bytes long.
pub(super) fn line(number: u32, len: usize) -> String {
    let line = text(number, len.min(40), LINES);
    assert!(!line.contains(['\r', '\n']));
    line
}

fn text(number: u32, len: usize, lines: &str) -> String {
    let mut text = format!("{number:x}.");
    let len = len.saturating_sub(text.len() + END.len_utf8());
    text.push_str(&lines.repeat(len / lines.len() + 1)[..len]);
    text.push(END);
    text
}

/// The number of a text, which came as `way` has it; fails if a byte of it is not its own.
pub(super) fn number_of_text(payload: &[u8], way: Way) -> u32 {
    let heard = std::str::from_utf8(payload).expect("text");
    let (number, _) = heard.split_once('.').expect("a number");
    let number = u32::from_str_radix(number, 16).expect("a number");
    let lines = if way == Way::Events { EVENT_LINES } else { LINES };
    let filling =
        heard.strip_prefix(&format!("{number:x}.")).and_then(|rest| rest.strip_suffix(END));
    let is_whole = |line: &[u8]| lines.as_bytes().starts_with(line);
    let is_whole = filling.is_some_and(|all| all.as_bytes().chunks(lines.len()).all(is_whole));
    assert!(is_whole, "message {number} is torn: {heard:?}");
    number
}

impl Script {
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("not poisoned")
    }

    /// Keeps an operation for the handler; the payload of the message that asks for it.
    pub(super) fn payload(&self, op: Op) -> [u8; 4] {
        let mut ops = self.ops.lock().expect("not poisoned");
        ops.push(op);
        (ops.len() as u32 - 1).to_le_bytes()
    }

    /// Notes a peer that comes; returns its number.
    pub(super) fn peer(
        &self,
        user: Option<usize>,
        rooms: Vec<usize>,
        steady: bool,
        (reads, way): (Option<Reads>, Way),
        (has_labels, every): (bool, Option<Duration>),
    ) -> usize {
        let number = self.notes().peer(user, &rooms, steady);
        let since = reads.and_then(|reads| reads.since);
        let counts = since.is_some() && way != Way::Events;
        {
            let note = &mut self.notes().peers[number];
            (note.since, note.counts, note.every) = (since.is_some(), counts, every);
            // A reader of what is kept ends with it, and one that is overtaken too.
            if reads.is_some_and(|reads| reads.ends) {
                note.codes.push(1000);
            }
        }
        let since = since.filter(|_| counts);
        self.plans.lock().expect("not poisoned").push(Plan {
            user,
            rooms,
            since,
            has_labels,
            every,
        });
        number
    }

    /// As what a peer is admitted.
    pub(super) fn admission(&self, peer: usize) -> Admission {
        let Plan { user: name, rooms, since, has_labels, every } =
            self.plans.lock().expect("not poisoned")[peer].clone();
        let admission = name.map_or_else(Admission::anonymous, |name| Admission::user(user(name)));
        let join = |all: Admission, one: usize| match one.checked_sub(ROOMS) {
            Some(prefix) => all.prefix(PREFIXES[prefix]),
            None => all.room(room(one)),
        };
        let admission = rooms.into_iter().fold(admission, join).extension(peer);
        let admission = if has_labels { admission.labels() } else { admission };
        let admission = every.into_iter().fold(admission, Admission::every);
        match since {
            Some(since) => admission.since(since),
            None => admission,
        }
    }

    /// Does it, and notes it. `client` is the client that asked, unless the program did.
    pub(super) async fn act(
        &self,
        hub: &Hub,
        client: Option<&Client>,
        op: Op,
    ) -> Result<(), Disconnect> {
        match op {
            Op::Publish { to, through_client, waits, len } => {
                self.publish(hub, client.filter(|_| through_client), to, waits, len).await;
            }
            Op::Join { peer, room: to } | Op::Leave { peer, room: to } => {
                let joins = matches!(op, Op::Join { .. });
                let Some(id) = self.notes().peers.get(peer).and_then(|peer| peer.id) else {
                    return Ok(());
                };
                let Some(change) = self.notes().change(peer, to, joins) else { return Ok(()) };
                let done = match (to.checked_sub(ROOMS), joins) {
                    (None, true) => hub.join(id, &room(to)).await,
                    (None, false) => hub.leave(id, &room(to)).await,
                    (Some(prefix), true) => hub.enter(id, PREFIXES[prefix], true).await,
                    (Some(prefix), false) => hub.exit(id, PREFIXES[prefix], true).await,
                };
                self.notes().changed(peer, to, change, done.is_ok());
            }
            Op::Kick { peer } => self.kick(hub, peer).await,
            Op::KickUser { user } => self.kick_user(hub, user).await,
            Op::Yield(times) => {
                for _ in 0..times {
                    yield_now().await;
                }
            }
            Op::Sleep(seconds) => {
                Clock::default().after(Duration::from_secs(seconds.into())).await;
            }
            Op::Fail => return Err(Disconnect::new(HANDLER, "as the script says")),
            // Without the hook, which would print it.
            Op::Panic => std::panic::resume_unwind(Box::new("as the script says")),
        }
        Ok(())
    }

    async fn publish(&self, hub: &Hub, client: Option<&Client>, to: To, waits: bool, len: usize) {
        let id = match to {
            To::Peer(peer) => match self.notes().peers.get(peer).and_then(|peer| peer.id) {
                Some(id) => Some(id),
                None => return,
            },
            _ => None,
        };
        // Only rooms and everyone are reached through a client.
        let client = client.filter(|_| matches!(to, To::All | To::Room(_)));
        let except = client.and_then(|client| client.extension::<usize>().copied());
        // A client that counts hears itself.
        let except = except.filter(|&peer| !self.notes().peers[peer].counts);
        let number = self.notes().publish(to, except);
        let message = said(number, len);
        let done: Result<Option<usize>, Error> = match (to, client, id, waits) {
            (To::All, None, _, true) => hub.broadcast(message).await.map(Some),
            (To::All, None, _, false) => hub.try_broadcast(message).map(|()| None),
            (To::All, Some(client), ..) => client.broadcast(message).await.map(Some),
            (To::Room(to), None, _, true) => hub.publish(&room(to), message).await.map(Some),
            (To::Room(to), None, _, false) => hub.try_publish(&room(to), message).map(|()| None),
            (To::Room(to), Some(client), _, true) => {
                client.publish(&room(to), message).await.map(Some)
            }
            (To::Room(to), Some(client), _, false) => {
                client.try_publish(&room(to), message).map(|()| None)
            }
            (To::User(to), ..) => hub.send_to_user(&user(to), message).await.map(Some),
            (To::Peer(_), _, id, _) => {
                hub.send(id.expect("was asked for"), message).await.map(Some)
            }
        };
        match done {
            // A sender that does not wait knows only that its message is on its way.
            Ok(None) => {}
            Ok(recipients) => self.notes().published(number, recipients),
            Err(error) => {
                if error.is_one_room() {
                    return self.notes().refused(number);
                }
                assert!(error.is_closed() || error.is_full(), "{error}");
                let (full, back) = (error.is_full(), error.into_message().is_some());
                assert!(back || !full, "a message that had no place comes back");
                // Without it the sender does not know how far it came before the hub ended.
                if back {
                    self.notes().refused(number);
                }
            }
        }
    }

    /// Ends a user: every client of it that was here when this began is gone, and no other.
    async fn kick_user(&self, hub: &Hub, kicked: usize) {
        let (here, code) = self.notes().kick_user(kicked);
        event!("user {kicked} is to be kicked with {code}");
        let reason = Disconnect::new(code, "as the script says");
        let ended = hub.disconnect_user(&user(kicked), reason).await;
        self.notes().user_kicked(code);
        match ended {
            Ok(_) => {
                let left = hub.user_clients(&user(kicked)).await.unwrap_or_default();
                let stays = left.iter().find(|member| here.contains(&member.id));
                assert!(stays.is_none(), "{stays:?} of user {kicked} is still here");
            }
            Err(error) => assert!(error.is_closed(), "{error}"),
        }
    }

    async fn kick(&self, hub: &Hub, peer: usize) {
        let (id, code, was_gone, was_ending) = {
            let mut notes = self.notes();
            let Some(note) = notes.peers.get(peer) else { return };
            let Some(id) = note.id else { return };
            let (was_gone, was_ending) = (note.gone.by != NEVER, note.gone.from != NEVER);
            let code = notes.kick(peer);
            (id, code, was_gone, was_ending)
        };
        event!("peer {peer} is to be kicked with {code}");
        let kicked = hub.disconnect(id, Disconnect::new(code, "as the script says")).await;
        match kicked {
            Ok(()) => assert!(!was_gone, "a client that has gone is not kicked"),
            Err(error) if error.is_unknown_client() => {
                let another = self.notes().peers[peer].codes.len() > 1;
                assert!(was_ending || another, "a client that is here is found");
            }
            Err(error) => assert!(error.is_closed(), "{error}"),
        }
    }
}

impl Handler for Script {
    async fn on_upgrade(&self, request: &Request<()>, _: &Peer) -> Result<Admission, StatusCode> {
        if let Some(polled) = request.uri().path().strip_prefix("/pub/room%20") {
            let number =
                query_of(request.uri(), "poll").and_then(|poll| poll.parse::<usize>().ok());
            self.notes().polls.extend(number);
            return Ok(Admission::anonymous().room(format!("room {polled}")));
        }
        let peer = request.uri().path().rsplit('/').next().and_then(|peer| peer.parse().ok());
        Ok(self.admission(peer.ok_or(StatusCode::NOT_FOUND)?))
    }

    async fn on_publish(&self, _: &Request<()>, _: &Peer, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn publish_until(&self, request: &Request<()>, _: &Peer, _: &Target) -> StatusCode {
        match query_of(request.uri(), "until").and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => Clock::default().after(Duration::from_secs(seconds)).await,
            None => pending().await,
        }
        StatusCode::UNAUTHORIZED
    }

    async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
        event!("on_connect runs for peer {}", peer_of(client));
        self.notes().connected(peer_of(client), client.id());
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let number = message.as_bytes().first_chunk::<4>();
        let number = u32::from_le_bytes(*number.ok_or(Disconnect::UNSUPPORTED)?);
        let op = self.ops.lock().expect("not poisoned").get(number as usize).copied();
        let op = op.ok_or(Disconnect::UNSUPPORTED)?;
        let peer = peer_of(client);
        event!("on_message runs for peer {peer}: {op}");
        self.notes().sent(peer, now(), client.hub().shared().config.max_rate);
        match op {
            Op::Fail => self.notes().may_end(peer, &[HANDLER]),
            Op::Panic => self.notes().may_end(peer, &[Disconnect::INTERNAL.code()]),
            _ => {}
        }
        let _hook = RunningHook::new(self, peer);
        self.act(client.hub(), Some(client), op).await
    }

    fn on_hand_over(&self, client: &Client) -> Option<String> {
        Some(peer_of(client).to_string())
    }

    fn on_take_over(&self, description: &str) -> Option<Admission> {
        let peer: usize = description.parse().ok()?;
        Some(Admission::anonymous().extension(peer))
    }

    async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
        let rooms = client.rooms().await.expect("the rooms that it left are known");
        let rooms: Vec<_> = (0..ROOMS).filter(|&n| rooms.iter().any(|r| **r == *room(n))).collect();
        let mut notes = self.notes();
        event!("on_disconnect runs for peer {} with {reason}", peer_of(client));
        let now = notes.moment();
        notes.check_left(peer_of(client), &rooms, now);
        let note = &mut notes.peers[peer_of(client)];
        note.gone.by = now;
        note.reasons.push(reason.code());
    }
}

/// A hook that runs, noted until it is done or dropped.
struct RunningHook<'a>(&'a Script, usize);

impl<'a> RunningHook<'a> {
    fn new(script: &'a Script, peer: usize) -> Self {
        script.notes().peers[peer].hooks += 1;
        Self(script, peer)
    }
}

impl Drop for RunningHook<'_> {
    fn drop(&mut self) {
        self.0.notes().peers[self.1].hooks -= 1;
    }
}

fn peer_of(client: &Client) -> usize {
    *client.extension::<usize>().expect("every peer has its number")
}
