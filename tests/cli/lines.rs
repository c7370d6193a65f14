//! Streams of lines from the clients that send them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::support::{KEY, Peer, Server, sign};
use crate::tools::{file, node, program, tool};

/// A client that reads lines and sends each as it comes.
struct Sender(Child);

impl Sender {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("it starts"))
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        let mut stdin = self.0.stdin.as_ref().expect("it is piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Ends the input; returns the output.
    fn end(mut self) -> String {
        drop(self.0.stdin.take());
        self.output()
    }

    fn output(&mut self) -> String {
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut said).expect("text");
        let mut complaint = String::new();
        let mut stderr = self.0.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut complaint).expect("text");
        let status = self.0.wait().expect("its end");
        assert!(status.success(), "{status}: {complaint}");
        said.trim_end().to_owned()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each line is heard before the next is written.
#[track_caller]
fn sends_each_line_as_it_comes(command: impl FnOnce(&str) -> Option<Command>) {
    let (_server, address) = Server::start(&[]);
    let url = format!("http://{address}/pub/log?lines");
    let Some(mut command) = command(&url) else { return };
    let mut here = Peer::<TcpStream>::connect(&address, "/ws/log");
    let mut sender = Sender::start(&mut command);
    for line in ["one", "two", "three"] {
        sender.say(line);
        here.hears(line);
    }
    assert_eq!(sender.end(), "{\"messages\":3,\"recipients\":3}");
}

fn curl(arguments: &[&str], url: &str) -> Option<Command> {
    let mut command = Command::new(program("curl")?);
    command.args(["-sS", "--max-time", "60"]).args(arguments).arg(url);
    Some(command)
}

#[test]
fn curl_puts_lines_from_a_pipe() {
    sends_each_line_as_it_comes(|url| curl(&["-T", "-"], url));
}

#[test]
fn curl_posts_lines_from_a_pipe() {
    sends_each_line_as_it_comes(|url| curl(&["-X", "POST", "-T", "-"], url));
}

#[test]
fn requests_posts_a_generator() {
    const SCRIPT: &str = "import requests, sys\n\
        print(requests.post(sys.argv[1], data=iter(sys.stdin.buffer.readline, b'')).text)";
    sends_each_line_as_it_comes(|url| {
        let python = file("target/test-python/bin/python");
        let has_requests = Command::new(&python).args(["-c", "import requests"]).output();
        let has_requests = has_requests.is_ok_and(|output| output.status.success());
        let python = tool("target/test-python with requests", has_requests.then_some(python))?;
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, url]);
        Some(command)
    });
}

#[test]
fn node_fetches_with_a_stream_as_body() {
    sends_each_line_as_it_comes(|url| {
        let mut command = node("tests/interop/lines.mjs")?;
        command.arg(url);
        Some(command)
    });
}

/// Curl reads the answer when it has read its input: not while it waits for the next line.
#[test]
fn end_of_a_token_ends_the_stream() {
    let (mut server, address) = Server::start(&["--jwt-secret", KEY]);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let claims = format!(r#"{{"sub":"log","publish":["log"],"exp":{}}}"#, now + 1);
    let header = format!("Authorization: Bearer {}", sign(&claims));
    let url = format!("http://{address}/pub/log?lines");
    let Some(mut curl) = curl(&["-T", "-", "-H", &header, "-w", " %{http_code}"], &url) else {
        return;
    };
    let mut sender = Sender::start(&mut curl);
    sender.say("one");
    server.logged("WARN a token was refused with 401: the claim exp is in the past");
    sender.say("two");
    let said = sender.end();
    let expected =
        "{\"messages\":1,\"recipients\":0,\"error\":\"the claim exp is in the past\"}\n 401";
    assert_eq!(said, expected);
}
