//! The hub and its listeners at the start of the process.

use std::future::Future;
use std::pin::Pin;

use hublet::Hub;

use crate::before::{Prior, TakeOver};
use crate::failure::Failure;
use crate::flags::parse::in_flags;
#[cfg(target_os = "linux")]
use crate::inherited;
use crate::pause::Rest;
use crate::socket;
use crate::socket::Served;

/// A hub that is new, or goes on where another process was.
pub(crate) struct Begun {
    pub(crate) hub: Hub,
    pub(crate) manager: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The connections of the process before.
    pub(crate) taken: Option<TakeOver>,
    pub(crate) served: Vec<Served>,
    /// What the pipes of the process before have not passed on.
    pub(crate) rest: Rest,
}

/// Makes the hub and its listeners.
pub(crate) fn begin(
    config: hublet::Config,
    addresses: &[socket::Address],
    prior: Option<Prior>,
) -> Result<Begun, Failure> {
    let usage = |error: hublet::Error| Failure::usage(in_flags(&error.to_string()));
    #[cfg(target_os = "linux")]
    if let Some(Prior { listeners, pipe, state, descriptors }) = prior {
        let (hub, manager, taken) = Hub::take_over(config, &state, descriptors).map_err(usage)?;
        let served = inherited::listen_on(addresses, listeners);
        let manager = Box::pin(manager);
        return Ok(Begun { hub, manager, taken: Some(taken), served, rest: pipe });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = prior;
    let (hub, manager) = Hub::new(config).map_err(usage)?;
    let served = socket::listen(addresses)?;
    let manager = Box::pin(manager);
    Ok(Begun { hub, manager, taken: None, served, rest: Rest::default() })
}

/// The limits on what may be there.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    clients: Option<usize>,
    clients_per_ip: Option<usize>,
    rooms: usize,
}

impl Limits {
    pub(crate) fn of(config: &hublet::Config) -> Self {
        let (clients, clients_per_ip) = (config.max_clients, config.max_clients_per_ip);
        Self { clients, clients_per_ip, rooms: config.max_rooms }
    }
}

/// Logs what the memory limit allows, and which limit is lower than what is there.
pub(crate) fn say_limits(hub: &Hub, limits: Limits, taken: Option<&TakeOver>) {
    let (wanted, mut limit) = (limits.clients, limits.clients);
    if let Some(sizing) = hub.sizing() {
        ::log::info!("memory: {sizing}");
        if let Some(wanted) = wanted.filter(|&wanted| wanted > sizing.max_clients) {
            let fit = sizing.max_clients;
            ::log::warn!("{fit} clients fit into --max-memory, not {wanted} of --max-clients");
        }
        limit = Some(sizing.max_clients);
    }
    let Some(taken) = taken else { return };
    let stats = hub.stats();
    let (clients, rooms, max_rooms) = (stats.clients, stats.rooms, limits.rooms);
    if let Some(limit) = limit.filter(|&limit| clients > limit) {
        ::log::warn!(
            "{clients} clients are connected and the limit is {limit} now: they stay, and no other \
             is admitted before enough of them have left"
        );
    }
    if let Some(limit) = limits.clients_per_ip {
        let clients = taken.clients_of_one_ip();
        if clients > limit {
            ::log::warn!(
                "{clients} clients are connected from one address and the limit is {limit} now: they \
                 stay, and no other is admitted from there before enough of them have left"
            );
        }
    }
    if rooms > max_rooms {
        ::log::warn!(
            "{rooms} rooms exist and the limit is {max_rooms} now: rooms without members go when \
             another begins, and none begins while as many as the limit have members"
        );
    }
}
