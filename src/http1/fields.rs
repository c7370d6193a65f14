//! Header fields that are lists.

use http::header::{HeaderMap, HeaderName, HeaderValue, ValueIter};

/// Whether a comma-separated header, however many times it stands there, has `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, &name).any(|other| other.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated header, however many times it stands there.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Tokens<'a> {
    Tokens { values: headers.get_all(name).into_iter(), rest: "" }
}

/// The elements of a comma-separated header; not the empty ones.
///
/// A type of its own, since every chain of adapters is in the binary once for each of its uses.
pub(crate) struct Tokens<'a> {
    /// The lines of the header that were not read yet.
    values: ValueIter<'a, HeaderValue>,
    /// What was not read yet of the current line.
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            while self.rest.is_empty() {
                self.rest = self.values.next()?.to_str().unwrap_or_default();
            }
            let (token, rest) = self.rest.split_once(',').unwrap_or((self.rest, ""));
            self.rest = rest;
            let token = token.trim_ascii();
            if !token.is_empty() {
                return Some(token);
            }
        }
    }
}
