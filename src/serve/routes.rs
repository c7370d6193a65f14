//! What each path and method does.

use http::{HeaderMap, Method, Request, StatusCode, Version, header};

use super::http::{Head, Response, has_token, percent_decode};
use crate::hub::is_name;
use crate::{Config, Page};

/// The room of a client that names none.
const MAIN: &str = "main";

/// What a request asks for, once it has passed every check that needs no hook.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A WebSocket.
    Upgrade,
    /// Whether the hub serves.
    Health,
    /// A page of the embedder's.
    Page(&'a Page),
}

/// Finds the route of a request, or the response that refuses it.
pub(crate) fn route<'a>(head: &Head, config: &'a Config) -> Result<Route<'a>, Response> {
    let request = &head.request;
    let upgrade = has_token(request.headers(), header::UPGRADE, "websocket");
    if !config.http {
        if !upgrade {
            return Err(Response::new(StatusCode::NOT_FOUND, "only WebSockets are served here"));
        }
        return check_upgrade(head, config).map(|()| Route::Upgrade);
    }
    let path = request.uri().path();
    if path == "/health" {
        allow(request.method(), "GET, HEAD")?;
        return Ok(Route::Health);
    }
    if let Some(page) = config.pages.iter().find(|page| page.path == path) {
        allow(request.method(), "GET, HEAD")?;
        return Ok(Route::Page(page));
    }
    if room_of(path).is_none() {
        return Err(Response::new(
            StatusCode::NOT_FOUND,
            "nothing is here: WebSockets are at /ws and /ws/{room}",
        ));
    }
    check_upgrade(head, config).map(|()| Route::Upgrade)
}

/// Returns the room that a path names: `main` for `/ws`, the decoded segment for `/ws/{room}`,
/// `None` for any other path.
///
/// A room is exactly one path segment: after one percent-decoding 1 to 128 bytes of UTF-8 without
/// control characters, not `.` or `..`.
///
/// # Examples
///
/// ```
/// assert_eq!(hublet::room_of("/ws").as_deref(), Some("main"));
/// assert_eq!(hublet::room_of("/ws/caf%C3%A9").as_deref(), Some("café"));
/// assert_eq!(hublet::room_of("/ws/a/b"), None);
/// ```
#[must_use]
pub fn room_of(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/ws")?;
    if rest.is_empty() {
        return Some(MAIN.to_owned());
    }
    let segment = rest.strip_prefix('/')?;
    if segment.contains('/') || segment == "." || segment == ".." {
        return None;
    }
    percent_decode(segment).filter(|room| is_name(room) && room != "." && room != "..")
}

/// Refuses a method that is not among `allowed`, a list as the Allow header has it.
fn allow(method: &Method, allowed: &'static str) -> Result<(), Response> {
    if allowed.split(", ").any(|name| name == method.as_str()) {
        return Ok(());
    }
    let response = Response::new(StatusCode::METHOD_NOT_ALLOWED, "another method is allowed here");
    Err(response.header("Allow", allowed))
}

/// Checks that a request is an opening handshake (RFC 6455 4.2.1) from an origin that may.
fn check_upgrade(head: &Head, config: &Config) -> Result<(), Response> {
    let (request, headers) = (&head.request, head.request.headers());
    allow(request.method(), "GET")?;
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade");
    if !upgrade {
        return Err(upgrade_required("a WebSocket is here: connect with a WebSocket client"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(upgrade_required("only version 13 of WebSocket is spoken here"));
    }
    if !single(headers, header::SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Response::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    if head.content_length.is_some_and(|length| length > 0) {
        return Err(Response::bad_request("an upgrade has no body"));
    }
    if !may_connect(request, &config.origins) {
        return Err(Response::new(
            StatusCode::FORBIDDEN,
            "pages of this Origin may not connect here",
        ));
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

/// Whether the origin rule lets a request in: no Origin, the hub's own, or one that is listed.
///
/// Browsers send an Origin with every upgrade and pages cannot forge it, so a foreign page cannot
/// use a visitor's browser against a hub on localhost (RFC 6455 10.2).
fn may_connect(request: &Request<()>, origins: &[String]) -> bool {
    let mut values = request.headers().get_all(header::ORIGIN).iter();
    let Some(origin) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    if origins.iter().any(|listed| listed == "*") {
        return true;
    }
    let Some(origin) = origin.to_str().ok().and_then(Origin::parse) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    origin.is_at(host.unwrap_or_default())
        || origins.iter().any(|listed| Origin::parse(listed).as_ref() == Some(&origin))
}

/// An origin as browsers send it, its default port filled in (RFC 6454 section 4).
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(origin: &str) -> Option<Self> {
        let (scheme, rest) = origin.split_once(':')?;
        let authority = rest.strip_prefix("//")?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority)?;
        let default = match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        Some(Self { scheme, host: host.to_ascii_lowercase(), port: port.or(default) })
    }

    /// Whether this is the origin of the server that was asked for as `host`. The scheme is not
    /// compared, since TLS may end in front of the hub.
    fn is_at(&self, host: &str) -> bool {
        let Some((host, port)) = split_port(host) else { return false };
        let own = match port {
            Some(port) => Some(port),
            None if self.scheme == "https" => Some(443),
            None => Some(80),
        };
        self.host.eq_ignore_ascii_case(host) && self.port == own
    }
}

/// Splits `host:port`, `[v6]:port` or either without a port; `None` if it is neither.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = if authority.starts_with('[') { authority.find(']')? + 1 } else { 0 };
    let (host, port) = match authority[after_host..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            (host, Some(port[1..].parse().ok()?))
        }
        None => (authority, None),
    };
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    let bracketed = after_host == 0 || after_host == host.len();
    (plain && bracketed).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http::parse;

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn status(config: &Config, request: &str) -> u16 {
        let head = parse(request.as_bytes(), 0).expect("well-formed").expect("whole");
        match route(&head, config) {
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

    #[test]
    fn an_origin_must_be_the_hosts_own_or_listed() {
        let origins = vec!["https://app.example".to_owned()];
        for (host, origin, expected) in [
            ("hub.example", "http://hub.example", 101),
            ("hub.example", "https://hub.example", 101),
            ("hub.example", "https://HUB.example:443", 101),
            ("hub.example:8080", "http://hub.example:8080", 101),
            ("[::1]:8080", "http://[::1]:8080", 101),
            ("hub.example:8080", "http://hub.example", 403),
            ("hub.example", "http://hub.example:8080", 403),
            ("hub.example", "http://evil.example", 403),
            ("hub.example", "http://hub.example.evil.example", 403),
            ("hub.example", "http://hub.example@evil.example", 403),
            ("hub.example", "null", 403),
            ("hub.example", "", 403),
            ("hub.example", "https://app.example", 101),
            ("hub.example", "https://app.example:443", 101),
            ("hub.example", "http://app.example", 403),
        ] {
            let request =
                format!("GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n{UPGRADE}\r\n");
            let config = Config::default().origins(origins.clone());
            assert_eq!(status(&config, &request), expected, "{host} {origin}");
            let any = Config::default().origins(vec!["*".into()]);
            assert_eq!(status(&any, &request), 101, "{host} {origin}");
        }
    }
}
