//! The fuzz targets.
//!
//! `tests/corpus.rs` of the hub includes these modules and replays the corpus on stable.

pub mod body;
pub mod connection;
pub mod deflated;
pub mod frames;
pub mod head;
pub mod jwt;
pub mod meter;
pub mod reference;
pub mod resp;
pub mod room;
pub mod stage;
pub mod state;
