//! Notifies systemd, if it started the process: ready, stopping, alive.

use std::time::Duration;

use hublet::{Hub, Reactor};

#[cfg(target_os = "linux")]
use sd_notify::NotifyState;

/// Notifies that the hub accepts connections.
pub(crate) fn ready() {
    #[cfg(target_os = "linux")]
    notify(NotifyState::Ready);
}

/// Notifies that the drain has begun.
pub(crate) fn stopping() {
    #[cfg(target_os = "linux")]
    notify(NotifyState::Stopping);
}

/// The interval between watchdog notifications: half of the time that systemd waits for one.
pub(crate) fn watchdog() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return sd_notify::watchdog_enabled().map(|wait| wait / 2);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Sends a watchdog notification each time the manager has answered a request. If the executor, a
/// timer or the manager is stuck, the notifications stop. Ends with the manager.
pub(crate) async fn pulse(hub: Hub, reactor: Reactor, interval: Duration) {
    // No room can have this name, so the answer is short.
    while hub.presence("").await.is_ok() {
        #[cfg(target_os = "linux")]
        notify(NotifyState::Watchdog);
        reactor.sleep(interval).await;
    }
}

#[cfg(target_os = "linux")]
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        ::log::warn!("systemd cannot be told of the hub's state: {error}");
    }
}
