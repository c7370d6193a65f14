//! The command line and its twins in the environment, both made from one table.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use hublet::{Config, Overflow};
use log::LevelFilter;

use super::Failure;
use super::socket::Address;

/// What comes before a flag's name in the environment.
const PREFIX: &str = "HUBLET_";

/// Executor threads at most: more than any machine this is meant for has cores.
const THREADS_MAX: usize = 64;

/// Bytes of a frame's header and of slack that a queue must hold beyond two messages.
const FRAMING: usize = 2 * 10;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To serve.
    Serve(Box<Options>),
    /// To print this and end.
    Say(String),
}

/// What flags and environment set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) listen: Vec<Address>,
    pub(crate) echo: bool,
    pub(crate) threads: usize,
    pub(crate) level: LevelFilter,
    pub(crate) config: Config,
    /// Environment variables with our prefix that name no flag.
    pub(crate) unknown: Vec<String>,
    /// Whether the queue's and the inbox's bytes follow the message limit.
    queue_bytes_follow: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![Address::Tcp(([127, 0, 0, 1], 8080).into())],
            echo: true,
            threads: 1,
            level: LevelFilter::Info,
            config: Config::default().http(true),
            unknown: Vec::new(),
            queue_bytes_follow: true,
        }
    }
}

/// How a value is set: `Err` is what is allowed instead.
type Set = fn(&mut Options, &str) -> Result<(), String>;

/// One flag.
struct Flag {
    name: &'static str,
    /// The word for its value in the help; empty for a switch, which has none.
    value: &'static str,
    help: &'static str,
    /// Whether it may be given several times.
    repeats: bool,
    set: Set,
    /// Its value, for the help to show the default.
    show: fn(&Options) -> String,
}

/// A flag that sets one field of the configuration.
macro_rules! config_flag {
    ($name:literal, $value:literal, $help:literal, $field:ident, $parse:expr, $show:expr) => {
        Flag {
            name: $name,
            value: $value,
            help: $help,
            repeats: false,
            set: |options, text| {
                options.config.$field = $parse(text)?;
                Ok(())
            },
            show: |options| $show(&options.config.$field),
        }
    };
}

const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        value: "ADDR",
        help: "where to listen; 127.0.0.1:8080, :8080 for all interfaces, [::1]:8080, port 0 for \
               any free one, unix:/run/hublet.sock",
        repeats: true,
        set: |options, text| {
            let allowed = "an address and port like 127.0.0.1:8080, a port like :8080, or \
                           unix: and a path";
            options.listen.push(text.parse().map_err(|()| allowed.to_owned())?);
            Ok(())
        },
        show: |options| join(options.listen.iter()),
    },
    Flag {
        name: "no-echo",
        value: "",
        help: "a message goes to everyone else in the room; ?echo=1 asks for the sender too",
        repeats: false,
        set: |options, text| {
            options.echo = !switch(text)?;
            Ok(())
        },
        show: |_| String::new(),
    },
    Flag {
        name: "threads",
        value: "N",
        help: "executor threads",
        repeats: false,
        set: |options, text| {
            options.threads = text
                .parse()
                .ok()
                .filter(|threads| (1..=THREADS_MAX).contains(threads))
                .ok_or_else(|| format!("a whole number from 1 to {THREADS_MAX}"))?;
            Ok(())
        },
        show: |options| options.threads.to_string(),
    },
    Flag {
        name: "allow-origin",
        value: "ORIGIN",
        help: "an origin whose pages may connect beside the hub's own; * for any",
        repeats: true,
        set: |options, text| {
            options.config.origins.push(origin(text)?);
            Ok(())
        },
        show: |_| String::new(),
    },
    config_flag!(
        "max-clients",
        "N",
        "clients at once; beyond it 503 (default: the limit on file \
        descriptors less 64)",
        max_clients,
        some_count,
        |_: &_| String::new()
    ),
    config_flag!(
        "max-clients-per-ip",
        "N",
        "clients at once from one IPv4 address or IPv6 /64",
        max_clients_per_ip,
        some_count,
        |_: &_| String::new()
    ),
    config_flag!("max-rooms", "N", "rooms at once; beyond it 503", max_rooms, count, show),
    config_flag!(
        "max-rooms-per-client",
        "N",
        "rooms that one client may be in",
        max_rooms_per_client,
        count,
        show
    ),
    config_flag!(
        "max-message",
        "BYTES",
        "the longest message; a longer one is closed with 1009",
        max_message,
        bytes,
        show_bytes
    ),
    config_flag!(
        "max-fragments",
        "N",
        "frames that one message may consist of; more are closed with 1008",
        max_fragments,
        count,
        show
    ),
    config_flag!("queue", "N", "messages that may wait for one client", queue, count, show),
    Flag {
        name: "queue-bytes",
        value: "BYTES",
        help: "bytes that may wait for one client; unless given it grows to two of --max-message",
        repeats: false,
        set: |options, text| {
            options.config.queue_bytes = bytes(text)?;
            options.queue_bytes_follow = false;
            Ok(())
        },
        show: |options| show_bytes(&options.config.queue_bytes),
    },
    config_flag!(
        "overflow",
        "POLICY",
        "what happens to a client whose queue is full: disconnect (4108), \
        drop-newest, drop-oldest",
        overflow,
        |text: &str| text.parse().map_err(|_| Overflow::WORDS.join(", ")),
        ToString::to_string
    ),
    config_flag!(
        "handshake-timeout",
        "TIME",
        "for the whole request and its answer",
        handshake_timeout,
        time,
        show_time
    ),
    config_flag!(
        "ping-interval",
        "TIME",
        "silence after which a client is pinged",
        ping_interval,
        time,
        show_time
    ),
    config_flag!(
        "pong-timeout",
        "TIME",
        "silence after a ping that ends the connection",
        pong_timeout,
        time,
        show_time
    ),
    config_flag!(
        "write-timeout",
        "TIME",
        "writing without progress that ends the connection",
        write_timeout,
        time,
        show_time
    ),
    config_flag!(
        "close-timeout",
        "TIME",
        "for a peer to answer a close frame",
        close_timeout,
        time,
        show_time
    ),
    config_flag!(
        "drain",
        "TIME",
        "the time over which a stop spreads its close frames (1012)",
        drain,
        time,
        show_time
    ),
    Flag {
        name: "log",
        value: "LEVEL",
        help: "error, warn, info or debug",
        repeats: false,
        set: |options, text| {
            let levels = ["error", "warn", "info", "debug"];
            let level = text.parse().ok().filter(|_| levels.contains(&text));
            options.level = level.ok_or_else(|| levels.join(", "))?;
            Ok(())
        },
        show: |options| options.level.to_string().to_lowercase(),
    },
];

impl Flag {
    /// The flag's name in the environment.
    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('-', "_").to_uppercase())
    }

    fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Sets a value that `origin` gave: `--queue` or `HUBLET_QUEUE`.
    fn set(&self, options: &mut Options, origin: &str, text: &str) -> Result<(), Failure> {
        (self.set)(options, text).map_err(|allowed| {
            Failure::usage(format!("{origin} was given {text:?}; allowed is {allowed}"))
        })
    }
}

/// Reads the environment, then the arguments (the first is the program), which win.
pub(crate) fn parse(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Wish, Failure> {
    let given = match given(arguments)? {
        Given::Flags(given) => given,
        Given::Wish(wish) => return Ok(wish),
    };
    let mut options = Options::default();
    let mut variables = variables(environment)?;
    for flag in FLAGS {
        let variable = flag.variable();
        let from_environment = variables.remove(&variable);
        let from_arguments: Vec<_> =
            given.iter().filter(|(name, _)| *name == flag.name).map(|(_, text)| text).collect();
        if flag.repeats && (from_environment.is_some() || !from_arguments.is_empty()) {
            reset(&mut options, flag);
        }
        match (from_arguments.is_empty(), from_environment) {
            (true, Some(text)) if flag.repeats => {
                for text in text.split(',') {
                    flag.set(&mut options, &variable, text.trim())?;
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
    options.unknown = variables.into_keys().collect();
    options.unknown.sort();
    let config = &mut options.config;
    let two = config.max_message.saturating_mul(2).saturating_add(FRAMING);
    if options.queue_bytes_follow {
        config.queue_bytes = config.queue_bytes.max(two);
    }
    config.inbox_bytes = config.inbox_bytes.max(two);
    Ok(Wish::Serve(Box::new(options)))
}

/// What the arguments say.
enum Given {
    /// The flags, in their order, by name and value.
    Flags(Vec<(&'static str, String)>),
    /// Help or the version.
    Wish(Wish),
}

fn given(arguments: impl IntoIterator<Item = OsString>) -> Result<Given, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let usage = |error: lexopt::Error| Failure::usage(format!("{error}; see --help"));
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut given = Vec::new();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("help") | Short('h') => return Ok(Given::Wish(Wish::Say(help()))),
            Long("version") | Short('V') => {
                let version = format!("hublet {}\n", env!("CARGO_PKG_VERSION"));
                return Ok(Given::Wish(Wish::Say(version)));
            }
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
                        Failure::usage(format!(
                            "--{} was given {value:?}, which is not UTF-8",
                            flag.name
                        ))
                    })?
                };
                given.push((flag.name, text));
            }
            Short(_) | Value(_) => return Err(usage(argument.unexpected())),
        }
    }
    Ok(Given::Flags(given))
}

/// The variables with our prefix.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<HashMap<String, String>, Failure> {
    let mut variables = HashMap::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        if name.starts_with(PREFIX) {
            let value = value.into_string().map_err(|value| {
                Failure::usage(format!("{name} was given {value:?}, which is not UTF-8"))
            })?;
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// Empties what a flag that repeats adds to, so that its default does not stay beside it.
fn reset(options: &mut Options, flag: &Flag) {
    match flag.name {
        "listen" => options.listen.clear(),
        _ => options.config.origins.clear(),
    }
}

fn help() -> String {
    let mut help = String::from(
        "hublet: what one WebSocket client sends, everyone else in the room gets at once\n\n\
         Usage: hublet [FLAGS]\n\n\
         WebSockets at /ws (the room main) and /ws/{room}; GET /health answers 200.\n\n",
    );
    let defaults = Options::default();
    for flag in FLAGS {
        let default = (flag.show)(&defaults);
        let default = if default.is_empty() { default } else { format!(" (default: {default})") };
        let repeats = if flag.repeats { "; may be repeated, commas in the variable" } else { "" };
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
        "  --version\n  --help\n\n\
         BYTES take k and m (1,024-based), TIME takes ms, s and m. The variable in brackets does \
         the same; the flag wins.\n\
         SIGTERM and SIGINT drain: what is queued goes first, then clients are closed with 1012; a \
         second signal stops at once.\n\
         Exit codes: 0 after a drain, 1 after a failure or a second signal, 2 for a flag or value \
         that is not allowed.\n",
    );
    help
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("1, true, 0 or false".to_owned()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=Config::LIMIT_MAX).contains(count));
    count.ok_or_else(|| format!("a whole number from 1 to {}", Config::LIMIT_MAX))
}

fn some_count(text: &str) -> Result<Option<usize>, String> {
    count(text).map(Some)
}

fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 1024),
        Some((end, 'm' | 'M')) => (&text[..end], 1024 * 1024),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number.filter(|bytes| (1..=Config::LIMIT_MAX).contains(bytes)).ok_or_else(|| {
        format!("a number of bytes from 1 to {}, like 4096, 64k or 1m", Config::LIMIT_MAX)
    })
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let parsed = units.iter().find_map(|(unit, millis)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*millis).map(Duration::from_millis)
    });
    parsed
        .filter(|time| *time <= Config::WAIT_MAX)
        .ok_or_else(|| "a time of at most a day, like 500ms, 10s or 2m".to_owned())
}

/// An origin as a browser sends it: scheme, host, perhaps a port, no path.
fn origin(text: &str) -> Result<String, String> {
    let rest = text.split_once("://").map(|(_, rest)| rest);
    if text == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/')) {
        return Ok(text.to_owned());
    }
    Err("an origin like https://example.org, without a path, or *".to_owned())
}

fn show(count: &usize) -> String {
    count.to_string()
}

fn show_bytes(bytes: &usize) -> String {
    match *bytes {
        bytes if bytes % (1024 * 1024) == 0 => format!("{}m", bytes / (1024 * 1024)),
        bytes if bytes % 1024 == 0 => format!("{}k", bytes / 1024),
        bytes => bytes.to_string(),
    }
}

fn show_time(time: &Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

fn join(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Options, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let arguments = ["hublet"].iter().chain(arguments).map(OsString::from);
        match parse(environment.collect::<Vec<_>>(), arguments.collect::<Vec<_>>()) {
            Ok(Wish::Serve(options)) => Ok(*options),
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
            ("allow-origin", "https://example.org"),
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
                "--max-message was given \"64kb\"; allowed is a number of bytes from 1 to 1073741824, like 4096, 64k or 1m",
            ),
            (
                &["--drain", "5"],
                "--drain was given \"5\"; allowed is a time of at most a day, like 500ms, 10s or 2m",
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
            (&["--token", "x"], "--token is no flag of hublet; see --help"),
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
