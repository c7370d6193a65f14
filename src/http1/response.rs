//! Responses, and the refusals that several parts of the hub give.

use std::borrow::Cow;
use std::ops::Deref;

use http::header::HeaderValue;
use http::{Method, StatusCode};

use crate::config::Page;
use crate::http1::date::http_date;
use crate::time::clock::unix_seconds;

/// A response, most often with a sentence as its body.
///
/// Boxed, since it is what most functions here may fail with, and is moved from one to the next.
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
    /// What the log says at the level WARN, once for each sentence.
    pub(crate) warning: Option<Box<str>>,
}

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

    /// Takes the body out.
    pub(crate) fn into_body(self) -> Cow<'static, str> {
        self.0.body
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

    /// The bytes of the response; without the body in answer to HEAD.
    pub(crate) fn encode(&self, head_only: bool, keeps_alive: bool) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or("");
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        if let Some(date) = http_date(unix_seconds()) {
            line(&mut text, "Date", &date);
        }
        let end = if self.body.ends_with('\n') { "" } else { "\n" };
        // A response that never has a body says nothing about one (RFC 9110 8.6).
        let has_body = self.status != StatusCode::NO_CONTENT;
        if has_body {
            line(&mut text, "Content-Type", self.content_type);
        }
        if has_body && !self.is_endless {
            line(&mut text, "Content-Length", &(self.body.len() + end.len()).to_string());
        }
        for (name, value) in &self.headers {
            line(&mut text, name, value);
        }
        if !keeps_alive {
            line(&mut text, "Connection", "close");
        }
        text.push_str("\r\n");
        if has_body && !head_only {
            text.push_str(&self.body);
            text.push_str(end);
        }
        text.into_bytes()
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

/// What clients are told to wait when there is no place for them, in seconds.
const RETRY_AFTER: &str = "5";

/// The hub admits no client any more.
pub(crate) fn draining() -> Response {
    unavailable("the hub is shutting down")
}

/// There is no place for the client now.
pub(crate) fn unavailable(sentence: &'static str) -> Response {
    Response::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header("Retry-After", RETRY_AFTER)
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
}
