//! The log: one line each on standard error. Whoever supervises the process stamps the time.

use std::fmt::Write as _;
use std::io::{self, StderrLock, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// A line is cut after this many bytes: nothing that peers name is longer than a path.
const LINE_MAX: usize = 1024;

struct Stderr;

static STDERR: Stderr = Stderr;

/// Starts logging from `level` up.
pub(crate) fn start(level: LevelFilter) {
    // It fails only if a logger is set already, and this is the only place that sets one.
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Stderr {
    /// The crates below say too much at debug and nothing that concerns who runs a hub.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hublet") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record.level(), &record.args().to_string());
            // Held while it is asked for room, so that no other thread takes the room.
            let mut stderr = io::stderr().lock();
            // A full disk, a closed pipe or one that nobody reads must not stop the hub.
            if is_writable(&stderr) {
                drop(stderr.write_all(line.as_bytes()));
            }
        }
    }

    fn flush(&self) {}
}

/// Whether standard error takes a line without waiting. A pipe that says so has room for
/// `PIPE_BUF` bytes, which is more than a line (POSIX `write`).
fn is_writable(stderr: &StderrLock<'_>) -> bool {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(stderr, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
    #[cfg(not(unix))]
    {
        let _ = stderr;
        true
    }
}

/// A line of the log, with control characters escaped, so that no name can forge another line.
fn line(level: Level, text: &str) -> String {
    let mut line = format!("{level} ");
    for character in text.chars() {
        if line.len() >= LINE_MAX {
            line.push_str(" ...");
            break;
        }
        if character.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(line(Level::Info, "a\nERROR b\x1b[2J"), "INFO a\\nERROR b\\u{1b}[2J\n");
    }

    #[test]
    fn a_line_is_bounded() {
        assert!(line(Level::Info, &"é".repeat(LINE_MAX)).len() <= LINE_MAX + 16);
    }
}
