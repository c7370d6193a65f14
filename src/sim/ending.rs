//! The end of a simulated hub: the drain, and what is left of it.

use std::time::Duration;

use crate::disconnect::Disconnect;
use crate::sim::journal::event;
use crate::sim::peer::{Voice, Way};
use crate::sim::world::{TICKS_MAX, World};

/// The longest time that anything may take to end by itself: every wait there is, one after
/// another, is shorter.
const ENDING_MAX: Duration = Duration::from_secs(20 * 60);

impl World {
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

    pub(super) fn drain(&mut self) {
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
        self.come_to_rest();
        while self.executor.runs(drain) {
            let next = self.time.until_next().expect("a drain waits for time");
            self.advance(next);
            waited += next;
            assert!(waited <= deadline, "a drain takes {waited:?} of {deadline:?}");
            self.come_to_rest();
        }
        assert!(!self.executor.runs(self.manager), "a drained hub has ended");
    }

    /// As [`rest`](Self::rest), without the checks: for a world whose drain goes on.
    pub(super) fn come_to_rest(&mut self) {
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

    pub(super) fn everyone_may_end(&mut self, codes: &[u16]) {
        for n in 0..self.peers.len() {
            self.script.notes().may_end(n, codes);
        }
    }

    /// Lets time pass until no connection is left.
    pub(super) fn wait_for_all(&mut self) {
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
    pub(super) fn forget_rooms(&mut self) {
        let age = self.hub.shared().config.history_age;
        if !age.is_zero() {
            // By time alone: no command comes.
            self.advance(age);
            self.come_to_rest();
            self.advance(Duration::from_millis(1_100));
            self.come_to_rest();
        }
    }
}
