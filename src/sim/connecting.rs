//! Peers come: a connection of each kind, by chance.

use std::time::Duration;

use crate::config::Config;
use crate::connection::registration;
use crate::connection::registration::ClientKind;
use crate::overflow::Overflow;
use crate::peer::Peer as Origin;
use crate::serve::accept::connect;
use crate::sim::conflated::Conflated;
use crate::sim::executor::{Order, TaskId};
use crate::sim::journal;
use crate::sim::journal::{Name, event};
use crate::sim::network::{Line, Socket};
use crate::sim::peer::{Peer, Voice, Way};
use crate::sim::reader::Reads;
use crate::sim::script::{PREFIXES, ROOMS, USERS};
use crate::sim::world::World;
use crate::websocket::run::run as run_websocket;

/// Intervals of peers that hear the newest message of their room.
const EVERY: [Duration; 4] = [
    Config::EVERY_MIN,
    Duration::from_millis(700),
    Duration::from_secs(5),
    Duration::from_secs(90),
];

impl World {
    /// A peer comes.
    pub(super) fn connect(&mut self) {
        if self.peers.len() > 60 {
            return;
        }
        let rng = &mut self.rng;
        let direct_writer = rng.bool();
        let way = match rng.u8(..8) {
            0..=3 => Way::Upgrades,
            4 | 5 => Way::Upgraded,
            _ => Way::Events,
        };
        let offers = way == Way::Upgrades && rng.bool();
        let deflates = offers && self.hub.shared().config.deflate.is_some();
        let at_most = if rng.bool() { usize::MAX } else { rng.usize(1..300) };
        // Out of order, the manager may run often enough to overrun a client that needs its task.
        let at_once = direct_writer && at_most == usize::MAX && way != Way::Events;
        let reads = rng.u8(..3) == 0;
        let steady = rng.bool() && !reads && (at_once || self.order == Order::Fair);
        // In these a client that is behind for a moment loses something, however it reads.
        let config = &self.hub.shared().config;
        let steady = steady && !matches!(config.overflow, Overflow::Latest | Overflow::Replay);
        let user = rng.bool().then(|| rng.usize(..USERS));
        let mut rooms: Vec<_> = (0..ROOMS).filter(|_| rng.u8(..3) == 0).collect();
        let prefixes = ROOMS..ROOMS + PREFIXES.len();
        rooms.extend(prefixes.filter(|_| rng.u8(..6) == 0));
        rng.shuffle(&mut rooms);
        rooms.truncate(config.max_rooms_per_client);
        let reads = reads.then(|| Reads::any(rng, &self.peers, way));
        if let Some(reads) = reads {
            rooms = vec![reads.room];
        }
        let has_prefix = rooms.iter().any(|&room| room >= ROOMS);
        let has_labels = has_prefix || reads.is_none() && rng.u8(..3) == 0;
        let is_plain = way == Way::Events && reads.is_none() && !has_labels;
        let reads = match rooms[..] {
            [room] if is_plain => Some(Reads { room, since: None, ends: false }),
            _ => reads,
        };
        let counts = reads.is_some_and(|reads| reads.since.is_some()) && way != Way::Events;
        let is_conflated = rooms.len() == 1 && !has_labels && !counts && rng.u8(..3) == 0;
        let every = is_conflated.then(|| *rng.choice(&EVERY).expect("some"));
        let all = steady || reads.is_some() && rng.bool();
        let room = if all { usize::MAX } else { rng.usize(..2_000) };
        let line = Line::named(Name::Peer(self.peers.len()), room, at_most, rng.fork());
        let answers = steady || rng.bool();
        let number =
            self.script.peer(user, rooms.clone(), steady, (reads, way), (has_labels, every));
        let query = reads.map_or_else(Default::default, |reads| reads.request(rng));
        event!(
            "peer {number} {way}{}: it {}, the kernel takes {} for it{}, it is to be in rooms {rooms:?}{}{}",
            if offers { " and offers to compress" } else { "" },
            match (steady, answers) {
                (true, _) => "reads all and answers",
                (false, true) => "reads late and answers",
                (false, false) => "reads late and never answers",
            },
            journal::bytes(room),
            if direct_writer { ", others write to it too" } else { "" },
            match reads {
                Some(Reads { since: Some(since), ends, .. }) => format!(
                    ", since {since}{}",
                    if ends { " until it has what is kept" } else { "" }
                ),
                _ => String::new(),
            },
            every.map_or_else(String::new, |every| format!(
                ", and hears the newest every {every:?}"
            )),
        );
        let overrun = steady && self.order == Order::Wild;
        if overrun {
            self.rest();
        }
        line.send(request(number, way, offers, query).as_bytes());
        let socket = Socket::new(&line, direct_writer);
        let task = self.spawn_connection(number, way, socket);
        self.peers.push(Peer {
            line,
            task,
            steady,
            answers,
            way,
            reads,
            deflates,
            has_labels,
            conflated: every.map(Conflated::new),
            half: Vec::new(),
            seen: 0,
            understood: 0,
            voice: Voice::Free,
            has_reset: false,
            dawdled: false,
        });
        self.go_on_with(number, steady, overrun);
    }

    /// What happens to a peer right after it has come.
    fn go_on_with(&mut self, number: usize, steady: bool, overrun: bool) {
        if overrun {
            // Until it is open it needs its task to run, so nothing is published meanwhile.
            self.rest();
            if self.script.notes().may_end_early(number) {
                self.peers[number].steady = false;
            }
        }
        if !steady && self.rng.u8(..8) == 0 {
            // The program changes its mind while the client is being registered.
            for _ in 0..self.rng.u8(..6) {
                self.executor.tick(&mut self.rng);
            }
            self.script.notes().may_end(number, &[1005, 1006]);
            self.drop_connection(number);
        }
    }

    /// The connection of a peer, in a task of its own.
    fn spawn_connection(&mut self, number: usize, way: Way, socket: Socket) -> TaskId {
        let (hub, script) = (self.hub.clone(), self.script.clone());
        self.executor.spawn(async move {
            let admissions = &hub.shared().admissions;
            let _counted = admissions.connection();
            // A refusal is an answer too.
            if way != Way::Upgraded {
                let permit = admissions.handshake().await;
                drop(connect(&hub, socket, Origin::unknown(), &script, permit).await);
                return;
            }
            let admission = script.admission(number);
            let kind = ClientKind::WebSocket;
            if let Ok(admitted) = registration::admit(&hub, admission, kind).await {
                run_websocket(&hub, socket, admitted, Vec::new(), &script).await;
            }
        })
    }
}

/// What a peer sends first.
fn request(number: usize, way: Way, offers: bool, (query, header): (String, String)) -> String {
    match way {
        Way::Upgrades => format!(
            "GET /ws/{number} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            if offers { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" }
        ),
        Way::Events => {
            format!("GET /sse/{number}{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n")
        }
        Way::Upgraded => String::new(),
    }
}
