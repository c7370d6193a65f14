//! Fuzzes request heads and bodies: each gets an answer, the same however the bytes are cut, or an
//! upgrade.

use hublet::http::{Request, StatusCode};
use hublet::{Client, Config, Disconnect, Handler, Message, Peer as Source, Target};

use super::stage::{Dice, Peer, run as stage};

struct Nothing;

impl Handler for Nothing {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }
}

/// The limit on messages of every second run, in bytes.
const MESSAGE_MAX: usize = 64;

pub fn run(bytes: &[u8]) {
    let Some((&flags, requests)) = bytes.split_first() else { return };
    let whole = answers(flags, requests, 1 << 20);
    let cut = answers(flags, requests, 1 + usize::from(flags >> 4));
    assert_eq!(whole, cut, "the answers depend on how the requests are cut");
}

/// The statuses of the answers; 101 for an upgrade.
fn answers(flags: u8, requests: &[u8], piece: usize) -> Vec<u16> {
    let origins = if flags & 2 != 0 { vec!["https://app.example".into()] } else { Vec::new() };
    let config = Config::default().inbox(4).http(flags & 1 != 0).origins(origins);
    // Small, so that short bodies and lines reach it.
    let config = if flags & 4 != 0 { config.max_message(MESSAGE_MAX) } else { config };
    let (peer, heard) = Peer::new(requests.to_vec(), 0, piece, Dice::new(u64::from(flags)));
    let outcome = stage(config, requests.len(), |hub| async move {
        hub.serve_connection(peer, hublet::Peer::unknown(), &Nothing).await
    });
    let heard = std::mem::take(&mut *heard.lock().expect("one thread"));
    let statuses = responses(&heard);
    match outcome {
        // A stream of events ends with what its peer sends, perhaps ahead of its own status.
        Ok(_) if requests.windows(4).any(|part| part == b"/sse") => {}
        Ok(_) if statuses.contains(&101) => {
            assert_eq!(statuses.last(), Some(&101), "a client has its 101");
        }
        Ok(_) => {
            let answered = statuses.last().is_some_and(|status| *status < 400);
            assert!(answered, "its last request was answered with what it asked for");
        }
        Err(error) => {
            assert!(!statuses.contains(&101), "a peer with a 101 is a client");
            if let Some(status) = error.status() {
                assert_eq!(statuses.last(), Some(&status.as_u16()), "{error}");
            }
        }
    }
    statuses
}

/// The statuses of responses, but not of a stream of events. Each is a status line, headers, and a
/// body of the announced length.
fn responses(mut heard: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !heard.is_empty() {
        let end = heard.windows(4).position(|window| window == b"\r\n\r\n");
        // The head of a stream of events may be cut off.
        let Some(end) = end else { break };
        let head = std::str::from_utf8(&heard[..end]).expect("text");
        heard = &heard[end + 4..];
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("a status line");
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3));
        let status = status.and_then(|status| status.parse().ok()).expect(line);
        // Whether a body is asked for depends on what has come of it.
        if status != 100 {
            statuses.push(status);
        }
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            assert!(!name.is_empty() && !value.chars().any(char::is_control), "{line:?}");
            if name == "Content-Length" {
                assert_eq!(length.replace(value.parse::<usize>().expect("a number")), None);
            }
            if (status, name) == (101, "Upgrade") || value == "text/event-stream" {
                // Frames or events follow.
                heard = &[];
            }
            if value == "text/event-stream" {
                assert_eq!(statuses.pop(), Some(200), "it was the last");
            }
        }
        // The answer to HEAD has a length and no body.
        if !heard.starts_with(b"HTTP/1.1 ") {
            assert!(heard.is_empty() || length.is_some(), "a body has a length");
            let body = length.unwrap_or(0).min(heard.len());
            assert!(heard.is_empty() || Some(body) == length, "a body is whole");
            heard = &heard[body..];
        }
    }
    statuses
}
