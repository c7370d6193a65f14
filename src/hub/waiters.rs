//! Readers that wait for the next message of a room, and are no clients.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::reply::Reply;
use crate::hub::since::{History, Missed, Since};
use crate::hub::topic::Topic;
use crate::message::Message;

/// Readers that wait before those that have given up are looked for.
const SWEEP_MIN: usize = 64;

/// The readers that wait, by room. A reader makes no room: it waits for one that is not there as well.
///
/// Each has the permit of a client. A reader that gives up stays in its list until a
/// message comes, or until half of those of its room have given up. So there are at most twice as
/// many as permits, and [`SWEEP_MIN`], and a room that all have given up has none.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    rooms: HashMap<Arc<str>, Waiting>,
    /// How many there are in all rooms.
    len: usize,
    /// How many there may be before those that have given up are looked for.
    sweep_at: usize,
    /// With a backplane: rooms that have lost their last reader and that the manager has not taken.
    vacated: Option<Vec<Topic>>,
}

/// The readers that wait for one room.
#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<Waiter>,
    /// How many of them have said that they have given up.
    given_up: usize,
}

impl Waiting {
    /// Forgets the readers that have given up, each looked at; returns how many.
    fn sweep(&mut self) -> usize {
        let before = self.waiters.len();
        self.waiters.retain(|waiter| waiter.reply.is_awaited());
        self.given_up = 0;
        before - self.waiters.len()
    }
}

/// A reader that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    since: Since,
    reply: Reply<History>,
}

impl Waiter {
    /// Hands the reader a message, the first behind the position `before`.
    pub(crate) fn hear(self, message: &Message, before: u64) {
        let missed = match self.since {
            // The room was not there, or has begun another life.
            Since::Position(n) if n != before => Missed::Unknown,
            _ => Missed::Nothing,
        };
        let messages = vec![message.clone()];
        let newest = before + 1;
        self.reply.answer(History { newest, oldest: None, position: before, missed, messages });
    }
}

impl Waiters {
    /// Notes each room from now on that loses its last reader.
    pub(crate) fn note_vacated(&mut self) {
        self.vacated = Some(Vec::new());
    }

    /// Takes the rooms that have lost their last reader since the last call.
    pub(crate) fn take_vacated(&mut self) -> Vec<Topic> {
        self.vacated.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a reader waits for a message of a topic.
    pub(crate) fn are_any(&self, topic: &Topic) -> bool {
        matches!(topic, Topic::Room(room) if self.rooms.contains_key(room))
    }

    /// Adds a reader, which has all that is there, unless it has given up.
    pub(crate) fn add(&mut self, room: Arc<str>, since: Since, reply: Reply<History>) {
        if !reply.is_awaited() {
            return;
        }
        if self.len >= self.sweep_at.max(SWEEP_MIN) {
            self.sweep();
            self.sweep_at = 2 * self.len;
        }
        self.rooms.entry(room).or_default().waiters.push(Waiter { since, reply });
        self.len += 1;
    }

    /// Notes that a reader of a room has given up.
    pub(crate) fn give_up(&mut self, room: &str) {
        let Some(waiting) = self.rooms.get_mut(room) else { return };
        waiting.given_up += 1;
        if 2 * waiting.given_up < waiting.waiters.len() {
            return;
        }
        self.len -= waiting.sweep();
        if waiting.waiters.is_empty() {
            self.take(room);
        }
    }

    /// Whether no reader waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out the readers of a room.
    pub(crate) fn take(&mut self, room: &str) -> Vec<Waiter> {
        let Some((room, Waiting { waiters, .. })) = self.rooms.remove_entry(room) else {
            return Vec::new();
        };
        self.vacated.iter_mut().for_each(|vacated| vacated.push(Topic::Room(Arc::clone(&room))));
        self.len -= waiters.len();
        if self.rooms.is_empty() {
            self.rooms = HashMap::new();
        }
        waiters
    }

    /// The rooms that readers wait for.
    pub(crate) fn rooms(&self) -> Vec<Arc<str>> {
        self.rooms.keys().cloned().collect()
    }

    /// Forgets all readers that have given up.
    pub(crate) fn sweep(&mut self) {
        let Self { rooms, vacated, len, .. } = self;
        rooms.retain(|room, waiting| {
            *len -= waiting.sweep();
            if let (true, Some(vacated)) = (waiting.waiters.is_empty(), vacated.as_mut()) {
                vacated.push(Topic::Room(Arc::clone(room)));
            }
            !waiting.waiters.is_empty()
        });
        if *len == 0 {
            self.rooms = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::hub::reply::{Answer, reply};

    fn wait(waiters: &mut Waiters, room: &str, since: Since) -> Answer<History> {
        let (reply, answer) = reply();
        waiters.add(room.into(), since, reply);
        answer
    }
    #[test]
    fn a_reader_hears_the_next_message_and_what_it_cannot_know() {
        let mut waiters = Waiters::default();
        let cases = [
            (Since::Now, Missed::Nothing),
            (Since::Oldest, Missed::Nothing),
            (Since::Newest(1), Missed::Nothing),
            (Since::Position(7), Missed::Nothing),
            (Since::Position(6), Missed::Unknown),
            (Since::Position(8), Missed::Unknown),
        ];
        let answers = cases.map(|(since, _)| wait(&mut waiters, "a", since));
        let mut other = wait(&mut waiters, "b", Since::Now);
        for waiter in waiters.take("a") {
            waiter.hear(&"hello".into(), 7);
        }
        for (answer, (since, missed)) in answers.into_iter().zip(cases) {
            let heard = block_on(answer).expect("a message");
            assert_eq!((heard.position, heard.newest, heard.missed), (7, 8, missed), "{since}");
            assert_eq!(heard.messages, [Message::from("hello")]);
        }
        assert!(block_on(poll_once(&mut other)).is_none(), "it waits for another room");
        assert_eq!(waiters.rooms(), [Arc::from("b")]);
    }
    #[test]
    fn readers_that_give_up_are_forgotten() {
        let mut waiters = Waiters::default();
        let mut patient = wait(&mut waiters, "patient", Since::Now);
        for round in 0..1_000 {
            // The manager does not hear of these.
            drop(wait(&mut waiters, &format!("room {round}"), Since::Now));
            assert!(waiters.len <= SWEEP_MIN, "{}", waiters.len);
        }
        waiters.sweep();
        assert_eq!(waiters.len, 1);
        waiters.give_up("another room");
        assert!(block_on(poll_once(&mut patient)).is_none(), "it waits still");
        drop(patient);
        waiters.give_up("patient");
        assert!(waiters.is_empty() && waiters.rooms.capacity() == 0);
    }
    /// With a backplane the hub hears a room as long as a reader waits for it.
    #[test]
    fn a_room_is_vacated_with_its_last_reader() {
        let mut waiters = Waiters::default();
        waiters.note_vacated();
        let _others: Vec<_> = (0..9).map(|_| wait(&mut waiters, "other", Since::Now)).collect();
        let room = Topic::Room("main".into());
        for readers in [1, 2, 3, 8, 50] {
            let mut answers: Vec<_> =
                (0..readers).map(|_| wait(&mut waiters, "main", Since::Now)).collect();
            while answers.pop().is_some() {
                let left = answers.len() + 1;
                assert!(waiters.take_vacated().is_empty(), "{left} of {readers} wait");
                waiters.give_up("main");
            }
            let vacated = waiters.take_vacated();
            assert!(vacated.iter().eq([&room]), "{readers} have given up: {vacated:?}");
            assert!(!waiters.are_any(&room));
        }
        let (reply, answer) = reply();
        drop(answer);
        waiters.add("main".into(), Since::Now, reply);
        assert!(!waiters.are_any(&room), "it has given up before it was added");
        assert_eq!(waiters.len, 9);
    }
}
