//! One connection that is introduced, to its end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::yield_now;

use crate::hub::command::{Carry, Command, Publish, PublishReply};
use crate::hub::link_event::LinkEvent;
use crate::hub::topic::Topic;
use crate::redis::connection::Connection;
use crate::redis::driver::{Driver, HubEnded};
use crate::redis::envelope::Envelope;
use crate::redis::in_flight::{InFlight, KeptQuery, Positioned, Sent};
use crate::redis::incoming::{Answer, Incoming};
use crate::redis::presence::{Listing, Sum, Sums};
use crate::redis::resp;
use crate::stats::add;
use crate::time::clock::now;
use crate::time::timer_list::Tick;

/// Bytes that wait to be written, beyond which no further message is taken from the outbox.
const OUTPUT_BYTES: usize = 64 * 1024;

/// How long the hub may hear no message before it publishes one to itself, and how long that may
/// take. A server can be connected, answer every command, and have forgotten a subscription.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// How often the hub says how many members its rooms have.
const PRESENCE: Duration = Duration::from_secs(10);

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With the hub.
    Hub,
    Lost {
        cause: io::Error,
        /// Whether it had worked.
        was_up: bool,
    },
}

impl From<HubEnded> for End {
    fn from(_: HubEnded) -> Self {
        Self::Hub
    }
}

/// A connection in use.
pub(crate) struct Session<'a> {
    pub(crate) driver: &'a mut Driver,
    pub(crate) connection: Connection,
    pub(crate) in_flight: InFlight,
    pub(crate) sums: Sums,
    /// What the manager is to be told first: what one answer of a room says, at most two commands for
    /// each message that is read at once.
    pub(crate) commands: VecDeque<Command>,
    /// Rooms that what they keep is to be asked for. No more than there are rooms with members, but for
    /// those that had members for a moment.
    pub(crate) reads: VecDeque<Arc<str>>,
    /// A command that was taken from the outbox and not done.
    taken: Option<Command>,
    /// Commands in the outbox that were there when the connection came too late for them.
    stale: usize,
    /// Whether the manager has been told that messages come again.
    is_back: bool,
    pub(crate) is_up: bool,
    /// Whether messages go out again that the server did not know the script for.
    pub(crate) is_retrying: bool,
    /// When the server was lost.
    away_since: Instant,
    /// When the last message came over a channel, or the connection began.
    heard: Instant,
    /// When the hub has published to itself, if nothing was heard since.
    probed: Option<Instant>,
    /// When the rooms of this hub were last kept from being forgotten.
    pub(crate) kept_alive: Instant,
    /// When the hub says again how many members its rooms have.
    presence_due: Instant,
    /// What it said, as a hash.
    pub(crate) said: Option<u64>,
    /// The rooms that the manager lists for that.
    pub(crate) listing: Option<Listing>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(driver: &'a mut Driver, connection: Connection, away_since: Instant) -> Self {
        let begin = now();
        Self {
            driver,
            connection,
            in_flight: InFlight::default(),
            sums: Sums::new(),
            commands: VecDeque::new(),
            reads: VecDeque::new(),
            taken: None,
            stale: 0,
            is_back: false,
            is_up: false,
            is_retrying: false,
            away_since,
            heard: begin,
            probed: None,
            kept_alive: begin,
            presence_due: begin,
            said: None,
            listing: None,
        }
    }

    /// Runs until the connection or the hub ends; returns how, and how many messages were neither
    /// confirmed nor refused.
    pub(crate) async fn run(mut self) -> (End, u64) {
        let end = match self.work().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        (end, self.in_flight.messages() as u64)
    }

    /// The steps are plain functions, and commands go to the manager at one point: each point that waits
    /// would have all of the waiting in the binary.
    async fn work(&mut self) -> Result<Infallible, End> {
        self.subscribe_all();
        loop {
            while let Some(command) = self.step()? {
                self.driver.send_to_hub(command).await?;
            }
            if !self.wait().await? {
                // A server that sends as fast as it is read keeps no other task waiting.
                yield_now().await;
            }
        }
    }

    /// Does what can be done now, up to the next command for the manager. `None` when all is done.
    fn step(&mut self) -> Result<Option<Command>, End> {
        let command = self.commands.pop_front();
        if command.is_some() {
            return Ok(command);
        }
        if self.is_up && !self.driver.link.is_up() {
            // The manager has been told by now.
            self.driver.link.set_up();
        }
        let command = self.handle_all()?;
        if command.is_some() {
            return Ok(command);
        }
        self.send_reads();
        if !self.is_up && !self.in_flight.is_subscribing() {
            return Ok(Some(self.begin()));
        }
        let command = self.follow_wishes();
        if command.is_some() {
            return Ok(command);
        }
        self.take_messages();
        self.keep_time()
    }

    pub(crate) fn lost(&self, cause: io::Error) -> End {
        End::Lost { cause, was_up: self.is_up }
    }

    /// Every channel is subscribed: the hub goes on.
    fn begin(&mut self) -> Command {
        self.is_up = true;
        self.heard = now();
        if self.heard.saturating_duration_since(self.away_since) >= self.driver.patience {
            self.stale = self.driver.outbox.waiting();
        }
        self.driver.topics.values_mut().for_each(|topic| topic.confirmed = true);
        self.driver.up();
        self.when_back(Command::Backplane(LinkEvent::Up))
    }

    /// Returns what the manager is to be told next: a command, or first that messages come again. A
    /// client that counts must not take the message behind a gap for the next one.
    fn when_back(&mut self, command: Command) -> Command {
        if std::mem::replace(&mut self.is_back, true) {
            return command;
        }
        // Nothing else waits here: it would have been told before.
        self.commands.push_front(command);
        Command::Backplane(LinkEvent::Back)
    }

    /// Handles what has come.
    fn handle_all(&mut self) -> Result<Option<Command>, End> {
        loop {
            let incoming = match self.connection.parse() {
                Ok(Some(value)) => Incoming::read(&value, &self.driver.reader),
                Ok(None) => break,
                Err(error) => return Err(self.lost(error)),
            };
            let command = self.handle(incoming)?;
            if command.is_some() {
                return Ok(command);
            }
        }
        add(&self.driver.link.counters.dropped, std::mem::take(&mut self.connection.dropped));
        Ok(None)
    }

    fn handle(&mut self, incoming: Incoming) -> Result<Option<Command>, End> {
        if matches!(incoming, Incoming::Message { .. } | Incoming::Heard | Incoming::TooLong) {
            self.heard = now();
            self.probed = None;
        }
        match incoming {
            Incoming::Message { topic, except, message, is_own, position } => {
                let reply = if is_own { self.in_flight.came_back() } else { None };
                let is_kept = position > 0 && self.driver.script.keeps(&topic);
                if let (Topic::Room(room), true) = (&topic, is_kept) {
                    return Ok(self.follow(room, Positioned { position, except, message }, reply));
                }
                let publish = Publish { target: topic.target(), except, message };
                let command = self.heard(publish, None, reply);
                return Ok(Some(self.when_back(command)));
            }
            Incoming::TooLong => add(&self.driver.link.counters.dropped, 1),
            Incoming::Confirmed => {
                if let Some(Sent::Subscribe { topics, .. }) = self.in_flight.confirm() {
                    return Ok(self.subscribed(topics));
                }
            }
            Incoming::Answer(answer) => return self.answer(answer),
            Incoming::Heard | Incoming::Ignored => {}
        }
        Ok(None)
    }

    /// Hands a message that came over a channel to the manager, compressed if a client has negotiated
    /// that.
    pub(crate) fn heard(
        &self,
        publish: Publish,
        position: Option<u64>,
        reply: Option<PublishReply>,
    ) -> Command {
        if let Some(hub) = self.driver.shared() {
            hub.compress(&publish.message);
        }
        Command::heard(publish, position, reply)
    }

    fn answer(&mut self, answer: Answer) -> Result<Option<Command>, End> {
        let Some(sent) = self.in_flight.answered() else {
            return Err(self.lost(io::Error::other("an answer came to no command")));
        };
        let is_unknown = |error: &String| error.starts_with("NOSCRIPT");
        // What is published on a replica reaches no other server. Connecting again finds out.
        let is_replica = matches!(&answer, Answer::Error(error) if error.starts_with("READONLY"));
        match &answer {
            // A transaction is given up because one of its commands was refused.
            Answer::Error(error) if !is_unknown(error) && !error.starts_with("EXECABORT") => {
                self.driver.refusals.note(error);
            }
            _ => {}
        }
        match (sent, answer) {
            (Sent::Publish(published), Answer::Number(hubs)) => {
                self.in_flight.published(published, hubs, None);
            }
            (Sent::Publish(published), Answer::Positioned { hubs, position }) => {
                self.in_flight.published(published, hubs, Some(position));
            }
            (Sent::Publish(published), Answer::Error(error)) if is_unknown(&error) => {
                self.publish_again(published);
            }
            (Sent::Read(room), Answer::Kept { top, messages }) => {
                self.take_kept(&room, top, messages);
                return Ok(self.commands.pop_front());
            }
            (Sent::Query(query), Answer::Kept { top, messages }) => {
                self.answer_kept(*query, top, messages);
            }
            (Sent::Read(_), _) => return Err(self.unreadable()),
            (Sent::Publish(published), _) => self.in_flight.refused(published),
            (Sent::Subscribe { topics, .. }, _) => {
                if topics.is_empty() {
                    return Err(
                        self.lost(io::Error::other("the server refuses the hub's channels"))
                    );
                }
                topics.iter().for_each(|topic| self.driver.forget(topic));
                return Ok(Some(Command::Backplane(LinkEvent::Refused(topics))));
            }
            (Sent::Hubs, Answer::List(channels)) => self.query_counts(&channels),
            (Sent::Hubs, _) => drop(self.sums.pop_front()),
            (Sent::Counts, answer) => {
                let Some(sum) = self.sums.front_mut() else { return Ok(None) };
                if let Answer::List(fields) = answer {
                    let fields: Vec<_> = fields.iter().map(|field| &**field).collect();
                    sum.add(&fields);
                    sum.hubs += 1;
                }
                sum.left -= 1;
                self.finish_sum();
            }
            (Sent::Unsubscribe { .. } | Sent::Other | Sent::Query(_), _) => {}
        }
        if is_replica {
            return Err(self.lost(io::Error::other("it is a replica now")));
        }
        Ok(None)
    }

    /// Takes messages from the outbox, as many as may be in flight.
    fn take_messages(&mut self) {
        while self.is_up && self.may_send() {
            let Some(command) = self.taken.take().or_else(|| self.driver.outbox.try_next()) else {
                return;
            };
            let is_stale = self.stale > 0;
            self.stale = self.stale.saturating_sub(1);
            match command {
                Command::Carry(carry) => self.publish(*carry, is_stale),
                Command::SumRooms { after, limit, reply } => {
                    self.query_hubs(Sum::new(after, limit, reply));
                }
                Command::ReadKept { room, since, limit, reply } => {
                    self.query_kept(KeptQuery { room, since, limit, reply });
                }
                _ => {}
            }
        }
    }

    fn may_send(&self) -> bool {
        let waits = self.is_retrying && self.in_flight.messages() > 0;
        // A question for what a room keeps may be next in the outbox.
        let may_read = self.in_flight.may_read() && self.reads.is_empty();
        !waits
            && may_read
            && self.in_flight.has_room()
            && self.connection.output.len() < OUTPUT_BYTES
    }

    fn publish(&mut self, carry: Carry, is_stale: bool) {
        let Carry { publish, reply, hubs } = &carry;
        let is_wanted = reply.as_ref().is_none_or(|reply| reply.begin())
            && hubs.as_ref().is_none_or(|hubs| hubs.begin());
        if !is_wanted {
            return;
        }
        if is_stale && reply.is_none() && hubs.is_none() {
            add(&self.driver.link.counters.unconfirmed, 1);
            return;
        }
        let Some(topic) = Topic::of(&publish.target) else { return };
        let comes_back = topic == Topic::All || self.driver.topics.contains_key(&topic);
        self.is_retrying = false;
        self.send(carry, comes_back, false);
    }

    /// Sends a message; with the script that it needs if `is_whole`.
    pub(crate) fn send(&mut self, carry: Carry, comes_back: bool, is_whole: bool) {
        let Carry { publish: Publish { target, except, message }, reply, hubs } = carry;
        let Some(topic) = Topic::of(&target) else { return };
        let driver = &*self.driver;
        let (size, names) = (message.size(), &driver.reader.names);
        let envelope = Envelope::of(driver.link.hub, except, &message);
        let output = &mut self.connection.output;
        let again = match &topic {
            Topic::Room(room) if driver.script.keeps(&topic) => {
                let of = (names, &*driver.run_id);
                driver.script.publish(output, of, room, (&envelope, &message), is_whole);
                Some(Box::new(Publish { target, except, message }))
            }
            _ => {
                resp::begin(output, 3);
                resp::argument(output, &[b"PUBLISH"]);
                resp::argument(output, &[&names.channel(&topic)]);
                resp::argument(output, &[&envelope.header(), message.as_bytes()]);
                None
            }
        };
        self.in_flight.publish(size, reply, hubs, comes_back, again);
    }

    /// Does what is due.
    fn keep_time(&mut self) -> Result<Option<Command>, End> {
        let time = now();
        let timers = &self.driver.timers;
        while self.driver.lingering.front().is_some_and(|(due, _)| timers.has_come(*due)) {
            let Some((_, topic)) = self.driver.lingering.pop_front() else { break };
            let Some(state) = self.driver.topics.get_mut(&topic) else { continue };
            match state.due {
                // It was vacant once more meanwhile.
                Some(due) if !timers.has_come(due) => self.driver.lingering.push_back((due, topic)),
                Some(_) => {
                    state.due = None;
                    let vacant = LinkEvent::Vacant(topic, state.number);
                    return Ok(Some(Command::Backplane(vacant)));
                }
                None => {}
            }
        }
        if self.probed.is_some_and(|probed| time >= probed + PROBE_AFTER) {
            return Err(self.lost(io::Error::new(io::ErrorKind::TimedOut, "nothing is heard")));
        }
        if self.probed.is_none() && time >= self.heard + PROBE_AFTER {
            self.probed = Some(time);
            let own = self.driver.reader.names.own();
            resp::command(&mut self.connection.output, &[b"PUBLISH", &own, b""]);
            self.in_flight.push(Sent::Other);
        }
        if self.keep_alive_due().is_some_and(|due| time >= due) {
            self.keep_alive();
        }
        if self.is_up && time >= self.presence_due {
            self.presence_due = time + PRESENCE;
            if self.driver.is_cluster {
                return Ok(None);
            }
            return Ok(Some(self.list_rooms()));
        }
        Ok(self.follow_listing())
    }

    /// The time of what is due next.
    fn next_due(&self) -> Tick {
        let probe = self.probed.unwrap_or(self.heard) + PROBE_AFTER;
        let presence = if self.is_up { self.presence_due } else { probe };
        let alive = self.keep_alive_due().unwrap_or(probe);
        let due = self.driver.timers.tick_of(probe.min(presence).min(alive));
        let linger = self.driver.lingering.front().map(|(due, _)| *due);
        linger.filter(|linger| linger.is_before(due)).unwrap_or(due)
    }

    /// Waits until something is to be done; returns whether it had to wait.
    async fn wait(&mut self) -> Result<bool, End> {
        let timers = Arc::clone(&self.driver.timers);
        let mut deadline = timers.at(self.next_due());
        let mut has_waited = false;
        let woken = poll_fn(|cx| {
            match self.connection.poll_read(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(error))),
                Poll::Pending => {}
            }
            if self.is_up && self.may_send() {
                match self.driver.outbox.poll_next(cx) {
                    Poll::Ready(Some(command)) => {
                        self.taken = Some(command);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(None) => return Poll::Ready(Err(End::Hub)),
                    Poll::Pending => {}
                }
            } else if self.driver.outbox.poll_closed(cx).is_ready() {
                return Poll::Ready(Err(End::Hub));
            }
            if self.listing.as_mut().is_some_and(|listing| listing.poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let is_wish = self.is_up && self.driver.link.poll_wishes(cx).is_ready();
            if is_wish || Pin::new(&mut deadline).poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            has_waited = true;
            Poll::Pending
        });
        woken.await.map(|()| has_waited)
    }
}
