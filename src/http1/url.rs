//! Paths and queries.

use std::borrow::Cow;

use http::Uri;

use crate::name::{is_dots, is_name};
use crate::percent::percent_decode;

/// The room of a client that names none.
pub(crate) const MAIN: &str = "main";

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

/// Whether a path asks for a stream of server-sent events.
pub(crate) fn is_stream(path: &str) -> bool {
    path == "/sse" || path.starts_with("/sse/")
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
    let value = raw_values(uri, name).next()?;
    Some(form_decode(value).unwrap_or_else(|| value.to_owned()))
}

/// The values of `name` in the query of a request, each decoded as a form encodes it; `None` for one
/// that does not decode.
pub(crate) fn values_of<'a>(
    uri: &'a Uri,
    name: &'a str,
) -> impl Iterator<Item = Option<String>> + 'a {
    raw_values(uri, name).map(form_decode)
}

fn raw_values<'a>(uri: &'a Uri, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

fn form_decode(value: &str) -> Option<String> {
    percent_decode(&value.replace('+', " ")).map(Cow::into_owned)
}

pub(crate) fn room_under<'a>(path: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    match path.strip_prefix(prefix)? {
        "" => Some(MAIN.into()),
        rest => rest.strip_prefix('/').and_then(name),
    }
}

/// The name of a room or a user that a path segment encodes.
pub(crate) fn name(segment: &str) -> Option<Cow<'_, str>> {
    if segment.bytes().any(|byte| byte == b'/') || is_dots(segment) {
        return None;
    }
    percent_decode(segment).filter(|name| is_name(name) && !is_dots(name))
}
