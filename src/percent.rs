//! Percent-encoding (RFC 3986 2.1), as names have it in the path of a URL, and a password before its
//! host.

use std::borrow::Cow;

/// Decodes the percent-encoding of one part of a URL, once; `None` if that is not UTF-8 or a `%` has no
/// two digits after it.
pub(crate) fn percent_decode(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(part.into());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Whether a byte stands for itself: as `encodeURIComponent` of JavaScript has it.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
}

/// Appends a name as one path segment.
pub(crate) fn percent_encode(out: &mut Vec<u8>, name: &str) {
    for byte in name.bytes() {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let digit = |four: u8| b"0123456789ABCDEF"[usize::from(four)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for (name, encoded) in [
            ("news", "news"),
            ("sensor/1 %", "sensor%2F1%20%25"),
            ("caf\u{e9}", "caf%C3%A9"),
            ("a-_.!~*'()", "a-_.!~*'()"),
            ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ] {
            let mut out = Vec::new();
            percent_encode(&mut out, name);
            assert_eq!(String::from_utf8(out).expect("text"), encoded);
            assert_eq!(percent_decode(encoded).as_deref(), Some(name));
        }
        assert_eq!(percent_decode("a%2fb").as_deref(), Some("a/b"));
        for wrong in ["%", "%2", "%zz", "a%ff", "%+1"] {
            assert_eq!(percent_decode(wrong), None, "{wrong}");
        }
    }
}
