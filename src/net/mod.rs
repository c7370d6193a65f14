//! Sockets: listening, accepting, readiness, reading and writing.

pub(crate) mod acceptor;
pub(crate) mod dial;
#[cfg(target_os = "linux")]
pub(crate) mod epoll;
pub(crate) mod incoming;
pub(crate) mod io;
pub(crate) mod listener;
#[cfg(unix)]
pub(crate) mod options;
pub(crate) mod reactor;
#[cfg(target_os = "linux")]
pub(crate) mod readiness;
#[cfg(target_os = "linux")]
pub(crate) mod registrations;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod sys;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(unix)]
pub(crate) mod watch;
