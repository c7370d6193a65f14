//! Bringing a hub to a stand: which connections it waits for, and for how long.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_lite::future::or;

use crate::error::Error;
use crate::hub::backplane::Link;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::holding::{Parked, Roster, WaitsFor};
use crate::time::clock::{Clock, now};

/// How long a hub stands still at most before it leaves behind what is not clean.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How long it waits for a client whose socket takes nothing.
const STUCK_MAX: Duration = Duration::from_millis(100);

/// How long it waits where nothing is queued, and a message or a request that has begun does not come
/// whole. It is one round trip to a client that is near. A client that never finishes silences all
/// others for as long.
const UNFINISHED_MAX: Duration = Duration::from_millis(50);

/// The pause between two looks at queues that are being written: short beside a client's round trip.
const LOOK: Duration = Duration::from_millis(1);

/// How much of the time between two looks counts at most. While the system did not let the process run,
/// no connection was polled, and a busy machine must not cost the process clients.
const LOOK_MAX: Duration = Duration::from_millis(5);

/// How long it waits for the backplane to give back what was published, each time. Once that was not
/// enough, it does not wait for the backplane again.
const FLUSH_MAX: Duration = Duration::from_millis(100);

impl Hub {
    /// Waits until every connection is clean, or time is over; returns those that are.
    pub(super) async fn collect(&self) -> Result<(Vec<Parked>, Roster), Error> {
        let shared = self.shared();
        let (clock, begin) = (shared.timers.clock(), now());
        let progress = || {
            let sent = shared.counters.bytes_sent.load(Ordering::Relaxed);
            let received = shared.counters.messages_received.load(Ordering::Relaxed);
            (sent, received, shared.holding.parked().len())
        };
        let (mut before, mut looked, mut quiet) = (progress(), begin, Duration::ZERO);
        let mut link = shared.backplane.as_ref().map(|backplane| &backplane.link);
        // What was received and how many connections were clean at the last flush.
        let mut flushed = None;
        loop {
            let (time, after) = (now(), progress());
            quiet = if after == before {
                quiet + (time - looked).min(LOOK_MAX)
            } else {
                Duration::ZERO
            };
            (before, looked) = (after, time);
            let connections = shared.counters.connections.load(Ordering::Relaxed);
            let waits_for = if time - begin >= HOLD_MAX || quiet >= STUCK_MAX {
                Some(WaitsFor::Nothing)
            } else if shared.holding.are_clean(connections) {
                Some(WaitsFor::Clean)
            } else {
                (quiet >= UNFINISHED_MAX).then_some(WaitsFor::Any)
            };
            if let Some(waits_for) = waits_for {
                let (_, received, parked) = before;
                let is_last = waits_for == WaitsFor::Nothing;
                if is_last || flushed != Some((received, parked)) {
                    flushed = Some((received, parked));
                    if let Some(engine) = link {
                        // What clients have published comes back before they are left.
                        let (is_back, waited) = flush(engine, &clock).await;
                        link = link.filter(|_| is_back);
                        quiet += waited;
                        looked = now();
                    }
                }
                let standing =
                    |parked: &Parked| parked.client.map(|client| (client, parked.along.is_some()));
                let standing: Vec<_> = shared.holding.parked().iter().map(standing).collect();
                let count = standing.len();
                let command = |reply| Command::HandOver { parked: standing, waits_for, reply };
                if let Some(roster) = self.request(command).await? {
                    let mut parked = std::mem::take(&mut *shared.holding.parked());
                    parked.truncate(count);
                    return Ok((parked, roster));
                }
            }
            or(shared.holding.changed(), clock.after(LOOK)).await;
        }
    }
}

/// Waits for what was published to come back; returns whether it has, and how much of the time counts.
async fn flush(link: &Link, clock: &Clock) -> (bool, Duration) {
    let mut flushing = pin!(link.flush());
    let (mut waited, mut looked) = (Duration::ZERO, now());
    while waited < FLUSH_MAX {
        let is_over = async {
            clock.after(LOOK).await;
            false
        };
        let comes = async {
            flushing.as_mut().await;
            true
        };
        let is_back = or(comes, is_over).await;
        let time = now();
        waited += (time - looked).min(LOOK_MAX);
        looked = time;
        if is_back {
            return (true, waited);
        }
    }
    (false, waited)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use fastrand::Rng;
    use futures_lite::future::{block_on, poll_once};
    use smol::{Executor, LocalExecutor};

    use super::*;
    use crate::config::Config;
    use crate::connection::admission::Admission;
    use crate::connection::handler::Handler;
    use crate::disconnect::Disconnect;
    use crate::hub::client::Client;
    use crate::hub::link_event::LinkEvent;
    use crate::message::Message;
    use crate::peer::Peer;
    use crate::redis_config::Redis;
    use crate::serve::accept::connect;
    use crate::serve::hand_over::{HandOver, LAST_YIELDS};
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    /// Publishes nothing, and lets each client go along.
    struct Quiet;
    impl Handler for Quiet {
        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }

        fn on_hand_over(&self, _: &Client) -> Option<String> {
            Some(String::new())
        }
    }

    const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    /// A text of five bytes, and less than a header.
    const WHOLE_AND_HALF: &[u8] = b"\x81\x85\0\0\0\0hello\x81";

    struct Stage {
        hub: Hub,
        executor: Executor<'static>,
        /// Dropped last: the others use its clock while they are dropped.
        time: VirtualTime,
    }

    impl Stage {
        fn new() -> Self {
            Self::with(Config::default())
        }

        fn with(config: Config) -> Self {
            let (time, executor) = (VirtualTime::start(), Executor::new());
            let (hub, manager) = Hub::new(config.http(true)).expect("valid");
            executor.spawn(manager).detach();
            Self { hub, executor, time }
        }

        /// A connection whose socket takes `room` bytes, and which has sent this.
        fn connect(&self, room: usize, sent: &[u8]) -> Arc<Line> {
            let line = Line::new(room, usize::MAX, Rng::with_seed(1));
            line.send(sent);
            let (hub, socket) = (self.hub.clone(), Socket::new(&line, false));
            let connection = async move {
                let admissions = &hub.shared().admissions;
                let (_counted, permit) = (admissions.connection(), admissions.handshake().await);
                drop(connect(&hub, socket, Peer::unix(), &Quiet, permit).await);
            };
            self.executor.spawn(connection).detach();
            self.run();
            line
        }

        fn run(&self) {
            while self.executor.try_tick() {}
        }

        /// How long the hub stands still, how many connections go along, and how many clients do not.
        fn hand_over(&self) -> (Duration, usize, usize) {
            let (slot, local, mut held) = (Rc::default(), LocalExecutor::new(), Duration::ZERO);
            let (hub, answer) = (self.hub.clone(), Rc::<RefCell<_>>::clone(&slot));
            let _handing = local.spawn(async move {
                *answer.borrow_mut() = Some(hub.hand_over().await.expect("the manager runs"));
            });
            loop {
                while local.try_tick() || self.executor.try_tick() {}
                let handed: Option<HandOver> = slot.borrow_mut().take();
                if let Some(handed) = handed {
                    return (held, handed.sockets().len(), handed.left_behind());
                }
                assert!(held < HOLD_MAX);
                held += LOOK;
                self.time.advance(LOOK);
            }
        }

        /// The one client that is left finishes the message that it has begun, and goes along.
        fn finish(&self, line: &Line, mut poll: impl FnMut() -> Option<Result<HandOver, Error>>) {
            line.send(b"\0\0\0\0hello");
            self.run();
            self.time.advance(LOOK);
            assert!(poll().is_none(), "it asks the manager");
            self.run();
            let handed = (0..=LAST_YIELDS).find_map(|_| poll()).expect("all are clean");
            let handed = handed.expect("the manager runs");
            assert_eq!((handed.sockets().len(), handed.left_behind()), (1, 0));
        }
    }

    #[test]
    fn clean_connections_and_those_that_cannot_go_along_are_not_waited_for() {
        let stage = Stage::new();
        stage.connect(usize::MAX, UPGRADE);
        stage.connect(usize::MAX, b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stage.connect(usize::MAX, b"");
        // The stream is not the hub's, as that of a client over TLS, whose keys stay.
        let line = Line::new(usize::MAX, usize::MAX, Rng::with_seed(1));
        line.send(UPGRADE);
        let (hub, socket) = (stage.hub.clone(), Socket::new(&line, false));
        let serving = async move { hub.serve_connection(socket, Peer::unix(), &Quiet).await };
        let serving = stage.executor.spawn(serving);
        // Its last response is written, and its peer has not closed.
        let last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let ended = stage.connect(usize::MAX, last);
        assert!(ended.lock().taken.starts_with(b"HTTP/1.1 404 "));
        assert_eq!(stage.hand_over(), (Duration::ZERO, 3, 1));
        line.end();
        stage.run();
        let reason = block_on(serving).expect("it was a client");
        assert_eq!(reason, Disconnect::RESTART);
        assert!(line.lock().taken.ends_with(&Disconnect::RESTART.frame()));
    }

    /// The system may not let the process run for long: no connection is polled then.
    #[test]
    fn time_in_which_the_process_did_not_run_does_not_count() {
        let stage = Stage::new();
        let line = stage.connect(usize::MAX, &[UPGRADE, b"\x81\x85"].concat());
        let mut handing = Box::pin(stage.hub.hand_over());
        let mut poll = || block_on(poll_once(&mut handing));
        assert!(poll().is_none());
        stage.run();
        stage.time.advance(STUCK_MAX);
        assert!(poll().is_none());
        stage.run();
        stage.finish(&line, poll);
    }

    #[test]
    fn what_does_not_come_whole_is_waited_for_half_as_long_as_a_stuck_socket() {
        let stage = Stage::new();
        stage.connect(usize::MAX, UPGRADE);
        let half = [UPGRADE, WHOLE_AND_HALF].concat();
        stage.connect(usize::MAX, &half);
        stage.connect(usize::MAX, b"GET /ws HTTP/1.1\r\n");
        assert_eq!(stage.hand_over(), (UNFINISHED_MAX, 1, 1));
        let events = b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let stuck = stage.connect(500, events);
        stage.connect(usize::MAX, &half);
        // Some are in its encoder, and the others in its queue.
        for _ in 0..32 {
            let message = Message::from("x".repeat(4_000));
            block_on(stage.executor.run(stage.hub.publish("main", message))).expect("it runs");
        }
        let (held, _, left) = stage.hand_over();
        assert_eq!((held, left), (STUCK_MAX, 2));
        assert_eq!(stuck.lock().taken.len(), 500);
    }

    /// Its peer does not close, or does. Another client is in the middle of a message, and finishes it.
    #[test]
    fn a_connection_that_ends_while_it_waits_leaves_no_other_behind() {
        for closes in [false, true] {
            let stage = Stage::new();
            let gone = stage.connect(usize::MAX, UPGRADE);
            let line = stage.connect(usize::MAX, &[UPGRADE, b"\x81\x85"].concat());
            let mut handing = Box::pin(stage.hub.hand_over());
            let mut poll = || block_on(poll_once(&mut handing));
            assert!(poll().is_none());
            stage.run();
            block_on(stage.executor.run(async {
                let members = stage.hub.presence("main").await.expect("it runs");
                let ended = stage.hub.disconnect(members[0].id, Disconnect::POLICY).await;
                ended.expect("it is there");
            }));
            stage.run();
            assert!(gone.lock().taken.ends_with(&Disconnect::POLICY.frame()));
            if closes {
                gone.end();
                stage.run();
            }
            stage.time.advance(LOOK);
            assert!(poll().is_none(), "a message has begun");
            stage.run();
            assert!(poll().is_none(), "a message has begun");
            stage.finish(&line, poll);
        }
    }

    /// The manager is asked for both at once.
    #[test]
    fn a_client_that_is_closed_just_before_hears_why() {
        let stage = Stage::new();
        let line = stage.connect(usize::MAX, UPGRADE);
        let clients = block_on(stage.executor.run(stage.hub.clients()));
        let client = clients.expect("the manager runs")[0].id;
        let mut handing = pin!(stage.hub.hand_over());
        let mut hand = || block_on(poll_once(handing.as_mut()));
        assert!(hand().is_none());
        stage.run();
        assert!(stage.hub.shared().holding.are_clean(1));
        let mut closing = pin!(stage.hub.disconnect(client, Disconnect::NORMAL));
        assert!(block_on(poll_once(closing.as_mut())).is_none(), "the manager has not run");
        assert!(hand().is_none(), "the manager is asked behind it");
        assert!(stage.executor.try_tick(), "the manager does both");
        let mut yields = 0;
        while hand().is_none() {
            assert!(yields < LAST_YIELDS, "it is handed over");
            yields += 1;
            stage.executor.try_tick();
        }
        assert!(line.lock().taken.ends_with(&Disconnect::NORMAL.frame()));
    }

    /// A client has a message in its queue, and a request does not come whole.
    #[test]
    fn a_backplane_that_does_not_answer_is_waited_for_once() {
        let redis = "redis://127.0.0.1".parse::<Redis>().expect("a URL");
        let stage = Stage::with(Config::default().redis(Some(redis)));
        stage.hub.shared().backplane.as_ref().expect("there is one").link.set_up();
        let subscription = block_on(stage.executor.run(async {
            stage.hub.send_command(Command::Backplane(LinkEvent::Up)).await.expect("it runs");
            let subscription = stage.hub.subscribe(Admission::anonymous()).await.expect("a place");
            let id = subscription.client().id();
            stage.hub.send(id, "waits").await.expect("it runs");
            subscription
        }));
        stage.connect(usize::MAX, b"GET /ws HTTP/1.1\r\n");
        assert_eq!(stage.hand_over(), (UNFINISHED_MAX + FLUSH_MAX + LOOK, 0, 0));
        drop(subscription);
    }
}
