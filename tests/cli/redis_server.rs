//! A Redis or Valkey server of one test.

use std::io::{Read, Write};
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        // The answer to QUIT is the last.
        command.push_str("*1\r\n$4\r\nQUIT\r\n");
        stream.write_all(command.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned())
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
