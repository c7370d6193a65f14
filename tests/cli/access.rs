//! The rules of access, with the bytes that real clients send.

use std::net::TcpStream;

use crate::support::{Folder, KEY, Peer, Server, by_clock, hublet, set_clock, sign};

/// Sends a request as it is; returns the answer.
fn ask(address: &str, request: &str) -> crate::peer::Response {
    Peer::<TcpStream>::dial(address).request(request)
}

/// What Firefox 140 sends for `fetch` of a page at this origin.
fn firefox(origin: &str) -> String {
    format!(
        "POST /pub/news HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux \
         x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: */*\r\nReferer: {origin}/\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 5\r\nOrigin: {origin}\r\n\
         Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n\
         Sec-Fetch-Site: same-site\r\nPriority: u=4\r\n\r\nhello"
    )
}

#[test]
fn a_refused_page_or_name_is_in_the_log_once_with_the_flag_that_allows_it() {
    let (mut server, address) = Server::start(&["--log", "warn"]);
    for origin in ["http://localhost:3000", "http://localhost:3000", "http://localhost:5173"] {
        assert_eq!(ask(&address, &firefox(origin)).status, 403);
    }
    let curl = "POST /pub HTTP/1.1\r\nHost: hublet:8080\r\nUser-Agent: curl/8.14.1\r\n\
                Accept: */*\r\nContent-Length: 5\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\nhello";
    for _ in 0..2 {
        assert_eq!(ask(&address, curl).status, 421);
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let log: Vec<_> = server.stderr.iter().filter(|line| line.contains(" refused ")).collect();
    let named = [
        "Origin \"http://localhost:3000\" was refused with 403; if it is yours, --allow-origin \
         http://localhost:3000 ",
        "Origin \"http://localhost:5173\" was refused with 403; if it is yours, --allow-origin \
         http://localhost:5173 ",
        "Host \"hublet:8080\" was refused with 421; if that name is yours, --allow-host hublet ",
    ];
    assert_eq!(log.len(), named.len(), "{log:?}");
    for (line, named) in log.iter().zip(named) {
        assert!(line.contains("WARN") && line.contains(named), "{line}");
    }
}

#[test]
fn a_path_that_no_route_has_is_in_the_debug_log() {
    let (mut server, address) = Server::start(&["--log", "debug"]);
    let mut python = Peer::<TcpStream>::dial(&address);
    let upgrade = "GET /ws/a/ HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate; \
                   client_max_window_bits\r\nUser-Agent: Python/3.13 websockets/15.0\r\n\r\n";
    let response = python.request(upgrade);
    assert_eq!(response.status, 404);
    let why = "a name is one segment of the path: write a slash in it as %2F, and none behind it";
    assert_eq!(python.body_text(&response), format!("{why}\n"));
    server.logged("DEBUG no route for \"/ws/a/\"");
    assert!(server.logged("refused: 404").contains(why));
}

/// What Chromium 141 sends ahead of a `fetch` with such headers.
fn preflight(origin: &str) -> String {
    format!(
        "OPTIONS /pub/news HTTP/1.1\r\nHost: localhost:8080\r\nConnection: keep-alive\r\nAccept: \
         */*\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: \
         baggage,cache-control,last-event-id,traceparent,x-requested-with\r\nOrigin: \
         {origin}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like \
         Gecko) Chrome/141.0.0.0 Safari/537.36\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: \
         same-site\r\nSec-Fetch-Dest: empty\r\nReferer: {origin}/\r\nAccept-Encoding: gzip, \
         deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n"
    )
}

#[test]
fn a_listed_page_may_send_any_header_and_credentials() {
    let listed = ["--allow-origin", "http://localhost:3000", "--allow-origin", "null"];
    let (_server, address) = Server::start(&listed);
    let response = ask(&address, &preflight("http://localhost:3000"));
    assert_eq!(response.status, 204);
    assert_eq!(
        response.header("Access-Control-Allow-Headers"),
        Some(
            "Authorization, Content-Type, baggage, cache-control, last-event-id, traceparent, \
             x-requested-with"
        )
    );
    for request in [preflight("http://localhost:3000"), firefox("http://localhost:3000")] {
        let response = ask(&address, &request);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("http://localhost:3000"));
        assert_eq!(response.header("Access-Control-Allow-Credentials"), Some("true"));
    }
    let response = ask(&address, &firefox("null"));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("null"));
    assert_eq!(response.header("Access-Control-Allow-Credentials"), None);
    assert_eq!(ask(&address, &preflight("http://localhost:5173")).status, 403);
}

/// What clients that are not browsers send in their upgrade, each as its library writes it.
#[test]
fn the_origins_of_small_clients_can_be_listed() {
    // Links2004's WebSockets for Arduino, which offers the subprotocol "arduino".
    let links2004 = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nUpgrade: \
                     websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                     SfXbpj+U4TexBeIDuBiYog==\r\nSec-WebSocket-Protocol: arduino\r\nOrigin: \
                     file://\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n";
    let arduino_websockets = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-WebSocket-Key: \
                              MDEyMzQ1Njc4OWFiY2RlZg==\r\nUpgrade: websocket\r\nConnection: \
                              Upgrade\r\nSec-WebSocket-Version: 13\r\nUser-Agent: TinyWebsockets \
                              Client\r\nOrigin: https://github.com/gilmaimon/TinyWebsockets\r\n\r\n";
    let packaged = links2004.replace("file://", "capacitor://localhost");
    for (listed, upgrade) in [
        ("file://", links2004),
        ("https://github.com/gilmaimon/TinyWebsockets", arduino_websockets),
        ("https://github.com", arduino_websockets),
        ("capacitor://localhost", &packaged),
    ] {
        let flags = ["--allow-origin", listed, "--protocol", "arduino"];
        let (_server, address) = Server::start(&flags);
        let response = ask(&address, upgrade);
        let protocol = upgrade.contains("arduino\r\n").then_some("arduino");
        assert_eq!(response.status, 101, "{listed}");
        assert_eq!(response.header("Sec-WebSocket-Protocol"), protocol, "{listed}");
        let (_server, address) = Server::start(&[]);
        assert_eq!(ask(&address, upgrade).status, 403, "{listed}");
    }
}

#[test]
fn an_origin_that_many_pages_share_is_warned_about_at_start() {
    let (mut server, _) = Server::start(&["--allow-origin", "file://", "--allow-origin", "null"]);
    server.logged("WARN --allow-origin file:// allows every page that is opened as a file");
    server.logged("WARN --allow-origin null allows every sandboxed frame");
}

/// What urllib, httpx and websockets send for a link-local address: the zone as it stands in the URL.
#[test]
fn a_link_local_address_with_a_zone_is_an_address() {
    let (_server, address) = Server::start(&[]);
    let request = |host: &str| {
        format!(
            "GET /sse/news HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: {host}\r\nUser-Agent: \
             Python-urllib/3.13\r\nConnection: close\r\n\r\n"
        )
    };
    assert_eq!(ask(&address, &request("[fe80::dea6:32ff:fe01:2345%25eth0]:8080")).status, 200);
    assert_eq!(ask(&address, &request("[fe80::dea6:32ff:fe01:2345%eth0]:8080")).status, 200);
    assert_eq!(ask(&address, &request("[evil.example%25eth0]:8080")).status, 421);
}

/// What Chromium sends to a hub behind a proxy with Basic authentication, for a page's WebSocket and
/// `EventSource`.
#[test]
fn basic_authentication_of_a_proxy_does_not_hide_a_token() {
    let (_server, address) = Server::start(&["--token", "sesame"]);
    let upgrade = |protocol: &str| {
        format!(
            "GET /ws/news HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
             Cache-Control: no-cache\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nUser-Agent: \
             Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://localhost\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
    };
    let events = |query: &str| {
        format!(
            "GET /sse/news{query} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\
             Cache-Control: no-cache\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nAccept: \
             text/event-stream\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
             Sec-Fetch-Dest: empty\r\n\r\n"
        )
    };
    assert_eq!(ask(&address, &upgrade("hublet.token, sesame")).status, 101);
    assert_eq!(ask(&address, &upgrade("hublet.token, wrong")).status, 401);
    assert_eq!(ask(&address, &events("?token=sesame")).status, 200);
    assert_eq!(ask(&address, &events("")).status, 401);
}

/// The seconds since 1970.
fn unix_seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

#[test]
fn a_refused_token_is_answered_with_the_name_of_its_claim() {
    let (mut server, address) = Server::start(&["--jwt-secret", KEY]);
    let requests = |claims: &str| {
        format!(
            "GET /sse/news HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.32.5\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
             Authorization: Bearer {}\r\n\r\n",
            sign(claims)
        )
    };
    let soon = unix_seconds() + 60;
    for (claims, sentence) in [
        (r#"{"sub": 42}"#.to_owned(), "the claim sub must be a string, given once"),
        (format!(r#"{{"nbf": {soon}}}"#), "the claim nbf is in the future"),
        (r#"{"exp": 1300819380}"#.to_owned(), "the claim exp is in the past"),
    ] {
        let response = ask(&address, &requests(&claims));
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{sentence}\"");
        assert_eq!(response.status, 401, "{claims}");
        assert_eq!(response.header("WWW-Authenticate"), Some(&*challenge), "{claims}");
        assert!(
            server
                .logged("401")
                .contains(&format!("WARN a token was refused with 401: {sentence}"))
        );
    }
    let two = unix_seconds() + 2;
    // Lua and PHP write large numbers so.
    for claims in [format!(r#"{{"nbf": {two}}}"#), format!(r#"{{"exp": {:e}}}"#, soon as f64)] {
        assert_eq!(ask(&address, &requests(&claims)).status, 200, "{claims}");
    }
    let none = "GET /sse/news HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(&address, none).header("WWW-Authenticate"), Some("Bearer"));
}

#[test]
fn a_token_publishes_only_where_it_says_so() {
    let (_server, address) = Server::start(&["--jwt-secret", KEY]);
    for (claims, status) in [
        (r#"{"sub": "ann"}"#, 403),
        (r#"{"sub": "ann", "rooms": ["news"]}"#, 403),
        (r#"{"sub": "ann", "publish": ["news"]}"#, 202),
        (r#"{"sub": "ann", "publish": "*"}"#, 202),
    ] {
        let post = format!(
            "POST /pub/news HTTP/1.1\r\nHost: localhost\r\nUser-Agent: python-requests/2.32.5\r\n\
             Accept: */*\r\nContent-Length: 5\r\nAuthorization: Bearer {}\r\n\r\nhello",
            sign(claims)
        );
        assert_eq!(ask(&address, &post).status, status, "{claims}");
    }
}

#[test]
fn a_client_is_closed_at_the_end_of_its_token() {
    let (_server, address) = Server::start(&["--jwt-secret", KEY]);
    // With the leeway it has three seconds.
    let end = unix_seconds() - 2;
    let token = sign(&format!(r#"{{"exp": {end}}}"#));
    let mut peer = Peer::<TcpStream>::connect(&address, &format!("/ws?token={token}"));
    assert_eq!(peer.is_closed(1008), "token expired");
    assert!(unix_seconds() >= end + 5, "not before its time");
    peer.goodbye(1008);
}

/// A Raspberry Pi without a battery starts in 1970, and the network sets its clock later.
#[test]
fn a_board_that_gets_its_time_later_ends_tokens_by_it() {
    let folder = Folder::new("access-clock");
    let clock = folder.0.join("clock");
    let now = unix_seconds();
    set_clock(&clock, &format!("-{}", now - 60));
    let mut command = hublet(&["--listen", "127.0.0.1:0", "--jwt-secret", KEY]);
    if !by_clock(&mut command, &clock) {
        return;
    }
    let mut server = Server::of(&mut command);
    let address = server.listening();
    server.logged("s after 1970: tokens that have expired are accepted");
    let path = |route: &str, end: u64| {
        format!("{route}?token={}", sign(&format!(r#"{{"exp": {end}, "publish": "*"}}"#)))
    };
    let mut over = Peer::<TcpStream>::connect(&address, &path("/ws", now - 60));
    let mut stays = Peer::<TcpStream>::connect(&address, &path("/ws", now + 3600));
    let mut lines = Peer::<TcpStream>::dial(&address);
    let post = "Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n";
    lines
        .write(format!("POST {} HTTP/1.1\r\n{post}", path("/pub", now - 60) + "&lines").as_bytes());
    over.hears("one");
    stays.hears("one");
    set_clock(&clock, "+0");
    assert_eq!(over.is_closed(1008), "token expired");
    let response = lines.response();
    assert_eq!(response.status, 401);
    let report = lines.body_text(&response);
    assert!(report.starts_with("{\"messages\":1,\"recipients\":2,"), "{report}");
    stays.say("hello");
    stays.hears("hello");
    assert_eq!(Peer::<TcpStream>::ask(&address, &path("/ws", now - 60)).1, 401);
}

/// The offer of Chromium's `new WebSocket(url, ["chat.v2", "chat.v1"])`, and of npm's `ws`, which
/// writes no space. Both give up if none is answered.
#[test]
fn a_subprotocol_that_is_named_is_answered() {
    let (_server, address) = Server::start(&["--protocol", "chat.v1", "--token", "sesame"]);
    for (offer, answer) in [
        ("chat.v2, chat.v1, hublet.token, sesame", Some("chat.v1")),
        ("chat.v1,hublet.token,sesame", Some("chat.v1")),
        ("hublet.token, sesame, chat.v1", Some("hublet.token")),
        ("mqtt, hublet.token, sesame", Some("hublet.token")),
    ] {
        let response = ask(&address, &offers(offer));
        assert_eq!((response.status, response.header("Sec-WebSocket-Protocol")), (101, answer));
    }
    let (_server, address) = Server::start(&[]);
    let response = ask(&address, &offers("chat.v1"));
    assert_eq!((response.status, response.header("Sec-WebSocket-Protocol")), (101, None));
}

fn offers(protocols: &str) -> String {
    format!(
        "GET /ws/news HTTP/1.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
         dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         Sec-WebSocket-Protocol: {protocols}\r\nHost: localhost:8080\r\n\r\n"
    )
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_has_its_own_address() {
    let mut server = Server::of(&mut hublet(&["--listen", ":0", "--trusted-proxy", "127.0.0.1"]));
    let address = server.listening();
    let port = address.rsplit_once(':').expect("a port").1;
    let _peer = Peer::<TcpStream>::connect(&format!("127.0.0.1:{port}"), "/ws");
    assert!(server.logged("joined").contains(" from 127.0.0.1:"));
    let mut behind = Peer::<TcpStream>::dial(&format!("127.0.0.1:{port}"));
    let forwarded = "\r\nX-Forwarded-For: ::ffff:203.0.113.9\r\n\r\n";
    let upgrade = crate::peer::upgrade("/ws").replace("\r\n\r\n", forwarded);
    assert_eq!(behind.request(&upgrade).status, 101);
    assert!(server.logged("joined").contains(" from 203.0.113.9,"));
}
