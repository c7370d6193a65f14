//! Reading a room by request: its last value, or the next message after a position, for which the
//! request may wait.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::poll_once;
use http::{HeaderMap, Request, StatusCode, header};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::connection::registration::{client_permit, registration_timeout};
use crate::http1::head::Head;
use crate::http1::response::{Response, away, draining, internal_error, refused_by_hook};
use crate::http1::stream::{Failure, HttpStream};
use crate::http1::time::time;
use crate::http1::url::query_of;
use crate::hub::ack::WAIT_MAX;
use crate::hub::handle::Hub;
use crate::hub::since::{History, InvalidSince, Missed, Since};
use crate::net::stream::Transport;
use crate::serve::exchange::Exchange;
use crate::time::clock::unix_seconds;

/// What a request to read a room says of itself.
struct ReadQuery {
    /// Where it begins; by default with the last value.
    since: Since,
    /// How long it waits for a message.
    wait: Duration,
    /// What the peer has already: `If-None-Match`.
    has: Vec<String>,
}

impl ReadQuery {
    /// Reads `since`, `wait` and `If-None-Match`.
    ///
    /// # Errors
    ///
    /// 400 for a value of the query that says nothing, and a wait that is too long.
    fn of(request: &Request<()>) -> Result<Self, Response> {
        let since = query_of(request.uri(), "since").map_or(Ok(Since::Newest(1)), |since| {
            since.parse().map_err(|_| Response::bad_request(InvalidSince::SENTENCE))
        })?;
        let wait = wait_of(request)?.unwrap_or_default();
        Ok(Self { since, wait, has: tags(request.headers()) })
    }
}

/// How long a request waits at most, if it says so.
///
/// # Errors
///
/// 400 for what is no time, and a time that is too long.
pub(crate) fn wait_of(request: &Request<()>) -> Result<Option<Duration>, Response> {
    let Some(wait) = query_of(request.uri(), "wait") else { return Ok(None) };
    let sentence = "wait must be a time of at most 60s, like 25s or 500ms";
    let wait = time(&wait).filter(|wait| *wait <= WAIT_MAX);
    wait.map(Some).ok_or_else(|| Response::bad_request(sentence))
}

/// The tags of `If-None-Match` (RFC 9110 13.1.2), compared as the weak comparison does.
fn tags(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.map(|tag| tag.trim().trim_start_matches("W/").to_owned()).collect()
}

/// Answers a request for what a room keeps, or for its next message, once the hook that admits
/// clients has admitted it.
pub(crate) async fn answer<T: Transport, H: Handler>(
    stream: &mut HttpStream<'_, T>,
    handler: &H,
    head: Head,
    room: String,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Failure> {
    let hub = stream.hub;
    let ReadQuery { mut since, wait, has } = ReadQuery::of(&head.request)?;
    let peer = exchange.client_address;
    let begun = async {
        let reason = |status| handler.on_refusal(&head.request, status);
        let hook = handler.on_upgrade(&head.request, &peer);
        let admission = run_request_hook(hook, reason).await?;
        since = admission.since.unwrap_or(since);
        let room = room_of(&admission, &room)?;
        let kept = hub.next_of(&room, since).await.map_err(|_| unanswered(hub))?;
        Ok::<_, Response>((room, admission.until, kept))
    };
    let begun = exchange.slot.within(begun).await;
    let (room, until, mut kept) = begun.ok_or_else(|| registration_timeout(hub))??;
    // A request that waits has no use for the memory of its head.
    drop(head);
    if !wait.is_zero() && kept.as_ref().is_none_or(|kept| !says_something(kept)) {
        // A client's permit, as for any connection that stays. It is given back before the answer is
        // written, which takes as long as the peer likes.
        let permit = client_permit(hub, peer.network())?;
        exchange.slot.release();
        // From here on every message is one that it waits for.
        let since = match (&kept, since) {
            (Some(kept), _) => Since::Position(kept.newest),
            (None, Since::Position(_)) => since,
            (None, _) => Since::Oldest,
        };
        kept = match Box::pin(wait_for(stream, &room, since, wait, until)).await? {
            Ended::Heard(kept) => kept,
            Ended::TokenOver => {
                let reason = Some("token expired".into());
                return Ok(refused_by_hook(StatusCode::UNAUTHORIZED, reason));
            }
        };
        drop(permit);
    }
    let response = response(kept, &has);
    Ok(if exchange.allow_origin.is_some() {
        response.header("Access-Control-Expose-Headers", "Hublet-Position, Hublet-Missed, ETag")
    } else {
        response
    })
}

/// The answer if the manager has none: the hub ends, or has lost the server that it shares.
fn unanswered(hub: &Hub) -> Response {
    if hub.is_away() { away() } else { draining() }
}

/// The room that a request may read: the one that the hook has chosen, as for a client. Of several it
/// is the one that the path names.
fn room_of(admission: &Admission, path: &str) -> Result<Arc<str>, Response> {
    match &admission.rooms[..] {
        [room] => Ok(Arc::clone(room)),
        rooms => rooms.iter().find(|room| ***room == *path).cloned().ok_or_else(|| {
            internal_error("on_upgrade chose several rooms, and not the one that is to be read")
        }),
    }
}

/// Whether there is a message, or a gap to tell of.
fn says_something(kept: &History) -> bool {
    !kept.messages.is_empty() || kept.missed != Missed::Nothing
}

/// How a wait for a message ends.
enum Ended {
    /// With a message, or without: time is over, or the hub drains. `None` if there is no such room.
    Heard(Option<History>),
    TokenOver,
}

/// Waits for a message, without a permit. `Err` if the peer has left, or the hub has ended.
async fn wait_for<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    room: &Arc<str>,
    since: Since,
    wait: Duration,
    until: Option<u64>,
) -> Result<Ended, Failure> {
    let hub = stream.hub;
    let shared = hub.shared();
    let left = until.map(|end| Duration::from_secs(end.saturating_sub(unix_seconds())));
    let (wait, token_ends) = match left {
        Some(left) if left < wait => (left, true),
        _ => (wait, false),
    };
    let mut over = shared.timers.after(wait);
    let mut drain = pin!(hub.long_requests_end());
    // Told to the manager, so that it does not keep those that have given up.
    let mut waiting = Waiting(Some((hub, room)));
    let mut answer = hub.next_kept(Arc::clone(room), since);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(answer) = Pin::new(&mut answer).poll(cx) {
            waiting.0 = None;
            let heard = answer.map(|kept| Some(Ended::Heard(Some(kept))));
            return Poll::Ready(heard.map_err(|_| unanswered(hub).into()));
        }
        if let Poll::Ready(left) = stream.poll_left(cx) {
            return Poll::Ready(Err(left));
        }
        if drain.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(None));
        }
        Pin::new(&mut over).poll(cx).map(|()| Ok(token_ends.then_some(Ended::TokenOver)))
    });
    let ended: Result<_, Failure> = ended.await;
    if let Some(ended) = ended? {
        return Ok(ended);
    }
    let kept = hub.next_of(room, since).await.map_err(|_| unanswered(hub))?;
    // The manager answered this before, if a message came meanwhile.
    let heard = poll_once(&mut answer).await.and_then(Result::ok);
    if heard.is_some() {
        waiting.0 = None;
    }
    Ok(Ended::Heard(heard.or(kept)))
}

/// A reader that waits. Dropped before it has heard anything, it has given up.
struct Waiting<'a>(Option<(&'a Hub, &'a Arc<str>)>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((hub, room)) = self.0 {
            hub.give_up(Arc::clone(room));
        }
    }
}

/// The answer with what a room keeps, or 304 if the peer `has` it. Without a message it is 204; a gap
/// before nothing is told all the same, and the position is where the reader goes on.
fn response(kept: Option<History>, has: &[String]) -> Response {
    let Some(kept) = kept else { return with_rules(Response::new(StatusCode::NO_CONTENT, "")) };
    let missed = kept.missed;
    let (response, position) = match kept.messages.into_iter().next() {
        Some(message) => {
            let position = kept.position + 1;
            let tag = format!("\"{position}\"");
            let response = if has.iter().any(|had| *had == "*" || *had == tag) {
                Response::new(StatusCode::NOT_MODIFIED, "")
            } else {
                Response::of_message(message)
            };
            (response.header("ETag", tag), position)
        }
        None => (Response::new(StatusCode::NO_CONTENT, ""), kept.newest),
    };
    let response = response.header("Hublet-Position", position.to_string());
    with_rules(match missed {
        Missed::Nothing => response,
        missed => response.header("Hublet-Missed", missed.to_string()),
    })
}

/// Adds what a browser and a cache must know of what a client has published.
fn with_rules(response: Response) -> Response {
    response
        .header("Cache-Control", "private, no-cache")
        .header("Vary", "Origin, Authorization")
        .header("X-Content-Type-Options", "nosniff")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_query(uri: &str, has: &[&str]) -> Result<ReadQuery, u16> {
        let mut request = Request::get(uri);
        for has in has {
            request = request.header("If-None-Match", *has);
        }
        let request = request.body(()).expect("well-formed");
        ReadQuery::of(&request).map_err(|response| response.status.as_u16())
    }
    #[test]
    fn a_request_says_from_where_and_how_long() {
        for (query, since, wait) in [
            ("", Since::Newest(1), 0),
            ("?since=0", Since::Oldest, 0),
            ("?since=now&wait=25s", Since::Now, 25_000),
            ("?since=17&wait=500ms", Since::Position(17), 500),
            ("?wait=1m", Since::Newest(1), 60_000),
            ("?wait=0s", Since::Newest(1), 0),
        ] {
            let read = read_query(&format!("/pub/news{query}"), &[]).expect(query);
            assert_eq!((read.since, read.wait.as_millis()), (since, wait), "{query}");
        }
        for query in [
            "since=",
            "since=x",
            "wait=",
            "wait=25",
            "wait=61s",
            "wait=60001ms",
            "wait=2m",
            "wait=-1s",
            "wait=%2B1s",
            "wait=s",
            "wait=1h",
            "wait=99999999999999999999s",
            "wait=18446744073709551615m",
        ] {
            assert_eq!(read_query(&format!("/pub/news?{query}"), &[]).err(), Some(400), "{query}");
        }
    }
    fn kept(missed: Missed, messages: &[&str]) -> History {
        let messages = messages.iter().map(|text| (*text).into()).collect();
        History { newest: 9, oldest: None, position: 6, missed, messages }
    }
    fn head(kept: Option<History>, has: &[&str]) -> String {
        let has = read_query("/pub", has).expect("it reads").has;
        let bytes = response(kept, &has).encode(false, Some(WAIT_MAX));
        let text = String::from_utf8(bytes).expect("text");
        let is_its_own =
            |line: &&str| !line.starts_with("Date: ") && !line.starts_with("Keep-Alive: ");
        text.lines().filter(is_its_own).collect::<Vec<_>>().join("|")
    }
    const RULES: &str = "Cache-Control: private, no-cache|Vary: Origin, Authorization|\
        X-Content-Type-Options: nosniff|";
    #[test]
    fn the_answer_is_the_message_its_position_and_what_was_missed() {
        let found = kept(Missed::Nothing, &["hello"]);
        let whole = format!(
            "HTTP/1.1 200 OK|Content-Type: text/plain; charset=utf-8|Content-Length: 5|\
             ETag: \"7\"|Hublet-Position: 7|{RULES}|hello"
        );
        for other in [&[][..], &["\"6\"", "7"], &["\"77\", \"17\""], &["*x"]] {
            assert_eq!(head(Some(found.clone()), other), whole, "{other:?}");
        }
        let same = format!("HTTP/1.1 304 Not Modified|ETag: \"7\"|Hublet-Position: 7|{RULES}");
        for had in [&["\"7\""][..], &["W/\"7\""], &["\"1\" ,\"7\""], &["\"1\"", "\"7\""], &["*"]] {
            assert_eq!(head(Some(found.clone()), had), same, "{had:?}");
        }
        let gap = head(Some(kept(Missed::Messages(3), &["hello"])), &[]);
        assert!(gap.contains("|Hublet-Position: 7|Hublet-Missed: 3|"), "{gap}");
        let empty = head(Some(kept(Missed::Nothing, &[""])), &[]);
        assert!(empty.contains("200 OK") && empty.contains("|Content-Length: 0|"), "{empty}");
        assert!(empty.ends_with("nosniff|"), "{empty}");
    }
    #[test]
    fn without_a_message_there_is_no_body_and_a_gap_is_named() {
        let nothing = head(Some(kept(Missed::Nothing, &[])), &["*"]);
        assert_eq!(nothing, format!("HTTP/1.1 204 No Content|Hublet-Position: 9|{RULES}"));
        let gap = head(Some(kept(Missed::Unknown, &[])), &[]);
        let start = "HTTP/1.1 204 No Content|Hublet-Position: 9|Hublet-Missed: unknown|";
        assert_eq!(gap, format!("{start}{RULES}"));
        assert_eq!(head(None, &[]), format!("HTTP/1.1 204 No Content|{RULES}"));
    }
}
