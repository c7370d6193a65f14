//! How often a request asks for the newest message of its room.

use std::time::Duration;

use http::Uri;

use crate::config::Config;
use crate::http1::requested_rooms::RequestedRooms;
use crate::http1::time::time;
use crate::http1::url::{is_stream, query_of};

/// Returns how often a request for a WebSocket or for events asks for the newest message of its room:
/// `?every=2s`, a whole number with `ms`, `s`, `m` or `h`. For [`Admission::every`](crate::Admission::every).
///
/// # Errors
///
/// A sentence for the answer with 400: the value is no time from 100 ms
/// ([`Config::EVERY_MIN`](crate::Config::EVERY_MIN)) to one hour
/// ([`Config::EVERY_MAX`](crate::Config::EVERY_MAX)), the request names several rooms or a prefix, or it
/// is for a WebSocket with `since`, which counts every message.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let every = |uri: &str| hublet::every_of(&uri.parse().expect("a target"));
/// assert_eq!(every("/ws/state?every=2s"), Ok(Some(Duration::from_secs(2))));
/// assert_eq!(every("/ws/state"), Ok(None));
/// assert!(every("/ws/state?every=2").is_err());
/// assert!(every("/ws?room=a&room=b&every=2s").is_err());
/// ```
pub fn every_of(uri: &Uri) -> Result<Option<Duration>, &'static str> {
    let Some(every) = query_of(uri, "every") else { return Ok(None) };
    let bounds = Config::EVERY_MIN..=Config::EVERY_MAX;
    let every = time(&every).filter(|every| bounds.contains(every));
    let every = every.ok_or("every must be a time from 100ms to 1h, like 2s")?;
    if RequestedRooms::of(uri)?.has_labels() {
        return Err("every is for one room: leave out the others, and prefixes");
    }
    if !is_stream(uri.path()) && query_of(uri, "since").is_some() {
        return Err("a WebSocket with since hears every message: leave out every");
    }
    Ok(Some(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_for_one_room_and_within_its_bounds() {
        for (uri, millis) in [
            ("/ws/a?every=100ms", Some(100)),
            ("/ws/a?every=1h", Some(3_600_000)),
            ("/sse/a?every=60m&since=0", Some(3_600_000)),
            ("/sse?room=a&every=90s&poll=1", Some(90_000)),
            ("/ws/a?every=99ms", None),
            ("/ws/a?every=0s", None),
            ("/ws/a?every=61m", None),
            ("/ws/a?every=", None),
            ("/ws/a?every", None),
            ("/ws/a?every=2", None),
            ("/ws/a?every=+2s", None),
            ("/ws/a?every=1.5s", None),
            ("/ws/a?every=99999999999999999999h", None),
            ("/ws?room=a*&every=2s", None),
            ("/ws?room=a&room=b&every=2s", None),
            ("/ws/a?every=2s&since=now", None),
            ("/ws/a?room=b&every=2s", None),
        ] {
            let every = every_of(&uri.parse().expect("a target"));
            let read = every.ok().flatten().map(|every| every.as_millis());
            assert_eq!(read, millis, "{uri}");
        }
    }
}
