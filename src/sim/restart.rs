//! A restart at any moment: another process takes the hub over, and what it does not take over ends
//! with this one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::handle::Hub;
use crate::serve::hand_over::HandOver;
use crate::serve::take_over::{KeptConnection, run};
use crate::sim::event_reader;
use crate::sim::journal::event;
use crate::sim::network::{Line, Socket};
use crate::sim::notes::{NEVER, Step};
use crate::sim::world::World;

/// The longest time that a hub stands still.
const STANDS_MAX: Duration = Duration::from_millis(1_100);

impl World {
    /// The process becomes another one, if its manager still runs.
    pub(super) fn restart(&mut self) {
        self.finish_halves();
        self.rest();
        if !self.executor.runs(self.manager) {
            return;
        }
        // A request that is not answered by then ends with the process.
        for poster in self.posters.iter_mut().filter(|poster| !poster.silent) {
            poster.vanish();
            poster.silent = true;
        }
        self.rest();
        event!("another process takes the hub over");
        let start = self.script.notes().moment();
        self.excuse_busy();
        // What was read is not held back from the other process, which counts anew.
        self.script.notes().is_held = true;
        let hand_over = self.hand_over();
        let state = hand_over.state().to_owned();
        let lines: Vec<Arc<Line>> = hand_over
            .sockets()
            .iter()
            .map(|socket| Arc::clone(socket).downcast::<Line>().expect("a line"))
            .collect();
        for line in &lines {
            line.lock().is_moved = true;
        }
        self.leave_behind(&lines, start);
        let config = self.hub.shared().config.clone();
        let mut notes = self.script.notes();
        notes.peers.iter_mut().for_each(|peer| peer.sent.clear());
        notes.is_held = false;
        notes.first_of_process = notes.messages.len();
        drop(notes);
        // No task of the old process runs again. What it frees is freed without a word to any peer.
        self.executor.forget_all();
        let (hub, manager, kept) = Hub::restore(config, &state).expect("its own state");
        drop(hand_over);
        self.hub = hub;
        self.manager = self.executor.spawn_first(manager);
        let is_slow = self.rng.bool();
        self.heard = event_reader::spawn(&mut self.executor, &self.hub, (is_slow, false));
        assert_eq!(kept.len(), lines.len(), "every connection that was handed over goes on");
        for (kept, line) in kept.into_iter().zip(lines) {
            self.go_on(kept, &line);
        }
        self.rest();
    }

    /// A peer that may be busy when the hub is held may be left behind.
    fn excuse_busy(&mut self) {
        for n in 0..self.peers.len() {
            let is_busy = self.script.notes().peers[n].hooks > 0;
            // One that has broken the rules may be read that far only now: its rate held it back.
            let may_end = self.script.notes().peers[n].gone.from < NEVER;
            if is_busy || may_end || !self.peers[n].steady {
                self.script.notes().may_end(n, &[1012]);
                self.peers[n].steady = false;
                self.script.notes().peers[n].steady = false;
            }
        }
    }

    /// What does not go along ends with the process; a peer that is clean does. The hub stands still from
    /// `start` on.
    fn leave_behind(&mut self, lines: &[Arc<Line>], start: Step) {
        let mut notes = self.script.notes();
        for (n, peer) in self.peers.iter_mut().enumerate() {
            let note = &mut notes.peers[n];
            // What its rate had held back may have made it busy.
            peer.steady &= note.steady;
            let goes_along = lines.iter().any(|line| Arc::ptr_eq(line, &peer.line));
            let runs = self.executor.runs(peer.task);
            // A peer that was refused is no client.
            let is_steady = peer.steady && runs && note.id.is_some();
            // One that was kicked since has been sent the reason.
            let is_kicked = note.gone.from < NEVER && peer.line.lock().shut;
            assert!(goes_along || is_kicked || !is_steady, "peer {n} is clean and left behind");
            if !goes_along && runs {
                event!("peer {n} is left behind");
                note.cancelled = true;
                // No peer reads while the hub is held: what it is sent since may be lost with the process.
                note.gone.from = note.gone.from.min(start);
            }
        }
        drop(notes);
        for poster in &mut self.posters {
            // One that does not go along may lose an answer that it has not read.
            poster.steady &= lines.iter().any(|line| Arc::ptr_eq(line, &poster.line));
        }
        for poller in &mut self.pollers {
            // A request that waits ends with the process.
            poller.silent |= !lines.iter().any(|line| Arc::ptr_eq(line, &poller.line));
        }
    }

    /// A connection goes on in the new process.
    fn go_on(&mut self, kept: KeptConnection, line: &Arc<Line>) {
        let is_own = {
            let mut kernel = line.lock();
            kernel.is_moved = false;
            kernel.is_own
        };
        let socket = Socket::new(line, is_own);
        let script = Arc::new(self.script.clone());
        let task = self.executor.spawn(run(self.hub.clone(), socket, kept, script));
        let peer = self.peers.iter_mut().find(|peer| Arc::ptr_eq(&peer.line, line));
        match peer {
            Some(peer) => peer.task = task,
            None => {
                let posters = self.posters.iter_mut().map(|own| (&own.line, &mut own.task));
                let pollers = self.pollers.iter_mut().map(|own| (&own.line, &mut own.task));
                let mut own = posters.chain(pollers).filter(|own| Arc::ptr_eq(own.0, line));
                *own.next().expect("its line is known").1 = task;
            }
        }
    }

    /// Has the hub stand still, for as long as that takes.
    fn hand_over(&mut self) -> HandOver {
        let slot = Rc::new(RefCell::new(None));
        let (hub, answer) = (self.hub.clone(), Rc::clone(&slot));
        self.executor.spawn(async move {
            *answer.borrow_mut() = Some(hub.hand_over().await.expect("the manager runs"));
        });
        let mut waited = Duration::ZERO;
        loop {
            while self.executor.tick(&mut self.rng) {}
            if let Some(hand_over) = slot.borrow_mut().take() {
                return hand_over;
            }
            let next = self.time.until_next().expect("it waits for time");
            self.advance(next);
            waited += next;
            assert!(waited <= STANDS_MAX, "the hub stands still for {waited:?}");
        }
    }
}
