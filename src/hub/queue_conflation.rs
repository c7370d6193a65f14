//! What the queue of a client does that hears the newest message of its room, at most one an interval.

use std::time::Duration;

use crate::hub::batch::{Audience, Batch};
use crate::hub::conflation::{Conflation, Newest};
use crate::hub::cursor::Reader;
use crate::hub::positions::Numbering;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::Push;
use crate::hub::queue_state::{Phase, State, wake_task};
use crate::hub::state;
use crate::message::Message;
use crate::sync::MutexGuard;

impl Queue {
    /// Has the client hear the newest message of its room at most once an interval, before anything is
    /// pushed. `now` is the time on the clock of the timers.
    pub(crate) fn conflate(&self, interval: Duration, now: Duration) {
        let conflation = Conflation::new(interval, now, &self.queue_config.memory);
        self.lock().extras.get_or_insert_default().conflation = Some(conflation);
    }

    /// The same, with what another process had.
    pub(crate) fn restore_conflation(&self, plain: state::Conflation, now: Duration) {
        let conflation = Conflation::restored(plain, now, &self.queue_config.memory);
        self.lock().extras.get_or_insert_default().conflation = Some(conflation);
    }

    /// Whether the client hears the newest message of its room only.
    pub(crate) fn is_conflated(&self) -> bool {
        self.lock().is_conflated()
    }

    /// Has the newest message that the room keeps be the first one of a client that comes, behind the
    /// position that it is told. Returns whether it waits now: not in a client that has ended.
    pub(crate) fn begin_with(&self, message: &Message, last_position: u64) -> bool {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Handshaking | Phase::Open) {
            return false;
        }
        let (message, position) = (message.clone(), Some(last_position + 1));
        let since = self.queue_config.memory.tick();
        let newest = Newest { message, position, last_position, owed: None, since };
        let conflation = state.conflation();
        conflation.map(|conflation| conflation.put(newest)).is_some()
    }

    /// Takes the messages of a batch for the room of a conflated client, or for all: the last one waits
    /// for its time, and everything before it is lost to the client.
    #[cold]
    pub(super) fn push_conflated(
        &self,
        mut state: MutexGuard<'_, State>,
        batch: &Batch<'_>,
    ) -> Push {
        if !matches!(state.phase, Phase::Handshaking | Phase::Open) {
            return Push::Gone;
        }
        let Some((last, left_out)) = batch.messages().split_last() else { return Push::Ok };
        let last_position = state.position().unwrap_or(0);
        let mut numbering = Numbering::Off;
        if let Some(cursor) = state.cursor() {
            let before = cursor.position();
            if cursor.reader == Reader::Numbered {
                numbering = Numbering::None;
            }
            if cursor.counts(batch.audience()) {
                let len = batch.messages().len();
                cursor.pass_over(batch.span(len), len);
                cursor.hand_over(batch.span(len), len);
                if cursor.reader == Reader::Numbered {
                    numbering = Numbering::Behind(before);
                }
            }
        }
        let newest = Newest {
            message: last.clone(),
            position: numbering.at(left_out.len()),
            last_position,
            owed: batch.ack.map(|ack| ack.owe()),
            since: self.queue_config.memory.tick(),
        };
        let is_replaced = state.conflation().is_some_and(|conflation| conflation.put(newest));
        let missed = left_out.len() + usize::from(is_replaced);
        state.miss(missed as u64, &self.queue_config);
        if !is_replaced {
            // The task waits for its time.
            wake_task(state);
        }
        Push::Ok
    }

    /// Lets the message go that has waited for its time, if nothing else waits: the drain that follows
    /// writes it.
    pub(crate) fn release(&self, now: Duration) {
        let mut state = self.lock();
        if !state.may_release() {
            return;
        }
        let Some(newest) = state.conflation().and_then(|conflation| conflation.take(now)) else {
            return;
        };
        let terms = state.terms();
        let queue_config = terms.as_deref().unwrap_or(&self.queue_config);
        let backlog = self.backlog(&mut state);
        // Where nothing waits, the longest message fits.
        let fits = backlog.push_kept(&newest.message, newest.position, queue_config);
        if let Some(owed) = newest.owed.filter(|_| fits) {
            backlog.owe(0, owed, queue_config);
        }
        state.forget_empty_backlog();
        state.miss(u64::from(!fits), &self.queue_config);
    }
}

impl State {
    pub(super) fn conflation(&mut self) -> Option<&mut Conflation> {
        self.extras.as_mut()?.conflation.as_deref_mut()
    }

    pub(super) fn is_conflated(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.conflation.is_some())
    }

    /// Whether messages to such an audience are conflated for this client: those of its room, and those
    /// to all, which count in each room.
    pub(super) fn conflates(&self, batch: &Batch<'_>) -> bool {
        self.is_conflated() && (batch.room.is_some() || batch.audience() == Audience::All)
    }

    /// Whether a message that waits for its time may follow what was written.
    fn may_release(&self) -> bool {
        self.is_empty() && matches!(self.phase, Phase::Open | Phase::Closing)
    }

    /// When the next drain has a message that waits for its time, if one does and nothing else.
    pub(super) fn due(&self) -> Option<Duration> {
        let conflation = self.extras.as_ref()?.conflation.as_ref()?;
        conflation.due().filter(|_| self.may_release())
    }

    /// Drops the message that waits for its time; returns how many that were.
    pub(super) fn drop_newest(&mut self) -> usize {
        usize::from(self.conflation().is_some_and(Conflation::give_up))
    }
}
