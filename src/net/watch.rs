//! Descriptors of the program that a reactor watches.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use crate::error::Error;
use crate::net::io::Io;

/// A descriptor of the program that a [`Reactor`](crate::Reactor) watches. Dropping it closes the
/// descriptor.
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::task::Poll;
///
/// # fn main() -> Result<(), hublet::Error> {
/// let reactor = hublet::Reactor::new()?;
/// let (mut ours, mut theirs) = UnixStream::pair()?;
/// let watch = reactor.watch(ours.try_clone()?)?;
/// std::thread::spawn(move || theirs.write_all(b"hi"));
///
/// let mut bytes = [0; 8];
/// let read = std::future::poll_fn(|cx| loop {
///     match ours.read(&mut bytes) {
///         Err(error) if error.kind() == ErrorKind::WouldBlock => {
///             std::task::ready!(watch.poll_readable(cx))?;
///         }
///         read => return Poll::Ready(read.map_err(hublet::Error::from)),
///     }
/// });
/// let read = reactor.block_on(read)?;
/// assert_eq!(&bytes[..read], b"hi");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch(Io<OwnedFd>);

impl Watch {
    pub(crate) fn new(descriptor: Io<OwnedFd>) -> Self {
        Self(descriptor)
    }

    /// Ready when a read may return something, once for each change: read first, and poll when the
    /// read would block. For one task at a time.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_readable(cx).map_err(Error::from)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
