//! Long responses for clients that read slowly.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::hostile::long;
use crate::peer::upgrade;
use crate::support::{Peer, Server};

/// As a microcontroller reads: its small buffer is full, and so is that of the hub under a ceiling.
#[test]
fn page_is_whole_for_a_client_that_reads_slowly() {
    let (server, address) = Server::start(&["--max-memory", "16m"]);
    let peer = Peer::<TcpStream>::dial_narrow(&address);
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    peer.stream().write_all(request.as_bytes()).expect("sent");
    let mut page = Vec::new();
    let mut part = [0; 512];
    loop {
        // The sleep makes the client slow. It waits for no event.
        std::thread::sleep(Duration::from_millis(300));
        match peer.stream().read(&mut part).expect("it is not cut off") {
            0 => break,
            n => page.extend_from_slice(&part[..n]),
        }
    }
    assert!(page.ends_with(b"</script>\n"), "{} bytes", page.len());
    assert_eq!(server.stop(), Some(0));
}

/// What its host holds keeps the reader busy for longer than the kernel waits for a lost client.
#[test]
fn long_list_is_whole_for_a_client_that_reads_slowly() {
    let (server, address) = Server::start(&["--max-memory", "16m", "--history", "1"]);
    let mut publisher = Peer::<TcpStream>::dial(&address);
    for nth in 0..400 {
        let name = format!("{}{nth}", "%22".repeat(120));
        let head = format!("POST /pub/{name} HTTP/1.1\r\nHost: {address}\r\n");
        let answer = publisher.request(&format!("{head}Content-Length: 1\r\n\r\nx"));
        assert_eq!(answer.status, 202);
        publisher.body(&answer);
    }
    let mut reader = Peer::<TcpStream>::dial_narrow(&address);
    let request = format!("GET /rooms?limit=1000 HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answer = reader.request(&request);
    let length = answer.header("Content-Length").and_then(|length| length.parse().ok());
    let length: usize = length.expect("a length");
    assert!(length > 100_000, "{length} bytes");
    // Half a minute, or a twentieth of that.
    let pause = long() * 3 / 600;
    let mut left = length;
    while left > 0 {
        // The sleep makes the client slow. It waits for no event.
        thread::sleep(pause);
        left -= reader.read(left.min(1024)).len();
    }
    // The connection serves the next request as any other.
    assert_eq!(reader.request(&upgrade("/ws/a")).status, 101);
    assert_eq!(server.stop(), Some(0));
}
