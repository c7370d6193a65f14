//! The command line and its twins in the environment, both made from one table.

mod help;
mod table;
mod value;

use std::ffi::OsString;
use std::sync::Arc;

use hublet::Config;
use log::LevelFilter;

use super::Failure;
use super::auth::Secrets;
use super::page::PAGES;
use super::socket::Address;
use help::help;
use table::{FLAGS, FRAMING, PREFIX};
use value::origin_warning;

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
    /// The subprotocols that may be answered.
    pub(crate) protocols: Vec<Arc<str>>,
    /// The tokens that requests must show.
    pub(crate) secrets: Secrets,
    pub(crate) config: Config,
    /// Environment variables with our prefix that name no flag.
    pub(crate) unknown: Vec<String>,
    /// Environment variables of secrets that are set, and empty.
    empty: Vec<String>,
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
            protocols: Vec::new(),
            secrets: Secrets::default(),
            config: Config::default().http(true).hosts(Vec::new()).pages(PAGES.to_vec()),
            unknown: Vec::new(),
            empty: Vec::new(),
            queue_bytes_follow: true,
        }
    }
}

impl Options {
    /// What is allowed, and yet may not be what the operator wants; a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ignored = |name| format!("{name} is ignored: no flag has this variable");
        let mut warnings: Vec<_> = self.unknown.iter().map(ignored).collect();
        let empty = |name| format!("{name} is empty, so it counts as not set and guards nothing");
        warnings.extend(self.empty.iter().map(empty));
        warnings.extend(self.config.origins.iter().filter_map(|origin| origin_warning(origin)));
        if self.secrets.have_short_key() {
            let short = "the key of --jwt-secret has less than 32 bytes, which can be guessed";
            warnings.push(short.to_owned());
        }
        if self.secrets.jwt_audience.is_some() && self.secrets.jwt_secret.is_none() {
            warnings.push("--jwt-audience has no effect without --jwt-secret".to_owned());
        }
        warnings
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
        // An empty variable is as good as none: that is how compose files say "unset".
        let is_empty = from_environment.as_ref().is_some_and(String::is_empty);
        if is_empty && flag.sets.is_secret() {
            options.empty.push(variable.clone());
        }
        let from_environment = from_environment.filter(|_| !is_empty);
        let of_flag = |(name, _): &&(&str, String)| *name == flag.name;
        let from_arguments = || given.iter().filter(of_flag).map(|(_, text)| text);
        let is_given = from_arguments().next().is_some();
        let list = flag.sets.list();
        if let Some(clear) = list.filter(|_| is_given || from_environment.is_some()) {
            clear(&mut options);
        }
        match from_environment {
            Some(text) if !is_given && list.is_some() => {
                for text in text.split(',') {
                    flag.set(&mut options, &variable, text.trim_ascii())?;
                }
            }
            Some(text) if !is_given => flag.set(&mut options, &variable, &text)?,
            _ => {
                for text in from_arguments() {
                    flag.set(&mut options, &format!("--{}", flag.name), text)?;
                }
            }
        }
    }
    if options.secrets.guard_listening() {
        // A page that was made to lead here has no token.
        options.config.hosts.push("*".to_owned());
    }
    let is_set = |(_, text): &(String, String)| !text.is_empty();
    options.unknown = variables.into_iter().filter(is_set).map(|(name, _)| name).collect();
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
    let mut told = String::new();
    for word in sentence.split(' ') {
        let name = word.replace('_', "-");
        let is_flag = name != word && FLAGS.iter().any(|flag| flag.name == name);
        let (space, dashes) =
            (if told.is_empty() { "" } else { " " }, if is_flag { "--" } else { "" });
        for part in [space, dashes, if is_flag { &name } else { word }] {
            told.push_str(part);
        }
    }
    told
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
                    return Err(Failure::usage(format!("unknown flag --{name}; see --help")));
                };
                let text = if flag.is_switch() {
                    "1".to_owned()
                } else {
                    let value = parser.value().map_err(usage)?;
                    value.into_string().map_err(|value| {
                        // It may be a secret.
                        drop(value);
                        Failure::usage(format!("the value of --{} is not UTF-8", flag.name))
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
        if name.starts_with(PREFIX) {
            let value = value.into_string().map_err(|value| {
                // It may be a secret.
                drop(value);
                Failure::usage(format!("the value of {name} is not UTF-8"))
            })?;
            variables.push((name, value));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests;
