//! The head of a request, strictly read.
//!
//! The grammar is `httparse`'s; what is refused beyond it is refused because two readers could
//! understand it in two ways (RFC 9112 section 11.2).

use std::future::{pending, poll_fn};
use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future::or;
use http::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use http::{Method, Request, StatusCode, Uri, Version, header};

use crate::http1::fields::has_token;
use crate::http1::response::Response;
use crate::http1::stream::{Failure, HttpStream};
use crate::net::stream::Transport;

/// The longest request head, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;

/// Bytes that one read of a head takes at most, of what comes behind it too.
pub(crate) const HEAD_READ_BYTES: usize = 1024;

/// How long a peer may stay silent while other connections wait for its slot.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long a drain waits for the first byte of a request. Browsers open connections ahead of any
/// request, and a peer that has a request sends it as soon as it is connected.
const SILENT_AT_DRAIN_MAX: Duration = Duration::from_millis(250);

/// The first byte of a TLS handshake (RFC 8446 5.1), which no request begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// Where a request ends (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The request does not say.
    Unknown,
    /// After so many bytes of body.
    Length(u64),
    /// With the last chunk of its body.
    Chunked,
}

/// A request, read up to its body.
#[derive(Debug)]
pub(crate) struct Head {
    /// The request without its body.
    pub(crate) request: Request<()>,
    /// Where its body ends.
    pub(crate) framing: Framing,
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

impl<T: Transport> HttpStream<'_, T> {
    /// Ready when the peer has left, while its request is worked on.
    ///
    /// What comes now is the next request, which waits for this answer. With any of it in the buffer
    /// the peer's end is not looked for.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        while self.buffer.is_empty() {
            match ready!(self.poll_fill(cx, HEAD_READ_BYTES)) {
                Ok(n) if n > 0 => self.charge_buffer(),
                Ok(_) => {
                    let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(end.into());
                }
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        Poll::Pending
    }

    /// Reads a head; what came behind it stays in the buffer.
    pub(crate) async fn read_head(&mut self) -> Result<Head, Failure> {
        let mut searched = 0;
        loop {
            if self.skip_empty_lines() {
                searched = 0;
            }
            if self.buffer.len() > searched {
                if self.buffer[0] == TLS_HANDSHAKE {
                    return Err(self.tls().into());
                }
                if let Some(head) = parse(&self.buffer, searched)? {
                    self.consume(head.len);
                    self.empty_lines = 0;
                    return Ok(head);
                }
                searched = self.buffer.len();
            }
            let silent = self.buffer.is_empty();
            let shared = self.hub.shared();
            let crowded_out = async {
                loop {
                    shared.timers.after(SILENCE_MAX).await;
                    if silent && shared.admissions.is_crowded() {
                        return Ok(0);
                    }
                }
            };
            let drained = async {
                shared.admissions.closed().await;
                if silent {
                    shared.timers.after(SILENT_AT_DRAIN_MAX).await;
                } else {
                    pending::<()>().await;
                }
                Ok(0)
            };
            let read = poll_fn(|cx| self.poll_begin(cx, HEAD_READ_BYTES));
            if or(read, or(crowded_out, drained)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.charge_buffer();
        }
    }

    /// The answer to a peer that speaks TLS. The first is a warning in the log: an operator
    /// that mistook the port looks for it there.
    #[cold]
    fn tls(&self) -> Response {
        if !self.hub.shared().counters.has_seen_tls.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a peer speaks TLS, and this port does not: use http:// and ws://, or a proxy \
                 that ends TLS; further ones are logged at the level debug"
            );
        }
        Response::bad_request("this port does not speak TLS: use http:// or ws://")
    }
}

/// Reads a head from the start of `buffer`; `None` until it is whole.
///
/// `searched` is how many bytes an earlier call has seen already, so that a head that trickles in
/// is searched once. Bytes past the limit are not looked at: how many of them one read brings must
/// not decide the answer.
pub(crate) fn parse(buffer: &[u8], searched: usize) -> Result<Option<Head>, Response> {
    if buffer.starts_with(b"\r\n") {
        return Err(Response::bad_request("more than two empty lines stand ahead of the request"));
    }
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
                "only HTTP/1.1 and HTTP/1.0 are supported",
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
    let framing = check_framing(&request)?;
    Ok(Head { request, framing, len: head.len() })
}

/// The value of a header. What every upgrade says needs no memory of its own.
pub(crate) fn value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
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

/// Checks the headers that say where a request ends and what it is for.
fn check_framing(request: &Request<()>) -> Result<Framing, Response> {
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
        check_encoding(request)?;
        check_host(request)?;
        return Ok(Framing::Chunked);
    }
    check_host(request)?;
    let Some(length) = length else { return Ok(Framing::Unknown) };
    // The parser takes a sign, and refuses what has no digits or too many.
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .map(Framing::Length)
        .ok_or_else(|| Response::bad_request("the request's Content-Length is not a number"))
}

/// Checks that a transfer encoding is `chunked` and nothing else (RFC 9112 6.1).
fn check_encoding(request: &Request<()>) -> Result<(), Response> {
    if request.version() != Version::HTTP_11 {
        return Err(Response::bad_request("only HTTP/1.1 has transfer encodings"));
    }
    let mut encodings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if encodings.next().is_some_and(is_chunked) && encodings.next().is_none() {
        return Ok(());
    }
    Err(Response::new(
        StatusCode::NOT_IMPLEMENTED,
        "the only transfer encoding that is supported is chunked",
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percent::percent_decode;

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
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            ("GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
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
    /// The status of a head if the bytes after the first `whole` come one by one.
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
