//! What `--help` prints.

use std::fmt::Write as _;

use super::Options;
use super::table::FLAGS;

pub(super) fn help() -> String {
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
            "  {}\n      {}{default}{repeats} [{}]\n",
            format!("--{} {}", flag.name, flag.value).trim_end(),
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
