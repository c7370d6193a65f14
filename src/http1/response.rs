//! Responses, and the refusals that several parts of the hub give.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use crate::config::Page;
use crate::error::{Error, Kind};
use crate::http1::date::http_date;
use crate::message::Message;
use crate::time::clock::unix_seconds;

/// A response, most often with a sentence as its body.
// Boxed, since it is what most functions here may fail with, and is moved from one to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) status: StatusCode,
    /// The body. A line end is added where it lacks one, for a reader at a terminal.
    pub(crate) body: Cow<'static, str>,
    content_type: &'static str,
    /// The body goes on behind what is here, and ends with the connection.
    is_endless: bool,
    /// Headers beyond those every response has; names and values of ours.
    headers: Vec<(&'static str, Cow<'static, str>)>,
    /// What the program answers instead, headers and body.
    own: Option<Box<Own>>,
    /// What a client has published, which is the body as it is.
    message: Option<Message>,
    /// What the log says at the level WARN, once for each sentence.
    pub(crate) warning: Option<Box<str>>,
}

/// The program's own answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Bytes of a message that are copied behind the head of its response, to be one write with it.
const COPIED_MAX: usize = 4096;

/// Headers that the hub writes itself, or that are about the connection, which is the hub's.
const HUBS_OWN: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::DATE,
    header::UPGRADE,
    header::TRAILER,
    header::TE,
];

impl Deref for Response {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Response {
    /// A response whose body is a sentence.
    #[cold]
    #[inline(never)]
    pub(crate) fn new(status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::with_type(status, "text/plain; charset=utf-8", sentence.into())
    }

    pub(crate) fn with_type(
        status: StatusCode,
        content_type: &'static str,
        body: Cow<'static, str>,
    ) -> Self {
        Self(Box::new(Parts {
            status,
            body,
            content_type,
            is_endless: false,
            headers: Vec::new(),
            own: None,
            message: None,
            warning: None,
        }))
    }

    /// Lets the body go on until the connection ends.
    pub(crate) fn endless(mut self) -> Self {
        self.0.is_endless = true;
        self
    }

    /// Has the log say once, at the level WARN, what was refused and what would allow it.
    pub(crate) fn warn(mut self, sentence: String) -> Self {
        self.0.warning = Some(sentence.into());
        self
    }

    /// Replaces the body.
    pub(crate) fn with_json(mut self, body: Cow<'static, str>) -> Self {
        (self.0.content_type, self.0.body) = ("application/json", body);
        self
    }

    /// What the refusal is to the program.
    pub(crate) fn into_error(self) -> Error {
        Error::new(Kind::Refused(self.status, self.into_body()))
    }

    /// Takes the body out.
    pub(crate) fn into_body(self) -> Cow<'static, str> {
        self.0.body
    }

    /// What the program answers; `None` for a status that answers no request.
    pub(crate) fn of_program(response: http::Response<Vec<u8>>) -> Option<Self> {
        let (head, body) = response.into_parts();
        if !(200..=599).contains(&head.status.as_u16()) {
            return None;
        }
        let content_type = match std::str::from_utf8(&body) {
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        };
        let mut response = Self::with_type(head.status, content_type, "".into());
        response.0.own = Some(Box::new(Own { headers: head.headers, body }));
        Some(response)
    }

    /// The answer with a message, of the type that it was published with.
    pub(crate) fn of_message(message: Message) -> Self {
        let content_type = if message.is_text() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        };
        let mut response = Self::with_type(StatusCode::OK, content_type, "".into());
        response.0.message = Some(message);
        response
    }

    /// The end of the body, which follows what [`encode`](Self::encode) returns: a long message is
    /// written from where it is shared.
    pub(crate) fn shared_body(&self, head_only: bool) -> &[u8] {
        let message = self.message.as_ref().map_or(&[][..], Message::as_bytes);
        if head_only || message.len() <= COPIED_MAX { &[] } else { message }
    }

    /// Whether it has a header.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(own, _)| *own == name)
    }

    /// Whether the program answers, so that the hub has refused nothing.
    pub(crate) fn is_of_program(&self) -> bool {
        self.0.own.is_some()
    }

    /// A page, as it is; what its headers say of sockets is about `host`, for which it was asked.
    pub(crate) fn page(page: &Page, host: &str) -> Self {
        let response = Self::with_type(StatusCode::OK, page.content_type, page.body.into());
        page.headers.iter().fold(response, |response, &(name, value)| {
            match value.split_once(Page::SOCKETS) {
                Some((front, rest)) => {
                    response.header(name, format!("{front}{}{rest}", sockets(host)))
                }
                None => response.header(name, value),
            }
        })
    }

    pub(crate) fn bad_request(sentence: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    #[inline(never)]
    pub(crate) fn header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }

    /// The response for a server that writes it itself.
    pub(crate) fn into_http(self) -> http::Response<String> {
        let parts = *self.0;
        let own = [("Content-Type", parts.content_type.into())];
        let mut response = http::Response::new(parts.body.into_owned());
        *response.status_mut() = parts.status;
        for (name, value) in own.into_iter().chain(parts.headers) {
            let value = HeaderValue::try_from(&*value).expect("values of ours");
            response.headers_mut().append(name, value);
        }
        response
    }

    /// The bytes of the response; without the body in answer to HEAD, and without the
    /// [`shared_body`](Self::shared_body). `keep_alive` is how long the connection waits for its next
    /// request, if it does.
    pub(crate) fn encode(&self, head_only: bool, keep_alive: Option<Duration>) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or("");
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        if let Some(date) = http_date(unix_seconds()) {
            line(&mut text, "Date", &date);
        }
        let as_is = self.own.as_ref().map(|own| &own.body[..]);
        let as_is = as_is.or_else(|| self.message.as_ref().map(Message::as_bytes));
        let end = if as_is.is_some() || self.body.ends_with('\n') { "" } else { "\n" };
        // A response that never has a body says nothing about one (RFC 9110 8.6).
        let has_body = !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let own = self.own.as_deref();
        let has = |name: &str| own.is_some_and(|own| own.headers.contains_key(name));
        if has_body && !has("Content-Type") {
            line(&mut text, "Content-Type", self.content_type);
        }
        if has_body && !self.is_endless {
            let len = as_is.map_or(self.body.len() + end.len(), <[u8]>::len);
            line(&mut text, "Content-Length", &len.to_string());
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| !has(name)) {
            line(&mut text, name, value);
        }
        match keep_alive.map(|wait| wait.as_secs()) {
            None => line(&mut text, "Connection", "close"),
            // Clients that heed it close the connection first, and send no request that crosses its
            // end. Less than a second cannot be said.
            Some(seconds @ 1..) => line(&mut text, "Keep-Alive", &format!("timeout={seconds}")),
            Some(0) => {}
        }
        let mut bytes = text.into_bytes();
        if let Some(own) = own {
            own.encode_headers(&mut bytes);
        }
        bytes.extend_from_slice(b"\r\n");
        if has_body && !head_only && self.shared_body(head_only).is_empty() {
            bytes.extend_from_slice(as_is.unwrap_or(self.body.as_bytes()));
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes
    }
}

impl Own {
    /// Adds the headers, which have no line end in them: their types see to that.
    fn encode_headers(&self, bytes: &mut Vec<u8>) {
        for (name, value) in &self.headers {
            if !HUBS_OWN.contains(name) {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    bytes.extend_from_slice(part);
                }
            }
        }
    }
}

/// The sources of a policy that stand for the WebSockets of a host, or nothing for a host that no
/// source can name: an IPv6 address, or no host at all.
fn sockets(host: &str) -> String {
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_named) {
        return String::new();
    }
    format!(" ws://{host} wss://{host}")
}

/// Appends a header.
fn line(text: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        text.push_str(part);
    }
}

/// Refuses a method that is not among `methods`, a list as the Allow header has it.
pub(crate) fn allow(method: &Method, methods: &'static str) -> Result<(), Response> {
    if methods.split([',', ' ']).any(|name| name == method.as_str()) {
        return Ok(());
    }
    let sentence = "this method is not allowed; see the Allow header";
    Err(Response::new(StatusCode::METHOD_NOT_ALLOWED, sentence).header("Allow", methods))
}

/// What clients are told to wait when no permit is left for them, in seconds.
const RETRY_AFTER: &str = "5";

/// The hub admits no client any more.
pub(crate) fn draining() -> Response {
    unavailable("the hub is shutting down")
}

/// No permit is left for the client now.
pub(crate) fn unavailable(sentence: &'static str) -> Response {
    Response::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header("Retry-After", RETRY_AFTER)
}

/// The hub has lost the connection to the engine that it shares with other hubs. A client may try
/// again soon: most losses are short.
pub(crate) fn away() -> Response {
    let sentence = "the hub has lost its connection to Redis";
    Response::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header("Retry-After", "1")
}

/// Nothing that needs memory can begin.
pub(crate) fn short_of_memory() -> Response {
    unavailable("the hub is short of memory")
}

/// A hook failed or chose what cannot be.
pub(crate) fn internal_error(cause: &'static str) -> Response {
    log::error!("a request is answered with 500: {cause}");
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, "this server failed to answer the request")
}

/// The response to a request that a hook refused, with the reason that it gave.
pub(crate) fn refused_by_hook(status: StatusCode, reason: Option<Cow<'static, str>>) -> Response {
    let challenge = challenge(reason.as_deref());
    let warning = reason.as_ref().filter(|_| status == StatusCode::UNAUTHORIZED);
    let warning = warning.map(|reason| format!("a token was refused with 401: {reason}"));
    let sentence = reason.unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED => "a valid token is required".into(),
        StatusCode::FORBIDDEN => "this request is not allowed".into(),
        _ => {
            let reason = status.canonical_reason().unwrap_or("no reason given");
            format!("the request was refused: {}", reason.to_ascii_lowercase()).into()
        }
    });
    let mut response = Response::new(status, sentence);
    if let Some(warning) = warning {
        response = response.warn(warning);
    }
    match status {
        StatusCode::UNAUTHORIZED => response.header("WWW-Authenticate", challenge),
        StatusCode::SERVICE_UNAVAILABLE => response.header("Retry-After", RETRY_AFTER),
        _ => response,
    }
}

/// Bytes of a reason that a header carries at most.
const DESCRIPTION_MAX: usize = 200;

/// The value of WWW-Authenticate: what is wrong with the token that was sent (RFC 6750 section 3).
fn challenge(reason: Option<&str>) -> Cow<'static, str> {
    let Some(reason) = reason else { return "Bearer".into() };
    let is_allowed = |char: &char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\');
    let description: String = reason.chars().filter(is_allowed).take(DESCRIPTION_MAX).collect();
    format!("Bearer error=\"invalid_token\", error_description=\"{description}\"").into()
}

/// The response to a request whose time is over.
pub(crate) fn request_timeout() -> Response {
    Response::new(StatusCode::REQUEST_TIMEOUT, "the request took too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_in_the_challenge_without_what_would_end_it() {
        assert_eq!(challenge(None), "Bearer");
        assert_eq!(
            challenge(Some("the claim \"exp\"\r\nSet-Cookie: a\\ is in the past é")),
            "Bearer error=\"invalid_token\", error_description=\"the claim expSet-Cookie: a is in \
             the past \""
        );
        assert!(challenge(Some(&"x".repeat(10_000))).len() < 300);
    }
    fn of_program(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Option<String> {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(body.to_vec()).expect("well-formed");
        let response = Response::of_program(response)?;
        let response = response.header("Access-Control-Allow-Origin", "https://a.example");
        let text = String::from_utf8(response.encode(false, Some(Duration::ZERO))).expect("text");
        Some(text.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("|"))
    }
    #[test]
    fn a_connection_that_stays_says_for_how_long() {
        let head = |wait| Response::new(StatusCode::OK, "").encode(true, wait);
        let says = |wait, line: &str| String::from_utf8(head(wait)).expect("text").contains(line);
        assert!(says(Some(Duration::from_secs(75)), "\r\nKeep-Alive: timeout=75\r\n"));
        assert!(!says(Some(Duration::from_millis(900)), "Keep-Alive"));
        assert!(!says(None, "Keep-Alive") && says(None, "\r\nConnection: close\r\n"));
    }
    #[test]
    fn the_programs_answer_ends_where_the_hub_says() {
        let framing = [("Content-Length", "7"), ("Transfer-Encoding", "chunked"), ("X-A", "b")];
        assert_eq!(
            of_program(201, &framing, b"hello").as_deref(),
            Some(
                "HTTP/1.1 201 Created|Content-Type: text/plain; charset=utf-8|Content-Length: 5|\
                 Access-Control-Allow-Origin: https://a.example|x-a: b||hello"
            )
        );
        let own = [("Content-Type", "a/b"), ("Access-Control-Allow-Origin", "*")];
        assert_eq!(
            of_program(404, &own, b"").as_deref(),
            Some(
                "HTTP/1.1 404 Not Found|Content-Length: 0|content-type: a/b|\
                 access-control-allow-origin: *|"
            )
        );
        for status in [204, 304] {
            let bare = of_program(status, &[("Connection", "upgrade")], b"no").expect("allowed");
            assert!(bare.ends_with("|Access-Control-Allow-Origin: https://a.example|"), "{bare}");
            assert!(!bare.contains("Content-") && !bare.contains("upgrade"), "{bare}");
        }
        for status in [100, 101, 199, 600, 999] {
            assert_eq!(of_program(status, &[], b""), None, "{status}");
        }
    }
}
