//! Publishing a stream of lines: each line of a body is a message as it comes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use futures_lite::future::yield_now;
use http::{Request, StatusCode, header};

use crate::connection::handler::Handler;
use crate::connection::memory_wait::MemoryWait;
use crate::connection::registration::client_permit;
use crate::http1::body_stream::BodyStream;
use crate::http1::head::{Framing, Head};
use crate::http1::response::{Response, draining, request_timeout};
use crate::http1::stream::{Failure, HttpStream};
use crate::http1::url::query_of;
use crate::hub::client_id::Target;
use crate::hub::command::{Dispatched, Publish};
use crate::hub::handle::Hub;
use crate::hub::reply::Answer;
use crate::json;
use crate::net::stream::Transport;
use crate::serve::exchange::Exchange;
use crate::serve::long_request::{HEAD_CHARGE, over};
use crate::serve::post_rate::{Metered, metered, slow_down};
use crate::serve::publish::{has_binary_type, message, outcome_unknown};
use crate::stats::add;
use crate::time::timers::Deadline;

/// Messages of one stream that the manager has not answered for, at most: half a queue at the
/// defaults, so that clients that keep up miss nothing of a stream that comes fast.
const UNANSWERED_MAX: usize = 32;

/// Bytes of a line that may wait for the rest of it without a deadline. Programs write a part of a
/// line and go on later; what is longer has the time of a message.
const BEGUN_MAX: usize = 4 * 1024;

/// Whether each line of a request's body is a message.
pub(crate) fn has_lines(request: &Request<()>) -> Result<bool, Response> {
    match query_of(request.uri(), "lines").as_deref() {
        Some("" | "1") => Ok(true),
        Some("0") => Ok(false),
        Some(_) => Err(Response::bad_request("the parameter lines is 0 or 1")),
        None => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim_ascii();
            Ok(kind.eq_ignore_ascii_case("application/x-ndjson"))
        }
    }
}

/// Publishes each line of a body, for as long as the request lasts, once the hook has allowed it.
///
/// The request gives its slot among the handshakes back, and takes the permit of a client. While the
/// inbox is full or memory is short nothing is read, so that TCP slows the peer down.
pub(crate) async fn publish_lines<T: Transport, H: Handler>(
    stream: &mut HttpStream<'_, T>,
    handler: &H,
    head: Head,
    target: Target,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Failure> {
    let hub = stream.hub;
    let peer = exchange.client_address;
    let _permit = client_permit(hub, peer.network())?;
    if head.expects_continue() && head.framing != Framing::Length(0) {
        stream.send_continue(&mut exchange.slot).await?;
    }
    exchange.slot.release();
    let _charge = hub.memory().charge(HEAD_CHARGE);
    let (request, mut body) = (&head.request, BodyStream::new(head.framing));
    let is_binary = has_binary_type(request.headers());
    let mut over = pin!(over(hub, handler, request, &peer, &target));
    let mut lines = Lines {
        hub,
        target: target.clone(),
        is_binary,
        number: 0,
        messages: 0,
        recipients: 0,
        unanswered: Vec::new(),
        searched: 0,
        metered: metered(hub, handler, request, &peer),
        uncounted: 0,
    };
    let ended = lines.read_all(stream, &mut body, over.as_mut()).await;
    // What the inbox has is dispatched, whatever has ended the stream.
    let ended = match (lines.collect().await, ended) {
        (Ok(()), ended) => ended,
        (Err(unknown), _) => Err(unknown.into()),
    };
    let refused = match ended {
        Ok(()) => None,
        Err(Failure::Refused(refused)) => Some(refused),
        Err(error) => return Err(error),
    };
    exchange.has_unread_body = refused.is_some();
    Ok(lines.report(refused))
}

/// The lines of a body, and what became of them.
struct Lines<'a> {
    hub: &'a Hub,
    target: Target,
    /// Each message is binary, also where it is UTF-8.
    is_binary: bool,
    /// Lines so far, the empty ones too.
    number: u64,
    /// Messages that were dispatched.
    messages: u64,
    /// Clients that they reached, summed up.
    recipients: u64,
    /// The manager's answers that are still to come.
    unanswered: Vec<Answer<Dispatched>>,
    /// Bytes of the line that has begun, in which no line end is.
    searched: usize,
    /// Where the lines count, if the rate of their address is limited.
    metered: Option<Metered<'a>>,
    /// Messages that were not counted there yet.
    uncounted: usize,
}

impl Lines<'_> {
    /// Publishes lines until the body ends, or something ends it.
    async fn read_all<T: Transport>(
        &mut self,
        stream: &mut HttpStream<'_, T>,
        body: &mut BodyStream,
        mut over: Pin<&mut impl Future<Output = Response>>,
    ) -> Result<(), Failure> {
        let hub = self.hub;
        let mut memory = MemoryWait::default();
        let mut late: Option<Deadline<'_>> = None;
        loop {
            let (come, is_whole) = body.decode(&mut stream.buffer);
            // Lines ahead of what is malformed are published, however the bytes are cut.
            let used = self.publish(&stream.buffer[..come], matches!(is_whole, Ok(true))).await?;
            let is_whole = is_whole?;
            body.consume(&mut stream.buffer, used);
            stream.charge_buffer();
            if !is_whole {
                self.collect().await?;
            }
            if let Some(metered) = self.metered {
                let lines = std::mem::take(&mut self.uncounted);
                slow_down(hub, metered, lines, over.as_mut()).await?;
            }
            if is_whole {
                return Ok(());
            }
            let is_long = come - used > BEGUN_MAX;
            if !is_long || used > 0 {
                late = None;
            }
            if is_long && late.is_none() {
                let shared = hub.shared();
                late = Some(shared.timers.after(shared.config.message_timeout));
            }
            let wanted = body.wanted(stream.buffer.len());
            let read = poll_fn(|cx| {
                if let Poll::Ready(refused) = over.as_mut().poll(cx) {
                    return Poll::Ready(Err(refused));
                }
                if late.as_mut().is_some_and(|late| Pin::new(late).poll(cx).is_ready()) {
                    return Poll::Ready(Err(request_timeout()));
                }
                ready!(memory.poll_available(cx, hub));
                let read = stream.poll_fill(cx, wanted);
                if read.is_pending() && stream.buffer.is_empty() {
                    // A stream that rests holds no buffer.
                    stream.release_buffer();
                }
                read.map(Ok)
            });
            if read.await?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // A body that comes as fast as it is read keeps no other connection waiting.
            yield_now().await;
        }
    }

    /// Publishes the lines that `come` begins with, and with the end of the body the last one;
    /// returns how many bytes they took.
    async fn publish(&mut self, come: &[u8], is_whole: bool) -> Result<usize, Response> {
        let max = self.hub.shared().config.max_message;
        let mut begin = 0;
        loop {
            let from = begin + std::mem::take(&mut self.searched);
            let (line, next) = match come[from..].iter().position(|&byte| byte == b'\n') {
                Some(at) => (&come[begin..from + at], from + at + 1),
                None if is_whole && begin < come.len() => (&come[begin..], come.len()),
                None => break,
            };
            self.number += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > max {
                return Err(self.too_long(self.number));
            }
            if !line.is_empty() {
                self.send(line).await?;
            }
            begin = next;
        }
        self.searched = come.len() - begin;
        // One byte more, since a CR ahead of the LF is not part of the line.
        if self.searched > max + 1 {
            return Err(self.too_long(self.number + 1));
        }
        Ok(begin)
    }

    /// Hands a line to the manager; waits while the inbox is full.
    async fn send(&mut self, line: &[u8]) -> Result<(), Response> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.collect().await?;
        }
        add(&self.hub.shared().counters.messages_received, 1);
        let publish = Publish::by_hub(self.target.clone(), message(line, self.is_binary));
        let answer = self.hub.publish_queued(publish).await.map_err(|_| draining())?;
        self.unanswered.push(answer);
        self.uncounted += 1;
        Ok(())
    }

    /// Waits for the manager's answers.
    async fn collect(&mut self) -> Result<(), Response> {
        for answer in self.unanswered.drain(..) {
            let dispatched = answer.await.ok_or_else(outcome_unknown)?;
            self.messages += 1;
            self.recipients += dispatched.recipients as u64;
        }
        Ok(())
    }

    fn too_long(&self, number: u64) -> Response {
        let max = self.hub.shared().config.max_message;
        let sentence = format!("line {number} is longer than the limit of {max} bytes");
        Response::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }

    /// The answer: what was done, and why no more.
    fn report(&self, refused: Option<Response>) -> Response {
        let mut body = String::new();
        let (messages, recipients) = (self.messages, self.recipients);
        // A string takes whatever is written.
        let _ = write!(body, "{{\"messages\":{messages},\"recipients\":{recipients}");
        let response = refused.unwrap_or_else(|| Response::new(StatusCode::ACCEPTED, ""));
        if response.status != StatusCode::ACCEPTED {
            body.push_str(",\"error\":");
            json::string(&mut body, &response.body);
        }
        body.push('}');
        response.with_json(Cow::Owned(body))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use fastrand::Rng;
    use smol::{Executor, Task};

    use super::*;
    use crate::config::Config;
    use crate::disconnect::Disconnect;
    use crate::hub::client::Client;
    use crate::message::Message;
    use crate::peer::Peer;
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    struct Open;
    impl Handler for Open {
        async fn on_publish(
            &self,
            _: &Request<()>,
            _: &Peer,
            _: &Target,
        ) -> Result<(), StatusCode> {
            Ok(())
        }

        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    const HEAD: &str =
        "POST /pub?lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    /// A stream of lines with its hub, on an executor and a clock that the test moves.
    struct Stage {
        time: VirtualTime,
        executor: Executor<'static>,
        hub: Hub,
        manager: Option<Task<()>>,
        line: Arc<Line>,
    }
    impl Stage {
        fn new(config: Config) -> Self {
            let (time, executor) = (VirtualTime::start(), Executor::new());
            let (hub, manager) = Hub::new(config.http(true).max_message(10_000)).expect("valid");
            let manager = Some(executor.spawn(manager));
            let line = Line::new(usize::MAX, usize::MAX, Rng::with_seed(1));
            let (serving, socket) = (hub.clone(), Socket::new(&line, false));
            let connection =
                async move { drop(serving.serve_connection(socket, Peer::unix(), &Open).await) };
            executor.spawn(connection).detach();
            let stage = Self { time, executor, hub, manager, line };
            stage.send(HEAD.as_bytes());
            stage
        }

        fn send(&self, bytes: &[u8]) {
            self.line.send(bytes);
            while self.executor.try_tick() {}
        }

        fn wait(&self, wait: Duration) {
            self.time.advance(wait);
            while self.executor.try_tick() {}
        }

        #[track_caller]
        fn is_answered(&self, status: u16, body: &str) {
            let answer = String::from_utf8(self.line.lock().taken.clone()).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains(body), "{answer}");
        }
    }
    #[test]
    fn stream_has_the_permit_of_a_client_and_no_slot() {
        let stage = Stage::new(Config::default().handshakes(1).max_clients(Some(1)));
        stage.send(b"a\n");
        let admissions = &stage.hub.shared().admissions;
        assert!(!admissions.is_full(), "the slot is free");
        assert!(admissions.client(None).is_err(), "the place is taken");
        stage.line.end();
        stage.send(b"");
        assert!(admissions.client(None).is_ok(), "the place is free");
    }
    #[test]
    fn count_of_a_stream_has_all_that_was_sent() {
        let stage = Stage::new(Config::default());
        let mut bytes = b"a\nb\n\n".to_vec();
        bytes.extend([b'x'; 10_001]);
        bytes.push(b'\n');
        stage.send(&bytes);
        stage.is_answered(413, "{\"messages\":2,\"recipients\":0,\"error\":\"line 4 is longer");
    }
    #[test]
    fn line_without_end_is_refused_once_it_is_too_long() {
        let stage = Stage::new(Config::default());
        stage.send(&[b'x'; 10_001]);
        assert_eq!(stage.line.lock().taken, b"", "a CR may be the last of it");
        assert!(stage.hub.memory().charged() < 64 * 1024, "it holds one line");
        stage.send(b"x");
        stage.is_answered(413, "line 1 is longer than the limit of 10000 bytes");
        assert_eq!(stage.hub.stats().messages_dispatched, 0);
    }
    #[test]
    fn only_a_long_line_has_a_deadline() {
        let stage = Stage::new(Config::default());
        stage.send(&[b'x'; BEGUN_MAX]);
        stage.wait(10 * Config::MESSAGE_TIMEOUT);
        assert_eq!(stage.line.lock().taken, b"");
        stage.send(b"x");
        stage.wait(Config::MESSAGE_TIMEOUT - Duration::from_secs(1));
        stage.send(b"\n");
        stage.wait(10 * Config::MESSAGE_TIMEOUT);
        assert_eq!(stage.line.lock().taken, b"", "it has ended in time");
        stage.send(&[b'x'; BEGUN_MAX + 1]);
        stage.wait(2 * Config::MESSAGE_TIMEOUT);
        stage.is_answered(408, "{\"messages\":1,");
    }
    #[test]
    fn stream_that_rests_ends_with_the_manager() {
        let mut stage = Stage::new(Config::default());
        stage.send(b"a\n");
        drop(stage.manager.take());
        stage.send(b"");
        stage.is_answered(503, "{\"messages\":1,\"recipients\":0,\"error\":");
    }
    #[test]
    fn stream_that_rests_holds_no_buffer() {
        let stage = Stage::new(Config::default());
        stage.send(b"half of a li");
        let half = stage.hub.memory().charged();
        stage.send(b"ne\n");
        assert!(stage.hub.memory().charged() < half, "the buffer is given back");
        assert_eq!(stage.hub.memory().charged(), HEAD_CHARGE);
    }
}
