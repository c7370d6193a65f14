//! The memory account of a hub.

#[path = "../../../src/memory/budget.rs"]
pub(crate) mod budget;
#[path = "../../../src/memory/deflate_states.rs"]
mod deflate_states;
#[path = "../../../src/memory/frame_buffer.rs"]
mod frame_buffer;
