//! What an administrator reads: rooms, members and metrics.

use std::process::{Command, Stdio};

use hublet::Config;

use crate::http::{ask, get, open, post};
use crate::support::{skip, until};

#[test]
fn rooms_and_members_are_listed_a_page_at_a_time() {
    let hub = open(Config::default());
    let mut peers = Vec::new();
    for room in ["a", "b%20%22", "c", "c", "c"] {
        peers.push(hub.join_at(&format!("/ws/{room}")));
    }
    let (_, _, all) = ask(&hub, &get("/rooms", ""));
    let rooms = "{\"rooms\":[{\"room\":\"a\",\"members\":1},{\"room\":\"b \\\"\",\"members\":1},\
                 {\"room\":\"c\",\"members\":3}],\"next\":null}\n";
    assert_eq!(all, rooms);
    let (_, _, first) = ask(&hub, &get("/rooms?limit=2", ""));
    assert!(first.ends_with("\"next\":\"b \\\"\"}\n"), "{first}");
    // One rule for every parameter, the one of forms: `+` is a blank.
    for after in ["after=b%20%22", "after=b+%22"] {
        let (_, _, rest) = ask(&hub, &get(&format!("/rooms?limit=%32&{after}"), ""));
        assert_eq!(rest, "{\"rooms\":[{\"room\":\"c\",\"members\":3}],\"next\":null}\n");
    }

    let mut after = String::new();
    let mut ids = Vec::new();
    loop {
        let (_, _, page) = ask(&hub, &get(&format!("/rooms/c?limit=2{after}"), ""));
        ids.extend(
            page.split("\"id\":\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next().map(str::to_owned)),
        );
        assert!(page.contains("\"user\":null") && page.contains("\"waiting\":0"), "{page}");
        let next = page
            .rsplit("\"next\":")
            .next()
            .expect("there is one")
            .trim_end_matches(['}', '\n'])
            .trim_matches('"')
            .to_owned();
        if next == "null" {
            break;
        }
        after = format!("&after={next}");
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(
        ask(&hub, &get("/rooms/empty", "")).2,
        "{\"room\":\"empty\",\"members\":[],\"next\":null}\n"
    );
}

#[test]
fn metrics_count_what_happened_and_promtool_reads_them() {
    let hub = open(Config::default());
    let mut peer = hub.join();
    assert!(ask(&hub, &post("/pub", "", "hello")).2.starts_with("{\"recipients\":1,"));
    peer.hears("hello");
    peer.say("mine");
    peer.hears("mine");
    for (line, status) in
        [("GET /nope", 404), ("GET /ws", 426), ("POST /pub", 411), ("POST /sse/news", 405)]
    {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(hub.dial().request(&request).status, status, "{line}");
    }
    until("it is counted", || hub.hub.stats().messages_delivered == 2);
    let (status, head, text) = ask(&hub, &get("/metrics", ""));
    assert_eq!(status, 200);
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        concat!("hublet_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "hublet_clients 1",
        "hublet_messages_received_total 2",
        "hublet_messages_delivered_total 2",
        "hublet_requests_refused_total{request=\"other\",reason=\"not_found\"} 1",
        "hublet_requests_refused_total{request=\"websocket\",reason=\"malformed\"} 1",
        "hublet_requests_refused_total{request=\"post\",reason=\"malformed\"} 1",
        "hublet_requests_refused_total{request=\"sse\",reason=\"not_found\"} 1",
        "hublet_evictions_total{reason=\"overflow\"} 0",
        "hublet_evictions_total{reason=\"stuck\"} 0",
        "hublet_evictions_total{reason=\"memory\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
    if cfg!(target_os = "linux") {
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return skip("promtool is not installed") };
    let mut stdin = promtool.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
