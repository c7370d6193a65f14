//! Tungstenite over the wire, for as long as the peer is saying something.
//!
//! Between two messages tungstenite knows nothing that a new one would not know, but it holds a
//! read buffer and the wakers of its stream: half a kilobyte. So it is made when bytes have come
//! and let go when it holds nothing, and a quiet client is its wire alone.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::Error as WsError;
use async_tungstenite::tungstenite::protocol::{Message as WsMessage, Role, WebSocketConfig};
use futures_lite::Stream as _;

use super::transport::Transport;
use super::wire::{CHUNK, Wire};
use crate::hub::Scratch;

/// The buffer that tungstenite reads the wire into. The wire has the large one.
const READ_BUFFER: usize = 1024;

/// Control frames that tungstenite may hold back while the queue has no place for them: one pong.
const WRITE_BUFFER: usize = 160;

/// A wire, and tungstenite over it while there is something for it to do.
pub(super) struct Protocol<T> {
    state: State<T>,
}

enum State<T> {
    /// The peer has said all that it has begun to say.
    Quiet(Wire<T>),
    /// Bytes have come, or tungstenite holds a frame that is not whole or not written.
    Speaking(Box<WebSocketStream<Wire<T>>>),
    /// Only inside a change from one to the other.
    Turning,
}

impl<T: Transport> Protocol<T> {
    pub(super) fn new(wire: Wire<T>) -> Self {
        Self { state: State::Quiet(wire) }
    }

    pub(super) fn wire(&self) -> &Wire<T> {
        match &self.state {
            State::Quiet(wire) => wire,
            State::Speaking(websocket) => websocket.get_ref(),
            State::Turning => unreachable!("a change of state is over when it returns"),
        }
    }

    pub(super) fn wire_mut(&mut self) -> &mut Wire<T> {
        match &mut self.state {
            State::Quiet(wire) => wire,
            State::Speaking(websocket) => websocket.get_mut(),
            State::Turning => unreachable!("a change of state is over when it returns"),
        }
    }

    /// Reads the wire through tungstenite.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<WsMessage, WsError>>> {
        if let State::Quiet(_) = self.state {
            self.begin(cx);
        }
        let State::Speaking(websocket) = &mut self.state else { return Poll::Pending };
        Pin::new(&mut **websocket).poll_next(cx)
    }

    /// Before a poll ends: gives the borrowed buffer back, and lets tungstenite go if it holds
    /// nothing. `pending` is whether it has to be asked again.
    pub(super) fn settle(&mut self, pool: &Scratch, pending: bool) {
        self.wire_mut().settle(pool);
        if !pending && self.wire().is_quiet() {
            self.state = match std::mem::replace(&mut self.state, State::Turning) {
                State::Speaking(websocket) => State::Quiet(websocket.into_inner()),
                state => state,
            };
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        let State::Quiet(wire) = std::mem::replace(&mut self.state, State::Turning) else { return };
        // The longest frame is the wire's affair: what it hands on is cut into short ones.
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(wire.message_max()))
            .max_frame_size(Some(CHUNK as usize));
        let websocket = pin!(WebSocketStream::from_raw_socket(wire, Role::Server, Some(limits)));
        // It is async for no reason but uniformity: there is no handshake to wait for.
        if let Poll::Ready(websocket) = websocket.poll(cx) {
            self.state = State::Speaking(Box::new(websocket));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

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
                let wire = self.protocol.wire_mut();
                wire.transport.0 = Cursor::new(bytes.to_vec());
                assert!(wire.poll_fill(cx, pool).is_ready());
            }
            let mut heard = Vec::new();
            while let Poll::Ready(next) = self.protocol.poll_next(cx) {
                heard.push(next.expect("it goes on").expect("well-formed"));
            }
            self.protocol.settle(pool, false);
            heard
        }

        fn is_quiet(&self) -> bool {
            matches!(self.protocol.state, State::Quiet(_))
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
