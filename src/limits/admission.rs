//! The gate: how many may be inside, and whether it is still open.

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

/// Counts connections, clients and handshakes against their limits.
#[derive(Debug)]
pub(crate) struct Admissions {
    /// Clients with a permit now.
    clients: AtomicUsize,
    clients_max: usize,
    /// Clients with a permit by network, as [`Admissions::client`] was given it; entries of 0 are removed, so it is bounded by clients.
    by_ip: Mutex<HashMap<u128, usize>>,
    per_ip_max: Option<usize>,
    /// Connections that wait for their next request, in places that no client needs.
    idle: AtomicUsize,
    /// Tells as many of those as clients need the places of, and all when the gate is shut.
    keep_alive_unwanted: Event,
    /// For the handshakes in flight.
    handshakes: FifoSemaphore,
    /// Accept loops that pause because accepting failed.
    backing_off: AtomicUsize,
    /// Set once, when the hub begins to drain.
    closed: AtomicBool,
    /// Tells who waits for it that the last connection ended.
    all_gone: Event,
    /// Tells who waits for it that the gate was shut.
    drain_begun: Event,
    /// Where the gauge of connections stands.
    counters: Arc<Counters>,
    /// Where each connection sets aside what it may need.
    memory: Arc<MemoryBudget>,
}

/// Why there was no permit for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// As many clients as allowed are connected.
    Clients,
    /// As many clients as allowed are connected from that address.
    PerIp,
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

    /// Shuts the gate for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.drain_begun.notify(usize::MAX);
        self.keep_alive_unwanted.notify(usize::MAX);
    }

    /// Whether the gate was shut.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until the gate is shut.
    pub(crate) async fn closed(&self) {
        wait(&self.drain_begun, || self.is_closed()).await;
    }

    /// Waits until no connection is left.
    pub(crate) async fn empty(&self) {
        let is_empty = || self.counters.connections.load(Ordering::Acquire) == 0;
        wait(&self.all_gone, is_empty).await;
    }

    /// Waits for a place among the handshakes, behind everyone who waits already. `self` is shared
    /// because the place outlives the accept loop.
    pub(crate) async fn handshake(self: &Arc<Self>) -> HandshakePermit {
        self.handshakes.acquire().await.forget();
        HandshakePermit { admissions: Arc::clone(self), at_drain: self.is_closed() }
    }

    /// Whether who asks for a place now has to wait for it.
    pub(crate) fn is_full(&self) -> bool {
        self.handshakes.is_exhausted()
    }

    /// Counts an accept loop until the guard is dropped that pauses because accepting failed.
    pub(crate) fn pause(&self) -> AcceptBackoff<'_> {
        self.backing_off.fetch_add(1, Ordering::Relaxed);
        AcceptBackoff(self)
    }

    /// Whether others need what a handshake holds: a place among the handshakes, or the descriptor
    /// for want of which nobody can be accepted.
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
        if let (Some(max), Some(ip)) = (self.per_ip_max, ip) {
            let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let clients = by_ip.entry(ip).or_insert(0);
            if *clients >= max {
                drop(by_ip);
                return Err(LimitReached::PerIp);
            }
            *clients += 1;
            permit.ip = Some(Box::new(ip));
        }
        if self.clients.load(Ordering::Relaxed) + self.idle.load(Ordering::Relaxed)
            > self.clients_max
        {
            self.keep_alive_unwanted.notify(1.additional());
        }
        Ok(permit)
    }

    /// Takes a place for a connection that waits for its next request, if there is one that no
    /// client has. It has to be left when a client comes for it.
    pub(crate) fn idle(self: &Arc<Self>) -> Option<KeepAlivePermit> {
        // Before the gate is looked at, so that its closing is not missed.
        let idle = KeepAlivePermit {
            admissions: Arc::clone(self),
            leave: self.keep_alive_unwanted.listen(),
        };
        let taken =
            self.idle.fetch_add(1, Ordering::Relaxed) + self.clients.load(Ordering::Relaxed);
        (taken < self.clients_max && !self.is_closed()).then_some(idle)
    }
}

/// Waits until something is so; `event` tells when to look again.
async fn wait(event: &Event, is_so: impl Fn() -> bool) {
    while !is_so() {
        let listener = event.listen();
        if is_so() {
            return;
        }
        listener.await;
    }
}

/// A place among the handshakes.
#[derive(Debug)]
pub(crate) struct HandshakePermit {
    admissions: Arc<Admissions>,
    /// Whether the gate was shut already when the place was taken.
    at_drain: bool,
}

impl HandshakePermit {
    /// Whether it came after the gate was shut; who came before is still served, so that a restart
    /// refuses nobody whose connection was accepted.
    pub(crate) fn is_late(&self) -> bool {
        self.at_drain
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.admissions.handshakes.release();
    }
}

/// An accept loop that pauses.
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

/// A place for a connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct KeepAlivePermit {
    admissions: Arc<Admissions>,
    /// Hears when the place has to be left; dropped unheard, the next one hears it.
    leave: EventListener,
}

impl KeepAlivePermit {
    /// Ready once the place has to be left.
    pub(crate) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.leave).poll(cx)
    }
}

impl Drop for KeepAlivePermit {
    fn drop(&mut self) {
        self.admissions.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave for one client to be connected.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    admissions: Arc<Admissions>,
    /// The address it is counted under, if addresses are. Boxed, since few hubs count them and
    /// every client would have the place for it.
    ip: Option<Box<u128>>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.admissions.clients.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.ip.as_deref() {
            let mut by_ip = self.admissions.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(clients) = by_ip.get_mut(ip) {
                *clients -= 1;
                if *clients == 0 {
                    by_ip.remove(ip);
                }
            }
        }
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
        assert_eq!(admissions.clients.load(Ordering::Relaxed), 3, "a refusal gives its place back");
    }
    #[test]
    fn an_idle_connection_leaves_for_a_client_and_at_the_end() {
        let admissions = admissions(2, None);
        let leaves = |idle: &mut KeepAlivePermit| {
            smol::block_on(smol::future::poll_once(std::future::poll_fn(|cx| idle.poll_leave(cx))))
                .is_some()
        };
        let mut first = admissions.idle().expect("nobody is here");
        let mut second = admissions.idle().expect("two places");
        assert!(admissions.idle().is_none(), "every place is taken");
        let _one = admissions.client(None).expect("idle connections keep no client out");
        assert!(leaves(&mut first), "the client needs one of the places");
        drop(first);
        assert!(!leaves(&mut second), "and only one of them");
        drop(second);
        let mut third = admissions.idle().expect("one place is free");
        admissions.close();
        assert!(leaves(&mut third));
        assert!(admissions.idle().is_none());
    }
    #[test]
    fn a_handshake_is_late_once_the_gate_is_shut() {
        let admissions = admissions(1, None);
        assert!(!smol::block_on(admissions.handshake()).is_late());
        admissions.close();
        assert!(smol::block_on(admissions.handshake()).is_late());
    }
}
