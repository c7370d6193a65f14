//! The ends of tokens: closes a client when its token is over, by the clock of the system.
//!
//! That clock may be set, or stand still while the machine is suspended, and timers see neither. So
//! one task looks at it every few seconds, for all clients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_lite::future::or;
use hublet::{ClientId, Disconnect, Hub, Reactor};

/// The time between two looks at the clock: how late an end is noticed after the clock was set.
const LOOK: Duration = Duration::from_secs(2);

/// No clock that was set says less: the start of 2025.
const SET_MIN: Duration = Duration::from_secs(1_735_689_600);

/// Closes each client at the end of its token.
#[derive(Debug)]
pub(crate) struct TokenClock {
    hub: Hub,
    reactor: Reactor,
    ends: Mutex<Ends>,
    /// Tells [`run`](Self::run) that an end comes before all others.
    earlier: Event,
}

/// When the tokens of the clients end, in seconds of Unix time; as many as there are clients.
///
/// Not sorted, since a look that finds an end can go through all of them, and the code of a sorted set
/// is larger.
#[derive(Debug, Default)]
struct Ends {
    of: HashMap<ClientId, u64>,
    /// No end comes before it; `None` if there is none.
    first: Option<u64>,
}

impl TokenClock {
    pub(crate) fn new(hub: Hub, reactor: Reactor) -> Self {
        Self { hub, reactor, ends: Mutex::default(), earlier: Event::new() }
    }

    /// Closes a client at this time, in seconds of Unix time.
    pub(crate) fn add(&self, client: ClientId, end: u64) {
        let mut ends = self.ends();
        ends.of.insert(client, end);
        let is_first = ends.first.is_none_or(|first| end < first);
        if is_first {
            ends.first = Some(end);
        }
        drop(ends);
        if is_first {
            self.earlier.notify(1);
        }
    }

    /// Forgets a client that has left.
    pub(crate) fn remove(&self, client: ClientId) {
        let mut ends = self.ends();
        ends.of.remove(&client);
        if ends.of.is_empty() {
            ends.first = None;
        }
    }

    /// Waits for the end of a token, in seconds of Unix time; for ever, where it has none.
    pub(crate) async fn end_of(&self, token: Option<u64>) {
        let Some(end) = token else { return std::future::pending().await };
        loop {
            let left = Duration::from_secs(end).saturating_sub(unix_time());
            if left.is_zero() {
                return;
            }
            self.reactor.sleep(left.min(LOOK)).await;
        }
    }

    /// Closes clients as their tokens end, by what `time` says that it is.
    pub(crate) async fn run(self: Arc<Self>, time: impl Fn() -> Duration) {
        if time() < SET_MIN {
            log::warn!(
                "the clock says that it is {} s after 1970: tokens that have expired are accepted, \
                 and those with nbf refused, until it is set",
                time().as_secs()
            );
        }
        loop {
            let earlier = self.earlier.listen();
            let (over, wait) = self.take_expired(time());
            for client in over {
                let expired = Disconnect::new(1008, "token expired");
                // It may have left in this moment.
                drop(self.hub.disconnect(client, expired).await);
            }
            match wait {
                Some(wait) => or(earlier, self.reactor.sleep(wait)).await,
                None => earlier.await,
            }
        }
    }

    /// Takes out the clients with a token that is over. Returns them, and how long to wait before
    /// the next look, unless there is nothing to wait for.
    fn take_expired(&self, now: Duration) -> (Vec<ClientId>, Option<Duration>) {
        let ends = &mut *self.ends();
        let left = |end| Duration::from_secs(end).saturating_sub(now);
        let mut over = Vec::new();
        if ends.first.is_some_and(|first| left(first).is_zero()) {
            ends.first = None;
            for (&client, &end) in &ends.of {
                if left(end).is_zero() {
                    over.push(client);
                } else {
                    ends.first = Some(ends.first.map_or(end, |first| first.min(end)));
                }
            }
            for client in &over {
                ends.of.remove(client);
            }
        }
        (over, ends.first.map(|first| left(first).min(LOOK)))
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time since 1970; nothing, where the clock stands before.
pub(crate) fn unix_time() -> Duration {
    #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
    return crate::system_clock::unix_time();
    #[cfg(not(all(target_os = "linux", target_pointer_width = "32")))]
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use hublet::{Admission, Config};
    use smol::{Executor, Timer};

    use super::*;

    /// Longer than the time between two looks, and shorter than the tokens would take.
    const SOON: Duration = Duration::from_secs(20);

    /// A hub with a clock that the test sets, and two clients with tokens that end at 1000 and 2000.
    fn with_clock(test: impl AsyncFn(&AtomicU32, [hublet::Subscription; 2], &TokenClock)) {
        let executor = Executor::new();
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let manager = executor.spawn(manager);
        let seconds = Arc::new(AtomicU32::new(0));
        let reactor = Reactor::new().expect("descriptors");
        let clock = Arc::new(TokenClock::new(hub.clone(), reactor.clone()));
        let wall = Arc::clone(&seconds);
        let time = move || Duration::from_secs(wall.load(Ordering::Relaxed).into());
        let running = executor.spawn(Arc::clone(&clock).run(time));
        reactor.block_on(executor.run(async {
            let ada = hub.subscribe(Admission::user("ada")).await.expect("a place");
            let bob = hub.subscribe(Admission::user("bob")).await.expect("a place");
            clock.add(bob.client().id(), 2000);
            clock.add(ada.client().id(), 1000);
            test(&seconds, [ada, bob], &clock).await;
        }));
        drop((running, manager));
    }

    /// Waits for the end of a client; `None` if it does not come soon.
    async fn end(client: &mut hublet::Subscription) -> Option<Disconnect> {
        let late = async {
            Timer::after(SOON).await;
            None
        };
        or(async { client.next().await.err() }, late).await
    }

    /// A board that starts in 1970 gets its time by the network; a laptop wakes.
    #[test]
    fn a_step_of_the_clock_is_noticed() {
        with_clock(async |seconds, [mut ada, mut bob], clock| {
            seconds.store(1000, Ordering::Relaxed);
            let reason = end(&mut ada).await.expect("closed");
            assert_eq!((reason.code(), reason.reason()), (1008, "token expired"));
            assert_eq!(clock.ends().of.len(), 1, "the other's has not ended");
            seconds.store(1_800_000_000, Ordering::Relaxed);
            assert_eq!(end(&mut bob).await.map(|reason| reason.code()), Some(1008));
        });
    }

    #[test]
    fn the_next_look_is_soon_and_the_end_is_exact() {
        with_clock(async |_, [ada, bob], clock| {
            let (ada, bob) = (ada.client().id(), bob.client().id());
            let look = |millis| clock.take_expired(Duration::from_millis(millis));
            assert_eq!(look(0), (vec![], Some(LOOK)));
            assert_eq!(look(999_500), (vec![], Some(Duration::from_millis(500))));
            assert_eq!(look(1_000_000), (vec![ada], Some(LOOK)));
            // Back again, as by a clock that was wrong.
            assert_eq!(look(0), (vec![], Some(LOOK)));
            clock.remove(bob);
            assert_eq!(look(5_000_000), (vec![], None));
        });
    }
}
