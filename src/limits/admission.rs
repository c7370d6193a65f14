//! How many connections, clients and handshakes are admitted, until the hub drains.

use std::collections::HashMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use event_listener::{Event, EventListener, IntoNotification as _};

use crate::limits::semaphore::FifoSemaphore;
use crate::memory::budget::MemoryBudget;
use crate::stats::Counters;

/// Readers of events at once. Each of them hears all that happens, so that each costs the manager
/// time. Operators need a few: a page, a program, and one more while either is replaced.
pub(crate) const EVENT_READERS_MAX: usize = 4;

/// Counts connections, clients and handshakes against their limits.
#[derive(Debug)]
pub(crate) struct Admissions {
    /// Clients with a permit now.
    clients: AtomicUsize,
    clients_max: usize,
    /// Clients with a permit by network, as [`Admissions::client`] was given it; entries of 0 are
    /// removed, so it is bounded by clients.
    by_ip: Mutex<HashMap<u128, usize>>,
    /// Readers of events, of which there may be [`EVENT_READERS_MAX`].
    event_readers: AtomicUsize,
    per_ip_max: Option<usize>,
    /// Connections that wait for their next request, under permits that no client needs.
    idle: AtomicUsize,
    /// Notified once per new client when an idle keep-alive connection must leave, and for all at
    /// the drain.
    keep_alive_unwanted: Event,
    /// The permits of the handshakes in flight.
    handshakes: FifoSemaphore,
    /// Accept loops that back off because accepting failed.
    backing_off: AtomicUsize,
    /// Set once, when the hub begins to drain.
    closed: AtomicBool,
    /// Notified when the last connection ended.
    all_gone: Event,
    /// Notified when the drain begins.
    drain_begun: Event,
    /// Where the gauge of connections stands.
    counters: Arc<Counters>,
    /// Where each connection reserves what it may need.
    memory: Arc<MemoryBudget>,
}

/// Why there was no permit for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// As many clients as allowed are connected.
    Clients,
    /// As many clients as allowed are connected from that address.
    PerIp,
    /// As many readers of events as allowed are there.
    EventReaders,
}

impl Admissions {
    pub(crate) fn new(
        clients_max: usize,
        per_ip_max: Option<usize>,
        handshakes_max: usize,
        counters: Arc<Counters>,
        memory: Arc<MemoryBudget>,
    ) -> Self {
        Self {
            clients: AtomicUsize::new(0),
            clients_max,
            by_ip: Mutex::new(HashMap::new()),
            event_readers: AtomicUsize::new(0),
            per_ip_max,
            idle: AtomicUsize::new(0),
            keep_alive_unwanted: Event::new(),
            handshakes: FifoSemaphore::new(handshakes_max),
            backing_off: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            all_gone: Event::new(),
            drain_begun: Event::new(),
            counters,
            memory,
        }
    }

    /// Begins the drain, for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.drain_begun.notify(usize::MAX);
        self.keep_alive_unwanted.notify(usize::MAX);
    }

    /// Whether the drain has begun.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until the drain begins.
    pub(crate) async fn closed(&self) {
        wait(&self.drain_begun, || self.is_closed()).await;
    }

    /// Waits until no connection is left.
    pub(crate) async fn empty(&self) {
        let is_empty = || self.counters.connections.load(Ordering::Acquire) == 0;
        wait(&self.all_gone, is_empty).await;
    }

    /// Waits for a handshake permit, behind the callers that wait already. `self` is shared because
    /// the permit outlives the accept loop.
    pub(crate) async fn handshake(self: &Arc<Self>) -> HandshakePermit {
        self.handshakes.acquire().await.forget();
        HandshakePermit { admissions: Arc::clone(self), at_drain: self.is_closed() }
    }

    /// Whether a handshake that asks for a permit now has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.handshakes.is_exhausted()
    }

    /// Counts an accept loop as backing off until the guard is dropped.
    pub(crate) fn back_off(&self) -> AcceptBackoff<'_> {
        self.backing_off.fetch_add(1, Ordering::Relaxed);
        AcceptBackoff(self)
    }

    /// Whether others need what a handshake holds: its permit, or its descriptor while accepting
    /// fails for want of one.
    pub(crate) fn is_crowded(&self) -> bool {
        self.handshakes.is_contended() || self.backing_off.load(Ordering::Relaxed) > 0
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.memory.enter();
        ConnectionGuard(Arc::clone(self))
    }

    /// Takes a permit for one more client; `ip` is the network it counts under, if any.
    pub(crate) fn client(self: &Arc<Self>, ip: Option<u128>) -> Result<ClientPermit, LimitReached> {
        let below = |n: usize| (n < self.clients_max).then_some(n + 1);
        if self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_err() {
            return Err(LimitReached::Clients);
        }
        let mut permit = ClientPermit { admissions: Arc::clone(self), ip: None };
        permit.ip = self.count_network(ip)?;
        if self.clients.load(Ordering::Relaxed) + self.idle.load(Ordering::Relaxed)
            > self.clients_max
        {
            self.keep_alive_unwanted.notify(1.additional());
        }
        Ok(permit)
    }

    /// A permit for a client that another process had: no limit refuses it.
    pub(crate) fn restore(self: &Arc<Self>, ip: Option<u128>) -> ClientPermit {
        self.clients.fetch_add(1, Ordering::Relaxed);
        let mut permit = ClientPermit { admissions: Arc::clone(self), ip: None };
        if let (Some(_), Some(ip)) = (self.per_ip_max, ip) {
            let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            *by_ip.entry(ip).or_insert(0) += 1;
            permit.ip = Some(Box::new(ip));
        }
        permit
    }

    /// Takes a permit for one more reader of events; `ip` as for [`client`](Self::client), among
    /// which it is not counted otherwise.
    pub(crate) fn event_reader(
        self: &Arc<Self>,
        ip: Option<u128>,
    ) -> Result<EventReaderPermit, LimitReached> {
        let below = |n: usize| (n < EVENT_READERS_MAX).then_some(n + 1);
        let readers = &self.event_readers;
        if readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_err() {
            return Err(LimitReached::EventReaders);
        }
        let mut permit = EventReaderPermit { admissions: Arc::clone(self), ip: None };
        permit.ip = self.count_network(ip)?;
        Ok(permit)
    }

    /// Counts one more under a network, if networks are counted.
    fn count_network(&self, ip: Option<u128>) -> Result<Option<Box<u128>>, LimitReached> {
        let (Some(max), Some(ip)) = (self.per_ip_max, ip) else { return Ok(None) };
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = by_ip.entry(ip).or_insert(0);
        if *clients >= max {
            return Err(LimitReached::PerIp);
        }
        *clients += 1;
        Ok(Some(Box::new(ip)))
    }

    /// Takes one off the count of a network.
    fn uncount_network(&self, ip: Option<&u128>) {
        let Some(ip) = ip else { return };
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = by_ip.get_mut(ip) {
            *clients -= 1;
            if *clients == 0 {
                by_ip.remove(ip);
            }
        }
    }

    /// Takes a permit for a connection that waits for its next request, if there is one that no
    /// client has. The connection has to leave when a client needs it.
    pub(crate) fn idle(self: &Arc<Self>) -> Option<KeepAlivePermit> {
        // Listen before looking at `closed`, so that the drain is not missed.
        let idle = KeepAlivePermit {
            admissions: Arc::clone(self),
            leave: self.keep_alive_unwanted.listen(),
        };
        let taken =
            self.idle.fetch_add(1, Ordering::Relaxed) + self.clients.load(Ordering::Relaxed);
        (taken < self.clients_max && !self.is_closed()).then_some(idle)
    }
}

/// Waits until a condition holds; `event` is notified when it may.
async fn wait(event: &Event, is_so: impl Fn() -> bool) {
    while !is_so() {
        let listener = event.listen();
        if is_so() {
            return;
        }
        listener.await;
    }
}

/// The permit of a handshake in flight.
#[derive(Debug)]
pub(crate) struct HandshakePermit {
    admissions: Arc<Admissions>,
    /// Whether the drain had begun when the permit was granted.
    at_drain: bool,
}

impl HandshakePermit {
    /// Whether it was granted after the drain began. A handshake from before is still served, so
    /// that a restart refuses no connection that was accepted.
    pub(crate) fn is_late(&self) -> bool {
        self.at_drain
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.admissions.handshakes.release();
    }
}

/// An accept loop that backs off.
#[derive(Debug)]
pub(crate) struct AcceptBackoff<'a>(&'a Admissions);

impl Drop for AcceptBackoff<'_> {
    fn drop(&mut self) {
        self.0.backing_off.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Arc<Admissions>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.memory.leave();
        if self.0.counters.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.0.all_gone.notify(usize::MAX);
        }
    }
}

/// A permit for a connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct KeepAlivePermit {
    admissions: Arc<Admissions>,
    /// Notified when the connection has to leave; dropped, it passes the notification on.
    leave: EventListener,
}

impl KeepAlivePermit {
    /// Ready once the connection has to leave.
    pub(crate) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.leave).poll(cx)
    }
}

impl Drop for KeepAlivePermit {
    fn drop(&mut self) {
        self.admissions.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A permit for one client to be connected.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    admissions: Arc<Admissions>,
    /// The network it is counted under, if networks are.
    // Boxed: few hubs count them, and every client has the field.
    ip: Option<Box<u128>>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.admissions.clients.fetch_sub(1, Ordering::Relaxed);
        self.admissions.uncount_network(self.ip.as_deref());
    }
}

/// A permit for one reader of events.
#[derive(Debug)]
pub(crate) struct EventReaderPermit {
    admissions: Arc<Admissions>,
    /// The network it is counted under, if networks are.
    ip: Option<Box<u128>>,
}

impl Drop for EventReaderPermit {
    fn drop(&mut self) {
        self.admissions.event_readers.fetch_sub(1, Ordering::Relaxed);
        self.admissions.uncount_network(self.ip.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(clients: usize, per_ip: Option<usize>) -> Arc<Admissions> {
        Arc::new(Admissions::new(clients, per_ip, 2, Arc::default(), Arc::default()))
    }
    #[test]
    fn a_permit_is_given_back_when_dropped() {
        let admissions = admissions(1, None);
        let permit = admissions.client(None).expect("the first");
        assert_eq!(admissions.client(None).err(), Some(LimitReached::Clients));
        drop(permit);
        assert!(admissions.client(None).is_ok());
    }
    #[test]
    fn clients_of_one_network_are_limited_and_others_are_not() {
        let admissions = admissions(9, Some(1));
        let first = admissions.client(Some(1)).expect("the first");
        assert_eq!(admissions.client(Some(1)).err(), Some(LimitReached::PerIp));
        let _other = admissions.client(Some(2)).expect("another network");
        let _exempt =
            (admissions.client(None).expect("exempt"), admissions.client(None).expect("exempt"));
        drop(first);
        assert_eq!(admissions.by_ip.lock().expect("not poisoned").len(), 1, "no entry of 0 stays");
        assert!(admissions.client(Some(1)).is_ok());
        assert_eq!(
            admissions.clients.load(Ordering::Relaxed),
            3,
            "a refusal gives its permit back"
        );
    }
    #[test]
    fn readers_of_events_have_permits_of_their_own_and_count_by_network() {
        let admissions = admissions(1, Some(2));
        let client = admissions.client(Some(1)).expect("the only place");
        let first = admissions.event_reader(Some(1)).expect("a place of its own");
        assert_eq!(admissions.event_reader(Some(1)).err(), Some(LimitReached::PerIp));
        let others: Vec<_> = (2..=EVENT_READERS_MAX)
            .map(|n| admissions.event_reader(Some(n as u128)).expect("another network"))
            .collect();
        assert_eq!(admissions.event_reader(None).err(), Some(LimitReached::EventReaders));
        drop(others);
        assert!(admissions.event_reader(None).is_ok());
        drop((client, first));
        assert!(admissions.by_ip.lock().expect("not poisoned").is_empty());
    }
    #[test]
    fn an_idle_connection_leaves_for_a_client_and_at_the_end() {
        let admissions = admissions(2, None);
        let leaves = |idle: &mut KeepAlivePermit| {
            smol::block_on(smol::future::poll_once(std::future::poll_fn(|cx| idle.poll_leave(cx))))
                .is_some()
        };
        let mut first = admissions.idle().expect("no client is here");
        let mut second = admissions.idle().expect("two permits");
        assert!(admissions.idle().is_none(), "every permit is taken");
        let _one = admissions.client(None).expect("idle connections keep no client out");
        assert!(leaves(&mut first), "the client needs one of the permits");
        drop(first);
        assert!(!leaves(&mut second), "and only one of them");
        drop(second);
        let mut third = admissions.idle().expect("one permit is free");
        admissions.close();
        assert!(leaves(&mut third));
        assert!(admissions.idle().is_none());
    }
    #[test]
    fn a_handshake_is_late_once_the_drain_has_begun() {
        let admissions = admissions(1, None);
        assert!(!smol::block_on(admissions.handshake()).is_late());
        admissions.close();
        assert!(smol::block_on(admissions.handshake()).is_late());
    }
}
