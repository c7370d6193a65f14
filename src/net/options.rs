//! The socket options of a listener and its connections, where the system grants them.
//!
//! An MPTCP socket, gVisor and WSL refuse some. None is worth an end: the hub serves without it.

use std::io;
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::time::Duration;

use rustix::net::sockopt;

#[cfg(target_os = "linux")]
use crate::net::stream::RESPONSE_SECONDS_MAX;

/// Seconds without an acknowledgement after which the kernel gives up a connection.
#[cfg(target_os = "linux")]
const UNANSWERED_SECONDS: u32 = 20;

/// What every TCP connection has. On Linux it inherits this from its listener, for no call of its
/// own.
#[cfg(target_os = "linux")]
pub(crate) const TCP: &[SocketOption] = &[
    SocketOption::NoDelay,
    SocketOption::KeepAlive,
    SocketOption::KeepIdle,
    SocketOption::UserTimeout,
];

/// What every TCP connection has.
#[cfg(not(target_os = "linux"))]
pub(crate) const TCP: &[SocketOption] = &[SocketOption::NoDelay];

/// An option and its value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SocketOption {
    NoDelay,
    #[cfg(target_os = "linux")]
    KeepAlive,
    #[cfg(target_os = "linux")]
    KeepIdle,
    #[cfg(target_os = "linux")]
    UserTimeout,
    /// The same for a response, which a peer may read slowly.
    #[cfg(target_os = "linux")]
    ResponseTimeout,
    /// Bytes of each of the two buffers, as the kernel counts them: twice what it is told.
    Buffers(usize),
}

impl SocketOption {
    /// Its name, and what a connection is without it.
    fn words(self) -> (&'static str, &'static str) {
        #[cfg(target_os = "linux")]
        const LATE: &str = "lost connections are noticed later, by pings";
        match self {
            Self::NoDelay => ("TCP_NODELAY", "short messages may be late"),
            #[cfg(target_os = "linux")]
            Self::KeepAlive => ("SO_KEEPALIVE", LATE),
            #[cfg(target_os = "linux")]
            Self::KeepIdle => ("TCP_KEEPIDLE", LATE),
            #[cfg(target_os = "linux")]
            Self::UserTimeout | Self::ResponseTimeout => ("TCP_USER_TIMEOUT", LATE),
            Self::Buffers(_) => {
                ("SO_SNDBUF or SO_RCVBUF", "connections may take more than the memory limit counts")
            }
        }
    }

    /// Its bit among the refused.
    fn bit(self) -> u8 {
        match self {
            Self::NoDelay => 1,
            #[cfg(target_os = "linux")]
            Self::KeepAlive => 2,
            #[cfg(target_os = "linux")]
            Self::KeepIdle => 4,
            #[cfg(target_os = "linux")]
            Self::UserTimeout | Self::ResponseTimeout => 8,
            Self::Buffers(_) => 16,
        }
    }

    pub(crate) fn set(self, socket: impl AsFd) -> io::Result<()> {
        match self {
            Self::NoDelay => sockopt::set_tcp_nodelay(socket, true)?,
            #[cfg(target_os = "linux")]
            Self::KeepAlive => sockopt::set_socket_keepalive(socket, true)?,
            #[cfg(target_os = "linux")]
            Self::KeepIdle => {
                sockopt::set_tcp_keepidle(socket, Duration::from_secs(UNANSWERED_SECONDS.into()))?;
            }
            #[cfg(target_os = "linux")]
            Self::UserTimeout => {
                sockopt::set_tcp_user_timeout(socket, UNANSWERED_SECONDS * 1000)?;
            }
            #[cfg(target_os = "linux")]
            Self::ResponseTimeout => {
                sockopt::set_tcp_user_timeout(socket, RESPONSE_SECONDS_MAX * 1000)?;
            }
            Self::Buffers(bytes) => {
                sockopt::set_socket_send_buffer_size(&socket, bytes / 2)?;
                sockopt::set_socket_recv_buffer_size(&socket, bytes / 2)?;
            }
        }
        Ok(())
    }
}

/// The options that the system refused for a listener. Its connections are not asked to take them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refused(u8);

impl Refused {
    /// Sets options of a listener. An option that the system refuses is a warning.
    pub(crate) fn set_on_listener(&mut self, listener: impl AsFd, options: &[SocketOption]) {
        for option in options {
            if let Err(error) = option.set(&listener) {
                self.0 |= option.bit();
                let (name, without) = option.words();
                log::warn!("the system refuses {name} for a listener ({error}): {without}");
            }
        }
    }

    /// Sets those options of a connection that its listener has taken.
    pub(crate) fn set_on_connection(
        self,
        connection: impl AsFd,
        options: &[SocketOption],
    ) -> io::Result<()> {
        let granted = options.iter().filter(|option| self.0 & option.bit() == 0);
        granted.copied().try_for_each(|option| option.set(&connection))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_option_that_a_listener_refuses_is_not_set_on_its_connections() {
        // A Unix socket stands for a system that has no option of TCP.
        let path = std::env::temp_dir().join(format!("hublet-options-{}", std::process::id()));
        let poor = UnixListener::bind(&path).expect("a free path");
        std::fs::remove_file(&path).expect("it is there");
        let mut refused = Refused::default();
        assert!(refused.set_on_connection(&poor, TCP).is_err(), "it takes them all");
        refused.set_on_listener(&poor, TCP);
        refused.set_on_listener(&poor, &[SocketOption::Buffers(65_536)]);
        assert_ne!(refused.0 & SocketOption::NoDelay.bit(), 0);
        assert_eq!(refused.0 & SocketOption::Buffers(0).bit(), 0, "every socket has buffers");
        refused.set_on_connection(&poor, TCP).expect("nothing is asked that was refused");

        let rich = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut refused = Refused::default();
        refused.set_on_listener(&rich, TCP);
        assert_eq!(refused.0, 0);
        assert!(sockopt::tcp_nodelay(&rich).expect("asked"));
        #[cfg(target_os = "linux")]
        for (option, seconds) in
            [(SocketOption::ResponseTimeout, 300), (SocketOption::UserTimeout, 20)]
        {
            option.set(&rich).expect("it takes it");
            assert_eq!(sockopt::tcp_user_timeout(&rich).expect("asked"), seconds * 1000);
        }
    }
}
