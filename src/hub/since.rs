//! Where a reader of a room begins, and what it has missed.

use std::fmt;
use std::str::FromStr;

use crate::message::Message;

/// Where a reader of a room begins: `since` in a request, and
/// [`Admission::since`](crate::Admission::since).
///
/// Each message of a room has a position, one more than the one before it. A reader that notes the
/// position of the last message that it has heard asks for what came after it.
///
/// # Examples
///
/// ```
/// use hublet::Since;
///
/// assert_eq!("now".parse(), Ok(Since::Now));
/// assert_eq!("0".parse(), Ok(Since::Oldest));
/// assert_eq!("-3".parse(), Ok(Since::Newest(3)));
/// assert_eq!("4711".parse(), Ok(Since::Position(4711)));
/// assert!("yesterday".parse::<Since>().is_err());
/// assert_eq!(Since::Newest(3).to_string(), "-3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// Nothing old: `now`.
    Now,
    /// All that is kept: `0`.
    Oldest,
    /// The newest messages that are kept, at most so many: `-3`.
    Newest(u32),
    /// What came after the message at this position: a number.
    Position(u64),
}

impl Since {
    /// A position that no message has: the room tells its reader of a gap of unknown length.
    pub(crate) const UNREADABLE: Self = Self::Position(u64::MAX);
}

impl FromStr for Since {
    type Err = InvalidSince;

    /// Reads `now`, a number, or a number of messages with a minus sign before it. A number that is
    /// larger than any position is one that no message has.
    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Digits alone fail to parse only where there are too many of them.
            is_number.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        let newest = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        match text.strip_prefix('-') {
            _ if text == "now" => Some(Self::Now),
            Some(digits) => {
                number(digits).filter(|count| *count > 0).map(|n| Self::Newest(newest(n)))
            }
            None => number(text).map(|position| match position {
                0 => Self::Oldest,
                position => Self::Position(position),
            }),
        }
        .ok_or(InvalidSince)
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Oldest => f.write_str("0"),
            Self::Newest(count) => write!(f, "-{count}"),
            Self::Position(position) => write!(f, "{position}"),
        }
    }
}

/// The error of a [`Since`] that is no number, no `now` and no number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidSince;

impl InvalidSince {
    pub(crate) const SENTENCE: &'static str =
        "since is neither a position, nor now, nor a number of messages such as -3";
}

impl fmt::Display for InvalidSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SENTENCE)
    }
}

impl std::error::Error for InvalidSince {}

/// What a reader has missed between the position that it named and the first message that it gets.
///
/// # Examples
///
/// ```
/// use hublet::Missed;
///
/// assert_eq!(Missed::Messages(12).to_string(), "12");
/// assert_eq!(Missed::Unknown.to_string(), "unknown");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Nothing.
    Nothing,
    /// So many messages, which are kept no more.
    Messages(u64),
    /// An unknown number of messages: the position is none of this life of the room.
    Unknown,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("0"),
            Self::Messages(count) => write!(f, "{count}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Where a reader stands when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    /// The position before the first message that it gets.
    pub(crate) position: u64,
    /// What it has missed before that.
    pub(crate) missed: Missed,
}

impl Begin {
    /// Begins at a later position: what lies between is missed too.
    pub(crate) fn up_to(self, position: u64) -> Self {
        let more = position - self.position;
        let missed = match self.missed {
            Missed::Nothing if more > 0 => Missed::Messages(more),
            Missed::Messages(missed) => Missed::Messages(missed + more),
            missed => missed,
        };
        Self { position, missed }
    }
}

/// Messages that a room keeps, as [`Hub::history`](crate::Hub::history) returns them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The position of the room's newest message, kept or not.
    pub newest: u64,
    /// The position of the oldest message that the room keeps, if it keeps any.
    pub oldest: Option<u64>,
    /// The position before the first of [`messages`](Self::messages): the first has the next one.
    pub position: u64,
    /// What the reader has missed before them.
    pub missed: Missed,
    /// The messages, oldest first, with consecutive positions.
    pub messages: Vec<Message>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_now_and_counts_are_read() {
        for bad in ["", "-", "-0", "+1", " 1", "1 ", "0x1", "1.0", "Now", "--1", "١", "-now"] {
            assert!(bad.parse::<Since>().is_err(), "{bad:?}");
        }
        let long = "99999999999999999999999";
        assert_eq!(long.parse(), Ok(Since::UNREADABLE));
        assert_eq!(format!("-{long}").parse(), Ok(Since::Newest(u32::MAX)));
        assert_eq!("000".parse(), Ok(Since::Oldest));
        for text in ["now", "0", "-1", "17"] {
            assert_eq!(text.parse::<Since>().expect(text).to_string(), text);
        }
    }
}
