//! The protocol of Redis, version 3 (RESP3): commands out, values in.
//!
//! A value is parsed where it lies in the buffer, and again from its beginning while it is not
//! whole. What the server sends is bounded: in depth, in elements, and in the bytes of one value by
//! the buffer of the connection. `docs/dependencies.md` says why this is no crate.

use std::fmt;

/// Aggregates inside of aggregates. Replies to the hub's commands have three levels at most.
const DEPTH_MAX: usize = 8;

/// Elements of one aggregate at most: 4,096 rooms with a count each, and room for more.
const ELEMENTS_MAX: usize = 16 * 1024;

/// Digits of a number, with its sign, at most.
const NUMBER_BYTES_MAX: usize = 21;

/// Bytes of a line that is no number: a simple string, an error, a double, a big number.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A value that the server has sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// A string: `+`, `$`, `=` without its format, and the text of `,` and `(`.
    Text(&'a [u8]),
    /// An error: `-` and `!`.
    Error(&'a [u8]),
    /// A whole number: `:`, and 0 or 1 for `#`.
    Number(i64),
    /// Nothing: `_`, and the null string and array of RESP2.
    Null,
    /// Several values: `*`, `~`, and `%` as keys and values in turn.
    List(Vec<Self>),
    /// What the server sends unasked: `>`.
    Push(Vec<Self>),
}

/// The bytes are no RESP3, or more than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is not RESP3")
    }
}

impl<'a> Value<'a> {
    /// The bytes of a string.
    #[must_use]
    pub(crate) fn text(&self) -> Option<&'a [u8]> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The values of a list.
    #[must_use]
    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }
}

/// Appends a command: a list of strings.
pub(crate) fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    begin(out, arguments.len());
    arguments.iter().for_each(|one| argument(out, &[one]));
}

/// Appends the beginning of a command that has so many arguments, its name among them.
pub(crate) fn begin(out: &mut Vec<u8>, arguments: usize) {
    line(out, b'*', arguments);
}

/// Appends an argument, which is the parts one after another.
pub(crate) fn argument(out: &mut Vec<u8>, parts: &[&[u8]]) {
    line(out, b'$', parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Parses the first value; returns it with its length, or `None` while it is not whole.
///
/// # Errors
///
/// [`Malformed`], whatever follows.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Value<'_>, usize)>, Malformed> {
    let mut parser = Parser { bytes, at: 0 };
    Ok(parser.value(0)?.map(|value| (value, parser.at)))
}

/// Parsing, from `at` on. `Ok(None)` where the bytes end too early.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a step of the parser comes to.
type Step<T> = Result<Option<T>, Malformed>;

/// Goes on with what a step has found, or ends where it has not found it yet.
macro_rules! found {
    ($step:expr) => {
        match $step? {
            Some(found) => found,
            None => return Ok(None),
        }
    };
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Step<Value<'a>> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        let Some(&kind) = self.bytes.get(self.at) else { return Ok(None) };
        self.at += 1;
        Ok(Some(match kind {
            b'+' | b',' | b'(' => Value::Text(found!(self.line(LINE_BYTES_MAX))),
            b'-' => Value::Error(found!(self.line(LINE_BYTES_MAX))),
            b':' => Value::Number(found!(self.number())),
            b'#' => match found!(self.line(1)) {
                b"t" => Value::Number(1),
                b"f" => Value::Number(0),
                _ => return Err(Malformed),
            },
            b'_' => match found!(self.line(0)) {
                b"" => Value::Null,
                _ => return Err(Malformed),
            },
            b'$' => found!(self.string()).map_or(Value::Null, Value::Text),
            b'!' => Value::Error(found!(self.string()).ok_or(Malformed)?),
            b'=' => {
                // Three letters of a format and a colon come first.
                let text = found!(self.string()).ok_or(Malformed)?;
                Value::Text(text.get(4..).ok_or(Malformed)?)
            }
            b'*' | b'~' => found!(self.list(1, depth)).map_or(Value::Null, Value::List),
            b'%' => found!(self.list(2, depth)).map_or(Value::Null, Value::List),
            b'>' => Value::Push(found!(self.list(1, depth)).ok_or(Malformed)?),
            b'|' => {
                // What is said about the value that follows; the hub asks for none of it.
                found!(self.list(2, depth));
                return self.value(depth + 1);
            }
            _ => return Err(Malformed),
        }))
    }

    /// The line up to the next line end, which is at most `max` bytes away.
    fn line(&mut self, max: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let within = &rest[..rest.len().min(max + 2)];
        let Some(end) = within.iter().position(|&byte| byte == b'\r') else {
            return if within.len() > max { Err(Malformed) } else { Ok(None) };
        };
        match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') if end <= max => {
                self.at += end + 2;
                Ok(Some(&rest[..end]))
            }
            Some(_) => Err(Malformed),
        }
    }

    fn number(&mut self) -> Step<i64> {
        let line = found!(self.line(NUMBER_BYTES_MAX));
        let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
        text.parse().map(Some).map_err(|_| Malformed)
    }

    /// A length; `None` inside for the null of RESP2.
    fn length(&mut self) -> Step<Option<usize>> {
        let number = found!(self.number());
        if number == -1 {
            return Ok(Some(None));
        }
        usize::try_from(number).map(|length| Some(Some(length))).map_err(|_| Malformed)
    }

    fn string(&mut self) -> Step<Option<&'a [u8]>> {
        let Some(length) = found!(self.length()) else { return Ok(Some(None)) };
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let behind = end.checked_add(2).ok_or(Malformed)?;
        match self.bytes.get(end..behind) {
            None => Ok(None),
            Some(b"\r\n") => {
                let text = &self.bytes[self.at..end];
                self.at = behind;
                Ok(Some(Some(text)))
            }
            Some(_) => Err(Malformed),
        }
    }

    /// The values of an aggregate, of `each` values to an element.
    fn list(&mut self, each: usize, depth: usize) -> Step<Option<Vec<Value<'a>>>> {
        let Some(length) = found!(self.length()) else { return Ok(Some(None)) };
        if length > ELEMENTS_MAX {
            return Err(Malformed);
        }
        // As many as are there, not as many as are announced.
        let mut values = Vec::new();
        for _ in 0..length * each {
            values.push(found!(self.value(depth + 1)));
        }
        Ok(Some(Some(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_parsed_whole_and_in_no_part() {
        let text = |text: &'static str| Value::Text(text.as_bytes());
        for (bytes, value) in [
            ("+OK\r\n", text("OK")),
            ("-ERR no\r\n", Value::Error(b"ERR no")),
            (":-7\r\n", Value::Number(-7)),
            (":4503599627370496\r\n", Value::Number(1 << 52)),
            ("#t\r\n", Value::Number(1)),
            ("_\r\n", Value::Null),
            ("$-1\r\n", Value::Null),
            ("$5\r\na\r\nbc\r\n", text("a\r\nbc")),
            ("=6\r\ntxt:ab\r\n", text("ab")),
            ("!3\r\nNO!\r\n", Value::Error(b"NO!")),
            (",1.5\r\n", text("1.5")),
            ("*2\r\n:1\r\n$0\r\n\r\n", Value::List(vec![Value::Number(1), text("")])),
            ("%1\r\n+a\r\n:1\r\n", Value::List(vec![text("a"), Value::Number(1)])),
            (">1\r\n+m\r\n", Value::Push(vec![text("m")])),
            ("|1\r\n+ttl\r\n:3\r\n:9\r\n", Value::Number(9)),
        ] {
            assert_eq!(parse(bytes.as_bytes()), Ok(Some((value, bytes.len()))), "{bytes:?}");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes.as_bytes()[..end]), Ok(None), "{:?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bytes in [
            "x",
            "\r\n",
            ":\r\n",
            ":1x\r\n",
            ":99999999999999999999\r\n",
            "#x\r\n",
            "_x\r\n",
            "$-2\r\n",
            "$2\r\nabc\r\n",
            "*-2\r\n",
            "*99999\r\n",
            "=2\r\nab\r\n",
            ">-1\r\n",
            "+a\rb\r\n",
            "$9223372036854775807\r\n",
        ] {
            assert!(!matches!(parse(bytes.as_bytes()), Ok(Some(_))), "{bytes:?}");
        }
        assert_eq!(parse("*1\r\n".repeat(20).as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_command_is_a_list_of_strings() {
        let mut out = Vec::new();
        command(&mut out, &[b"GET", b"a\r\n"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n");
    }
}
