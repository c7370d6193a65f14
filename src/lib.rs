//! A small WebSocket hub on smol.

mod config;
mod error;
mod hub;
mod memory;
mod message;
mod network;
mod serve;

pub use config::{Config, Overflow, Page};
pub use error::{Disconnect, Error};
pub use http;
pub use hub::{Client, ClientId, Hub, Member, Stats, Target};
pub use message::Message;
pub use network::Network;
pub use serve::{Admission, Handler, Listener, Peer, Subscription, room_of};
