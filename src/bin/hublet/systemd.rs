//! Notifies systemd, if it started the process: ready, stopping, alive (sd_notify(3)).

use std::time::Duration;

use hublet::{Config, Hub, Reactor};

/// Notifies that the hub accepts connections.
pub(crate) fn ready() {
    notify("READY=1\n");
}

/// Notifies that a restart has begun; [`ready`] ends it, here or in the program that follows.
#[cfg(target_os = "linux")]
pub(crate) fn reloading() {
    let micros = crate::system_clock::monotonic().as_micros();
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
}

/// This system has no systemd.
#[cfg(not(target_os = "linux"))]
pub(crate) fn reloading() {}

/// Notifies that the drain has begun, and how long it may take, if that is more than by default: the
/// time that the service has to stop may be shorter.
pub(crate) fn stopping(drain_max: Duration) {
    if drain_max > Config::default().drain_max() {
        let micros = drain_max.as_micros();
        notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\n"));
    } else {
        notify("STOPPING=1\n");
    }
}

/// The interval between watchdog notifications: half of the time that systemd waits for one. Without
/// `WATCHDOG_PID` the watchdog is this process's (sd_watchdog_enabled(3)).
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = match std::env::var_os("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(std::process::id().into()),
        None => true,
    };
    let wait = number("WATCHDOG_USEC").filter(|&micros| is_ours && micros > 0)?;
    cfg!(target_os = "linux").then(|| Duration::from_micros(wait) / 2)
}

/// Sends a watchdog notification each time the manager has answered a request. If the executor, a
/// timer or the manager is stuck, the notifications stop. Ends with the manager.
pub(crate) async fn pulse(hub: Hub, reactor: Reactor, interval: Duration) {
    // No room can have this name, so the answer is short.
    while hub.presence("").await.is_ok() {
        notify("WATCHDOG=1\n");
        reactor.sleep(interval).await;
    }
}

#[cfg(target_os = "linux")]
fn notify(state: &str) {
    if let Err(error) = send(state) {
        ::log::warn!("systemd cannot be told of the hub's state: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn notify(_: &str) {}

/// Sends a datagram to the socket that `NOTIFY_SOCKET` names: a path, or behind `@` a name in the
/// abstract namespace.
#[cfg(target_os = "linux")]
fn send(state: &str) -> std::io::Result<()> {
    use std::io;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(&name)?,
        _ => {
            let sentence = format!(
                "NOTIFY_SOCKET={} is neither a path nor an abstract socket: hublet does not speak \
                 vsock",
                name.to_string_lossy()
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
        }
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
