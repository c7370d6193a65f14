//! Joins and leaves in the log: a line each, up to ten a second; one line a second for the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use hublet::{Client, Disconnect, Hub, Peer, Reactor};

/// Joins and leaves a second that get a line of their own.
const LINES: u32 = 10;

/// The interval in which lines are counted.
const SECOND: Duration = Duration::from_secs(1);

/// Logs joins and leaves, and summarises those beyond [`LINES`] in one line a second.
#[derive(Debug)]
pub(crate) struct JoinLog {
    hub: Hub,
    second: Mutex<Second>,
    /// Wakes [`run`](Self::run) when a join or leave waits for the summary.
    folded: Event,
}

/// Joins and leaves of the current second.
#[derive(Debug)]
struct Second {
    began: Instant,
    /// Lines written in this second.
    lines: u32,
    /// Joins that wait for the summary.
    joined: u32,
    /// Leaves that wait for the summary.
    left: u32,
}

impl JoinLog {
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

    /// Writes each summary, a second after its first join or leave. Runs for ever.
    pub(crate) async fn run(self: Arc<Self>, reactor: Reactor) {
        loop {
            let folded = self.folded.listen();
            if !self.has_folded() {
                folded.await;
            }
            // Also right after a summary: another thread may have added to the next one while it
            // was written, and that one also waits a second.
            reactor.sleep(SECOND).await;
            self.flush();
        }
    }

    /// Writes the summary, if it is not empty. Also called at the end of the process.
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

    /// Whether an event may have a line of its own in this second. If not, `count` adds it to the
    /// summary.
    fn has_line(&self, count: impl FnOnce(&mut Second)) -> bool {
        let mut second = self.second();
        if second.began.elapsed() >= SECOND {
            second.began = Instant::now();
            second.lines = 0;
        }
        // While a summary waits, later events join it, so that the log keeps the order.
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
