//! The hub under test, and what /proc and its own metrics tell of it.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use smol::Timer;

use crate::{Outcome, PATIENCE, peer};

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the run failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the process holds at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) rss: u64,
    pub(crate) fds: u64,
    pub(crate) threads: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss, fds, threads } = self;
        write!(f, "{rss} bytes resident, {fds} descriptors, {threads} threads")
    }
}

impl Server {
    pub(crate) fn start(binary: &str) -> Outcome<Self> {
        let mut child = Command::new(binary)
            // A machine that has other things to do must not look like a peer that trickles.
            .args(["--listen", "127.0.0.1:0", "--log", "warn", "--handshake-timeout", "15s"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut server = Self { child, address: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").ok_or("no line of the listener")?;
        server.address = address.to_owned();
        Ok(server)
    }

    pub(crate) fn sample(&self) -> Outcome<Sample> {
        let proc = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{proc}/status"))?;
        let number = |name: &str| -> Outcome<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.ok_or_else(|| format!("no {name} in its status"))?.parse()?)
        };
        Ok(Sample {
            rss: number("VmRSS:")? * 1024,
            fds: fs::read_dir(format!("{proc}/fd"))?.count() as u64,
            threads: number("Threads:")?,
        })
    }

    /// Adds up what became of every recipient, from the hub's metrics.
    pub(crate) async fn account(&self, address: &str) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = peer::get(address, "/metrics").await?;
            let number = |name: &str| -> Outcome<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                Ok(line.ok_or_else(|| format!("no {name} in the metrics"))?.parse()?)
            };
            let clients = number("hublet_clients")?;
            let recipients = number("hublet_recipients_total")?;
            let delivered = number("hublet_messages_delivered_total")?;
            let dropped = number("hublet_messages_dropped_total")?;
            let lost = number("hublet_messages_lost_total")?;
            println!(
                "{clients} clients; {recipients} recipients = {delivered} delivered + {dropped} \
                 dropped + {lost} lost"
            );
            if clients == 0 && recipients == delivered + dropped + lost {
                return Ok(());
            }
            if Instant::now() > end {
                return Err("the sum does not come out".into());
            }
            Timer::after(Duration::from_millis(500)).await;
        }
    }

    /// Sends SIGTERM; it has to end well, at once.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }
}

pub(crate) fn raise_fd_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // If it cannot be raised, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
