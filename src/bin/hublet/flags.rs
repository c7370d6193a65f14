//! The command line and its twins in the environment, both made from one table.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hublet::{Config, Overflow, Page};
use log::LevelFilter;

use super::Failure;
use super::access::{Secret, Secrets};
use super::page::PAGES;
use super::socket::{Address, DEFAULT};

/// What comes before a flag's name in the environment.
const PREFIX: &str = "HUBLET_";

/// Executor threads at most: more than any machine this is meant for has cores.
const THREADS_MAX: usize = 64;

/// The levels of `--log`.
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// What `--listen` takes.
const ADDRESSES: &str =
    "an address and port like 127.0.0.1:8080, a port like :8080, or unix: and a path";

/// What `--trusted-proxy` takes.
const NETWORKS: &str = "an address, a network like 10.0.0.0/8, or unix";

/// Bytes of a frame's header and of slack that a queue must hold beyond two messages.
const FRAMING: usize = 2 * 10;

/// The longest message at most: the queue's bytes, which grow with it, end at their own limit.
const MESSAGE_MAX: usize = (Config::LIMIT_MAX - FRAMING) / 2;

/// The shortest wait, where none makes no sense.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To serve.
    Serve(Box<Options>),
    /// To ask the hub that serves at these addresses how it is.
    Health(Vec<Address>),
    /// To print this and end.
    Say(String),
}

/// What flags and environment set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where to listen; empty if nothing was said.
    pub(crate) listen: Vec<Address>,
    pub(crate) echo: bool,
    pub(crate) threads: usize,
    pub(crate) level: LevelFilter,
    /// The room that lines of standard input go to.
    pub(crate) stdin: Option<Arc<str>>,
    /// The room whose messages are lines of standard output.
    pub(crate) stdout: Option<Arc<str>>,
    /// The tokens that requests must show.
    pub(crate) secrets: Secrets,
    pub(crate) config: Config,
    /// Environment variables with our prefix that name no flag.
    pub(crate) unknown: Vec<String>,
    /// Whether the queue's and the inbox's bytes follow the message limit.
    queue_bytes_follow: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            echo: true,
            threads: 1,
            level: LevelFilter::Info,
            stdin: None,
            stdout: None,
            secrets: Secrets::default(),
            config: Config::default().http(true).hosts(Vec::new()).pages(pages(false)),
            unknown: Vec::new(),
            queue_bytes_follow: true,
        }
    }
}

/// One flag.
struct Flag {
    name: &'static str,
    /// The word for its value in the help; empty for a switch, which has none.
    value: &'static str,
    help: &'static str,
    /// What it sets, and by that how its value reads.
    sets: Sets,
}

/// What a flag sets.
enum Sets {
    /// A list of addresses.
    Listen,
    NoEcho,
    NoPage,
    Threads,
    /// A list of origins.
    Origins,
    /// A list of hosts.
    Hosts,
    /// A list of networks.
    Proxies,
    Overflow,
    Log,
    /// The queue's bytes, which follow the message limit unless they are given.
    QueueBytes,
    /// A number from 1 up.
    Count(fn(&mut Config) -> &mut usize),
    /// A number from 1 up, or no limit.
    SomeCount(fn(&mut Config) -> &mut Option<usize>),
    MaxMessage,
    /// A number of bytes, or no ceiling.
    MaxMemory,
    /// A wait.
    Time(fn(&mut Config) -> &mut Duration),
    /// The window of the drain, which may be nothing.
    Drain,
    /// A token or a key.
    Secret(fn(&mut Secrets) -> &mut Option<Secret>),
    /// A file that a token or a key is in.
    SecretFile(fn(&mut Secrets) -> &mut Option<Secret>),
    /// A room.
    Room(fn(&mut Options) -> &mut Option<Arc<str>>),
}

const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        value: "ADDR",
        help: "where to listen; 127.0.0.1:8080, :8080 for all interfaces, [::1]:8080, port 0 for \
               any free one, unix:/run/hublet.sock; sockets that systemd hands over come on top",
        sets: Sets::Listen,
    },
    Flag {
        name: "no-echo",
        value: "",
        help: "a message goes to everyone else in the room; ?echo=1 asks for the sender too",
        sets: Sets::NoEcho,
    },
    Flag {
        name: "no-page",
        value: "",
        help: "no page at / and no client module at /hublet.js",
        sets: Sets::NoPage,
    },
    Flag { name: "threads", value: "N", help: "executor threads", sets: Sets::Threads },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "an origin whose pages may connect beside the hub's own; * for any",
        sets: Sets::Origins,
    },
    Flag {
        name: "allow-host",
        value: "HOST",
        help: "a name that the hub is asked for under, beside addresses and localhost; without a \
               token any other is answered 421; * for any",
        sets: Sets::Hosts,
    },
    Flag {
        name: "trusted-proxy",
        value: "ADDR",
        help: "a proxy whose X-Forwarded-For is believed: an address, a network like 10.0.0.0/8, \
               or unix",
        sets: Sets::Proxies,
    },
    Flag {
        name: "token",
        value: "TOKEN",
        help: "what listening takes, and sending unless that has its own; shown as Authorization: \
               Bearer, ?token= or the subprotocols hublet.token and the token",
        sets: Sets::Secret(|secrets| &mut secrets.token),
    },
    Flag {
        name: "token-file",
        value: "FILE",
        help: "a file that has it; files and variables do not show in the list of processes",
        sets: Sets::SecretFile(|secrets| &mut secrets.token),
    },
    Flag {
        name: "publish-token",
        value: "TOKEN",
        help: "what sending takes, by POST and by WebSocket; who has it may listen too",
        sets: Sets::Secret(|secrets| &mut secrets.publish_token),
    },
    Flag {
        name: "publish-token-file",
        value: "FILE",
        help: "a file that has it",
        sets: Sets::SecretFile(|secrets| &mut secrets.publish_token),
    },
    Flag {
        name: "admin-token",
        value: "TOKEN",
        help: "what /metrics and /rooms take; without one they answer this machine only",
        sets: Sets::Secret(|secrets| &mut secrets.admin_token),
    },
    Flag {
        name: "admin-token-file",
        value: "FILE",
        help: "a file that has it",
        sets: Sets::SecretFile(|secrets| &mut secrets.admin_token),
    },
    Flag {
        name: "jwt-secret",
        value: "KEY",
        help: "what JSON Web Tokens are signed with (HS256): sub is the user, exp and nbf hold, \
               rooms and publish limit where to listen and to send",
        sets: Sets::Secret(|secrets| &mut secrets.jwt_secret),
    },
    Flag {
        name: "jwt-secret-file",
        value: "FILE",
        help: "a file that has it",
        sets: Sets::SecretFile(|secrets| &mut secrets.jwt_secret),
    },
    Flag {
        name: "max-clients",
        value: "N",
        help: "clients at once; beyond it 503 (default: the limit on file descriptors less 64)",
        sets: Sets::SomeCount(|config| &mut config.max_clients),
    },
    Flag {
        name: "max-clients-per-ip",
        value: "N",
        help: "clients at once from one IPv4 address or IPv6 /64",
        sets: Sets::SomeCount(|config| &mut config.max_clients_per_ip),
    },
    Flag {
        name: "max-rooms",
        value: "N",
        help: "rooms at once; beyond it 503",
        sets: Sets::Count(|config| &mut config.max_rooms),
    },
    Flag {
        name: "max-rooms-per-client",
        value: "N",
        help: "rooms that one client may be in",
        sets: Sets::Count(|config| &mut config.max_rooms_per_client),
    },
    Flag {
        name: "max-message",
        value: "BYTES",
        help: "the longest message; a longer one is closed with 1009",
        sets: Sets::MaxMessage,
    },
    Flag {
        name: "max-memory",
        value: "BYTES",
        help: "the ceiling for the whole process, like 32m; clients and inbox follow from it, and \
               the clients that pin the most are closed with 1013 before it is reached",
        sets: Sets::MaxMemory,
    },
    Flag {
        name: "max-fragments",
        value: "N",
        help: "frames that one message may consist of; more are closed with 1008",
        sets: Sets::Count(|config| &mut config.max_fragments),
    },
    Flag {
        name: "queue",
        value: "N",
        help: "messages that may wait for one client",
        sets: Sets::Count(|config| &mut config.queue),
    },
    Flag {
        name: "queue-bytes",
        value: "BYTES",
        help: "bytes that may wait for one client; unless given it grows to two of --max-message",
        sets: Sets::QueueBytes,
    },
    Flag {
        name: "overflow",
        value: "POLICY",
        help: "what happens to a client whose queue is full: disconnect (4108), drop-newest, \
               drop-oldest",
        sets: Sets::Overflow,
    },
    Flag {
        name: "handshake-timeout",
        value: "TIME",
        help: "for the whole request and its answer",
        sets: Sets::Time(|config| &mut config.handshake_timeout),
    },
    Flag {
        name: "ping-interval",
        value: "TIME",
        help: "silence after which a client is pinged",
        sets: Sets::Time(|config| &mut config.ping_interval),
    },
    Flag {
        name: "pong-timeout",
        value: "TIME",
        help: "silence after a ping that ends the connection",
        sets: Sets::Time(|config| &mut config.pong_timeout),
    },
    Flag {
        name: "write-timeout",
        value: "TIME",
        help: "writing without progress that ends the connection",
        sets: Sets::Time(|config| &mut config.write_timeout),
    },
    Flag {
        name: "close-timeout",
        value: "TIME",
        help: "for a peer to answer a close frame",
        sets: Sets::Time(|config| &mut config.close_timeout),
    },
    Flag {
        name: "drain",
        value: "TIME",
        help: "the time over which a stop spreads its close frames (1012)",
        sets: Sets::Drain,
    },
    Flag {
        name: "stdin",
        value: "ROOM",
        help: "each line of standard input goes to this room; at its end the hub drains",
        sets: Sets::Room(|options| &mut options.stdin),
    },
    Flag {
        name: "stdout",
        value: "ROOM",
        help: "each message of this room is a line of standard output, a binary one in base64; \
               the hub drains when nobody reads it",
        sets: Sets::Room(|options| &mut options.stdout),
    },
    Flag { name: "log", value: "LEVEL", help: "error, warn, info or debug", sets: Sets::Log },
];

impl Sets {
    /// Sets a value; `Err` is what is allowed instead.
    fn set(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let config = &mut options.config;
        match self {
            Self::Listen => options.listen.push(text.parse().map_err(|()| ADDRESSES.to_owned())?),
            Self::NoEcho => options.echo = !switch(text)?,
            Self::NoPage => config.pages = pages(switch(text)?),
            Self::Threads => options.threads = count(text, THREADS_MAX)?,
            Self::Origins => config.origins.push(origin(text)?),
            Self::Hosts => config.hosts.push(host(text)?),
            Self::Proxies => {
                let network = text.parse().map_err(|_| NETWORKS.to_owned())?;
                config.trusted_proxies.push(network);
            }
            Self::Overflow => {
                config.overflow = text.parse().map_err(|_| Overflow::WORDS.join(", "))?;
            }
            Self::Log => {
                let level = text.parse().ok().filter(|_| LEVELS.contains(&text));
                options.level = level.ok_or_else(|| LEVELS.join(", "))?;
            }
            Self::QueueBytes => {
                config.queue_bytes = bytes(text, Config::LIMIT_MAX)?;
                options.queue_bytes_follow = false;
            }
            Self::Count(field) => *field(config) = count(text, Config::LIMIT_MAX)?,
            Self::SomeCount(field) => *field(config) = Some(count(text, Config::LIMIT_MAX)?),
            Self::MaxMessage => config.max_message = bytes(text, MESSAGE_MAX)?,
            Self::MaxMemory => config.max_memory = Some(bytes(text, usize::MAX)?),
            Self::Time(field) => *field(config) = time(text, WAIT_MIN)?,
            Self::Drain => config.drain = time(text, Duration::ZERO)?,
            Self::Room(field) => *field(options) = Some(room(text)?),
            Self::Secret(field) => once(field(&mut options.secrets), text)?,
            Self::SecretFile(field) => once(field(&mut options.secrets), &read_secret(text)?)?,
        }
        Ok(())
    }

    /// The value that is set, for the help to show the default; empty where that is none.
    fn show(&self, options: &mut Options) -> String {
        let config = &mut options.config;
        match self {
            Self::Listen => DEFAULT.to_string(),
            Self::NoEcho
            | Self::NoPage
            | Self::Origins
            | Self::Hosts
            | Self::Proxies
            | Self::SomeCount(_)
            | Self::Secret(_)
            | Self::SecretFile(_)
            | Self::MaxMemory
            | Self::Room(_) => String::new(),
            Self::Threads => options.threads.to_string(),
            Self::Overflow => config.overflow.to_string(),
            Self::Log => options.level.to_string().to_ascii_lowercase(),
            Self::QueueBytes => show_bytes(config.queue_bytes),
            Self::Count(field) => field(config).to_string(),
            Self::MaxMessage => show_bytes(config.max_message),
            Self::Time(field) => show_time(*field(config)),
            Self::Drain => show_time(config.drain),
        }
    }

    /// Whether it is a list, to which each value adds.
    fn list(&self) -> Option<fn(&mut Options)> {
        match self {
            Self::Listen => Some(|options| options.listen.clear()),
            Self::Origins => Some(|options| options.config.origins.clear()),
            Self::Hosts => Some(|options| options.config.hosts.clear()),
            Self::Proxies => Some(|options| options.config.trusted_proxies.clear()),
            _ => None,
        }
    }
}

impl Flag {
    /// The flag's name in the environment.
    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Sets a value that `origin` gave: `--queue` or `HUBLET_QUEUE`.
    fn set(&self, options: &mut Options, origin: &str, text: &str) -> Result<(), Failure> {
        self.sets.set(options, text).map_err(|allowed| {
            // What was meant to be secret is not shown, not even to who gave it wrongly.
            let given = if matches!(self.sets, Sets::Secret(_)) {
                "a secret".to_owned()
            } else {
                format!("{text:?}")
            };
            Failure::usage(format!("{origin} was given {given}; allowed is {allowed}"))
        })
    }
}

/// Reads the environment, then the arguments (the first is the program), which win.
pub(crate) fn parse(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Wish, Failure> {
    let (given, health) = match given(arguments)? {
        Given::Flags { given, health } => (given, health),
        Given::Wish(wish) => return Ok(wish),
    };
    let mut options = Options::default();
    let mut variables = variables(environment)?;
    for flag in FLAGS {
        let variable = flag.variable();
        let at = variables.iter().position(|(name, _)| *name == variable);
        let from_environment = at.map(|at| variables.swap_remove(at).1);
        let from_arguments: Vec<_> =
            given.iter().filter(|(name, _)| *name == flag.name).map(|(_, text)| text).collect();
        let list = flag.sets.list();
        if let Some(clear) = list {
            if from_environment.is_some() || !from_arguments.is_empty() {
                clear(&mut options);
            }
        }
        match (from_arguments.is_empty(), from_environment) {
            (true, Some(text)) if list.is_some() => {
                for text in text.split(',') {
                    flag.set(&mut options, &variable, text.trim_ascii())?;
                }
            }
            (true, Some(text)) => flag.set(&mut options, &variable, &text)?,
            _ => {
                for text in from_arguments {
                    flag.set(&mut options, &format!("--{}", flag.name), text)?;
                }
            }
        }
    }
    if options.secrets.guard_listening() {
        // A page that was made to lead here has no token.
        options.config.hosts.push("*".to_owned());
    }
    options.unknown = variables.into_iter().map(|(name, _)| name).collect();
    let config = &mut options.config;
    let two = config.max_message.saturating_mul(2).saturating_add(FRAMING);
    if options.queue_bytes_follow {
        config.queue_bytes = config.queue_bytes.max(two);
    }
    config.inbox_bytes = config.inbox_bytes.max(two);
    if health {
        return Ok(Wish::Health(options.listen));
    }
    Ok(Wish::Serve(Box::new(options)))
}

/// Says a sentence about the configuration in the words of the command line: `queue_bytes` is
/// `--queue-bytes` there.
pub(crate) fn in_flags(sentence: &str) -> String {
    let words = sentence.split(' ').map(|word| {
        let name = word.replace('_', "-");
        let is_flag = name != word && FLAGS.iter().any(|flag| flag.name == name);
        if is_flag { format!("--{name}") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What the arguments say.
enum Given {
    Flags {
        /// The flags, in their order, by name and value.
        given: Vec<(&'static str, String)>,
        /// Whether the flags tell of a hub to ask, and not of one to serve.
        health: bool,
    },
    /// Help or the version.
    Wish(Wish),
}

fn given(arguments: impl IntoIterator<Item = OsString>) -> Result<Given, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let usage = |error: lexopt::Error| Failure::usage(format!("{error}; see --help"));
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut given = Vec::new();
    let mut health = false;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("help") | Short('h') => return Ok(Given::Wish(Wish::Say(help()))),
            Long("version") | Short('V') => {
                let version = format!("hublet {}\n", env!("CARGO_PKG_VERSION"));
                return Ok(Given::Wish(Wish::Say(version)));
            }
            Long("health") => health = true,
            Long(name) => {
                let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
                    return Err(Failure::usage(format!(
                        "--{name} is no flag of hublet; see --help"
                    )));
                };
                let text = if flag.is_switch() {
                    "1".to_owned()
                } else {
                    let value = parser.value().map_err(usage)?;
                    value.into_string().map_err(|value| {
                        // It may be a secret.
                        drop(value);
                        Failure::usage(format!("--{} was given what is not UTF-8", flag.name))
                    })?
                };
                given.push((flag.name, text));
            }
            Short(_) | Value(_) => return Err(usage(argument.unexpected())),
        }
    }
    Ok(Given::Flags { given, health })
}

/// The variables with our prefix.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        // An empty variable is as good as none: that is how compose files say "unset".
        if name.starts_with(PREFIX) && !value.is_empty() {
            let value = value.into_string().map_err(|value| {
                // It may be a secret.
                drop(value);
                Failure::usage(format!("{name} was given what is not UTF-8"))
            })?;
            variables.push((name, value));
        }
    }
    Ok(variables)
}

fn help() -> String {
    let mut help = String::from(
        "hublet: what one WebSocket client sends, everyone else in the room gets at once\n\n\
         Usage: hublet [FLAGS]\n\n\
         WebSockets at /ws (the room main) and /ws/{room}; a page at /; GET /health answers 200.\n\
         The same messages as events at /sse/{room}; POST to /pub/{room} and /user/{user};\n\
         /rooms, /rooms/{room} and /metrics tell who is there and what is counted.\n\n",
    );
    let mut defaults = Options::default();
    for flag in FLAGS {
        let default = flag.sets.show(&mut defaults);
        let default = if default.is_empty() { default } else { format!(" (default: {default})") };
        let repeats = if flag.sets.list().is_some() {
            "; may be repeated, commas in the variable"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = write!(
            help,
            "  --{} {}\n      {}{default}{repeats} [{}]\n",
            flag.name,
            flag.value,
            flag.help,
            flag.variable()
        );
    }
    help.push_str(
        "  --health\n      asks the hub that listens at --listen how it is; exit code 0 if it \
         serves, 1 if not\n  --version\n  --help\n\n\
         BYTES take k and m (1,024-based), TIME takes ms, s and m. The variable in brackets does \
         the same; the flag wins.\n\
         SIGTERM and SIGINT drain: what is queued goes first, then clients are closed with 1012; a \
         second signal stops at once.\n\
         Exit codes: 0 after a drain, 1 after a failure or a second signal, 2 for a flag or value \
         that is not allowed.\n",
    );
    help
}

/// What is served as it is, unless it is not wanted.
fn pages(unwanted: bool) -> Vec<Page> {
    if unwanted { Vec::new() } else { PAGES.to_vec() }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("1, true, 0 or false".to_owned()),
    }
}

fn count(text: &str, max: usize) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=max).contains(count));
    count.ok_or_else(|| format!("a whole number from 1 to {max}"))
}

fn bytes(text: &str, max: usize) -> Result<usize, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 1024),
        Some((end, 'm' | 'M')) => (&text[..end], 1024 * 1024),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number
        .filter(|bytes| (1..=max).contains(bytes))
        .ok_or_else(|| format!("a number of bytes from 1 to {max}, like 4096, 64k or 1m"))
}

fn time(text: &str, min: Duration) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let parsed = units.iter().find_map(|(unit, millis)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*millis).map(Duration::from_millis)
    });
    parsed
        .filter(|time| (min..=Config::WAIT_MAX).contains(time))
        .ok_or_else(|| format!("a time from {} to a day, like 500ms, 10s or 2m", show_time(min)))
}

/// An origin as a browser sends it: scheme, host, perhaps a port, no path.
fn origin(text: &str) -> Result<String, String> {
    let rest = text.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
    if text == "*"
        || rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte != b'/'))
    {
        return Ok(text.to_owned());
    }
    Err("an origin like https://example.org, without a path, or *".to_owned())
}

/// Sets a secret that must not be empty, and is given in one way only.
fn once(slot: &mut Option<Secret>, text: &str) -> Result<(), String> {
    if slot.is_some() {
        return Err("one secret, by its flag, its variable or its file".to_owned());
    }
    *slot = Some(Secret::new(text).ok_or("one that is not empty")?);
    Ok(())
}

/// Reads a secret from the first line of a file.
fn read_secret(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("a file that can be read ({error})"))?;
    Ok(text.lines().next().unwrap_or_default().trim_ascii().to_owned())
}

/// A host as a request names it: without a scheme or a path.
fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '@', ' ']) {
        return Err("a host like hub.example.org, without a scheme, or *".to_owned());
    }
    Ok(text.to_owned())
}

/// A room that clients can name in a path as well.
fn room(text: &str) -> Result<Arc<str>, String> {
    let named = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    if named && text != "." && text != ".." {
        return Ok(text.into());
    }
    Err("the name of a room, 1 to 128 bytes without control characters".to_owned())
}

fn show_bytes(bytes: usize) -> String {
    const MIB: usize = 1024 * 1024;
    match bytes {
        bytes if bytes % MIB == 0 => format!("{}m", bytes / MIB),
        bytes if bytes % 1024 == 0 => format!("{}k", bytes / 1024),
        bytes => bytes.to_string(),
    }
}

fn show_time(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn parsed(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Options, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let arguments = ["hublet"].iter().chain(arguments).map(OsString::from);
        match parse(environment.collect::<Vec<_>>(), arguments.collect::<Vec<_>>()) {
            Ok(Wish::Serve(options)) => Ok(*options),
            Ok(Wish::Health(addresses)) => Err(format!("asks {addresses:?}")),
            Ok(Wish::Say(text)) => Err(text),
            Err(failure) => {
                assert_eq!(failure.code, 2);
                Err(failure.sentence)
            }
        }
    }

    #[test]
    fn nothing_given_is_the_defaults() {
        assert_eq!(parsed(&[], &[]), Ok(Options::default()));
    }

    #[test]
    fn every_flag_sets_something_and_so_does_its_variable() {
        let values = HashMap::from([
            ("listen", "unix:/run/hublet.sock"),
            ("no-echo", "1"),
            ("no-page", "1"),
            ("allow-origin", "https://example.org"),
            ("allow-host", "hub.example.org"),
            ("trusted-proxy", "10.0.0.0/8"),
            // Any file that has a line in it.
            ("token-file", "Cargo.toml"),
            ("publish-token-file", "Cargo.toml"),
            ("admin-token-file", "Cargo.toml"),
            ("jwt-secret-file", "Cargo.toml"),
            ("overflow", "drop-oldest"),
            ("log", "debug"),
            ("max-message", "32k"),
            ("queue-bytes", "1m"),
        ]);
        for flag in FLAGS {
            let number = if flag.value == "TIME" { "7s" } else { "7" };
            let value = values.get(flag.name).copied().unwrap_or(number);
            let long = format!("--{}", flag.name);
            let arguments = if flag.is_switch() { vec![&*long] } else { vec![&*long, value] };
            let by_flag = parsed(&[], &arguments).expect(flag.name);
            let by_variable = parsed(&[(&flag.variable(), value)], &[]).expect(flag.name);
            assert_ne!(by_flag, Options::default(), "{}", flag.name);
            assert_eq!(by_flag, by_variable, "{}", flag.name);
        }
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_lists_are_replaced() {
        let environment = [("HUBLET_QUEUE", "5"), ("HUBLET_LISTEN", ":1, :2")];
        let options = parsed(&environment, &["--queue=9"]).expect("valid");
        assert_eq!(options.config.queue, 9);
        assert_eq!(options.listen, [Address::Port(1), Address::Port(2)]);
        let options = parsed(&environment, &["--listen", ":3", "--listen", ":4"]).expect("valid");
        assert_eq!(options.listen, [Address::Port(3), Address::Port(4)]);
    }

    #[test]
    fn queues_grow_with_the_longest_message_unless_they_are_given() {
        let options = parsed(&[], &["--max-message", "16m"]).expect("valid");
        let two = 2 * 16 * 1024 * 1024 + FRAMING;
        assert_eq!((options.config.queue_bytes, options.config.inbox_bytes), (two, two));
        let options = parsed(&[], &["--max-message", "16m", "--queue-bytes", "1m"]).expect("valid");
        assert_eq!(options.config.queue_bytes, 1024 * 1024, "the hub refuses it, and says why");
    }

    #[test]
    fn what_is_not_allowed_is_named_with_what_is() {
        for (arguments, sentence) in [
            (
                &["--queue", "0"][..],
                "--queue was given \"0\"; allowed is a whole number from 1 to 1073741824",
            ),
            (
                &["--queue", "-1"],
                "--queue was given \"-1\"; allowed is a whole number from 1 to 1073741824",
            ),
            (
                &["--threads", "65"],
                "--threads was given \"65\"; allowed is a whole number from 1 to 64",
            ),
            (
                &["--max-message", "64kb"],
                "--max-message was given \"64kb\"; allowed is a number of bytes from 1 to 536870902, like 4096, 64k or 1m",
            ),
            (
                &["--drain", "5"],
                "--drain was given \"5\"; allowed is a time from 0s to a day, like 500ms, 10s or 2m",
            ),
            (
                &["--overflow", "drop"],
                "--overflow was given \"drop\"; allowed is disconnect, drop-newest, drop-oldest",
            ),
            (&["--log", "trace"], "--log was given \"trace\"; allowed is error, warn, info, debug"),
            (
                &["--listen", "8080"],
                "--listen was given \"8080\"; allowed is an address and port like 127.0.0.1:8080, a port like :8080, or unix: and a path",
            ),
            (
                &["--allow-origin", "example.org"],
                "--allow-origin was given \"example.org\"; allowed is an origin like https://example.org, without a path, or *",
            ),
            (
                &["--allow-host", "https://example.org"],
                "--allow-host was given \"https://example.org\"; allowed is a host like hub.example.org, without a scheme, or *",
            ),
            (
                &["--trusted-proxy", "nginx"],
                "--trusted-proxy was given \"nginx\"; allowed is an address, a network like 10.0.0.0/8, or unix",
            ),
            (
                &["--stdin", "a\nb"],
                "--stdin was given \"a\\nb\"; allowed is the name of a room, 1 to 128 bytes without control characters",
            ),
            (
                &["--stdout", ""],
                "--stdout was given \"\"; allowed is the name of a room, 1 to 128 bytes without control characters",
            ),
            (&["--tokens", "x"], "--tokens is no flag of hublet; see --help"),
            (&["--token", ""], "--token was given a secret; allowed is one that is not empty"),
            (
                &["--token", "hush", "--token-file", "Cargo.toml"],
                "--token-file was given \"Cargo.toml\"; allowed is one secret, by its flag, its variable or its file",
            ),
            (
                &["--token", "hush", "--token", "hush"],
                "--token was given a secret; allowed is one secret, by its flag, its variable or its file",
            ),
            (
                &["--jwt-secret-file", "no/such/file"],
                "--jwt-secret-file was given \"no/such/file\"; allowed is a file that can be read (No such file or directory (os error 2))",
            ),
            (&["--no-echo=1"], "unexpected argument for option '--no-echo': \"1\"; see --help"),
            (&["--queue"], "missing argument for option '--queue'; see --help"),
            (&["serve"], "unexpected argument \"serve\"; see --help"),
            (&["-x"], "invalid option '-x'; see --help"),
        ] {
            assert_eq!(parsed(&[], arguments), Err(sentence.to_owned()));
        }
        let sentence = "HUBLET_NO_ECHO was given \"yes\"; allowed is 1, true, 0 or false";
        assert_eq!(parsed(&[("HUBLET_NO_ECHO", "yes")], &[]), Err(sentence.to_owned()));
    }

    #[test]
    fn health_is_asked_for_where_the_hub_listens() {
        let asked = parsed(&[("HUBLET_LISTEN", ":80")], &["--health"]);
        assert_eq!(asked, Err(format!("asks {:?}", [Address::Port(80)])));
        let asked = parsed(&[], &["--health", "--listen", ":81"]);
        assert_eq!(asked, Err(format!("asks {:?}", [Address::Port(81)])));
        assert_eq!(parsed(&[], &["--health"]), Err("asks []".to_owned()));
    }

    #[test]
    fn a_variable_that_names_no_flag_is_reported() {
        let options = parsed(&[("HUBLET_QUEU", "1"), ("OTHER", "1")], &[]).expect("valid");
        assert_eq!(options.unknown, ["HUBLET_QUEU"]);
    }

    #[test]
    fn help_names_every_flag_its_variable_and_its_default() {
        let help = parsed(&[], &["--help"]).expect_err("help");
        for flag in FLAGS {
            assert!(help.contains(&format!("--{} ", flag.name)), "{}", flag.name);
            assert!(help.contains(&format!("[{}]", flag.variable())), "{}", flag.name);
        }
        assert!(help.contains("(default: 127.0.0.1:8080)") && help.contains("(default: 64k)"));
    }
}
