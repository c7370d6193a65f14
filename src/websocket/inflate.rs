//! From the payload of a compressed message to the message (RFC 7692 7.2.2).

use std::str;
use std::sync::Arc;

use crate::deflate::inflater::Flaw;
use crate::disconnect::Disconnect;
use crate::frame::{FRAME_HEADER_MAX, TEXT, header};
use crate::memory::budget::{MemoryBudget, allocation};
use crate::message::Message;

/// Bytes of the header of a frame of 126 to 65,535 bytes, where the payload is inflated behind.
const USUAL_HEADER: usize = 4;

/// Bytes of payload from which a message may be inflated in the hub's frame buffer. As little as
/// this becomes more than that is for.
const LONG: usize = 512;

/// Bytes of payload that a compressed message has at most, if it may have `message_max` bytes.
///
/// Stored blocks make it longer than what is in them, by 5 bytes for each. zlib stores blocks of 127
/// bytes where it has the least memory, so a sixteenth is enough.
pub(crate) fn compressed_max(message_max: u32) -> u32 {
    message_max + message_max / 16 + 64
}

/// Makes the message that `payload` stands for, with this first byte of its frame.
///
/// In one call, so that no client keeps an inflater. What is allocated grows with
/// what has come out, is on the account, and ends with `message_max`.
pub(crate) fn inflate(
    payload: &[u8],
    first: u8,
    message_max: u32,
    memory: &Arc<MemoryBudget>,
) -> Result<Message, Disconnect> {
    let most = message_max as usize;
    let is_long = payload.len() >= LONG;
    let frame_buffer = memory.frame_buffer();
    let lent = is_long.then(|| frame_buffer.try_acquire(most + FRAME_HEADER_MAX)).flatten();
    let is_lent = lent.is_some();
    let mut frame = lent.unwrap_or_default();
    let mut charge = memory.charge(0);
    frame.resize(USUAL_HEADER, 0);
    let grown = |len| charge.resize(if is_lent { 0 } else { allocation(2 * len) });
    let inflated = memory.inflate(payload, most, &mut frame, grown);
    let checked = match inflated {
        Ok(()) if first == TEXT && str::from_utf8(&frame[USUAL_HEADER..]).is_err() => {
            Err(Disconnect::INVALID_TEXT)
        }
        Ok(()) => Ok(()),
        Err(Flaw::Corrupt) => {
            Err(Disconnect::new(Disconnect::INVALID_TEXT.code(), "corrupt compressed message"))
        }
        Err(Flaw::TooLong) => Err(too_long(message_max)),
    };
    if let Err(disconnect) = checked {
        frame_buffer.release(frame);
        return Err(disconnect);
    }
    let header = header(first, frame.len() - USUAL_HEADER);
    frame.splice(..USUAL_HEADER, header.iter().copied());
    if !is_lent {
        frame.shrink_to_fit();
    }
    Ok(Message::from_frame(frame, memory))
}

/// A close reason for a message that is longer than it may be.
pub(crate) fn too_long(message_max: u32) -> Disconnect {
    let reason = format!("message longer than {message_max} bytes");
    Disconnect::new(Disconnect::TOO_LONG.code(), reason)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::config::Config;
    use crate::deflate::tests::data;
    use crate::frame::BINARY;
    use crate::hub::tests::support::deflated;
    use crate::websocket::decoder::tests::{decode, frame};
    use crate::websocket::decoder::{Decoder, Event, Limits};

    /// What a decoder makes of pieces, where compression is negotiated.
    fn decoded(message_max: usize, pieces: &[&[u8]]) -> Vec<Result<Event, Disconnect>> {
        let config = Config::default().max_message(message_max).max_fragments(4);
        decode(&mut Decoder::default(), Limits::of(&config, true), pieces)
    }
    fn inflated(text: &str) -> Result<Event, Disconnect> {
        Ok(Event::Inflated(Message::text(text)))
    }
    fn broken(code: u16, reason: &'static str) -> Result<Event, Disconnect> {
        Err(Disconnect::new(code, reason))
    }
    #[test]
    fn every_cut_of_compressed_messages_gives_the_same_events() {
        let long = "sch\u{f6}n und sch\u{f6}ner ".repeat(30);
        let payload = deflated(long.as_bytes());
        let (first, rest) = payload.split_at(7);
        let (second, third) = rest.split_at(rest.len() / 2);
        let stream = [
            frame(0xc1, &deflated(b"one, one, one")),
            frame(0x81, b"plain"),
            frame(0x41, first),
            frame(0x89, b"ping"),
            frame(0x00, second),
            frame(0x8a, b""),
            frame(0x80, third),
            frame(0xc2, &deflated(b"")),
            frame(0xc1, &payload),
            frame(0x88, b"\x03\xe8"),
        ]
        .concat();
        let expected = [
            inflated("one, one, one"),
            Ok(Event::Message(Message::text("plain"))),
            Ok(Event::Ping(b"ping".to_vec())),
            Ok(Event::Pong),
            inflated(&long),
            Ok(Event::Inflated(Message::binary(b""))),
            inflated(&long),
            Ok(Event::Close(Disconnect::NORMAL)),
        ];
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let (middle, tail) = tail.split_at(tail.len() / 2);
            assert_eq!(decoded(65_536, &[head, middle, tail]), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decoded(65_536, &bytes), expected);
    }
    #[test]
    fn rsv1_stands_on_the_first_frame_of_a_message_and_nowhere_else() {
        for header in [0xc0, 0xc8, 0xc9, 0xca, 0xe1, 0xd1, 0xb1, 0x70] {
            assert_eq!(
                decoded(100, &[&frame(header, b"")]),
                [broken(1002, "frame with reserved bits")]
            );
        }
        let inside = [frame(0x41, b""), frame(0xc0, b"")].concat();
        assert_eq!(decoded(100, &[&inside]), [broken(1002, "frame with reserved bits")]);
        let config = Config::default();
        let limits = Limits::of(&config, false);
        for header in [0xc1, 0xc2, 0x41] {
            let heard = decode(&mut Decoder::default(), limits, &[&frame(header, b"\0")]);
            assert_eq!(heard, [broken(1002, "frame with reserved bits")], "not negotiated");
        }
    }
    #[test]
    fn the_limit_is_that_of_the_message_and_a_payload_may_be_a_little_longer() {
        let message = [b'x'; 1000];
        // Stored blocks, which are longer than what is in them (RFC 1951 3.2.4).
        let stored: Vec<u8> = message
            .chunks(127)
            .flat_map(|block| {
                let len = block.len() as u16;
                [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), block].concat()
            })
            .chain([0])
            .collect();
        assert!(stored.len() > 1040);
        let whole = || Ok(Event::Inflated(Message::binary(message)));
        let too_long = |max: u32| Err(super::too_long(max));
        for payload in [stored, deflated(&message)] {
            let fragments = payload.split_at(payload.len() / 2);
            let fragments = [frame(0x42, fragments.0), frame(0x80, fragments.1)].concat();
            for stream in [frame(0xc2, &payload), fragments] {
                assert_eq!(decoded(1000, &[&stream]), [whole()]);
                assert_eq!(decoded(999, &[&stream]), [too_long(999)]);
                let (head, tail) = stream.split_at(stream.len() - 1);
                assert_eq!(decoded(999, &[head, tail]), [too_long(999)]);
            }
        }
        // What no message of the limit becomes is refused with its header.
        let endless = &frame(0xc2, &[0; 1200])[..8];
        assert_eq!(decoded(1000, &[endless]), [too_long(1000)]);
        let fragments = [frame(0x42, &[0; 600]), frame(0x00, &[0; 600])].concat();
        assert_eq!(decoded(1000, &[&fragments]), [too_long(1000)]);
        assert_eq!(decoded(100, &[&frame(0xc2, &deflated(&[0; 1 << 20]))]), [too_long(100)]);
    }
    #[test]
    fn what_is_no_stream_or_no_text_is_invalid() {
        let corrupt = || Disconnect::new(1007, "corrupt compressed message");
        let (whole, bad) = (deflated(b"hello, hello"), deflated(b"sch\xc3n sch\xc3n"));
        for (payload, expected) in [
            (&[7, 7, 7][..], corrupt()),
            (b"", corrupt()),
            (&whole[..whole.len() - 2], corrupt()),
            (&[&whole[..], b"x"].concat(), corrupt()),
            (&bad, Disconnect::INVALID_TEXT),
        ] {
            assert_eq!(decoded(100, &[&frame(0xc1, payload)]), [Err(expected.clone())]);
            let stream = [frame(0x41, payload), frame(0x80, b"")].concat();
            assert_eq!(decoded(100, &[&stream]), [Err(expected)]);
        }
        let binary = Ok(Event::Inflated(Message::binary(b"sch\xc3n sch\xc3n")));
        assert_eq!(decoded(100, &[&frame(0xc2, &bad)]), [binary], "binary may be anything");
        // A character may end in the next fragment, and a payload anywhere.
        let five = [frame(0x41, b""), frame(0x00, b"").repeat(4)].concat();
        assert_eq!(decoded(100, &[&five]), [broken(1008, "more than 4 fragments")]);
    }
    /// Nothing stays charged, no buffer is kept, and the frame is what a plain message would be.
    #[test]
    fn a_message_is_made_whatever_its_length_and_nothing_else_stays() {
        let (memory, random) = (Arc::<MemoryBudget>::default(), &mut Rng::with_seed(3));
        for round in 0..200 {
            let len = [random.usize(..200), random.usize(..5000), random.usize(..70_000)];
            let data = data(random, len[round % 3]);
            let payload = deflated(&data);
            let message = inflate(&payload, BINARY, 70_000, &memory).expect("it fits");
            assert_eq!(message, Message::binary(&data));
            assert_eq!(memory.charged(), message.size());
            drop(message);
            let cut = inflate(&payload, BINARY, (data.len() / 2) as u32, &memory);
            assert_eq!(cut.is_err(), !data.is_empty());
            drop(cut);
            assert_eq!(memory.charged(), 0);
            let lent = memory.frame_buffer().try_acquire(60_000).expect("it came back");
            memory.frame_buffer().release(lent);
        }
    }
}
