//! The file of `--env-file`: variables, a line each, as systemd reads its `EnvironmentFile=`.

use std::string::FromUtf8Error;

use crate::failure::Failure;
use crate::flags::table::PREFIX;
use crate::flags::value::beginning;

/// Bytes of the file at most: far more than all flags with the longest secrets.
const BYTES_MAX: usize = 256 * 1024;

/// A variable of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    /// The number of the line where it begins, from 1.
    pub(super) line: usize,
    /// That of the first line that sets it: an earlier one, if it is there twice.
    pub(super) first: usize,
}

/// Reads the variables of the hub from a file. Of a variable that it has twice, the last counts.
///
/// # Errors
///
/// The number of a line that is none. Its content may be a secret.
pub(super) fn read(path: &str) -> Result<Vec<Variable>, Failure> {
    let bytes = beginning(path, BYTES_MAX + 1).map_err(|error| {
        Failure::usage(format!("--env-file was given {path:?}, which cannot be read: {error}"))
    })?;
    if bytes.len() > BYTES_MAX {
        return Err(Failure::usage(format!(
            "--env-file was given {path:?}, which has more than {BYTES_MAX} bytes"
        )));
    }
    let read = String::from_utf8(bytes).map_err(|error| line_of(&error));
    read.and_then(|text| parse(&text)).map_err(|line| {
        Failure::usage(format!("line {line} of {path} is not a variable, like HUBLET_LOG=warn"))
    })
}

/// The number of the line in which a file is not UTF-8.
fn line_of(error: &FromUtf8Error) -> usize {
    let read = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    1 + read.iter().filter(|&&byte| byte == b'\n').count()
}

fn parse(text: &str) -> Result<Vec<Variable>, usize> {
    let mut variables: Vec<Variable> = Vec::new();
    let (mut chars, mut line) = (text.chars().peekable(), 1);
    while let Some(&first) = chars.peek() {
        let begin = line;
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            chars.next();
            continue;
        }
        if matches!(first, '#' | ';') {
            // A comment goes on behind a backslash.
            logical_line(&mut chars, &mut line);
            continue;
        }
        let said = logical_line(&mut chars, &mut line);
        let (name, value) = said.split_once('=').ok_or(begin)?;
        let name = name.trim_end();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(begin);
        }
        let value = unquote(value.trim_start()).ok_or(begin)?;
        if name.starts_with(PREFIX) {
            let before = variables.iter().position(|variable| variable.name == name);
            let first = before.map_or(begin, |at| variables.swap_remove(at).first);
            variables.push(Variable { name: name.to_owned(), value, line: begin, first });
        }
    }
    Ok(variables)
}

/// Takes a line, with those that a backslash or a quote joins to it.
fn logical_line(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, line: &mut usize) -> String {
    let (mut said, mut quote) = (String::new(), None);
    let is_comment = matches!(chars.peek(), Some('#' | ';'));
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\n', None) => {
                *line += 1;
                break;
            }
            ('\\', None | Some('"')) => {
                let Some(next) = chars.next() else { break };
                if next == '\n' {
                    *line += 1;
                } else {
                    said.extend(['\\', next]);
                }
                continue;
            }
            ('\'' | '"', None) if !is_comment => quote = Some(char),
            (end, Some(begun)) if end == begun => quote = None,
            _ => {}
        }
        *line += usize::from(char == '\n');
        said.push(char);
    }
    said
}

/// Takes quotes and escapes away; `None` if a quote does not end.
fn unquote(text: &str) -> Option<String> {
    let (mut value, mut quote) = (String::new(), None);
    // Space at the end goes, unless it is quoted or escaped.
    let mut kept = 0;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', Some('"')) => {
                let next = chars.next()?;
                if !matches!(next, '"' | '\\' | '`' | '$') {
                    value.push('\\');
                }
                value.push(next);
            }
            ('\\', None) => {
                value.extend(chars.next());
                kept = value.len();
            }
            ('\'' | '"', None) => quote = Some(char),
            (end, Some(begun)) if end == begun => {
                quote = None;
                kept = value.len();
            }
            _ => {
                value.push(char);
                if quote.is_some() || !char.is_whitespace() {
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    quote.is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_systemd_reads_them() {
        for (text, value) in [
            ("HUBLET_A=b", "b"),
            ("HUBLET_A = b c \n", "b c"),
            ("  HUBLET_A='b c ' \n", "b c "),
            ("HUBLET_A=\"b \\\" \\$ \\n\"", "b \" $ \\n"),
            ("HUBLET_A='b \\ \"c\"'", "b \\ \"c\""),
            ("HUBLET_A=b\\\nc", "bc"),
            ("HUBLET_A=b\\ ", "b "),
            ("HUBLET_A=\"b\nc\"", "b\nc"),
            ("HUBLET_A=b # c", "b # c"),
            ("# HUBLET_A=1\n; HUBLET_A=2\n\nHUBLET_A=3\r\n", "3"),
            ("# a comment that goes on \\\nHUBLET_A=1\nHUBLET_A=2", "2"),
            ("HUBLET_A=1\nHUBLET_A=2\nPATH=/\n", "2"),
            ("HUBLET_A=", ""),
            ("HUBLET_A=pass=word", "pass=word"),
        ] {
            let read = parse(text).map(|read| {
                read.into_iter().map(|read| (read.name, read.value)).collect::<Vec<_>>()
            });
            assert_eq!(read, Ok(vec![("HUBLET_A".to_owned(), value.to_owned())]), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_named_by_its_number() {
        for (bytes, line) in [(&b"\xff\n"[..], 1), (b"HUBLET_A=1\n\nHUBLET_B=\xc3\n", 3)] {
            let error = String::from_utf8(bytes.to_vec()).expect_err("it is not");
            assert_eq!(line_of(&error), line);
        }
    }

    #[test]
    fn a_line_that_is_no_variable_is_named_by_its_number() {
        for (text, line) in [
            ("sesame", 1),
            ("HUBLET_A=1\n\nexport HUBLET_B=2\n", 3),
            ("HUBLET_A=1\\\n2\nsesame\n", 3),
            ("HUBLET_A='1\n2'\n=3\n", 3),
            ("HUBLET_A=\"1\n", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}
