//! The binary, from the outside.
