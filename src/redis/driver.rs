//! What the driver knows from connection to connection, and how it tells the hub.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::hub::backplane::Link;
use crate::hub::command::Command;
use crate::hub::follower::Follower;
use crate::hub::handle::{Hub, Shared};
use crate::hub::history_config::HistoryConfig;
use crate::hub::inbox::CommandReceiver;
use crate::hub::link_event::TopicState;
use crate::hub::topic::Topic;
use crate::net::reactor::Reactor;
use crate::redis::envelope::Names;
use crate::redis::incoming::Reader;
use crate::redis::refusals::Refusals;
use crate::redis::script::Script;
use crate::redis_config::Redis;
use crate::time::timer_list::Tick;
use crate::time::timers::Timers;

/// What the driver keeps from connection to connection.
pub(crate) struct Driver {
    hub: Weak<Shared>,
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: CommandReceiver,
    pub(crate) redis: Redis,
    /// Waits for the socket, if it is not async-io.
    pub(crate) reactor: Option<Reactor>,
    pub(crate) reader: Reader,
    pub(crate) timers: Arc<Timers>,
    /// How long a publisher waits for the server.
    pub(crate) patience: Duration,
    /// The topics that the manager wants.
    pub(crate) topics: HashMap<Topic, TopicState>,
    /// Topics whose last member has gone, in the order of time. Each is here once for each time that
    /// it was subscribed, so at most twice.
    pub(crate) lingering: VecDeque<(Tick, Topic)>,
    /// What messages are counted and kept with, and where the hub is in the rooms that keep any.
    pub(crate) script: Script,
    pub(crate) followers: HashMap<Arc<str>, Follower>,
    /// The `run_id` of the server: another one means that it has forgotten all it knew.
    pub(crate) run_id: String,
    /// Whether the server is a node of a cluster. It carries messages, and keeps no keys for the hub:
    /// most of them are another node's.
    pub(crate) is_cluster: bool,
    /// Whether there was a connection that worked.
    pub(crate) has_been_up: bool,
    pub(crate) refusals: Refusals,
}

/// The hub has ended.
#[derive(Debug)]
pub(crate) struct HubEnded;

impl Driver {
    pub(crate) fn new(hub: &Hub, reactor: Option<Reactor>) -> Option<Self> {
        let shared = hub.shared();
        let backplane = shared.backplane.as_ref()?;
        let redis = shared.config.redis.clone()?;
        let link = Arc::clone(&backplane.link);
        let followers = link.take_restored().into_iter();
        let followers = followers.map(|(room, last)| (room, Follower::restored(last))).collect();
        Some(Self {
            hub: Arc::downgrade(shared),
            outbox: backplane.take_outbox()?,
            reader: Reader {
                names: Names::new(&redis.prefix, link.hub),
                hub: link.hub,
                memory: Arc::clone(hub.memory()),
                message_max: shared.config.max_message,
            },
            link,
            redis,
            reactor,
            timers: Arc::clone(&shared.timers),
            patience: shared.config.write_timeout,
            topics: HashMap::new(),
            lingering: VecDeque::new(),
            script: Script::new(HistoryConfig::new(&shared.config, None)),
            followers,
            run_id: String::new(),
            is_cluster: false,
            has_been_up: false,
            refusals: Refusals::default(),
        })
    }

    /// A topic is not subscribed any more.
    pub(crate) fn forget(&mut self, topic: &Topic) {
        self.topics.remove(topic);
        if let Topic::Room(room) = topic {
            self.followers.remove(room);
        }
    }

    /// What the handles of the hub share, while there is one.
    pub(crate) fn shared(&self) -> Option<Arc<Shared>> {
        self.hub.upgrade()
    }

    /// The connection works: every topic is subscribed.
    pub(crate) fn up(&mut self) {
        if self.has_been_up {
            // What was said meanwhile has passed the hub unheard.
            self.link.counters.gaps.fetch_add(1, Ordering::Relaxed);
        }
        self.has_been_up = true;
        let topics = self.topics.len();
        log::info!("connected to {}, {topics} rooms and users subscribed", self.redis);
    }

    /// Sends the manager a command.
    pub(crate) async fn send_to_hub(&self, command: Command) -> Result<(), HubEnded> {
        let hub = self.hub()?;
        hub.send_command(command).await.map_err(|_| HubEnded)
    }

    /// A handle to the hub, while there is another.
    pub(crate) fn hub(&self) -> Result<Hub, HubEnded> {
        self.hub.upgrade().map(Hub::from_shared).ok_or(HubEnded)
    }
}

impl Drop for Driver {
    /// Without a driver there is no connection.
    fn drop(&mut self) {
        self.link.set_down(self.timers.now());
    }
}
