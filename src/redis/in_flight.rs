//! The commands that were written to the server and are not answered. Plain data.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::client_id::ClientId;
use crate::hub::command::{Carry, Dispatched, NotPublished, Publish, PublishReply};
use crate::hub::reply::Reply;
use crate::hub::since::{History, Since};
use crate::hub::topic::Topic;
use crate::message::Message;

/// Messages that are published and not answered, at most. Beyond it they wait in the outbox.
pub(crate) const MESSAGES_MAX: usize = 256;

/// Bytes of those messages at most; one message of any allowed length fits.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// Bytes that the answers to what rooms keep may have, at most, and those of one answer more. Less
/// than the 8 MiB at which a server cuts, after a minute, a client that hears channels, and by far
/// less than the 32 MiB at which it does so at once.
pub(crate) const READS_MAX: usize = 4 * 1024 * 1024;

/// Commands in the order in which they were written. The server answers in that order.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    sent: VecDeque<Sent>,
    /// For each question for what a room keeps, in their order: the bytes that its answer may have.
    reads: VecDeque<usize>,
    /// Messages of this hub on channels that it hears, which come back in their order: where the
    /// recipients of each are answered. Some servers send such a message before the answer to its
    /// command, others behind it.
    own: VecDeque<(u64, Option<PublishReply>)>,
    /// Counts messages; the next one's number.
    next: u64,
    messages: usize,
    bytes: usize,
    reads_bytes: usize,
}

/// A message with its position, on its way to members.
pub(crate) struct Positioned {
    pub(crate) position: u64,
    pub(crate) except: Option<ClientId>,
    pub(crate) message: Message,
}

/// A command that was written.
#[derive(Debug)]
pub(crate) enum Sent {
    Publish(Published),
    /// The channels of these topics, of which so many are not confirmed.
    Subscribe {
        topics: Vec<Topic>,
        left: usize,
    },
    /// So many channels are not confirmed to be left.
    Unsubscribe {
        left: usize,
    },
    /// What a room keeps is asked for.
    Read(Arc<str>),
    /// The same for a reader that is no member.
    Query(Box<KeptQuery>),
    /// The channels of all hubs are asked for.
    Hubs,
    /// What another hub says of its rooms is asked for.
    Counts,
    /// The answer matters only if it is an error.
    Other,
}

/// A question for what a room keeps.
#[derive(Debug)]
pub(crate) struct KeptQuery {
    pub(crate) room: Arc<str>,
    pub(crate) since: Since,
    pub(crate) limit: usize,
    pub(crate) reply: Reply<Option<History>>,
}

/// A message that was published.
#[derive(Debug)]
pub(crate) struct Published {
    number: u64,
    bytes: usize,
    /// Hears the recipients, if the message does not come back to this hub.
    reply: Option<PublishReply>,
    hubs: Option<Reply<Result<usize, NotPublished>>>,
    /// The message, if it may have to be sent again.
    again: Option<Box<Publish>>,
}

impl InFlight {
    /// Whether another message may be published now.
    pub(crate) fn has_room(&self) -> bool {
        self.messages < MESSAGES_MAX && self.bytes < BYTES_MAX
    }

    /// Whether another question for what a room keeps may be sent now.
    pub(crate) fn may_read(&self) -> bool {
        self.reads_bytes < READS_MAX
    }

    /// Notes a question for what a room keeps, whose answer may have so many bytes.
    pub(crate) fn read(&mut self, sent: Sent, bytes: usize) {
        self.reads.push_back(bytes);
        self.reads_bytes += bytes;
        self.sent.push_back(sent);
    }

    /// Notes a message that is published. `comes_back` says whether this hub hears its channel.
    pub(crate) fn publish(
        &mut self,
        bytes: usize,
        reply: Option<PublishReply>,
        hubs: Option<Reply<Result<usize, NotPublished>>>,
        comes_back: bool,
        again: Option<Box<Publish>>,
    ) {
        let number = self.next;
        self.next += 1;
        self.messages += 1;
        self.bytes += bytes;
        let reply = if comes_back {
            self.own.push_back((number, reply));
            None
        } else {
            reply
        };
        self.sent.push_back(Sent::Publish(Published { number, bytes, reply, hubs, again }));
    }

    /// Notes any other command.
    pub(crate) fn push(&mut self, sent: Sent) {
        self.sent.push_back(sent);
    }

    /// Takes the reply to the publisher of the next own message.
    pub(crate) fn came_back(&mut self) -> Option<PublishReply> {
        self.own.pop_front().and_then(|(_, reply)| reply)
    }

    /// A channel is confirmed, or left: counts that for the first command that waits for it.
    /// Returns the command if it is done.
    pub(crate) fn confirm(&mut self) -> Option<Sent> {
        if let Some(Sent::Subscribe { left, .. } | Sent::Unsubscribe { left }) =
            self.sent.front_mut()
        {
            *left -= 1;
            if *left == 0 {
                return self.sent.pop_front();
            }
        }
        None
    }

    /// Takes the command that an answer is for.
    pub(crate) fn answered(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        match &sent {
            Sent::Publish(published) => {
                self.messages -= 1;
                self.bytes -= published.bytes;
            }
            Sent::Read(_) | Sent::Query(_) => {
                self.reads_bytes -= self.reads.pop_front().unwrap_or_default();
            }
            _ => {}
        }
        Some(sent)
    }

    /// Takes a message back that was not published, and whether it would come back to this hub.
    pub(crate) fn take_back(&mut self, published: Published) -> Option<(Carry, bool)> {
        let Published { number, reply, hubs, again, .. } = published;
        let index = self.own.iter().position(|(own, _)| *own == number);
        let own = index.and_then(|index| self.own.remove(index));
        let comes_back = own.is_some();
        let reply = own.map_or(reply, |(_, reply)| reply);
        again.map(|publish| (Carry { publish: *publish, reply, hubs }, comes_back))
    }

    /// The answer to a message says how many hubs heard it, and its position if it has one.
    pub(crate) fn published(&mut self, published: Published, hubs: usize, position: Option<u64>) {
        // Earlier messages have come back by now, or their channel was refused.
        while self.own.front().is_some_and(|(number, _)| *number < published.number) {
            if let Some((_, Some(reply))) = self.own.pop_front() {
                reply.answer(Dispatched::to(0));
            }
        }
        if let Some(reply) = published.hubs {
            reply.answer(Ok(hubs));
        }
        if let Some(reply) = published.reply {
            reply.answer(Dispatched { position, ..Dispatched::to(0) });
        }
    }

    /// The answer to a message is an error: it does not come back.
    pub(crate) fn refused(&mut self, published: Published) {
        self.own.retain(|(number, _)| *number != published.number);
        if let Some(reply) = published.hubs {
            reply.answer(Err(NotPublished));
        }
    }

    /// Whether channels are not confirmed, or what their rooms keep is on its way.
    pub(crate) fn is_subscribing(&self) -> bool {
        self.sent.iter().any(|sent| matches!(sent, Sent::Subscribe { .. } | Sent::Read(_)))
    }

    /// Messages that are not answered.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::hub::reply::{Answer, reply};

    /// Publishes a message; returns where its recipients and its hubs are told.
    fn publish(
        in_flight: &mut InFlight,
        comes_back: bool,
    ) -> (Answer<Dispatched>, Answer<Result<usize, NotPublished>>) {
        let ((reply, recipients), (heard, hubs)) = (reply(), reply());
        in_flight.publish(100, Some(PublishReply::new(reply, None)), Some(heard), comes_back, None);
        (recipients, hubs)
    }
    fn answer(in_flight: &mut InFlight, hubs: Option<usize>) {
        let Some(Sent::Publish(published)) = in_flight.answered() else { panic!("no message") };
        match hubs {
            Some(hubs) => in_flight.published(published, hubs, None),
            None => in_flight.refused(published),
        }
    }
    fn to(recipients: usize) -> Option<Option<Dispatched>> {
        Some(Some(Dispatched::to(recipients)))
    }
    fn answered<T>(answer: Answer<T>) -> Option<Option<T>> {
        block_on(poll_once(answer))
    }

    /// Redis up to 7.0 sends a hub its own message before the answer, later versions behind it.
    #[test]
    fn an_own_message_comes_before_its_answer_or_behind_it() {
        for before in [true, false] {
            let mut in_flight = InFlight::default();
            let (first, hubs) = publish(&mut in_flight, true);
            let (elsewhere, _) = publish(&mut in_flight, false);
            if before {
                in_flight.came_back().expect("the first").answer(Dispatched::to(5));
                answer(&mut in_flight, Some(2));
            } else {
                answer(&mut in_flight, Some(2));
                in_flight.came_back().expect("the first").answer(Dispatched::to(5));
            }
            assert_eq!((answered(first), answered(hubs)), (to(5), Some(Some(Ok(2)))));
            answer(&mut in_flight, Some(1));
            assert_eq!(answered(elsewhere), to(0), "no client of this hub took it");
            assert_eq!((in_flight.messages(), in_flight.bytes), (0, 0));
        }
    }
    #[test]
    fn a_refused_message_is_not_among_those_that_come_back() {
        let mut in_flight = InFlight::default();
        let (refused, hubs) = publish(&mut in_flight, true);
        let (next, _) = publish(&mut in_flight, true);
        answer(&mut in_flight, None);
        assert_eq!(answered(hubs), Some(Some(Err(NotPublished))));
        assert_eq!(answered(refused), Some(None), "no answer will come");
        in_flight.came_back().expect("the next").answer(Dispatched::to(3));
        assert_eq!(answered(next), to(3));
    }
    #[test]
    fn a_message_that_does_not_come_back_is_passed_over() {
        let mut in_flight = InFlight::default();
        let (lost, _) = publish(&mut in_flight, true);
        let (next, _) = publish(&mut in_flight, true);
        answer(&mut in_flight, Some(1));
        answer(&mut in_flight, Some(1));
        assert_eq!(answered(lost), to(0));
        in_flight.came_back().expect("the next").answer(Dispatched::to(3));
        assert_eq!(answered(next), to(3));
    }
    #[test]
    fn confirmations_are_for_the_first_command_that_waits() {
        let mut in_flight = InFlight::default();
        let topics = vec![Topic::All, Topic::Room("a".into())];
        in_flight.push(Sent::Subscribe { left: topics.len(), topics });
        in_flight.push(Sent::Unsubscribe { left: 1 });
        assert!(in_flight.confirm().is_none());
        assert!(in_flight.is_subscribing());
        assert!(matches!(in_flight.confirm(), Some(Sent::Subscribe { .. })));
        assert!(matches!(in_flight.confirm(), Some(Sent::Unsubscribe { .. })));
        assert!(in_flight.confirm().is_none() && in_flight.answered().is_none());
    }
    #[test]
    fn what_rooms_keep_is_requested_as_far_as_the_answers_fit() {
        let mut in_flight = InFlight::default();
        let read = |in_flight: &mut InFlight| {
            in_flight.read(Sent::Read("a".into()), READS_MAX / 2);
        };
        read(&mut in_flight);
        publish(&mut in_flight, false);
        assert!(in_flight.may_read());
        read(&mut in_flight);
        assert!(!in_flight.may_read());
        assert!(matches!(in_flight.answered(), Some(Sent::Read(_))));
        assert!(in_flight.may_read());
        answer(&mut in_flight, Some(1));
        assert!(matches!(in_flight.answered(), Some(Sent::Read(_))));
        assert_eq!(in_flight.reads_bytes, 0);
    }
    #[test]
    fn messages_are_bounded_in_number_and_in_bytes() {
        let mut in_flight = InFlight::default();
        for _ in 0..MESSAGES_MAX {
            assert!(in_flight.has_room());
            in_flight.publish(1, None, None, false, None);
        }
        assert!(!in_flight.has_room());
        let mut in_flight = InFlight::default();
        in_flight.publish(BYTES_MAX, None, None, false, None);
        assert!(!in_flight.has_room());
    }
}
