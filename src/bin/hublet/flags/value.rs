//! Parses and prints the values of flags. An `Err` says what is allowed.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use hublet::{Config, HistoryRule, Redis, is_name};

use crate::request_token::PROTOCOL;
use crate::secret::Secret;

/// Bytes that a queue must hold beyond two messages: a frame header each.
pub(super) const FRAMING: usize = 2 * 10;

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("1, true, 0 or false".to_owned()),
    }
}

pub(crate) fn count(text: &str, max: usize) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=max).contains(count));
    count.ok_or_else(|| format!("a whole number from 1 to {max}"))
}

pub(crate) fn bytes(text: &str, max: usize) -> Result<usize, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 1024),
        Some((end, 'm' | 'M')) => (&text[..end], 1024 * 1024),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number
        .filter(|bytes| (1..=max).contains(bytes))
        .ok_or_else(|| format!("a number of bytes from 1 to {max}, like 4096, 64k or 1m"))
}

/// How many messages the rooms of a pattern keep.
pub(super) fn history(text: &str) -> Result<HistoryRule, String> {
    text.parse().map_err(|_| {
        format!(
            "a number of messages up to {}, or PATTERN=N, where a PATTERN is the name of a room or a \
             prefix with a * behind it",
            Config::LIMIT_MAX
        )
    })
}

pub(super) fn time(text: &str, min: Duration) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.iter().find_map(|(unit, millis)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*millis).map(Duration::from_millis)
    });
    parsed
        .filter(|time| (min..=Config::WAIT_MAX).contains(time))
        .ok_or_else(|| format!("a time from {} to a day, like 500ms, 10s or 2m", show_time(min)))
}

/// An origin as clients send it. A URL with a path stands for its origin.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "*" || text == "null" || origin_of(text).is_some() {
        return Ok(text.to_owned());
    }
    Err("an origin like https://example.org, app://-, file:// or null; or * for any".to_owned())
}

/// The schemes whose pages have a host.
const WEB: [&str; 4] = ["http", "https", "ws", "wss"];

/// The part of a URL that is its origin: the scheme, the host and perhaps the port.
fn origin_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // No `*`, which would stand for no host, and no letters that a browser sends as punycode.
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if !authority.ends_with(']') => port,
        _ => "0",
    };
    let is_origin = !scheme.is_empty()
        && scheme.bytes().all(is_scheme)
        && authority.bytes().all(is_host)
        && port.parse::<u16>().is_ok()
        && (!authority.is_empty() || !WEB.iter().any(|web| scheme.eq_ignore_ascii_case(web)));
    is_origin.then(|| &url[..scheme.len() + "://".len() + authority.len()])
}

/// What an operator may not expect of an origin that is listed.
pub(super) fn origin_warning(listed: &str) -> Option<String> {
    if listed == "null" {
        return Some(
            "--allow-origin null allows every sandboxed frame, which any web page can make"
                .to_owned(),
        );
    }
    let origin = origin_of(listed)?;
    if listed.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:")) {
        return Some(format!("--allow-origin {listed} allows every page that is opened as a file"));
    }
    let path = &listed[origin.len()..];
    let widened =
        || format!("--allow-origin {listed} allows every page of {origin}: an origin has no path");
    (!matches!(path, "" | "/")).then(widened)
}

/// Adds a secret. A second one is for a change from one to the other.
pub(super) fn add_secret(slot: &mut Option<Secret>, text: &str) -> Result<(), String> {
    add(slot, Secret::new(text)?)
}

fn add(slot: &mut Option<Secret>, secret: Secret) -> Result<(), String> {
    let Some(first) = slot else {
        *slot = Some(secret);
        return Ok(());
    };
    let added = first.add(secret).then_some(());
    added.ok_or_else(|| "two secrets at most: the old one and the new one".to_owned())
}

/// The name of a service, as the claim `aud` has it: a word, or a URL.
pub(super) fn audience(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() || text.trim() != text || text.contains(char::is_control) {
        return Err("a name or a URL, as the claim aud has it".to_owned());
    }
    Ok(text.into())
}

/// Reads a secret from a file that has nothing else in it, but perhaps a line end.
pub(super) fn secret_file(slot: &mut Option<Secret>, path: &str) -> Result<(), String> {
    let refused = |allowed| format!("a file with nothing in it but a secret, {allowed}");
    add(slot, Secret::new(&line_of(path, Secret::BYTES_MAX)?).map_err(refused)?)
}

/// Reads a file, `max` bytes of it at most.
pub(super) fn beginning(path: &str, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of one line, without the end of that line. Of a line of more than `max` bytes it
/// returns the beginning, which has more than `max` bytes too.
fn line_of(path: &str, max: usize) -> Result<String, String> {
    let bytes = beginning(path, max + "\r\n".len() + 1);
    let bytes = bytes.map_err(|error| format!("a file that can be read ({error})"))?;
    let text = String::from_utf8(bytes).map_err(|_| "a file in UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').filter(|_| text.ends_with('\n')).unwrap_or(line);
    Ok(line.to_owned())
}

/// Bytes of the URL of a server in a file, at most.
const URL_BYTES_MAX: usize = 4096;

/// The URL of a server. What is allowed does not repeat it: it may hold a password.
pub(super) fn redis(text: &str) -> Result<Redis, String> {
    text.parse().map_err(|_| {
        "redis://[user:password@]host[:port][/db] or unix:/path, without TLS and Sentinel"
            .to_owned()
    })
}

/// Reads the URL of a server from a file that has nothing else in it, but perhaps a line end.
pub(super) fn redis_file(path: &str) -> Result<Redis, String> {
    let line = line_of(path, URL_BYTES_MAX)?;
    if line.len() > URL_BYTES_MAX {
        return Err(format!(
            "a file with nothing in it but a URL of at most {URL_BYTES_MAX} bytes"
        ));
    }
    redis(line.trim_end_matches(['\r', '\n']))
        .map_err(|allowed| format!("a file with nothing in it but {allowed}"))
}

/// What the names in a server begin with.
pub(super) fn redis_prefix(text: &str) -> Result<String, String> {
    let prefixed = redis("redis://localhost")?.prefix(text);
    let allowed = "1 to 64 letters, digits, dots, hyphens and underscores";
    prefixed.map(|_| text.to_owned()).map_err(|_| allowed.to_owned())
}

/// A host as a request names it: without a scheme or a path.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '@', ' ']) {
        return Err("a host like hub.example.org, without a scheme, or *".to_owned());
    }
    Ok(text.to_owned())
}

/// Subprotocols at most, and bytes of each.
const PROTOCOLS_MAX: usize = 16;
const PROTOCOL_BYTES_MAX: usize = 64;

/// A subprotocol (RFC 6455 4.1: a token of HTTP), of which `named` are named already.
pub(super) fn protocol(text: &str, named: usize) -> Result<Arc<str>, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if named >= PROTOCOLS_MAX {
        return Err(format!("at most {PROTOCOLS_MAX} subprotocols"));
    }
    if text == PROTOCOL {
        return Err(format!("any but {PROTOCOL}, which is answered in any case"));
    }
    let is_name =
        !text.is_empty() && text.len() <= PROTOCOL_BYTES_MAX && text.bytes().all(is_token);
    is_name.then(|| text.into()).ok_or_else(|| {
        format!(
            "a subprotocol like chat.v1, at most {PROTOCOL_BYTES_MAX} bytes without space and comma"
        )
    })
}

/// A room whose name clients can write in a path.
pub(super) fn room(text: &str) -> Result<Arc<str>, String> {
    if is_name(text) && text != "." && text != ".." {
        return Ok(text.into());
    }
    Err("the name of a room, 1 to 128 bytes without control characters".to_owned())
}

pub(super) fn show_bytes(bytes: usize) -> String {
    const MIB: usize = 1024 * 1024;
    match bytes {
        bytes if bytes % MIB == 0 => format!("{}m", bytes / MIB),
        bytes if bytes % 1024 == 0 => format!("{}k", bytes / 1024),
        bytes => bytes.to_string(),
    }
}

pub(super) fn show_time(time: Duration) -> String {
    const HOUR: u64 = 60 * 60;
    if time.subsec_millis() == 0 && time.as_secs() >= HOUR && time.as_secs() % HOUR == 0 {
        format!("{}h", time.as_secs() / HOUR)
    } else if time.subsec_millis() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis() as u64)
    }
}
