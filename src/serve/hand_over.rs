//! Handing a hub over to another process.

use std::fmt;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_lite::future::{or, yield_now};

use crate::error::Error;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::holding::{Handle, Parked, Roster};
use crate::hub::state::{Connection, State};
use crate::hub::state_text::VERSION;
use crate::message::Encoding;
#[cfg(unix)]
use crate::net::socket::descriptor;
use crate::time::clock::now;

/// How long a hub stands still at most before it leaves behind what is not clean.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How long it waits while no byte is written and no connection becomes clean.
const STUCK_MAX: Duration = Duration::from_millis(100);

/// The pause between two looks at queues that are being written: short beside a client's round trip.
const LOOK: Duration = Duration::from_millis(1);

/// Turns that the connections left behind have, to write their close frames.
const LAST_TURNS: usize = 16;

/// A hub that stands still, so that another process can take it over.
///
/// It has the state of the hub as text, and the descriptors that belong to it. While it exists the
/// hub neither accepts nor reads nor publishes. Dropped, it lets the hub go on as if nothing had
/// happened. [`Hub::hand_over`] makes one.
pub struct HandOver {
    hub: Hub,
    state: String,
    /// The sockets, in the order of the lines.
    sockets: Vec<Arc<Handle>>,
    left: usize,
}

impl HandOver {
    /// The version of the text that [`state`](Self::state) returns. [`Hub::take_over`] reads this
    /// version and the one before it.
    ///
    /// [`Hub::take_over`]: crate::Hub::take_over
    pub const VERSION: u32 = VERSION;

    /// Returns the state of the hub: text, at most a few hundred bytes for each client, and the
    /// messages that rooms keep.
    ///
    /// It has the names of rooms and users, addresses, and what
    /// [`Handler::on_hand_over`](crate::Handler::on_hand_over) says.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Returns the descriptors of the connections, in the order in which
    /// [`Hub::take_over`](crate::Hub::take_over) wants them.
    #[cfg(unix)]
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().filter_map(|socket| descriptor(&**socket))
    }

    /// Returns how many clients were left behind: closed with 1012, since they were not clean.
    #[must_use]
    pub fn left_behind(&self) -> usize {
        self.left
    }

    #[cfg(test)]
    pub(crate) fn sockets(&self) -> &[Arc<Handle>] {
        &self.sockets
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver")
            .field("connections", &self.sockets.len())
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.hub.go_on();
    }
}

/// Lets the hub go on if a hand-over is given up before it is ready.
struct Held<'a>(Option<&'a Hub>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(hub) = self.0 {
            hub.go_on();
        }
    }
}

impl Hub {
    /// Brings the hub to a stand, so that another process can take over its connections: the same
    /// program in a new version, for example, without any client noticing.
    ///
    /// Nothing more is accepted, and no message or request is begun. What was read is published and
    /// answered, and queues are written. Connections that are clean then go along: WebSockets,
    /// server-sent events, and connections that wait for a request. Clean is a connection in which no
    /// frame, no message and no request is cut and for which nothing waits.
    ///
    /// That takes 1 s at most, and ends after 100 ms without any progress. What is not clean by then
    /// is left behind: its clients are closed with 1012. So are clients of
    /// [`serve_connection`](Self::serve_connection) and [`serve_upgraded`](Self::serve_upgraded),
    /// whose streams are not the hub's, and [`Subscription`](crate::Subscription)s.
    ///
    /// The text and the descriptors of the [`HandOver`] are for [`Hub::take_over`] in the other
    /// process. It is for the caller to carry them there, for example over a Unix socket, and to end
    /// this process without closing the clients: do not drop the hub before that.
    ///
    /// # Errors
    ///
    /// [`Error::is_closed`] once the hub has ended, or is being handed over already.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the hub goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use hublet::{Config, Hub};
    ///
    /// # smol::block_on(async {
    /// let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// hub.publish("news", "hello").await?;
    ///
    /// let hand_over = hub.hand_over().await?;
    /// let (state, descriptors) = (hand_over.state().to_owned(), hand_over.descriptors().count());
    /// assert_eq!(descriptors, 0, "no client is connected");
    ///
    /// // Elsewhere: the counters go on where they were.
    /// let (next, _manager, _connections) = Hub::take_over(Config::default(), &state, Vec::new())?;
    /// assert_eq!(next.stats().messages_dispatched, 1);
    ///
    /// // Here the other process did not start, and the hub goes on.
    /// drop(hand_over);
    /// hub.publish("news", "hello again").await?;
    ///
    /// // A text that no hub has written is refused.
    /// let refused = Hub::take_over(Config::default(), "hub 99\n", Vec::new()).err();
    /// assert!(refused.expect("no such version").is_config());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// # }
    /// ```
    ///
    /// [`Hub::take_over`]: crate::Hub::take_over
    pub async fn hand_over(&self) -> Result<HandOver, Error> {
        if !self.hold() {
            return Err(Error::closed());
        }
        let mut held = Held(Some(self));
        let (parked, roster) = self.collect().await?;
        if roster.left > 0 {
            for _ in 0..LAST_TURNS {
                yield_now().await;
            }
        }
        held.0 = None;
        Ok(self.hand_out(parked, roster))
    }

    /// Waits until every connection is clean, or time is over; returns those that are.
    async fn collect(&self) -> Result<(Vec<Parked>, Roster), Error> {
        let shared = self.shared();
        let (clock, begin) = (shared.timers.clock(), now());
        let progress = || {
            let sent = shared.counters.bytes_sent.load(Ordering::Relaxed);
            let received = shared.counters.messages_received.load(Ordering::Relaxed);
            (sent, received, shared.holding.parked().len())
        };
        let (mut before, mut since) = (progress(), begin);
        loop {
            let (now, after) = (now(), progress());
            if after != before {
                (before, since) = (after, now);
            }
            let is_over = now - begin >= HOLD_MAX || now - since >= STUCK_MAX;
            let connections = shared.counters.connections.load(Ordering::Relaxed);
            if is_over || shared.holding.are_clean(connections) {
                if let Some(backplane) = &shared.backplane {
                    // What clients have published comes back before they are left.
                    or(backplane.link.flush(), clock.after(STUCK_MAX)).await;
                }
                let ids: Vec<_> =
                    shared.holding.parked().iter().map(|parked| parked.client).collect();
                let (count, is_last) = (ids.len(), is_over);
                let command = |reply| Command::HandOver { parked: ids, is_last, reply };
                if let Some(roster) = self.request(command).await? {
                    let mut parked = std::mem::take(&mut *shared.holding.parked());
                    parked.truncate(count);
                    return Ok((parked, roster));
                }
            }
            or(shared.holding.changed(), clock.after(LOOK)).await;
        }
    }

    /// Writes the state of the connections that go along.
    fn hand_out(&self, parked: Vec<Parked>, roster: Roster) -> HandOver {
        let shared = self.shared();
        let mut parked: Vec<_> = parked.into_iter().map(Some).collect();
        let (mut sockets, mut connections) = (Vec::new(), Vec::new());
        let mut take = |socket: Option<Arc<Handle>>, connection: Connection| {
            // A connection may have ended since it was clean.
            if let Some(socket) = socket {
                sockets.push(socket);
                connections.push(connection);
            }
        };
        for kept in roster.kept {
            let Some(mut parked) = parked[kept.place].take() else { continue };
            if let Some(client) = &mut parked.state.client {
                client.since = kept.since;
                client.user = kept.user.map(|user| user.to_string());
                client.rooms = kept.rooms.iter().map(|room| room.to_string()).collect();
                client.missed = kept.clean.missed;
                client.deflates = kept.clean.encoding == Encoding::Deflate;
                client.cursor = kept.clean.cursor;
            }
            take(parked.socket.upgrade(), parked.state);
        }
        for parked in parked.into_iter().flatten().filter(|parked| parked.client.is_none()) {
            take(parked.socket.upgrade(), parked.state);
        }
        // What waits for a client that is left behind ends with this process.
        let stats = self.stats();
        let fates = stats.messages_delivered.saturating_add(stats.messages_dropped);
        let lost = stats.recipients.saturating_sub(fates);
        let counters = shared.counters.named().map(|(name, count)| {
            let count = if name == "messages_lost" { lost } else { count };
            (name, count)
        });
        let refused = shared.counters.refused.iter().flatten();
        let state = State {
            started: shared.started.get().copied().unwrap_or_default(),
            link: shared.backplane.as_ref().map_or(0, |backplane| backplane.link.hub),
            uptime: roster.uptime,
            generation: roster.generation,
            rooms: roster.rooms,
            counters: counters.collect(),
            refused: refused.map(|count| count.load(Ordering::Relaxed)).collect(),
            connections,
        };
        HandOver { hub: self.clone(), state: state.write(), sockets, left: roster.left }
    }
}
