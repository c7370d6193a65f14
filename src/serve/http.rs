//! HTTP/1.1 as far as a hub needs it: the request head, strictly read, and responses.
//!
//! The grammar is `httparse`'s; what is refused beyond it is refused because two readers could
//! understand it in two ways (RFC 9112 section 11.2).

use std::borrow::Cow;
use std::ops::Deref;

use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use crate::Page;

/// The longest request head, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// A request, read up to its body.
#[derive(Debug)]
pub(crate) struct Head {
    /// The request without its body.
    pub(crate) request: Request<()>,
    /// Bytes of body that are announced, if any length is.
    pub(crate) content_length: Option<u64>,
    /// Bytes of the buffer that the head took.
    pub(crate) len: usize,
}

impl Head {
    /// Whether another request may follow on the connection (RFC 9112 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        self.request.version() == Version::HTTP_11
            && !has_token(self.request.headers(), header::CONNECTION, "close")
    }

    /// Whether the peer waits to be told that its body is wanted (RFC 9110 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.request.version() == Version::HTTP_11
            && has_token(self.request.headers(), header::EXPECT, "100-continue")
    }
}

/// A response, most often with a sentence as its body.
///
/// Boxed, since it is what most functions here may fail with, and is moved from one to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) status: StatusCode,
    /// The body. A line end is added where it lacks one, for those who read it in a terminal.
    pub(crate) body: Cow<'static, str>,
    content_type: &'static str,
    /// The body goes on behind what is here, and ends with the connection.
    is_endless: bool,
    /// Headers beyond those every response has; names and values of ours.
    headers: Vec<(&'static str, Cow<'static, str>)>,
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
        Self(Box::new(Parts { status, body, content_type, is_endless: false, headers: Vec::new() }))
    }

    /// Lets the body go on until the connection ends.
    pub(crate) fn endless(mut self) -> Self {
        self.0.is_endless = true;
        self
    }

    /// Takes the body out.
    pub(crate) fn into_body(self) -> Cow<'static, str> {
        self.0.body
    }

    /// A page, as it is.
    pub(crate) fn page(page: &Page) -> Self {
        let response = Self::with_type(StatusCode::OK, page.content_type, page.body.into());
        page.headers.iter().fold(response, |response, &(name, value)| response.header(name, value))
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

/// Appends a header.
fn line(text: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        text.push_str(part);
    }
}

/// Reads a head from the start of `buffer`; `None` until it is whole.
///
/// `searched` is how many bytes an earlier call has seen already, so that a head that trickles in
/// is searched once. Bytes past the limit are not looked at: how many of them one read brings must
/// not decide the answer.
pub(crate) fn parse(buffer: &[u8], searched: usize) -> Result<Option<Head>, Response> {
    let head = &buffer[..buffer.len().min(HEAD_BYTES_MAX)];
    match end_of_head(head, searched)? {
        Some(len) => parse_whole(&head[..len]).map(Some),
        None if head.len() < HEAD_BYTES_MAX => Ok(None),
        None => Err(Response::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request head is longer than 8 KiB",
        )),
    }
}

/// Finds the end of a head. Up to there lines end with CR LF and nothing else does: a bare one of
/// either splits requests.
fn end_of_head(buffer: &[u8], searched: usize) -> Result<Option<usize>, Response> {
    let mut at = searched.saturating_sub(END.len() - 1);
    while let Some(plain) = buffer[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        at += plain;
        let is_bare = match buffer[at] {
            b'\n' => at == 0 || buffer[at - 1] != b'\r',
            _ => buffer.get(at + 1).is_some_and(|&next| next != b'\n'),
        };
        if is_bare {
            return Err(Response::bad_request("a line of the request does not end with CR LF"));
        }
        at += 1;
        if buffer[..at].ends_with(END) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn parse_whole(head: &[u8]) -> Result<Head, Response> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Response::bad_request("the request is not HTTP/1.1")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request has more than 64 headers",
            ));
        }
        Err(httparse::Error::Version) => {
            return Err(Response::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "only HTTP/1.1 and HTTP/1.0 are spoken here",
            ));
        }
        Err(_) => return Err(Response::bad_request("the request is not HTTP/1.1")),
    }
    let method = parsed.method.unwrap_or_default();
    let target = parsed.path.unwrap_or_default();
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes())
        .map_err(|_| Response::bad_request("the request's method is malformed"))?;
    *request.uri_mut() = parse_target(target)?;
    *request.version_mut() =
        if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let map = request.headers_mut();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = value(header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Response::bad_request("a header of the request is malformed"));
        };
        map.append(name, value);
    }
    let content_length = check_framing(&request)?;
    Ok(Head { request, content_length, len: head.len() })
}

/// The value of a header. What every upgrade says needs no memory of its own.
fn value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    match ["websocket", "Upgrade", "13"].iter().find(|said| said.as_bytes() == bytes) {
        Some(said) => Ok(HeaderValue::from_static(said)),
        None => HeaderValue::from_bytes(bytes),
    }
}

/// The target in origin form or, as RFC 9112 3.2.2 demands of servers, in absolute form.
fn parse_target(target: &str) -> Result<Uri, Response> {
    let malformed = || Response::bad_request("the request's target is malformed");
    let uri: Uri = target.parse().map_err(|_| malformed())?;
    let absolute = matches!(uri.scheme_str(), Some("http" | "https" | "ws" | "wss"));
    if target.starts_with('/') || (absolute && uri.authority().is_some()) {
        Ok(uri)
    } else {
        Err(malformed())
    }
}

/// Checks the headers that say where a request ends and whom it is for; returns the body's length.
fn check_framing(request: &Request<()>) -> Result<Option<u64>, Response> {
    let headers = request.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.any(|other| Some(other) != length) {
        return Err(Response::bad_request("the request has two lengths that differ"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if length.is_some() {
            return Err(Response::bad_request("the request has a length and a transfer encoding"));
        }
        return Err(Response::new(
            StatusCode::NOT_IMPLEMENTED,
            "transfer encodings are not supported: send a Content-Length",
        ));
    }
    check_host(request)?;
    let Some(length) = length else { return Ok(None) };
    let digits = length.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Response::bad_request("the request's Content-Length is not a number"));
    }
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    let too_large = || Response::bad_request("the request's Content-Length is not a number");
    length.map(Some).ok_or_else(too_large)
}

/// Checks that one host is asked for, in one way only.
fn check_host(request: &Request<()>) -> Result<(), Response> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Response::bad_request("the request needs exactly one Host"));
    }
    // RFC 9112 3.2.2 has the target win. What is in front may have looked at the other, so where
    // they differ there is no answer.
    let target = request.uri().authority().map(|authority| authority.as_str());
    if target.is_some_and(|target| {
        host.is_some_and(|host| !target.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    }) {
        return Err(Response::bad_request("the request's target and its Host differ"));
    }
    Ok(())
}

/// Whether a comma-separated header, however many times it stands there, has `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, &name).any(|other| other.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated header, however many times it stands there.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
}

/// The first value of `name` in a query; empty if it stands there without one.
pub(crate) fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &[u8]) -> u16 {
        match parse(request, 0) {
            Ok(Some(_)) => 200,
            Ok(None) => 0,
            Err(response) => response.status.as_u16(),
        }
    }

    #[test]
    fn malformed_and_ambiguous_heads_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(8192));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(64));
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("GET / HTTP/1.0\r\n\r\n", 200),
            ("GET http://x/ws HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: x\r\n", 0),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: x\n\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\rY: z\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
            ("GET ws HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            ("\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n", 400),
            (&long, 431),
            (&many, 431),
        ] {
            assert_eq!(status(request.as_bytes()), expected, "{request:?}");
        }
    }

    #[test]
    fn a_head_that_trickles_in_is_read_like_a_whole_one() {
        let request = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\nearly";
        let mut searched = 0;
        for len in 1..=request.len() {
            match parse(&request[..len], searched).expect("well-formed") {
                Some(head) => {
                    assert_eq!(head.len, request.len() - 5);
                    assert_eq!(len, head.len);
                    return;
                }
                None => searched = len,
            }
        }
        panic!("never whole");
    }

    /// The status of a head whose bytes come one by one after the first `whole`.
    fn status_of_trickle(request: &[u8], whole: usize) -> u16 {
        let mut searched = 0;
        for len in whole..=request.len() {
            match parse(&request[..len], searched) {
                Ok(None) => searched = len,
                Ok(Some(_)) => return 200,
                Err(response) => return response.status.as_u16(),
            }
        }
        0
    }

    #[test]
    fn bytes_past_the_limit_of_a_head_decide_nothing() {
        for before in 0..2 * END.len() {
            let mut line = b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
            line.resize(HEAD_BYTES_MAX - before, b'a');
            for (end, bytes_needed, expected) in [("\n\r\n", 1, 400), ("\r\n\r\n", END.len(), 200)]
            {
                let request = [&line, end.as_bytes()].concat();
                let expected = if before < bytes_needed { 431 } else { expected };
                assert_eq!(status(&request), expected, "{end:?}, {before} bytes before the limit");
                assert_eq!(status_of_trickle(&request, line.len()), expected, "{end:?}, {before}");
            }
        }
    }

    #[test]
    fn percent_decoding_is_done_once_and_must_give_utf_8() {
        assert_eq!(percent_decode("a%2Fb%2525").as_deref(), Some("a/b%25"));
        assert_eq!(percent_decode("%C3%A9").as_deref(), Some("é"));
        for bad in ["%", "%2", "%zz", "%C3", "%+1"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
