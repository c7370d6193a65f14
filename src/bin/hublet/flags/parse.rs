//! Reads the arguments, the environment and the file of variables.

use std::ffi::OsString;

use crate::failure::Failure;
use crate::flags::env_file;
use crate::flags::help::help;
use crate::flags::options::Options;
use crate::flags::table::{ENV_FILE, FLAGS, Origin, PREFIX};
use crate::flags::value::FRAMING;
use crate::socket::Address;
use crate::unix_address::UnixAddress;

/// What the process must do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Serve a hub.
    Serve(Box<Options>),
    /// Say whether these flags and this version of the state of another process are taken.
    Takes(u32, Box<Options>),
    /// Check the hub at these addresses; with `secure` they speak TLS.
    Health { addresses: Vec<Address>, secure: bool },
    /// Print this and end.
    Print(String),
}

/// Reads the environment and the arguments, of which the first is the program. A flag wins over its
/// variable.
pub(crate) fn parse(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Action, Failure> {
    let (given, health, takes) = match given(arguments)? {
        Given::Flags { given, health, takes } => (given, health, takes),
        Given::Action(action) => return Ok(action),
    };
    let mut options = Options::default();
    let mut variables = variables(environment)?;
    let (file, mut lines) = lines_of_file(&given, &variables)?;
    for flag in FLAGS {
        let of_flag = |(name, _): &&(&str, String)| *name == flag.name;
        let from_arguments = || given.iter().filter(of_flag).map(|(_, text)| text);
        let is_given = from_arguments().next().is_some();
        let guards = !is_given && flag.sets.guards();
        let (from_environment, mut origin) =
            take_variable(&flag.variable(), &mut variables, &mut lines, &file, guards)?;
        let list = flag.sets.list();
        if let Some(clear) = list.filter(|_| is_given || from_environment.is_some()) {
            clear(&mut options);
        }
        match from_environment {
            Some(text) if !is_given && flag.sets.has_commas() => {
                for text in list_parts(&text) {
                    flag.set(&mut options, &origin, &text)?;
                }
            }
            Some(text) if !is_given => flag.set(&mut options, &origin, &text)?,
            _ => {
                origin = Origin { name: format!("--{}", flag.name), is_line: false };
                for text in from_arguments() {
                    flag.set(&mut options, &origin, text)?;
                }
            }
        }
    }
    if options.secrets.guard_listening() {
        // Any host is allowed: a page that reaches the hub by DNS rebinding has no token.
        options.config.hosts.push("*".to_owned());
    }
    let is_set = |(_, text): &(String, String)| !text.is_empty();
    variables.extend(lines.into_iter().map(|line| (line.name, line.value)));
    options.unknown = variables.into_iter().filter(is_set).map(|(name, _)| name).collect();
    let kept = options.rooms.iter().filter_map(|rule| rule.history.clone());
    options.config.history.extend(kept);
    let config = &mut options.config;
    let mut rules = options.rooms.iter();
    rules.try_for_each(|rule| rule.check(&config.history)).map_err(Failure::usage)?;
    if let (Some(redis), Some(prefix)) =
        (config.redis.take_if(|_| options.redis_prefix.is_some()), &options.redis_prefix)
    {
        let redis = redis.prefix(prefix.clone());
        config.redis = Some(redis.map_err(|error| Failure::usage(error.to_string()))?);
    }
    let two = config.max_message.saturating_mul(2).saturating_add(FRAMING);
    if options.queue_bytes_follow {
        config.queue_bytes = config.queue_bytes.max(two);
    }
    config.inbox_bytes = config.inbox_bytes.max(two);
    if health {
        let secure = options.is_secure();
        return Ok(Action::Health { addresses: options.listen, secure });
    }
    Ok(match takes {
        Some(version) => Action::Takes(version, Box::new(options)),
        None => Action::Serve(Box::new(options)),
    })
}

/// The file of variables that is named, and what it holds.
fn lines_of_file(
    given: &[(&'static str, String)],
    variables: &[(String, String)],
) -> Result<(String, Vec<env_file::Variable>), Failure> {
    let path = given.iter().rfind(|(name, _)| *name == ENV_FILE).map(|(_, path)| path);
    let of_variable = |(name, _): &&(String, String)| *name == format!("{PREFIX}ENV_FILE");
    match path.or_else(|| Some(&variables.iter().find(of_variable)?.1)) {
        Some(path) => Ok((path.clone(), env_file::read(path)?)),
        None => Ok((String::new(), Vec::new())),
    }
}

/// Takes the value of a variable, and where it comes from. The file wins over the environment.
///
/// # Errors
///
/// A variable that guards the hub may not be empty, as a compose file makes one of `${TOKEN}` that
/// is not set, nor be twice in the file: the hub would be open, or would refuse a secret.
fn take_variable(
    variable: &str,
    variables: &mut Vec<(String, String)>,
    lines: &mut Vec<env_file::Variable>,
    file: &str,
    guards: bool,
) -> Result<(Option<String>, Origin), Failure> {
    let at = variables.iter().position(|(name, _)| name == variable);
    let mut value = at.map(|at| variables.swap_remove(at).1);
    let mut origin = Origin { name: variable.to_owned(), is_line: false };
    if let Some(at) = lines.iter().position(|line| line.name == variable) {
        let env_file::Variable { value: in_file, line, first, .. } = lines.swap_remove(at);
        if guards && first != line {
            return Err(Failure::usage(format!(
                "lines {first} and {line} of {file} both set {variable}, and one of them would not \
                 count; leave one"
            )));
        }
        value = Some(in_file);
        origin = Origin { name: format!("line {line} of {file}"), is_line: true };
    }
    // An empty variable counts as unset, as compose files write it.
    let is_empty = value.as_ref().is_some_and(String::is_empty);
    if guards && is_empty {
        let (of, line) = if origin.is_line { (" in ", &*origin.name) } else { ("", "") };
        return Err(Failure::usage(format!(
            "{variable}{of}{line} is empty and would guard nothing; give it a value, or remove it"
        )));
    }
    Ok((value.filter(|_| !is_empty), origin))
}

/// Splits a list at its commas, except at those before the options of a Unix socket.
fn list_parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim_ascii) {
        match parts.last_mut() {
            Some(last) if UnixAddress::is_option(part) => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

/// Rewrites a sentence about the configuration with the names of flags: `queue_bytes` becomes
/// `--queue-bytes`.
pub(crate) fn in_flags(sentence: &str) -> String {
    let mut rewritten = String::new();
    for word in sentence.split(' ') {
        let name = word.replace('_', "-");
        let is_flag = name != word && FLAGS.iter().any(|flag| flag.name == name);
        let (space, dashes) =
            (if rewritten.is_empty() { "" } else { " " }, if is_flag { "--" } else { "" });
        for part in [space, dashes, if is_flag { &name } else { word }] {
            rewritten.push_str(part);
        }
    }
    rewritten
}

/// The arguments, parsed.
enum Given {
    Flags {
        /// Names and values of the flags, in their order.
        given: Vec<(&'static str, String)>,
        /// Whether to check a hub instead of serving one.
        health: bool,
        /// The version of the state that another process asks for.
        takes: Option<u32>,
    },
    /// Help or the version.
    Action(Action),
}

fn given(arguments: impl IntoIterator<Item = OsString>) -> Result<Given, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let usage = |error: lexopt::Error| Failure::usage(format!("{error}; see --help"));
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut given = Vec::new();
    let (mut health, mut takes) = (false, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("help") | Short('h') => {
                let all = matches!(parser.next(), Ok(Some(Value(word))) if word == "all");
                return Ok(Given::Action(Action::Print(help(all))));
            }
            Long("version") | Short('V') => {
                let version = format!("hublet {}\n", env!("CARGO_PKG_VERSION"));
                return Ok(Given::Action(Action::Print(version)));
            }
            Long("health") => health = true,
            Long("takes") => {
                let version = parser.value().map_err(usage)?;
                // A version that is no number is none that is known.
                takes = Some(version.to_str().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX));
            }
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
    Ok(Given::Flags { given, health, takes })
}

/// The variables with the hub's prefix.
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
