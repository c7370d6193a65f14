//! The pace of the pipe's input: as fast as the members of its room read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hublet::{ClientId, Error, Hub, Reactor};

use crate::plan::Plan;

/// The first pause while a member is behind; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(1);

/// The longest pause: the delay after a member has caught up.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Back-pressure: keeps the input from overflowing the queues of the room's members.
///
/// Between two checks of the members it publishes at most half of what a queue holds. It goes on
/// only while no queue is more than half full. So a member that reads is not evicted.
pub(crate) struct Pace {
    pub(crate) hub: Hub,
    reactor: Reactor,
    pub(crate) room: Arc<str>,
    /// Messages that a queue may hold.
    queue: usize,
    /// Bytes that a queue may hold.
    queue_bytes: usize,
    /// How long to wait for a member that is behind.
    patience: Duration,
    /// Messages that may be published before the next check.
    messages: usize,
    /// Bytes of frames that may be published before the next check.
    bytes: usize,
    /// When the input began.
    began: Instant,
    /// Members that were behind at the last check, and since when, in milliseconds after `began`.
    /// Numbers, as the clock of tokens has them: each type of table has its code in the binary.
    behind: HashMap<ClientId, u64>,
}

impl Pace {
    pub(crate) fn new(hub: &Hub, reactor: &Reactor, room: &Arc<str>, plan: &Plan) -> Self {
        Self {
            hub: hub.clone(),
            reactor: reactor.clone(),
            room: Arc::clone(room),
            queue: plan.queue,
            queue_bytes: plan.queue_bytes,
            patience: plan.write_timeout,
            messages: 0,
            bytes: 0,
            began: Instant::now(),
            behind: HashMap::new(),
        }
    }

    /// Waits until a message with a frame of `bytes` may be published.
    pub(crate) async fn keep(&mut self, bytes: usize) -> Result<(), Error> {
        if self.messages == 0 || self.bytes < bytes {
            let half = self.queue_bytes / 2;
            // A frame that is longer than half a queue needs more free room than half.
            let full = half.min(self.queue_bytes.saturating_sub(bytes));
            self.wait(self.queue / 2, full).await?;
            self.messages = (self.queue / 2).max(1);
            self.bytes = half.max(bytes);
        }
        self.messages -= 1;
        self.bytes -= bytes;
        Ok(())
    }

    /// Waits until all queues are empty.
    pub(crate) async fn wait_for_all(&mut self) -> Result<(), Error> {
        self.wait(0, 0).await
    }

    /// Waits until no queue holds more than `messages` and `bytes`, except queues of members that
    /// have been behind for longer than `patience`.
    async fn wait(&mut self, messages: usize, bytes: usize) -> Result<(), Error> {
        let mut pause = PAUSE;
        loop {
            let members = self.hub.presence(&self.room).await?;
            let now = self.began.elapsed().as_millis() as u64;
            let behind = members
                .iter()
                .filter(|member| member.waiting > messages || member.waiting_bytes > bytes)
                .map(|member| (member.id, *self.behind.get(&member.id).unwrap_or(&now)));
            self.behind = behind.collect();
            let patience = self.patience.as_millis() as u64;
            if self.behind.values().all(|since| now - since >= patience) {
                return Ok(());
            }
            self.reactor.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
