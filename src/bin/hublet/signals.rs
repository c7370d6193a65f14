//! SIGTERM and SIGINT, as a future.

use std::future::poll_fn;
use std::io;

use super::Failure;

/// The signals that end the hub.
#[derive(Debug)]
pub(crate) struct Signals(sys::Signals);

impl Signals {
    /// Catches the signals from now on.
    pub(crate) fn new() -> Result<Self, Failure> {
        sys::Signals::new().map(Self).map_err(failure)
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn next(&self) -> Result<(), Failure> {
        poll_fn(|cx| self.0.poll_next(cx)).await.map_err(failure)
    }
}

fn failure(error: io::Error) -> Failure {
    Failure::running(format!("signals cannot be caught: {error}"))
}

/// A signal handler writes a byte to a socket pair for each signal.
#[cfg(unix)]
mod sys {
    use std::io::{self, ErrorKind, Read as _};
    use std::os::unix::net::UnixStream;
    use std::task::{Context, Poll, ready};

    use signal_hook::consts::{SIGINT, SIGTERM};
    use smol::Async;

    #[derive(Debug)]
    pub(crate) struct Signals(Async<UnixStream>);

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            let (reader, writer) = UnixStream::pair()?;
            for signal in [SIGTERM, SIGINT] {
                signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
            }
            Ok(Self(Async::new(reader)?))
        }

        pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

        pub(crate) fn poll_next(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
