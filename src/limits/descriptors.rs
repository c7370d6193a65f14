//! The limit on clients that follows from the platform's limit on file descriptors.

#[cfg(unix)]
use crate::config::Config;

/// File descriptors left for everything that is not a client, when the limit on clients follows
/// the limit on descriptors.
#[cfg(unix)]
const RESERVED_FDS: usize = 64;

/// The limit on clients where neither the configuration nor the platform gives one.
#[cfg(not(unix))]
const CLIENTS_MAX: usize = 16 * 1024;

/// The limit on clients that the platform's limit on file descriptors leaves.
pub(crate) fn clients_max() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let fds = limit.map_or(Config::LIMIT_MAX, |fds| usize::try_from(fds).unwrap_or(usize::MAX));
        fds.saturating_sub(RESERVED_FDS).clamp(1, Config::LIMIT_MAX)
    }
    #[cfg(not(unix))]
    CLIENTS_MAX
}
