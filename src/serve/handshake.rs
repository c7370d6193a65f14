//! The handshake: a request head in, a registered client out, all of it under one deadline.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use futures_lite::FutureExt as _;
use futures_lite::future::or;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use http::{Method, StatusCode, header};

use super::http::{HEAD_BYTES_MAX, Head, Response, parse, tokens};
use super::routes::{Route, route};
use super::time::{Timer, now};
use super::transport::Transport;
use super::{Admission, Handler, Peer};
use crate::error::Kind;
use crate::hub::{Command, Crowded, Permit, Queue, Refusal, add, is_name};
use crate::{Client, ClientId, Disconnect, Error, Hub};

/// How long a peer may stay silent while others wait for its place among the handshakes.
const SILENCE: Duration = Duration::from_secs(1);

/// Bytes that one read of a head takes at most.
const HEAD_READ: usize = 1024;

/// What clients are told to wait when there is no place for them, in seconds.
const RETRY_AFTER: &str = "5";

/// A client in the registry, and what must happen when its connection is gone.
///
/// Dropping it, in a panic as well, marks the queue as gone and tells the manager.
#[derive(Debug)]
pub(crate) struct Registered {
    hub: Hub,
    pub(crate) queue: Arc<Queue>,
    /// The client's place; `None` only for a stream that came upgraded to a hub that is full.
    _permit: Permit,
}

impl Registered {
    /// Marks the queue as gone and waits until the registry has let the client go, so that who
    /// counts clients next does not count this one.
    pub(crate) async fn leave(self) {
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

/// What a handshake leads to.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) registered: Registered,
    pub(crate) client: Client,
    /// Bytes that came behind the request head.
    pub(crate) early: Vec<u8>,
}

/// Reads a request and answers it: with a 101 once the manager has inserted the client, or with
/// the response that refuses it.
///
/// The whole of it, however the bytes trickle, is under one deadline.
pub(crate) async fn handshake<T: Transport, H: Handler>(
    hub: &Hub,
    transport: &mut T,
    peer: &Peer,
    handler: &H,
) -> Result<Upgraded, Error> {
    let deadline = now() + hub.shared().config.handshake_timeout;
    let mut head_only = false;
    let upgraded = or(
        async {
            let Some((head, early)) = read_head(hub, transport).await? else {
                return Err(Ended::Silently);
            };
            head_only = head.request.method() == Method::HEAD;
            answer(hub, transport, peer, handler, head, early).await
        },
        async {
            Timer::at(deadline).await;
            Err(Ended::With(Response::new(
                StatusCode::REQUEST_TIMEOUT,
                "the handshake took too long",
            )))
        },
    )
    .await;
    let response = match upgraded {
        Ok(upgraded) => {
            add(&hub.shared().counters.upgrades_accepted, 1);
            return Ok(upgraded);
        }
        Err(Ended::With(response)) => response,
        Err(Ended::Silently) => {
            add(&hub.shared().counters.upgrades_refused, 1);
            return Err(Error::new(Kind::Io(std::io::ErrorKind::UnexpectedEof.into())));
        }
        Err(Ended::Io(error)) => {
            add(&hub.shared().counters.upgrades_refused, 1);
            return Err(error.into());
        }
    };
    if !response.status.is_success() {
        add(&hub.shared().counters.upgrades_refused, 1);
        log::debug!("{peer} refused: {} {}", response.status.as_u16(), response.sentence);
    }
    say_goodbye(hub, transport, &response.encode(head_only)).await;
    Err(Error::new(Kind::Refused(response.status, response.sentence)))
}

/// Registers the client of a stream that was upgraded elsewhere.
pub(crate) async fn admit(hub: &Hub, admission: Admission) -> Result<Upgraded, Error> {
    let refused = |response: Response| Kind::Refused(response.status, response.sentence);
    let (registered, client) =
        register(hub, None, admission).await.map_err(|response| Error::new(refused(response)))?;
    Ok(Upgraded { registered, client, early: Vec::new() })
}

/// Why a handshake led to no client.
#[derive(Debug)]
enum Ended {
    /// It is answered with this.
    With(Response),
    /// The peer never spoke, or left before it had finished.
    Silently,
    /// The stream failed.
    Io(std::io::Error),
}

impl From<Response> for Ended {
    fn from(response: Response) -> Self {
        Self::With(response)
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a head and what came behind it; `None` if the peer left before the end of one, or gave
/// its place up to others by saying nothing.
async fn read_head<T: Transport>(
    hub: &Hub,
    transport: &mut T,
) -> Result<Option<(Head, Vec<u8>)>, Ended> {
    let mut buffer = Vec::new();
    let mut searched = 0;
    loop {
        let filled = buffer.len();
        buffer.resize(filled + HEAD_READ.min(HEAD_BYTES_MAX + 1 - filled), 0);
        let read = transport.read(&mut buffer[filled..]);
        let n = if filled == 0 {
            match or(async { read.await.map(Some) }, crowded_out(hub)).await? {
                Some(n) => n,
                None => return Ok(None),
            }
        } else {
            read.await?
        };
        buffer.truncate(filled + n);
        if n == 0 {
            return Ok(None);
        }
        if let Some(head) = parse(&buffer, searched)? {
            let early = buffer.split_off(head.len);
            return Ok(Some((head, early)));
        }
        searched = buffer.len();
    }
}

/// Ends once a silent peer has to give its place up.
async fn crowded_out<N>(hub: &Hub) -> std::io::Result<Option<N>> {
    loop {
        Timer::after(SILENCE).await;
        if hub.shared().gate.is_crowded() {
            return Ok(None);
        }
    }
}

async fn answer<T: Transport, H: Handler>(
    hub: &Hub,
    transport: &mut T,
    peer: &Peer,
    handler: &H,
    head: Head,
    early: Vec<u8>,
) -> Result<Upgraded, Ended> {
    let closed = hub.shared().gate.is_closed();
    match route(&head, &hub.shared().config)? {
        Route::Health if closed => return Err(draining().into()),
        Route::Health => return Err(Response::new(StatusCode::OK, "ok").into()),
        Route::Upgrade if closed => return Err(draining().into()),
        Route::Upgrade => {}
    }
    let request = &head.request;
    let hook = async { handler.on_upgrade(request, peer).await };
    let admission = match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(Ok(admission)) => admission,
        Ok(Err(status)) => return Err(refused_by_hook(status).into()),
        Err(_) => return Err(our_fault("on_upgrade panicked").into()),
    };
    let protocol = admission.protocol.clone();
    if let Some(protocol) = &protocol {
        let mut offered = tokens(request.headers(), header::SEC_WEBSOCKET_PROTOCOL);
        if !offered.any(|offer| offer == &**protocol) {
            return Err(our_fault("on_upgrade chose a subprotocol that was not offered").into());
        }
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = derive_accept_key(key.map_or(&[], |key| key.as_bytes()));
    let (registered, client) = register(hub, peer.network(), admission).await?;
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(protocol) = protocol {
        response.push_str(&format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
    }
    response.push_str("\r\n");
    transport.write_all(response.as_bytes()).await?;
    transport.flush().await?;
    Ok(Upgraded { registered, client, early })
}

/// Takes a permit and puts the client into the registry.
async fn register(
    hub: &Hub,
    network: Option<u128>,
    admission: Admission,
) -> Result<(Registered, Client), Response> {
    let Admission { user, rooms, protocol: _, extension } = admission;
    if !rooms.iter().chain(&user).all(|name| is_name(name)) {
        return Err(our_fault("on_upgrade chose a room or user with a name that is not allowed"));
    }
    let permit = hub.shared().gate.client(network).map_err(|crowded| {
        full(match crowded {
            Crowded::Clients => "as many clients as allowed are connected",
            Crowded::PerIp => "as many clients as allowed are connected from this address",
        })
    })?;
    let queue = Queue::new(&hub.shared().terms);
    // From here on, however this ends, the registry is told.
    let registered = Registered { hub: hub.clone(), queue: Arc::clone(&queue), _permit: permit };
    let name = user.clone();
    let answer = hub.ask(|reply| Command::Register { queue, user, rooms, reply }).await;
    match answer {
        Ok(Ok(id)) => Ok((registered, Client::new(hub.clone(), id, name, extension))),
        Ok(Err(Refusal::Rooms)) => Err(full("as many rooms as allowed exist")),
        Ok(Err(Refusal::RoomsPerClient)) => {
            Err(our_fault("on_upgrade chose more rooms than a client may be in"))
        }
        Ok(Err(Refusal::Gone | Refusal::UnknownClient)) | Err(_) => Err(draining()),
    }
}

/// Writes a last response and lets the peer read it: a socket that is closed with unread bytes
/// resets the connection and may destroy what was sent.
async fn say_goodbye<T: Transport>(hub: &Hub, transport: &mut T, response: &[u8]) {
    let goodbye = async {
        transport.write_all(response).await?;
        transport.flush().await?;
        transport.close().await?;
        let mut discarded = 0;
        let mut buffer = [0; 256];
        while discarded < HEAD_BYTES_MAX {
            match transport.read(&mut buffer).await? {
                0 => break,
                n => discarded += n,
            }
        }
        Ok(())
    };
    let timeout = async {
        Timer::after(hub.shared().config.close_timeout).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    let said: std::io::Result<()> = or(goodbye, timeout).await;
    if let Err(error) = said {
        log::debug!("a response did not reach its peer: {error}");
    }
}

fn draining() -> Response {
    full("the hub is ending")
}

fn full(sentence: &'static str) -> Response {
    Response::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header("Retry-After", RETRY_AFTER)
}

fn our_fault(cause: &'static str) -> Response {
    log::error!("a request is answered with 500: {cause}");
    Response::new(StatusCode::INTERNAL_SERVER_ERROR, "this server failed to answer the request")
}

/// The response to a request that `on_upgrade` refused.
fn refused_by_hook(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or("no reason given").to_ascii_lowercase();
    let response = Response::with_sentence(status, format!("the request was refused: {reason}"));
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

    /// Invariant 6: a connection that is dropped while it waits for a place in the inbox to say
    /// goodbye is still let go.
    #[test]
    fn departure_that_is_cancelled_is_heard_all_the_same() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default().inbox(1)).expect("valid");
        let _manager = executor.spawn(manager);
        let registering = register(&hub, None, Admission::anonymous());
        let (registered, _client) = block_on(executor.run(registering)).expect("a place");
        assert_eq!(hub.stats().clients, 1);
        hub.try_publish("nobody is here", "x").expect("there is room");
        let mut leave = Box::pin(registered.leave());
        assert!(block_on(poll_once(&mut leave)).is_none(), "the inbox is full");
        drop(leave);
        while executor.try_tick() {}
        assert_eq!(hub.stats().clients, 0);
    }
}
