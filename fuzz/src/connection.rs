//! Fuzzes a whole connection, with its bytes cut anywhere: every message comes back, and every end
//! has the right reason.

use std::sync::Mutex;

use hublet::{Admission, Client, Config, Disconnect, Handler, Message};

use super::reference::{Limits, Meaning, inflated, read};
use super::stage::{Dice, Peer, run as stage};

/// Small limits, so that short inputs reach them.
pub const LIMITS: Limits = Limits { message: 300, fragments: 5 };

/// Bytes of the shortest frame of a client: a header and a mask. The queue has room for an echo of
/// each frame, so that it never overflows, and no more: the hub makes its places for each backlog.
const FRAME_BYTES_MIN: usize = 6;

/// The bytes before the frames, if the connection begins with a request.
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Bytes of the request that are cut as the frames behind it are. The target `head` cuts requests at
/// every place.
const REQUEST_CUT: usize = 8;

struct Echo;

impl Handler for Echo {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let echoed = client.hub().broadcast(message).await;
        assert_eq!(echoed.map_err(|_| Disconnect::INTERNAL)?, 1, "the client is still here");
        Ok(())
    }
}

pub fn run(bytes: &[u8]) {
    let Some((&[flags, seed], frames)) = bytes.split_first_chunk::<2>() else { return };
    check(flags, seed, frames);
}

/// A client sends `frames`, cut by `seed`. Compares the hub's answers with those that a second
/// reader expects.
pub fn check(flags: u8, seed: u8, frames: &[u8]) {
    let dice = Dice::new(u64::from(seed) + 1);
    let meaning = read(frames, LIMITS);
    if flags & 64 == 0 {
        request(config(flags, frames), REQUEST, dice, flags, frames, &meaning);
        return;
    }
    let (peer, heard) = Peer::new(frames.to_vec(), 0, piece(flags), dice);
    let admission = Admission::anonymous().room("main");
    let disconnect = stage(config(flags, frames), frames.len(), |hub| async move {
        hub.serve_upgraded(peer, admission, &Echo).await
    });
    compare(&disconnect.expect("the upgrade is well-formed"), &take(&heard), &meaning);
}

/// A client negotiates compression and sends `frames`, cut by `seed`. Compares the hub's answers,
/// compressed from `least` bytes on, with what they mean.
pub fn check_deflating(least: usize, flags: u8, seed: u8, frames: &[u8], meaning: &Meaning) {
    let offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let head = [&REQUEST[..REQUEST.len() - 2], offer].concat();
    let dice = Dice::new(u64::from(seed) + 1);
    request(config(flags, frames).deflate(Some(least)), &head, dice, flags, frames, meaning);
}

/// Small limits, and a backlog that has room for all messages.
fn config(flags: u8, frames: &[u8]) -> Config {
    Config::default()
        .max_message(LIMITS.message as usize)
        .max_fragments(LIMITS.fragments)
        .queue(1 + frames.len() / FRAME_BYTES_MIN)
        .queue_bytes(1 << 24)
        .inbox(1 + usize::from(flags & 3))
}

/// Bytes of the pieces that a stream is cut into at most.
fn piece(flags: u8) -> usize {
    1 << (flags >> 2 & 15)
}

/// A client that begins with the request `head`.
fn request(config: Config, head: &[u8], dice: Dice, flags: u8, frames: &[u8], meaning: &Meaning) {
    let all = [head, frames].concat();
    let len = all.len();
    let (peer, heard) = Peer::new(all, head.len() - REQUEST_CUT, piece(flags), dice);
    let disconnect = stage(config, len, |hub| async move {
        hub.serve_connection(peer, hublet::Peer::unknown(), &Echo).await
    });
    let heard = take(&heard);
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    compare(&disconnect.expect("the upgrade is well-formed"), &heard[end + 4..], meaning);
}

fn take(heard: &Mutex<Vec<u8>>) -> Vec<u8> {
    std::mem::take(&mut *heard.lock().expect("one thread"))
}

/// Compares what a client heard with what should come of its frames.
fn compare(disconnect: &Disconnect, heard: &[u8], meaning: &Meaning) {
    let (messages, pongs, close) = answers(heard);
    assert!(meaning.ends.contains(&disconnect.code()), "{disconnect:?} is none of {meaning:?}");
    assert_eq!(messages, meaning.messages);
    // One pong, for the last of several pings, is enough (RFC 6455 5.5.3).
    let mut pings = meaning.pings.iter();
    assert!(pongs.iter().all(|pong| pings.any(|ping| ping == pong)), "pongs are for pings");
    let sendable = !matches!(disconnect.code(), 1005 | 1006);
    assert_eq!(close, Some(sendable.then(|| disconnect.code())), "the close frame has the reason");
}

/// The messages, pongs and the code of the close frame, if there is one, that a server sent.
type Answers = (Vec<(bool, Vec<u8>)>, Vec<Vec<u8>>, Option<Option<u16>>);

fn answers(mut heard: &[u8]) -> Answers {
    let (mut messages, mut pongs, mut close) = (Vec::new(), Vec::new(), None);
    while !heard.is_empty() {
        assert!(close.is_none(), "nothing follows a close frame");
        let (header, length) = match heard[1] {
            short @ ..126 => (2, usize::from(short)),
            126 => (4, usize::from(u16::from_be_bytes([heard[2], heard[3]]))),
            _ => panic!("a frame that is longer than every message, or masked"),
        };
        let payload = heard[header..header + length].to_vec();
        match heard[0] {
            first @ (0xc1 | 0xc2) => {
                let whole = inflated(&payload, LIMITS.message as usize).expect("well-formed");
                assert!(payload.len() < whole.len(), "compressed in vain");
                messages.push((first == 0xc1, whole));
            }
            0x81 => messages.push((true, payload)),
            0x82 => messages.push((false, payload)),
            0x88 => {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                assert!(length != 1 && length <= 125, "a close frame has a whole code");
                close = Some(code);
            }
            0x89 => assert!(length <= 125),
            0x8a => {
                assert!(length <= 125);
                pongs.push(payload);
            }
            first => panic!("{first:#x} begins no frame of a server"),
        }
        heard = &heard[header + length..];
    }
    (messages, pongs, close)
}
