//! Waiting while memory is short.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use event_listener::EventListener;

use crate::hub::handle::Hub;
use crate::memory::budget::AGING_TICK;
use crate::time::clock::now;
use crate::time::timers::Deadline;

/// The wait of a connection for memory; empty while it does not wait.
#[derive(Debug, Default)]
pub(crate) struct MemoryWait<'a>(Option<Box<Wait<'a>>>);

#[derive(Debug)]
struct Wait<'a> {
    available: EventListener,
    /// When to ask the manager for an eviction: memory that stalled clients pin is not freed by
    /// itself.
    retry: Deadline<'a>,
}

impl<'a> MemoryWait<'a> {
    /// Ready while memory is not short; `true` if the connection has waited for that.
    pub(crate) fn poll_available(&mut self, cx: &mut Context<'_>, hub: &'a Hub) -> Poll<bool> {
        let memory = hub.memory();
        let retry = || hub.shared().timers.after(AGING_TICK);
        loop {
            if !memory.is_high() {
                let waited = self.0.take().is_some();
                if waited {
                    memory.notify_next();
                }
                return Poll::Ready(waited);
            }
            let Some(wait) = &mut self.0 else {
                self.0 = Some(Box::new(Wait { available: memory.listen(), retry: retry() }));
                // Memory may have become free before the listener was registered.
                continue;
            };
            if Pin::new(&mut wait.available).poll(cx).is_ready() {
                wait.available = memory.listen();
            } else if Pin::new(&mut wait.retry).poll(cx).is_ready() {
                memory.set_time(now());
                hub.want_eviction();
                wait.retry = retry();
            } else {
                return Poll::Pending;
            }
        }
    }

    /// Ends the wait. A notification that this one has received goes to the next waiter.
    pub(crate) fn cancel(&mut self) {
        self.0 = None;
    }
}

/// Waits until memory is not short.
///
/// Cancel safe: a notification that a dropped wait has received goes to the next waiter.
pub(crate) async fn available(hub: &Hub) {
    let mut memory_wait = MemoryWait::default();
    poll_fn(|cx| memory_wait.poll_available(cx, hub)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use futures_lite::future::{block_on, poll_once};
    use smol::Executor;

    use super::*;
    use crate::config::Config;
    use crate::connection::admission::Admission;
    use crate::connection::registration;
    use crate::connection::registration::ClientKind;
    use crate::hub::tests::support::Wakes;
    use crate::message::Message;
    use crate::time::virtual_time::VirtualTime;

    /// A hub with a ceiling of 4 MiB, on an executor that the test ticks.
    fn hub(executor: &Executor<'static>) -> Hub {
        let config = Config::default().max_memory(Some(4 << 20)).queue_bytes(4 << 20);
        let (hub, manager) = Hub::new(config).expect("enough");
        executor.spawn(manager).detach();
        hub
    }
    #[test]
    fn released_memory_wakes_all_waiters() {
        let executor = Executor::new();
        let hub = hub(&executor);
        let mut free = MemoryWait::default();
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert_eq!(free.poll_available(cx, &hub), Poll::Ready(false), "it need not wait");
        let charge = hub.memory().charge(4 << 20);
        let mut waiting = [Waiting::at(&hub), Waiting::at(&hub)];
        assert!(waiting.iter_mut().all(|waiting| !waiting.is_over()));
        drop(charge);
        for waiting in &mut waiting {
            assert_eq!(waiting.wakes.take(), 1, "it is woken");
            assert!(waiting.is_over());
        }
    }
    #[test]
    fn waiter_that_finds_memory_high_again_waits_on() {
        let executor = Executor::new();
        let hub = hub(&executor);
        let charge = hub.memory().charge(4 << 20);
        let mut waiting = Waiting::at(&hub);
        assert!(!waiting.is_over());
        drop(charge);
        let charge = hub.memory().charge(4 << 20);
        assert!(waiting.wakes.take() == 1 && !waiting.is_over(), "memory is high again");
        drop(charge);
        assert!(waiting.wakes.take() == 1 && waiting.is_over());
    }
    /// A waiter with a waker of its own.
    struct Waiting<'a> {
        memory_wait: MemoryWait<'a>,
        hub: &'a Hub,
        wakes: Arc<Wakes>,
    }
    impl<'a> Waiting<'a> {
        fn at(hub: &'a Hub) -> Self {
            Self { memory_wait: MemoryWait::default(), hub, wakes: Arc::default() }
        }

        fn is_over(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.wakes));
            let cx = &mut Context::from_waker(&waker);
            self.memory_wait.poll_available(cx, self.hub).is_ready()
        }
    }
    /// Memory that a stalled client pins is not freed by itself: a waiter causes the eviction of
    /// the client, once it has pinned the memory for a tick.
    #[test]
    fn waiter_causes_the_eviction_of_a_client_that_pins_memory() {
        let time = VirtualTime::start();
        let executor = Executor::new();
        let hub = hub(&executor);
        hub.memory().set_time(now());
        let admission = Admission::anonymous().room("main");
        let admitted =
            block_on(executor.run(registration::admit(&hub, admission, ClientKind::WebSocket)))
                .expect("a permit");
        while !hub.memory().is_high() {
            let message = Message::from(vec![7; Config::MAX_MESSAGE]);
            hub.try_publish("main", message).expect("the inbox is empty");
            while executor.try_tick() {}
        }
        let mut waiting = Box::pin(available(&hub));
        let mut ticks = 0;
        while block_on(poll_once(&mut waiting)).is_none() {
            assert!(ticks < 3, "it waits for ever");
            time.advance(AGING_TICK);
            assert!(block_on(poll_once(&mut waiting)).is_none(), "the manager has not run");
            while executor.try_tick() {}
            ticks += 1;
        }
        assert_eq!(ticks, 2, "not before it has pinned the memory for a whole tick");
        assert_eq!(hub.stats().clients, 0);
        let reason = admitted.registered.queue.reason().expect("it was evicted");
        assert_eq!(reason.code(), crate::disconnect::Disconnect::TRY_LATER.code());
    }
    #[test]
    fn no_client_is_admitted_while_memory_is_high() {
        let executor = Executor::new();
        let hub = hub(&executor);
        let _charge = hub.memory().charge(4 << 20);
        let refused = block_on(executor.run(registration::admit(
            &hub,
            Admission::anonymous(),
            ClientKind::WebSocket,
        )));
        let status = refused.expect_err("memory is short").status();
        assert_eq!(status, Some(http::StatusCode::SERVICE_UNAVAILABLE));
    }
}
