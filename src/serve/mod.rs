//! Serving: accept loop, HTTP requests, drain.

pub(crate) mod accept;
pub(crate) mod acked;
pub(crate) mod acts;
pub(crate) mod drain;
pub(crate) mod endpoint;
pub(crate) mod event_stream;
pub(crate) mod exchange;
pub(crate) mod hand_over;
pub(crate) mod health;
pub(crate) mod hold;
pub(crate) mod http_connection;
pub(crate) mod hub_events;
pub(crate) mod kept;
pub(crate) mod lines;
pub(crate) mod long_request;
pub(crate) mod metrics;
pub(crate) mod post_rate;
pub(crate) mod publish;
pub(crate) mod rooms;
pub(crate) mod routes;
pub(crate) mod spawn;
pub(crate) mod subscription;
#[cfg(unix)]
pub(crate) mod take_over;
#[cfg(test)]
mod tests;
pub(crate) mod upgraded;
