//! The HTTP routes: publishing, the admin endpoints, pages, and what they have in common.

use std::io::Read as _;
use std::time::Duration;

use hublet::http::{Request, StatusCode};
use hublet::{Client, Config, Disconnect, Handler, Message, Page, Peer as Source, Target};

use crate::peer::{BINARY, TEXT};
use crate::support::{TestHub, gone};

/// Allows every client to publish, and only this machine to use the admin endpoints.
pub(crate) struct Open;

impl Handler for Open {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.hub().broadcast(message).await.map(drop).map_err(gone)
    }

    async fn on_publish(
        &self,
        _: &Request<()>,
        _: &Source,
        target: &Target,
    ) -> Result<(), StatusCode> {
        let forbidden = Target::Room("forbidden".into());
        if *target == forbidden { Err(StatusCode::UNAUTHORIZED) } else { Ok(()) }
    }
}

pub(crate) fn open(config: Config) -> TestHub {
    TestHub::serving(config.http(true), Open)
}

pub(crate) fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Sends one request on a connection of its own. Returns the status, the head and the body.
#[track_caller]
pub(crate) fn ask(hub: &TestHub, request: &str) -> (u16, String, String) {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut peer = hub.dial();
    peer.write(request.as_bytes());
    let mut answer = String::new();
    peer.into_stream().read_to_string(&mut answer).expect("an answer and its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_owned(), body.to_owned())
}

#[test]
fn post_reaches_its_room_and_returns_the_recipients() {
    let hub = open(Config::default());
    let mut here = hub.join_at("/ws/a");
    let mut there = hub.join_at("/ws/b");
    for (path, headers, text, kind, recipients) in [
        ("/pub/a", "", "hello", TEXT, 1),
        ("/pub/a", "Content-Type: application/x-www-form-urlencoded\r\n", "form", TEXT, 1),
        ("/pub/a", "Content-Type: application/octet-stream\r\n", "bytes", BINARY, 1),
        ("/pub/a", "Content-Type: Image/PNG\r\n", "image", BINARY, 1),
        ("/pub/a", "", "", TEXT, 1),
    ] {
        let (status, _, answer) = ask(&hub, &post(path, headers, text));
        let begin = format!("{{\"recipients\":{recipients},\"position\":");
        assert!(status == 202 && answer.starts_with(&begin), "{status} {answer}");
        assert_eq!(here.receive(), (kind, text.as_bytes().to_vec()), "{headers}");
    }
    let (status, _, answer) = ask(&hub, &post("/pub/empty", "", "x"));
    assert_eq!((status, &*answer), (202, "{\"recipients\":0}\n"), "an empty room is no error");
    let (_, _, answer) = ask(&hub, &post("/pub/b", "", "last"));
    assert!(answer.starts_with("{\"recipients\":1,\"position\":"), "{answer}");
    there.hears("last");
}

#[test]
fn wrong_requests_are_answered_with_a_status_and_a_sentence() {
    let hub = open(Config::default().max_message(10));
    let gzip = "POST /pub HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    for (request, status, header) in [
        (post("/pub/forbidden", "", "x"), 401, "WWW-Authenticate: Bearer"),
        (post("/pub", "Origin: http://evil.example\r\n", "x"), 403, ""),
        (post("/pub/a/b", "", "x"), 404, ""),
        (post("/user", "", "x"), 404, ""),
        (post("/user/..", "", "x"), 404, ""),
        (get("/pub", "").replace("GET", "DELETE"), 405, "Allow: GET, HEAD, POST, PUT, OPTIONS"),
        (post("/sse", "", "x"), 405, "Allow: GET, OPTIONS"),
        (post("/rooms", "", "x"), 405, "Allow: GET, HEAD, OPTIONS"),
        ("POST /pub HTTP/1.1\r\nHost: x\r\n\r\n".into(), 411, ""),
        (post("/pub", "", "12345678901"), 413, ""),
        (post("/pub", "Content-Length: 2\r\n", "x"), 400, ""),
        (post("/pub", "Content-Encoding: gzip\r\n", "x"), 415, "Accept-Encoding: identity"),
        (gzip.into(), 501, ""),
        (get("/rooms?limit=0", ""), 400, ""),
        (get("/rooms/a?after=x", ""), 400, ""),
    ] {
        let (seen, head, body) = ask(&hub, &request);
        assert_eq!(seen, status, "{request}");
        assert!(head.contains(header) && head.contains("Content-Type: text/plain"), "{head}");
        assert_eq!(body.lines().count(), 1, "{body}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let hub = open(Config::default());
    let mut peer = hub.dial();
    // Three requests at once: the second has a body, the third is a HEAD.
    let together = format!(
        "{}{}HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n",
        get("/health", ""),
        post("/pub/a", "", "hello")
    );
    peer.write(together.as_bytes());
    for (status, text) in [(200, "ok\n"), (202, "{\"recipients\":0}\n")] {
        let response = peer.response();
        assert_eq!(response.status, status);
        assert_eq!(peer.body_text(&response), text);
        assert_eq!(response.header("Connection"), None);
    }
    assert_eq!(peer.response().header("Content-Length"), Some("3"));
    // A request that ends the connection.
    let response = peer.request(&get("/health", "Connection: close\r\n"));
    assert_eq!(response.header("Connection"), Some("close"));
    assert_eq!(peer.body_text(&response), "ok\n");
    peer.ends();
    hub.empties();
}

#[test]
fn expected_continue_is_answered_100_or_refused() {
    let hub = open(Config::default().max_message(10));
    let head = |length: usize| {
        format!(
            "POST /pub/a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut peer = hub.dial();
    assert_eq!(peer.request(&head(5)).status, 100);
    assert_eq!(peer.request("hello").status, 202);
    assert_eq!(hub.dial().request(&head(11)).status, 413, "instead of 100");
}

/// What clients send whose body has no known length, as captured from curl 7.88, Python's requests
/// 2.34 and http.client, Node 22's http and fetch, and Go's net/http.
#[test]
fn chunked_bodies_of_real_clients_are_published() {
    let hub = open(Config::default());
    let mut here = hub.join_at("/ws/a");
    let python = "Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
    for (client, head, body) in [
        (
            "curl -d with a header",
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
             Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n",
            "b\r\nhello world\r\n0\r\n\r\n",
        ),
        (
            "requests with a generator",
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: python-requests/2.34.2\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n",
            python,
        ),
        (
            "http.client with an iterator",
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\n",
            python,
        ),
        (
            "Node's http",
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n",
            python,
        ),
        (
            "Node's fetch of a stream",
            "POST /pub/a HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: keep-alive\r\naccept: */*\r\n\
             accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\n\
             accept-encoding: gzip, deflate\r\ntransfer-encoding: chunked\r\n\r\n",
            "6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        ),
        (
            "Go's net/http with a pipe",
            "POST /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\n\
             Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\
             Accept-Encoding: gzip\r\n\r\n",
            "6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        ),
    ] {
        let mut peer = hub.dial();
        // The connection stays in step: the same once more.
        for _ in 0..2 {
            let response = peer.request(&format!("{head}{body}"));
            assert_eq!(response.status, 202, "{client}");
            let answer = peer.body_text(&response);
            assert!(answer.starts_with("{\"recipients\":1,"), "{answer}");
            here.hears("hello world");
        }
    }
    // curl -T - waits to be asked, as it does with a length.
    let mut curl = hub.dial();
    let head = "PUT /pub/a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
                Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(curl.request(head).status, 100);
    assert_eq!(curl.request("c\r\nhello\nworld\n\r\n0\r\n\r\n").status, 202);
    here.hears("hello\nworld\n");
}

/// Whether a client sends all before it reads, as urllib and wget do, or reads meanwhile.
#[test]
fn client_that_sends_too_much_sees_the_status_and_no_reset() {
    const TOO_MUCH: usize = 8 << 20;
    let hub = open(Config::default());
    let sized = format!("Content-Length: {TOO_MUCH}\r\n\r\n").into_bytes();
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{TOO_MUCH:x}\r\n").into_bytes();
    for (path, framing, status) in
        [("/pub", &sized, 413), ("/pub", &chunked, 413), ("/nowhere", &sized, 404)]
    {
        let mut peer = hub.dial();
        peer.write(format!("POST {path} HTTP/1.1\r\nHost: x\r\n").as_bytes());
        peer.write(framing);
        // Fails if the hub resets the connection.
        (0..TOO_MUCH / (1 << 16)).for_each(|_| peer.write(&[b'x'; 1 << 16]));
        let response = peer.response();
        assert_eq!((response.status, response.header("Connection")), (status, Some("close")));
        drop(peer);
    }
    hub.empties();
}

#[test]
fn empty_line_behind_a_body_is_no_request() {
    let timeout = Duration::from_millis(200);
    let hub = open(Config::default().handshake_timeout(timeout));
    let mut peer = hub.dial();
    for _ in 0..2 {
        let response = peer.request(&(post("/pub/a", "", "hello") + "\r\n"));
        assert_eq!(response.status, 202);
        peer.body_text(&response);
        peer.is_left_alone_for(2 * timeout);
        peer.write(b"\r\n");
        peer.is_left_alone_for(2 * timeout);
    }
    assert_eq!(peer.request(&get("/health", "")).status, 200);
    drop(peer);
    hub.empties();
    assert_eq!(hub.hub.stats().upgrades_refused, 0);
}

#[test]
fn every_answer_has_a_date() {
    let hub = open(Config::default());
    for request in [
        get("/health", ""),
        get("/nowhere", ""),
        get("/pub", "").replace("GET", "OPTIONS"),
        post("/pub", "", "x"),
        get("/sse", ""),
        "no request\r\n\r\n".into(),
    ] {
        let date = hub.dial().request(&request).header("Date").map(str::to_owned);
        let date = date.unwrap_or_else(|| panic!("{request}"));
        assert!(date.len() == 29 && date.ends_with(" GMT") && date.contains(", "), "{date}");
    }
}

#[test]
fn path_that_almost_fits_is_told_why() {
    let hub = open(Config::default());
    for (path, why) in [
        ("/nowhere", "no such route"),
        ("/user", "/user/{user}"),
        ("/ws/", "slash"),
        ("/ws/a/", "segment"),
        ("/pub/a/b", "segment"),
        ("/rooms/a/b", "0-17"),
        ("/rooms/a/b/0-1", "segment"),
        ("/sse/%2e%2e", "neither"),
        ("/user/%ff", "percent-encoded"),
        ("/ws/%0a", "control"),
        (&format!("/ws/{}", "a".repeat(129)), "128 bytes"),
    ] {
        let (status, _, body) = ask(&hub, &get(path, ""));
        assert!(status == 404 && body.contains(why), "{path}: {status} {body}");
    }
}

#[test]
fn idle_connection_is_closed_at_its_timeout_or_when_a_client_needs_its_slot() {
    let hub = open(Config::default().max_clients(Some(1)));
    let mut idle = hub.dial();
    assert_eq!(idle.request(&get("/health", "")).status, 200);
    let _client = hub.join();
    idle.read(3);
    idle.ends();
    // If clients occupy all slots, the response closes the connection.
    let full = hub.dial().request(&get("/health", ""));
    assert_eq!((full.status, full.header("Connection")), (200, Some("close")));

    let hub = open(Config::default().idle_timeout(Duration::from_millis(50)));
    let mut idle = hub.dial();
    assert_eq!(idle.request(&get("/health", "")).status, 200);
    idle.read(3);
    idle.ends();
    hub.empties();
}

#[test]
fn body_that_stops_coming_is_late() {
    let hub = open(Config::default().handshake_timeout(Duration::from_millis(200)));
    let mut peer = hub.dial();
    let response = peer.request("POST /pub/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab");
    assert_eq!(response.status, 408);
    drop(peer);
    hub.empties();
}

#[test]
fn pages_are_served_unchanged() {
    let page = Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        headers: &[("Content-Security-Policy", "default-src 'none'")],
        body: "<!doctype html>\n",
    };
    let hub = open(Config::default().pages(vec![page]));
    let (status, head, body) = ask(&hub, &get("/", ""));
    assert_eq!((status, &*body), (200, page.body));
    assert!(head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
    assert_eq!(ask(&hub, &get("/", "").replace("GET", "HEAD")).2, "");
    assert_eq!(ask(&hub, &post("/", "", "x")).0, 405);
}

/// Safari before 15.4 takes `'self'` for the pages of a host and not for its WebSockets.
#[test]
fn a_policy_names_the_sockets_of_the_host_that_was_asked_for() {
    let page = Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        headers: &[("Content-Security-Policy", "connect-src 'self'{sockets}; img-src data:")],
        body: "<!doctype html>\n",
    };
    let hub = open(Config::default().pages(vec![page]));
    for (host, sources) in [
        ("hub.example:8080", " ws://hub.example:8080 wss://hub.example:8080"),
        ("127.0.0.1", " ws://127.0.0.1 wss://127.0.0.1"),
        // No policy can name these.
        ("[::1]:8080", ""),
        ("x; script-src *", ""),
        ("", ""),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (_, head, _) = ask(&hub, &request);
        let policy = format!("Content-Security-Policy: connect-src 'self'{sources}; img-src data:");
        assert!(head.lines().any(|line| line == policy), "{head}");
    }
}

#[test]
fn listed_origin_may_send_requests_and_read_answers_and_no_other() {
    let hub = open(Config::default().origins(vec!["https://app.example".into()]));
    let allowed = "Origin: https://app.example\r\n";
    let preflight = |path: &str, origin: &str| {
        let request = format!("{origin}Access-Control-Request-Method: POST\r\n");
        ask(&hub, &get(path, &request).replace("GET", "OPTIONS"))
    };
    let (status, head, body) = preflight("/pub/a", allowed);
    assert_eq!((status, &*body), (204, ""));
    for header in [
        "Access-Control-Allow-Origin: https://app.example",
        "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, OPTIONS",
        "Access-Control-Allow-Headers: Authorization, Content-Type",
        "Vary: Origin",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    // The origin may also read refusals.
    for (request, status) in
        [(post("/pub/a", allowed, "x"), 202), (post("/pub/forbidden", allowed, "x"), 401)]
    {
        let (seen, head, _) = ask(&hub, &request);
        assert_eq!(seen, status);
        assert!(head.contains("Access-Control-Allow-Origin: https://app.example"), "{head}");
    }
    let foreign = "Origin: https://evil.example\r\n";
    for path in ["/ws", "/sse", "/pub", "/user/ada", "/rooms", "/rooms/a", "/metrics"] {
        let (status, head, _) = preflight(path, foreign);
        assert_eq!(status, 403, "{path}");
        assert!(!head.contains("Access-Control"), "{head}");
        assert_eq!(ask(&hub, &get(path, foreign)).0, 403, "{path}");
    }
}

#[test]
fn client_address_behind_a_trusted_proxy_counts() {
    let trusted = Config::default().trusted_proxies(vec!["127.0.0.1".parse().expect("a network")]);
    let hub = open(trusted.max_clients_per_ip(Some(1)));
    let upgrade = |client: &str| {
        let line = format!("Host: localhost\r\nX-Forwarded-For: {client}\r\n");
        crate::peer::upgrade("/ws").replace("Host: localhost\r\n", &line)
    };
    let mut first = hub.dial();
    assert_eq!(first.request(&upgrade("192.0.2.1")).status, 101);
    assert_eq!(hub.dial().request(&upgrade("1.1.1.1, 192.0.2.1")).status, 503);
    let mut second = hub.dial();
    assert_eq!(second.request(&upgrade("192.0.2.2")).status, 101);
    assert_eq!(hub.dial().request(&get("/metrics", "X-Forwarded-For: 192.0.2.1\r\n")).status, 403);
}
