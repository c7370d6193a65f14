//! The rules of access, with the bytes that real clients send.

use std::net::TcpStream;

use crate::support::{Peer, Server};

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
