//! Bytes for a request head: each gets an answer, the same however they are cut, or an upgrade.

use hublet::{Client, Config, Disconnect, Handler, Message};

use super::stage::{Dice, Peer, run as stage};

struct Nothing;

impl Handler for Nothing {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }
}

pub fn run(bytes: &[u8]) {
    let Some((&flags, request)) = bytes.split_first() else { return };
    let whole = answer(flags, request, usize::MAX);
    let cut = answer(flags, request, 1 + usize::from(flags >> 4));
    assert_eq!(whole, cut, "the answer depends on how the request is cut");
}

/// The status of the answer; 101 for an upgrade, 0 for none.
fn answer(flags: u8, request: &[u8], piece: usize) -> u16 {
    let config = Config::default().http(flags & 1 != 0).origins(if flags & 2 != 0 {
        vec!["https://app.example".into()]
    } else {
        Vec::new()
    });
    let (peer, heard) = Peer::new(request, piece.min(1 << 20), Dice::new(u64::from(flags)));
    let outcome = stage(config, request.len(), |hub| async move {
        hub.serve_connection(peer, hublet::Peer::unknown(), &Nothing).await
    });
    let heard = std::mem::take(&mut *heard.lock().expect("one thread"));
    match outcome {
        Ok(_) => {
            assert!(heard.starts_with(b"HTTP/1.1 101 "), "an upgrade begins with its 101");
            101
        }
        Err(error) => match error.status() {
            Some(status) => {
                check_response(
                    &heard,
                    status.as_u16(),
                    request.windows(5).any(|window| window == b"HEAD "),
                );
                status.as_u16()
            }
            None => {
                assert!(heard.is_empty(), "no answer has no bytes");
                0
            }
        },
    }
}

/// A response is a status line, headers, and as many bytes of body as they say.
fn check_response(heard: &[u8], status: u16, head_only: bool) {
    let text = std::str::from_utf8(heard).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    let mut lines = head.split("\r\n");
    let line = lines.next().expect("a status line");
    assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        assert!(!name.is_empty() && !value.chars().any(char::is_control), "{line:?}");
        if name == "Content-Length" {
            assert_eq!(length.replace(value.parse::<usize>().expect("a number")), None);
        }
    }
    let length = length.expect("a length");
    assert!(body.len() == length || (head_only && body.is_empty()), "{text:?}");
}
