//! The memory of a hub: its account, and the buffers that connections share.

pub(crate) mod budget;
pub(crate) mod deflate_states;
pub(crate) mod frame_buffer;
pub(crate) mod read_buffers;
