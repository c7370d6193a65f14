//! Joins and leaves in the log: a line each, or, past ten a second, one line a second for all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use hublet::{Client, Disconnect, Hub, Peer};
use smol::Timer;

/// Lines a second that are written one by one.
const LINES: u32 = 10;

/// The length of the second that lines are counted in.
const SECOND: Duration = Duration::from_secs(1);

/// Writes joins and leaves, and folds storms of them into one line a second.
#[derive(Debug)]
pub(crate) struct Fold {
    hub: Hub,
    second: Mutex<Second>,
    /// Tells [`run`](Self::run) that something was folded.
    folded: Event,
}

/// What happened in the second that runs.
#[derive(Debug)]
struct Second {
    began: Instant,
    /// Lines written one by one.
    lines: u32,
    /// Joins and leaves that were not.
    joined: u32,
    left: u32,
}

impl Fold {
    pub(crate) fn new(hub: Hub) -> Self {
        let second = Second { began: Instant::now(), lines: 0, joined: 0, left: 0 };
        Self { hub, second: Mutex::new(second), folded: Event::new() }
    }

    pub(crate) fn joined(&self, client: &Client, room: &str, peer: &Peer) {
        if self.has_line(|second| second.joined += 1) {
            let connected = self.hub.stats().clients;
            ::log::info!(
                "client {} joined room {room:?} from {peer}, {connected} connected",
                client.id()
            );
        }
    }

    pub(crate) fn left(&self, client: &Client, room: &str, reason: &Disconnect) {
        if self.has_line(|second| second.left += 1) {
            let connected = self.hub.stats().clients;
            ::log::info!(
                "client {} left room {room:?} ({reason}), {connected} connected",
                client.id()
            );
        }
    }

    /// Writes a line for what was folded, a second after the first of it; again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let folded = self.folded.listen();
            if !self.has_folded() {
                folded.await;
            }
            // Also after a line: with several threads more may have been folded while it was
            // written, and that has a second as well.
            Timer::after(SECOND).await;
            self.flush();
        }
    }

    /// Writes the line for what was folded, if anything was; the last one at the end.
    pub(crate) fn flush(&self) {
        let (joined, left) = {
            let mut second = self.second();
            (std::mem::take(&mut second.joined), std::mem::take(&mut second.left))
        };
        if joined + left > 0 {
            let connected = self.hub.stats().clients;
            ::log::info!("{joined} more joined and {left} more left, {connected} connected");
        }
    }

    fn has_folded(&self) -> bool {
        let second = self.second();
        second.joined + second.left > 0
    }

    /// Whether there is a line left in this second; if not, the event is folded by `count`.
    fn has_line(&self, count: impl FnOnce(&mut Second)) -> bool {
        let mut second = self.second();
        if second.began.elapsed() >= SECOND {
            second.began = Instant::now();
            second.lines = 0;
        }
        // While something is folded, what comes later must not overtake it.
        if second.lines < LINES && second.joined + second.left == 0 {
            second.lines += 1;
            return true;
        }
        count(&mut second);
        drop(second);
        self.folded.notify(1);
        false
    }

    fn second(&self) -> MutexGuard<'_, Second> {
        self.second.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
