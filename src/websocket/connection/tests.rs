//! Tests of `websocket/connection.rs`.

use std::task::Waker;
use std::time::Duration;

use futures_lite::future::block_on;
use smol::Executor;

use super::*;
use crate::config::Config;
use crate::connection::admission::Admission;
use crate::connection::registration;
use crate::connection::registration::ClientKind;
use crate::connection::timeouts::Due;
use crate::hub::tests::support::deflated;
use crate::memory::read_buffers::READ_BUFFER_BYTES;
use crate::time::virtual_time::VirtualTime;
use crate::websocket::decoder::tests::frame;
use crate::websocket::tests::stream::Stream;

/// Has `act` do something with a connection over `stream` in a virtual time.
pub(crate) fn connected<T>(
    stream: &mut Stream,
    early: Vec<u8>,
    act: impl FnOnce(&VirtualTime, &mut Connection<'_, &mut Stream>) -> T,
) -> T {
    let time = VirtualTime::start();
    let executor = Executor::new();
    let (hub, manager) = Hub::new(Config::default()).expect("valid");
    executor.spawn(manager).detach();
    let admitted = registration::admit(&hub, Admission::anonymous(), ClientKind::WebSocket);
    let admitted = block_on(executor.run(admitted)).expect("there is a place");
    act(&time, &mut Connection::new(&hub, stream, admitted.registered, early, false))
}
#[test]
fn a_close_frame_is_the_last_word_if_nothing_lies_behind_it() {
    let close = frame(0x88, b"\x03\xe8");
    let is_last = |early: &[u8], unread: Vec<u8>| {
        let mut stream = Stream { unread: unread.into(), ..Stream::default() };
        connected(&mut stream, early.to_vec(), |_, connection| {
            let cx = &mut Context::from_waker(Waker::noop());
            loop {
                match connection.poll_next(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(End::Theirs(_))) => return true,
                    Poll::Ready(Err(End::Ours(_))) => return false,
                    other => panic!("{other:?}"),
                }
            }
        })
    };
    assert!(is_last(&close, Vec::new()));
    assert!(is_last(b"", close.clone()));
    let more = [&close[..], b"\x8a"].concat();
    assert!(!is_last(&more, Vec::new()));
    // The frame comes with two reads.
    assert!(is_last(&close[..1], close[1..].to_vec()));
    assert!(!is_last(&more[..1], more[1..].to_vec()));
    // A read that takes as much as it can may have left some.
    for (less, last) in [(0, false), (1, true)] {
        let message = frame(0x82, &vec![0; READ_BUFFER_BYTES - close.len() - 8 - less]);
        let bytes = [&message[..], &close].concat();
        assert_eq!(bytes.len(), READ_BUFFER_BYTES - less);
        assert_eq!(is_last(b"", bytes), last);
    }
}
/// As a stream of TLS does while its socket is full.
#[test]
fn what_a_stream_holds_back_is_flushed_until_it_has_gone() {
    let mut stream = Stream { holds_back: true, ..Stream::default() };
    connected(&mut stream, Vec::new(), |_, connection| {
        let cx = &mut Context::from_waker(Waker::noop());
        connection.outgoing.queue().push_control(b"\x8a\0");
        let drained = connection.poll_drain(cx);
        assert!(drained.wrote && !drained.empty);
        let drained = connection.poll_drain(cx);
        assert!(!drained.wrote && !drained.empty);
        connection.reader.transport.holds_back = false;
        assert!(connection.poll_drain(cx).empty);
        assert_eq!(connection.reader.transport.flushes, 3);
        assert!(connection.poll_drain(cx).empty);
        assert_eq!(connection.reader.transport.flushes, 3, "nothing is left to flush");
    });
}
/// It could not be heard meanwhile.
#[test]
fn a_peer_has_its_time_to_answer_a_ping_again_after_a_pause() {
    let mut stream = Stream::default();
    connected(&mut stream, Vec::new(), |time, connection| {
        let cx = &mut Context::from_waker(Waker::noop());
        let config = Config::default();
        connection.outgoing.timeouts.pinged();
        connection.pause = Some(ReadPause::Hook);
        time.advance(2 * config.pong_timeout);
        connection.resume_reading();
        let timeouts = &mut connection.outgoing.timeouts;
        assert!(timeouts.poll(cx, &config, None, (None, None)).is_pending());
        time.advance(2 * config.pong_timeout);
        assert_eq!(timeouts.poll(cx, &config, None, (None, None)), Poll::Ready(Due::PongTimeout));
    });
}
/// The queue has room for two of the longest pongs. Of the others, the newest answers all pings before
/// it (RFC 6455 5.5.3).
#[test]
fn every_ping_is_answered_and_while_there_is_no_room_the_newest() {
    let ping = |number: u8| frame(0x89, &[number; 125]);
    let pong = |number: u8| [&[0x8a, 125][..], &[number; 125]].concat();
    let pings: Vec<u8> = (0..5).flat_map(ping).collect();
    let mut stream = Stream { full: true, ..Stream::default() };
    connected(&mut stream, pings, |_, connection| {
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(connection.poll_next(cx).is_pending());
        assert!(connection.has_pong());
        connection.reader.transport.full = false;
        assert!(connection.poll_next(cx).is_pending() && !connection.has_pong());
        assert!(connection.poll_next(cx).is_pending());
        let pongs = [pong(0), pong(1), pong(4)].concat();
        assert_eq!(connection.reader.transport.written, pongs);
        // A pong that has room takes the place of one that waits.
        connection.reader.transport.full = true;
        for number in 5..8 {
            connection.answer(&[number; 125]);
        }
        assert!(connection.has_pong());
        connection.answer(b"8");
        assert!(!connection.has_pong());
        connection.reader.transport.full = false;
        assert!(connection.poll_next(cx).is_pending());
        let pongs = [pongs, pong(5), pong(6), b"\x8a\x018".to_vec()].concat();
        assert_eq!(connection.reader.transport.written, pongs);
    });
}
/// Invariant 12: what a compressed message becomes counts as read, so that a peer that sends
/// bombs uses up its budget as one that sends as much.
#[test]
fn what_compressed_messages_become_uses_up_the_budget() {
    // Half a budget each.
    let message = vec![0; READ_BUDGET as usize / 2];
    let bomb = frame(0xc2, &deflated(&message));
    let (mut stream, bombs) = (Stream::default(), bomb.repeat(7));
    connected(&mut stream, bombs, |_, connection| {
        connection.reader.inflates = true;
        let cx = &mut Context::from_waker(Waker::noop());
        let mut polls = Vec::new();
        while connection.reader.has_unread() {
            let mut messages = 0;
            while let Poll::Ready(next) = connection.poll_next(cx) {
                assert_eq!(next.expect("no end").expect("a message").as_bytes(), message);
                messages += 1;
            }
            polls.push(messages);
        }
        assert_eq!(polls, [2, 2, 2, 1]);
    });
}
/// Neither what is sent faster, nor its client, is lost.
#[test]
fn a_client_is_read_no_faster_than_its_rate_in_what_its_messages_become() {
    let message = vec![0; 10_000];
    let (bomb, ping) = (frame(0xc2, &deflated(&message)), frame(0x89, b""));
    for (rate, dues) in [
        (Rate::messages(2), [0, 0, 500, 1000, 1500, 2000]),
        (Rate::UNLIMITED.bytes(20_000), [0, 0, 0, 500, 1000, 1500]),
        (Rate::messages(9).bytes(5_000), [0, 1000, 3000, 5000, 7000, 9000]),
    ] {
        let mut stream = Stream::default();
        let sent = [bomb.repeat(6), ping.clone()].concat();
        connected(&mut stream, sent, |time, connection| {
            connection.reader.inflates = true;
            connection.set_rate(rate);
            let cx = &mut Context::from_waker(Waker::noop());
            let mut come = Vec::new();
            let begun = now();
            while come.len() < 6 {
                match connection.poll_next(cx) {
                    Poll::Ready(Ok(Some(message))) => {
                        assert_eq!(message.len(), 10_000);
                        connection.count_rate(message.len());
                        come.push(now() - begun);
                    }
                    other @ Poll::Ready(_) => panic!("{other:?}"),
                    Poll::Pending => time.advance(Duration::from_millis(10)),
                }
            }
            for (come, due) in come.into_iter().zip(dues.map(Duration::from_millis)) {
                let late = come.saturating_sub(due);
                assert!(come >= due && late.as_millis() < 300, "{rate:?}: {come:?} for {due:?}");
            }
        });
    }
}
/// If the connection wakes up late, what lies in the socket counts, also with its read budget spent.
#[test]
fn a_message_that_lies_in_the_socket_is_read_before_it_is_called_late() {
    let message = frame(0x82, &[7; 100]);
    for comes in [true, false] {
        connected(&mut Stream::default(), message[..50].to_vec(), |time, connection| {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(connection.poll_next(cx).is_pending());
            if comes {
                connection.reader.transport.unread = message[50..].to_vec().into();
            }
            connection.read_budget = 0;
            time.advance(2 * Config::MESSAGE_TIMEOUT);
            let late = connection.poll_next(cx);
            if comes {
                assert!(late.is_pending(), "{late:?}");
                let Poll::Ready(Ok(Some(message))) = connection.poll_next(cx) else {
                    panic!("lost")
                };
                assert_eq!(message.as_bytes(), [7; 100]);
            } else {
                let Poll::Ready(Err(End::Ours(reason))) = late else { panic!("{late:?}") };
                assert_eq!(reason.code(), 1008);
            }
        });
    }
}
