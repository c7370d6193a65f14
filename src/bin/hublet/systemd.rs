//! What systemd is told, if it is what started the process: ready, stopping, alive.

use std::time::Duration;

use hublet::Hub;
use smol::Timer;

#[cfg(target_os = "linux")]
use sd_notify::NotifyState;

/// Tells that connections are accepted.
pub(crate) fn ready() {
    #[cfg(target_os = "linux")]
    notify(NotifyState::Ready);
}

/// Tells that the drain has begun.
pub(crate) fn stopping() {
    #[cfg(target_os = "linux")]
    notify(NotifyState::Stopping);
}

/// Returns how often a sign of life is due: twice in the time that systemd waits for one.
pub(crate) fn watchdog() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return sd_notify::watchdog_enabled().map(|wait| wait / 2);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Tells again and again that the hub is alive: each time the manager has answered a question, so
/// that an executor, a timer or a manager that is stuck is silent. Ends with the manager.
pub(crate) async fn pulse(hub: Hub, interval: Duration) {
    // A room that nobody can be in: the answer is short.
    while hub.presence("").await.is_ok() {
        #[cfg(target_os = "linux")]
        notify(NotifyState::Watchdog);
        Timer::after(interval).await;
    }
}

#[cfg(target_os = "linux")]
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        ::log::warn!("systemd cannot be told of the hub's state: {error}");
    }
}
