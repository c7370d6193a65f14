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

use super::scan::FRAME_MAX;
use super::transport::Transport;
use super::wire::Wire;
use crate::hub::Shared;
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
        let tungstenite = self.tungstenite.get_or_insert_with(borrow);
        loop {
            match tungstenite.read(&mut self.wire) {
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    // It holds one frame back behind another, and writes one in a read.
                    if !self.wire.take_wrote() {
                        return None;
                    }
                }
                next => return Some(next),
            }
        }
    }

    /// Before a poll ends: gives the borrowed buffer back, and tungstenite if it holds nothing.
    /// `pending` is whether it has to be asked again.
    pub(super) fn settle(&mut self, shared: &Shared, pending: bool) {
        let pool = &shared.scratch;
        self.wire.settle(pool, &shared.timekeeper);
        if !pending && self.wire.is_quiet() {
            if let Some(tungstenite) = self.tungstenite.take() {
                // One that has answered is not lent on: what it says is never another client's.
                if !self.wire.take_answered() {
                    pool.give_tungstenite(tungstenite);
                }
            }
        }
    }
}

/// A tungstenite for one of the hub's clients, or for one after another of them.
fn tungstenite(message_max: usize) -> WebSocketContext {
    // The longest frame is the wire's affair, and so are the masks.
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(message_max))
        .max_frame_size(Some(FRAME_MAX))
        .accept_unmasked_frames(true);
    WebSocketContext::new(Role::Server, Some(limits))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use futures_lite::io::Cursor;

    use super::*;
    use crate::hub::Queue;
    use crate::serve::transport::Foreign;
    use crate::{Config, Hub};

    /// A client's protocol, and what the peer says next.
    struct Peer {
        hub: Hub,
        queue: Arc<Queue>,
        protocol: Protocol<Foreign<Cursor<Vec<u8>>>>,
    }

    impl Peer {
        fn new(hub: Hub) -> Self {
            let queue = Queue::new(&hub.shared().terms);
            queue.open(None);
            let stream = Foreign(Cursor::new(Vec::new()));
            let wire = Wire::new(stream, Arc::clone(&queue), Vec::new(), &hub);
            Self { hub, queue, protocol: Protocol::new(wire) }
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
            self.protocol.settle(self.hub.shared(), false);
            heard
        }

        /// What tungstenite has written, taken out of the queue.
        fn sent(&mut self) -> Vec<u8> {
            let cx = &mut Context::from_waker(Waker::noop());
            let mut sent = Vec::new();
            self.queue.poll_drain(cx, usize::MAX, |_, frames| {
                let before = sent.len();
                frames.iter().for_each(|frame| sent.extend_from_slice(frame));
                Poll::Ready(Ok(sent.len() - before))
            });
            sent
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
    fn every_pong_goes_to_who_asked_and_to_nobody_else() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let mut first = Peer::new(hub.clone());
        let pings: Vec<u8> =
            (0..4).flat_map(|number| [&b"\x89\xfd\0\0\0\0"[..], &[number; 125]].concat()).collect();
        assert_eq!(first.say(&pings).len(), 4);
        assert!(!first.is_quiet(), "two pongs have no place in the queue");
        let mut pongs = first.sent();
        assert!(first.protocol.wire.take_starved());
        assert_eq!(first.say(b""), []);
        pongs.extend(first.sent());
        let expected: Vec<u8> =
            (0..4).flat_map(|number| [&[0x8a, 125][..], &[number; 125]].concat()).collect();
        assert_eq!(pongs, expected);
        assert!(first.is_quiet());

        let mut second = Peer::new(hub);
        assert_eq!(second.say(b"\x81\x82\0\0\0\0hi"), [WsMessage::text("hi")]);
        assert_eq!(second.sent(), []);
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
