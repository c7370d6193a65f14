//! Standard streams that another program has made non-blocking.
//!
//! The flag belongs to the open file and not to the process: a shell's other program, ssh or a
//! terminal multiplexer that shares the stream may set it at any time. Setting it back would break
//! that program, so the hub waits until the stream is ready instead.

use std::io::{self, ErrorKind, Read, Write};

/// A stream that waits where a non-blocking one would refuse.
#[derive(Debug)]
pub(crate) struct Patient<S>(pub(crate) S);

#[cfg(unix)]
use std::os::fd::AsFd as Stream;

/// Here no stream is non-blocking.
#[cfg(not(unix))]
pub(crate) trait Stream {}

#[cfg(not(unix))]
impl<S> Stream for S {}

impl<S: Read + Stream> Read for Patient<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(Ready::Read)?,
                read => return read,
            }
        }
    }
}

impl<S: Write + Stream> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(Ready::Write)?,
                written => return written,
            }
        }
    }

    /// A buffer keeps what the stream refused, so that it can be flushed again.
    fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.0.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(Ready::Write)?,
                flushed => return flushed,
            }
        }
    }
}

/// What a stream is to be ready for.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Read,
    Write,
}

impl<S: Stream> Patient<S> {
    /// Waits until a read returns at once. A stream that cannot be waited for counts as ready.
    pub(crate) fn until_readable(&self) {
        drop(self.wait(Ready::Read));
    }

    /// Waits until the stream is ready, or has an error or an end to tell.
    #[cfg(unix)]
    fn wait(&self, ready: Ready) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let flags = match ready {
            Ready::Read => PollFlags::IN,
            Ready::Write => PollFlags::OUT,
        };
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.0, flags)], None))?;
        Ok(())
    }

    #[cfg(not(unix))]
    fn wait(&self, _: Ready) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Far more than a socket's buffers hold, so that both sides wait.
    const BYTES: usize = 4 << 20;

    #[test]
    fn a_stream_that_does_not_block_is_waited_for_in_both_directions() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        reader.set_nonblocking(true).expect("set");
        writer.set_nonblocking(true).expect("set");
        let sent: Vec<u8> = (0..BYTES).map(|nth| (nth / 7) as u8).collect();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || {
            // A buffer of its own, as standard output has one.
            let mut writer = Patient(Buffered(io::LineWriter::new(writer)));
            writer.write_all(&bytes).and_then(|()| writer.flush())
        });
        let mut heard = Vec::new();
        Patient(reader).read_to_end(&mut heard).expect("to the end");
        writing.join().expect("no panic").expect("all of it");
        assert!(heard == sent, "{} bytes of {BYTES}", heard.len());
    }

    /// A buffer before a stream, by the stream's descriptor.
    struct Buffered(io::LineWriter<UnixStream>);

    impl std::os::fd::AsFd for Buffered {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.get_ref().as_fd()
        }
    }

    impl Write for Buffered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
}
