//! The rooms that a request for a client names.

use std::sync::Arc;

use http::Uri;

use crate::config::Config;
use crate::http1::url::{MAIN, query_of, room_of, values_of};
use crate::name::{is_dots, is_name};

/// The rooms that a request for a WebSocket or for events names, in its path or in its query.
///
/// `/ws/news` names one. `/ws?room=news&room=sports` names several, as many as
/// [`MAX`](Self::MAX). `/ws?room=sensor/*` names all rooms that begin so. A client that names more
/// than one, or a prefix, gets its messages with labels
/// ([`Admission::labels`](crate::Admission::labels)).
///
/// # Examples
///
/// ```
/// use hublet::RequestedRooms;
///
/// let requested = |uri: &str| RequestedRooms::of(&uri.parse().expect("a target"));
/// let two = requested("/ws?room=news&room=a%2Fb").expect("two");
/// assert_eq!(two.rooms(), ["news".into(), "a/b".into()]);
/// assert_eq!(requested("/sse/news").expect("one").rooms(), ["news".into()]);
/// assert_eq!(requested("/ws").expect("one").rooms(), ["main".into()]);
/// assert_eq!(requested("/ws?room=sensor/*").expect("a prefix").prefixes(), ["sensor/".into()]);
/// assert!(requested("/ws/news?room=sports").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedRooms {
    rooms: Vec<Arc<str>>,
    /// Without their `*`.
    prefixes: Vec<Arc<str>>,
}

impl RequestedRooms {
    /// Rooms and prefixes that a request may name: 8, as many as a client may be in by default.
    pub const MAX: usize = Config::MAX_ROOMS_PER_CLIENT;

    /// Reads the target of a request. A path that names no room, and no `room` in the query, stands
    /// for `main`. A room that is named twice counts once.
    ///
    /// # Errors
    ///
    /// A sentence for the peer, for a response with the status 400: the path and the query both name
    /// rooms, a name is not allowed, or there are more than [`MAX`](Self::MAX).
    pub fn of(uri: &Uri) -> Result<Self, &'static str> {
        let path = uri.path();
        let (mut rooms, mut prefixes): (Vec<Arc<str>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
        for value in values_of(uri, "room") {
            if !matches!(path, "/ws" | "/sse") && room_of(path).is_some() {
                return Err("room is for /ws and /sse without a room in the path");
            }
            let name = value.filter(|name| is_name(name) && !is_dots(name));
            let name = name.ok_or(
                "room has 1 to 128 bytes of UTF-8 without control characters, and is not . or ..",
            )?;
            let (name, names) = match name.strip_suffix('*') {
                Some(prefix) => (prefix, &mut prefixes),
                None => (&*name, &mut rooms),
            };
            if name.contains('*') {
                return Err(
                    "room has a * only at its end; a path may name a room with a * in its name",
                );
            }
            if !names.iter().any(|other| **other == *name) {
                names.push(name.into());
            }
            if rooms.len() + prefixes.len() > Self::MAX {
                return Err("a client may ask for at most 8 rooms and prefixes");
            }
        }
        if rooms.is_empty() && prefixes.is_empty() {
            rooms.push(room_of(path).map_or_else(|| MAIN.into(), Arc::from));
        }
        let requested = Self { rooms, prefixes };
        let ends = query_of(uri, "poll").is_some_and(|poll| poll != "0");
        if requested.has_labels() && (ends || query_of(uri, "since").is_some()) {
            return Err("since and poll are for a client that asks for one room");
        }
        Ok(requested)
    }

    /// Returns the rooms, each once, in the order of the request.
    #[must_use]
    pub fn rooms(&self) -> &[Arc<str>] {
        &self.rooms
    }

    /// Returns the prefixes, each once and without its `*`, in the order of the request.
    #[must_use]
    pub fn prefixes(&self) -> &[Arc<str>] {
        &self.prefixes
    }

    /// Returns whether the client has to be told of each message for which room it is.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        self.rooms.len() > 1 || !self.prefixes.is_empty()
    }
}

// The sentence says the number.
const _: () = assert!(RequestedRooms::MAX == 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(uri: &str) -> Result<Vec<String>, &'static str> {
        let requested = RequestedRooms::of(&uri.parse().expect("a target"))?;
        let rooms = requested.rooms().iter().map(|room| room.to_string());
        let prefixes = requested.prefixes().iter().map(|prefix| format!("{prefix}*"));
        let all: Vec<_> = rooms.chain(prefixes).collect();
        let is_one = all.len() == 1 && requested.prefixes().is_empty();
        assert_eq!(requested.has_labels(), !is_one);
        Ok(all)
    }
    #[test]
    fn rooms_stand_in_the_path_or_in_the_query() {
        for (uri, rooms) in [
            ("/ws", &["main"][..]),
            ("/anything/else", &["main"]),
            ("/ws/a*?since=0", &["a*"]),
            ("/sse/caf%C3%A9", &["caf\u{e9}"]),
            ("/ws?room=a", &["a"]),
            ("/ws?room=a&room=a&since=0", &["a"]),
            ("/ws?room=sensor/*", &["sensor/*"]),
            ("/ws?room=sensor%2F%2A&room=a&room=sensor/*&room=*", &["a", "sensor/*", "*"]),
            ("/sse?room=a&room=b&poll=0", &["a", "b"]),
            ("/sse?probe=1&room=b&room=a%2F%25&rooms=x", &["b", "a/%"]),
            ("/ws?room=a+b&room=a&room=a%20b", &["a b", "a"]),
            (
                "/ws?room=1&room=2&room=3&room=4&room=5&room=6&room=7&room=8&room=8",
                &["1", "2", "3", "4", "5", "6", "7", "8"],
            ),
        ] {
            assert_eq!(
                requested(uri).as_deref().ok(),
                Some(&rooms.iter().map(|r| r.to_string()).collect::<Vec<_>>()[..]),
                "{uri}"
            );
        }
    }
    #[test]
    fn what_names_no_room_is_refused() {
        for uri in [
            "/ws?room=",
            "/ws?room",
            "/ws?room=a&room=%",
            "/ws?room=%ff",
            "/ws?room=%0a",
            "/ws?room=..",
            "/ws/a?room=b",
            "/ws/a?room=a",
            "/pub?room=a",
            "/ws?room=a&room=b&since=0",
            "/ws?room=a*&since=0",
            "/ws?room=a**",
            "/ws?room=a*b",
            "/ws?room=1&room=2&room=3&room=4&room=5&room=6&room=7&room=8&room=9*",
            "/sse?room=a&room=b&poll=1",
            "/ws?room=1&room=2&room=3&room=4&room=5&room=6&room=7&room=8&room=9",
        ] {
            assert!(requested(uri).is_err(), "{uri}");
        }
        assert!(requested(&format!("/ws?room={}", "a".repeat(128))).is_ok());
        assert!(requested(&format!("/ws?room={}", "a".repeat(129))).is_err());
    }
}
