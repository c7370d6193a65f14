//! A body that is used as it comes, and never held whole.

use crate::http1::chunked::Chunked;
use crate::http1::head::Framing;
use crate::http1::response::Response;

/// Bytes that one read of such a body takes at most, and so what one poll has to do.
const READ_MAX: usize = 16 * 1024;

/// A body of any length, of which the buffer holds what has come and was not used.
#[derive(Debug)]
pub(crate) enum BodyStream {
    /// So many bytes are left, those in the buffer included.
    Sized(u64),
    /// Chunks; the decoded bytes are the first of the buffer.
    Chunked(Chunked),
}

impl BodyStream {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Unknown => Self::Sized(0),
            Framing::Length(len) => Self::Sized(len),
            Framing::Chunked => Self::Chunked(Chunked::stream()),
        }
    }

    /// Decodes what has come. Returns how many bytes of body the buffer begins with, and whether
    /// the body ends with them, or why it ends as none may.
    pub(crate) fn decode(&mut self, buffer: &mut Vec<u8>) -> (usize, Result<bool, Response>) {
        match self {
            Self::Sized(left) => {
                let come = usize::try_from(*left).map_or(buffer.len(), |n| n.min(buffer.len()));
                (come, Ok(come as u64 == *left))
            }
            Self::Chunked(chunked) => {
                let is_whole = chunked.decode(buffer);
                (chunked.len(), is_whole)
            }
        }
    }

    /// Takes `used` bytes of body off the front of the buffer.
    pub(crate) fn consume(&mut self, buffer: &mut Vec<u8>, used: usize) {
        buffer.drain(..used);
        match self {
            Self::Sized(left) => *left -= used as u64,
            Self::Chunked(chunked) => chunked.consume(used),
        }
    }

    /// Bytes to read next, while the body is not whole. Of a body of known length no byte behind it
    /// is read.
    pub(crate) fn wanted(&self, buffered: usize) -> usize {
        match self {
            Self::Sized(left) => {
                let left = left.saturating_sub(buffered as u64);
                usize::try_from(left).map_or(READ_MAX, |left| left.min(READ_MAX))
            }
            Self::Chunked(chunked) => chunked.wanted().min(READ_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body is, however it is cut, when each piece is used as it comes.
    fn used(framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>), u16> {
        let (mut body, mut buffer, mut all) = (BodyStream::new(framing), Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            let (come, is_whole) = body.decode(&mut buffer);
            let is_whole = is_whole.map_err(|refused| refused.status.as_u16())?;
            // A byte is left for later, as of a line that is not whole.
            let use_now = if is_whole { come } else { come.saturating_sub(1) };
            all.extend_from_slice(&buffer[..use_now]);
            body.consume(&mut buffer, use_now);
            if is_whole {
                return Ok((all, buffer));
            }
            assert!((1..=READ_MAX).contains(&body.wanted(buffer.len())), "it wants more");
        }
        Err(0)
    }
    #[test]
    fn body_that_is_used_as_it_comes_is_the_same_however_it_is_cut() {
        let many = "1;extension=of-its-own\r\nx\r\n".repeat(1000);
        let endless = many.clone() + "0\r\n\r\nGET";
        let long = format!("1;{}\r\nx\r\n", "e".repeat(3 * 1024)).repeat(4) + "0\r\n\r\n";
        for piece in [1, 2, 3, 7, 100, READ_MAX] {
            let sized = used(Framing::Length(5), b"hello", piece);
            assert_eq!(sized, Ok((b"hello".to_vec(), Vec::new())), "{piece}");
            let chunks = used(Framing::Chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", piece);
            assert_eq!(chunks, Ok((b"abcde".to_vec(), Vec::new())), "{piece}");
            // Extensions are bounded between two bytes of body, and not over a body without end.
            let (all, _) = used(Framing::Chunked, endless.as_bytes(), piece).expect("well-formed");
            assert_eq!(all.len(), 1000);
            let (all, _) = used(Framing::Chunked, long.as_bytes(), piece).expect("well-formed");
            assert_eq!(all.len(), 4);
            assert_eq!(used(Framing::Chunked, many.as_bytes(), piece), Err(0));
        }
        assert_eq!(used(Framing::Unknown, b"GET", 3), Ok((Vec::new(), b"GET".to_vec())));
        assert_eq!(used(Framing::Length(u64::MAX), b"hello", 5), Err(0));
        let extension = format!("1;{}\r\n", "e".repeat(8 * 1024));
        assert_eq!(used(Framing::Chunked, extension.as_bytes(), 512), Err(400));
        assert_eq!(used(Framing::Chunked, b"x\r\n", 3), Err(400));
    }
}
