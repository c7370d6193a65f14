//! Pollers: peers that ask for the next message of a room, one request after another, and wait for it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::hub::history_config::messages_max;
use crate::hub::since::{Missed, Since};
use crate::hub::tests::support::number_of;
use crate::peer::Peer as Origin;
use crate::serve::accept::connect;
use crate::sim::executor::TaskId;
use crate::sim::journal::{Name, event};
use crate::sim::network::{Line, Socket};
use crate::sim::notes::{Notes, To};
use crate::sim::peer::Way;
use crate::sim::response::Response;
use crate::sim::script::{ROOMS, number_of_text, room};
use crate::sim::world::World;

/// Pollers at a time.
const POLLERS_MAX: usize = 4;

/// A hub with fewer places for clients may have none for a request that waits.
const CLIENTS_MIN: usize = 1_000;

/// The peer's end of a connection that polls. It reads every answer as it comes.
pub(super) struct Poller {
    pub(super) line: Arc<Line>,
    /// The connection's task.
    pub(super) task: TaskId,
    /// Its number among all that ever came.
    pub(super) number: usize,
    pub(super) room: usize,
    /// The position and the number of each message that it has heard.
    pub(super) heard: Vec<(u64, u32)>,
    /// Where its next request begins.
    since: Since,
    /// Whether that position is one of its room. A message to all makes no room: a request that waits
    /// for a room that is not there hears it with a position that means nothing later.
    is_usable: bool,
    /// The number of its request, which has no answer.
    request: Option<usize>,
    /// How much of what was taken for it, in bytes, it has understood.
    seen: usize,
    /// It has sent its last byte.
    pub(super) silent: bool,
}

impl Poller {
    /// Reads what has come; `false` if that changes nothing for the server.
    pub(super) fn answer(&mut self, notes: &Notes, config: &Config, hub_ends: bool) -> bool {
        self.line.read(usize::MAX);
        let kernel = self.line.lock();
        let (come, over) = (kernel.legible()[self.seen..].to_vec(), kernel.is_over());
        drop(kernel);
        let mut rest = &come[..];
        while let Some(response) = Response::first(&mut rest) {
            self.note(&Answer::of(&response), notes, config, hub_ends);
        }
        self.seen = self.seen + come.len() - rest.len();
        let ends = over && !self.silent;
        if ends {
            self.silent = true;
            self.line.end();
        }
        ends
    }

    /// Notes an answer: a message is the next one, or the answer tells of a gap.
    fn note(&mut self, answer: &Answer<'_>, notes: &Notes, config: &Config, hub_ends: bool) {
        let number = self.number;
        let has_requested = self.request.take().is_some() || answer.status == 408;
        assert!(has_requested, "poller {number} gets one answer to each request");
        if self.is_refused(answer.status, config, hub_ends) {
            // It asks again.
            return;
        }
        let Some(position) = answer.position else {
            // There is no room, nor anything to hear of it.
            assert_eq!(answer.status, 204, "poller {number} is told the position of a message");
            assert_eq!(answer.missed, None, "poller {number} misses nothing of a room that is not");
            return;
        };
        let step = u64::from(answer.status == 200);
        match (self.since, answer.missed) {
            (Since::Position(last), None) => assert!(
                position == last + step,
                "poller {number} is told of the gap between {last} and {position}"
            ),
            (Since::Position(last), Some(Missed::Messages(missed))) => assert!(
                missed > 0 && position == last + missed + step,
                "poller {number}, told of {missed} messages, stands at {position} after {last}"
            ),
            (since, Some(Missed::Unknown)) => assert!(
                !self.is_usable || !is_lasting(config, self.room),
                "poller {number} asks since {since}, and its room was never forgotten"
            ),
            // While it waits its request has a position, whatever it has named.
            _ => {}
        }
        if answer.status == 200 {
            let heard = match answer.is_text {
                true => number_of_text(answer.body, Way::Upgrades),
                false => number_of(answer.body),
            };
            self.heard.push((position, heard));
            self.is_usable = notes.messages[heard as usize].to != To::All;
        }
        // Where there is a room, an answer without a message says where it stands.
        self.is_usable |= answer.status == 204;
        self.since = Since::Position(position);
    }

    /// Whether it was refused, for a reason that there is.
    fn is_refused(&self, status: u16, config: &Config, hub_ends: bool) -> bool {
        let number = self.number;
        let has_limits = config.max_clients.is_some_and(|max| max < CLIENTS_MIN);
        match status {
            200 | 204 => return false,
            // The first request of a connection came too late, and a later one may not have its turn.
            408 => {}
            503 => assert!(
                has_limits || hub_ends,
                "poller {number} is refused a place of {:?}",
                config.max_clients
            ),
            status => panic!("poller {number} is answered {status}"),
        }
        true
    }

    /// The position behind which it waits for a message, if it does.
    pub(super) fn waits_behind(&self, notes: &Notes) -> Option<u64> {
        match self.since {
            Since::Position(last) if !self.silent => {
                let is_begun = self.request.is_some_and(|request| notes.polls.contains(&request));
                is_begun.then_some(last)
            }
            _ => None,
        }
    }
}

/// Whether a room has one life as long as the hub, from its first message on: it keeps messages, and
/// neither time nor another room ends it.
fn is_lasting(config: &Config, number: usize) -> bool {
    let keeps = messages_max(&config.history, &room(number)) > 0;
    keeps && config.history_age.is_zero() && config.max_rooms > ROOMS
}

/// What a response says to a poller.
struct Answer<'a> {
    status: u16,
    position: Option<u64>,
    missed: Option<Missed>,
    is_text: bool,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    fn of(response: &Response<'a>) -> Self {
        let position = response.header("Hublet-Position: ");
        let missed = response.header("Hublet-Missed: ").map(|missed| match missed.parse() {
            Ok(messages) => Missed::Messages(messages),
            Err(_) => {
                assert_eq!(missed, "unknown");
                Missed::Unknown
            }
        });
        Self {
            status: response.status,
            position: position.map(|position| position.parse().expect("a number")),
            missed,
            is_text: response.header("Content-Type: text/plain").is_some(),
            body: response.body,
        }
    }
}

impl World {
    /// A poller asks, or leaves.
    pub(super) fn poll(&mut self) {
        let running = |poller: &&Poller| self.executor.runs(poller.task) && !poller.silent;
        let few = self.pollers.iter().filter(running).count() < POLLERS_MAX;
        if self.pollers.is_empty() || (few && self.rng.u8(..8) == 0) {
            self.connect_poller();
        }
        let n = self.rng.usize(..self.pollers.len());
        if self.pollers[n].silent {
            return;
        }
        let poller = &mut self.pollers[n];
        match self.rng.u8(..40) {
            0 => {
                poller.line.end();
                poller.silent = true;
            }
            1 => {
                poller.line.reset();
                poller.silent = true;
            }
            2 => {
                event!("the program drops the connection of poller {}", poller.number);
                self.executor.cancel(poller.task);
                poller.silent = true;
            }
            // Its request waits.
            _ if poller.request.is_some() => {}
            _ => {
                let seconds = self.rng.u64(..60);
                let wait = Duration::from_secs(if self.rng.u8(..4) == 0 { 0 } else { seconds });
                let (number, room, since) = (poller.number, poller.room, poller.since);
                let request = self.polls;
                self.polls += 1;
                poller.request = Some(request);
                event!("poller {number} asks room {room} since {since}, and waits {wait:?}");
                let wait = wait.as_secs();
                poller.line.send(
                    format!(
                        "GET /pub/room%20{room}?since={since}&wait={wait}s&poll={request} HTTP/1.1\r\n\
                         Host: x\r\n\r\n"
                    )
                    .as_bytes(),
                );
            }
        }
    }

    fn connect_poller(&mut self) {
        let rng = &mut self.rng;
        let number = self.pollers.len();
        let earlier: Vec<_> =
            self.pollers.iter().map(|old| (old.room, old.since, old.is_usable)).collect();
        let (room, since, is_usable) = match rng.choice(&earlier).filter(|_| rng.bool()) {
            // It comes back with the position that it has heard last.
            Some(earlier) => *earlier,
            None => (
                rng.usize(..ROOMS),
                *rng.choice(&[Since::Now, Since::Oldest, Since::Newest(1)]).expect("some"),
                true,
            ),
        };
        let line = Line::named(Name::Poller(number), usize::MAX, usize::MAX, rng.fork());
        event!("poller {number} comes for room {room}");
        let (hub, script) = (self.hub.clone(), self.script.clone());
        let socket = Socket::new(&line, false);
        let task = self.executor.spawn(async move {
            let admissions = &hub.shared().admissions;
            let _counted = admissions.connection();
            let permit = admissions.handshake().await;
            // It never becomes a client.
            connect(&hub, socket, Origin::unknown(), &script, permit).await.expect_err("no client");
        });
        let (heard, request, seen, silent) = (Vec::new(), None, 0, false);
        self.pollers.push(Poller {
            line,
            task,
            number,
            room,
            heard,
            since,
            is_usable,
            request,
            seen,
            silent,
        });
    }
}
