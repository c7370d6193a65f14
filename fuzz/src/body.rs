//! Fuzzes the bodies of requests to publish: chunked ones, and streams of lines of either framing.
//! A second and simpler reader says what is published, and where the next request begins.

use futures_lite::future::poll_once;
use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, Message, Peer as Source, Subscription, Target,
};

use super::stage::{Dice, Peer, run as stage};

/// The limit on a message, in bytes: short bodies and lines reach it.
const MESSAGE_MAX: usize = 64;

/// Bytes of chunk extensions and trailers of a body at most (docs/limits.md); in a stream, ahead of
/// a byte of it. A trailer counts as 64 bytes at least.
const EXTRAS_MAX: usize = 4 * 1024;
const TRAILER_MIN: usize = 64;

/// Digits of the size of a chunk at most.
const DIGITS_MAX: usize = 16;

/// The request behind the body. It is answered if and only if the hub finds the end of the body where
/// the second reader finds it.
const NEXT: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Open;

impl Handler for Open {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }
}

/// A chunked body is one message.
pub fn chunked(bytes: &[u8]) {
    let Some((&[flags, seed], chunks)) = bytes.split_first_chunk::<2>() else { return };
    let come = [chunks, if flags & 64 == 0 { NEXT } else { b"" }].concat();
    let (body, end) = decoded(&come, Some(MESSAGE_MAX));
    let (messages, status) = match end {
        End::Whole(_) => (vec![body], 202),
        End::Refused(status) => (Vec::new(), status),
        End::Cut => (Vec::new(), 0),
    };
    let expected = Expected { report: format!("{{\"recipients\":{}", messages.len()), messages };
    let heard = post("/pub", "Transfer-Encoding: chunked", &come, flags, seed);
    compare(&heard, status, &expected, end);
}

/// Each line of a body is a message as it comes.
pub fn lines(bytes: &[u8]) {
    let Some((&[flags, seed], lines)) = bytes.split_first_chunk::<2>() else { return };
    let come = [lines, if flags & 64 == 0 { NEXT } else { b"" }].concat();
    let framing;
    let (body, end) = if flags & 1 == 0 {
        framing = "Transfer-Encoding: chunked".to_owned();
        decoded(&come, None)
    } else {
        // One that is cut off may lack a byte.
        let length = lines.len() + usize::from(flags & 192 == 192);
        framing = format!("Content-Length: {length}");
        let rest = come.get(length..);
        (lines.to_vec(), rest.map_or(End::Cut, End::Whole))
    };
    let (messages, fault) = published(&body, matches!(end, End::Whole(_)));
    let (status, end) = match (fault, end) {
        (Some(status), _) => (status, End::Refused(status)),
        (None, End::Whole(rest)) => (202, End::Whole(rest)),
        (None, End::Refused(status)) => (status, end),
        (None, End::Cut) => (0, End::Cut),
    };
    let count = messages.len();
    let report = format!("{{\"messages\":{count},\"recipients\":{count}");
    let heard = post("/pub?lines", &framing, &come, flags, seed);
    compare(&heard, status, &Expected { report, messages }, end);
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    /// These bytes follow it.
    Whole(&'a [u8]),
    /// It is malformed, or too long.
    Refused(u16),
    /// The peer has gone before its end.
    Cut,
}

/// The bytes of a chunked body, up to its end. Without a limit it is a stream.
fn decoded(mut come: &[u8], max: Option<usize>) -> (Vec<u8>, End<'_>) {
    let (mut body, mut extras) = (Vec::new(), 0);
    loop {
        let (said, rest) = match line(come) {
            Ok(line) => line,
            Err(end) => return (body, end),
        };
        let Some((size, extension)) = size(said) else { return (body, End::Refused(400)) };
        extras += extension;
        if extras > EXTRAS_MAX {
            return (body, End::Refused(400));
        }
        if max.is_some_and(|max| size > (max - body.len()) as u64) {
            return (body, End::Refused(413));
        }
        if size == 0 {
            let end = trailers(rest, extras);
            return (body, end);
        }
        let n = rest.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        body.extend_from_slice(&rest[..n]);
        if max.is_none() && n > 0 {
            extras = 0;
        }
        match &rest[n..] {
            [] | [b'\r'] => return (body, End::Cut),
            [b'\r', b'\n', next @ ..] => come = next,
            _ => return (body, End::Refused(400)),
        }
    }
}

/// The end of a body by its trailers, behind so many bytes of extensions.
fn trailers(mut come: &[u8], mut extras: usize) -> End<'_> {
    loop {
        let (said, rest) = match line(come) {
            Ok(line) => line,
            Err(end) => return end,
        };
        if said.is_empty() {
            return End::Whole(rest);
        }
        let name = said.split(|&byte| byte == b':').next().unwrap_or_default();
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        extras += TRAILER_MIN.max(said.len() + 2);
        let is_field = !name.is_empty() && name.len() < said.len() && name.iter().all(is_token);
        if !is_field || extras > EXTRAS_MAX {
            return End::Refused(400);
        }
        come = rest;
    }
}

/// The first line, and what is behind its end.
fn line(come: &[u8]) -> Result<(&[u8], &[u8]), End<'static>> {
    let Some(at) = come.iter().position(|&byte| byte < b' ' && byte != b'\t' || byte == 127) else {
        let is_long = come.len() > EXTRAS_MAX + DIGITS_MAX;
        return Err(if is_long { End::Refused(400) } else { End::Cut });
    };
    match (&come[..at], &come[at..]) {
        (line, [b'\r', b'\n', rest @ ..]) => Ok((line, rest)),
        (_, [b'\r']) => Err(End::Cut),
        _ => Err(End::Refused(400)),
    }
}

/// The size that a line says, and the bytes behind its digits.
fn size(line: &[u8]) -> Option<(u64, usize)> {
    let digits = match line.iter().position(|&byte| byte == b';') {
        Some(at) => line[..at].trim_ascii_end(),
        None => line,
    };
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    let size = u64::from_str_radix(text, 16).ok().filter(|_| text.len() <= DIGITS_MAX)?;
    Some((size, line.len() - digits.len()))
}

/// The messages that the lines of a body are, and the status if one of them is too long.
fn published(body: &[u8], is_whole: bool) -> (Vec<Vec<u8>>, Option<u16>) {
    let mut messages = Vec::new();
    let mut lines = body.split(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let has_end = lines.peek().is_some();
        if !has_end && !is_whole {
            // A CR may be the last byte of the longest.
            return (messages, (line.len() > MESSAGE_MAX + 1).then_some(413));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MESSAGE_MAX {
            return (messages, Some(413));
        }
        if !line.is_empty() {
            messages.push(line.to_vec());
        }
    }
    (messages, None)
}

/// What the hub publishes, and how the body of its answer begins, if it takes the whole body.
#[derive(Debug)]
struct Expected {
    messages: Vec<Vec<u8>>,
    report: String,
}

/// The statuses and bodies of the answers, and the messages of a client in the room.
type Heard = (Vec<(u16, String)>, Vec<Vec<u8>>);

/// Sends a request with a body, cut by `seed`, to a hub with one client.
fn post(path: &str, framing: &str, body: &[u8], flags: u8, seed: u8) -> Heard {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
    let all = [head.as_bytes(), body].concat();
    let len = all.len();
    let config = Config::default()
        .http(true)
        .max_message(MESSAGE_MAX)
        .queue(1 + body.len())
        .queue_bytes(1 << 24)
        .inbox(1 + usize::from(flags >> 1 & 1));
    // The target `head` cuts heads.
    let piece = 1 << (flags >> 2 & 15);
    let (peer, heard) = Peer::new(all, head.len(), piece, Dice::new(u64::from(seed) + 1));
    let messages = stage(config, len, |hub| async move {
        let room = Admission::anonymous().room("main");
        let mut client = hub.subscribe(room).await.expect("there is room");
        drop(hub.serve_connection(peer, Source::unknown(), &Open).await);
        taken(&mut client).await
    });
    let heard = std::mem::take(&mut *heard.lock().expect("one thread"));
    (answers(&heard), messages)
}

/// The messages that wait for a client.
async fn taken(client: &mut Subscription) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(message) = poll_once(client.next()).await {
        let message = message.expect("the client is still here");
        let is_utf_8 = std::str::from_utf8(message.as_bytes()).is_ok();
        assert_eq!(message.is_text(), is_utf_8, "a message is a text where it may be one");
        messages.push(message.as_bytes().to_vec());
    }
    messages
}

/// The status and body of each answer.
fn answers(mut heard: &[u8]) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while !heard.is_empty() {
        let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&heard[..end]).expect("text");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        let body = &heard[end + 4..end + 4 + length];
        let body = String::from_utf8(body.to_vec()).expect("text");
        answers.push((status.and_then(|status| status.parse().ok()).expect("a status"), body));
        heard = &heard[end + 4 + length..];
    }
    answers
}

/// Compares what the hub did with what the second reader says; status 0 is no answer.
fn compare((answers, heard): &Heard, status: u16, expected: &Expected, end: End<'_>) {
    let first = answers.first();
    assert_eq!(first.map_or(0, |answer| answer.0), status, "{answers:?} behind {expected:?}");
    assert_eq!(*heard, expected.messages, "{answers:?}");
    if let (Some((_, body)), true) = (first, status == 202 || !heard.is_empty()) {
        assert!(body.starts_with(&expected.report), "{body} behind {expected:?}");
    }
    match end {
        End::Whole(NEXT) => {
            assert_eq!(answers[1..], [(200, "ok\n".to_owned())], "the request behind the body");
        }
        End::Whole([]) => assert_eq!(answers.len(), 1, "nothing is behind the body"),
        End::Whole(_) => {}
        End::Refused(_) | End::Cut => assert!(answers.len() <= 1, "it has no end: {answers:?}"),
    }
}
