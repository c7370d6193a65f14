//! What a peer says: tungstenite over the wire, for as long as it takes.
//!
//! Between two messages tungstenite knows nothing that a new one would not know, but it holds a
//! read buffer and its state: two kilobytes. So a connection borrows one when bytes have come and
//! gives it back once it holds nothing: a quiet client is its wire alone, and a message costs no
//! allocation here.
//!
//! Most need none at all. What lies in what was read, whole and in one frame, is taken from where it
//! lies: a message, which tungstenite would copy twice on the way to the same, a close frame, for
//! which it would be made and thrown away, and a pong, which says nothing. A message in one frame
//! that comes with several reads is gathered where it goes out from. Everything else is
//! tungstenite's to judge: fragments, pings, and whatever breaks a rule.

use std::io;
use std::sync::Arc;

use async_tungstenite::tungstenite::error::Error as WsError;
use async_tungstenite::tungstenite::protocol::{
    Message as WsMessage, Role, WebSocketConfig, WebSocketContext,
};

use crate::disconnect::Disconnect;
use crate::frame::{BINARY, TEXT};
use crate::hub::handle::Shared;
use crate::memory::budget::MemoryBudget;
use crate::memory::read_buffers::ReadBuffers;
use crate::message::Message;
use crate::net::stream::Transport;
use crate::websocket::decoder::{Event, FRAME_MAX};
use crate::websocket::reader::Reader;

/// The buffer that tungstenite reads the wire into. The wire has the large one.
const READ_BUFFER: usize = 1024;

/// Control frames that tungstenite may hold back while the queue has no place for them: one pong.
const WRITE_BUFFER: usize = 160;

/// A wire, and tungstenite over it while there is something for it to do.
pub(crate) struct Protocol<T> {
    pub(crate) wire: Reader<T>,
    /// There while the peer has begun something that is not gathered without it, or a frame of ours is
    /// not written.
    tungstenite: Option<Box<WebSocketContext>>,
}

impl<T: Transport> Protocol<T> {
    pub(crate) fn new(wire: Reader<T>) -> Self {
        Self { wire, tungstenite: None }
    }

    /// Whether all that was read has been heard.
    pub(crate) fn is_heard_out(&self) -> bool {
        self.tungstenite.is_none() && !self.wire.has_unread()
    }

    /// The next that the wire's bytes say, or what is wrong with them; `None` when they are not
    /// enough for anything.
    pub(crate) fn next(&mut self, pool: &ReadBuffers) -> Option<Result<Event, WsError>> {
        if self.tungstenite.is_none() {
            let next = self.wire.take_next();
            if next.is_some() {
                return next;
            }
            if !self.wire.has_unread() {
                return None;
            }
        }
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
                next => return Some(next.map(|heard| said(heard, self.wire.memory()))),
            }
        }
    }

    /// Before a poll ends: gives the borrowed buffer back, and tungstenite if it holds nothing.
    /// `pending` is whether it has to be asked again.
    pub(crate) fn settle(&mut self, shared: &Shared, pending: bool) {
        let pool = &shared.read_buffers;
        self.wire.settle(pool, &shared.timers);
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

/// What tungstenite has heard, in our own words; a message is counted in `memory`.
fn said(heard: WsMessage, memory: &Arc<MemoryBudget>) -> Event {
    match heard {
        WsMessage::Text(text) => {
            Event::Message(Message::encode_with(memory, TEXT, text.as_bytes()))
        }
        WsMessage::Binary(bytes) => Event::Message(Message::encode_with(memory, BINARY, &bytes)),
        WsMessage::Close(frame) => Event::Close(frame.map_or(Disconnect::NO_STATUS, |frame| {
            Disconnect::new(frame.code.into(), frame.reason.as_str().to_owned())
        })),
        _ => Event::Control,
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
    use std::str;
    use std::task::{Context, Poll, Waker};

    use fastrand::Rng;
    use futures_lite::io::Cursor;

    use super::*;
    use crate::config::Config;
    use crate::hub::handle::Hub;
    use crate::hub::queue::Queue;
    use crate::memory::read_buffers::READ_BUFFER_BYTES;
    use crate::net::stream::AnyStream;
    use crate::websocket::decoder::tests::frame;

    /// A client's protocol, and what the peer says next.
    struct Peer {
        hub: Hub,
        queue: Arc<Queue>,
        protocol: Protocol<AnyStream<Cursor<Vec<u8>>>>,
    }
    impl Peer {
        fn new(hub: Hub) -> Self {
            let queue = Queue::new(&hub.shared().queue_config);
            queue.open(None);
            let stream = AnyStream(Cursor::new(Vec::new()));
            let wire = Reader::new(stream, Arc::clone(&queue), Vec::new(), &hub);
            Self { hub, queue, protocol: Protocol::new(wire) }
        }

        /// What tungstenite makes of `bytes`, asked until it has nothing more.
        fn say(&mut self, bytes: &[u8]) -> Vec<Event> {
            let cx = &mut Context::from_waker(Waker::noop());
            let pool = &self.hub.shared().read_buffers;
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
            self.queue.poll_drain(cx, usize::MAX, |_, unsent| {
                unsent.write_frames(|frames| {
                    let before = sent.len();
                    frames.iter().for_each(|frame| sent.extend_from_slice(frame));
                    Poll::Ready(Ok(sent.len() - before))
                })
            });
            sent
        }

        fn is_quiet(&self) -> bool {
            self.protocol.tungstenite.is_none()
        }
    }
    fn text(text: &str) -> Event {
        Event::Message(Message::text(text))
    }
    #[test]
    fn tungstenite_is_there_only_while_something_is_being_said() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let mut peer = Peer::new(hub);
        assert!(peer.is_quiet(), "nobody has spoken");
        assert_eq!(peer.say(b"\x81\x82\0\0\0\0hi"), [text("hi")]);
        assert!(peer.is_quiet(), "a whole message leaves nothing behind");

        assert_eq!(peer.say(b"\x01\x82\0\0\0\0he"), []);
        assert!(!peer.is_quiet(), "a message has begun");
        assert_eq!(peer.say(b"\x80"), []);
        assert!(!peer.is_quiet(), "half a header");
        assert_eq!(peer.say(b"\x83\0\0\0\0llo"), [text("hello")]);
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
        assert_eq!(second.say(b"\x81\x82\0\0\0\0hi"), [text("hi")]);
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
    #[test]
    fn what_comes_in_one_frame_needs_no_tungstenite() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let mut peer = Peer::new(hub.clone());
        let both = [text("one"), Event::Message(Message::binary([2; 30_000]))];
        let stream = [frame(0x81, b"one"), frame(0x82, &[2; 30_000])].concat();
        let pool = &hub.shared().read_buffers;
        assert_eq!(peer.say(&stream), both);
        assert_eq!(peer.say(&frame(0x8a, b"pong")), [Event::Control]);
        assert_eq!(
            peer.say(&frame(0x88, b"\x03\xe9bye")),
            [Event::Close(Disconnect::new(1001, "bye"))]
        );
        assert_eq!(peer.say(&frame(0x88, b"")), [Event::Close(Disconnect::NO_STATUS)]);
        let long = frame(0x82, &[3; 60_000]);
        assert_eq!(peer.say(&long[..100]), []);
        assert_eq!(peer.say(&long[100..30_000]), []);
        let (end, next) = (&long[30_000..], frame(0x81, b"one"));
        let both = [Event::Message(Message::binary([3; 60_000])), text("one")];
        assert_eq!(peer.say(&[end, &next].concat()), both);
        assert!(pool.take_tungstenite().is_none());
        let mut peer = Peer::new(hub.clone());
        let parts = [frame(0x01, b"tw"), frame(0x80, b"o")].concat();
        assert_eq!(peer.say(&[stream, parts].concat())[2..], [text("two")]);
        assert!(pool.take_tungstenite().is_some(), "the parts behind them were for one");
        assert!(pool.take_tungstenite().is_none());
    }
    /// How much of `text` is UTF-8.
    fn valid(text: &[u8]) -> usize {
        str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len)
    }
    /// A stream of a few frames, most of them in order.
    fn stream(random: &mut Rng) -> Vec<u8> {
        let mut stream = Vec::new();
        for _ in 0..random.usize(1..8) {
            let first = match random.u8(..) {
                ..80 => 0x81,
                80..160 => 0x82,
                160..240 => [0x01, 0x02, 0x80, 0x00, 0x89, 0x8a][random.usize(..6)],
                240..248 => 0x88,
                _ => [0x83, 0x8b, 0xc1, 0xa2, 0x92, 0xc9, 0xc8, 0x09][random.usize(..8)],
            };
            let most = [4, 40, 125, 126, 130, 400, 24_000, 66_000][random.usize(..8)];
            let said = ["plain", "sch\u{f6}n", "\u{20ac}", "\u{1f980}"][random.usize(..4)];
            let mut payload = said.repeat(most / said.len() + 1).into_bytes();
            payload.truncate(random.usize(..=most));
            if first == 0x88 && random.u8(..) < 200 {
                // Most of what closes has a code, and a reason that fits.
                let codes =
                    [0, 999, 1000, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 3000, 4999, 5000];
                let reason = random.usize(..=123).min(payload.len());
                payload.truncate(if random.bool() { valid(&payload[..reason]) } else { reason });
                let code: u16 = codes[random.usize(..codes.len())];
                payload.splice(..0, code.to_be_bytes());
            }
            if first & 0x0f == 1 {
                // Most texts are whole.
                match random.u8(..) {
                    ..16 => payload = vec![0xff],
                    16..32 => {}
                    _ => payload.truncate(valid(&payload)),
                }
            }
            let mut frame = frame(first, &payload);
            let mut masked = frame.split_off(frame.len() - payload.len() - 4);
            // Another key, for which all that is masked changes alike.
            let key = random.u32(..).to_ne_bytes();
            masked.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            if random.u8(..) < 20 {
                // A length in more bytes than it needs.
                frame = vec![first, 0x80 | 127];
                frame.extend((payload.len() as u64).to_be_bytes());
            }
            frame.extend(masked);
            if random.u8(..) < 4 {
                frame[1] &= 0x7f;
            }
            stream.extend(frame);
        }
        stream.truncate(stream.len() - random.usize(..2));
        stream
    }
    /// What is made of a stream that comes in reads of `piece` bytes: what the peer says, what it is
    /// answered, and its end. `through` has all of it go through tungstenite.
    fn hear(
        config: &Config,
        stream: &[u8],
        piece: usize,
        through: bool,
    ) -> (Vec<Event>, Vec<u8>, String) {
        let (hub, _manager) = Hub::new(config.clone()).expect("valid");
        let mut peer = Peer::new(hub.clone());
        let (cx, pool) = (&mut Context::from_waker(Waker::noop()), &hub.shared().read_buffers);
        let (mut heard, mut sent) = (Vec::new(), Vec::new());
        for piece in stream.chunks(piece).chain([&[][..]]) {
            peer.protocol.wire.transport.0 = Cursor::new(piece.to_vec());
            assert!(peer.protocol.wire.poll_fill(cx, pool).is_ready());
            if through {
                let max = peer.protocol.wire.message_max();
                peer.protocol.tungstenite.get_or_insert_with(|| Box::new(tungstenite(max)));
            }
            while let Some(next) = peer.protocol.next(pool) {
                sent.extend(peer.sent());
                match next {
                    Ok(Event::Close(reason)) => return (heard, sent, format!("{reason:?}")),
                    Ok(said) => heard.push(said),
                    Err(WsError::Utf8(_)) => return (heard, sent, "not UTF-8".into()),
                    // The wire looks ahead: its fault is one when tungstenite has come to it.
                    Err(WsError::Io(_)) => {
                        return (heard, sent, format!("{:?}", peer.protocol.wire.take_fault()));
                    }
                    Err(error) => return (heard, sent, format!("{error:?}")),
                }
            }
            sent.extend(peer.sent());
            peer.protocol.settle(hub.shared(), false);
        }
        unreachable!("the end of the stream is an end");
    }
    #[test]
    fn what_goes_past_tungstenite_means_what_it_would_through_it() {
        for seed in 0..400 {
            let random = &mut Rng::with_seed(seed);
            let stream = stream(random);
            let longest = [20_000, 65_535][random.usize(..2)];
            let mut config = Config::default().max_message(longest).max_fragments(3);
            if random.bool() {
                config = config.max_memory(Some(1 << 24));
            }
            let expected = hear(&config, &stream, READ_BUFFER_BYTES, true);
            for piece in [READ_BUFFER_BYTES, random.usize(1..40), random.usize(40..9000)] {
                let heard = hear(&config, &stream, piece, false);
                assert!(
                    heard == expected,
                    "seed {seed}, in pieces of {piece}: {heard:?}\n{expected:?}"
                );
            }
        }
    }
}
