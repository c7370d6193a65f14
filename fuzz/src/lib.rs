//! What is done with the fuzzer's bytes.
//!
//! `tests/corpus.rs` of the hub takes these modules in and replays the corpus on stable.

pub mod connection;
pub mod frames;
pub mod head;
pub mod jwt;
pub mod meter;
pub mod reference;
pub mod room;
pub mod stage;
