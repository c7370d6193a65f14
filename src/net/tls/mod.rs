//! TLS: certificates, and what carries a connection that is encrypted.

pub(crate) mod acceptor;
pub(crate) mod certificate;
#[cfg(test)]
pub(crate) mod pair;
pub(crate) mod provider;
pub(crate) mod session;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod trusting_client;
pub(crate) mod wire;
