//! Handing a hub over to another process.

use std::borrow::Cow;
use std::fmt;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_lite::future::yield_now;

use crate::error::Error;
use crate::hub::handle::Hub;
use crate::hub::holding::{Along, Handle, Parked, Roster, RosterEntry};
use crate::hub::state::{Client, Connection, State};
use crate::hub::state_text::{Bodies, VERSION};
use crate::message::Encoding;
#[cfg(unix)]
use crate::net::socket::descriptor;

/// Yields in which the connections that are left behind, or were closed just before, write their close
/// frames.
pub(super) const LAST_YIELDS: usize = 16;

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

    /// Returns the state of the hub: text, a few hundred bytes for each client, more for one in
    /// several rooms, and the messages that rooms keep.
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

    /// Returns how many clients were left behind: closed with 1012, since they were not clean or since
    /// their streams are not the hub's, as over TLS. A [`Subscription`](crate::Subscription) ends with
    /// this process too, and does not count.
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
struct HoldGuard<'a>(Option<&'a Hub>);

impl Drop for HoldGuard<'_> {
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
    /// frame, no message and no request is cut, and for which no hook runs and nothing waits.
    ///
    /// That takes 1 s at most. It ends after 100 ms without any progress, and after 50 ms where no client
    /// has messages in its queue, so that only what has begun is waited for. With Redis it waits up to
    /// 100 ms more, once if the server does not answer, until what was published has come back. What is
    /// not clean by then is left behind: its clients are closed with 1012. So are clients of
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
        let mut guard = HoldGuard(Some(self));
        let (parked, roster) = self.collect().await?;
        for _ in 0..LAST_YIELDS {
            yield_now().await;
        }
        guard.0 = None;
        Ok(self.hand_out(parked, roster))
    }

    /// Writes the state of the connections that go along.
    fn hand_out(&self, mut parked: Vec<Parked>, roster: Roster) -> HandOver {
        let shared = self.shared();
        let Roster { generation, uptime, rooms, kept, left } = roster;
        // What waits for a client that is left behind ends with this process.
        let stats = self.stats();
        let goes_along = |kept: &&RosterEntry| {
            let along = parked.get(kept.index).and_then(|parked| parked.along.as_ref());
            along.is_some_and(|along| along.socket.strong_count() > 0)
        };
        let owed: u64 = kept.iter().filter(goes_along).map(|kept| kept.clean.owed()).sum();
        let fates = stats.messages_delivered.saturating_add(stats.messages_dropped);
        let lost = stats.recipients.saturating_sub(fates).saturating_sub(owed);
        let counters = shared.counters.named().map(|(name, count)| {
            let count = if name == "messages_lost" { lost } else { count };
            (name, count)
        });
        let refused = shared.counters.refused.iter().flatten();
        let state = State {
            started: shared.started.get().copied().unwrap_or_default(),
            link: shared.backplane.as_ref().map_or(0, |backplane| backplane.link.hub),
            uptime,
            generation,
            rooms,
            counters: counters.collect(),
            refused: refused.map(|count| count.load(Ordering::Relaxed)).collect(),
        };
        let mut text = state.write(parked.len());
        let mut sockets = Vec::with_capacity(parked.len());
        let (mut names, mut bodies) = (Vec::new(), Bodies::default());
        let elapsed = shared.timers.elapsed();
        for kept in &kept {
            let Parked { client: Some(id), along } = &mut parked[kept.index] else { continue };
            let Some(Along { socket, peer, client: Some(known) }) = along.take() else { continue };
            // A connection may have ended since it was clean.
            let Some(socket) = socket.upgrade() else { continue };
            names.extend(kept.rooms.iter().map(|room| Cow::Borrowed(&**room)));
            let client = Client {
                events: known.events,
                id: id.parts(),
                since: kept.since,
                user: kept.user.as_deref().map(Cow::Borrowed),
                rooms: names,
                prefixes: kept.prefixes.iter().map(|prefix| Cow::Borrowed(&**prefix)).collect(),
                missed: kept.clean.missed,
                deflates: kept.clean.encoding == Encoding::Deflate,
                labels: kept.clean.has_labels,
                cursor: kept.clean.cursor.clone(),
                conflation: kept.clean.conflation.clone().map(|mut own| {
                    own.next = own.next.saturating_sub(elapsed);
                    own
                }),
                idle: known.idle,
                about: Cow::Owned(known.about),
            };
            let connection = Connection { peer, client: Some(client) };
            connection.write(sockets.len(), &mut bodies, &mut text);
            sockets.push(socket);
            names = connection.client.map(|client| client.rooms).unwrap_or_default();
            names.clear();
        }
        let idle = parked.into_iter().filter(|parked| parked.client.is_none());
        for Along { socket, peer, .. } in idle.filter_map(|parked| parked.along) {
            if let Some(socket) = socket.upgrade() {
                let connection = Connection { peer, client: None };
                connection.write(sockets.len(), &mut bodies, &mut text);
                sockets.push(socket);
            }
        }
        // Names, addresses, digits and what hooks have said.
        let state = String::from_utf8(text).expect("all of it is text");
        HandOver { hub: self.clone(), state, sockets, left }
    }
}
