//! Writes JSON strings (RFC 8259).

use std::fmt::Write as _;

/// Appends a string, quoted and escaped.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            // Also DEL, U+2028 and U+2029: JSON allows them, and some readers do not.
            character if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_line_ends_are_escaped() {
        let mut out = String::new();
        string(&mut out, "a\"b\\c\n\u{7f}\u{2028}é😀");
        assert_eq!(out, r#""a\"b\\c\u000a\u007f\u2028é😀""#);
    }
}
