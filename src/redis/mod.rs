//! The backplane over Redis or Valkey: the codec, the messages, the connection, and the driver.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod driver;
pub(crate) mod envelope;
pub(crate) mod followers;
pub(crate) mod in_flight;
pub(crate) mod incoming;
pub(crate) mod presence;
pub(crate) mod refusals;
pub(crate) mod resp;
pub(crate) mod rooms;
pub(crate) mod script;
pub(crate) mod session;
#[cfg(test)]
mod tests;
pub(crate) mod topics;
