//! A hub, its peers and the program around it, stepped by a seed.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use crate::hub::handle::Hub;
use crate::hub::tests::support::deflated;
use crate::sim::any_config::any_config;
use crate::sim::event_reader;
use crate::sim::event_reader::HeardEvents;
use crate::sim::executor::{Executor, Order, TaskId};
use crate::sim::journal;
use crate::sim::journal::event;
use crate::sim::notes::To;
use crate::sim::peer::{Peer, Voice, Way};
use crate::sim::poller::Poller;
use crate::sim::poster::Poster;
use crate::sim::script::{Op, ROOMS, Script};
use crate::time::virtual_time::VirtualTime;
use crate::websocket::decoder::tests::frame;

/// Ticks after which a world that still moves never rests.
pub(super) const TICKS_MAX: usize = 200_000;

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
    pub(super) verbs: Vec<(TaskId, String)>,
    pub(super) order: Order,
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

    pub(super) fn any_peer(&mut self) -> Option<usize> {
        let n = self.peers.len();
        (n > 0).then(|| self.rng.usize(..n))
    }

    /// A peer says something, or a part of it.
    pub(super) fn speak(&mut self) {
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
                    let mut payload = self.script.payload(op).to_vec();
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
    pub(super) fn listen(&mut self) {
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
    pub(super) fn leave(&mut self) {
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
    pub(super) fn close(&mut self, n: usize) {
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
    pub(super) fn drop_connection(&mut self, n: usize) {
        event!("the program drops the connection of peer {n}");
        self.script.notes().peers[n].cancelled = true;
        self.executor.cancel(self.peers[n].task);
        let peer = &mut self.peers[n];
        peer.voice = peer.voice.max(Voice::Silent);
    }

    /// What is on the way to a peer may be lost from here on.
    pub(super) fn lose(&mut self, n: usize) {
        // Let it have what it is owed before, with what the world at rest was asked.
        if self.peers[n].steady {
            self.rest();
            while self.peers[n].answer(&mut self.rng) {}
        }
        self.script.notes().may_end(n, &[1005, 1006]);
    }

    /// A peer breaks the protocol.
    pub(super) fn misbehave(&mut self) {
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
    pub(super) fn program(&mut self) {
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
    pub(super) fn flood(&mut self) {
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
        self.come_to_rest();
        self.verbs.retain(|(verb, _)| self.executor.runs(*verb));
        if let Some((_, verb)) = self.verbs.first() {
            panic!("the program waits for a peer or for time: it asked to {verb}");
        }
        self.check_rest();
        // The check has asked for something, which may have made room for others.
        self.come_to_rest();
    }

    /// Peers that answer do; `false` if none had anything to answer.
    pub(super) fn answer(&mut self) -> bool {
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
    pub(super) fn pass_time(&mut self) {
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
            let has_unread = peer.line.lock().unread() > 0;
            if has_unread && peer.answers && peer.can_close() && self.rng.u8(..8) == 0 {
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
    pub(super) fn oversleep(&mut self) {
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

    /// The tasks of all connections.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> {
        let posters = self.posters.iter().map(|poster| poster.task);
        let pollers = self.pollers.iter().map(|poller| poller.task);
        self.peers.iter().map(|peer| peer.task).chain(posters).chain(pollers)
    }

    /// Asks the hub something and waits for its answer, in a world at rest.
    pub(super) fn call<T: 'static, F>(&mut self, verb: impl FnOnce(Hub) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, crate::error::Error>> + 'static,
    {
        let slot = Rc::new(RefCell::new(None));
        let (calling, answer) = (verb(self.hub.clone()), Rc::clone(&slot));
        self.executor.spawn(async move { *answer.borrow_mut() = Some(calling.await) });
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
