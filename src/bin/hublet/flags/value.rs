//! Parses and prints the values of flags. An `Err` says what is allowed.

use std::sync::Arc;
use std::time::Duration;

use hublet::{Config, is_name};

use crate::auth::Secret;

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("1, true, 0 or false".to_owned()),
    }
}

pub(super) fn count(text: &str, max: usize) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=max).contains(count));
    count.ok_or_else(|| format!("a whole number from 1 to {max}"))
}

pub(super) fn bytes(text: &str, max: usize) -> Result<usize, String> {
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

pub(super) fn time(text: &str, min: Duration) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let parsed = units.iter().find_map(|(unit, millis)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*millis).map(Duration::from_millis)
    });
    parsed
        .filter(|time| (min..=Config::WAIT_MAX).contains(time))
        .ok_or_else(|| format!("a time from {} to a day, like 500ms, 10s or 2m", show_time(min)))
}

/// An origin as a browser sends it: a scheme, a host, an optional port, no path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let rest = text.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
    if text == "*"
        || rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte != b'/'))
    {
        return Ok(text.to_owned());
    }
    Err("an origin like https://example.org, without a path, or *".to_owned())
}

/// Sets a secret. It must not be empty or be set already.
pub(super) fn once(slot: &mut Option<Secret>, text: &str) -> Result<(), String> {
    if slot.is_some() {
        return Err("one secret, given once: by its flag, its variable or its file".to_owned());
    }
    *slot = Some(Secret::new(text).ok_or("one that is not empty")?);
    Ok(())
}

/// Reads a secret from the first line of a file.
pub(super) fn read_secret(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("a file that can be read ({error})"))?;
    Ok(text.lines().next().unwrap_or_default().trim_ascii().to_owned())
}

/// A host as a request names it: without a scheme or a path.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '@', ' ']) {
        return Err("a host like hub.example.org, without a scheme, or *".to_owned());
    }
    Ok(text.to_owned())
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
    if time.subsec_millis() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis() as u64)
    }
}
