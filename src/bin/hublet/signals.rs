//! SIGTERM, SIGINT, SIGHUP and SIGUSR2, as futures.

use std::future::poll_fn;

use hublet::{Error, Reactor};

use crate::failure::Failure;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// To drain.
    Stop,
    /// To become the binary that lies at the path of the process now.
    Restart,
}

/// The signals that end the hub or restart it.
///
/// SIGHUP says that the terminal is gone. A terminal that closes may send it twice, and a supervisor
/// behind SIGTERM, so it is never the second signal that stops the hub at once.
#[derive(Debug)]
pub(crate) struct Signals(sys::Signals);

impl Signals {
    /// Catches the signals from now on. A SIGHUP that is ignored, as under `nohup`, stays ignored.
    pub(crate) fn new(reactor: &Reactor) -> Result<Self, Failure> {
        sys::Signals::new(reactor).map(Self).map_err(|error| failure(&error))
    }

    /// Waits for a signal. Cancel safe.
    pub(crate) async fn next(&self) -> Result<SignalAction, Failure> {
        poll_fn(|cx| self.0.poll_first(cx)).await.map_err(|error| failure(&error))
    }

    /// Whether a signal was caught that asks to stop, and was not waited for. It stays, for the next
    /// wait.
    #[cfg(target_os = "linux")]
    pub(crate) fn has_stop(&self) -> bool {
        self.0.has_stop()
    }

    /// Takes the signals that were caught and ask for a restart, however many; returns whether there
    /// was any.
    #[cfg(target_os = "linux")]
    pub(crate) fn take_restarts(&self) -> bool {
        self.0.take_restarts()
    }

    /// Waits for a second signal. Cancel safe.
    pub(crate) async fn second(&self) -> Result<(), Failure> {
        poll_fn(|cx| self.0.poll_stop(cx)).await.map_err(|error| failure(&error))
    }
}

fn failure(error: &Error) -> Failure {
    let why =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Failure::running(format!("signals cannot be caught: {why}"))
}

/// A signal handler writes a byte to a socket pair for each signal.
#[cfg(unix)]
mod sys {
    use std::io::{self, IsTerminal as _};
    use std::os::unix::net::UnixStream;
    use std::task::{Context, Poll, ready};

    use hublet::{Error, Reactor, Watch};
    use rustix::io::Errno;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};

    use crate::signals::SignalAction;

    #[derive(Debug)]
    pub(crate) struct Signals {
        /// SIGTERM and SIGINT.
        stop: Pipe,
        /// SIGHUP where a standard stream is a terminal, unless it is ignored.
        hangup: Option<Pipe>,
        /// SIGUSR2, and SIGHUP where no standard stream is a terminal.
        restart: Pipe,
    }

    impl Signals {
        pub(crate) fn new(reactor: &Reactor) -> Result<Self, Error> {
            let (is_ignored, has_terminal) = (ignores_hangup(), has_terminal());
            let hangup = !is_ignored && has_terminal;
            let restart: &[_] =
                if is_ignored || has_terminal { &[SIGUSR2] } else { &[SIGUSR2, SIGHUP] };
            Ok(Self {
                stop: Pipe::of(&[SIGTERM, SIGINT], reactor)?,
                hangup: hangup.then(|| Pipe::of(&[SIGHUP], reactor)).transpose()?,
                restart: Pipe::of(restart, reactor)?,
            })
        }

        pub(crate) fn poll_first(&self, cx: &mut Context<'_>) -> Poll<Result<SignalAction, Error>> {
            let stops = [Some(&self.stop), self.hangup.as_ref()];
            for stop in stops.into_iter().flatten() {
                if let Poll::Ready(caught) = stop.poll_next(cx) {
                    return Poll::Ready(caught.map(|()| SignalAction::Stop));
                }
            }
            self.restart.poll_next(cx).map_ok(|()| SignalAction::Restart)
        }

        #[cfg(target_os = "linux")]
        pub(crate) fn has_stop(&self) -> bool {
            [Some(&self.stop), self.hangup.as_ref()].into_iter().flatten().any(Pipe::has_caught)
        }

        #[cfg(target_os = "linux")]
        pub(crate) fn take_restarts(&self) -> bool {
            self.restart.take_all()
        }

        pub(crate) fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
            self.stop.poll_next(cx)
        }
    }

    /// Some signals.
    #[derive(Debug)]
    struct Pipe(Watch);

    impl Pipe {
        fn of(signals: &[i32], reactor: &Reactor) -> Result<Self, Error> {
            let (reader, writer) = UnixStream::pair()?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
            }
            reactor.watch(reader).map(Self)
        }

        #[cfg(target_os = "linux")]
        fn has_caught(&self) -> bool {
            let mut byte = [0];
            rustix::net::recv(&self.0, &mut byte, rustix::net::RecvFlags::PEEK).is_ok()
        }

        /// Takes all that were caught; returns whether there was any.
        #[cfg(target_os = "linux")]
        fn take_all(&self) -> bool {
            let mut is_any = false;
            loop {
                match rustix::io::read(&self.0, &mut [0u8; 64]) {
                    Ok(1..) => is_any = true,
                    Err(Errno::INTR) => {}
                    Ok(0) | Err(_) => return is_any,
                }
            }
        }

        fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
            loop {
                match rustix::io::read(&self.0, &mut [0u8]) {
                    Ok(_) => return Poll::Ready(Ok(())),
                    Err(Errno::AGAIN) => ready!(self.0.poll_readable(cx))?,
                    Err(Errno::INTR) => {}
                    Err(error) => return Poll::Ready(Err(io::Error::from(error).into())),
                }
            }
        }
    }

    /// Whether the process was started with SIGHUP ignored. Where the system does not say, it
    /// counts as ignored unless a standard stream is a terminal: `nohup` leaves none.
    fn ignores_hangup() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignored(&status, SIGHUP).unwrap_or_else(|| !has_terminal())
    }

    fn has_terminal() -> bool {
        [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()]
            .contains(&true)
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
    use std::task::{Context, Poll};

    use hublet::{Error, Reactor};

    use crate::signals::SignalAction;

    #[derive(Debug)]
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn new(_: &Reactor) -> Result<Self, Error> {
            Ok(Self)
        }

        pub(crate) fn poll_first(&self, _: &mut Context<'_>) -> Poll<Result<SignalAction, Error>> {
            Poll::Pending
        }

        pub(crate) fn poll_stop(&self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Pending
        }
    }
}
