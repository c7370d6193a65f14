//! What each path and method does.

use std::borrow::Cow;

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};

use super::access::{self, Reader};
use super::http::{Head, Response, has_token, percent_decode, query};
use crate::hub::is_name;
use crate::{Config, Page, Target};

/// The room of a client that names none.
const MAIN: &str = "main";

/// What a request asks for, once it has passed every check that needs no hook.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A WebSocket.
    Upgrade,
    /// A room as server-sent events.
    Events,
    /// To send a message.
    Publish(Target),
    /// What is counted.
    Metrics,
    /// The rooms.
    Rooms,
    /// The members of a room.
    Members(String),
    /// Which methods the path has, and for pages of other origins whether they may use them.
    Options(&'static str),
    /// Whether the hub serves.
    Health,
    /// A page of the embedder's.
    Page(&'a Page),
}

impl Route<'_> {
    /// The methods it answers, as the Allow header has them.
    fn methods(&self) -> &'static str {
        match self {
            Self::Upgrade | Self::Events => "GET, OPTIONS",
            Self::Publish(_) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it reads or writes a room, so that the rules of hosts and origins hold for it.
    fn is_guarded(&self) -> bool {
        !matches!(self, Self::Health | Self::Page(_))
    }
}

/// Finds the route of a request, or the response that refuses it.
///
/// `reader` is set to the origin that may read the response, whatever it is.
pub(crate) fn route<'a>(
    head: &Head,
    config: &'a Config,
    reader: &mut Reader,
) -> Result<Route<'a>, Response> {
    let request = &head.request;
    let route = if config.http {
        find(request.uri().path(), config)
    } else {
        has_token(request.headers(), header::UPGRADE, "websocket").then_some(Route::Upgrade)
    };
    let route = route.ok_or_else(|| Response::new(StatusCode::NOT_FOUND, "no such route"))?;
    if route.is_guarded() {
        *reader = access::check(request, config)?;
    }
    let (method, methods) = (request.method(), route.methods());
    allow(method, methods)?;
    match route {
        _ if method == Method::OPTIONS => return Ok(Route::Options(methods)),
        Route::Upgrade => check_upgrade(request)?,
        Route::Publish(_) => check_body(head, config)?,
        _ => {}
    }
    Ok(route)
}

/// Checks an upgrade that another server has read, whatever its path, by the same rules.
pub(crate) fn check_upgrade_elsewhere(
    request: &Request<()>,
    config: &Config,
) -> Result<(), Response> {
    access::check(request, config)?;
    allow(request.method(), "GET")?;
    check_upgrade(request)
}

/// Refuses a method that is not among `methods`, a list as the Allow header has it.
fn allow(method: &Method, methods: &'static str) -> Result<(), Response> {
    if methods.split([',', ' ']).any(|name| name == method.as_str()) {
        return Ok(());
    }
    let sentence = "this method is not allowed; see the Allow header";
    Err(Response::new(StatusCode::METHOD_NOT_ALLOWED, sentence).header("Allow", methods))
}

/// Finds what is at a path.
fn find<'a>(path: &str, config: &'a Config) -> Option<Route<'a>> {
    if let Some(page) = config.pages.iter().find(|page| page.path == path) {
        return Some(Route::Page(page));
    }
    let room = |prefix| room_under(path, prefix);
    if path == "/health" {
        Some(Route::Health)
    } else if path == "/metrics" {
        Some(Route::Metrics)
    } else if path == "/rooms" {
        Some(Route::Rooms)
    } else if let Some(room) = path.strip_prefix("/rooms/") {
        name(room).map(|room| Route::Members(room.into()))
    } else if room("/ws").is_some() {
        Some(Route::Upgrade)
    } else if room("/sse").is_some() {
        Some(Route::Events)
    } else if let Some(room) = room("/pub") {
        Some(Route::Publish(Target::Room(room.into())))
    } else {
        let user = path.strip_prefix("/user/").and_then(name)?;
        Some(Route::Publish(Target::User(user.into())))
    }
}

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

/// Returns the first value of `name` in the query of a request, percent-decoded once: empty if it
/// stands there without one, as it stands if what it encodes is not UTF-8.
///
/// Browsers cannot set headers for a WebSocket or for events, so a token comes this way.
///
/// # Examples
///
/// ```
/// let uri: hublet::http::Uri = "/ws?token=a%2Fb&echo".parse().expect("a target");
/// assert_eq!(hublet::query_of(&uri, "token").as_deref(), Some("a/b"));
/// assert_eq!(hublet::query_of(&uri, "echo").as_deref(), Some(""));
/// assert_eq!(hublet::query_of(&uri, "user"), None);
/// ```
#[must_use]
pub fn query_of(uri: &Uri, name: &str) -> Option<String> {
    let value = query(uri, name)?;
    Some(percent_decode(value).unwrap_or(value.into()).into_owned())
}

fn room_under<'a>(path: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    match path.strip_prefix(prefix)? {
        "" => Some(MAIN.into()),
        rest => rest.strip_prefix('/').and_then(name),
    }
}

/// The name of a room or a user that a path segment encodes.
fn name(segment: &str) -> Option<Cow<'_, str>> {
    let is_dots = |name: &str| name == "." || name == "..";
    if segment.bytes().any(|byte| byte == b'/') || is_dots(segment) {
        return None;
    }
    percent_decode(segment).filter(|name| is_name(name) && !is_dots(name))
}

/// Checks the length that a request announces for its body.
fn check_body(head: &Head, config: &Config) -> Result<(), Response> {
    let max = config.max_message;
    match head.content_length {
        None => {
            Err(Response::new(StatusCode::LENGTH_REQUIRED, "the request needs a Content-Length"))
        }
        Some(length) if length > max as u64 => Err(Response::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("message of {length} bytes exceeds the limit of {max}"),
        )),
        Some(_) => Ok(()),
    }
}

/// Checks that a request is an opening handshake (RFC 6455 4.2.1).
fn check_upgrade(request: &Request<()>) -> Result<(), Response> {
    let headers = request.headers();
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade");
    if !upgrade {
        return Err(upgrade_required("this route needs a WebSocket client"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(upgrade_required("only WebSocket version 13 is supported"));
    }
    if !single(headers, header::SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Response::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) || lengths.iter().any(|n| n != "0") {
        return Err(Response::bad_request("an upgrade request must not have a body"));
    }
    Ok(())
}

fn upgrade_required(sentence: &'static str) -> Response {
    Response::new(StatusCode::UPGRADE_REQUIRED, sentence)
        .header("Upgrade", "websocket")
        .header("Connection", "upgrade")
        .header("Sec-WebSocket-Version", "13")
}

/// The value of a header that stands there exactly once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether `key` is the base64 of 16 bytes: 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http::parse;

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn status(config: &Config, request: &str) -> u16 {
        let head = parse(request.as_bytes(), 0).expect("well-formed").expect("whole");
        match route(&head, config, &mut None) {
            Ok(Route::Upgrade) => 101,
            Ok(_) => 200,
            Err(response) => response.status.as_u16(),
        }
    }

    #[test]
    fn paths_and_methods_are_answered_as_the_table_says() {
        let config = Config::default().http(true);
        for (line, headers, expected) in [
            ("GET /ws HTTP/1.1", UPGRADE, 101),
            ("GET /ws?echo=0 HTTP/1.1", UPGRADE, 101),
            ("GET /ws/a%2Fb HTTP/1.1", UPGRADE, 101),
            ("GET /health HTTP/1.1", "", 200),
            ("HEAD /health HTTP/1.0", "", 200),
            ("POST /health HTTP/1.1", "", 405),
            ("POST /ws HTTP/1.1", UPGRADE, 405),
            ("GET /ws HTTP/1.1", "", 426),
            ("GET /ws HTTP/1.0", UPGRADE, 426),
            ("GET /ws HTTP/1.1", &UPGRADE.replace("websocket", "h2c"), 426),
            ("GET /ws HTTP/1.1", &UPGRADE.replace(", Upgrade", ""), 426),
            ("GET /ws HTTP/1.1", &UPGRADE.replace("13", "8"), 426),
            ("GET /ws HTTP/1.1", &UPGRADE.replace("==", "="), 400),
            ("GET /ws HTTP/1.1", &UPGRADE.replace("dGhl", "d-hl"), 400),
            ("GET /ws HTTP/1.1", &format!("{UPGRADE}{UPGRADE}"), 426),
            ("GET /ws HTTP/1.1", &format!("{UPGRADE}Content-Length: 1\r\n"), 400),
            ("GET /ws HTTP/1.1", &format!("{UPGRADE}Content-Length: 0\r\n"), 101),
            ("GET / HTTP/1.1", UPGRADE, 404),
            ("GET /ws/ HTTP/1.1", UPGRADE, 404),
            ("GET /ws/a/b HTTP/1.1", UPGRADE, 404),
            ("GET /ws/.. HTTP/1.1", UPGRADE, 404),
            ("GET /ws/%2e%2e HTTP/1.1", UPGRADE, 404),
            ("GET /ws/%00 HTTP/1.1", UPGRADE, 404),
            ("GET /ws/%ff HTTP/1.1", UPGRADE, 404),
            ("GET /wsx HTTP/1.1", UPGRADE, 404),
        ] {
            let request = format!("{line}\r\nHost: hub.example\r\n{headers}\r\n");
            assert_eq!(status(&config, &request), expected, "{request}");
        }
        let long = format!("GET /ws/{} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n", "a".repeat(129));
        assert_eq!(status(&config, &long), 404);
    }

    #[test]
    fn without_http_any_path_upgrades_and_nothing_else_is_there() {
        let config = Config::default();
        for (line, headers, expected) in [
            ("GET /anything/at/all HTTP/1.1", UPGRADE, 101),
            ("GET /health HTTP/1.1", "", 404),
            ("GET /ws HTTP/1.1", "", 404),
            ("POST /ws HTTP/1.1", UPGRADE, 405),
        ] {
            let request = format!("{line}\r\nHost: x\r\n{headers}\r\n");
            assert_eq!(status(&config, &request), expected, "{request}");
        }
    }
}
