//! Taking a hub over from another process.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::config::Config;
use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::registration::{Admitted, max_message, set_terms};
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::stream::park_idle;
use crate::hub::client_id::ClientId;
use crate::hub::cursor::Cursor;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::hub::registry_state::Restored;
use crate::hub::state::{Client, Connection, State};
use crate::message::Encoding;
use crate::name::{is_name, is_prefix};
use crate::net::io::Io;
use crate::net::reactor::Reactor;
use crate::net::socket::Socket;
use crate::net::stream::Transport;
#[cfg(feature = "tls")]
use crate::net::tls::stream::Stream;
use crate::peer::Peer;
use crate::serve::accept::connect;
use crate::serve::spawn::Spawn;
use crate::sse::connection::resume as resume_events;
use crate::sse::events_query::EventFormat;
use crate::websocket::run::resume as resume_websocket;

/// The highest slot of a client: no process has more descriptors.
const SLOT_MAX: u32 = 1 << 20;

/// The connections of a hub that another process had.
///
/// [`Hub::take_over`] makes it. Dropped, it closes them.
#[must_use = "the connections are closed when this is dropped"]
pub struct TakeOver {
    hub: Hub,
    /// The descriptor of each connection.
    descriptors: Vec<OwnedFd>,
    kept: Vec<KeptConnection>,
}

/// A connection that goes on.
pub(crate) struct KeptConnection {
    pub(crate) peer: Peer,
    /// The client, unless the connection waits for a request.
    pub(crate) client: Option<KeptClient>,
}

/// Its client.
pub(crate) struct KeptClient {
    queue: Arc<Queue>,
    id: ClientId,
    user: Option<Arc<str>>,
    /// For how long its peer has said nothing.
    idle: Duration,
    /// How its events are written; `None` for a WebSocket.
    events: Option<EventFormat>,
    /// Whether its peer may compress what it sends.
    deflates: bool,
    /// What the handler said of it.
    about: String,
}

impl Hub {
    /// Makes a hub with the state of another, and returns its connections too, which
    /// [`TakeOver::serve`] runs.
    ///
    /// `state` and `descriptors` are those of a [`HandOver`](crate::HandOver), of this version or of the one
    /// before. Clients keep their ids, rooms and users, and the counters go on. A lower limit on
    /// clients or rooms is for newcomers alone: no client is closed by it.
    ///
    /// Until the manager's future runs nothing is published, and until the connections are served
    /// their messages wait.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] as [`Hub::new`], and for a state that cannot be read or that has another
    /// number of connections than there are descriptors.
    ///
    /// # Examples
    ///
    /// [`Hub::hand_over`] has one.
    pub fn take_over(
        config: Config,
        state: &str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>, TakeOver), Error> {
        let (hub, manager, kept) = Self::restore(config, state)?;
        if kept.len() != descriptors.len() {
            let (lines, there) = (kept.len(), descriptors.len());
            return Err(Error::config(format!(
                "a state of {lines} connections is not allowed with {there} descriptors"
            )));
        }
        Ok((hub.clone(), manager, TakeOver { hub, descriptors, kept }))
    }

    /// Makes a hub with the state of another, its manager, and its connections.
    pub(crate) fn restore(
        config: Config,
        state: &str,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>, Vec<KeptConnection>), Error> {
        let (state, connections) = State::read(state).map_err(unreadable)?;
        let (hub, mut manager) = Self::assemble(config, Some(state.link).filter(|&link| link > 0))?;
        let shared = hub.shared();
        shared.started.get_or_init(|| state.started);
        shared.counters.restore(&state.counters, &state.refused);
        let (mut clients, mut kept, mut slots) = (Vec::new(), Vec::new(), Slots::default());
        let mut newest = HashMap::new();
        let mut line = 1;
        for room in &state.rooms {
            line += 1;
            if !is_name(&room.name) || newest.insert(&*room.name, room.newest).is_some() {
                return Err(unreadable(line));
            }
            line += room.messages.len();
        }
        for connection in connections {
            let (line, Connection { peer, client }) = connection.map_err(unreadable)?;
            let client = match client {
                Some(client) => {
                    if !client.prefixes.is_empty() && shared.backplane.is_some() {
                        return Err(Error::config(PREFIX_BESIDE_BACKPLANE));
                    }
                    let is_new = slots.insert(client.id.0);
                    let restored = is_new
                        .then(|| restore_client(&hub, client, &newest, &mut clients))
                        .flatten();
                    Some(restored.ok_or_else(|| unreadable(line))?)
                }
                None => None,
            };
            kept.push(KeptConnection { peer, client });
        }
        manager.restore(&state, clients);
        Ok((hub, manager.run(), kept))
    }
}

/// The slots of the clients that were read.
#[derive(Default)]
struct Slots(Vec<bool>);

impl Slots {
    /// Whether no client before has this slot, and one may have it.
    fn insert(&mut self, slot: u32) -> bool {
        let index = slot as usize;
        if slot < SLOT_MAX && index >= self.0.len() {
            self.0.resize(index + 1, false);
        }
        self.0.get_mut(index).is_some_and(|is_taken| !std::mem::replace(is_taken, true))
    }
}

/// Adds a client to those that the registry gets; `None` if its state cannot be.
fn restore_client<'a>(
    hub: &Hub,
    client: Client<'a>,
    newest: &HashMap<&str, u64>,
    restored: &mut Vec<Restored<'a>>,
) -> Option<KeptClient> {
    let Client { id, since, rooms, prefixes, missed, deflates, .. } = client;
    if !rooms.iter().chain(&client.user).all(|name| is_name(name)) {
        return None;
    }
    // Most clients are in one room.
    let has_twins = |names: &[Cow<'_, str>]| {
        names.len() > 1 && names.iter().collect::<HashSet<_>>().len() < names.len()
    };
    let are_prefixes = prefixes.iter().all(|prefix| is_prefix(prefix));
    if !are_prefixes || has_twins(&rooms) || has_twins(&prefixes) {
        return None;
    }
    let events = match client.events {
        Some(number) => Some(EventFormat::numbered(number)?),
        None => None,
    };
    let id = ClientId::of(id);
    let queue = Queue::new(&hub.shared().queue_config);
    queue.set_encoding(if deflates { Encoding::Deflate } else { Encoding::Plain });
    if client.labels {
        queue.set_labels();
    }
    if let Some(conflation) = client.conflation {
        if rooms.len() != 1 || !prefixes.is_empty() || client.labels {
            return None;
        }
        queue.restore_conflation(*conflation, hub.shared().timers.elapsed());
    }
    let user: Option<Arc<str>> = client.user.map(Arc::from);
    let cursor = match &client.cursor {
        Some(cursor) => {
            let room = rooms.iter().find(|room| **room == cursor.room)?;
            let restored = Cursor::restored(&Arc::from(&**room), cursor, *newest.get(&**room)?)?;
            Some(Box::new(restored))
        }
        None => None,
    };
    let (kept, name) = (Arc::clone(&queue), user.clone());
    restored.push(Restored { id, since, user: name, rooms, prefixes, queue: kept, missed, cursor });
    let idle = Duration::from_millis(client.idle.into());
    Some(KeptClient { queue, id, user, idle, events, deflates, about: client.about.into_owned() })
}

/// The hub would hear a prefix in none of the rooms that other hubs have members of.
const PREFIX_BESIDE_BACKPLANE: &str = "a client hears all rooms of a prefix, and prefixes are not \
                                       for several hubs: disconnect it first";

fn unreadable(line: usize) -> Error {
    Error::config(format!("line {line} of the state is not one that this version reads"))
}

impl TakeOver {
    /// Returns how many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.kept.len()
    }

    /// Returns how many of the clients come from the address that most of them come from, as
    /// [`Config::max_clients_per_ip`](crate::Config#structfield.max_clients_per_ip) counts them. A lower
    /// limit is for newcomers alone.
    #[must_use]
    pub fn clients_of_one_ip(&self) -> usize {
        let mut clients = HashMap::new();
        for kept in self.kept.iter().filter(|kept| kept.client.is_some()) {
            if let Some(network) = kept.peer.network() {
                *clients.entry(network).or_insert(0) += 1;
            }
        }
        clients.into_values().max().unwrap_or(0)
    }

    /// Waits until the hub is connected to its Redis server and has subscribed what its clients need;
    /// ready at once if it has none. The manager's future has to run, and that of
    /// [`Hub::connect_redis`].
    ///
    /// Without this the connections are served all the same, and hear nothing of other hubs yet.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, nothing is lost.
    pub async fn reconnected(&self) {
        if let Some(backplane) = &self.hub.shared().backplane {
            backplane.link.up().await;
        }
    }

    /// Spawns a task on `executor` for each connection, as [`Hub::serve`] does for those that it
    /// accepts. With a `reactor` it waits for their sockets, else async-io does.
    ///
    /// [`Handler::on_take_over`] makes the extension of each client, and
    /// [`Handler::on_connect`] runs for it once more.
    ///
    /// # Errors
    ///
    /// An error with the operating system's as its source: a descriptor cannot be waited for. The
    /// connections behind it are closed then.
    pub fn serve<S: Spawn, H: Handler>(
        self,
        executor: &S,
        reactor: Option<&Reactor>,
        handler: &Arc<H>,
    ) -> Result<(), Error> {
        let write_max = self.hub.sizing().map(|sizing| sizing.socket_buffer);
        for (descriptor, kept) in self.descriptors.into_iter().zip(self.kept) {
            let socket = Socket::new(attach(reactor, descriptor)?, write_max);
            #[cfg(feature = "tls")]
            let socket = Stream::Plain(socket);
            let (hub, handler) = (self.hub.clone(), Arc::clone(handler));
            executor.spawn(run(hub, socket, kept, handler));
        }
        Ok(())
    }
}

/// Registers the socket of a connection. It does not block, as in the other process: that belongs to the
/// socket, not to a descriptor.
fn attach(reactor: Option<&Reactor>, descriptor: OwnedFd) -> io::Result<Io<OwnedFd>> {
    #[cfg(target_os = "linux")]
    return Reactor::register(reactor, descriptor);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = reactor;
        Io::unattached(descriptor)
    }
}

/// Runs a connection that another process had, to its end.
pub(crate) fn run<T: Transport + 'static, H: Handler>(
    hub: Hub,
    transport: T,
    kept: KeptConnection,
    handler: Arc<H>,
) -> impl Future<Output = ()> + Send {
    let counted = hub.shared().admissions.connection();
    // What a connection waits with is as small as that of one that was accepted.
    let admitted = kept.client.map(|client| Box::new(admit(&hub, client, kept.peer, &*handler)));
    let peer = kept.peer;
    async move {
        let _counted = counted;
        match admitted {
            Some(admitted) => {
                let (admitted, idle, events) = *admitted;
                match events {
                    None => {
                        drop(resume_websocket(&hub, transport, admitted, idle, &*handler).await)
                    }
                    Some(format) => {
                        let format = (format, idle);
                        drop(
                            Box::pin(resume_events(&hub, transport, admitted, format, &*handler))
                                .await,
                        );
                    }
                }
            }
            None => Box::pin(serve_requests(&hub, transport, peer, &*handler)).await,
        }
    }
}

/// Makes the client of a connection. If its handler does not know it, it is closed.
fn admit<H: Handler>(
    hub: &Hub,
    client: KeptClient,
    peer: Peer,
    handler: &H,
) -> (Admitted, Duration, Option<EventFormat>) {
    let KeptClient { queue, id, user, idle, events, deflates, about } = client;
    let (extension, rate, terms) = match handler.on_take_over(&about) {
        Some(Admission { extension, rate, terms, .. }) => (extension, rate, terms),
        None => {
            queue.close(Disconnect::RESTART);
            hub.report_gone(id);
            (None, None, None)
        }
    };
    let mut admitted = Admitted::restored(hub, queue, (id, user, peer), extension, deflates);
    admitted.rate = rate.unwrap_or(admitted.rate);
    admitted.max_message = max_message(terms.as_deref());
    if let Some(terms) = &terms {
        set_terms(hub, &admitted.registered.queue, terms);
    }
    (admitted, idle, events)
}

/// Waits for the next request of a connection, and serves that and those that follow.
async fn serve_requests<T: Transport, H: Handler>(
    hub: &Hub,
    mut transport: T,
    peer: Peer,
    handler: &H,
) {
    let shared = hub.shared();
    // Without an idle permit a client would have to go for it.
    let Some(mut idle) = shared.admissions.idle() else { return };
    let mut over = shared.timers.after(shared.config.idle_timeout);
    let mut parked = None;
    let comes = poll_fn(|cx| {
        let is_over = Pin::new(&mut over).poll(cx).is_ready() || idle.poll_leave(cx).is_ready();
        if shared.holding.is_held() {
            if parked.is_none() {
                parked = park_idle(&shared.holding, &transport, &peer);
            }
        } else {
            parked = None;
            if transport.poll_readable(cx).is_ready() {
                return Poll::Ready(true);
            }
        }
        if is_over { Poll::Ready(false) } else { Poll::Pending }
    });
    if comes.await {
        let permit = shared.admissions.handshake().await;
        drop(idle);
        // The log and the hooks were told of its end.
        drop(Box::pin(connect(hub, transport, peer, handler, permit)).await);
    }
}

impl fmt::Debug for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeOver").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::state::{KeptMessage, Room};
    use crate::message::Message;
    use crate::redis_config::Redis;

    #[test]
    fn a_slot_is_that_of_one_client() {
        let mut slots = Slots::default();
        assert!(slots.insert(3) && slots.insert(0) && slots.insert(SLOT_MAX - 1));
        assert!(!slots.insert(3) && !slots.insert(SLOT_MAX - 1), "it is taken");
        assert!(!slots.insert(SLOT_MAX), "no process has so many");
    }

    #[test]
    fn sentence_about_a_state_names_the_line() {
        let room = |name: &str| {
            let messages = vec![KeptMessage { message: Message::from("kept"), except: None }];
            Room { name: name.to_owned(), newest: 1, messages, ..Room::default() }
        };
        let refused = |rooms: &[&str], peers: &[&str]| {
            let rooms = rooms.iter().map(|name| room(name)).collect();
            let text = State { rooms, ..State::default() }.write(0);
            let mut text = String::from_utf8(text).expect("text");
            for (nth, peer) in peers.iter().enumerate() {
                text.push_str(&format!("http {nth} peer={peer}\n"));
            }
            let restored = Hub::restore(Config::default(), &text);
            restored.err().map(|error| error.to_string())
        };
        let sentence =
            |line| format!("line {line} of the state is not one that this version reads");
        assert_eq!(refused(&["a", "b"], &["127.0.0.1:1", "unix"]), None);
        assert_eq!(refused(&["a", ""], &[]), Some(sentence(4)));
        assert_eq!(refused(&["a", "b", "a"], &[]), Some(sentence(6)));
        assert_eq!(refused(&["a", "b"], &["127.0.0.1:1", "nowhere"]), Some(sentence(7)));
    }

    #[test]
    fn client_with_a_prefix_does_not_go_on_beside_other_hubs() {
        let state = format!(
            "{}websocket 0 peer=unix id=0-0 rooms=a prefixes=s/*\n",
            String::from_utf8(State::default().write(0)).expect("text"),
        );
        assert!(Hub::restore(Config::default(), &state).is_ok());
        let redis = "redis://127.0.0.1".parse::<Redis>().expect("a URL");
        let refused = Hub::restore(Config::default().redis(Some(redis)), &state);
        let sentence = refused.err().expect("it is refused").to_string();
        assert!(sentence.contains("prefixes are not for several hubs"), "{sentence}");
    }
}
