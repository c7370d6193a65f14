//! The simulation: the hub and its connections on an executor, a network and a clock that a seed
//! drives.

pub(crate) mod time;
