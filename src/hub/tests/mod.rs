//! Tests of the hub without sockets, clocks or sleeps: plain data first, then the manager stepped
//! on an executor that is ticked until nothing moves.

mod acks;
mod conflation;
mod cursors;
mod eviction;
mod history;
mod inbox;
mod lane;
mod manager;
mod manager_budget;
mod manager_end;
mod model;
mod overflow;
mod queue;
mod queue_bounds;
mod queue_end;
mod reader;
mod registry;
mod registry_model;
mod restart;
mod rooms;
mod subscriptions;
pub(crate) mod support;
mod threads;
mod verbs;
