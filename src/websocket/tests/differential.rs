//! The reader beside tungstenite's own: both hear the same of any stream.

use std::io::{self, Read, Write};
use std::str;

use async_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use async_tungstenite::tungstenite::protocol::{
    Message as WsMessage, Role, WebSocketConfig, WebSocketContext,
};
use fastrand::Rng;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::memory::read_buffers::READ_BUFFER_BYTES;
use crate::message::Message;
use crate::websocket::decoder::Event;
use crate::websocket::decoder::tests::frame;
use crate::websocket::reader::tests::Peer;

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
            let codes = [0, 999, 1000, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 3000, 4999, 5000];
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

/// A stream for tungstenite: it reads what is there and writes to nowhere.
struct Tape<'a>(&'a [u8]);
impl Read for Tape<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Events, and the close frame or the broken rule behind them; `None` where the stream ends.
type Heard = (Vec<Event>, Option<Result<Disconnect, Disconnect>>);

/// What tungstenite's own reader hears.
fn reference(stream: &[u8], message_max: usize) -> Heard {
    let limits =
        WebSocketConfig::default().max_message_size(Some(message_max)).max_frame_size(None);
    let mut tungstenite = WebSocketContext::new(Role::Server, Some(limits));
    let (mut tape, mut events) = (Tape(stream), Vec::new());
    let broken = |rule| Disconnect::new(Disconnect::PROTOCOL_ERROR.code(), rule);
    loop {
        let end = match tungstenite.read(&mut tape) {
            Ok(WsMessage::Text(text)) => {
                events.push(Event::Message(Message::text(text.as_str())));
                continue;
            }
            Ok(WsMessage::Binary(bytes)) => {
                events.push(Event::Message(Message::binary(bytes)));
                continue;
            }
            Ok(WsMessage::Ping(payload)) => {
                events.push(Event::Ping(payload.to_vec()));
                continue;
            }
            Ok(WsMessage::Pong(_)) => {
                events.push(Event::Pong);
                continue;
            }
            Ok(WsMessage::Close(None)) => Ok(Disconnect::NO_STATUS),
            Ok(WsMessage::Close(Some(frame))) => {
                Ok(Disconnect::new(frame.code.into(), frame.reason.as_str().to_owned()))
            }
            Ok(WsMessage::Frame(_)) => unreachable!("tungstenite reads none"),
            Err(WsError::Utf8(_)) => Err(Disconnect::INVALID_TEXT),
            Err(WsError::Capacity(_)) => {
                let reason = format!("message longer than {message_max} bytes");
                Err(Disconnect::new(Disconnect::TOO_LONG.code(), reason))
            }
            Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (events, None);
            }
            Err(WsError::Protocol(error)) => Err(broken(rule(&error))),
            Err(error) => panic!("{error}"),
        };
        return (events, Some(end));
    }
}

/// What a peer did wrong (RFC 6455 5.2, 5.4, 5.5), in the words of a close frame.
fn rule(error: &ProtocolError) -> &'static str {
    match error {
        ProtocolError::UnmaskedFrameFromClient => "frame without a mask",
        ProtocolError::NonZeroReservedBits => "frame with reserved bits",
        ProtocolError::InvalidOpcode(_) => "frame with a reserved opcode",
        ProtocolError::FragmentedControlFrame => "fragmented control frame",
        ProtocolError::ControlFrameTooBig => "control frame longer than 125 bytes",
        ProtocolError::UnexpectedContinueFrame => "continuation frame without a message",
        ProtocolError::ExpectedFragment(_) => "new message inside a fragmented message",
        ProtocolError::InvalidCloseSequence => "malformed close frame",
        other => panic!("{other}"),
    }
}

/// What a reader hears of a stream that comes in these pieces, in a poll each or all in one.
fn hear<'a>(hub: &Hub, in_one: bool, pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut peer = Peer::of(hub, b"");
    let mut events = Vec::new();
    for piece in pieces {
        for event in if in_one { peer.read(piece) } else { peer.say(piece) } {
            match event {
                Ok(Event::Close(reason)) => return (events, Some(Ok(reason))),
                Ok(event) => events.push(event),
                Err(violation) => return (events, Some(Err(violation))),
            }
        }
    }
    (events, None)
}

#[test]
fn every_stream_is_heard_as_tungstenite_hears_it() {
    for seed in 0..400 {
        let random = &mut Rng::with_seed(seed);
        let stream = stream(random);
        let longest = [20_000, 65_535][random.usize(..2)];
        let mut config = Config::default().max_message(longest);
        if random.bool() {
            config = config.max_memory(Some(1 << 24));
        }
        let (hub, _manager) = Hub::new(config).expect("valid");
        let expected = reference(&stream, longest);
        let check = |heard: Heard, cut: usize| {
            // Tungstenite judges most rules once the frame is whole.
            let is_early = expected.1.is_none() && matches!(heard.1, Some(Err(_)));
            let padded = || reference(&[&stream[..], &[0; 140_000]].concat(), longest);
            let expected = if is_early { &padded() } else { &expected };
            assert!(heard == *expected, "seed {seed}, {cut}: {heard:?}\n{expected:?}");
        };
        for piece in [READ_BUFFER_BYTES, random.usize(1..40), random.usize(40..9000)] {
            for in_one in [false, true] {
                check(hear(&hub, in_one, stream.chunks(piece)), piece);
            }
        }
        if stream.len() < 250 {
            for cut in 0..stream.len() {
                let pieces = [&stream[..cut], &stream[cut..]];
                check(hear(&hub, random.bool(), pieces.into_iter()), cut);
            }
        }
    }
}
