//! Connecting to the server, again and again.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::hub::backplane::ILL_AFTER;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::link_event::LinkEvent;
use crate::hub::reply::reply;
use crate::net::dial::dial;
use crate::net::reactor::Reactor;
use crate::redis::connection::Connection;
use crate::redis::driver::Driver;
use crate::redis::envelope::HEADER;
use crate::redis::resp;
use crate::redis::resp::Value;
use crate::redis::session::{End, Session};
use crate::stats::add;
use crate::time::clock::now;

/// The time for a connection, from the name of the host to the answer to the last of the first
/// commands: as for a handshake of a client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause before another try, and the longest. Half of each is chance, so that hubs do not
/// return together.
const PAUSE_MIN: Duration = Duration::from_millis(250);

const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why there is no connection.
enum Failure {
    /// The server refuses the hub: the sentence says why.
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Hub {
    /// Connects the hub to the server of [`Config::redis`](crate::Config#structfield.redis), and
    /// carries its messages there and back. Spawn or await the future beside the manager.
    ///
    /// It connects again whenever the connection is lost, after pauses of 250 ms that double up to
    /// 5 s, half of each by chance. While there is no connection the clients stay, no client is
    /// admitted (503), and publishing waits: [`Error::is_unavailable`] after the
    /// [`write_timeout`](crate::Config#structfield.write_timeout). The future ends with the hub.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if no server is configured, if this was called before, or if the server
    /// refuses the first connection for its password or its database. A server that cannot be
    /// reached is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection for good: the hub admits no client any more.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub};
    /// # smol::block_on(async {
    /// let (hub, _manager) = Hub::new(Config::default())?;
    /// assert!(hub.connect_redis().await.expect_err("no server is configured").is_config());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn connect_redis(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        run(Driver::new(self, None))
    }

    /// As [`connect_redis`](Self::connect_redis), with a socket that a reactor waits for, as
    /// [`Reactor::attach`] has it for a listener.
    ///
    /// The C library resolves the name of a host, and blocks meanwhile. That is done in a thread that
    /// ends with the answer. An IP address and a Unix socket need no thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub, Reactor};
    /// let reactor = Reactor::new()?;
    /// let (hub, _manager) = Hub::new(Config::default())?;
    /// let connected = reactor.block_on(hub.connect_redis_on(&reactor));
    /// assert!(connected.expect_err("no server is configured").is_config());
    /// # Ok::<_, hublet::Error>(())
    /// ```
    pub fn connect_redis_on(
        &self,
        reactor: &Reactor,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        run(Driver::new(self, Some(reactor.clone())))
    }
}

async fn run(driver: Option<Driver>) -> Result<(), Error> {
    let refused = || Error::config("redis is not set, or another driver has the connection");
    driver.ok_or_else(refused)?.run().await
}

impl Driver {
    async fn run(mut self) -> Result<(), Error> {
        let mut pause = PAUSE_MIN;
        let mut since = now();
        let mut is_logged = false;
        loop {
            let cause = match self.open().await {
                Ok(connection) => match self.serve(connection, since).await {
                    End::Hub => return Ok(()),
                    End::Lost { cause, was_up } => {
                        if was_up {
                            (pause, since, is_logged) = (PAUSE_MIN, now(), false);
                        }
                        cause.to_string()
                    }
                },
                Err(Failure::Refused(sentence)) if !self.has_been_up => {
                    let redis = &self.redis;
                    return Err(Error::config(format!("{redis} refuses the hub: {sentence}")));
                }
                Err(Failure::Refused(sentence)) => sentence,
                Err(Failure::Io(error)) => error.to_string(),
            };
            // One line for each time that the server is away.
            let level = if is_logged { log::Level::Debug } else { log::Level::Warn };
            is_logged = true;
            let redis = &self.redis;
            log::log!(
                level,
                "{redis} is away: {cause}; clients stay, and none can join or publish"
            );
            let half = pause / 2;
            let wait = half + half.mul_f64(fastrand::f64());
            let timers = Arc::clone(&self.timers);
            let mut deadline = timers.after(wait);
            if deadline.within(self.ended()).await.is_some() {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits for the end of the hub.
    async fn ended(&self) {
        poll_fn(|cx| self.outbox.poll_closed(cx)).await;
    }

    /// Connects, and introduces the hub.
    async fn open(&mut self) -> Result<Connection, Failure> {
        let timers = Arc::clone(&self.timers);
        let opened = timers.after(CONNECT_TIMEOUT).within(self.introduce()).await;
        opened.unwrap_or_else(|| Err(Failure::Io(io::ErrorKind::TimedOut.into())))
    }

    async fn introduce(&mut self) -> Result<Connection, Failure> {
        let stream = dial(&self.redis.address, self.reactor.as_ref()).await?;
        let mut connection =
            Connection::new(stream, self.reader.message_max + HEADER, &self.reader.memory);
        let commands = self.greet(&mut connection.output);
        let mut answered = 0;
        while answered < commands {
            match connection.parse()? {
                Some(Value::Push(_)) => {}
                Some(answer) => {
                    answered += 1;
                    self.greeted(&answer, answered == 1, answered == commands)?;
                }
                None => poll_fn(|cx| connection.poll_read(cx)).await?,
            }
        }
        Ok(connection)
    }

    /// Writes the commands that introduce the hub; returns how many. The server does none of them
    /// without the first.
    fn greet(&self, output: &mut Vec<u8>) -> usize {
        let name = format!("{}-{:016x}", self.redis.prefix, self.link.hub);
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.redis.password {
            let user = self.redis.user.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([&b"SETNAME"[..], name.as_bytes()]);
        resp::command(output, &hello);
        let has_database = self.redis.database > 0;
        if has_database {
            resp::command(output, &[b"SELECT", self.redis.database.to_string().as_bytes()]);
        }
        resp::command(output, &[b"INFO", b"server"]);
        2 + usize::from(has_database)
    }

    /// Takes the answer to one of those commands.
    fn greeted(
        &mut self,
        answer: &Value<'_>,
        is_first: bool,
        is_last: bool,
    ) -> Result<(), Failure> {
        if let Value::Error(error) = answer {
            return Err(sort(String::from_utf8_lossy(error).into_owned()));
        }
        if is_first {
            self.is_cluster = is_cluster(answer);
        }
        if self.is_cluster && self.script.config.keeps_any() {
            let sentence = "it is a cluster, and two keys of one script may lie on two servers of it: \
                            no history can be kept there";
            return Err(Failure::Refused(sentence.to_owned()));
        }
        if is_first && is_replica(answer) {
            return Err(Failure::Io(io::Error::other("it is a replica")));
        }
        if is_last {
            let run_id = run_id(answer.text().unwrap_or_default());
            if !self.run_id.is_empty() && self.run_id != run_id {
                log::warn!("{} has restarted, or another server has its place", self.redis);
            }
            self.run_id = run_id;
        }
        Ok(())
    }

    /// Uses a connection to its end.
    async fn serve(&mut self, connection: Connection, away_since: Instant) -> End {
        let session = Session::new(self, connection, away_since);
        let (end, unconfirmed) = session.run().await;
        add(&self.link.counters.unconfirmed, unconfirmed);
        self.topics.values_mut().for_each(|topic| topic.confirmed = false);
        if let End::Lost { was_up: true, .. } = end {
            self.link.set_down(self.timers.now().plus(ILL_AFTER));
            let (reply, answer) = reply();
            if self.send_to_hub(Command::Backplane(LinkEvent::Down(reply))).await.is_err()
                || answer.await.is_none()
            {
                return End::Hub;
            }
        }
        end
    }
}

/// Whether an error of the server will be the same at the next try.
fn sort(error: String) -> Failure {
    let passes = ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "ERR max number of clients"];
    if passes.iter().any(|begin| error.starts_with(begin)) {
        Failure::Io(io::Error::other(error))
    } else if error.contains("unknown command") {
        Failure::Refused(format!("{error}; Redis 6.2 or Valkey is needed"))
    } else {
        Failure::Refused(error)
    }
}

/// A field of the answer to HELLO.
fn field<'a>(hello: &Value<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let at = hello.list()?.chunks_exact(2).find(|pair| pair[0].text() == Some(name));
    at.and_then(|pair| pair[1].text())
}

/// Whether the answer to HELLO is that of a replica outside of a cluster: what is published there
/// reaches no other server.
fn is_replica(hello: &Value<'_>) -> bool {
    field(hello, b"mode") == Some(b"standalone")
        && field(hello, b"role").is_some_and(|role| role != b"master")
}

/// Whether the answer to HELLO is that of a node of a cluster.
fn is_cluster(hello: &Value<'_>) -> bool {
    field(hello, b"mode") == Some(b"cluster")
}

/// The `run_id` in the answer to INFO.
fn run_id(info: &[u8]) -> String {
    let info = String::from_utf8_lossy(info);
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    line.unwrap_or_default().trim_ascii().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_known_by_its_hello() {
        let hello = |mode: &'static [u8], role: &'static [u8]| {
            let texts = [b"server", &b"redis"[..], b"mode", mode, b"role", role];
            is_replica(&Value::List(texts.into_iter().map(Value::Text).collect()))
        };
        assert!(hello(b"standalone", b"replica"));
        assert!(!hello(b"standalone", b"master"));
        assert!(!hello(b"cluster", b"replica"));
        let mode = |mode: &'static [u8]| Value::List([&b"mode"[..], mode].map(Value::Text).into());
        assert!(is_cluster(&mode(b"cluster")) && !is_cluster(&mode(b"standalone")));
    }

    #[test]
    fn errors_that_pass_are_no_refusal() {
        assert!(matches!(sort("LOADING Redis is loading".into()), Failure::Io(_)));
        assert!(matches!(sort("WRONGPASS invalid".into()), Failure::Refused(_)));
        assert_eq!(run_id(b"# Server\r\nrun_id:abc\r\nuptime:1\r\n"), "abc");
    }
}
