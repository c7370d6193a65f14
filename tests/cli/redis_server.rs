//! A Redis or Valkey server of one test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{DEADLINE, Folder, free_port, lines};
use crate::tools::program;

/// A server on a free port, without anything on disk unless a test asks for it. Dropping it kills
/// the process.
pub(crate) struct RedisServer {
    child: Child,
    pub(crate) port: u16,
    pub(crate) folder: Folder,
    flags: Vec<String>,
}

impl RedisServer {
    /// Starts `redis-server` or, if `HUBLET_TEST_REDIS` says so, another program; `None` if it is
    /// not installed.
    pub(crate) fn start(test: &str, flags: &[&str]) -> Option<Self> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::at(free_port(), test, flags)
    }

    /// As [`start`](Self::start), at a port.
    pub(crate) fn at(port: u16, test: &str, flags: Vec<String>) -> Option<Self> {
        let name = std::env::var("HUBLET_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        program(&name)?;
        let folder = Folder::new(&format!("redis-{test}"));
        let child = launch(port, &folder, &flags);
        Some(Self { child, port, folder, flags })
    }

    /// The URL without a password.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills the process; its port stays free for the next one.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("its end");
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.child = launch(self.port, &self.folder, &self.flags);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Runs a command of words; returns the bytes of the answer.
    pub(crate) fn ask(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        self.try_query(&words).expect("an answer")
    }

    pub(crate) fn try_query(&self, words: &[&str]) -> std::io::Result<String> {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        self.try_query_bytes(&words)
    }

    pub(crate) fn try_query_bytes(&self, words: &[&[u8]]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // The answer to QUIT is the last.
        stream.write_all(&[command(words), command(&[b"QUIT"])].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned())
    }

    /// Hears all channels that match a pattern.
    pub(crate) fn listen(&self, pattern: &str) -> Ear {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.write_all(&command(&[b"PSUBSCRIBE", pattern.as_bytes()])).expect("sent");
        let mut ear = Ear(BufReader::new(stream));
        assert_eq!(ear.strings(2)[0], b"psubscribe");
        ear.line();
        ear
    }
}

/// A command as the server reads it.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

/// A client of the server that hears channels.
pub(crate) struct Ear(BufReader<TcpStream>);

impl Ear {
    /// The next message that is no probe of a hub: its channel and its bytes.
    pub(crate) fn hears(&mut self) -> (String, Vec<u8>) {
        loop {
            let [kind, _, channel, payload] = self.strings(4).try_into().expect("four");
            assert_eq!(kind, b"pmessage");
            let channel = String::from_utf8(channel).expect("text");
            if !channel.contains("\u{1}hub:") {
                return (channel, payload);
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line
    }

    /// The first strings of a list.
    fn strings(&mut self, count: usize) -> Vec<Vec<u8>> {
        assert!(self.line().starts_with('*'));
        let string = |_| {
            let line = self.line();
            let length: Option<usize> =
                line.strip_prefix('$').and_then(|length| length.trim_end().parse().ok());
            let mut bytes = vec![0; 2 + length.unwrap_or_else(|| panic!("{line:?}"))];
            self.0.read_exact(&mut bytes).expect("so many bytes");
            bytes.truncate(bytes.len() - 2);
            bytes
        };
        (0..count).map(string).collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program, and waits until it says that it serves.
fn launch(port: u16, folder: &Folder, flags: &[String]) -> Child {
    let name = std::env::var("HUBLET_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
    let path = program(&name).expect("was found before");
    let mut child = Command::new(path)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(&folder.0)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let log = lines(child.stdout.take());
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.contains("Ready to accept connections")) {
        said.push(log.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("not ready: {said:?}")));
    }
    child
}
