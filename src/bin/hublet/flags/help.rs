//! The text of `--help`.

use std::fmt::Write as _;

use crate::flags::options::Options;
use crate::flags::table::FLAGS;

/// The flags that most need; `--help all` has the rest.
pub(super) const COMMON: [&str; 12] = [
    "listen",
    "allow-origin",
    "allow-host",
    "trusted-proxy",
    "token-file",
    "publish-token-file",
    "admin-token-file",
    "jwt-secret-file",
    "max-memory",
    "history",
    "env-file",
    "log",
];

/// The text, with all flags or with those that most need.
pub(super) fn help(all: bool) -> String {
    let mut help = String::from(
        "hublet: a small WebSocket server; a message sent to a room goes to everyone in it\n\n\
         Usage: hublet [FLAGS]\n\n\
         Subscribe: WebSocket /ws/{room}, server-sent events GET /sse/{room}; with ?since=N\n\
         \x20          they begin behind message N; /ws?room=a&room=b/* for several\n\
         Read:      GET /pub/{room} answers the last message that --history keeps; with\n\
         \x20          ?since=N&wait=25s the next one\n\
         Publish:   by WebSocket, POST /pub/{room}, POST /user/{user}; with ?wait=1s the\n\
         \x20          answer says for how many clients it has left\n\
         Admin:     GET /rooms, /rooms/{room}, /events, /metrics\n\
         Also:      GET / is a page, GET /health answers 200 while the hub serves\n\
         Without /{room} the room is main.\n\n",
    );
    let mut defaults = Options::default();
    for flag in FLAGS.iter().filter(|flag| all || COMMON.contains(&flag.name)) {
        let default = flag.sets.show(&mut defaults);
        let default = if default.is_empty() { default } else { format!(" (default: {default})") };
        let repeats = if flag.sets.list().is_some() {
            "; repeat the flag for more, use commas in the variable"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = write!(
            help,
            "  {}\n      {}{default}{repeats} [{}]\n",
            format!("--{} {}", flag.name, flag.value).trim_end(),
            flag.help,
            flag.variable()
        );
    }
    help.push_str(
        "  --health\n      ask the hub at --listen whether it serves; exit code 0 if it does, \
         1 if not\n  --version\n  --help [all]\n      the flags that most need; with the word all every flag\n\n\
         BYTES is a number, also with k or m (1,024-based). TIME is a number with ms, s, m or h.\n\
         The variable in brackets does the same as the flag; the flag wins.\n",
    );
    if all {
        help.push_str(REST);
    }
    help
}

/// What `--help all` says behind the flags.
const REST: &str = "\
    Each token and key may be given twice, by its flag or its file, to change from one to the \
    other: both are accepted. The variable of a file takes two with a comma.\n\
    SIGTERM and SIGINT shut down gracefully: queued messages are written, then clients are closed \
    with 1012. A second one stops at once.\n\
    SIGUSR2 restarts: the process becomes the binary that lies at its path now, reads every file \
    anew, and keeps its clients. If the new binary does not take the flags, nothing changes.\n\
    SIGHUP shuts down if a standard stream is a terminal, and else restarts. A SIGHUP that is \
    ignored at the start (nohup) stays ignored.\n\
    Exit codes: 0 after a graceful shutdown, 1 after a failure or a second signal, 2 for a \
    flag or value that is not allowed.\n";
