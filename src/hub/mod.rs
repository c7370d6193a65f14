//! The hub: the manager, the registry that it owns, and the queues of its clients.

pub(crate) mod backlog;
pub(crate) mod backplane;
pub(crate) mod batch;
pub(crate) mod client;
pub(crate) mod client_id;
pub(crate) mod command;
pub(crate) mod cursor;
pub(crate) mod event;
pub(crate) mod eviction;
pub(crate) mod extras;
pub(crate) mod handle;
pub(crate) mod history;
pub(crate) mod history_config;
pub(crate) mod inbox;
pub(crate) mod link_event;
pub(crate) mod manager;
pub(crate) mod pending_reply;
pub(crate) mod place;
pub(crate) mod positions;
pub(crate) mod queue;
pub(crate) mod queue_config;
pub(crate) mod registry;
pub(crate) mod reply;
pub(crate) mod room;
pub(crate) mod rooms;
pub(crate) mod shared_rooms;
pub(crate) mod since;
pub(crate) mod sizing;
pub(crate) mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod topic;
pub(crate) mod unsent;
pub(crate) mod users;
pub(crate) mod waiters;
