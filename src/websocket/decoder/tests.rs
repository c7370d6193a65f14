//! Tests of `websocket/decoder.rs`.

use super::*;

/// A masked frame with a mask of 1, 2, 3, 4.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// All that `decoder` makes of bytes that come in pieces; the last is what breaks a rule.
pub(crate) fn decode(
    decoder: &mut Decoder,
    limits: Limits,
    pieces: &[&[u8]],
) -> Vec<Result<Event, Disconnect>> {
    let (memory, mut events, mut unread) = (Arc::default(), Vec::new(), Vec::new());
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            let (taken, event) = decoder.decode(&mut unread, limits, &memory);
            unread.drain(..taken);
            assert!(event.is_some() || unread.len() <= UNDECODED_MAX);
            let Some(event) = event else { break };
            events.push(event);
            if events.last().is_some_and(Result::is_err) {
                return events;
            }
        }
    }
    events
}
const LIMITS: Limits = Limits { message_max: 65536, fragments_max: 1024, inflates: false };
/// What a new decoder makes of pieces.
fn decode_new(pieces: &[&[u8]]) -> Vec<Result<Event, Disconnect>> {
    decode(&mut Decoder::default(), LIMITS, pieces)
}
fn message(text: &str) -> Result<Event, Disconnect> {
    Ok(Event::Message(Message::text(text)))
}
#[test]
fn every_cut_of_a_stream_gives_the_same_events() {
    let long = "sch\u{f6}n".repeat(30);
    let stream = [
        frame(0x81, b"one"),
        frame(0x01, "sch\u{f6}".as_bytes().split_last().expect("a byte").1),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, b"\xb6n"),
        frame(0x82, b""),
        frame(0x8a, b""),
        frame(0x81, long.as_bytes()),
        frame(0x88, b"\x03\xe9bye"),
    ]
    .concat();
    let expected = [
        message("one"),
        Ok(Event::Ping(b"ping".to_vec())),
        message("sch\u{f6}n"),
        Ok(Event::Message(Message::binary(b""))),
        Ok(Event::Pong),
        message(&long),
        Ok(Event::Close(Disconnect::new(1001, "bye"))),
    ];
    for first in 0..=stream.len() {
        let (head, tail) = stream.split_at(first);
        for second in [0, 1, 2, tail.len() / 2, tail.len()] {
            let (middle, tail) = tail.split_at(second.min(tail.len()));
            let events = decode_new(&[head, middle, tail]);
            assert_eq!(events, expected, "{first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(decode_new(&bytes), expected);
}
#[test]
fn what_comes_behind_a_message_is_decoded_apart() {
    let mut stream = [frame(0x81, b"one"), frame(0x01, b"two")].concat();
    let (mut decoder, memory) = (Decoder::default(), Arc::default());
    let (taken, event) = decoder.decode(&mut stream, LIMITS, &memory);
    assert_eq!((taken, event), (2 + 4 + 3, Some(message("one"))));
    assert_eq!(decoder.announced(), 0, "the second has not begun");
    let (taken, event) = decoder.decode(&mut stream[taken..], LIMITS, &memory);
    assert_eq!((taken, event), (2 + 4 + 3, None));
    assert_eq!(decoder.announced(), 65536, "as long as one may be");
}
#[test]
fn fragments_are_counted_empty_ones_too_and_each_message_anew() {
    let (mut decoder, limits) = (Decoder::default(), Limits { fragments_max: 3, ..LIMITS });
    let three = [frame(0x01, b""), frame(0x00, b""), frame(0x8a, b""), frame(0x80, b"")].concat();
    for _ in 0..2 {
        assert_eq!(decode(&mut decoder, limits, &[&three]), [Ok(Event::Pong), message("")]);
    }
    let fourth = [frame(0x01, b""), frame(0x00, b"").repeat(3)].concat();
    let reason = Disconnect::new(1008, "more than 3 fragments");
    assert_eq!(decode(&mut decoder, limits, &[&fourth]), [Err(reason)]);
}
#[test]
fn each_broken_rule_is_named_as_soon_as_the_header_is_there() {
    let long = "message longer than 65536 bytes";
    for (header, code, reason) in [
        (&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], 1009, long),
        (&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1009, long),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], 1009, long),
        (&[0x02, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], 1009, long),
        (&[0x89, 0xfe, 0, 126], 1002, "control frame longer than 125 bytes"),
        (&[0x88, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 1002, "control frame longer than 125 bytes"),
        (&[0x09, 0x81], 1002, "fragmented control frame"),
        (&[0x83, 0x81], 1002, "frame with a reserved opcode"),
        (&[0x8b, 0x81], 1002, "frame with a reserved opcode"),
        (&[0xc1, 0x81], 1002, "frame with reserved bits"),
        (&[0xa1, 0x81], 1002, "frame with reserved bits"),
        (&[0x91, 0x81], 1002, "frame with reserved bits"),
        (&[0xc9, 0x81], 1002, "frame with reserved bits"),
        (&[0x80, 0x81], 1002, "continuation frame without a message"),
        (&[0x00, 0x81], 1002, "continuation frame without a message"),
    ] {
        let mut decoder = Decoder::default();
        let stream = [&frame(0x81, b"before")[..], header, &[0; 4]].concat();
        let broken = Err(Disconnect::new(code, reason));
        assert_eq!(decode(&mut decoder, LIMITS, &[&stream]), [message("before"), broken]);
        assert_eq!(decoder.announced(), 0, "nothing is set aside for it");
    }
    let bare = Err(Disconnect::new(1002, "frame without a mask"));
    assert_eq!(decode_new(&[&[0x82, 5]]), [bare]);
    let inside = Err(Disconnect::new(1002, "new message inside a fragmented message"));
    let stream = [frame(0x01, b""), frame(0x81, b"")].concat();
    assert_eq!(decode_new(&[&stream]), [inside]);
}
#[test]
fn the_limit_holds_for_a_message_however_it_is_cut() {
    for (last, fits) in [(4, true), (5, false)] {
        let stream = [frame(0x02, &[0; 6]), frame(0x80, &vec![0; last])].concat();
        let expected = if fits {
            Ok(Event::Message(Message::binary([0; 10])))
        } else {
            Err(Disconnect::new(1009, "message longer than 10 bytes"))
        };
        let limits = Limits { message_max: 10, ..LIMITS };
        assert_eq!(decode(&mut Decoder::default(), limits, &[&stream]), [expected]);
    }
}
#[test]
fn a_text_that_is_none_is_found_with_the_first_byte_that_shows_it() {
    let bad = || Err(Disconnect::INVALID_TEXT);
    let whole = frame(0x81, b"sch\xc3n");
    assert_eq!(decode_new(&[&whole]), [bad()]);
    assert_eq!(decode_new(&[&whole[..10], &whole[10..]]), [bad()]);
    // The frame and the message announce more, which has not come.
    let begun = frame(0x01, b"sch\xc3n and more");
    assert_eq!(decode_new(&[&begun[..10]]), []);
    assert_eq!(decode_new(&[&begun[..11]]), [bad()]);
    for ends in [frame(0x81, b"sch\xc3"), [frame(0x01, b"\xc3"), frame(0x80, b"")].concat()] {
        assert_eq!(decode_new(&[&ends]), [bad()], "it ends within a character");
    }
}
#[test]
fn a_close_frame_has_a_code_that_may_be_sent_and_a_reason_in_utf_8() {
    let said = |payload: &[u8]| {
        let mut events = decode_new(&[&frame(0x88, payload)]);
        events.pop().expect("a close frame is an event")
    };
    assert_eq!(said(b""), Ok(Event::Close(Disconnect::NO_STATUS)));
    assert_eq!(said(b"\x03\xe8"), Ok(Event::Close(Disconnect::NORMAL)));
    assert_eq!(said(b"\x03"), Err(Disconnect::new(1002, "malformed close frame")));
    assert_eq!(said(b"\x03\xe8\xff"), Err(Disconnect::INVALID_TEXT));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let violation = Disconnect::new(1002, "Protocol violation");
        assert_eq!(said(&code.to_be_bytes()), Ok(Event::Close(violation)), "{code}");
    }
    for code in [1000u16, 1003, 1007, 1013, 3000, 4999] {
        let reason = Disconnect::new(code, "");
        assert_eq!(said(&code.to_be_bytes()), Ok(Event::Close(reason)), "{code}");
    }
}
