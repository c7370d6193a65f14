//! System calls on sockets: accept, read, write, shut down. None of them blocks.

#[cfg(not(unix))]
pub(crate) use self::std_net::*;
#[cfg(unix)]
pub(crate) use self::unix::*;

/// Sockets by descriptor, so that TCP and Unix sockets are one type. No write raises SIGPIPE, in
/// whatever program the library is embedded.
#[cfg(unix)]
mod unix {
    use std::io;
    use std::io::IoSlice;
    use std::net::{Shutdown, SocketAddr};
    use std::os::fd::OwnedFd;

    use rustix::io::retry_on_intr;
    use rustix::net;
    use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny};

    pub(crate) type Listener = OwnedFd;
    pub(crate) type Stream = OwnedFd;
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: SendFlags = SendFlags::NOSIGNAL;
    /// Here SIGPIPE is switched off by an option, which the standard library sets on the listener.
    #[cfg(target_vendor = "apple")]
    const FLAGS: SendFlags = SendFlags::empty();
    /// Accepts a connection. Returns its peer's address too, for TCP.
    pub(crate) fn accept(listener: &Listener) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, address) = accept_from(listener)?;
        Ok((stream, address.and_then(|address| SocketAddr::try_from(address).ok())))
    }
    #[cfg(target_os = "linux")]
    fn accept_from(listener: &Listener) -> io::Result<(Stream, Option<SocketAddrAny>)> {
        let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
        Ok(net::acceptfrom_with(listener, flags)?)
    }
    #[cfg(not(target_os = "linux"))]
    fn accept_from(listener: &Listener) -> io::Result<(Stream, Option<SocketAddrAny>)> {
        let (stream, address) = net::acceptfrom(listener)?;
        rustix::io::ioctl_fionbio(&stream, true)?;
        rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
        Ok((stream, address))
    }
    pub(crate) fn read(stream: &Stream, into: &mut [u8]) -> io::Result<usize> {
        let (read, _) = retry_on_intr(|| net::recv(stream, &mut *into, RecvFlags::empty()))?;
        Ok(read)
    }
    /// One plain send for one frame, a vectored one for several.
    #[inline]
    pub(crate) fn write(stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        write_with(stream, frames, FLAGS)
    }
    /// Writes with MSG_EOR: TCP then does not append to the last packet, so the kernel checks its
    /// buffer size before the next write.
    pub(crate) fn write_record(stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        return write_with(stream, frames, FLAGS.union(SendFlags::EOR));
        #[cfg(not(target_os = "linux"))]
        return write_with(stream, frames, FLAGS);
    }
    #[inline]
    #[cfg_attr(hublet_small, optimize(speed))]
    fn write_with(stream: &Stream, frames: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        Ok(retry_on_intr(|| match frames {
            [frame] => net::send(stream, frame, flags),
            frames => net::sendmsg(stream, frames, &mut SendAncillaryBuffer::default(), flags),
        })?)
    }
    /// Makes the close of a socket discard what it holds and reset the connection.
    pub(crate) fn reset_when_closed(stream: &Stream) -> io::Result<()> {
        Ok(net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?)
    }
    pub(crate) fn shutdown(stream: &Stream, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => net::Shutdown::Read,
            Shutdown::Write => net::Shutdown::Write,
            Shutdown::Both => net::Shutdown::Both,
        };
        Ok(net::shutdown(stream, how)?)
    }
}

/// Sockets of the standard library, for other systems.
#[cfg(not(unix))]
mod std_net {
    use std::io;
    use std::io::{IoSlice, Read, Write};
    use std::net::{Shutdown, SocketAddr};
    pub(crate) use std::net::{TcpListener as Listener, TcpStream as Stream};

    pub(crate) fn accept(listener: &Listener) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, address) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok((stream, Some(address)))
    }
    pub(crate) fn read(mut stream: &Stream, into: &mut [u8]) -> io::Result<usize> {
        stream.read(into)
    }
    pub(crate) fn write(mut stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        stream.write_vectored(frames)
    }
    pub(crate) fn write_record(stream: &Stream, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        write(stream, frames)
    }
    /// The standard library has no call for this.
    pub(crate) fn reset_when_closed(_: &Stream) -> io::Result<()> {
        Ok(())
    }
    pub(crate) fn shutdown(stream: &Stream, how: Shutdown) -> io::Result<()> {
        stream.shutdown(how)
    }
}
