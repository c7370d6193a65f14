//! The end of a connection: close codes, their order with messages, and that nothing is left.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hublet::{Client, Config, Disconnect, Handler, Message};
use smol::future::block_on;

use crate::peer::{BINARY, CLOSE, DEADLINE, PING, PONG, TEXT, frame};
use crate::support::{TestHub, gone, until};

/// A frame header that announces `len` bytes, without the bytes.
fn announce(first: u8, len: u64) -> Vec<u8> {
    let mut header = vec![first, 0x80 | 127];
    header.extend(len.to_be_bytes());
    header.extend([1, 2, 3, 4]);
    header
}

/// Every kind of fault, and its close code in RFC 6455.
fn faults() -> Vec<(&'static str, Vec<u8>, u16)> {
    let close = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    let text = |first, payload: &[u8]| frame(first, payload);
    vec![
        ("not masked", vec![0x81, 2, b'h', b'i'], 1002),
        ("the first reserved bit", text(0xc1, b"x"), 1002),
        ("the second reserved bit", text(0xa1, b"x"), 1002),
        ("the third reserved bit", text(0x91, b"x"), 1002),
        ("a reserved bit of a ping", text(0xc9, b"x"), 1002),
        ("a reserved opcode", text(0x83, b"x"), 1002),
        ("another reserved opcode", text(0x87, b""), 1002),
        ("a reserved control opcode", text(0x8b, b""), 1002),
        ("another reserved control opcode", text(0x8f, b"x"), 1002),
        ("a ping of 126 bytes", text(PING, &[0; 126]), 1002),
        ("a pong of 126 bytes", text(PONG, &[0; 126]), 1002),
        ("a close frame of 126 bytes", text(CLOSE, &[0; 126]), 1002),
        ("a ping that announces 2^63 bytes", announce(PING, 1 << 63), 1002),
        ("a fragmented ping", text(0x09, b""), 1002),
        ("a fragmented close frame", text(0x08, &close(1000, b"")), 1002),
        ("a continuation of nothing", text(0x80, b"x"), 1002),
        ("a message inside another", [text(0x01, b"a"), text(TEXT, b"b")].concat(), 1002),
        ("a close frame of one byte", text(CLOSE, &[3]), 1002),
        ("close code 999", text(CLOSE, &close(999, b"")), 1002),
        ("close code 1005", text(CLOSE, &close(1005, b"")), 1002),
        ("close code 1006", text(CLOSE, &close(1006, b"")), 1002),
        ("close code 1015", text(CLOSE, &close(1015, b"")), 1002),
        ("close code 2999", text(CLOSE, &close(2999, b"")), 1002),
        ("close code 65535", text(CLOSE, &close(65535, b"")), 1002),
        ("a close reason that is not UTF-8", text(CLOSE, &close(1000, &[0xff])), 1007),
        ("a byte that is never UTF-8", text(TEXT, b"a\xffb"), 1007),
        ("a surrogate", text(TEXT, b"\xed\xa0\x80"), 1007),
        ("half a character at the end", text(TEXT, b"caf\xc3"), 1007),
        (
            "half a character before a fragment that does not finish it",
            [text(0x01, b"caf\xc3"), text(0x80, b"x")].concat(),
            1007,
        ),
        ("bad UTF-8 in a frame that is not finished", text(TEXT, b"\xffx")[..7].to_vec(), 1007),
        ("one byte too long", text(BINARY, &vec![0; Config::MAX_MESSAGE + 1]), 1009),
        ("too long in sum", [text(0x02, &[0; 40_000]), text(0x80, &[0; 40_000])].concat(), 1009),
        (
            "a header that announces a byte too many",
            announce(BINARY, Config::MAX_MESSAGE as u64 + 1),
            1009,
        ),
        ("a header that announces 2^63 bytes", announce(BINARY, 1 << 63), 1009),
        ("a header that announces all bytes there are", announce(BINARY, u64::MAX), 1009),
        ("a fragment too many", fragments(Config::MAX_FRAGMENTS + 1, b"x"), 1008),
        ("an empty fragment too many", fragments(Config::MAX_FRAGMENTS + 1, b""), 1008),
    ]
}

/// A message in `n` fragments.
fn fragments(n: usize, payload: &[u8]) -> Vec<u8> {
    let first = |at: usize| u8::from(at == 0) | (u8::from(at + 1 == n) << 7);
    (0..n).flat_map(|at| frame(first(at), payload)).collect()
}

/// The hub sends the close code of every fault, after the messages that it accepted before, and
/// closes the socket.
#[test]
fn each_fault_is_answered_with_its_code_after_the_accepted_messages() {
    for threads in [1, 2] {
        let hub = TestHub::on_threads(threads, Config::default(), crate::support::Chat);
        for (fault, bytes, code) in faults() {
            let mut peer = hub.join();
            let before = [frame(TEXT, b"one"), frame(BINARY, b"two"), frame(TEXT, b"three")];
            peer.write(&[&before.concat()[..], &bytes].concat());
            peer.hears("one");
            assert_eq!(peer.receive(), (BINARY, b"two".to_vec()), "{fault}");
            peer.hears("three");
            let (first, payload) = peer.receive();
            assert_eq!(first, CLOSE, "{fault}");
            let sent = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
            assert_eq!(sent, Some(code), "{fault}");
            assert!(std::str::from_utf8(&payload[2..]).is_ok(), "{fault}");
            peer.goodbye(code);
        }
        hub.empties();
    }
}

#[test]
fn message_may_have_the_maximum_of_fragments() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    peer.write(&fragments(Config::MAX_FRAGMENTS, b"x"));
    peer.hears(&"x".repeat(Config::MAX_FRAGMENTS));
}

#[test]
fn message_that_is_not_finished_in_time_is_answered_1008() {
    let config = Config::default().message_timeout(Duration::from_millis(100));
    let hub = TestHub::with(config);
    for began in [
        frame(TEXT, b"hello")[..1].to_vec(),
        frame(TEXT, b"hello")[..8].to_vec(),
        frame(0x01, b"he"),
    ] {
        let mut peer = hub.join();
        peer.write(&began);
        peer.is_closed(1008);
        peer.ends();
    }
}

#[test]
fn the_code_of_the_peers_close_is_echoed() {
    let hub = TestHub::start();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 3000, 4999] {
        let mut peer = hub.join();
        let payload = [&u16::to_be_bytes(code)[..], b"reasons"].concat();
        peer.write(&[frame(TEXT, b"last words"), frame(CLOSE, &payload)].concat());
        peer.hears("last words");
        peer.is_closed(code);
        peer.ends();
    }
    let mut peer = hub.join();
    peer.send(CLOSE, b"");
    assert_eq!(peer.receive(), (CLOSE, vec![]), "a close frame without a code has such an answer");
    peer.ends();
    hub.empties();
}

#[test]
fn data_after_a_close_frame_is_no_message() {
    let hub = TestHub::start();
    let mut other = hub.join();
    let mut peer = hub.join();
    peer.write(&[frame(CLOSE, &1000u16.to_be_bytes()), frame(TEXT, b"from the grave")].concat());
    peer.is_closed(1000);
    peer.ends();
    drop(peer);
    until("it is gone", || hub.hub.stats().connections == 1);
    hub.broadcast("alive");
    other.hears("alive");
}

/// If the hub closed a socket with unread bytes, the kernel would reset the connection, and the
/// peer might never see the answer.
#[test]
fn peer_that_sends_data_after_its_close_frame_still_gets_the_answer() {
    let hub = TestHub::start();
    let mut peer = hub.join();
    peer.write(&[frame(CLOSE, &1000u16.to_be_bytes()), vec![0; 200_000]].concat());
    peer.is_closed(1000);
    peer.ends();
}

/// RFC 6455 5.5.1 forbids data after a close frame, and 5.5.2 demands pongs until the answer to it.
/// If the hub had closed its socket by then, the kernel would reset the connection, and the bytes
/// in its buffer would be lost.
#[test]
fn peer_that_sends_pongs_after_its_close_frame_still_gets_everything() {
    let hub = TestHub::with(Config::default().close_timeout(Config::WAIT_MAX));
    let mut peer = hub.join_narrow();
    for number in 0..4 {
        assert_eq!(hub.broadcast(vec![number; 3_000]), 1);
    }
    peer.write(&frame(CLOSE, &1000u16.to_be_bytes()));
    until("its close frame is read", || hub.hub.stats().clients == 0);
    for number in 0..4 {
        assert_eq!(peer.receive(), (BINARY, vec![number; 3_000]));
        peer.write(&frame(PONG, b"late"));
    }
    peer.is_closed(1000);
    peer.ends();
    drop(peer);
    hub.empties();
}

/// RFC 6455 7.1.1: the server closes first. If it has sent nothing but the close frame, it need not
/// wait until the peer closes.
#[test]
fn hub_does_not_wait_for_a_peer_that_it_sent_nothing_but_the_close_frame() {
    let hub = TestHub::with(Config::default().close_timeout(Config::WAIT_MAX));
    let mut peer = hub.join();
    peer.write(&frame(CLOSE, &1000u16.to_be_bytes()));
    hub.empties();
    peer.is_closed(1000);
    peer.ends();
}

/// Under a ceiling the kernel must deliver nothing after the close. And a peer that was pinged may
/// still send a pong.
#[test]
fn peer_that_may_still_send_is_read_until_it_closes() {
    let config = Config::default().close_timeout(Config::WAIT_MAX);
    let pinged = config.clone().ping_interval(Duration::from_millis(50));
    for (config, is_pinged) in [(config.max_memory(Some(64 << 20)), false), (pinged, true)] {
        let hub = TestHub::with(config);
        let mut peer = hub.join();
        if is_pinged {
            assert_eq!(peer.receive(), (PING, vec![]));
        }
        peer.write(&frame(CLOSE, &1000u16.to_be_bytes()));
        // On a slow machine there may be another ping.
        while peer.receive().0 == PING {}
        peer.ends();
        let before = hub.hub.stats().bytes_received;
        peer.write(&frame(PONG, b"late"));
        until("the pong is read", || hub.hub.stats().bytes_received > before);
        drop(peer);
        hub.empties();
    }
}

/// A handler that ends the client as its text asks.
struct Ending(Sender<(u16, String)>);

impl Handler for Ending {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        match message.as_text() {
            Some("panic") => panic!("a hook panics, as a test"),
            Some("leave") => Err(Disconnect::new(4000, "as you wish")),
            Some("kick me") => {
                client.hub().disconnect(client.id(), Disconnect::POLICY).await.map_err(gone)
            }
            _ => client.hub().broadcast(message).await.map(drop).map_err(gone),
        }
    }

    async fn on_disconnect(&self, _: &Client, reason: &Disconnect) {
        // The test may have dropped the receiver.
        let _ = self.0.send((reason.code(), reason.reason().to_owned()));
    }
}

fn ending(config: Config) -> (TestHub, Receiver<(u16, String)>) {
    let (sender, reasons) = channel();
    (TestHub::serving(config, Ending(sender)), reasons)
}

#[test]
fn panic_in_a_hook_ends_its_client_with_1011_and_nothing_else() {
    let (hub, reasons) = ending(Config::default());
    let mut other = hub.join();
    let mut peer = hub.join();
    peer.write(&[frame(TEXT, b"before"), frame(TEXT, b"panic"), frame(TEXT, b"after")].concat());
    peer.hears("before");
    peer.is_closed(1011);
    peer.goodbye(1011);
    other.hears("before");
    other.say("and on it goes");
    other.hears("and on it goes");
    assert_eq!(reasons.recv_timeout(DEADLINE).expect("the hook ran").0, 1011);
    hub.join().say("newcomers too");
    other.hears("newcomers too");
}

#[test]
fn reason_that_a_hook_returns_is_sent_to_its_client() {
    let (hub, reasons) = ending(Config::default());
    let mut peer = hub.join();
    peer.write(&[frame(TEXT, b"before"), frame(TEXT, b"leave")].concat());
    peer.hears("before");
    assert_eq!(peer.is_closed(4000), "as you wish");
    peer.goodbye(4000);
    let reason = reasons.recv_timeout(DEADLINE).expect("the hook ran");
    assert_eq!(reason, (4000, "as you wish".to_owned()));
}

#[test]
fn disconnected_client_gets_its_queued_messages_and_then_the_reason() {
    let (hub, _reasons) = ending(Config::default());
    let mut peer = hub.join();
    let id = hub.ask(hub.hub.clients())[0].id;
    for n in 0..50 {
        hub.broadcast(format!("{n}"));
    }
    hub.ask(hub.hub.disconnect(id, Disconnect::new(4001, "the game is over")));
    assert_eq!(hub.broadcast("too late"), 0, "out of the registry at once");
    for n in 0..50 {
        peer.hears(&format!("{n}"));
    }
    assert_eq!(peer.is_closed(4001), "the game is over");
    peer.goodbye(4001);
    let mut peer = hub.join();
    peer.say("kick me");
    peer.is_closed(1008);
}

#[test]
fn client_that_does_not_answer_a_close_frame_is_dropped_after_the_close_timeout() {
    let (hub, reasons) = ending(Config::default().close_timeout(Duration::from_millis(200)));
    let mut peer = hub.join();
    let begin = Instant::now();
    peer.say("leave");
    peer.is_closed(4000);
    // It sends more and never closes.
    peer.say("but I am still here");
    let reason = reasons.recv_timeout(DEADLINE).expect("the hook ran");
    assert_eq!(reason.0, 4000);
    assert!(begin.elapsed() >= Duration::from_millis(200), "the close timeout has passed");
    hub.empties();
}

#[test]
fn hooks_get_1006_for_a_peer_that_vanishes() {
    let (hub, reasons) = ending(Config::default());
    let code = || reasons.recv_timeout(DEADLINE).expect("the hook ran").0;
    hub.join().reset();
    assert_eq!(code(), 1006);
    drop(hub.join());
    assert_eq!(code(), 1006);
    let mut peer = hub.join();
    peer.write(&frame(TEXT, b"half a frame")[..9]);
    drop(peer);
    assert_eq!(code(), 1006);
    hub.empties();
}

/// Dropping the manager's future ends the hub: every verb returns that.
#[test]
fn without_its_manager_the_hub_has_ended() {
    let (hub, manager) = hublet::Hub::new(Config::default()).expect("valid");
    drop(manager);
    let refused = block_on(hub.broadcast("anyone?")).expect_err("it has ended");
    assert!(refused.is_closed());
    assert_eq!(refused.into_message(), Some("anyone?".into()));
}
