//! The log: one line for each record, on standard error. The supervisor adds the time.

use std::fmt::Write as _;
use std::io::{self, StderrLock, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Bytes of a line, at most. The names that peers choose are not longer than a path.
const LINE_MAX: usize = 1024;

/// Lines of one level a second, at most, so that peers cannot fill a disk. Further lines are
/// counted, and the count is logged in one line.
const LINES: u32 = 50;

/// The interval in which lines are counted.
const SECOND: Duration = Duration::from_secs(1);

/// A number of things in words: `1 client`, `2 clients`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

struct Stderr {
    /// The lines of each level in the current second.
    budgets: Mutex<[Budget; LEVELS]>,
}

/// The number of levels; `Level::Error` is 1.
const LEVELS: usize = Level::Trace as usize;

static STDERR: Stderr = Stderr { budgets: Mutex::new([Budget::NEW; LEVELS]) };

/// Lines of one level in the current second.
#[derive(Debug, Clone, Copy)]
struct Budget {
    began: Option<Instant>,
    /// Lines that were written.
    lines: u32,
    /// Lines that were left out.
    left_out: u64,
}

impl Budget {
    const NEW: Self = Self { began: None, lines: 0, left_out: 0 };

    /// Whether one more line may be written.
    fn has_line(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= SECOND) {
            *self = Self { began: Some(now), lines: 0, left_out: self.left_out };
        }
        if self.lines < LINES {
            self.lines += 1;
            return true;
        }
        self.left_out += 1;
        false
    }

    /// Returns how many lines were left out, once their second is over.
    fn take_left_out(&mut self, now: Instant) -> u64 {
        match self.began {
            Some(began) if now.duration_since(began) < SECOND => 0,
            _ => std::mem::take(&mut self.left_out),
        }
    }
}

/// Starts logging from `level` up.
pub(crate) fn start(level: LevelFilter) {
    // Fails only if a logger is set already, and no other code sets one.
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Stderr {
    /// Leaves out lines of other crates below `warn`, which do not concern an operator.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hublet") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = Instant::now();
            self.log_left_out(now);
            if self.budgets()[record.level() as usize - 1].has_line(now) {
                write(&line(record.level(), &record.args().to_string()));
            }
        }
    }

    /// Logs how many lines were left out up to now, at the end of the process.
    fn flush(&self) {
        self.log_left_out(Instant::now() + SECOND);
    }
}

impl Stderr {
    fn budgets(&self) -> std::sync::MutexGuard<'_, [Budget; LEVELS]> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs how many lines were left out in seconds that are over at `now`.
    fn log_left_out(&self, now: Instant) {
        for level in Level::iter() {
            let left_out = self.budgets()[level as usize - 1].take_left_out(now);
            if left_out > 0 {
                write(&line(level, &format!("{left_out} more such lines were left out")));
            }
        }
    }
}

/// Writes a line, or drops it if the write would block.
fn write(line: &str) {
    // Locked before the check for room, so that no other thread takes the room.
    let mut stderr = io::stderr().lock();
    // A full disk, and a pipe that is closed or not read, must not stop the hub.
    if is_writable(&stderr) {
        drop(stderr.write_all(line.as_bytes()));
    }
}

/// Whether standard error takes a line without blocking. A writable pipe has room for `PIPE_BUF`
/// bytes, which is more than a line (POSIX `write`).
fn is_writable(stderr: &StderrLock<'_>) -> bool {
    // Where rustix misplaces the nanoseconds of a time.
    #[cfg(all(target_arch = "mips", target_endian = "big"))]
    {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
    #[cfg(all(unix, not(all(target_arch = "mips", target_endian = "big"))))]
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

/// A line of the log. Control characters are escaped, so that no name can forge another line.
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
    fn lines_beyond_the_limit_are_counted_and_left_out() {
        let mut budget = Budget::NEW;
        let begin = Instant::now();
        let written = (0..1000).filter(|_| budget.has_line(begin)).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(budget.take_left_out(begin), 0, "the second is not over");
        let later = begin + SECOND;
        assert_eq!(budget.take_left_out(later), 1000 - u64::from(LINES));
        assert_eq!(budget.take_left_out(later), 0, "reported once");
        assert!(budget.has_line(later));
    }

    #[test]
    fn a_line_is_bounded() {
        assert!(line(Level::Info, &"é".repeat(LINE_MAX)).len() <= LINE_MAX + 16);
    }
}
