//! What a request for events asks for: where they begin, and how they are written.

use std::borrow::Cow;

use http::{Request, Uri, Version};

use crate::config::Config;
use crate::http1::response::Response;
use crate::http1::url::query_of;
use crate::hub::since::{InvalidSince, Since};
use crate::sse::encoder::Encoder;

/// What shows that a stream lives, at its begin and at the ping interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// A comment without the blank line that ends an event. At a blank line, parsers such as
    /// httpx-sse and sseclient hand on an event without data.
    #[default]
    Comment,
    /// An event, for a page that watches its stream: an `EventSource` hides comments.
    Event,
}

impl Heartbeat {
    /// The one that a request asks for: `?probe=1` is for events.
    fn of(uri: &Uri) -> Self {
        if query_of(uri, "probe").as_deref() == Some("1") { Self::Event } else { Self::Comment }
    }

    /// Its bytes. An event says the interval in seconds, rounded up.
    fn text(self, config: &Config) -> Cow<'static, str> {
        match self {
            Self::Comment => ":\n".into(),
            Self::Event => {
                let seconds = (config.ping_interval.as_millis() as u64).div_ceil(1000);
                format!("event: ping\ndata: {seconds}\n\n").into()
            }
        }
    }
}

/// How a stream of events is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventFormat {
    /// What shows that the stream lives.
    pub(super) heartbeat: Heartbeat,
    /// The body is chunked. HTTP/1.0 knows no chunks, and ends a body with the connection.
    pub(super) is_chunked: bool,
}

impl EventFormat {
    /// Bits of the number that stands for a format.
    const EVENTS: u8 = 1;
    const CHUNKED: u8 = 2;

    /// The one for a request.
    pub(crate) fn of(request: &Request<()>) -> Self {
        let is_chunked = request.version() == Version::HTTP_11;
        Self { heartbeat: Heartbeat::of(request.uri()), is_chunked }
    }

    /// An encoder for such a stream, which begins with `first`.
    pub(crate) fn encoder(self, first: Vec<u8>) -> Encoder {
        Encoder::new(first, self.is_chunked)
    }

    /// What shows that the stream lives.
    pub(crate) fn heartbeat(self, config: &Config) -> Cow<'static, str> {
        self.heartbeat.text(config)
    }

    /// The number that stands for it in the state of a hub.
    pub(super) fn number(self) -> u8 {
        let heartbeat = if self.heartbeat == Heartbeat::Event { Self::EVENTS } else { 0 };
        heartbeat | if self.is_chunked { Self::CHUNKED } else { 0 }
    }

    /// The format that a number stands for, if one does.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        let heartbeat =
            if number & Self::EVENTS == 0 { Heartbeat::Comment } else { Heartbeat::Event };
        let format = Self { heartbeat, is_chunked: number & Self::CHUNKED != 0 };
        (format.number() == number).then_some(format)
    }
}

/// What a request for events says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventsQuery {
    /// How the stream is written.
    pub(crate) format: EventFormat,
    /// Where it begins, if it says so.
    pub(crate) since: Option<Since>,
    /// Whether it ends once it has what is kept.
    pub(crate) ends: bool,
}

impl EventsQuery {
    /// Reads `probe`, `poll`, `since` and `Last-Event-ID`. An `EventSource` that comes back asks with
    /// the URL that it had before, so its header wins; it never comes back after a 400, so a header
    /// that cannot be read is a gap.
    ///
    /// # Errors
    ///
    /// 400 for a `since` of the query that says nothing, and a `poll` other than 0 and 1.
    pub(crate) fn of(request: &Request<()>) -> Result<Self, Response> {
        let uri = request.uri();
        let ends = match query_of(uri, "poll").as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(Response::bad_request("poll must be 0 or 1")),
        };
        let last = request.headers().get("last-event-id").map(|last| {
            last.to_str()
                .ok()
                .and_then(|last| last.trim().parse().ok())
                .unwrap_or(Since::UNREADABLE)
        });
        let since = match (last, query_of(uri, "since")) {
            (Some(last), _) => Some(last),
            (None, Some(since)) => {
                let since = since.parse();
                Some(since.map_err(|_| Response::bad_request(InvalidSince::SENTENCE))?)
            }
            (None, None) => ends.then_some(Since::Oldest),
        };
        Ok(Self { format: EventFormat::of(request), since, ends })
    }
}
