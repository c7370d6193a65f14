//! Server-sent events (WHATWG HTML 9.2).

pub(crate) mod connection;
pub(crate) mod discarded;
pub(crate) mod encoder;
pub(crate) mod events_query;
#[cfg(test)]
mod tests;
