//! The little JSON that is written here (RFC 8259).

use std::fmt::Write as _;

/// Appends a string, quoted.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            // Also DEL and U+2028, which JSON lets stand and some that read it do not.
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
    fn what_would_end_a_string_or_a_line_is_escaped() {
        let mut out = String::new();
        string(&mut out, "a\"b\\c\n\u{7f}\u{2028}é😀");
        assert_eq!(out, r#""a\"b\\c\u000a\u007f\u2028é😀""#);
    }
}
