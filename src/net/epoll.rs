//! Sockets whose changes the kernel reports once each (`epoll(7)`, edge-triggered), and alarms.
//!
//! A socket is registered once for its life, so that a wait is one system call and a message needs
//! no other to be waited for.

use std::future::Future;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::{io, thread};

use rustix::event::epoll::{CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use crate::net::readiness::{ENDED, READABLE, Readiness, WRITABLE};
use crate::net::registrations::{EventToken, Registrations};
use crate::sync::{Mutex, MutexGuard};
use crate::time::alarms::Alarms;
use crate::time::clock::now;

/// Events that one wait returns at most. The next wait returns the others.
const EVENTS: usize = 256;

/// The token of the eventfd that ends a wait. No socket has it: the lower half is a key.
const WAKE: u64 = u64::MAX;

/// The token of the timer of the alarms.
const ALARM: u64 = u64::MAX - 1;

/// The events that are asked for on every socket. The kernel always reports errors.
const READING: EventFlags = EventFlags::ET.union(EventFlags::IN).union(EventFlags::RDHUP);

/// An epoll instance, and the threads that wait for its sockets and alarms.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Ends a wait from another thread.
    wake: Arc<OwnedFd>,
    registrations: Mutex<Registrations>,
    alarms: Arc<Alarms>,
    /// Held by the thread that waits.
    waiting: Mutex<()>,
    /// Threads that are ready to take over the wait, one entry for each call of `block_on`.
    parked: Mutex<Vec<Thread>>,
}

/// Translates the kernel's flags.
fn readiness_of(flags: EventFlags) -> u8 {
    let failed = EventFlags::HUP | EventFlags::ERR;
    let mut readiness = 0;
    if flags.intersects(EventFlags::IN | EventFlags::RDHUP | failed) {
        readiness |= READABLE;
    }
    if flags.intersects(EventFlags::OUT | failed) {
        readiness |= WRITABLE;
    }
    if flags.contains(EventFlags::RDHUP) {
        readiness |= ENDED;
    }
    readiness
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let alarms = Alarms::new()?;
        // Each write to an eventfd is an edge, even if the value was not read; so is each time that
        // a timer fires.
        let edges = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), edges)?;
        epoll::add(&epoll, alarms.descriptor(), EventData::new_u64(ALARM), edges)?;
        Ok(Self {
            epoll,
            wake: Arc::new(wake),
            registrations: Mutex::default(),
            alarms: Arc::new(alarms),
            waiting: Mutex::default(),
            parked: Mutex::default(),
        })
    }

    pub(crate) fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Runs a future to its end. While it is pending, this thread waits for sockets; if another
    /// thread already does that, it waits for a wake.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let parker = Arc::new(Parker {
            wake: Arc::clone(&self.wake),
            thread: thread::current(),
            woken: false.into(),
            state: AWAKE.into(),
        });
        let waker = Waker::from(Arc::clone(&parker));
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut waiting = None;
        loop {
            // Cleared before the poll, so that a wake during the poll causes another one. A swap
            // (SeqCst), so that the poll sees what was written before the wake.
            parker.woken.swap(false, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            if waiting.is_some() {
                self.poll_events(&parker);
            } else {
                waiting = self.park(&parker);
            }
        }
    }

    /// Becomes the thread that waits for sockets. If another thread is that, parks until the other
    /// thread stops waiting or `parker` is woken.
    fn park(&self, parker: &Parker) -> Option<Waiting<'_>> {
        // Listed as parked before the attempt to become the poller: a poller that stops later then
        // finds this thread in the list and unparks it.
        self.parked().push(parker.thread.clone());
        let waiting = Waiting::take(self);
        if waiting.is_none() {
            parker.state.store(PARKED, Ordering::SeqCst);
            if !parker.woken.load(Ordering::SeqCst) {
                thread::park();
            }
            parker.state.store(AWAKE, Ordering::SeqCst);
        }
        self.parked().retain(|thread| thread.id() != parker.thread.id());
        waiting
    }

    fn parked(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for sockets, or until `parker` is woken, and wakes the tasks of the sockets.
    fn poll_events(&self, parker: &Parker) {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        parker.state.store(WAITING, Ordering::SeqCst);
        // Pairs with `wake_by_ref` (SeqCst): either this load sees `woken`, or `wake_by_ref` sees
        // WAITING and writes to the eventfd.
        let at_once = parker.woken.load(Ordering::SeqCst).then(Timespec::default);
        let events = match epoll::wait(&self.epoll, &mut events[..], at_once.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &mut [],
            // The descriptors are open and belong to the poller: no other error is possible
            // (epoll_wait(2)).
            Err(error) => panic!("epoll_wait failed: {error}"),
        };
        parker.state.store(AWAKE, Ordering::SeqCst);
        for event in events {
            self.dispatch(event.data.u64(), event.flags);
        }
    }

    /// Passes an event on to the alarms, or to its socket, unless the socket was dropped meanwhile.
    fn dispatch(&self, token: u64, flags: EventFlags) {
        if token == ALARM {
            return self.alarms.fire(now());
        }
        let readiness = self.registrations().find(token);
        if let Some(readiness) = readiness {
            readiness.set(readiness_of(flags));
        }
    }

    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to wait for sockets. When it is dropped, all parked threads are unparked.
struct Waiting<'a> {
    poller: &'a Poller,
    guard: Option<MutexGuard<'a, ()>>,
}

impl<'a> Waiting<'a> {
    fn take(poller: &'a Poller) -> Option<Self> {
        let guard = match poller.waiting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Self { poller, guard: Some(guard) })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.poller.parked().iter().for_each(Thread::unpark);
    }
}

// The state of a thread in `block_on`.
const AWAKE: u8 = 0;

/// The thread waits for sockets, or is about to.
const WAITING: u8 = 1;

/// The thread is parked, or is about to be.
const PARKED: u8 = 2;

/// A thread in `block_on`.
struct Parker {
    wake: Arc<OwnedFd>,
    thread: Thread,
    /// Whether the thread must poll its future again.
    woken: AtomicBool,
    state: AtomicU8,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.state.load(Ordering::SeqCst) {
            WAITING => {
                // The write fails only if the counter is full; then the eventfd is readable
                // already.
                let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
            }
            PARKED => self.thread.unpark(),
            _ => {}
        }
    }
}

/// A non-blocking socket and its readiness, for one task.
///
/// A poll that returns ready clears the readiness. Read or write until the kernel has no more, or
/// call [`expect_more`](Self::expect_more).
#[derive(Debug)]
pub(crate) struct EpollSource<T: AsFd> {
    registration: Registration,
    socket: T,
    /// Whether other descriptors of the socket may exist.
    shared: bool,
}

/// A socket's entry in a poller.
#[derive(Debug)]
struct Registration {
    readiness: Arc<Readiness>,
    token: EventToken,
    poller: Arc<Poller>,
}

impl<T: AsFd> EpollSource<T> {
    /// Registers a socket of which no other descriptor exists.
    pub(crate) fn new(poller: &Arc<Poller>, socket: T) -> io::Result<Self> {
        Self::register(poller, socket, false)
    }

    /// Registers a socket of which other descriptors may exist, such as an inherited listener.
    pub(crate) fn shared(poller: &Arc<Poller>, socket: T) -> io::Result<Self> {
        Self::register(poller, socket, true)
    }

    fn register(poller: &Arc<Poller>, socket: T, shared: bool) -> io::Result<Self> {
        let registration = Registration::new(poller);
        epoll::add(&poller.epoll, &socket, registration.token(), READING)?;
        Ok(Self { registration, socket, shared })
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.socket
    }

    pub(crate) fn poller(&self) -> &Arc<Poller> {
        &self.registration.poller
    }

    /// Ready when a read may return something.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.readiness.poll(cx, READABLE)
    }

    /// Ready when a write may make progress.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Registration { readiness, poller, .. } = &self.registration;
        // Not asked for from the start: a Unix socket is reported writable after every read of its
        // peer.
        if !readiness.wants_writable() {
            let both = READING | EventFlags::OUT;
            epoll::modify(&poller.epoll, &self.socket, self.registration.token(), both)?;
        }
        readiness.poll(cx, WRITABLE).map(Ok)
    }

    /// Whether a listener was shut down, so that no more connections arrive.
    pub(crate) fn has_ended(&self) -> bool {
        self.registration.readiness.has_ended()
    }

    /// Marks the socket readable again: the last read filled its buffer, and the kernel reports no
    /// further edge for what is left.
    pub(crate) fn expect_more(&self) {
        self.registration.readiness.expect(READABLE);
    }
}

impl<T: AsFd> Drop for EpollSource<T> {
    /// The kernel removes a socket by itself when its last descriptor is closed.
    fn drop(&mut self) {
        if self.shared {
            // Fails only if the socket is not registered any more.
            let _ = epoll::delete(&self.registration.poller.epoll, &self.socket);
        }
    }
}

impl Registration {
    fn new(poller: &Arc<Poller>) -> Self {
        let readiness = Arc::new(Readiness::default());
        let token = poller.registrations().insert(Arc::clone(&readiness));
        Self { readiness, token, poller: Arc::clone(poller) }
    }

    /// The token of the socket's events.
    fn token(&self) -> EventData {
        EventData::new_u64(self.token.number())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _readiness = self.poller.registrations().remove(self.token);
        self.readiness.end();
    }
}

#[cfg(test)]
mod tests;
