//! Requests that the program answers itself.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use http::StatusCode;

use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::connection::request_body::Body;
use crate::http1::head::{HEAD_BYTES_MAX, Head};
use crate::http1::response::{Response, internal_error, request_timeout};
use crate::http1::slot::Slot;
use crate::http1::stream::{Failure, HttpStream};
use crate::memory::budget::{Charge, allocation};
use crate::net::stream::Transport;
use crate::serve::exchange::Exchange;
use crate::serve::routes::no_route;
use crate::time::clock::now;

/// Bytes that a head takes at most while its body comes: the text of its fields, and as much for the
/// table of them.
const HEAD_MEMORY: usize = 2 * HEAD_BYTES_MAX;

// How far the hook of a request is, for the deadline that holds for it.

/// The hook runs, and has not asked for the body: the deadline is that of the head.
const RUNS: u8 = 0;
/// The body comes, which has deadlines of its own.
const READS: u8 = 1;
/// The body is read or given up, and the hook has the time of a handshake from here.
const HAS_READ: u8 = 2;
/// That time runs.
const ENDS: u8 = 3;

/// What came of the body.
#[derive(Default)]
struct Taken {
    /// Why it is not whole.
    failure: Option<Failure>,
    /// Counts its memory while the hook runs.
    _charge: Option<Charge>,
}

/// Has the program's hook answer a request.
///
/// The hook and the head share a deadline, as those of a request to publish do. Once the body has
/// come, which has its own deadlines, the hook has the time of a handshake again.
pub(crate) async fn answer<T: Transport, H: Handler>(
    stream: &mut HttpStream<'_, T>,
    handler: &H,
    head: &Head,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Failure> {
    let shared = stream.hub.shared();
    let (timers, patience) = (&shared.timers, shared.config.handshake_timeout);
    let (request, peer, stage) = (&head.request, exchange.client_address, AtomicU8::new(RUNS));
    let mut taken = Taken::default();
    let answered = {
        let Exchange { slot, has_unread_body, .. } = exchange;
        let mut deadline = timers.at(slot.deadline.due());
        let body = read(stream, head, slot, has_unread_body, &stage, &mut taken);
        let is_ours = |status: &StatusCode| *status == StatusCode::NOT_FOUND;
        let no_route = || no_route(request.uri().path(), shared.config.http).into();
        let reason = |status| {
            let own = handler.on_refusal(request, status);
            own.or_else(|| is_ours(&status).then(no_route))
        };
        let hook = handler.on_request(request, &peer, Body::new(body));
        let mut hook = pin!(run_request_hook(hook, reason));
        poll_fn(|cx| {
            if let Poll::Ready(answered) = hook.as_mut().poll(cx) {
                return Poll::Ready(Some(answered));
            }
            match stage.load(Ordering::Relaxed) {
                READS => return Poll::Pending,
                HAS_READ => {
                    stage.store(ENDS, Ordering::Relaxed);
                    deadline.set(timers.tick_of(now() + patience));
                }
                _ => {}
            }
            Pin::new(&mut deadline).poll(cx).map(|()| None)
        })
        .await
    };
    match (answered, taken.failure) {
        // The peer has left, or the hook says what is wrong with the body.
        (_, Some(failure @ Failure::Io(_))) | (Some(Err(_)), Some(failure)) => Err(failure),
        (Some(Ok(response)), _) => Ok(Response::of_program(response)
            .unwrap_or_else(|| internal_error("on_request answered with a status that is none"))),
        (Some(Err(refusal)), None) => Ok(refusal),
        (None, _) if stage.load(Ordering::Relaxed) == RUNS => Ok(request_timeout()),
        (None, _) => Ok(internal_error("on_request took too long")),
    }
}

/// Reads the body.
async fn read<T: Transport>(
    stream: &mut HttpStream<'_, T>,
    head: &Head,
    slot: &mut Slot<'_>,
    has_unread_body: &mut bool,
    stage: &AtomicU8,
    taken: &mut Taken,
) -> Result<Vec<u8>, StatusCode> {
    /// Ends the reading, also if the hook drops it.
    struct Reading<'a>(&'a AtomicU8);
    impl Drop for Reading<'_> {
        fn drop(&mut self) {
            self.0.store(HAS_READ, Ordering::Relaxed);
        }
    }
    stage.store(READS, Ordering::Relaxed);
    let _reading = Reading(stage);
    // The head stays while the body comes, which may take long.
    let _head = stream.hub.memory().charge(HEAD_MEMORY);
    let (max, expects_continue) = (stream.hub.shared().config.max_message, head.expects_continue());
    match stream.read_body(head.framing, max, expects_continue, slot).await {
        Ok(len) => {
            *has_unread_body = false;
            let body = stream.buffer[..len].to_vec();
            stream.consume(len);
            taken._charge = Some(stream.hub.memory().charge(allocation(len)));
            Ok(body)
        }
        Err(failure) => {
            let status = match &failure {
                Failure::Refused(response) => response.status,
                Failure::Io(_) | Failure::Ended => StatusCode::BAD_REQUEST,
            };
            taken.failure = Some(failure);
            Err(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;

    use fastrand::Rng;
    use futures_lite::future::poll_once;
    use http::Request;
    use smol::Executor;

    use super::*;
    use crate::config::Config;
    use crate::disconnect::Disconnect;
    use crate::hub::client::Client;
    use crate::hub::handle::Hub;
    use crate::message::Message;
    use crate::peer::Peer;
    use crate::sim::network::{Line, Socket};
    use crate::time::virtual_time::VirtualTime;

    /// Never answers: `/at-once` without the body, `/then` behind it, `/given-up` once it has given
    /// the body up.
    struct Slow;
    impl Handler for Slow {
        async fn on_request(
            &self,
            request: &Request<()>,
            _: &Peer,
            body: Body<'_>,
        ) -> Result<http::Response<Vec<u8>>, StatusCode> {
            match request.uri().path() {
                "/then" => drop(body.read().await?),
                "/given-up" => drop(poll_once(body.read()).await),
                "/echo" => return Ok(http::Response::new(body.read().await?)),
                _ => {}
            }
            pending().await
        }

        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    /// A peer that has sent the head of a POST with a body of 4 bytes.
    struct Stage {
        time: VirtualTime,
        hub: Hub,
        connections: Executor<'static>,
        line: Arc<Line>,
    }
    impl Stage {
        fn new(path: &str, body: &str) -> Self {
            let time = VirtualTime::start();
            let (hub, _manager) = Hub::new(Config::default()).expect("valid");
            let connections = Executor::new();
            let line = Line::new(usize::MAX, usize::MAX, Rng::with_seed(1));
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n");
            line.send(head.as_bytes());
            line.send(body.as_bytes());
            let (serving, socket) = (hub.clone(), Socket::new(&line, false));
            let connection =
                async move { drop(serving.serve_connection(socket, Peer::unix(), &Slow).await) };
            connections.spawn(connection).detach();
            let stage = Self { time, hub, connections, line };
            stage.wait(Duration::ZERO);
            stage
        }

        fn wait(&self, wait: Duration) {
            self.time.advance(wait);
            while self.connections.try_tick() {}
        }

        /// The status of the answer, once there is one.
        fn status(&self) -> Option<String> {
            let answer = String::from_utf8(self.line.lock().taken.clone()).expect("text");
            answer.get(9..12).map(str::to_owned)
        }
    }
    const MOMENT: Duration = Duration::from_millis(100);
    #[test]
    fn hook_has_the_time_of_a_handshake_and_again_once_the_body_is_there() {
        for (path, body, status) in
            [("/at-once", "", "408"), ("/then", "body", "500"), ("/given-up", "", "500")]
        {
            let stage = Stage::new(path, body);
            stage.wait(Config::HANDSHAKE_TIMEOUT - MOMENT);
            assert_eq!(stage.status(), None, "{path}");
            stage.wait(2 * MOMENT);
            assert_eq!(stage.status().as_deref(), Some(status), "{path}");
        }
    }
    #[test]
    fn body_that_makes_progress_has_deadlines_of_its_own() {
        let stage = Stage::new("/echo", "");
        for byte in ["b", "o", "d"] {
            stage.wait(Config::HANDSHAKE_TIMEOUT - MOMENT);
            stage.line.send(byte.as_bytes());
            stage.wait(Duration::ZERO);
            assert_eq!(stage.status(), None);
        }
        stage.line.send(b"y");
        stage.wait(Duration::ZERO);
        assert_eq!(stage.status().as_deref(), Some("200"));
        assert!(stage.line.lock().taken.ends_with(b"\r\n\r\nbody"));
        drop(stage);
        // The time behind the body begins with its last byte.
        let stage = Stage::new("/then", "bod");
        stage.wait(Config::HANDSHAKE_TIMEOUT - MOMENT);
        stage.line.send(b"y");
        stage.wait(Duration::ZERO);
        stage.wait(Config::HANDSHAKE_TIMEOUT - MOMENT);
        assert_eq!(stage.status(), None);
        stage.wait(2 * MOMENT);
        assert_eq!(stage.status().as_deref(), Some("500"));
        drop(stage);
        let stage = Stage::new("/echo", "bod");
        stage.wait(Config::HANDSHAKE_TIMEOUT + MOMENT);
        assert_eq!(stage.status().as_deref(), Some("408"), "no byte came");
    }
    #[test]
    fn memory_of_a_body_is_counted_while_its_hook_runs() {
        let stage = Stage::new("/then", "bod");
        let coming = stage.hub.memory().charged();
        assert!(coming >= HEAD_MEMORY, "{coming} bytes");
        stage.line.send(b"y");
        stage.wait(Duration::ZERO);
        let held = stage.hub.memory().charged();
        assert!((allocation(4)..HEAD_MEMORY).contains(&held), "{held} bytes");
        stage.wait(Config::HANDSHAKE_TIMEOUT + MOMENT);
        stage.line.end();
        stage.wait(Duration::ZERO);
        assert_eq!(stage.hub.memory().charged(), 0);
    }
}
