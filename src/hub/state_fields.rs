//! The fields of a line in the state of a hub: names, numbers, and texts in which nothing ends a line.
//!
//! A restart writes and reads a line for each client while all of them wait. So a value that needs no
//! escape is read in place, and numbers do without the formatting of the standard library.

use std::borrow::Cow;

/// Parts of a list and fields of a line at most: far more than any hub has.
const LIST_MAX: usize = 1 << 16;

/// The fields of a line that are still to be read.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// Names and values. A field that was taken has no name.
    all: Vec<(&'a str, &'a str)>,
    /// Where the next field is looked for first: they mostly come in one order.
    next: usize,
}

impl<'a> Fields<'a> {
    /// Takes the fields of another line; `None` if a word is no field.
    pub(super) fn fill(&mut self, words: impl Iterator<Item = &'a str>) -> Option<&mut Self> {
        self.all.clear();
        self.next = 0;
        for word in words.take(LIST_MAX) {
            let (name, value) = split_once(word, b'=').filter(|(name, _)| !name.is_empty())?;
            self.all.push((name, value));
        }
        Some(self)
    }

    /// A second field of the name stays, and is refused as one that is not known.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let (before, behind) = self.all.split_at_mut(self.next);
        let mut others = behind.iter_mut().chain(before);
        let at = others.position(|(other, _)| *other == name)?;
        let at = (self.next + at) % self.all.len();
        self.next = at + 1;
        self.all[at].0 = "";
        Some(self.all[at].1)
    }

    /// Takes all fields that are left.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all.drain(..).filter(|(name, _)| !name.is_empty())
    }

    /// Whether each field was taken.
    pub(super) fn are_taken(&self) -> bool {
        self.all.iter().all(|(name, _)| name.is_empty())
    }

    /// The number of a field; 0 where it is missing.
    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, name: &str) -> Option<T> {
        self.take(name).map_or_else(|| Some(T::default()), number)
    }

    pub(super) fn bit(&mut self, name: &str) -> Option<bool> {
        let bit: u8 = self.number(name)?;
        (bit < 2).then_some(bit == 1)
    }

    pub(super) fn list(&mut self, name: &str) -> Option<Vec<&'a str>> {
        let Some(parts) = self.take(name) else { return Some(Vec::new()) };
        let parts: Vec<_> = Words::new(parts, b',').take(LIST_MAX + 1).collect();
        (parts.len() <= LIST_MAX).then_some(parts)
    }

    /// A text that is not empty; `Some(None)` where it is missing.
    pub(super) fn name(&mut self, name: &str) -> Option<Option<Cow<'a, str>>> {
        let Some(value) = self.take(name) else { return Some(None) };
        unescape(value).filter(|text| !text.is_empty()).map(Some)
    }

    /// A text; an empty one where it is missing.
    pub(super) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        self.take(name).map_or_else(|| Some(Cow::default()), unescape)
    }
}

/// The parts of a text between separators, as `str::split` has them.
pub(super) struct Words<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str, separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest?;
        let (word, rest) = match split_once(text, self.separator) {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        self.rest = rest;
        Some(word)
    }
}

/// Splits a text at the first `separator`, a byte of ASCII.
#[cfg_attr(hublet_small, optimize(speed))]
fn split_once(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Reads a slot and its generation.
pub(super) fn id_of(text: &str) -> Option<(u32, u32)> {
    let (slot, generation) = split_once(text, b'-')?;
    Some((number(slot)?, number(generation)?))
}

/// Reads a number, which has no sign.
pub(super) fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    T::try_from(whole_number(text)?).ok()
}

#[cfg_attr(hublet_small, optimize(speed))]
fn whole_number(text: &str) -> Option<u64> {
    let digit = |byte: u8| Some(u64::from(byte - b'0')).filter(|_| byte.is_ascii_digit());
    let mut digits = text.bytes();
    let first = digits.next().filter(u8::is_ascii_digit).and_then(digit);
    digits.try_fold(first?, |number, byte| {
        let digit = if byte.is_ascii_digit() { digit(byte)? } else { return None };
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Appends bytes, which are few: a call that copies them would take longer.
#[cfg_attr(hublet_small, optimize(speed))]
pub(super) fn push(text: &mut Vec<u8>, bytes: &[u8]) {
    text.reserve(bytes.len());
    bytes.iter().for_each(|&byte| text.push(byte));
}

/// Appends a number.
#[cfg_attr(hublet_small, optimize(speed))]
pub(super) fn digits(text: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([b'0'; 20], 20);
    while at == 20 || number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    push(text, &digits[at..]);
}

/// Appends a slot and its generation.
pub(super) fn id(text: &mut Vec<u8>, (slot, generation): (u32, u32)) {
    digits(text, slot.into());
    text.push(b'-');
    digits(text, generation.into());
}

/// Appends the begin of a field.
pub(super) fn begin(text: &mut Vec<u8>, name: &str) {
    text.push(b' ');
    push(text, name.as_bytes());
    text.push(b'=');
}

/// Appends a number as a field, unless it is 0.
pub(super) fn field(text: &mut Vec<u8>, name: &str, value: impl Into<u64>) {
    let value = value.into();
    if value > 0 {
        begin(text, name);
        digits(text, value);
    }
}

/// Appends a text as a field, unless it is empty.
pub(super) fn text_field(text: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        begin(text, name);
        escape(text, value);
    }
}

/// Appends a list as a field, unless it is empty.
pub(super) fn list<T>(
    text: &mut Vec<u8>,
    name: &str,
    parts: &[T],
    mut write: impl FnMut(&mut Vec<u8>, &T),
) {
    for (nth, part) in parts.iter().enumerate() {
        if nth == 0 {
            begin(text, name);
        } else {
            text.push(b',');
        }
        write(text, part);
    }
}

/// Whether a byte would end a field or a line, or be a part of another's escape.
fn is_special(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'%' | b',' | 0x7f)
}

/// Where a text has its first special byte.
#[cfg_attr(hublet_small, optimize(speed))]
fn first_special(text: &str) -> Option<usize> {
    text.bytes().position(is_special)
}

/// Appends a text with each special byte as `%` and two digits.
pub(super) fn escape(text: &mut Vec<u8>, mut value: &str) {
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    while let Some(at) = first_special(value) {
        text.extend_from_slice(&value.as_bytes()[..at]);
        let byte = value.as_bytes()[at];
        text.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        value = &value[at + 1..];
    }
    text.extend_from_slice(value.as_bytes());
}

/// `None` for what [`escape`] does not write.
pub(super) fn unescape(value: &str) -> Option<Cow<'_, str>> {
    if first_special(value).is_none() {
        return Some(Cow::Borrowed(value));
    }
    let mut parts = value.split('%');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let digits = part.get(..2)?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        let is_ours = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours || !is_special(byte) {
            return None;
        }
        text.push(char::from(byte));
        text.push_str(&part[2..]);
    }
    let is_whole = !value.bytes().any(|byte| is_special(byte) && byte != b'%');
    is_whole.then_some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_any_order_and_once() {
        let mut fields = Fields::default();
        let mut filled = |line: &'static str| {
            let fields = fields.fill(Words::new(line, b' ')).expect("fields");
            let taken = ["a", "b", "c"].map(|name| fields.take(name));
            (taken, fields.are_taken())
        };
        assert_eq!(filled("a=1 b=2 c=3"), ([Some("1"), Some("2"), Some("3")], true));
        assert_eq!(filled("c=3 b= a=1"), ([Some("1"), Some(""), Some("3")], true));
        assert_eq!(filled("b=2"), ([None, Some("2"), None], true));
        assert_eq!(filled("b=2 b=4"), ([None, Some("2"), None], false), "the second one");
        assert_eq!(filled("a=1 d=4 b=2"), ([Some("1"), Some("2"), None], false), "not known");
        for line in ["", "a", "a=1 ", "=1"] {
            assert!(fields.fill(Words::new(line, b' ')).is_none(), "{line:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for value in [0, 7, 10, 99, 100, 65_536, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut text = Vec::new();
            digits(&mut text, value);
            let text = String::from_utf8(text).expect("ASCII");
            assert_eq!((text.as_str(), number(&text)), (&*value.to_string(), Some(value)));
        }
        for text in
            ["", "+1", "-1", "1 ", "a", "1a", "18446744073709551616", "99999999999999999999"]
        {
            assert_eq!(number::<u64>(text), None, "{text:?}");
        }
        assert_eq!((number::<u8>("255"), number::<u8>("256")), (Some(255), None));
    }

    #[test]
    fn a_text_without_special_bytes_is_not_copied() {
        for (value, is_borrowed) in
            [("übrig=", true), ("", true), ("a,b", false), ("100 %\n", false)]
        {
            let mut text = Vec::new();
            escape(&mut text, value);
            let text = String::from_utf8(text).expect("text");
            let read = unescape(&text).expect("ours");
            assert_eq!((&*read, matches!(read, Cow::Borrowed(_))), (value, is_borrowed));
        }
    }
}
