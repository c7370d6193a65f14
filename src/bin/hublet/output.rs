//! The half of the pipe that prints the messages of a room.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_lite::future::or;
use hublet::{Admission, Client, Disconnect, Error, Hub, Reactor, Subscription};

use crate::failure::Failure;
use crate::lines;
use crate::pause::Pause;
use crate::stdio::StreamBuffer;

/// How long the output waits before it tries again to join its room.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The task that passes a room's messages on to standard output.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) reactor: Reactor,
    /// The client that has joined the room, for the input.
    pub(crate) own: Arc<Mutex<Option<Client>>>,
    /// Lines for the thread that writes them.
    pub(crate) lines: Arc<StreamBuffer>,
    pub(crate) pause: Arc<Pause>,
}

impl Output {
    /// Passes messages to the thread until the hub drains or the reader is gone, then waits for the
    /// thread.
    pub(crate) async fn run(
        self,
        hub: Hub,
        room: Arc<str>,
        mut subscription: Subscription,
    ) -> Result<(), Failure> {
        loop {
            *lock(&self.own) = Some(subscription.client().clone());
            let Some(reason) = self.hand_on(&mut subscription).await else { break };
            drop(subscription);
            if self.pause.is_wanted() {
                // All that the room had for it is among the lines. It joins again if the restart
                // fails.
                self.pause.end_output().await;
                let Some(again) = self.join_now(&hub, &room).await else { break };
                subscription = again;
                continue;
            }
            if ![Disconnect::SLOW.code(), Disconnect::TRY_LATER.code()].contains(&reason.code()) {
                break;
            }
            ::log::error!(
                "standard output is {}; nothing more is printed until it is read",
                reason.reason()
            );
            let Some(again) = self.join_again(&hub, &room).await else { break };
            subscription = again;
        }
        self.lines.end();
        self.lines.over().await;
        match self.lines.result() {
            Err(error) if !is_unread(&error) => {
                Err(Failure::running(format!("standard output failed: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Joins the room again, once a client permit is free.
    async fn join_now(&self, hub: &Hub, room: &Arc<str>) -> Option<Subscription> {
        loop {
            match subscribe(hub, room).await {
                Ok(subscription) => return Some(subscription),
                Err(error) if error.status().is_some() => self.reactor.sleep(RETRY_PAUSE).await,
                Err(_) => return None,
            }
        }
    }

    /// Joins the room again, once all lines are written and a client permit is free. `None` if the
    /// output has ended.
    async fn join_again(&self, hub: &Hub, room: &Arc<str>) -> Option<Subscription> {
        while self.lines.written().await {
            match subscribe(hub, room).await {
                Ok(subscription) => return Some(subscription),
                // Other clients have taken the permits. Try again later.
                Err(error) if error.status().is_some() => self.reactor.sleep(RETRY_PAUSE).await,
                Err(_) => break,
            }
        }
        None
    }

    /// Passes messages on. Returns why the subscription ended, or `None` if the reader is gone.
    async fn hand_on(&self, subscription: &mut Subscription) -> Option<Disconnect> {
        let mut missed = 0;
        loop {
            let next = async { Some(subscription.next().await) };
            let gone = async {
                self.lines.over().await;
                None
            };
            let message = match or(next, gone).await? {
                Ok(message) => message,
                Err(reason) => return Some(reason),
            };
            if subscription.missed() > missed {
                let more = subscription.missed() - missed;
                missed += more;
                ::log::error!("standard output is too slow: missed {more} messages");
            }
            if !self.lines.put(|bytes| lines::append(&message, bytes)).await {
                return None;
            }
        }
    }
}

/// Whether a stream failed because its reader is gone, which is a normal end.
fn is_unread(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

pub(crate) async fn subscribe(hub: &Hub, room: &Arc<str>) -> Result<Subscription, Error> {
    hub.subscribe(Admission::anonymous().room(Arc::clone(room))).await
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hublet::Config;
    use smol::Executor;

    use super::*;

    #[test]
    fn standard_output_joins_again_when_a_permit_is_free() {
        let (hub, manager) = Hub::new(Config::default().max_clients(Some(1))).expect("valid");
        let executor = Executor::new();
        let _manager = executor.spawn(manager);
        let reactor = Reactor::new().expect("descriptors");
        let (own, lines) = (Arc::default(), Arc::default());
        let pause = Arc::default();
        let output = Output { reactor: reactor.clone(), own, lines, pause };
        reactor.block_on(executor.run(async {
            let room = Arc::<str>::from("n");
            let other = subscribe(&hub, &room).await.expect("a place");
            let mut again = pin!(output.join_again(&hub, &room));
            let waited = async {
                reactor.sleep(RETRY_PAUSE * 2).await;
                None
            };
            assert!(or(again.as_mut(), waited).await.is_none(), "no permit is free");
            drop(other);
            assert!(again.await.is_some(), "a permit is free");
        }));
    }
}
