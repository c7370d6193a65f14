//! Compression: `permessage-deflate` (RFC 7692) over real sockets. Here miniz_oxide compresses and
//! inflates what the hub itself does not.

use std::io;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use hublet::{Client, Config, Disconnect, Handler, Message, Overflow};
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};
use miniz_oxide::deflate::{CompressionLevel, compress_to_vec};
use miniz_oxide::inflate::decompress_to_vec;

use crate::peer::{BINARY, CLOSE, Peer, TEXT, frame, upgrade};
use crate::support::{TestHub, gone};

/// First bytes of frames with RSV1, which says that their message is compressed (RFC 7692 6).
pub(crate) const DEFLATED_TEXT: u8 = 0xc1;
const DEFLATED_BINARY: u8 = 0xc2;

/// What the hub answers.
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A hub that compresses messages of at least 20 bytes.
fn start() -> TestHub {
    TestHub::with(Config::default().deflate(Some(20)))
}

/// The opening handshake for a path, with an offer.
pub(crate) fn offering(path: &str, offer: &str) -> String {
    upgrade(path).replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"))
}

/// Connects with this offer; returns the answer to it.
fn offer(
    hub: &TestHub,
    mut peer: Peer<TcpStream>,
    offer: &str,
) -> (Peer<TcpStream>, Option<String>) {
    let before = hub.hub.stats().clients;
    let response = peer.request(&offering("/ws", offer));
    assert_eq!((response.status, hub.hub.stats().clients), (101, before + 1));
    let answer = response.header("Sec-WebSocket-Extensions").map(str::to_owned);
    (peer, answer)
}

/// Connects a client that negotiates compression.
fn join(hub: &TestHub) -> Peer<TcpStream> {
    let (peer, answer) = offer(hub, hub.dial(), "permessage-deflate; client_max_window_bits");
    assert_eq!(answer.as_deref(), Some(ANSWER));
    peer
}

/// The payload of a compressed message (RFC 7692 7.2.1).
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut state =
        CompressorOxide::with_format_and_level(DataFormat::Raw, CompressionLevel::DefaultLevel);
    let mut out = vec![0; message.len() + message.len() / 10 + 100];
    let (_, read, written) = compress(&mut state, message, &mut out, TDEFLFlush::Sync);
    assert_eq!((read, &out[written - 4..written]), (message.len(), &[0, 0, 0xff, 0xff][..]));
    out.truncate(written - 4);
    out
}

/// What the payload of a compressed message stands for (RFC 7692 7.2.2).
pub(crate) fn inflated(mut payload: Vec<u8>) -> Vec<u8> {
    // The rest of the block, and a last one.
    payload.extend([0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
    decompress_to_vec(&payload).expect("a whole stream")
}

fn text() -> String {
    r#"{"room":"news","text":"to be or not to be"},"#.repeat(20)
}

#[test]
fn one_compressed_frame_goes_to_all_that_negotiated_and_the_plain_one_to_all_others() {
    let hub = start();
    let mut plain = [hub.join(), offer(&hub, hub.dial(), "x-webkit-deflate-frame").0];
    let python = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    let (python, answer) = offer(&hub, hub.dial(), python);
    assert_eq!(answer, Some(format!("{ANSWER}; server_max_window_bits=12")));
    let mut deflating = [join(&hub), python, join(&hub)];
    // Its window is too small for the frame of the others.
    let (mut small, answer) =
        offer(&hub, hub.dial(), "permessage-deflate; server_max_window_bits=9");
    assert_eq!(answer, Some(format!("{ANSWER}; server_max_window_bits=9")));
    assert_eq!(hub.broadcast(text()), 6);
    let mut frames = deflating.each_mut().map(Peer::receive);
    frames.sort();
    assert_eq!(frames[0], frames[2], "one frame for all");
    let (first, payload) = frames[0].clone();
    assert!(first == DEFLATED_TEXT && payload.len() * 8 < text().len());
    assert_eq!(inflated(payload), text().as_bytes());
    plain.iter_mut().for_each(|peer| peer.hears(&text()));
    small.hears(&text());
    assert_eq!(hub.hub.stats().messages_compressed, 1);
    // Too short, not shorter, and empty: plain for all.
    let noise: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for message in [Message::text("aaaaaaaaaaaaaaaaaaa"), Message::binary(noise), Message::text("")]
    {
        hub.broadcast(message.clone());
        for peer in plain.iter_mut().chain(&mut deflating) {
            let (first, payload) = peer.receive();
            assert_eq!(first, if message.is_text() { TEXT } else { BINARY });
            assert_eq!(payload, message.as_bytes());
        }
    }
    assert_eq!(hub.hub.stats().messages_compressed, 1);
    drop((plain, deflating, small));
    hub.empties();
    // Without a client that negotiated it, nothing is compressed.
    let mut alone = hub.join();
    hub.broadcast(text());
    alone.hears(&text());
    assert_eq!(hub.hub.stats().messages_compressed, 1);
}

/// A message that a room keeps is compressed for the first client that gets it so, and once.
#[test]
fn kept_messages_are_compressed_once_for_clients_that_come_later() {
    let rule = "5".parse().expect("a rule");
    let config = Config::default().deflate(Some(20)).history(vec![rule]);
    let hub = TestHub::serving(config, hublet::Relay::new());
    let mut alone = hub.join();
    let messages: Vec<_> = (0..5).map(|n| format!("{n} {}", text())).collect();
    for message in &messages {
        hub.broadcast(message.clone());
        alone.hears(message);
    }
    assert_eq!(hub.hub.stats().messages_compressed, 0);
    for round in 0..3 {
        let extension = if round == 0 { "x" } else { "permessage-deflate" };
        let mut late = hub.dial();
        assert_eq!(late.request(&offering("/ws?since=0", extension)).status, 101);
        assert_eq!(late.receive().0, TEXT, "the position");
        for message in &messages {
            let (first, payload) = late.receive();
            if round == 0 {
                assert_eq!((first, &payload[..]), (TEXT, message.as_bytes()));
            } else {
                assert_eq!((first, inflated(payload)), (DEFLATED_TEXT, message.clone().into()));
            }
        }
        assert_eq!(hub.hub.stats().messages_compressed, if round == 0 { 0 } else { 5 });
    }
}

#[test]
fn without_the_option_nothing_is_negotiated() {
    let hub = TestHub::start();
    let (mut peer, answer) = offer(&hub, hub.dial(), "permessage-deflate");
    assert_eq!(answer, None);
    hub.broadcast(text());
    peer.hears(&text());
    peer.send(DEFLATED_TEXT, &deflated(b"hello"));
    assert_eq!(peer.is_closed(1002), "frame with reserved bits");
}

#[test]
fn compressed_messages_are_heard_whole_or_in_fragments() {
    let hub = start();
    let (mut peer, mut other) = (join(&hub), hub.join());
    let long = "sch\u{f6}n, ".repeat(5000);
    for said in ["", "h\u{e9}llo", &long] {
        let payload = deflated(said.as_bytes());
        peer.send(DEFLATED_TEXT, &payload);
        other.hears(said);
        peer.send(0x41, &payload[..1]);
        peer.send(0x89, b"between");
        for byte in &payload[1..payload.len().min(200)] {
            peer.send(0x00, &[*byte]);
        }
        peer.send(0x80, payload.get(200..).unwrap_or_default());
        other.hears(said);
        peer.send(DEFLATED_BINARY, &compress_to_vec(said.as_bytes(), 9));
        assert_eq!(other.receive(), (BINARY, said.as_bytes().to_vec()), "a stream that ends");
        peer.send(TEXT, said.as_bytes());
        other.hears(said);
    }
    let pongs = std::iter::from_fn(|| Some(peer.receive())).take(12 + 3);
    assert_eq!(pongs.filter(|(first, _)| *first == 0x8a).count(), 3);
    drop((peer, other));
    hub.empties();
}

#[test]
fn what_is_wrong_with_a_compressed_message_has_its_close_code() {
    let hub = start();
    let bomb = deflated(&vec![0; 1 << 20]);
    let first_of_many = [frame(0x41, &deflated(b"x")), frame(DEFLATED_TEXT, b"")].concat();
    for (bytes, code, reason) in [
        (frame(DEFLATED_BINARY, &bomb), 1009, "message longer than 65536 bytes"),
        (
            [frame(0x42, &bomb[..100]), frame(0x80, &bomb[100..])].concat(),
            1009,
            "message longer than 65536 bytes",
        ),
        (frame(DEFLATED_BINARY, &[0; 70_000]), 1009, "message longer than 65536 bytes"),
        (frame(DEFLATED_TEXT, b"\xff"), 1007, "corrupt compressed message"),
        (frame(DEFLATED_TEXT, &bomb[..bomb.len() - 1]), 1009, "message longer than 65536 bytes"),
        (frame(DEFLATED_TEXT, &deflated(b"sch\xc3n")), 1007, "text is not UTF-8"),
        (frame(0xc9, b""), 1002, "frame with reserved bits"),
        (frame(0xa1, b""), 1002, "frame with reserved bits"),
        ([frame(0x01, b""), frame(0xc0, b"")].concat(), 1002, "frame with reserved bits"),
        (first_of_many, 1002, "new message inside a fragmented message"),
    ] {
        let mut peer = join(&hub);
        peer.write(&bytes);
        assert_eq!(peer.is_closed(code), reason);
        peer.send(CLOSE, &code.to_be_bytes());
        peer.is_gone();
    }
    hub.empties();
}

/// What waits is compressed too, and no frame is torn where the kernel takes a part of one.
#[test]
fn slow_client_gets_every_compressed_frame_whole() {
    let hub = TestHub::with(Config::default().deflate(Some(1)).queue(1000).queue_bytes(1 << 24));
    let mut narrow = offer(&hub, Peer::dial_narrow(&hub.address), "permessage-deflate").0;
    let message = |n: usize| {
        let mut rng = fastrand::Rng::with_seed(n as u64);
        (0..30_000).map(|_| char::from(b'a' + rng.u8(..8))).collect::<String>()
    };
    for n in 0..200 {
        assert_eq!(hub.broadcast(message(n)), 1);
    }
    assert_eq!(hub.hub.stats().messages_compressed, 200);
    for n in 0..200 {
        let (first, payload) = narrow.receive();
        assert!(first == DEFLATED_TEXT && payload.len() < 15_000);
        assert_eq!(inflated(payload), message(n).as_bytes(), "message {n}");
    }
    drop(narrow);
    hub.empties();
}

/// Sends each message back to its sender only.
struct Mirror;

impl Handler for Mirror {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.send(message).await.map(drop).map_err(gone)
    }
}

/// Invariant 12: 64 bytes that become 64 KiB cost their sender its turn, as if it had sent as much.
#[test]
fn flood_of_bombs_does_not_starve_others() {
    let bomb = frame(DEFLATED_BINARY, &deflated(&vec![0; Config::MAX_MESSAGE]));
    assert!(bomb.len() < 128, "{} bytes", bomb.len());
    let flood = bomb.repeat(500);
    let config = Config::default().deflate(Some(200)).overflow(Overflow::DropNewest);
    let hub = TestHub::serving(config, Mirror);
    let bomber = join(&hub);
    let [mut writes, mut reads] = [(); 2].map(|()| bomber.stream().try_clone().expect("a handle"));
    let slowest = thread::scope(|scope| {
        scope.spawn(move || while writes.write_all(&flood).is_ok() {});
        scope.spawn(move || io::copy(&mut reads, &mut io::sink()));
        let mut other = hub.join();
        let times = (0..6).map(|n| {
            let begin = Instant::now();
            other.say(&format!("word {n}"));
            other.hears(&format!("word {n}"));
            begin.elapsed()
        });
        let slowest = times.max();
        // The flood ends here.
        let _ = bomber.stream().shutdown(std::net::Shutdown::Both);
        slowest
    });
    // One poll takes some milliseconds in a debug build. The rest allows for a busy machine.
    assert!(slowest < Some(Duration::from_secs(5)), "one message took {slowest:?}");
}
