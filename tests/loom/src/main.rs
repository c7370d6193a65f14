//! Tests the types that several threads share, in every order of threads: a client's queue, the
//! slot of a reply, the senders that wait for the inbox, the readiness of a socket, and the timers.
//!
//! The sources are the hub's own; only the lock is loom's. loom reports a lost wake as a deadlock,
//! with the order of threads that led to it.
#![allow(dead_code, unexpected_cfgs, unused_imports, unreachable_pub, reason = "only a part of the hub is run")]

#[path = "../../../src/config.rs"]
mod config;
#[path = "../../../src/deflate/mod.rs"]
mod deflate;
#[path = "../../../src/disconnect.rs"]
mod disconnect;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/frame.rs"]
mod frame;
#[path = "../../../src/history_rule.rs"]
mod history_rule;
#[path = "../../../src/hub/mod.rs"]
mod hub;
#[path = "../../../src/label.rs"]
mod label;
#[path = "../../../src/limits/mod.rs"]
mod limits;
#[path = "../../../src/memory/mod.rs"]
mod memory;
#[path = "../../../src/message.rs"]
mod message;
mod models;
#[path = "../../../src/name.rs"]
mod name;
mod net;
#[path = "../../../src/network.rs"]
mod network;
#[path = "../../../src/overflow.rs"]
mod overflow;
#[path = "../../../src/peer.rs"]
mod peer;
#[path = "../../../src/percent.rs"]
mod percent;
#[path = "../../../src/rate.rs"]
mod rate;
#[path = "../../../src/redis_config.rs"]
mod redis_config;
#[path = "../../../src/stats.rs"]
mod stats;
mod sync;
mod time;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn main() {
    for (name, model) in models::ALL {
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&orders);
        loom::model(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        println!("{name}: {} orders", orders.load(Ordering::Relaxed));
    }
    println!("{} passed, 0 failed", models::ALL.len());
}
