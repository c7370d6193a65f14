//! Publishing by request: the body, the manager's answer.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::http1::head::{Framing, Head};
use crate::http1::response::{Response, away, draining, unavailable};
use crate::http1::stream::{Failure, HttpStream};
use crate::hub::ack::Ack;
use crate::hub::backplane::Link;
use crate::hub::client_id::Target;
use crate::hub::command::{Carry, Dispatched, Publish, PublishReply};
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
    let body = BodyKind::of(&head);
    // A body may take long. It has no use for the memory of its head meanwhile.
    drop(head);
    let message = read_message(stream, body, exchange).await?;
    let (published, hubs) = dispatch(stream.hub, target, message, None).await?;
    Ok(published_as(published.recipients, hubs, "", published.position))
}

/// What the head of a request says of its body.
pub(crate) struct BodyKind {
    framing: Framing,
    is_binary: bool,
    expects_continue: bool,
}

impl BodyKind {
    pub(crate) fn of(head: &Head) -> Self {
        let (is_binary, expects_continue) =
            (has_binary_type(head.request.headers()), head.expects_continue());
        Self { framing: head.framing, is_binary, expects_continue }
    }
}

/// Reads a body of at most the longest message, and makes a message of it, which counts as received.
pub(crate) async fn read_message<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    body: BodyKind,
    exchange: &mut Exchange<'_>,
) -> Result<Message, Failure> {
    let BodyKind { framing, is_binary, expects_continue } = body;
    let max = stream.hub.shared().config.max_message;
    let len = stream.read_body(framing, max, expects_continue, &mut exchange.slot).await?;
    exchange.has_unread_body = false;
    let body = &stream.buffer[..len];
    let message = message(body, is_binary);
    message.charge(stream.hub.memory());
    stream.consume(len);
    add(&stream.hub.shared().counters.messages_received, 1);
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

/// What became of a message, and how many hubs heard it if there are others.
pub(crate) type Published = (Dispatched, Option<usize>);

/// Hands a message to the manager and waits for its answer. Its recipients acknowledge it to `ack`.
pub(crate) async fn dispatch(
    hub: &Hub,
    target: Target,
    message: Message,
    ack: Option<&Arc<Ack>>,
) -> Result<Published, Response> {
    if let Some(link) = hub.link(&target) {
        return Box::pin(share(hub, link, (target, message), ack)).await;
    }
    let (timers, timeout) = (&hub.shared().timers, hub.shared().config.handshake_timeout);
    let publish = Publish::by_hub(target, message);
    let mut deadline = timers.after(timeout);
    let posted = match ack {
        None => deadline.within(hub.publish_queued(publish)).await,
        // Boxed, since it is rare.
        Some(ack) => deadline.within(Box::pin(hub.publish_acking(publish, ack))).await,
    };
    let answer = match posted {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => return Err(draining()),
        None => return Err(unavailable("the request was not done in time")),
    };
    // What the inbox has is dispatched, and soon, since the manager waits for no peer. To say that
    // it was not would have it sent twice.
    let answer = timers.after(2 * timeout).within(answer).await;
    Ok((answer.flatten().ok_or_else(outcome_unknown)?, None))
}

/// How long a request to publish waits while the other hubs cannot be reached.
const AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Hands a message to the driver of the backplane, and waits for the answers of the server and of
/// the manager.
async fn share(
    hub: &Hub,
    link: &Link,
    (target, message): (Target, Message),
    ack: Option<&Arc<Ack>>,
) -> Result<Published, Response> {
    let shared = hub.shared();
    let publish = hub.check(Publish::by_hub(target, message)).map_err(|_| draining())?;
    let ((reply, recipients), (heard, mut hubs)) = (reply(), reply());
    let publish_reply = PublishReply::new(reply, ack.cloned());
    let carry = Carry { publish, reply: Some(publish_reply), hubs: Some(heard) };
    let mut deadline = shared.timers.after(AWAY_TIMEOUT);
    match deadline.within(link.send(carry)).await {
        Some(Ok(())) => {}
        Some(Err(())) => return Err(draining()),
        None => return Err(away()),
    }
    let heard = match deadline.within(&mut hubs).await {
        None if hubs.withdraw() => return Err(away()),
        // It is on its way to the server, and may not be taken back.
        None => shared.timers.after(2 * shared.config.handshake_timeout).within(hubs).await,
        heard => heard,
    };
    match heard.flatten() {
        Some(Ok(hubs)) => Ok((recipients.await.ok_or_else(outcome_unknown)?, Some(hubs))),
        Some(Err(_)) => Err(away()),
        None => Err(outcome_unknown()),
    }
}

/// The answer to a message that may or may not have been dispatched. It says nothing of trying
/// again, which could send it twice.
pub(crate) fn outcome_unknown() -> Response {
    let sentence = "the hub cannot say whether the message was sent";
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
}

/// The answer to a message that was dispatched, with more `fields` of JSON.
pub(crate) fn published_as(
    recipients: usize,
    hubs: Option<usize>,
    fields: &str,
    position: Option<u64>,
) -> Response {
    let hubs = hubs.map_or(String::new(), |hubs| format!(",\"hubs\":{hubs}"));
    let position = position.map_or(String::new(), |position| format!(",\"position\":{position}"));
    let body = format!("{{\"recipients\":{recipients}{hubs}{fields}{position}}}");
    Response::with_type(StatusCode::ACCEPTED, "application/json", body.into())
}
