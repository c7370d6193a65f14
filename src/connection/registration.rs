//! Registering a client: from an admission to an entry in the registry.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::connection::admission::{Admission, Terms};
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::response::{
    Response, away, draining, internal_error, request_timeout, short_of_memory, unavailable,
};
use crate::hub::client::Client;
use crate::hub::client_id::{ClientId, Refusal};
use crate::hub::command::{Command, Inserted};
use crate::hub::cursor::{Reader, Reading};
use crate::hub::handle::Hub;
use crate::hub::pending_reply::PendingReply;
use crate::hub::queue::Queue;
use crate::hub::since::Begin;
use crate::limits::admission::{ClientPermit, EventReaderPermit, LimitReached};
use crate::message::Encoding;
use crate::name::{is_name, is_prefix};
use crate::peer::Peer;
use crate::rate::Rate;
use crate::time::clock::unix_seconds;

/// A client in the registry, with the permit that it occupies.
///
/// Dropping it, also in a panic, disconnects the queue and reports that to the manager.
#[derive(Debug)]
pub(crate) struct Registered {
    hub: Hub,
    pub(crate) queue: Arc<Queue>,
    /// Released when the connection is gone.
    _permit: ClientPermit,
}

impl Registered {
    /// Whether the hub stands still for another process.
    pub(crate) fn is_held(&self) -> bool {
        self.hub.shared().holding.is_held()
    }

    /// Has the manager hand the client more of what its room keeps.
    pub(crate) fn request_more(&self, id: ClientId) {
        self.hub.request_more(id);
    }

    /// Disconnects the queue and waits until the manager has removed the client, so that a later
    /// count of clients does not include it. Returns the rooms that the client has left. The permit
    /// is released when this is dropped.
    pub(crate) async fn leave(&self, id: ClientId, reason: &Disconnect) -> Vec<Arc<str>> {
        match self.queue.disconnect() {
            Some(id) => self.report(id, reason.clone()).await,
            // An evicted client may have ended before the manager has removed it. The manager does
            // that before it takes another command.
            None if !self.queue.has_left() => {
                drop(self.hub.request(|reply| Command::Rooms { id, reply }).await);
            }
            None => {}
        }
        self.queue.take_left().unwrap_or_default()
    }

    /// Has the manager remove a client whose queue is disconnected.
    async fn report(&self, id: ClientId, reason: Disconnect) {
        // The queue returns its id once. If this future is dropped while it waits, the guard
        // reports the departure.
        let mut unheard = PendingDeparture { hub: &self.hub, id: Some(id) };
        let command = |reply| Command::Disconnect { id, reason, reply: Some(reply) };
        // An error means that the manager has ended, and its registry with it.
        drop(self.hub.request(command).await);
        unheard.id = None;
    }
}

/// A departure that the manager may not know of. Reports it when dropped.
struct PendingDeparture<'a> {
    hub: &'a Hub,
    /// The client, until the manager has answered.
    id: Option<ClientId>,
}

impl Drop for PendingDeparture<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.hub.report_gone(id);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(id) = self.queue.disconnect() {
            self.hub.report_gone(id);
        }
    }
}

/// A registered client, and the handle that hooks get.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) registered: Registered,
    pub(crate) client: Client,
    /// Whether the peer may compress what it sends.
    pub(crate) inflates: bool,
    /// Where it begins, if it is told of positions.
    pub(crate) begin: Option<Begin>,
    /// How much it may send.
    pub(crate) rate: Rate,
    /// The longest message that it may send, of those that all may.
    pub(crate) max_message: u32,
}

impl Admitted {
    /// A client that the registry has got back from another process.
    pub(crate) fn restored(
        hub: &Hub,
        queue: Arc<Queue>,
        (id, user, peer): (ClientId, Option<Arc<str>>, Peer),
        extension: Option<Arc<dyn Any + Send + Sync>>,
        inflates: bool,
    ) -> Self {
        let permit = hub.shared().admissions.restore(peer.network());
        let client = Client::new(hub.clone(), id, user, peer, extension);
        let registered = Registered { hub: hub.clone(), queue, _permit: permit };
        Self {
            registered,
            client,
            inflates,
            begin: None,
            rate: rate_of(hub),
            max_message: u32::MAX,
        }
    }
}

/// What a client is, as far as the positions of its messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A WebSocket.
    WebSocket,
    /// A stream of events; `ends` once it has what is kept.
    Events { ends: bool },
    /// The program.
    Subscription,
}

impl ClientKind {
    /// As what such a client reads its room.
    fn reading(self, admission: &Admission) -> Reading {
        let since = admission.since;
        let reader = match self {
            Self::WebSocket | Self::Subscription if since.is_none() => Reader::Plain,
            Self::WebSocket => Reader::Counting,
            Self::Events { .. } | Self::Subscription => Reader::Numbered,
        };
        Reading { reader, since, ends: self == Self::Events { ends: true } }
    }
}

/// Registers a client that the embedding program has made.
pub(crate) async fn admit(
    hub: &Hub,
    admission: Admission,
    kind: ClientKind,
) -> Result<Admitted, Error> {
    register(hub, Peer::unknown(), admission, kind, Encoding::Plain)
        .map_err(Response::into_error)?
        .await
        .map_err(Response::into_error)
}

/// Takes a permit and asks the manager to put the client into the registry; its frames are written
/// in `encoding`.
pub(crate) fn register(
    hub: &Hub,
    peer: Peer,
    admission: Admission,
    kind: ClientKind,
    encoding: Encoding,
) -> Result<Registering<'_>, Response> {
    let reading = Box::new(kind.reading(&admission));
    let Admission { user, mut rooms, prefixes, extension, rate, terms, has_labels, .. } = admission;
    let rate = rate.unwrap_or_else(|| rate_of(hub));
    if !rooms.iter().chain(&user).all(|name| is_name(name)) {
        return Err(internal_error(
            "on_upgrade chose a room or user with a name that is not allowed",
        ));
    }
    if !prefixes.iter().all(|prefix| is_prefix(prefix)) {
        return Err(internal_error("on_upgrade chose a prefix that no name may begin with"));
    }
    if !prefixes.is_empty() && hub.shared().backplane.is_some() {
        return Err(Response::bad_request("a hub with Redis has rooms and no prefixes"));
    }
    let permit = client_permit(hub, peer.network())?;
    let queue = Queue::new(&hub.shared().queue_config);
    queue.set_encoding(encoding);
    if kind == ClientKind::Subscription {
        queue.set_program();
    } else if has_labels {
        queue.set_labels();
    }
    if let Some(terms) = &terms {
        set_terms(hub, &queue, terms);
        if let Some(every) = terms.every.filter(|_| kind != ClientKind::Subscription) {
            if reading.reader == Reader::Counting {
                return Err(internal_error(
                    "on_upgrade chose since and every for a WebSocket, which counts every message",
                ));
            }
            queue.conflate(every, hub.shared().timers.elapsed());
        }
    }
    let max_message = max_message(terms.as_deref());
    // From here on, dropping this reports the departure to the manager.
    let registered = Registered { hub: hub.clone(), queue: Arc::clone(&queue), _permit: permit };
    let name = user.clone();
    let came = unix_seconds() as u32;
    // Far more than a client may be in.
    let prefix_count = u16::try_from(prefixes.len()).unwrap_or(u16::MAX);
    rooms.extend(prefixes.into_iter().take(prefix_count.into()));
    let (rooms, prefixes) = (rooms.into_boxed_slice(), prefix_count);
    let command =
        move |reply| Command::Register { queue, user, rooms, prefixes, came, reading, reply };
    let inserted = hub.request(command);
    let registered = Some(registered);
    Ok(Registering { registered, user: name, peer, extension, rate, max_message, inserted })
}

/// Sets the limits of a client's queue, if they are not those of all.
#[cold]
pub(crate) fn set_terms(hub: &Hub, queue: &Queue, terms: &Terms) {
    let shared = hub.shared();
    let terms = terms.queue_config(&shared.queue_config, &shared.config);
    terms.into_iter().for_each(|terms| queue.set_terms(terms));
}

/// The longest message of a client.
pub(crate) fn max_message(terms: Option<&Terms>) -> u32 {
    let own = terms.and_then(|terms| terms.max_message);
    own.map_or(u32::MAX, |own| u32::try_from(own).unwrap_or(u32::MAX))
}

/// How much a client may send of which the hook says nothing else.
fn rate_of(hub: &Hub) -> Rate {
    let config = &hub.shared().config;
    Rate::of(config.max_rate, config.max_rate_bytes)
}

/// The answer to a request whose registration is not done in time: the backplane has not confirmed
/// its room, if there is one.
pub(crate) fn registration_timeout(hub: &Hub) -> Response {
    if hub.shared().backplane.is_some() { away() } else { request_timeout() }
}

/// Takes the permit of a client, if one is left and memory is not short.
pub(crate) fn client_permit(hub: &Hub, network: Option<u128>) -> Result<ClientPermit, Response> {
    if hub.memory().should_shed() {
        hub.want_eviction();
    }
    if hub.memory().is_high() {
        return Err(short_of_memory());
    }
    hub.shared().admissions.client(network).map_err(crowded)
}

/// Takes the permit of a reader of events, if one is left and memory is not short.
pub(crate) fn event_reader_permit(
    hub: &Hub,
    network: Option<u128>,
) -> Result<EventReaderPermit, Response> {
    if hub.memory().is_high() {
        return Err(short_of_memory());
    }
    hub.shared().admissions.event_reader(network).map_err(crowded)
}

fn crowded(limit: LimitReached) -> Response {
    unavailable(match limit {
        LimitReached::Clients => "too many clients are connected",
        LimitReached::PerIp => "too many clients are connected from this address",
        LimitReached::EventReaders => "4 readers of events are connected, the limit",
    })
}

/// A registration in progress. If it is dropped early, the registry does not keep the client.
pub(crate) struct Registering<'a> {
    /// Taken by the last poll.
    registered: Option<Registered>,
    user: Option<Arc<str>>,
    peer: Peer,
    extension: Option<Arc<dyn Any + Send + Sync>>,
    rate: Rate,
    max_message: u32,
    inserted: PendingReply<'a, Result<Inserted, Refusal>>,
}

impl Future for Registering<'_> {
    type Output = Result<Admitted, Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inserted = ready!(Pin::new(&mut self.inserted).poll(cx));
        Poll::Ready(match (inserted, self.registered.take()) {
            (Ok(Ok(Inserted { id, begin })), Some(registered)) => {
                let (user, extension) = (self.user.take(), self.extension.take());
                let client = Client::new(registered.hub.clone(), id, user, self.peer, extension);
                let rate = self.rate;
                let max_message = self.max_message;
                Ok(Admitted { registered, client, begin, inflates: false, rate, max_message })
            }
            (Ok(Err(Refusal::OneRoom)), _) => Err(internal_error(
                "on_upgrade chose since or every for a client that is not in one room",
            )),
            (Ok(Err(Refusal::Away)), _) => Err(away()),
            (Ok(Err(Refusal::Rooms)), _) => Err(unavailable("too many rooms exist")),
            (Ok(Err(Refusal::Prefixes)), _) => Err(unavailable("too many prefixes exist")),
            (Ok(Err(Refusal::RoomsPerClient)), _) => {
                Err(internal_error("on_upgrade chose more rooms than a client may be in"))
            }
            _ => Err(draining()),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::config::Config;
    use crate::connection::hooks::run_request_hook;

    /// The peer would read a status that is no error as something else: as a 101, or as a response
    /// without a body.
    #[test]
    fn hook_refusals_must_be_error_statuses() {
        for (status, answered) in [(400, 400), (404, 404), (418, 418), (503, 503), (599, 599)]
            .into_iter()
            .chain([100, 101, 200, 204, 304, 399, 600, 999].map(|status| (status, 500)))
        {
            let status = StatusCode::from_u16(status).expect("three digits");
            let refused = block_on(run_request_hook(async { Err::<(), _>(status) }, |_| None));
            assert_eq!(refused.expect_err("refused").status.as_u16(), answered, "{status}");
        }
    }
    /// Invariant 6: the manager removes a client whose connection is dropped while its departure
    /// waits for room in the inbox.
    #[test]
    fn cancelled_departure_still_removes_the_client() {
        let executor = smol::Executor::new();
        let (hub, manager) = Hub::new(Config::default().inbox(1)).expect("valid");
        let _manager = executor.spawn(manager);
        let (admission, kind) = (Admission::anonymous(), ClientKind::WebSocket);
        let registering =
            register(&hub, Peer::unknown(), admission, kind, Encoding::Plain).expect("a permit");
        let Admitted { registered, client, .. } =
            block_on(executor.run(registering)).expect("a permit");
        assert_eq!(hub.stats().clients, 1);
        hub.try_publish("empty room", "x").expect("there is room");
        let reason = Disconnect::ABNORMAL;
        let mut leave = Box::pin(registered.leave(client.id(), &reason));
        assert!(block_on(poll_once(&mut leave)).is_none(), "the inbox is full");
        drop(leave);
        while executor.try_tick() {}
        assert_eq!(hub.stats().clients, 0);
    }
}
