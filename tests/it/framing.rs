//! Request smuggling: the hub refuses a request whose end is ambiguous. hyper, which is widely
//! used, is the reference.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::future::{block_on, or, zip};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use http_body_util::{BodyExt as _, Empty};
use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Handler, Hub, Message, Peer, Target};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::net::unix::UnixStream;
use smol::{Executor, Timer};
use smol_hyper::rt::FuturesIo;

use crate::peer::DEADLINE;

/// A request as a server has read it: method and path, and the body.
type Seen = (String, Vec<u8>);

/// Allows everything and records the requests.
#[derive(Clone, Default)]
struct Judge(Arc<Mutex<Vec<String>>>);

impl Judge {
    fn note(&self, request: &Request<()>) {
        let line = format!("{} {}", request.method(), request.uri().path());
        self.0.lock().expect("not poisoned").push(line);
    }
}

impl Handler for Judge {
    async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
        Ok(())
    }

    async fn on_publish(
        &self,
        request: &Request<()>,
        _: &Peer,
        _: &Target,
    ) -> Result<(), StatusCode> {
        self.note(request);
        Ok(())
    }

    async fn on_inspect(&self, request: &Request<()>, _: &Peer) -> Result<(), StatusCode> {
        self.note(request);
        Ok(())
    }
}

/// How the hub reads bytes: the requests that it answered with success, and all its statuses.
async fn ours(bytes: &[u8]) -> (Vec<Seen>, Vec<u16>) {
    let executor = Executor::new();
    let config = Config::default()
        .http(true)
        .max_message(4096)
        .handshake_timeout(Duration::from_secs(30))
        .close_timeout(Duration::from_secs(30));
    let (hub, manager) = Hub::new(config).expect("valid");
    let judge = Judge::default();
    let hearing = async {
        let mut room = hub.subscribe(Admission::anonymous().room("a")).await.expect("a permit");
        let (client, server) = pair();
        let serving = hub.serve_connection(server, Peer::unknown(), &judge);
        let (answers, _) = zip(exchange(client, bytes), serving).await;
        // The messages of the room are the bodies, in their order.
        let posts = judge.0.lock().expect("not poisoned").clone();
        let mut bodies = Vec::new();
        let taken = hub.stats().recipients;
        for _ in 0..taken {
            bodies.push(room.next().await.expect("sent").as_bytes().to_vec());
        }
        (posts, bodies, statuses(&answers))
    };
    let hearing = executor.run(or(hearing, async {
        manager.await;
        unreachable!("a handle of the hub exists")
    }));
    let (lines, bodies, statuses) = hearing.await;
    let mut bodies = bodies.into_iter();
    let mut seen = Vec::new();
    for line in lines {
        // A request without a message in the room was refused after the hook: its body did not come.
        let body = if line.starts_with('P') { bodies.next() } else { Some(Vec::new()) };
        seen.extend(body.map(|body| (line, body)));
    }
    (seen, statuses)
}

/// How hyper reads bytes.
async fn hypers(bytes: &[u8]) -> Vec<Seen> {
    let seen = Mutex::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let line = format!("{} {}", request.method(), request.uri().path());
        let is_post = request.method() == "POST" || request.method() == "PUT";
        if let Ok(body) = request.into_body().collect().await {
            // The hub answers other requests without reading their bodies, so these do not count.
            let body = if is_post { body.to_bytes() } else { Bytes::new() };
            seen.lock().expect("not poisoned").push((line, body.to_vec()));
        }
        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
    });
    let (client, server) = pair();
    let mut builder = http1::Builder::new();
    let serving = builder.half_close(true).serve_connection(FuturesIo::new(server), service);
    let _ = zip(exchange(client, bytes), serving).await;
    seen.into_inner().expect("not poisoned")
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair")
}

/// Sends bytes and the end of the stream, and reads to the end.
async fn exchange(mut stream: UnixStream, bytes: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    let exchange = async {
        // A server that refuses the bytes need not read them all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.close().await;
        let _ = stream.read_to_end(&mut answers).await;
    };
    or(exchange, async {
        Timer::after(DEADLINE).await;
        panic!("no end: {:?}", String::from_utf8_lossy(bytes));
    })
    .await;
    answers
}

/// The statuses of answers. No body has a line that looks like a status line.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let status = |line: &str| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok();
    text.lines().filter_map(status).collect()
}

/// The request after each shape. The hub must see it if hyper does, and only then.
const NEXT: &str = "GET /rooms/next HTTP/1.1\r\nHost: x\r\n\r\n";

/// A POST to a room with these headers, and what follows them.
fn post(headers: &str, rest: &str) -> String {
    format!("POST /pub/a HTTP/1.1\r\nHost: x\r\n{headers}\r\n{rest}")
}

/// A POST to a room with a chunked body.
fn chunked(rest: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", rest)
}

/// The number of whole requests, which are the first of the shapes.
const WHOLE: usize = 17;

/// Every shape that is known to be read differently by some servers, and the statuses of the hub.
/// If hyper sees more requests than the hub answers, the hub is stricter, and a comment says why.
fn shapes() -> Vec<(String, &'static [u16])> {
    let next = |text: String| text + NEXT;
    vec![
        // Whole requests, one after another.
        (next(post("Content-Length: 3\r\n", "abc")), &[202, 200]),
        (next(post("Content-Length: 0\r\n", "")), &[202, 200]),
        (next(post("content-length:3\r\n", "abc")), &[202, 200]),
        (next(post("Content-Length: \t3 \r\n", "abc")), &[202, 200]),
        (next(post("Content-Length: 003\r\n", "abc")), &[202, 200]),
        (next(post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc")), &[202, 200]),
        (next(post("Content-Length: 3\r\nConnection: close\r\n", "abc")), &[202]),
        // A body that looks like a request is a body.
        (post(&format!("Content-Length: {}\r\n", NEXT.len()), NEXT), &[202]),
        (next(post("Content-Length: 3\r\n", "abc").replace("POST", "PUT")), &[202, 200]),
        // Chunks, and what they may have around them (RFC 9112 7.1).
        (next(chunked("3\r\nabc\r\n0\r\n\r\n")), &[202, 200]),
        (next(chunked("3\r\nabc\r\n00c\r\n and longer.\r\n0\r\n\r\n")), &[202, 200]),
        (next(chunked("0\r\n\r\n")), &[202, 200]),
        (next(chunked("3;name=\"a\"\r\nabc\r\n0;last\r\n\r\n")), &[202, 200]),
        (next(chunked("3\r\nabc\r\n0\r\nTrailer: x\r\nContent-Length: 9\r\n\r\n")), &[202, 200]),
        (next(post("Transfer-Encoding:\tChunked \r\n", "1\r\na\r\n0\r\n\r\n")), &[202, 200]),
        // A chunk that looks like a request is a chunk.
        (chunked(&format!("{:x}\r\n{NEXT}\r\n0\r\n\r\n", NEXT.len())), &[202]),
        // An old client's empty line behind a body is no request (RFC 9112 2.2).
        (next(post("Content-Length: 3\r\n", "abc\r\n")), &[202, 200]),
        // Two lengths, or a length that is no number (RFC 9112 6.3).
        (next(post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc")), &[400]),
        (next(post("Content-Length: 3, 3\r\n", "abc")), &[400]),
        (next(post("Content-Length: +3\r\n", "abc")), &[400]),
        (next(post("Content-Length: -3\r\n", "abc")), &[400]),
        (next(post("Content-Length: 0x3\r\n", "abc")), &[400]),
        (next(post("Content-Length: 3 3\r\n", "abc")), &[400]),
        (next(post("Content-Length: \r\n", "abc")), &[400]),
        (next(post("Content-Length: 99999999999999999999\r\n", "abc")), &[400]),
        (next(post("Content-Length : 3\r\n", "abc")), &[400]),
        (next(post("Content-Length\r\n", "abc")), &[400]),
        (next(post("Content-Length:\r\n 3\r\n", "abc")), &[400]),
        (next(post(" Content-Length: 3\r\n", "abc")), &[400]),
        (next(post("Content-Length: 3\n", "abc")), &[400]),
        (next(post("Content-Length: 3\r", "abc")), &[400]),
        (next(post("X: y\0\r\nContent-Length: 3\r\n", "abc")), &[400]),
        (next(post("Content\u{e9}-Length: 3\r\n", "abc")), &[400]),
        // Chunks that another reader could cut elsewhere: a size that is more than digits, a line that
        // ends otherwise, data that is longer or shorter than its size.
        (next(chunked("3 \r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked(" 3\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("+3\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("0x3\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3_\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("\r\n3\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3\nabc\n0\n\n")), &[400]),
        (next(chunked("3\rabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3;a\nb\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3;a\rb\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3\r\nabc0\r\n\r\n")), &[400]),
        (next(chunked("3\r\nabcd\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3\r\nab\r\n0\r\n\r\n")), &[400]),
        (next(chunked("3\r\nabc\n0\r\n\r\n")), &[400]),
        (next(chunked("10000000000000003\r\nabc\r\n0\r\n\r\n")), &[400]),
        (next(chunked("0\r\nno field\r\n\r\n")), &[400]),
        (next(chunked("0\r\nName : x\r\n\r\n")), &[400]),
        (next(chunked("0\r\nName: x\n\r\n")), &[400]),
        // Hyper lets extensions be four times as long.
        (next(chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(5000)))), &[400]),
        (next(chunked(&format!("0\r\n{}\r\n", "Name: x\r\n".repeat(500)))), &[400]),
        // The longest message has 4,096 bytes here.
        (next(chunked("1001\r\nabc")), &[413]),
        (next(chunked("ffffffffffffffff\r\nabc")), &[413]),
        // One that never comes whole is no message.
        (chunked("3\r\nabc\r\n"), &[]),
        (chunked("3\r\nabc\r\n0\r\n"), &[]),
        // The only transfer encoding is chunked, once.
        (next(post("Transfer-Encoding: identity\r\n", "")), &[501]),
        (next(post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n")), &[400]),
        (next(post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")), &[501]),
        (next(post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n")), &[501]),
        // A body with a coding would reach clients as it is.
        (next(post("Content-Encoding: gzip\r\nContent-Length: 3\r\n", "abc")), &[415]),
        (next(post("Content-Encoding: identity\r\nContent-Length: 3\r\n", "abc")), &[202, 200]),
        (next(post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")), &[400]),
        (next(post("Transfer_Encoding: chunked\r\nContent-Length: 0\r\n", "")), &[202, 200]),
        // Length and encoding (RFC 9112 6.1: a server may refuse both; hyper uses the encoding).
        (next(post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), &[400]),
        (next(post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n")), &[400]),
        // A POST without a length may still have a body, so 411 ends the connection. hyper assumes
        // an empty body.
        (next(post("", "")), &[411]),
        // A GET may have a body too. The hub does not read it and closes the connection. hyper
        // reads it.
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".into()), &[200]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into()), &[200, 200]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()), &[200]),
        // If the hub refuses a body unread, the connection ends.
        (next(post("Content-Length: 5000\r\n", &"x".repeat(5000))), &[413]),
        (next(post("Content-Length: 5000\r\nExpect: 100-continue\r\n", "")), &[413]),
        // A body that does not arrive whole is no message.
        (post("Content-Length: 9\r\n", "abc"), &[]),
        // A partial head is no request.
        ("GET /rooms/a HTTP/1.1\r\nHost: x\r\n".into(), &[]),
        // One Host, and the same as the target's (hyper leaves both to the program).
        (next("GET /rooms/a HTTP/1.1\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("GET http://x/rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[200, 200]),
        (next("GET http://x/rooms/a HTTP/1.1\r\nHost: y\r\n\r\n".into()), &[400]),
        // Lines end with CR LF and nothing else (RFC 9112 2.2 lets a reader take LF; hyper does).
        (next("GET /rooms/a HTTP/1.1\nHost: x\n\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nX: a\rb\r\nHost: x\r\n\r\n".into()), &[400]),
        // Two empty lines before a request are skipped (RFC 9112 2.2); three are refused.
        (next("\r\nGET /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[200, 200]),
        (next("\r\n\r\nGET /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[200, 200]),
        (next("\r\n\r\n\r\nGET /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("\nGET /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        ("\r\n".into(), &[]),
        // The three parts of a request line are separated by one space each.
        (next("GET  /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a  HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[505]),
        (next("GET\t/rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a b HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[505]),
        (next("GET /rooms/a HTTP/1.1 \r\nHost: x\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a\r\nHost: x\r\n\r\n".into()), &[400]),
        (next(" GET /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("G\u{e9}T /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("get /rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[405, 200]),
        (next("GET rooms/a HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("GET * HTTP/1.1\r\nHost: x\r\n\r\n".into()), &[400]),
        (next("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.2\r\nHost: x\r\n\r\n".into()), &[505]),
        (next("GET /rooms/a HTTP/0.9\r\nHost: x\r\n\r\n".into()), &[505]),
        (next("GET /rooms/a http/1.1\r\nHost: x\r\n\r\n".into()), &[505]),
        (next("GET /rooms/a HTTP/2.0\r\nHost: x\r\n\r\n".into()), &[505]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[505]),
        // An HTTP/1.0 connection ends with its response.
        (next("GET /rooms/a HTTP/1.0\r\n\r\n".into()), &[200]),
        (next("GET /rooms/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into()), &[200]),
        (next("POST /pub/a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc".into()), &[202]),
        (next("POST /pub/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()), &[400]),
        // Names and values with bytes that are not allowed, and heads that are too long.
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nX(: y\r\n\r\n".into()), &[400]),
        (next("GET /rooms/a HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n".into()), &[400]),
        (next(format!("GET /rooms/a HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(9000))), &[431]),
        (next(format!("GET /rooms/a HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(64))), &[431]),
        // A refused upgrade ends the connection: frames may follow it.
        (next("GET /ws/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".into()), &[426, 200]),
    ]
}

/// Fails if the hub sees a request that hyper does not see after the ones before it. hyper may see
/// more: the hub is stricter, and a request that is refused before its hook does not count here.
fn compare(bytes: &[u8], ours: &[Seen], hypers: &[Seen]) {
    let mut judged = hypers.iter();
    let agree = ours.iter().all(|seen| judged.any(|other| other == seen));
    assert!(
        agree,
        "{:?}\nis read by the hub as {ours:?}\nand by hyper as {hypers:?}",
        String::from_utf8_lossy(bytes)
    );
}

#[test]
fn each_shape_is_answered_as_in_the_table_and_read_as_by_hyper() {
    block_on(async {
        let mut wrong = Vec::new();
        for (shape, expected) in shapes() {
            let bytes = shape.as_bytes();
            let ((seen, statuses), judged) = (ours(bytes).await, hypers(bytes).await);
            compare(bytes, &seen, &judged);
            if statuses != expected {
                wrong.push(format!("{shape:?} is answered {statuses:?} and not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Shapes in random sequences, cut, and with single bytes changed.
#[test]
fn mixtures_of_shapes_are_read_as_by_hyper() {
    let pieces: Vec<_> = shapes().into_iter().map(|(shape, _)| shape.into_bytes()).collect();
    let words = [
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\0",
        ":",
        "0",
        "3",
        "Content-Length: 3\r\n",
        "chunked",
        "Transfer-Encoding: chunked\r\n",
        "3\r\n",
        "0\r\n\r\n",
        ";",
        "3;x\r\nabc\r\n",
    ];
    let (mut agreed, mut requests) = (0, 0);
    block_on(async {
        for seed in 0..1500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = Vec::new();
            for _ in 0..random.usize(1..4) {
                // Mostly whole requests, or the first would be refused.
                let among = if random.bool() { WHOLE } else { pieces.len() };
                let piece = &pieces[random.usize(..among)];
                if piece.len() < 2000 {
                    bytes.extend_from_slice(piece);
                }
            }
            for _ in 0..random.usize(..3) {
                if bytes.is_empty() {
                    break;
                }
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.truncate(at),
                    _ => {
                        let word = words[random.usize(..words.len())];
                        bytes.splice(at..at, word.bytes());
                    }
                }
            }
            let ((seen, _), judged) = (ours(&bytes).await, hypers(&bytes).await);
            compare(&bytes, &seen, &judged);
            agreed += usize::from(seen.len() == judged.len() && !seen.is_empty());
            requests += seen.len();
        }
    });
    // The test would prove nothing if most were refused.
    assert!(agreed > 200 && requests > 500, "{agreed} alike, {requests} requests");
}
