//! What connections borrow while their peer is saying something.

use std::sync::{Mutex, PoisonError};

use async_tungstenite::tungstenite::protocol::WebSocketContext;

/// Bytes of one buffer: what one read takes from a socket at most.
pub(crate) const READ_BUFFER_BYTES: usize = 32 * 1024;

/// Of each kind, how many are kept for the next borrower at most; more than this many threads poll
/// at once rarely.
const KEPT_MAX: usize = 8;

/// A pool of read buffers, one in use for each thread that polls a connection just now, and of
/// tungstenites, one in use for each connection that is in the middle of fragments.
///
/// So ten thousand idle connections own neither, and a read is still a large one.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "who borrows a tungstenite keeps a pointer, to stay small")]
pub(crate) struct ReadBuffers {
    buffers: Mutex<Vec<Box<[u8]>>>,
    tungstenites: Mutex<Vec<Box<WebSocketContext>>>,
}

impl ReadBuffers {
    /// Takes a buffer of [`SCRATCH_BYTES`]; give it back before the poll ends.
    pub(crate) fn acquire(&self) -> Box<[u8]> {
        pop(&self.buffers).unwrap_or_else(|| vec![0; READ_BUFFER_BYTES].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub(crate) fn release(&self, buffer: Box<[u8]>) {
        if buffer.len() == READ_BUFFER_BYTES {
            keep(&self.buffers, buffer);
        }
    }

    /// Takes a tungstenite that knows nothing, if there is one.
    pub(crate) fn take_tungstenite(&self) -> Option<Box<WebSocketContext>> {
        pop(&self.tungstenites)
    }

    /// Gives a tungstenite back that knows nothing: no frame and no message has begun, no frame of
    /// ours is held back.
    pub(crate) fn give_tungstenite(&self, tungstenite: Box<WebSocketContext>) {
        keep(&self.tungstenites, tungstenite);
    }
}

fn pop<T>(pool: &Mutex<Vec<T>>) -> Option<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn keep<T>(pool: &Mutex<Vec<T>>, lent: T) {
    let mut free = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if free.len() < KEPT_MAX {
        free.push(lent);
    }
}
