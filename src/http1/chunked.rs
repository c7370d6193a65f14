//! Chunked bodies (RFC 9112 7.1), strictly read.
//!
//! Two readers that find the end of a body at different offsets are two readers of different
//! requests. So a line ends with CR LF and holds no other control character, and nothing is made good.

use http::StatusCode;

use crate::http1::head::HEADERS_MAX;
use crate::http1::response::Response;

/// Bytes of chunk extensions and trailers of one body at most; there are no more trailers than a head
/// has headers. The hub ignores what they say. In a stream without end they are bounded between two
/// bytes of the body.
pub(crate) const EXTRAS_MAX: usize = 4 * 1024;

/// Digits of a chunk's size at most: as many as 64 bits have.
const DIGITS_MAX: usize = 16;

/// Bytes that one read of chunks takes at least: many are short.
const READ_MIN: usize = 1024;

/// A chunked body as it comes.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes decoded: the first of the buffer.
    len: usize,
    /// Bytes decoded at most.
    max: usize,
    /// Bytes of extensions and trailers so far; of a stream, since its last byte.
    extras: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The line with the size of a chunk.
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    /// The end of the line behind them.
    DataEnd,
    /// A trailer, or the empty line behind the last.
    Trailer,
    /// The next request.
    Whole,
}

impl Chunked {
    pub(crate) fn new(max: usize) -> Self {
        Self { state: State::Size, len: 0, max, extras: 0 }
    }

    /// A body of any length, which is used as it comes.
    pub(crate) fn stream() -> Self {
        Self::new(usize::MAX)
    }

    fn is_stream(&self) -> bool {
        self.max == usize::MAX
    }

    /// Bytes of the body so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Forgets `used` bytes of the body, which were taken off the front of the buffer.
    pub(crate) fn consume(&mut self, used: usize) {
        self.len -= used;
    }

    /// Bytes that are worth reading at once, if all of the buffer was decoded.
    pub(crate) fn wanted(&self) -> usize {
        match self.state {
            State::Data(rest) => rest.max(READ_MIN),
            _ => READ_MIN,
        }
    }

    /// Decodes what has come, in place: the body so far is the first [`len`](Self::len) bytes of the
    /// buffer. Returns whether it is whole; the next request follows it then.
    pub(crate) fn decode(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Response> {
        let mut read = self.len;
        while self.state != State::Whole && self.step(buffer, &mut read)? {}
        buffer.drain(self.len..read);
        Ok(self.state == State::Whole)
    }

    /// Takes one piece of what is behind `read`; `false` if more has to come first.
    fn step(&mut self, buffer: &mut [u8], read: &mut usize) -> Result<bool, Response> {
        let come = &buffer[*read..];
        match self.state {
            State::Size => {
                let Some(line) = line(come)? else { return Ok(false) };
                let (size, extension) = size(line)?;
                *read += line.len() + 2;
                self.count(extension)?;
                if size > (self.max - self.len) as u64 {
                    return Err(too_large(self.max));
                }
                self.state = if size == 0 { State::Trailer } else { State::Data(size as usize) };
            }
            State::Data(rest) => {
                let n = rest.min(come.len());
                if n == 0 {
                    return Ok(false);
                }
                if self.is_stream() {
                    // However the stream is cut, and whenever its bytes are used.
                    self.extras = 0;
                }
                buffer.copy_within(*read..*read + n, self.len);
                (self.len, *read) = (self.len + n, *read + n);
                self.state = if n == rest { State::DataEnd } else { State::Data(rest - n) };
            }
            State::DataEnd => match come {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => {
                    *read += 2;
                    self.state = State::Size;
                }
                _ => return Err(malformed()),
            },
            State::Trailer => {
                let Some(line) = line(come)? else { return Ok(false) };
                let taken = line.len() + 2;
                *read += taken;
                if line.is_empty() {
                    self.state = State::Whole;
                } else if !is_field(line) {
                    return Err(malformed());
                } else {
                    self.count(taken.max(EXTRAS_MAX / HEADERS_MAX))?;
                }
            }
            State::Whole => return Ok(false),
        }
        Ok(true)
    }

    /// Counts bytes that the hub ignores.
    fn count(&mut self, extras: usize) -> Result<(), Response> {
        self.extras += extras;
        if self.extras > EXTRAS_MAX { Err(too_many_extras()) } else { Ok(()) }
    }
}

/// The first line of what has come, without its end; `None` until it is whole.
fn line(come: &[u8]) -> Result<Option<&[u8]>, Response> {
    let is_control = |&byte: &u8| byte.is_ascii_control() && byte != b'\t';
    let Some(at) = come.iter().position(is_control) else {
        // A line that is whole is judged by its extras.
        return if come.len() > EXTRAS_MAX + DIGITS_MAX {
            Err(too_many_extras())
        } else {
            Ok(None)
        };
    };
    match come[at..] {
        [b'\r', b'\n', ..] => Ok(Some(&come[..at])),
        [b'\r'] => Ok(None),
        _ => Err(malformed()),
    }
}

/// The size that a line says, and the bytes of extensions behind it.
fn size(line: &[u8]) -> Result<(u64, usize), Response> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    // Blanks may stand ahead of an extension (RFC 9112 7.1.1), and nowhere else.
    let is_extension = rest.is_empty() || rest.trim_ascii_start().first() == Some(&b';');
    if digits.is_empty() || digits.len() > DIGITS_MAX || !is_extension {
        return Err(malformed());
    }
    let digit = |&byte: &u8| u64::from(char::from(byte).to_digit(16).unwrap_or(0));
    Ok((digits.iter().fold(0, |size, byte| size << 4 | digit(byte)), rest.len()))
}

/// Whether a line is a header field: a name, a colon, a value.
fn is_field(line: &[u8]) -> bool {
    let is_token = |&byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let colon = line.iter().position(|byte| !is_token(byte));
    colon.is_some_and(|at| at > 0 && line[at] == b':')
}

/// A message is longer than the longest.
pub(crate) fn too_large(max: usize) -> Response {
    let sentence = format!("the message is longer than the limit of {max} bytes");
    Response::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

fn too_many_extras() -> Response {
    Response::bad_request("the chunk extensions and trailers are longer than 4 KiB")
}

fn malformed() -> Response {
    Response::bad_request("the request's chunks are malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body and what follows it, or a status; 0 while it is not whole.
    type Meaning<T> = Result<(T, T), u16>;
    /// What a body of at most 10 bytes means.
    fn read(bytes: &[u8], piece: usize) -> Meaning<Vec<u8>> {
        let (mut chunked, mut buffer) = (Chunked::new(10), Vec::new());
        for start in (0..bytes.len()).step_by(piece) {
            let end = bytes.len().min(start + piece);
            buffer.extend_from_slice(&bytes[start..end]);
            if chunked.decode(&mut buffer).map_err(|refused| refused.status.as_u16())? {
                let mut rest = buffer.split_off(chunked.len());
                rest.extend_from_slice(&bytes[end..]);
                return Ok((buffer, rest));
            }
        }
        Err(0)
    }
    #[test]
    fn chunks_are_read_as_the_table_says_however_they_are_cut() {
        let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(EXTRAS_MAX - 1));
        let too_long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(EXTRAS_MAX));
        let long_trailer = format!("0\r\nT: {}\r\n\r\n", "t".repeat(EXTRAS_MAX - 5));
        let trailers = format!("0\r\n{}\r\n", "T: t\r\n".repeat(HEADERS_MAX));
        let too_many = format!("0\r\n{}\r\n", "T: t\r\n".repeat(HEADERS_MAX + 1));
        let endless = format!("1;{}", "e".repeat(EXTRAS_MAX + DIGITS_MAX));
        let table: &[(&str, Meaning<&str>)] = &[
            ("0\r\n\r\n", Ok(("", ""))),
            ("3\r\nabc\r\n0\r\n\r\nGET", Ok(("abc", "GET"))),
            ("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Ok(("abcde", ""))),
            ("A\r\n0123456789\r\n0\r\n\r\n", Ok(("0123456789", ""))),
            ("0000000000000003\r\nabc\r\n000\r\n\r\n", Ok(("abc", ""))),
            ("00000000000000003\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("3;name=value\r\nabc\r\n0;last\r\n\r\n", Ok(("abc", ""))),
            ("3 \t;name=\"a;b\"\r\nabc\r\n0\r\n\r\n", Ok(("abc", ""))),
            ("0\r\nTrailer: value\r\nContent-Length: 9\r\n\r\nrest", Ok(("", "rest"))),
            ("2\r\n\r\n\r\n0\r\n\r\n", Ok(("\r\n", ""))),
            (&long_extension, Ok(("x", ""))),
            (&long_trailer, Ok(("", ""))),
            (&too_long, Err(400)),
            (&trailers, Ok(("", ""))),
            (&too_many, Err(400)),
            (&endless, Err(400)),
            // The limit counts over all chunks, and before any byte of the chunk has come.
            ("b\r\n", Err(413)),
            ("6\r\nabcdef\r\n5\r\n", Err(413)),
            ("ffffffffffffffff\r\n", Err(413)),
            // Not whole.
            ("", Err(0)),
            ("3\r\nab", Err(0)),
            ("3\r\nabc\r\n0\r\n", Err(0)),
            ("3\r\nabc\r\n0\r\n\r", Err(0)),
            // A size is hexadecimal digits and nothing else.
            ("\r\n", Err(400)),
            ("x\r\n", Err(400)),
            ("0x3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("+3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("-3\r\nabc\r\n0\r\n\r\n", Err(400)),
            (" 3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("3 \r\nabc\r\n0\r\n\r\n", Err(400)),
            ("3 4\r\nabc\r\n0\r\n\r\n", Err(400)),
            (";name\r\n", Err(400)),
            // Lines end with CR LF, and data where its size says.
            ("3\nabc\r\n0\r\n\r\n", Err(400)),
            ("3\rabc\r\n0\r\n\r\n", Err(400)),
            ("3;a\nb\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("3;a\0\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("3\r\nabcd\r\n0\r\n\r\n", Err(400)),
            ("3\r\nabc\n0\r\n\r\n", Err(400)),
            ("3\r\nabc0\r\n\r\n", Err(400)),
            ("3\r\nabc\r\r\n0\r\n\r\n", Err(400)),
            ("0\r\n\n", Err(400)),
            // Trailers are fields.
            ("0\r\nnothing\r\n\r\n", Err(400)),
            ("0\r\n: value\r\n\r\n", Err(400)),
            ("0\r\nName : value\r\n\r\n", Err(400)),
            ("0\r\nName: a\r\n folded\r\n\r\n", Err(400)),
            ("0\r\nName: a\rb\r\n\r\n", Err(400)),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", Err(400)),
        ];
        for (bytes, expected) in table {
            for piece in [1, 2, 3, 7, 1024, 1 << 20] {
                let seen = read(bytes.as_bytes(), piece);
                let expected = expected
                    .map(|(body, rest)| (body.as_bytes().to_vec(), rest.as_bytes().to_vec()));
                assert_eq!(seen, expected, "{bytes:.80?} in pieces of {piece}");
            }
        }
    }
}
