//! Publishing by request: the body, the manager's answer.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::http1::head::Head;
use crate::http1::response::{Response, away, draining, unavailable};
use crate::http1::stream::{Failure, HttpStream};
use crate::hub::backplane::Link;
use crate::hub::client_id::Target;
use crate::hub::command::{Carry, Dispatched, Publish};
use crate::hub::handle::Hub;
use crate::hub::reply::reply;
use crate::message::Message;
use crate::net::stream::Transport;
use crate::serve::exchange::Exchange;
use crate::stats::add;

/// Publishes the body of a request, once the hook has allowed it.
pub(crate) async fn publish<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    head: Head,
    target: Target,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Failure> {
    let message = read_message(stream, head, exchange).await?;
    add(&stream.hub.shared().counters.messages_received, 1);
    Ok(dispatch(stream.hub, target, message).await)
}

/// Reads a body of at most the longest message, and makes a message of it.
async fn read_message<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    head: Head,
    exchange: &mut Exchange<'_>,
) -> Result<Message, Failure> {
    let (framing, max) = (head.framing, stream.hub.shared().config.max_message);
    let (is_binary, expects_continue) =
        (has_binary_type(head.request.headers()), head.expects_continue());
    // A body may take long. It has no use for the memory of its head meanwhile.
    drop(head);
    let len = stream.read_body(framing, max, expects_continue, &mut exchange.slot).await?;
    exchange.has_unread_body = false;
    let body = &stream.buffer[..len];
    let message = message(body, is_binary);
    message.charge(stream.hub.memory());
    stream.consume(len);
    Ok(message)
}

/// The message of a body or of a line: a text where it may be one.
pub(crate) fn message(bytes: &[u8], is_binary: bool) -> Message {
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_binary => Message::text(text),
        _ => Message::binary(bytes),
    }
}

/// Whether a message is binary although it may be UTF-8.
pub(crate) fn has_binary_type(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().trim_ascii_start().to_ascii_lowercase();
    let binary = ["application/octet-stream", "image/", "audio/", "video/"];
    binary.iter().any(|binary| kind.starts_with(binary))
}

/// Hands a message to the manager and waits for its answer.
async fn dispatch(hub: &Hub, target: Target, message: Message) -> Response {
    if let Some(link) = hub.link(&target) {
        return Box::pin(share(hub, link, target, message)).await;
    }
    let (timers, timeout) = (&hub.shared().timers, hub.shared().config.handshake_timeout);
    let posted = hub.publish_queued(Publish::by_hub(target, message));
    let answer = match timers.after(timeout).within(posted).await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => return draining(),
        None => return unavailable("the request was not done in time"),
    };
    // What the inbox has is dispatched, and soon, since the manager waits for no peer. To say that
    // it was not would have it sent twice.
    let answer = timers.after(2 * timeout).within(answer).await;
    answer.flatten().map_or_else(outcome_unknown, |recipients| published(recipients, None))
}

/// How long a request to publish waits while the other hubs cannot be reached.
const AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Hands a message to the driver of the backplane, and waits for the answers of the server and of
/// the manager.
async fn share(hub: &Hub, link: &Link, target: Target, message: Message) -> Response {
    let shared = hub.shared();
    let Ok(publish) = hub.check(Publish::by_hub(target, message)) else { return draining() };
    let ((reply, recipients), (heard, mut hubs)) = (reply(), reply());
    let carry = Carry { publish, reply: Some(reply), hubs: Some(heard) };
    let mut deadline = shared.timers.after(AWAY_TIMEOUT);
    match deadline.within(link.send(carry)).await {
        Some(Ok(())) => {}
        Some(Err(())) => return draining(),
        None => return away(),
    }
    let heard = match deadline.within(&mut hubs).await {
        None if hubs.withdraw() => return away(),
        // It is on its way to the server, and may not be taken back.
        None => shared.timers.after(2 * shared.config.handshake_timeout).within(hubs).await,
        heard => heard,
    };
    match heard.flatten() {
        Some(Ok(hubs)) => {
            recipients.await.map_or_else(outcome_unknown, |n| published(n, Some(hubs)))
        }
        Some(Err(_)) => away(),
        None => outcome_unknown(),
    }
}

/// The answer to a message that may or may not have been dispatched. It says nothing of trying
/// again, which could send it twice.
pub(crate) fn outcome_unknown() -> Response {
    let sentence = "the hub cannot say whether the message was sent";
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
}

/// The answer to a message that was dispatched.
fn published(published: Dispatched, hubs: Option<usize>) -> Response {
    let recipients = published.recipients;
    let hubs = hubs.map_or(String::new(), |hubs| format!(",\"hubs\":{hubs}"));
    let position =
        published.position.map_or(String::new(), |position| format!(",\"position\":{position}"));
    let body = format!("{{\"recipients\":{recipients}{hubs}{position}}}");
    Response::with_type(StatusCode::ACCEPTED, "application/json", body.into())
}
