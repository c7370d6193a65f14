//! The hub, from the outside.
