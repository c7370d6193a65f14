//! Tests of the hub without sockets, clocks or sleeps: plain data first, then the manager stepped
//! on an executor that is ticked until nothing moves.

mod acks;
mod eviction;
mod history;
mod inbox;
mod manager;
mod model;
mod queue;
mod registry;
mod restart;
mod rooms;
mod subscriptions;
pub(crate) mod support;
mod threads;
mod verbs;
