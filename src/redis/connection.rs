//! The bytes of one connection: what the server has sent, and what is to be written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead as _, AsyncWrite as _};

use crate::memory::budget::{Charge, MemoryBudget};
use crate::net::dial::Stream;
use crate::redis::resp;
use crate::redis::resp::{Malformed, Value};

/// Bytes of one read at most.
const READ_BYTES: usize = 16 * 1024;

/// Bytes that are read before the values in them are handled.
const ROUND_BYTES: usize = 128 * 1024;

/// Bytes of one value at most, beyond those of the longest message: 4,096 rooms with a count each.
const VALUE_BYTES: usize = 1024 * 1024;

/// A connection to a server.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// What has come and is not handled.
    input: Vec<u8>,
    /// Bytes at the front of `input` that are handled.
    handled: usize,
    /// Bytes that are thrown away as they come: the rest of a message that is too long.
    skip: usize,
    /// What is to be written.
    pub(crate) output: Vec<u8>,
    /// Bytes at the front of `output` that are written.
    written: usize,
    /// Bytes of the longest message that comes over a channel, its header included.
    message_max: usize,
    /// Messages that were thrown away since this was taken.
    pub(crate) dropped: u64,
    /// What both buffers hold.
    charge: Charge,
}

impl Connection {
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        message_max: usize,
        memory: &Arc<MemoryBudget>,
    ) -> Self {
        Self {
            stream,
            input: Vec::new(),
            handled: 0,
            skip: 0,
            output: Vec::new(),
            written: 0,
            message_max,
            dropped: 0,
            charge: memory.charge(0),
        }
    }

    /// The next value that has come whole; `None` when there is none.
    pub(crate) fn parse(&mut self) -> io::Result<Option<Value<'_>>> {
        while let Some(length) = too_long(&self.input[self.handled..], self.message_max) {
            self.dropped += 1;
            let here = self.input.len() - self.handled;
            self.skip = length.saturating_sub(here);
            self.handled += length.min(here);
        }
        let rest = &self.input[self.handled..];
        match resp::parse(rest) {
            Ok(Some((value, length))) => {
                self.handled += length;
                Ok(Some(value))
            }
            Ok(None) if rest.len() > self.message_max + VALUE_BYTES => {
                Err(io::Error::other("the answer is too long"))
            }
            Ok(None) => Ok(None),
            Err(Malformed) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, Malformed.to_string()))
            }
        }
    }

    /// Writes what is to be written, and reads what has come. Ready when something was read, or the
    /// connection has ended.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        self.input.drain(..self.handled);
        self.handled = 0;
        if self.input.is_empty() {
            self.input.shrink_to(READ_BYTES);
        }
        let mut buffer = [0; READ_BYTES];
        let mut read = 0;
        while read < ROUND_BYTES {
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(n)) => {
                    let skipped = self.skip.min(n);
                    self.skip -= skipped;
                    self.input.extend_from_slice(&buffer[skipped..n]);
                    read += n;
                    if n < READ_BYTES {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if read == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        self.charge.resize(self.input.capacity() + self.output.capacity());
        Poll::Ready(Ok(()))
    }

    /// Writes what is to be written; ready when all of it is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let rest = &self.output[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.output.clear();
        self.output.shrink_to(READ_BYTES);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// The length of a message over a channel, if its payload is longer than `max` bytes.
fn too_long(bytes: &[u8], max: usize) -> Option<usize> {
    let begin = b">3\r\n$7\r\nmessage\r\n$";
    let rest = bytes.strip_prefix(begin)?;
    let (channel, digits) = number(rest)?;
    let at = begin.len() + digits + channel.checked_add(2)?;
    let rest = bytes.get(at..)?.strip_prefix(b"$")?;
    let (payload, digits) = number(rest)?;
    (payload > max).then(|| (at + 1 + digits).saturating_add(payload).saturating_add(2))
}

/// The number at the beginning, and the bytes that it takes with its line end.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().take(20).position(|&byte| byte == b'\r')?;
    let digits = std::str::from_utf8(&bytes[..end]).ok()?;
    (bytes.get(end + 1) == Some(&b'\n')).then_some((digits.parse().ok()?, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_is_too_long_is_passed_over() {
        let message = b">3\r\n$7\r\nmessage\r\n$8\r\nhublet:a\r\n$5\r\nhello\r\n";
        assert_eq!(too_long(message, 5), None);
        assert_eq!(too_long(message, 4), Some(message.len()));
        assert_eq!(too_long(&message[..34], 4), None, "its length has not come");
        assert_eq!(too_long(b"$5\r\nhello\r\n", 4), None);
    }
}
