//! A hub, its peers and the program around it, stepped by a seed.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::connection::registration;
use crate::connection::registration::ClientKind;
use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::hub::tests::support::deflated;
use crate::overflow::Overflow;
use crate::peer::Peer as Origin;
use crate::serve::accept::connect;
use crate::sim::any_config::any_config;
use crate::sim::event_reader;
use crate::sim::event_reader::HeardEvents;
use crate::sim::executor::{Executor, Order, TaskId};
use crate::sim::journal;
use crate::sim::journal::{Name, event};
use crate::sim::network::{Line, Socket};
use crate::sim::notes::To;
use crate::sim::peer::{Peer, Voice, Way};
use crate::sim::poller::Poller;
use crate::sim::poster::Poster;
use crate::sim::reader::Reads;
use crate::sim::script::{Op, ROOMS, Script, USERS};
use crate::time::virtual_time::VirtualTime;
use crate::websocket::decoder::tests::frame;
use crate::websocket::run::run as run_websocket;

/// Ticks after which a world that still moves never rests.
const TICKS_MAX: usize = 200_000;

/// The longest time that anything may take to end by itself: every wait there is, one after
/// another, is shorter.
const ENDING_MAX: Duration = Duration::from_secs(20 * 60);

/// The world of one run.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) executor: Executor,
    pub(super) time: VirtualTime,
    pub(super) hub: Hub,
    pub(super) script: Script,
    pub(super) peers: Vec<Peer>,
    pub(super) posters: Vec<Poster>,
    pub(super) pollers: Vec<Poller>,
    /// Requests that pollers have sent.
    pub(super) polls: usize,
    /// Posters that have come.
    pub(super) posters_so_far: usize,
    /// Tasks of the program that must end without help from any peer and from time.
    verbs: Vec<(TaskId, String)>,
    order: Order,
    pub(super) manager: TaskId,
    pub(super) len_max: usize,
    /// What a reader of events has heard since the hub was made.
    pub(super) heard: Rc<RefCell<HeardEvents>>,
}

impl World {
    pub(super) fn new(mut rng: Rng) -> Self {
        // The library's own dice: the jitter of pings.
        fastrand::seed(rng.u64(..));
        let order = if rng.u8(..3) > 0 { Order::Fair } else { Order::Wild };
        let config = any_config(&mut rng);
        let len_max = config.max_message;
        let time = VirtualTime::start();
        journal::begin();
        event!("tasks run in {order:?} order; {config:?}");
        let (hub, manager) = Hub::new(config).expect("a valid configuration");
        let mut executor = Executor::new(order);
        let manager = executor.spawn(manager);
        let heard = event_reader::spawn(&mut executor, &hub, (rng.bool(), true));
        // From the first event on.
        while executor.tick(&mut rng) {}
        let script = Script::default();
        let (peers, posters, pollers, verbs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            rng,
            executor,
            time,
            hub,
            script,
            peers,
            posters,
            pollers,
            polls: 0,
            posters_so_far: 0,
            verbs,
            order,
            manager,
            len_max,
            heard,
        }
    }

    /// Does one thing, chosen by chance.
    pub(super) fn step(&mut self) {
        match self.rng.u8(..100) {
            0..=39 => {
                for _ in 0..self.rng.u8(1..6) {
                    self.executor.tick(&mut self.rng);
                }
            }
            40..=45 => self.connect(),
            46..=47 => self.poll(),
            48..=65 => {
                for _ in 0..self.rng.u8(1..5) {
                    self.speak();
                }
            }
            66..=69 => {
                for _ in 0..self.rng.u8(1..5) {
                    self.post();
                }
            }
            70..=77 => self.listen(),
            78..=81 => self.leave(),
            82 => self.misbehave(),
            83..=89 => self.program(),
            90..=91 => self.flood(),
            92..=94 => self.rest(),
            95 => self.restart(),
            96..=98 => self.pass_time(),
            _ => self.oversleep(),
        }
    }

    /// A peer comes.
    fn connect(&mut self) {
        if self.peers.len() > 60 {
            return;
        }
        let rng = &mut self.rng;
        let direct_writer = rng.bool();
        let way = match rng.u8(..8) {
            0..=3 => Way::Asks,
            4 | 5 => Way::Upgraded,
            _ => Way::Events,
        };
        let offers = way == Way::Asks && rng.bool();
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
        rooms.truncate(config.max_rooms_per_client);
        let reads = reads.then(|| Reads::any(rng, &self.peers, way));
        if let Some(reads) = reads {
            rooms = vec![reads.room];
        }
        let is_plain = way == Way::Events && reads.is_none();
        let reads = match rooms[..] {
            [room] if is_plain => Some(Reads { room, since: None, ends: false }),
            _ => reads,
        };
        let all = steady || reads.is_some() && rng.bool();
        let room = if all { usize::MAX } else { rng.usize(..2_000) };
        let line = Line::named(Name::Peer(self.peers.len()), room, at_most, rng.fork());
        let answers = steady || rng.bool();
        let number = self.script.peer(user, rooms.clone(), steady, (reads, way));
        let asked = reads.map_or_else(Default::default, |reads| reads.request(rng));
        event!(
            "peer {number} {way}{}: it {}, the kernel takes {} for it{}, it is to be in rooms {rooms:?}{}",
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
        );
        let overrun = steady && self.order == Order::Wild;
        if overrun {
            self.rest();
        }
        let (hub, script, socket) =
            (self.hub.clone(), self.script.clone(), Socket::new(&line, direct_writer));
        match way {
            Way::Asks => line.send(
                format!(
                    "GET /ws/{number} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
                    if offers { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" }
                )
                .as_bytes(),
            ),
            Way::Events => {
                let (query, header) = asked;
                line.send(
                    format!("GET /sse/{number}{query} HTTP/1.1\r\nHost: x\r\n{header}\r\n")
                        .as_bytes(),
                );
            }
            Way::Upgraded => {}
        }
        let task = self.executor.spawn(async move {
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
        });
        self.peers.push(Peer {
            line,
            task,
            steady,
            answers,
            way,
            reads,
            deflates,
            half: Vec::new(),
            seen: 0,
            understood: 0,
            voice: Voice::Free,
            has_reset: false,
            dawdled: false,
        });
        if overrun {
            // Until it is open it needs its task to run, so nothing is published meanwhile.
            self.rest();
            if self.script.notes().unsettle(number) {
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

    fn any_peer(&mut self) -> Option<usize> {
        let n = self.peers.len();
        (n > 0).then(|| self.rng.usize(..n))
    }

    /// A peer says something, or a part of it.
    fn speak(&mut self) {
        let Some(n) = self.any_peer() else { return };
        if self.peers[n].voice == Voice::Closing {
            let half = std::mem::take(&mut self.peers[n].half);
            return self.peers[n].line.send(&half);
        }
        if self.peers[n].is_silent() {
            return;
        }
        if self.peers[n].way == Way::Events {
            // The hub reads it and throws it away.
            return self.peers[n].line.send(b"and then?");
        }
        if self.peers[n].half.is_empty() {
            let frame = match self.rng.u8(..12) {
                0 => frame(0x89, b"are you there"),
                1 => frame(0x8a, b"unasked"),
                _ => {
                    let op = Op::any(&mut self.rng, self.peers.len(), self.len_max);
                    event!("peer {n} asks to {op}");
                    let mut payload = self.script.ask(op).to_vec();
                    let is_compressed = self.peers[n].deflates && self.rng.bool();
                    let rsv1 = if is_compressed { 0x40 } else { 0 };
                    if is_compressed {
                        payload = deflated(&payload);
                    }
                    if self.rng.bool() {
                        frame(0x82 | rsv1, &payload)
                    } else {
                        let (first, second) = payload.split_at(self.rng.usize(..=4));
                        let first = frame(0x02 | rsv1, first);
                        [first, frame(0x89, b"between"), frame(0x80, second)].concat()
                    }
                }
            };
            self.peers[n].half = frame;
        }
        let peer = &mut self.peers[n];
        let now =
            if self.rng.u8(..4) == 0 { self.rng.usize(..peer.half.len()) } else { peer.half.len() };
        let rest = peer.half.split_off(now);
        peer.line.send(&peer.half);
        peer.half = rest;
    }

    /// A peer reads on, and perhaps answers.
    fn listen(&mut self) {
        let Some(n) = self.any_peer() else { return };
        if !self.peers[n].steady {
            let most = if self.rng.u8(..3) == 0 { 1 << 20 } else { 3_000 };
            let bytes = self.rng.usize(..most);
            event!("peer {n} reads at most {bytes} bytes, and the kernel takes as many more");
            self.peers[n].line.read(bytes);
            self.peers[n].line.grant(bytes);
        }
        if self.rng.bool() {
            self.peers[n].answer(&mut self.rng);
        }
    }

    /// A peer goes, one way or another.
    fn leave(&mut self) {
        let Some(n) = self.any_peer() else { return };
        let peer = &mut self.peers[n];
        let (how, steady) = (self.rng.u8(..8), peer.steady);
        // A peer that resets its connection, or is dropped, may lose what was on its way.
        if (steady && how > 3 && self.rng.u8(..3) > 0) || peer.is_silent() {
            return;
        }
        let peer = &mut self.peers[n];
        match how {
            0..=5 if peer.way == Way::Events => {
                self.script.notes().may_end(n, &[1006]);
                peer.end();
            }
            0..=3 => self.close(n),
            4 | 5 => {
                // Its close frame, if it comes at all, is without a code.
                self.script.notes().may_end(n, &[1005, 1006, 1002]);
                peer.end();
            }
            6 => {
                self.lose(n);
                self.peers[n].reset();
            }
            _ => {
                self.lose(n);
                self.drop_connection(n);
            }
        }
    }

    /// A peer sends a close frame.
    fn close(&mut self, n: usize) {
        event!("peer {n} sends a close frame");
        self.script.notes().may_end(n, &[1000]);
        let peer = &mut self.peers[n];
        // Its last frame is finished before, so that the close frame is one.
        peer.line.send(&std::mem::take(&mut peer.half));
        let mut last = frame(0x88, &1000_u16.to_be_bytes());
        if self.rng.u8(..4) == 0 {
            // A pong is on its way behind it, of which the server sees the beginning. What follows a
            // close frame unseen may cost the peer what it is told.
            peer.line.lock().is_read_whole = true;
            last.extend(frame(0x8a, b"and yes"));
            peer.half = last.split_off(last.len() - self.rng.usize(1..8));
        }
        peer.line.send(&last);
        peer.voice = Voice::Closing;
    }

    /// The program drops a connection where it stands; the registry hears of it soon.
    fn drop_connection(&mut self, n: usize) {
        event!("the program drops the connection of peer {n}");
        self.script.notes().peers[n].cancelled = true;
        self.executor.cancel(self.peers[n].task);
        let peer = &mut self.peers[n];
        peer.voice = peer.voice.max(Voice::Silent);
    }

    /// What is on the way to a peer may be lost from here on.
    fn lose(&mut self, n: usize) {
        // Let it have what it is owed before, with what the world at rest was asked.
        if self.peers[n].steady {
            self.rest();
            while self.peers[n].answer(&mut self.rng) {}
        }
        self.script.notes().may_end(n, &[1005, 1006]);
    }

    /// A peer breaks the protocol.
    fn misbehave(&mut self) {
        let Some(n) = self.any_peer() else { return };
        if self.peers[n].steady && self.rng.bool() || self.peers[n].is_silent() {
            return;
        }
        let deflates = self.peers[n].deflates && self.rng.bool();
        let (code, bytes) = match self.rng.u8(..6) {
            _ if self.peers[n].way == Way::Events => (1008, vec![b'x'; 80_000]),
            0 if deflates => (1007, frame(0xc1, &deflated(b"\xff\xfe"))),
            1 if deflates => (1007, frame(0xc2, &[7; 9])),
            2 if deflates => (1002, frame(0xc9, b"")),
            3 if deflates => (1009, frame(0xc2, &deflated(&vec![0; self.len_max + 1]))),
            4 if deflates => (1002, [frame(0x02, b""), frame(0xc0, b"")].concat()),
            5 if deflates => (1009, frame(0x42, &vec![0; 2 * self.len_max + 100])),
            1 if self.peers[n].deflates => (1002, frame(0xa2, b"reserved")),
            0 => (1007, frame(0x81, b"\xff\xfe")),
            1 => (1002, frame(0xc2, b"reserved")),
            2 => (1002, vec![0x81, 1, b'x']),
            3 => (1009, frame(0x82, &vec![0; self.len_max + 1])),
            4 => (1008, (0..20).flat_map(|nth| frame(u8::from(nth == 0), b"")).collect()),
            _ => (1002, frame(0x80, b"")),
        };
        event!("peer {n} breaks the rules: {code}");
        if self.peers[n].way == Way::Events {
            // It is cut off, with most of that unread.
            self.lose(n);
        }
        self.script.notes().may_end(n, &[code, 1002]);
        let peer = &mut self.peers[n];
        peer.line.send(&std::mem::take(&mut peer.half));
        peer.line.send(&bytes);
        if peer.way != Way::Events {
            peer.voice = Voice::Silent;
        }
    }

    /// The program around the hub asks for something, and perhaps does not wait for it.
    fn program(&mut self) {
        let op = Op::any(&mut self.rng, self.peers.len(), self.len_max);
        if matches!(op, Op::Sleep(_) | Op::Fail | Op::Panic) {
            return;
        }
        let patient = self.rng.u8(..6) > 0;
        event!(
            "the program asks to {op}{}",
            if patient { "" } else { ", and does not wait for it" }
        );
        let (hub, script) = (self.hub.clone(), self.script.clone());
        let verb = self.executor.spawn(async move {
            let done = script.act(&hub, None, op).await;
            done.expect("only peers fail");
        });
        if patient {
            self.verbs.push((verb, op.to_string()));
        } else {
            for _ in 0..self.rng.u8(..4) {
                self.executor.tick(&mut self.rng);
            }
            self.executor.cancel(verb);
        }
    }

    /// The program publishes as much as it can to one room.
    fn flood(&mut self) {
        let (to, len) = (To::Room(self.rng.usize(..ROOMS)), self.len_max);
        let times = self.rng.usize(1..40);
        event!("the program floods {to}: {times} times {len} bytes");
        let (hub, script) = (self.hub.clone(), self.script.clone());
        let verb = self.executor.spawn(async move {
            for _ in 0..times {
                let op = Op::Publish { to, through_client: false, waits: true, len };
                script.act(&hub, None, op).await.expect("only peers fail");
            }
        });
        self.verbs.push((verb, format!("flood {to}")));
    }

    /// Lets everything come to rest, without time; then no task waits that need not.
    pub(super) fn rest(&mut self) {
        self.settle();
        self.verbs.retain(|(verb, _)| self.executor.runs(*verb));
        if let Some((_, verb)) = self.verbs.first() {
            panic!("the program waits for a peer or for time: it asked to {verb}");
        }
        self.check_rest();
        // The check has asked for something, which may have made room for others.
        self.settle();
    }

    /// Peers that answer do; `false` if none had anything to answer.
    fn answer(&mut self) -> bool {
        let rng = &mut self.rng;
        let answered = self.peers.iter_mut().fold(false, |any, peer| peer.answer(rng) | any);
        let mut notes = self.script.notes();
        let answered =
            self.posters.iter_mut().fold(answered, |any, poster| poster.answer(&mut notes) | any);
        let config = &self.hub.shared().config;
        let ends = self.hub.shared().admissions.is_closed() || !self.executor.runs(self.manager);
        let answer = |poller: &mut Poller| poller.answer(&notes, config, ends);
        self.pollers.iter_mut().fold(answered, |any, poller| answer(poller) | any)
    }

    /// Lets time pass while all rest.
    fn pass_time(&mut self) {
        self.finish_halves();
        self.rest();
        let next = self.time.until_next().unwrap_or_default();
        let by = if self.rng.bool() {
            next
        } else {
            next.min(Duration::from_millis(self.rng.u64(..3_000)))
        };
        self.advance(by);
        if self.rng.bool() {
            return self.rest();
        }
        // A peer that is pinged may go before it has read the ping.
        while self.executor.tick(&mut self.rng) {}
        for n in 0..self.peers.len() {
            let peer = &self.peers[n];
            let is_told = peer.line.lock().unread() > 0;
            if is_told && peer.answers && peer.can_close() && self.rng.u8(..8) == 0 {
                event!("peer {n} closes, whatever it is told");
                self.close(n);
            }
        }
    }

    pub(super) fn advance(&self, by: Duration) {
        self.time.advance(by);
        event!("{by:?} have passed");
    }

    /// Steady peers do not leave a message unfinished.
    pub(super) fn finish_halves(&mut self) {
        for peer in self.peers.iter_mut() {
            if peer.steady && peer.voice < Voice::Silent {
                peer.line.send(&std::mem::take(&mut peer.half));
            }
            peer.dawdled |= !peer.half.is_empty();
        }
    }

    /// The process stands still while time passes and peers speak: it wakes up late, not deaf.
    fn oversleep(&mut self) {
        self.finish_halves();
        self.rest();
        event!("the process oversleeps");
        // Pings may be under way, and their answers.
        self.advance(self.time.until_next().unwrap_or_default());
        while self.executor.tick(&mut self.rng) {}
        while self.answer() {}
        let speaks = |peer: &&mut Peer| peer.steady && !peer.is_silent() && peer.way != Way::Events;
        for peer in self.peers.iter_mut().filter(speaks) {
            peer.line.send(&frame(0x8a, b"still here"));
        }
        let by = Duration::from_secs(self.rng.u64(..200));
        self.advance(by);
        self.rest();
    }

    /// Brings everything to its end, by one of several ways.
    pub(super) fn end(&mut self) {
        self.finish_halves();
        let how = self.rng.u8(..6);
        event!("the end begins, way {how}");
        match how {
            0 | 1 => self.drain(),
            2 => {
                event!("the manager is dropped");
                self.everyone_may_end(&[1001]);
                self.executor.cancel(self.manager);
            }
            _ => {}
        }
        self.rest();
        self.everyone_may_end(&[1005, 1006, 1008]);
        for peer in self.peers.iter_mut().filter(|peer| !peer.is_silent()) {
            if self.rng.u8(..4) > 0 || peer.steady {
                peer.end();
            } else {
                // The peer is gone, and its kernel does not say so.
                peer.answers = false;
                peer.voice = Voice::Silent;
                if peer.way == Way::Events {
                    // A peer that is only written to: its kernel says so.
                    peer.reset();
                }
            }
        }
        for poster in self.posters.iter_mut().filter(|poster| !poster.silent) {
            if self.rng.bool() {
                poster.line.end();
            } else {
                poster.vanish();
            }
            poster.silent = true;
        }
        for poller in &mut self.pollers {
            if self.rng.bool() {
                poller.line.end();
            }
            poller.silent = true;
        }
        self.wait_for_all();
    }

    fn drain(&mut self) {
        self.rest();
        self.everyone_may_end(&[1012]);
        let config = &self.hub.shared().config;
        let write_out = Duration::from_secs(2).min(config.write_timeout);
        // The last wait is for a place in the inbox, where none waits.
        let deadline = config.drain + write_out + config.close_timeout * 2;
        event!("the hub drains");
        let hub = self.hub.clone();
        let drain = self.executor.spawn(async move { hub.drain(Disconnect::RESTART).await });
        let mut waited = Duration::ZERO;
        self.settle();
        while self.executor.runs(drain) {
            let next = self.time.until_next().expect("a drain waits for time");
            self.advance(next);
            waited += next;
            assert!(waited <= deadline, "a drain takes {waited:?} of {deadline:?}");
            self.settle();
        }
        assert!(!self.executor.runs(self.manager), "a drained hub has ended");
    }

    /// As [`rest`](Self::rest), without the checks: for a world whose drain goes on.
    fn settle(&mut self) {
        let mut ticks = 0;
        loop {
            while self.executor.tick(&mut self.rng) {
                ticks += 1;
                assert!(ticks < TICKS_MAX, "the world never rests");
            }
            if !self.answer() {
                break;
            }
        }
    }

    fn everyone_may_end(&mut self, codes: &[u16]) {
        for n in 0..self.peers.len() {
            self.script.notes().may_end(n, codes);
        }
    }

    /// Lets time pass until no connection is left.
    fn wait_for_all(&mut self) {
        let mut waited = Duration::ZERO;
        self.rest();
        while self.tasks().any(|task| self.executor.runs(task)) {
            let next = self.time.until_next().expect("a connection waits for time");
            self.advance(next);
            waited += next;
            assert!(waited < ENDING_MAX, "a connection never ends");
            self.rest();
        }
        self.forget_rooms();
    }

    /// Lets time pass until no room is kept, if any ever goes.
    fn forget_rooms(&mut self) {
        let age = self.hub.shared().config.history_age;
        if !age.is_zero() {
            // By time alone: no command comes.
            self.advance(age);
            self.settle();
            self.advance(Duration::from_millis(1_100));
            self.settle();
        }
    }

    /// The tasks of all connections.
    fn tasks(&self) -> impl Iterator<Item = TaskId> {
        let posters = self.posters.iter().map(|poster| poster.task);
        let pollers = self.pollers.iter().map(|poller| poller.task);
        self.peers.iter().map(|peer| peer.task).chain(posters).chain(pollers)
    }

    /// Asks the hub something and waits for its answer, in a world at rest.
    pub(super) fn ask<T: 'static, F>(&mut self, verb: impl FnOnce(Hub) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, crate::error::Error>> + 'static,
    {
        let slot = Rc::new(RefCell::new(None));
        let (asking, answer) = (verb(self.hub.clone()), Rc::clone(&slot));
        self.executor.spawn(async move { *answer.borrow_mut() = Some(asking.await) });
        while self.executor.tick(&mut self.rng) {}
        let answer = slot.borrow_mut().take().expect("the hub answers without time");
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(error.is_closed(), "{error}");
                None
            }
        }
    }
}
