//! The graceful shutdown.

use std::future::Future;
use std::time::Duration;

use futures_lite::future::or;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::time::clock::now;

/// How long a drain waits for a client to take what is in its queue. Shorter than the write
/// timeout, since supervisors wait ten seconds: 5 s of window, this, and 2 s for the peer's answer.
const WRITE_OUT: Duration = Duration::from_secs(2);

/// The longest pause between two close frames of a drain: a few clients are closed at once, 2,000
/// over 5 s. A machine for so few clients takes 400 reconnects in a second.
const PACE_MAX: Duration = Duration::from_micros(2500);

/// How often a drain looks for clients whose requests were in progress when it began.
const LATECOMERS: Duration = Duration::from_millis(50);

impl Config {
    /// Returns how long a [`drain`](Hub::drain) takes at most: the window, 2 s (or the write
    /// timeout, if that is shorter) for queued messages, and the close timeout.
    ///
    /// A supervisor should wait longer than this before it kills the process.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let config = hublet::Config::default();
    /// assert_eq!(config.drain_max(), Duration::from_secs(9));
    /// assert_eq!(config.drain(Duration::ZERO).drain_max(), Duration::from_secs(4));
    /// ```
    #[must_use]
    pub fn drain_max(&self) -> Duration {
        self.drain + WRITE_OUT.min(self.write_timeout) + self.close_timeout
    }
}

impl Hub {
    /// Shuts down gracefully: accepts no more connections, closes every client with `reason`, and
    /// waits for the connections to end. The hub still answers the request of a connection that was
    /// accepted before, so that a restart behind a listener that stays open refuses no client.
    ///
    /// The close frames are spread evenly, so that the clients do not all reconnect at once: over
    /// 2.5 ms for each client, and at most over [`Config::drain`](crate::Config::drain). The
    /// messages that are queued for a client go before its close frame. The drain returns when no
    /// client is left, after [`Config::drain_max`] at the latest: 9 s at the defaults. Then the
    /// manager's future ends.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the hub still admits no new client. Another call continues
    /// the drain.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Config, Disconnect, Hub};
    ///
    /// # smol::block_on(async {
    /// let (hub, manager) = Hub::new(Config::default())?;
    /// let manager = smol::spawn(manager);
    /// let mut ada = hub.subscribe(Admission::user("ada")).await?;
    /// hub.broadcast("the last word").await?;
    ///
    /// let listen = async move {
    ///     assert_eq!(ada.next().await.expect("connected").as_text(), Some("the last word"));
    ///     ada.next().await.expect_err("the hub drains")
    /// };
    /// let drain = hub.drain(Disconnect::RESTART);
    /// let ((), reason) = futures_lite::future::zip(drain, listen).await;
    /// assert_eq!(reason, Disconnect::RESTART);
    ///
    /// manager.await;
    /// assert!(hub.broadcast("anyone?").await.expect_err("the hub has ended").is_closed());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "shutdown")]
    #[doc(alias = "close")]
    pub async fn drain(&self, reason: Disconnect) {
        let shared = self.shared();
        shared.admissions.close();
        let config = &shared.config;
        let all_gone = or(
            async {
                // An error means that the manager has ended: no client is left to close.
                drop(self.close_all(&reason).await);
                shared.admissions.empty().await;
            },
            shared.admissions.empty(),
        );
        or(all_gone, self.after(config.drain_max())).await;
        let stop = async { drop(self.send_command(Command::Stop).await) };
        or(stop, self.after(config.close_timeout)).await;
    }

    /// Closes every client, one after another over the window, and then the clients that connected
    /// meanwhile. Runs until it is dropped.
    async fn close_all(&self, reason: &Disconnect) -> Result<(), Error> {
        let mut window = self.shared().config.drain;
        let clock = self.shared().timers.clock();
        loop {
            let clients = self.clients().await?;
            let begin = now();
            let pace = pace(window, clients.len());
            for (client, nth) in clients.iter().zip(0..) {
                clock.at(begin + pace * nth).await;
                let (id, reason) = (client.id, reason.clone());
                self.send_command(Command::Disconnect { id, reason, reply: None }).await?;
            }
            window = Duration::ZERO;
            clock.after(LATECOMERS).await;
        }
    }

    fn after(&self, wait: Duration) -> impl Future<Output = ()> + use<> {
        self.shared().timers.clock().after(wait)
    }
}

/// The pause between two of so many clients.
fn pace(window: Duration, clients: usize) -> Duration {
    let even = window / u32::try_from(clients.max(1)).unwrap_or(u32::MAX);
    even.min(PACE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_number_of_clients() {
        let window = |clients: usize| pace(Config::DRAIN, clients) * clients as u32;
        assert_eq!(window(2), Duration::from_millis(5));
        assert_eq!(window(400), Duration::from_secs(1));
        // From here on it is the whole window.
        assert_eq!(window(2000), Config::DRAIN);
        assert_eq!(window(50_000), Config::DRAIN);
        assert_eq!(pace(Duration::ZERO, 50_000), Duration::ZERO);
    }
}
