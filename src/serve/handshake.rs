//! The handshake: a request that asks for a client in, a registered client out.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base64ct::{Base64, Encoding as _};
use futures_lite::FutureExt as _;
use http::{Request, StatusCode, header};
use sha1::{Digest as _, Sha1};

use super::Admission;
use super::http::{Response, tokens};
use crate::error::Kind;
use crate::hub::{Asked, Command, Crowded, Permit, Queue, Refusal, is_name};
use crate::time::unix_seconds;
use crate::{Client, ClientId, Disconnect, Error, Hub};

/// What clients are told to wait when there is no place for them, in seconds.
const RETRY_AFTER: &str = "5";

/// A client in the registry, and what must happen when its connection is gone.
///
/// Dropping it, in a panic as well, marks the queue as gone and tells the manager.
#[derive(Debug)]
pub(crate) struct Registered {
    hub: Hub,
    pub(crate) queue: Arc<Queue>,
    /// The client's place, given back when the connection is gone.
    _permit: Permit,
}

impl Registered {
    /// Marks the queue as gone and waits until the registry has let the client go, so that who
    /// counts clients next does not count this one. The client's place is given back with the rest.
    pub(crate) async fn leave(&self) {
        let Some(id) = self.queue.kill() else { return };
        // The queue gives its id out once: dropped while it waits, this must still say so.
        let mut unheard = Unheard { hub: &self.hub, id: Some(id) };
        let reason = Disconnect::ABNORMAL;
        let command = |reply| Command::Disconnect { id, reason, reply: Some(reply) };
        // An error means that the manager has ended, and its registry with it.
        drop(self.hub.ask(command).await);
        unheard.id = None;
    }
}

/// A departure that the manager may not have heard of.
struct Unheard<'a> {
    hub: &'a Hub,
    /// The client, until the manager has answered.
    id: Option<ClientId>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.hub.depart(id);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(id) = self.queue.kill() {
            self.hub.depart(id);
        }
    }
}

/// A client that was admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) registered: Registered,
    pub(crate) client: Client,
}

/// Registers the client of a stream that was upgraded elsewhere.
pub(crate) async fn admit(hub: &Hub, admission: Admission) -> Result<Admitted, Error> {
    let refused =
        |response: Response| Error::new(Kind::Refused(response.status, response.into_body()));
    register(hub, None, admission).map_err(refused)?.await.map_err(refused)
}

/// Asks a hook that may refuse the request.
pub(crate) async fn ask<T>(
    hook: impl Future<Output = Result<T, StatusCode>>,
) -> Result<T, Response> {
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(Err(status)) if !status.is_client_error() && !status.is_server_error() => {
            Err(our_fault("a hook refused with a status that refuses nothing"))
        }
        Ok(answer) => answer.map_err(refused_by_hook),
        Err(_) => Err(our_fault("a hook panicked")),
    }
}

/// The response that makes a request with this answer to its key a WebSocket (RFC 6455 4.2.2).
pub(crate) fn switching(key: &AcceptKey, protocol: Option<&str>) -> Vec<u8> {
    const BEGIN: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: ";
    let name = if protocol.is_some() { "\r\nSec-WebSocket-Protocol: " } else { "" };
    let protocol = protocol.unwrap_or_default();
    [BEGIN, key, name.as_bytes(), protocol.as_bytes(), b"\r\n\r\n"].concat()
}

/// What proves to a client that its request was understood: the base64 of a hash.
pub(crate) type AcceptKey = [u8; 28];

/// The answer to a request's key (RFC 6455 4.2.2, step 5).
pub(crate) fn accept_key(request: &Request<()>) -> AcceptKey {
    /// What is hashed behind the key (RFC 6455 1.3).
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let mut hash = Sha1::new_with_prefix(key.map_or(&[][..], |key| key.as_bytes()));
    hash.update(GUID);
    let mut answer = [0; 28];
    Base64::encode(&hash.finalize(), &mut answer).expect("28 digits say 20 bytes");
    answer
}

/// Refuses to answer a subprotocol that the request did not offer.
pub(crate) fn check_protocol(
    request: &Request<()>,
    protocol: Option<&str>,
) -> Result<(), Response> {
    let Some(protocol) = protocol else { return Ok(()) };
    if tokens(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == protocol) {
        return Ok(());
    }
    Err(our_fault("a subprotocol was chosen that was not offered"))
}

/// Takes a permit and asks the manager to put the client into the registry.
pub(crate) fn register(
    hub: &Hub,
    network: Option<u128>,
    admission: Admission,
) -> Result<Registering<'_>, Response> {
    let Admission { user, rooms, protocol: _, extension } = admission;
    if !rooms.iter().chain(&user).all(|name| is_name(name)) {
        return Err(our_fault("on_upgrade chose a room or user with a name that is not allowed"));
    }
    if hub.memory().is_high() {
        return Err(short_of_memory());
    }
    let permit = hub.shared().gate.client(network).map_err(|crowded| {
        full(match crowded {
            Crowded::Clients => "too many clients are connected",
            Crowded::PerIp => "too many clients are connected from this address",
        })
    })?;
    let queue = Queue::new(&hub.shared().terms);
    // From here on, however this ends, the registry is told.
    let registered = Registered { hub: hub.clone(), queue: Arc::clone(&queue), _permit: permit };
    let name = user.clone();
    let since = unix_seconds() as u32;
    let id = hub.ask(move |reply| Command::Register { queue, user, rooms, since, reply });
    Ok(Registering { registered: Some(registered), user: name, extension, id })
}

/// A client on its way into the registry. Dropped early, it is not there.
pub(crate) struct Registering<'a> {
    /// Taken by the last poll.
    registered: Option<Registered>,
    user: Option<Arc<str>>,
    extension: Option<Arc<dyn Any + Send + Sync>>,
    id: Asked<'a, Result<ClientId, Refusal>>,
}

impl Future for Registering<'_> {
    type Output = Result<Admitted, Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let id = ready!(Pin::new(&mut self.id).poll(cx));
        Poll::Ready(match (id, self.registered.take()) {
            (Ok(Ok(id)), Some(registered)) => {
                let (user, extension) = (self.user.take(), self.extension.take());
                let client = Client::new(registered.hub.clone(), id, user, extension);
                Ok(Admitted { registered, client })
            }
            (Ok(Err(Refusal::Rooms)), _) => Err(full("too many rooms exist")),
            (Ok(Err(Refusal::RoomsPerClient)), _) => {
                Err(our_fault("on_upgrade chose more rooms than a client may be in"))
            }
            _ => Err(draining()),
        })
    }
}

/// The hub takes nobody in any more.
pub(crate) fn draining() -> Response {
    full("the hub is shutting down")
}

/// There is no place for the client now.
pub(crate) fn full(sentence: &'static str) -> Response {
    Response::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header("Retry-After", RETRY_AFTER)
}

/// Nothing that needs memory can begin.
pub(crate) fn short_of_memory() -> Response {
    full("the hub is short of memory")
}

/// A hook failed or chose what cannot be.
fn our_fault(cause: &'static str) -> Response {
    log::error!("a request is answered with 500: {cause}");
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, "this server failed to answer the request")
}

/// The response to a request that a hook refused.
fn refused_by_hook(status: StatusCode) -> Response {
    let sentence = match status {
        StatusCode::UNAUTHORIZED => "a valid token is required".to_owned(),
        StatusCode::FORBIDDEN => "this request is not allowed".to_owned(),
        _ => {
            let reason = status.canonical_reason().unwrap_or("no reason given");
            format!("the request was refused: {}", reason.to_ascii_lowercase())
        }
    };
    let response = Response::new(status, sentence);
    match status {
        StatusCode::UNAUTHORIZED => response.header("WWW-Authenticate", "Bearer"),
        StatusCode::SERVICE_UNAVAILABLE => response.header("Retry-After", RETRY_AFTER),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::Config;

    /// What is no error would be read as something else: as a 101, or as a response without a body.
    #[test]
    fn hook_refuses_with_an_error_or_has_failed() {
        for (status, answered) in [(400, 400), (404, 404), (418, 418), (503, 503), (599, 599)]
            .into_iter()
            .chain([100, 101, 200, 204, 304, 399, 600, 999].map(|status| (status, 500)))
        {
            let status = StatusCode::from_u16(status).expect("three digits");
            let asked = block_on(ask(async { Err::<(), _>(status) }));
            assert_eq!(asked.expect_err("refused").status.as_u16(), answered, "{status}");
        }
    }

    /// Invariant 6: a connection that is dropped while it waits for a place in the inbox to say
    /// goodbye is still let go.
    #[test]
    fn departure_that_is_cancelled_is_heard_all_the_same() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default().inbox(1)).expect("valid");
        let _manager = executor.spawn(manager);
        let registering = register(&hub, None, Admission::anonymous()).expect("a place");
        let Admitted { registered, client: _client } =
            block_on(executor.run(registering)).expect("a place");
        assert_eq!(hub.stats().clients, 1);
        hub.try_publish("nobody is here", "x").expect("there is room");
        let mut leave = Box::pin(registered.leave());
        assert!(block_on(poll_once(&mut leave)).is_none(), "the inbox is full");
        drop(leave);
        while executor.try_tick() {}
        assert_eq!(hub.stats().clients, 0);
    }
}
