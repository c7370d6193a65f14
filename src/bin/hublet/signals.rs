//! SIGTERM, SIGINT and SIGHUP, as futures.

use std::future::poll_fn;
use std::io;

use super::Failure;

/// The signals that end the hub.
///
/// SIGHUP says that the terminal is gone. A terminal that closes may send it twice, and a supervisor
/// behind SIGTERM, so it is never the second signal that stops the hub at once.
#[derive(Debug)]
pub(crate) struct Signals(sys::Signals);

impl Signals {
    /// Catches the signals from now on. A SIGHUP that is ignored, as under `nohup`, stays ignored.
    pub(crate) fn new() -> Result<Self, Failure> {
        sys::Signals::new().map(Self).map_err(failure)
    }

    /// Waits for the first signal. Cancel safe.
    pub(crate) async fn first(&self) -> Result<(), Failure> {
        poll_fn(|cx| self.0.poll_first(cx)).await.map_err(failure)
    }

    /// Waits for a second signal. Cancel safe.
    pub(crate) async fn second(&self) -> Result<(), Failure> {
        poll_fn(|cx| self.0.poll_stop(cx)).await.map_err(failure)
    }
}

fn failure(error: io::Error) -> Failure {
    Failure::running(format!("signals cannot be caught: {error}"))
}

/// A signal handler writes a byte to a socket pair for each signal.
#[cfg(unix)]
mod sys {
    use std::io::{self, ErrorKind, IsTerminal as _, Read as _};
    use std::os::unix::net::UnixStream;
    use std::task::{Context, Poll, ready};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use smol::Async;

    #[derive(Debug)]
    pub(crate) struct Signals {
        /// SIGTERM and SIGINT.
        stop: Pipe,
        /// SIGHUP, unless it is ignored.
        hangup: Option<Pipe>,
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            let hangup = !ignores_hangup();
            Ok(Self {
                stop: Pipe::of(&[SIGTERM, SIGINT])?,
                hangup: hangup.then(|| Pipe::of(&[SIGHUP])).transpose()?,
            })
        }

        pub(crate) fn poll_first(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.poll_stop(cx) {
                Poll::Pending => {
                    self.hangup.as_ref().map_or(Poll::Pending, |hangup| hangup.poll_next(cx))
                }
                stop => stop,
            }
        }

        pub(crate) fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.stop.poll_next(cx)
        }
    }

    /// Some signals.
    #[derive(Debug)]
    struct Pipe(Async<UnixStream>);

    impl Pipe {
        fn of(signals: &[i32]) -> io::Result<Self> {
            let (reader, writer) = UnixStream::pair()?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
            }
            Ok(Self(Async::new(reader)?))
        }

        fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            loop {
                match self.0.get_ref().read(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        ready!(self.0.poll_readable(cx))?;
                    }
                    read => return Poll::Ready(read.map(drop)),
                }
            }
        }
    }

    /// Whether the process was started with SIGHUP ignored. Where the system does not say, it
    /// counts as ignored unless a standard stream is a terminal: `nohup` leaves none.
    fn ignores_hangup() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored(&status, SIGHUP).unwrap_or_else(|| {
            ![io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()]
                .contains(&true)
        })
    }

    /// Reads from Linux's description of a process whether it ignores a signal.
    fn ignored(status: &str, signal: i32) -> Option<bool> {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        let mask = u64::from_str_radix(mask.trim_ascii(), 16).ok()?;
        Some(mask >> (signal - 1) & 1 == 1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn linux_says_which_signals_are_ignored() {
            let status = "Name:\thublet\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
            assert_eq!(ignored(status, SIGHUP), Some(true));
            assert_eq!(ignored(status, SIGINT), Some(false));
            assert_eq!(ignored("Name:\thublet\n", SIGHUP), None);
        }
    }
}

/// On this system a signal ends the process without a drain.
#[cfg(not(unix))]
mod sys {
    use std::io;
    use std::task::{Context, Poll};

    #[derive(Debug)]
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn poll_first(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        pub(crate) fn poll_stop(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
