//! Tests of `sse/encoder.rs`.

use std::collections::VecDeque;

use super::*;
use crate::http1::chunked::Chunked;
use crate::message::Encoding;

/// Messages that wait, as a queue keeps them.
struct Queue {
    messages: VecDeque<Message>,
    has_begun: bool,
}
impl Queue {
    fn of(messages: &[Message]) -> Self {
        Self { messages: messages.iter().cloned().collect(), has_begun: false }
    }

    fn poll_write(
        &mut self,
        encoder: &mut Encoder,
        write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<Progress>> {
        let unsent = Unsent::new(self.messages.iter(), self.has_begun.into(), &[], Encoding::Plain);
        let progress = ready!(encoder.poll_write(&unsent, write))?;
        self.messages.drain(..progress.messages);
        self.has_begun = progress.head_written > 0;
        Poll::Ready(Ok(progress))
    }
}
fn whole(messages: usize) -> Progress {
    Progress { messages, ..Progress::default() }
}
/// What a chunked body holds so far.
fn unchunked(body: &[u8]) -> Vec<u8> {
    let (mut chunked, mut out) = (Chunked::stream(), body.to_vec());
    chunked.decode(&mut out).expect("well-formed chunks");
    out.truncate(chunked.len());
    out
}
/// The events of messages, written in one go.
fn events(messages: &[Message]) -> String {
    encoded(messages, false)
}
fn encoded(messages: &[Message], is_chunked: bool) -> String {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Vec::new(), is_chunked);
    let mut queue = Queue::of(messages);
    while !queue.messages.is_empty() {
        let progress = queue.poll_write(&mut encoder, |bytes| {
            out.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        });
        assert!(matches!(progress, Poll::Ready(Ok(_))), "everything is taken");
    }
    String::from_utf8(out).expect("text")
}
#[test]
fn each_line_of_a_text_is_a_line_of_data() {
    for (text, event) in [
        ("hello", "data: hello\n\n"),
        ("", "data: \n\n"),
        (" a", "data:  a\n\n"),
        ("a\nb", "data: a\ndata: b\n\n"),
        ("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n"),
        ("\n\r\n\r\r", "data: \ndata: \ndata: \ndata: \ndata: \n\n"),
        ("data: x\nevent: y", "data: data: x\ndata: event: y\n\n"),
    ] {
        assert_eq!(events(&[text.into()]), event, "{text:?}");
    }
}
#[test]
fn each_event_of_a_chunked_stream_is_a_chunk() {
    let chunks = encoded(&["hello".into(), "".into(), Message::binary([0])], true);
    let events = ["000d\r\ndata: hello\n\n\r\n", "0008\r\ndata: \n\n\r\n"].concat();
    assert_eq!(chunks, events + "001a\r\nevent: binary\ndata: AA==\n\n\r\n");
    let long = [Message::from("x".repeat(60_000)), vec![7u8; 60_000].into()];
    let chunks = encoded(&long, true);
    assert_eq!(unchunked(chunks.as_bytes()), self::events(&long).as_bytes());
}
#[test]
fn a_chunked_stream_ends_with_the_last_chunk() {
    let mut encoder = Encoder::new(b"head".to_vec(), true);
    encoder.say(b":\n");
    encoder.end(b"event: close\n\n");
    let said = String::from_utf8(encoder.out).expect("text");
    assert_eq!(said, "head0002\r\n:\n\r\n000e\r\nevent: close\n\n\r\n0\r\n\r\n");
}
#[test]
fn bytes_are_base64_under_a_name() {
    let long = vec![7u8; 100_001];
    for bytes in [&b""[..], b"\0\xff", &long] {
        let event = events(&[bytes.into()]);
        let encoded = Base64::encode_string(bytes);
        assert_eq!(event, format!("event: binary\ndata: {encoded}\n\n"));
    }
}
/// However a stream takes the events, they come out the same, the queue keeps a message that has
/// begun, no buffer grows with a message that encodes badly, and the task waits for
/// no stream that has not said that it is full.
#[test]
fn streams_that_take_little_make_no_difference() {
    let newlines = "\r\n".repeat(30_000);
    let messages: Vec<Message> = vec![
        "one\ntwo".into(),
        vec![1u8; 20_000].into(),
        newlines.as_str().into(),
        "".into(),
        Message::binary([]),
        "x".repeat(60_000).into(),
        "last\r".into(),
    ];
    let expected = events(&messages);
    for seed in 0..40 {
        let is_chunked = seed % 2 == 0;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut out = Vec::new();
        let mut encoder = Encoder::new(Vec::new(), is_chunked);
        let mut queue = Queue::of(&messages);
        while !queue.messages.is_empty() {
            let before = out.len();
            let mut full = false;
            let progress = queue.poll_write(&mut encoder, |bytes| {
                assert!(!full, "seed {seed}: asked again before it can have room");
                let most = if random.bool() { 7 } else { 9_000 };
                let n = random.usize(..=bytes.len().min(most));
                out.extend_from_slice(&bytes[..n]);
                full = n == 0;
                if full { Poll::Pending } else { Poll::Ready(Ok(n)) }
            });
            assert!(encoder.out.len() < 2 * BATCH, "{}", encoder.out.len());
            let wrote = out.len() > before;
            match progress {
                Poll::Ready(progress) => drop(progress.expect("no error")),
                Poll::Pending => assert!(full, "seed {seed}: nothing is armed"),
            }
            // What is untouched may be dropped by the queue.
            let written = messages.len() - queue.messages.len();
            let begins = events(&messages[..written]).len();
            let come = if is_chunked { unchunked(&out).len() } else { out.len() };
            assert!(queue.has_begun || come == begins, "seed {seed}");
            assert!(!queue.has_begun || out.len() > begins || !wrote, "seed {seed}");
        }
        while encoder
            .poll_flush(|bytes| {
                out.extend_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            })
            .is_pending()
        {}
        let out = if is_chunked { unchunked(&out) } else { out };
        assert!(out == expected.as_bytes(), "seed {seed}");
    }
}
/// Many short events are encoded at once, and of those one is half written.
#[test]
fn what_waits_takes_no_more_memory_than_it_needs() {
    let mut encoder = Encoder::default();
    let mut queue = Queue::of(&vec![Message::from("x".repeat(100)); 64]);
    let progress = queue.poll_write(&mut encoder, |_| Poll::Ready(Ok(1_000)));
    // Nine whole events of 108 bytes, and a part of the tenth.
    let tenth = Progress { messages: 9, head_written: 1, control: 0 };
    assert!(matches!(progress, Poll::Ready(Ok(progress)) if progress == tenth));
    assert!(!encoder.end_drain(), "the rest of the tenth event");
    assert!(encoder.size() < allocation(108), "{} bytes", encoder.size());
}
#[test]
fn a_stream_that_takes_nothing_has_failed() {
    let mut queue = Queue::of(&["x".repeat(60_000).into()]);
    let mut encoder = Encoder::default();
    let mut write = |encoder: &mut Encoder, takes_all: bool| {
        queue.poll_write(encoder, |out| Poll::Ready(Ok(if takes_all { out.len() } else { 0 })))
    };
    let failed = |progress| match progress {
        Poll::Ready(Err(error)) => io::Error::kind(&error) == io::ErrorKind::WriteZero,
        _ => false,
    };
    assert!(failed(write(&mut Encoder::default(), false)), "where a message begins");
    assert!(matches!(write(&mut encoder, true), Poll::Ready(Ok(_))));
    assert!(failed(write(&mut encoder, false)), "where it goes on");
}
#[test]
fn a_word_of_our_own_never_falls_into_an_event() {
    let mut encoder = Encoder::new(b"head".to_vec(), false);
    encoder.say(b": comment\n\n");
    let mut queue = Queue::of(&["hello".into(), "hello".into()]);
    let mut out = Vec::new();
    let mut take = |most: usize, encoder: &mut Encoder| {
        queue.poll_write(encoder, |bytes| {
            let n = bytes.len().min(most);
            out.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        })
    };
    let first = take(13, &mut encoder);
    assert!(matches!(first, Poll::Ready(Ok(progress)) if progress == whole(1)));
    assert!(!encoder.is_midway());
    let half = take(7, &mut encoder);
    let begun = Progress { head_written: 1, ..Progress::default() };
    assert!(matches!(half, Poll::Ready(Ok(progress)) if progress == begun));
    assert!(encoder.is_midway());
    encoder.say(b": comment\n\n");
    assert!(!encoder.out.ends_with(b": comment\n\n"));
    assert!(out.starts_with(b"head: comment\n\ndata: hello\n\n"));
}
