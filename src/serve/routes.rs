//! What each path and method does.

use std::time::Duration;

use http::{Method, StatusCode, header};

use crate::config::{Config, Page};
use crate::http1::fields::{has_token, tokens};
use crate::http1::head::{Framing, Head};
use crate::http1::origin::AllowOrigin;
use crate::http1::response::{Response, allow};
use crate::http1::url::{name, query_of, room_under};
use crate::http1::{cors, origin};
use crate::hub::client_id::Target;
use crate::name::NAME_BYTES_MAX;
use crate::percent::percent_decode;
use crate::serve::kept::wait_of;
use crate::serve::lines::has_lines;
use crate::websocket::upgrade::check_upgrade;

/// What a request asks for, once it has passed every check that needs no hook.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A WebSocket.
    Upgrade,
    /// A room as server-sent events.
    Events,
    /// To send a message.
    Publish(Target),
    /// To send a message, and to wait for its recipients so long.
    PublishAcked(Target, Duration),
    /// To send each line of a body.
    PublishLines(Target),
    /// What a room keeps, or its next message.
    Read(String),
    /// What is counted.
    Metrics,
    /// The rooms.
    Rooms,
    /// What happens in the hub, as server-sent events.
    HubEvents,
    /// The members of a room.
    Members(String),
    /// To end clients: a member of a room, or those of a user.
    Disconnect {
        target: Target,
        /// The room of a member; empty for a user.
        room: String,
    },
    /// Which methods the path has, and for pages of other origins whether they may use them.
    Options(&'static str),
    /// Whether the hub serves.
    Health,
    /// A page of the embedder's.
    Page(&'a Page),
    /// What the hub does not know: the program may.
    Endpoint,
}

/// The methods of an endpoint of the program, for pages of other origins.
const ENDPOINT_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Route<'_> {
    /// The methods it answers, as the Allow header has them.
    fn methods(&self) -> &'static str {
        match self {
            Self::Upgrade | Self::Events | Self::HubEvents => "GET, OPTIONS",
            Self::Publish(Target::User(_)) => "POST, PUT, DELETE, OPTIONS",
            Self::Publish(Target::Room(_)) => "GET, HEAD, POST, PUT, OPTIONS",
            Self::Publish(_) | Self::PublishAcked(..) | Self::PublishLines(_) => {
                "POST, PUT, OPTIONS"
            }
            Self::Disconnect { .. } => "DELETE, OPTIONS",
            Self::Endpoint => ENDPOINT_METHODS,
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it reads or writes a room, so that the rules of hosts and origins hold for it.
    fn is_guarded(&self) -> bool {
        !matches!(self, Self::Health | Self::Page(_))
    }

    /// Whether it is for administrators.
    pub(crate) fn is_admin(&self) -> bool {
        matches!(
            self,
            Self::Metrics
                | Self::Rooms
                | Self::HubEvents
                | Self::Members(_)
                | Self::Disconnect { .. }
                | Self::Publish(Target::All)
                | Self::PublishLines(Target::All)
                | Self::PublishAcked(Target::All, _)
        )
    }
}

/// Finds the route of a request, or the response that refuses it.
///
/// `allow_origin` is set to the origin that may read the response, whatever it is.
pub(crate) fn route<'a>(
    head: &Head,
    config: &'a Config,
    allow_origin: &mut AllowOrigin,
) -> Result<Route<'a>, Response> {
    let request = &head.request;
    let route = if config.http {
        find(request.uri().path(), config)
    } else {
        has_token(request.headers(), header::UPGRADE, "websocket").then_some(Route::Upgrade)
    };
    let route = route.unwrap_or(Route::Endpoint);
    let (method, methods) = (request.method(), route.methods());
    let route = match route {
        Route::Publish(target @ Target::User(_))
            if method == Method::DELETE || cors::is_preflight_of(request, "DELETE") =>
        {
            Route::Disconnect { target, room: String::new() }
        }
        // A GET of a room is listening, whatever stands in its path.
        Route::Publish(Target::Room(room)) if matches!(*method, Method::GET | Method::HEAD) => {
            Route::Read(room.to_string())
        }
        other => other,
    };
    if route.is_admin() {
        *allow_origin = origin::check_admin(request, config)?;
    } else if route.is_guarded() {
        *allow_origin = origin::check(request, config)?;
    }
    if matches!(route, Route::Endpoint) {
        let names_method = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let is_preflight = method == Method::OPTIONS && names_method && allow_origin.is_some();
        return Ok(if is_preflight { Route::Options(methods) } else { route });
    }
    allow(method, methods)?;
    match route {
        _ if method == Method::OPTIONS => return Ok(Route::Options(methods)),
        Route::Upgrade => check_upgrade(request)?,
        Route::Publish(target) if has_lines(request)? => {
            if query_of(request.uri(), "wait").is_some() {
                return Err(Response::bad_request("wait is for one message, not for lines"));
            }
            check_body(head, None)?;
            return Ok(Route::PublishLines(target));
        }
        Route::Publish(target) => {
            check_body(head, Some(config.max_message))?;
            return Ok(match wait_of(request)? {
                Some(wait) => Route::PublishAcked(target, wait),
                None => Route::Publish(target),
            });
        }
        _ => {}
    }
    Ok(route)
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
    } else if path == "/events" {
        Some(Route::HubEvents)
    } else if path == "/all" {
        Some(Route::Publish(Target::All))
    } else if let Some(room) = path.strip_prefix("/rooms/") {
        let Some((room, client)) = room.split_once('/') else {
            return name(room).map(|room| Route::Members(room.into()));
        };
        let target = Target::Client(client.parse().ok()?);
        name(room).map(|room| Route::Disconnect { target, room: room.into() })
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

/// Bytes of a path that the log shows at most.
const LOGGED_MAX: usize = 200;

/// What is said of a path that has no route; of one that almost has, why.
#[cold]
pub(crate) fn no_route(path: &str, has_routes: bool) -> &'static str {
    log::debug!("no route for {:?}", path.get(..LOGGED_MAX).unwrap_or(path));
    let name = ["/ws/", "/sse/", "/pub/", "/user/", "/rooms/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .filter(|_| has_routes);
    match name {
        None if path == "/user" && has_routes => "the path has to name a user: /user/{user}",
        None => "no such route",
        Some("") => "the path ends with a slash: add a name, or remove the slash",
        Some(_) if path.starts_with("/rooms/") && path.matches('/').count() == 3 => {
            "after the room comes the id of a client, like 0-17; write a slash in a name as %2F"
        }
        Some(name) if name.contains('/') => {
            "a name is one segment of the path: write a slash in it as %2F, and none behind it"
        }
        Some(name) => match percent_decode(name) {
            None => "the name is not percent-encoded UTF-8",
            Some(name) if name.len() > NAME_BYTES_MAX => "the name is longer than 128 bytes",
            Some(name) if *name == *"." || *name == *".." => "a name is neither . nor ..",
            Some(_) => "a name has no control characters",
        },
    }
}

/// Checks what a request announces of its body, which is at most `max` bytes long, if that is given.
fn check_body(head: &Head, max: Option<usize>) -> Result<(), Response> {
    // Clients would get the message as it came, encoded, and without a word of that.
    let mut codings = tokens(head.request.headers(), &header::CONTENT_ENCODING);
    if codings.any(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let sentence = "the body has a Content-Encoding: send it without one";
        return Err(Response::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence)
            .header("Accept-Encoding", "identity"));
    }
    match (head.framing, max) {
        (Framing::Unknown, _) => Err(Response::new(
            StatusCode::LENGTH_REQUIRED,
            "the request needs a Content-Length, or Transfer-Encoding: chunked",
        )),
        (Framing::Length(length), Some(max)) if length > max as u64 => Err(Response::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("message of {length} bytes exceeds the limit of {max}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::parse;

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    fn status(config: &Config, request: &str) -> u16 {
        let head = parse(request.as_bytes(), 0).expect("well-formed").expect("whole");
        match route(&head, config, &mut None) {
            Ok(Route::Upgrade) => 101,
            Ok(Route::Endpoint) => 404,
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
            ("GET /events HTTP/1.1", "", 200),
            ("HEAD /events HTTP/1.1", "", 405),
            ("GET /events/a HTTP/1.1", "", 404),
            ("POST /all HTTP/1.1", "Content-Length: 1\r\n", 200),
            ("DELETE /all HTTP/1.1", "", 405),
            ("DELETE /user/ada HTTP/1.1", "", 200),
            ("DELETE /rooms/a HTTP/1.1", "", 405),
            ("DELETE /rooms/a/3-17 HTTP/1.1", "", 200),
            ("GET /rooms/a/3-17 HTTP/1.1", "", 405),
            ("DELETE /rooms/a/3 HTTP/1.1", "", 404),
            ("DELETE /rooms/a/b/3-17 HTTP/1.1", "", 404),
            ("DELETE /rooms/../3-17 HTTP/1.1", "", 404),
        ] {
            let request = format!("{line}\r\nHost: hub.example\r\n{headers}\r\n");
            assert_eq!(status(&config, &request), expected, "{request}");
        }
        let long = format!("GET /ws/{} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n", "a".repeat(129));
        assert_eq!(status(&config, &long), 404);
    }
    /// What is for administrators is not for the pages of every site, whatever else is.
    #[test]
    fn any_page_may_use_rooms_and_only_a_named_one_acts() {
        let config = Config::default().http(true).origins(vec!["*".to_owned()]);
        for (line, expected) in [
            ("POST /pub/a HTTP/1.1", 200),
            ("POST /user/ada HTTP/1.1", 200),
            ("GET /nothing HTTP/1.1", 404),
            ("POST /all HTTP/1.1", 403),
            ("DELETE /user/ada HTTP/1.1", 403),
            ("DELETE /rooms/a/3-17 HTTP/1.1", 403),
            ("GET /metrics HTTP/1.1", 403),
            ("GET /rooms HTTP/1.1", 403),
            ("GET /rooms/a HTTP/1.1", 403),
            ("GET /events HTTP/1.1", 403),
        ] {
            let headers = "Host: hub.example\r\nOrigin: https://elsewhere.example\r\n";
            let request = format!("{line}\r\n{headers}Content-Length: 1\r\n\r\n");
            assert_eq!(status(&config, &request), expected, "{request}");
        }
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
