//! Paths and queries.

use std::borrow::Cow;

use http::Uri;

use crate::name::is_name;

/// Decodes the percent-encoding of one path segment, once; `None` if that is not UTF-8 or a `%`
/// has no two digits after it.
pub(crate) fn percent_decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(segment.into());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
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

/// The room of a client that names none.
const MAIN: &str = "main";

/// Returns the room that a path names: `main` for `/ws`, the decoded segment for `/ws/{room}`,
/// and so for `/sse` and `/pub`; `None` for any other path.
///
/// A room is exactly one path segment: after one percent-decoding 1 to 128 bytes of UTF-8 without
/// control characters, not `.` or `..`.
///
/// # Examples
///
/// ```
/// assert_eq!(hublet::room_of("/ws").as_deref(), Some("main"));
/// assert_eq!(hublet::room_of("/sse/caf%C3%A9").as_deref(), Some("café"));
/// assert_eq!(hublet::room_of("/ws/a/b"), None);
/// ```
#[must_use]
pub fn room_of(path: &str) -> Option<String> {
    let room = ["/ws", "/sse", "/pub"].iter().find_map(|prefix| room_under(path, prefix));
    room.map(Cow::into_owned)
}

/// Returns the first value of `name` in the query of a request, decoded as a form encodes it: a `+`
/// is a blank, and `%2B` a plus sign.
///
/// This is what `URLSearchParams` and its like write. The value is empty if the name stands without
/// one, and as it stands if it does not decode to UTF-8. Browsers cannot set headers for a WebSocket
/// or for events, so a token comes this way.
///
/// # Examples
///
/// ```
/// let uri: hublet::http::Uri = "/ws?token=a%2Fb&echo&after=my+room".parse().expect("a target");
/// assert_eq!(hublet::query_of(&uri, "token").as_deref(), Some("a/b"));
/// assert_eq!(hublet::query_of(&uri, "echo").as_deref(), Some(""));
/// assert_eq!(hublet::query_of(&uri, "after").as_deref(), Some("my room"));
/// assert_eq!(hublet::query_of(&uri, "user"), None);
/// ```
#[must_use]
pub fn query_of(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = { pairs }.find(|(key, _)| *key == name)?;
    let spaced = value.replace('+', " ");
    Some(percent_decode(&spaced).map_or_else(|| value.to_owned(), Cow::into_owned))
}

pub(crate) fn room_under<'a>(path: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    match path.strip_prefix(prefix)? {
        "" => Some(MAIN.into()),
        rest => rest.strip_prefix('/').and_then(name),
    }
}

/// The name of a room or a user that a path segment encodes.
pub(crate) fn name(segment: &str) -> Option<Cow<'_, str>> {
    let is_dots = |name: &str| name == "." || name == "..";
    if segment.bytes().any(|byte| byte == b'/') || is_dots(segment) {
        return None;
    }
    percent_decode(segment).filter(|name| is_name(name) && !is_dots(name))
}
