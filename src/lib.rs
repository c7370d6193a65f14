//! A small WebSocket hub on smol.

#![warn(missing_docs)]

mod config;
mod error;
mod message;

pub use config::{Config, Overflow};
pub use error::{Disconnect, Error};
pub use http;
pub use message::Message;
