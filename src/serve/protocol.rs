//! Tungstenite over the wire, for as long as the peer is saying something.
//!
//! Between two messages tungstenite knows nothing that a new one would not know, but it holds a
//! read buffer and its state: two kilobytes. So a connection borrows one when bytes have come and
//! gives it back once it holds nothing: a quiet client is its wire alone, and a message costs no
//! allocation here.

use std::io;

use async_tungstenite::tungstenite::error::Error as WsError;
use async_tungstenite::tungstenite::protocol::{
    Message as WsMessage, Role, WebSocketConfig, WebSocketContext,
};

use super::transport::Transport;
use super::wire::{CHUNK, Wire};
use crate::scratch::Scratch;

/// The buffer that tungstenite reads the wire into. The wire has the large one.
const READ_BUFFER: usize = 1024;

/// Control frames that tungstenite may hold back while the queue has no place for them: one pong.
const WRITE_BUFFER: usize = 160;

/// A wire, and tungstenite over it while there is something for it to do.
pub(super) struct Protocol<T> {
    pub(super) wire: Wire<T>,
    /// There while the peer has begun something, or a frame of ours is not written.
    tungstenite: Option<Box<WebSocketContext>>,
}

impl<T: Transport> Protocol<T> {
    pub(super) fn new(wire: Wire<T>) -> Self {
        Self { wire, tungstenite: None }
    }

    /// The next message that the wire's bytes make, or what is wrong with them; `None` when they
    /// are not enough for one.
    pub(super) fn next(&mut self, pool: &Scratch) -> Option<Result<WsMessage, WsError>> {
        let max = self.wire.message_max();
        let borrow = || pool.take_tungstenite().unwrap_or_else(|| Box::new(tungstenite(max)));
        match self.tungstenite.get_or_insert_with(borrow).read(&mut self.wire) {
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            next => Some(next),
        }
    }

    /// Before a poll ends: gives the borrowed buffer back, and tungstenite if it holds nothing.
    /// `pending` is whether it has to be asked again.
    pub(super) fn settle(&mut self, pool: &Scratch, pending: bool) {
        self.wire.settle(pool);
        if !pending && self.wire.is_quiet() {
            if let Some(tungstenite) = self.tungstenite.take() {
                pool.give_tungstenite(tungstenite);
            }
        }
    }
}

/// A tungstenite for one of the hub's clients, or for one after another of them.
fn tungstenite(message_max: usize) -> WebSocketContext {
    // The longest frame is the wire's affair: what it hands on is cut into short ones.
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(message_max))
        .max_frame_size(Some(CHUNK as usize));
    WebSocketContext::new(Role::Server, Some(limits))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use futures_lite::io::Cursor;

    use super::*;
    use crate::hub::Queue;
    use crate::serve::transport::Foreign;
    use crate::{Config, Hub};

    /// A client's protocol, and what the peer says next.
    struct Peer {
        hub: Hub,
        protocol: Protocol<Foreign<Cursor<Vec<u8>>>>,
    }

    impl Peer {
        fn new(hub: Hub) -> Self {
            let queue = Queue::new(&hub.shared().terms);
            queue.open(None);
            let wire = Wire::new(Foreign(Cursor::new(Vec::new())), queue, Vec::new(), &hub);
            Self { hub, protocol: Protocol::new(wire) }
        }

        /// What tungstenite makes of `bytes`, asked until it has nothing more.
        fn say(&mut self, bytes: &[u8]) -> Vec<WsMessage> {
            let cx = &mut Context::from_waker(Waker::noop());
            let pool = &self.hub.shared().scratch;
            if !bytes.is_empty() {
                let wire = &mut self.protocol.wire;
                wire.transport.0 = Cursor::new(bytes.to_vec());
                assert!(wire.poll_fill(cx, pool).is_ready());
            }
            let mut heard = Vec::new();
            while let Some(next) = self.protocol.next(pool) {
                heard.push(next.expect("well-formed"));
            }
            self.protocol.settle(pool, false);
            heard
        }

        fn is_quiet(&self) -> bool {
            self.protocol.tungstenite.is_none()
        }
    }

    #[test]
    fn tungstenite_is_there_only_while_something_is_being_said() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let mut peer = Peer::new(hub);
        assert!(peer.is_quiet(), "nobody has spoken");
        assert_eq!(peer.say(b"\x81\x82\0\0\0\0hi"), [WsMessage::text("hi")]);
        assert!(peer.is_quiet(), "a whole message leaves nothing behind");

        assert_eq!(peer.say(b"\x01\x82\0\0\0\0he"), []);
        assert!(!peer.is_quiet(), "a message has begun");
        assert_eq!(peer.say(b"\x80"), []);
        assert!(!peer.is_quiet(), "half a header");
        assert_eq!(peer.say(b"\x83\0\0\0\0llo"), [WsMessage::text("hello")]);
        assert!(peer.is_quiet());
    }

    #[test]
    fn tungstenite_stays_while_it_holds_a_pong_back() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let mut peer = Peer::new(hub);
        let ping = [&b"\x89\xfd\0\0\0\0"[..], &[7; 125]].concat();
        assert_eq!(peer.say(&ping.repeat(2)).len(), 2);
        assert!(peer.is_quiet(), "two pongs wait in the queue");
        assert_eq!(peer.say(&ping).len(), 1);
        assert!(!peer.is_quiet(), "a third has no place there");
    }
}
