//! Runs the snippets of the README and of `docs/` as they are printed.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{DEADLINE, Folder, HUBLET, Peer, Server, alone, ask, hublet, metrics, number};
use crate::tools::{file, node, program};

/// The address of the hub in the documents.
const HUB: &str = "127.0.0.1:8080";

/// The only block of a document that is marked as `kind` and contains `part`.
#[track_caller]
pub(crate) fn block(document: &str, kind: &str, part: &str) -> String {
    let text = fs::read_to_string(file(document)).expect("a file of the repository");
    let start = format!("\n```{kind}\n");
    let blocks = text.split(&start).skip(1).filter_map(|rest| rest.split("\n```\n").next());
    let found: Vec<_> = blocks.filter(|block| block.contains(part)).collect();
    assert_eq!(found.len(), 1, "blocks of {kind} with {part:?} in {document}");
    format!("{}\n", found[0])
}

/// The block of a document, for a hub at an address.
#[track_caller]
fn block_for(address: &str, document: &str, kind: &str, part: &str) -> String {
    let block = block(document, kind, part);
    assert!(block.contains(HUB), "{block}");
    block.replace(HUB, address)
}

/// Writes a snippet into a folder and runs it there; returns what it printed.
#[track_caller]
fn printed_by(interpreter: &mut Command, folder: &Folder, name: &str, snippet: &str) -> String {
    fs::write(folder.0.join(name), snippet).expect("written");
    printed(interpreter.arg(name).current_dir(&folder.0))
}

/// What a program prints, which ends well.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The status of a request with a token.
fn status(address: &str, method: &str, path: &str, token: &str) -> u16 {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 0\r\n\r\n"
    );
    Peer::<TcpStream>::dial(address).request(&request).status
}

/// A hub with secrets, started as on the page for web developers.
fn guarded(folder: &Folder) -> (Server, String) {
    let lines = block("docs/publish.md", "sh", "hublet --jwt-secret-file");
    let (secrets, start) = lines.trim_end().rsplit_once('\n').expect("several lines");
    let made = Command::new("sh").args(["-euc", secrets]).current_dir(&folder.0).status();
    assert!(made.expect("a shell").success());
    let flags: Vec<_> = start.split(' ').skip(1).collect();
    let mut command = hublet(&["--listen", "127.0.0.1:0"]);
    let mut server = Server::of(command.args(flags).current_dir(&folder.0));
    let address = server.listening();
    (server, address)
}

/// The commands of the blocks of a page that start a hub, with what stands before them in the block.
fn hubs_of(page: &str) -> Vec<String> {
    let text = fs::read_to_string(file(page)).expect("a page");
    let blocks = text.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```\n").next());
    // Other tests are about root, servers of Redis and pipes.
    let is_other =
        |block: &str| ["sudo ", "--redis ", "--std"].iter().any(|part| block.contains(part));
    let starts = |line: &&str| *line == "hublet" || line.starts_with("hublet ");
    let hubs = blocks.filter(|block| !is_other(block) && block.lines().any(|line| starts(&line)));
    hubs.map(|block| {
        let lines = block.lines().map(|line| match starts(&line) {
            true => format!("exec {} --listen 127.0.0.1:0", line.replace("--listen :8080", "")),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    })
    .collect()
}

#[test]
fn every_hub_of_the_documents_starts_as_printed() {
    let pages = fs::read_dir(file("docs")).expect("a folder").map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("ASCII");
        format!("docs/{name}")
    });
    let pages = pages.filter(|name| name.ends_with(".md")).chain(["README.md".to_owned()]);
    let binaries = Path::new(HUBLET).parent().expect("its folder").display();
    let mut started = 0;
    for (page, script) in
        pages.flat_map(|page| hubs_of(&page).into_iter().map(move |hub| (page.clone(), hub)))
    {
        let (folder, mut command) = (Folder::new("typed"), alone("sh"));
        command.args(["-euc", &script]).current_dir(&folder.0);
        let mut server = Server::of(command.env("PATH", format!("{binaries}:/usr/bin:/bin")));
        let address = server.listening();
        assert_eq!(status(&address, "GET", "/health", ""), 200, "{page}: {script}");
        started += 1;
    }
    assert!(started >= 12, "{started}");
}

/// Checks that a token allows to subscribe to its rooms, and to publish nowhere.
#[track_caller]
fn only_listens(address: &str, token: &str) {
    for (method, path, expected) in [
        ("GET", "/sse/news", 200),
        ("GET", "/sse/chat-7", 200),
        ("GET", "/sse/other", 403),
        ("POST", "/pub/news", 403),
        ("POST", "/user/ann", 403),
    ] {
        assert_eq!(status(address, method, path, token), expected, "{method} {path}");
    }
    assert_eq!(status(address, "GET", "/sse/news", &token[1..]), 401, "not as it was signed");
}

#[test]
fn a_token_minted_in_python_as_printed_listens_and_publishes_nowhere() {
    let Some(python) = program("python3") else { return };
    let folder = Folder::new("python");
    let (_server, address) = guarded(&folder);
    let snippet = block("docs/publish.md", "python", "# mint.py");
    let token = printed_by(&mut Command::new(python), &folder, "mint.py", &snippet);
    only_listens(&address, token.trim_end());
    // The backend has the other secret.
    let secret = fs::read_to_string(folder.0.join("publish-token")).expect("made");
    assert_eq!(status(&address, "POST", "/pub/news", secret.trim_end()), 202);
}

#[test]
fn a_token_minted_in_node_as_printed_listens_and_publishes_nowhere() {
    let Some(node) = program("node") else { return };
    let folder = Folder::new("node");
    let (_server, address) = guarded(&folder);
    let snippet = block("docs/publish.md", "js", "// mint.mjs");
    let token = printed_by(&mut Command::new(node), &folder, "mint.mjs", &snippet);
    only_listens(&address, token.trim_end());
}

#[test]
fn a_backend_in_python_publishes_as_printed() {
    let Some(python) = program("python3") else { return };
    let (folder, (_server, address)) = (Folder::new("post-python"), Server::start(&[]));
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/news");
    let snippet = block_for(&address, "README.md", "python", "urlopen");
    let printed = printed_by(&mut Command::new(python), &folder, "post.py", &snippet);
    assert!(printed.starts_with(r#"{"recipients":1,"position":"#), "{printed}");
    peer.hears("hello");
}

#[test]
fn a_publish_that_waits_for_its_recipients_answers_as_printed() {
    let (_server, address) = Server::start(&[]);
    let mut peers = [1, 2, 3].map(|_| Peer::<TcpStream>::connect(&address, "/ws/news"));
    let snippet = block("docs/publish.md", "sh", "?wait=1s").replace(HUB, &address);
    let printed = Command::new("sh").args(["-euc", &snippet]).output().expect("a shell").stdout;
    let printed = String::from_utf8(printed).expect("text");
    let expected = block("docs/publish.md", "json", "\"delivered\":3");
    let (expected, _) = expected.split_once("4711").expect("a position");
    assert!(printed.starts_with(expected), "{printed}");
    peers.iter_mut().for_each(|peer| peer.hears("hello"));
}

#[test]
fn rooms_have_terms_as_printed() {
    let start = block("docs/limits.md", "sh", "--room").replace('\'', "");
    let (_server, address) = Server::start(&start.split_whitespace().skip(1).collect::<Vec<_>>());
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/state-secret");
    for (path, token, expected) in [
        ("/pub/state-secret", "secret", 202),
        ("/pub/state-secret", "", 401),
        ("/pub/state-7", "secret", 202),
    ] {
        assert_eq!(status(&address, "POST", path, token), expected, "{path} {token}");
    }
    assert!(peer.receive().1.is_empty());
    peer.say("no");
    peer.is_closed(1008);
    // It keeps one message.
    assert_eq!(status(&address, "GET", "/pub/state-7", "secret"), 200);
    assert_eq!(status(&address, "GET", "/pub/other", "secret"), 204);
    let open = ["--room", "news:publish=backend,max-message=4", "--admin-token", "a"];
    let (_server, address) = Server::start(&open);
    assert_eq!(status(&address, "POST", "/pub/news", "x"), 403);
    assert_eq!(status(&address, "POST", "/pub/news", "a"), 202);
    assert_eq!(status(&address, "POST", "/pub/other", "x"), 202);
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/news");
    peer.say("hello");
    peer.is_closed(1009);
}

#[test]
fn a_rate_refuses_as_printed() {
    let start = block("docs/limits.md", "sh", "--max-post-rate");
    let (_server, address) = Server::start(&start.split_whitespace().skip(1).collect::<Vec<_>>());
    let snippet = block("docs/limits.md", "sh", "?[1-3]").replace(HUB, &address);
    let begun = std::time::Instant::now();
    let printed = Command::new("sh").args(["-euc", &snippet]).output().expect("a shell").stdout;
    let expected = block("docs/limits.md", "text", "429");
    // Half a second later another message may come.
    if begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(String::from_utf8(printed).expect("text"), expected);
    }
}

#[test]
fn the_publish_and_the_admin_token_have_no_rate() {
    let flags = ["--max-post-rate", "1", "--publish-token", "p", "--admin-token", "a"];
    let (_server, address) = Server::start(&flags);
    for _ in 0..5 {
        assert_eq!(status(&address, "POST", "/pub/news", "p"), 202);
    }
    let (_server, address) = Server::start(&["--max-post-rate", "1", "--admin-token", "a"]);
    for _ in 0..5 {
        assert_eq!(status(&address, "POST", "/pub/news", "a"), 202);
    }
    let begun = std::time::Instant::now();
    let statuses = [(); 3].map(|()| status(&address, "POST", "/pub/news", "x"));
    if begun.elapsed() < Duration::from_secs(1) {
        assert!(statuses.contains(&429), "{statuses:?}");
    }
}

#[test]
fn a_backend_in_node_publishes_as_printed() {
    let Some(node) = program("node") else { return };
    let (folder, (_server, address)) = (Folder::new("post-node"), Server::start(&[]));
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws/news");
    let snippet = block_for(&address, "README.md", "js", "await fetch(");
    let printed = printed_by(&mut Command::new(node), &folder, "post.mjs", &snippet);
    assert!(printed.starts_with("{ recipients: 1, position: "), "{printed}");
    peer.hears("hello");
}

/// Publishes; returns the position.
fn position(address: &str, text: &str) -> u64 {
    let (status, _, answer) = ask(address, "POST", "/pub/news", "", text);
    assert_eq!(status, 202);
    number(&answer, "\"position\":").expect("the room keeps messages")
}

/// A line that a program prints soon; `None` if it prints none.
fn line(reader: &Server, wait: Duration) -> Option<String> {
    reader.stdout.recv_timeout(wait).ok()
}

/// Has a program follow the room `news` over a restart of the hub.
#[track_caller]
fn follows(command: &mut Command, address: &str, server: Server) {
    position(address, "older than the reader");
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let reader = Server::spawn(command);
    // It hears what is published once it has begun, and nothing tells when.
    let heard = loop {
        position(address, "hello");
        if let Some(heard) = line(&reader, Duration::from_millis(200)) {
            break heard;
        }
    };
    assert_eq!(heard, "hello");
    assert_eq!(server.stop(), Some(0));
    let mut server = Server::of(&mut hublet(&["--listen", address, "--history", "2"]));
    server.listening();
    position(address, "after");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "after") {
        lines.push(line(&reader, DEADLINE).expect("a line"));
    }
    let missed = lines.iter().filter(|line| *line == "missed some").count();
    assert_eq!(missed, 1, "{lines:?}");
    position(address, "and on");
    assert_eq!(line(&reader, DEADLINE).as_deref(), Some("and on"));
}

#[test]
fn a_websocket_resumes_as_printed() {
    let folder = Folder::new("resume");
    let script = folder.0.join("resume.mjs");
    let Some(mut node) = node(script.to_str().expect("text")) else { return };
    let (server, address) = Server::start(&["--history", "2"]);
    let snippet = block_for(&address, "docs/web.md", "js", "// resume.js");
    fs::write(&script, snippet).expect("written");
    follows(&mut node, &address, server);
}

#[test]
fn a_client_in_two_rooms_hears_and_says_as_printed() {
    let folder = Folder::new("several");
    let script = folder.0.join("several.mjs");
    let Some(mut node) = node(script.to_str().expect("text")) else { return };
    let (_server, address) = Server::start(&[]);
    let mut sensor = Peer::<TcpStream>::connect(&address, "/ws/sensor%2F1");
    let snippet = block_for(&address, "docs/rooms.md", "js", "// several.js");
    fs::write(&script, snippet).expect("written");
    assert_eq!(printed(&mut node), block("docs/rooms.md", "text", "sensor/1 21.5"));
    sensor.hears("21.5");
}

#[test]
fn a_display_hears_the_last_message_as_printed() {
    let folder = Folder::new("every");
    let script = folder.0.join("display.mjs");
    let Some(mut node) = node(script.to_str().expect("text")) else { return };
    let (_server, address) = Server::start(&[]);
    let snippet = block_for(&address, "docs/every.md", "js", "// display.js");
    fs::write(&script, snippet).expect("written");
    assert_eq!(printed(&mut node), block("docs/every.md", "text", "in the end"));
    let dropped = number(&metrics(&address), "\nhublet_messages_dropped_total");
    assert!(dropped.is_some_and(|dropped| dropped > 0), "some were left out: {dropped:?}");
}

/// The positions differ, and the hub ends the stream so that nothing waits for two seconds.
#[test]
fn a_stream_of_the_newest_messages_is_told_of_the_others_as_printed() {
    use crate::restart::{events, hears};
    let (mut server, address) = Server::start(&[]);
    let snippet = block("docs/every.md", "sh", "curl -N");
    let path = snippet.split_once(HUB).and_then(|(_, rest)| rest.split_once('\''));
    let path = path.expect("a URL in quotes").0;
    let mut reader = events(&address, &path.replace("2s", "1h"));
    hears(&mut reader, ":");
    let post = || assert_eq!(status(&address, "POST", "/pub/state", ""), 202);
    post();
    let first_heard = hears(&mut reader, "id:").trim().parse::<u64>().expect("a position");
    (0..3).for_each(|_| post());
    server.signal(Signal::TERM);
    let printed = block("docs/every.md", "text", "event: gap");
    let (first, rest) = printed.split_once("\n\n").expect("several events");
    let number = |id: &str| id.trim().parse::<u64>().expect("a position");
    let printed_first = number(&first["id:".len()..first.find('\n').expect("lines")]);
    for line in rest.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(": ").expect("a field");
        let heard = hears(&mut reader, &format!("{field}:"));
        match field {
            "id" => assert_eq!(number(&heard) - first_heard, number(value) - printed_first),
            // The bodies are empty.
            "data" if value.contains('.') => assert_eq!(heard, ""),
            _ => assert_eq!(heard.trim(), value),
        }
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_reader_of_a_prefix_hears_as_printed() {
    use crate::restart::{events, hears};
    let (_server, address) = Server::start(&[]);
    let snippet = block("docs/rooms.md", "sh", "curl -N");
    let path = snippet.split_once(HUB).and_then(|(_, rest)| rest.split_once('\''));
    let mut reader = events(&address, path.expect("a URL in quotes").0);
    hears(&mut reader, ":");
    assert_eq!(status(&address, "POST", "/pub/sensor%2F1", ""), 202);
    let printed = block("docs/rooms.md", "text", "data: sensor%2F1").replace("21.5", "");
    for line in printed.lines() {
        assert_eq!(hears(&mut reader, "data:"), line["data:".len()..].trim_end());
    }
}

#[test]
fn a_shell_script_follows_a_room_as_printed() {
    if program("curl").is_none() {
        return;
    }
    let folder = Folder::new("follow");
    let (server, address) = Server::start(&["--history", "2"]);
    let snippet = block_for(&address, "docs/web.md", "sh", "# follow.sh");
    fs::write(folder.0.join("follow.sh"), snippet).expect("written");
    follows(Command::new("sh").arg("follow.sh").current_dir(&folder.0), &address, server);
}

/// The compose file must allow the name of the service as a Host. The test does not need Docker.
#[test]
fn the_hub_of_the_compose_file_is_reached_by_the_name_of_its_service() {
    let compose = block("docs/publish.md", "yaml", "services:");
    let command = compose.split("command: [").nth(1).and_then(|rest| rest.split(']').next());
    let flags: Vec<_> =
        command.expect("flags").split(", ").map(|flag| flag.trim_matches('"')).collect();
    let url = compose.split("http://").nth(1).and_then(|rest| rest.split('"').next());
    let (host, path) = url.expect("an address").split_once('/').expect("a path");
    let request =
        format!("POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello");
    for (flags, expected) in [(&flags[..], 202), (&[], 421)] {
        let (_server, address) = Server::start(flags);
        let status = Peer::<TcpStream>::dial(&address).request(&request).status;
        assert_eq!(status, expected, "{flags:?}");
    }
}

#[test]
fn figures_are_what_their_scripts_write() {
    let (Some(python), Some(_)) = (program("python3"), program("bash")) else { return };
    for script in ["benches/figures.py", "benches/targets.py"] {
        let output = Command::new(&python).arg(file(script)).arg("--check").output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Checks the conditions of the table of alerts as rules of Prometheus.
#[test]
fn prometheus_takes_the_alerts_as_printed() {
    let Some(promtool) = program("promtool") else { return };
    let text = fs::read_to_string(file("docs/operating.md")).expect("a page");
    let (_, table) = text.split_once("| alert when | because |").expect("the table");
    let rows = table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut rules = String::from("groups:\n- name: hublet\n  rules:\n");
    let mut count = 0;
    for row in rows {
        let condition = row.split('`').nth(1).expect("a condition");
        // A row that compares in words has only the name of a series.
        if condition.contains(['<', '>', '=']) {
            count += 1;
            rules += &format!("  - alert: Nr{count}\n    expr: '{condition}'\n");
        }
    }
    assert!(count >= 7, "{rules}");
    let folder = Folder::new("alerts");
    let path = folder.0.join("rules.yml");
    fs::write(&path, &rules).expect("written");
    let output = Command::new(promtool).args(["check", "rules"]).arg(&path).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{rules}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_series_that_the_page_for_operators_names_is_there() {
    // Nothing listens there: the series of Redis are there while it is away too.
    let (_server, address) = Server::start(&["--redis", "redis://127.0.0.1:1"]);
    let metrics = metrics(&address);
    let page = fs::read_to_string(file("docs/operating.md")).expect("a page");
    let mut named = 0;
    for prefix in ["hublet_", "process_"] {
        for (at, _) in page.match_indices(prefix) {
            let mut name = page[at..].split(|char: char| !char.is_ascii_lowercase() && char != '_');
            let name = name.next().expect("a name");
            named += 1;
            assert!(metrics.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
    assert!(named > 10, "{named}");
}
