//! The options of the pipe.

use std::sync::Arc;
use std::time::Duration;

use crate::flags::options::Options;

/// The options of the pipe.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The room that lines of standard input go to.
    pub(crate) stdin: Option<Arc<str>>,
    /// The room whose messages are lines of standard output.
    pub(crate) stdout: Option<Arc<str>>,
    /// Whether the output prints the input's messages, if both are in the same room.
    pub(crate) echo: bool,
    /// The longest line, in bytes.
    pub(crate) max_message: usize,
    /// Messages that a member's queue may hold.
    pub(crate) queue: usize,
    /// Bytes that a member's queue may hold.
    pub(crate) queue_bytes: usize,
    /// How long the input waits for a member that is behind.
    pub(crate) write_timeout: Duration,
    /// How long a drain takes at most, standard output included.
    pub(crate) drain_max: Duration,
}

impl Plan {
    pub(crate) fn of(options: &Options) -> Self {
        let config = &options.config;
        Self {
            stdin: options.stdin.clone(),
            stdout: options.stdout.clone(),
            echo: options.echo,
            max_message: config.max_message,
            queue: config.queue,
            queue_bytes: config.queue_bytes,
            write_timeout: config.write_timeout,
            drain_max: config.drain_max(),
        }
    }
}
