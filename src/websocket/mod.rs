//! WebSocket connections (RFC 6455).

pub(crate) mod assembler;
pub(crate) mod close;
pub(crate) mod connection;
pub(crate) mod decoder;
pub(crate) mod extension;
pub(crate) mod inflate;
pub(crate) mod mask;
pub(crate) mod reader;
pub(crate) mod run;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod upgrade;
