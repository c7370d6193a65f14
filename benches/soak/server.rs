//! The hub under test, with figures from /proc and its metrics.

#[path = "../server/mod.rs"]
mod process;

use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use smol::Timer;

pub(crate) use process::client::within;
pub(crate) use process::{Outcome, raise_fd_limit};

use crate::{PATIENCE, peer};

pub(crate) struct Server(process::Server);

/// The resources of the process at one time.
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
        // Long, so that a peer on a busy machine is not taken for a slow one.
        Ok(Self(process::Server::start(&[binary, "--handshake-timeout", "15s"])?))
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    pub(crate) fn sample(&self) -> Outcome<Sample> {
        let child = &self.0.child;
        Ok(Sample {
            rss: process::rss(child)?,
            fds: process::descriptors(child)? as u64,
            threads: process::status(child, "Threads")?,
        })
    }

    /// Adds up the ends of all recipients, from the hub's metrics.
    pub(crate) async fn account(&self) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = peer::get(self.address(), "/metrics").await?;
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

    /// Sends SIGTERM. The hub must end at once with exit code 0.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        kill_process(Pid::from_child(&self.0.child), Signal::TERM)?;
        let status = self.0.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }
}
