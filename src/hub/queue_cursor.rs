//! What the queue of a client does that has a cursor: its messages wait in its room while it is behind.

use crate::disconnect::Disconnect;
use crate::hub::ack::Owed;
use crate::hub::backlog::Backlog;
use crate::hub::batch::{Audience, Batch};
use crate::hub::client_id::ClientId;
use crate::hub::cursor::{Cursor, Reader};
use crate::hub::positions::Numbering;
use crate::hub::queue::Queue;
use crate::hub::queue_outcome::{Push, Written};
use crate::hub::queue_state::{Phase, State, wake, wake_task};
use crate::overflow::Overflow;
use crate::stats::add;
use crate::sync::MutexGuard;

impl Queue {
    /// Gives the client a cursor in its room.
    pub(crate) fn set_cursor(&self, cursor: Cursor) {
        self.lock().extras.get_or_insert_default().cursor = Some(cursor);
    }

    /// Takes the cursor off a client that has left its room: what waits there counts as lost.
    pub(crate) fn remove_cursor(&self) {
        let mut state = self.lock();
        state.give_up(&self.queue_config);
        if let Some(extras) = &mut state.extras {
            extras.cursor = None;
        }
    }

    /// Whether rooms that keep messages take the place of queues.
    pub(crate) fn replays(&self) -> bool {
        self.lock().queue_overflow(&self.queue_config) == Overflow::Replay
    }

    /// Looks at the cursor of a client that takes messages still.
    pub(crate) fn with_cursor<T>(&self, look: impl FnOnce(&mut Cursor) -> T) -> Option<T> {
        let mut state = self.lock();
        let is_open = matches!(state.phase, Phase::Handshaking | Phase::Open);
        state.cursor().filter(|_| is_open).map(look)
    }

    /// Whether the client hears what it publishes itself.
    pub(crate) fn hears_itself(&self) -> bool {
        self.lock().cursor().is_some_and(|cursor| cursor.hears_itself())
    }

    /// The position that a client was told last, if it is told positions.
    pub(crate) fn last_position(&self) -> Option<u64> {
        self.lock().position()
    }

    /// The client was told of the gap before a position.
    pub(crate) fn note_gap_sent(&self, position: u64) {
        let mut state = self.lock();
        let cursor = state.cursor().filter(|cursor| cursor.position() == position);
        cursor.into_iter().for_each(|cursor| cursor.has_gap = false);
    }

    /// Takes messages that its room keeps, of those that the client is owed; `true` if more of them
    /// wait, and nothing here.
    pub(crate) fn push_kept(&self, batch: &Batch<'_>) -> bool {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Handshaking | Phase::Open) {
            return false;
        }
        state.sent = true;
        self.hand(state, batch);
        self.lock().take_request().is_some()
    }

    /// Notes messages that are not for this client, since it has published them.
    pub(crate) fn leave_out(&self, audience: Audience<'_>, span: u64) {
        let mut state = self.lock();
        let cursor = state.cursor().filter(|cursor| cursor.counts(audience));
        cursor.into_iter().for_each(|cursor| cursor.leave_out(span));
    }

    /// Passes over kept messages that are not for this client, since it has published them; `true`
    /// if more wait, and nothing here.
    pub(crate) fn pass_own(&self, span: u64) -> bool {
        let mut state = self.lock();
        state.cursor().into_iter().for_each(|cursor| cursor.hand_over(span, 0));
        state.take_request().is_some()
    }

    /// The client whose room is to be asked for more, if nothing waits here.
    pub(crate) fn take_request(&self) -> Option<ClientId> {
        self.lock().take_request()
    }

    /// Leaves out what its room keeps no more: all before a position, that counts as lost.
    pub(crate) fn skip_to(&self, position: u64) {
        let mut state = self.lock();
        let lost = state.cursor().map_or(0, |cursor| cursor.skip_to(position));
        if lost > 0 {
            add(&self.queue_config.counters.messages_lost, lost);
            state.extras.get_or_insert_default().missed += lost;
            // The connection tells the client, also if no message follows.
            wake_task(state);
        }
    }

    /// A room has begun a new life at a position, behind a gap. Returns whether the client counts the
    /// messages of that room, so that it has to be closed.
    pub(crate) fn begin_anew(&self, room: &str, position: u64) -> bool {
        let mut state = self.lock();
        let Some(cursor) = state.cursor().filter(|cursor| *cursor.room == *room) else {
            return false;
        };
        let is_counting = cursor.reader == Reader::Counting;
        let lost = cursor.begin_anew(position);
        add(&self.queue_config.counters.messages_lost, lost);
        // The task of a client that is told of the gap does so now.
        wake_task(state);
        is_counting
    }

    /// Evicts a client whose next message its room keeps no more.
    ///
    /// For the registry, which removes it.
    pub(crate) fn evict_overtaken(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Handshaking | Phase::Open) {
            let code = Disconnect::SLOW.code();
            let reason = Disconnect::new(code, "too slow: its next message is kept no more");
            state.end().reason.get_or_insert(reason);
            state.evict(&self.queue_config, 0);
            state.id = None;
            wake_task(state);
        }
    }

    /// Takes a batch for a client that has a cursor or labels, or has missed messages.
    #[inline(never)]
    pub(super) fn push_with_extras(
        &self,
        mut state: MutexGuard<'_, State>,
        batch: &Batch<'_>,
    ) -> Push {
        let is_open = matches!(state.phase, Phase::Handshaking | Phase::Open);
        let overflow = state.queue_overflow(&self.queue_config);
        if state.conflates(batch) {
            return self.push_conflated(state, batch);
        }
        if state.has_labels() && !batch.is_answer() {
            // Such a client has no cursor.
            let labelled = batch.labelled(&self.queue_config.memory);
            return self.write_or_wait(state, labelled, Numbering::Off);
        }
        let Some(cursor) = state.cursor() else {
            return self.write_or_wait(state, batch, Numbering::Off);
        };
        let is_counted = cursor.counts(batch.audience());
        let is_numbered = cursor.reader == Reader::Numbered;
        if !is_counted {
            if cursor.reader == Reader::Counting && !batch.is_answer() {
                return Push::Refused;
            }
            let numbering = if is_numbered { Numbering::None } else { Numbering::Off };
            return self.write_or_wait(state, batch, numbering);
        }
        if !is_open {
            return Push::Gone;
        }
        let (len, was_behind, before) =
            (batch.messages().len(), cursor.is_behind(), cursor.position());
        cursor.pass_over(batch.span(len), len);
        if was_behind || cursor.keeps && overflow == Overflow::Replay {
            if was_behind || !state.is_empty() {
                self.owe_later(&mut state, batch);
            } else {
                self.hand(state, batch);
            }
            return Push::Ok;
        }
        cursor.hand_over(batch.span(len), len);
        let numbering = if is_numbered { Numbering::Behind(before) } else { Numbering::Off };
        self.write_or_wait(state, batch, numbering)
    }

    /// Owes an acknowledgement for a message that stays in the client's room for now.
    fn owe_later(&self, state: &mut State, batch: &Batch<'_>) {
        if let (Some(ack), Some(cursor)) = (batch.ack, state.cursor()) {
            cursor.owe(ack, &self.queue_config.memory);
        }
    }

    /// Hands a client messages that it is owed, as many as fit; the others stay in its room.
    fn hand(&self, mut state: MutexGuard<'_, State>, batch: &Batch<'_>) {
        let was_empty = state.is_empty();
        let waiting = state.backlog.as_ref().map_or(0, |backlog| backlog.len());
        let mut taken = match self.write_through(&mut state, batch, 0) {
            Written::Whole => batch.messages().len(),
            Written::Part(first) => first,
            Written::Failed(waker) => {
                // With what the cursor owes, the messages are counted as lost.
                drop(state);
                return wake(waker);
            }
        };
        let is_program = state.is_program();
        let terms = state.terms();
        let queue_config = terms.as_deref().unwrap_or(&self.queue_config);
        let State { extras, backlog, encoding, direct_writer, .. } = &mut *state;
        let Some(cursor) = extras.as_mut().and_then(|extras| extras.cursor.as_mut()) else {
            return;
        };
        let numbering = match cursor.reader {
            Reader::Numbered => Numbering::Behind(cursor.position()),
            Reader::Plain | Reader::Counting => Numbering::Off,
        };
        // Where the room is the queue, one message waits for the writer, which says when more fits.
        let replays = cursor.keeps && queue_config.overflow == Overflow::Replay;
        let is_one = replays && direct_writer.is_some();
        while taken < batch.messages().len() && !(is_one && backlog.is_some()) {
            let new = || Backlog::new(*encoding, self.queue_config.memory.tick());
            let (message, position) = (&batch.messages()[taken], numbering.at(taken));
            let backlog = backlog.get_or_insert_with(new);
            if !backlog.push_kept(message, position, queue_config) {
                break;
            }
            if let Some(ack) = batch.ack {
                backlog.owe(backlog.len() - 1, ack.owe(), &self.queue_config);
            }
            if is_program {
                backlog.note_room(batch.room, queue_config);
            }
            taken += 1;
        }
        let before = cursor.position();
        cursor.hand_over(batch.span(taken), taken);
        let owed = cursor.take_acks();
        if !owed.is_empty() {
            let waits = backlog.as_ref().map_or(0, |backlog| backlog.len()) - waiting;
            self.hand_owed(&mut state, owed, batch, (before, taken - waits, waiting));
        }
        if taken == 0 {
            self.owe_later(&mut state, batch);
        }
        state.forget_empty_backlog();
        if was_empty && !state.is_empty() {
            wake_task(state);
        }
    }

    /// Acknowledges messages that the client was handed from its room: `written` of the batch behind
    /// the position `before` are with the kernel, the others are in the backlog, behind `waiting`.
    #[cold]
    fn hand_owed(
        &self,
        state: &mut State,
        owed: Vec<(u64, Owed)>,
        batch: &Batch<'_>,
        (before, written, waiting): (u64, usize, usize),
    ) {
        for (position, owed) in owed {
            match (batch.index_of(position.saturating_sub(before)), &mut state.backlog) {
                (Some(index), _) if index < written => owed.deliver(),
                (Some(index), Some(backlog)) => {
                    backlog.owe(waiting + index - written, owed, &self.queue_config);
                }
                // It was not for this client.
                _ => {}
            }
        }
    }
}
