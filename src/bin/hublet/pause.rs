//! The pause of the pipes before a restart, and what they have not passed on by then.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;

/// What the pipes of a program have not passed on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Lines of the input so far.
    pub(crate) number: u64,
    /// Bytes of the line that has begun, and those of them that are kept.
    pub(crate) len: u64,
    pub(crate) partial: Vec<u8>,
    /// A line that is cut and not published, if there is one.
    pub(crate) line: Option<Vec<u8>>,
    /// Bytes of the input that are not cut into lines.
    pub(crate) unread: Vec<u8>,
    /// Bytes of the output that are not written.
    pub(crate) unwritten: Vec<u8>,
}

impl Rest {
    /// Appends it as a line, if there is any.
    pub(crate) fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(text, "pipe {} {}", self.number, self.len);
        let line = self.line.as_deref();
        for bytes in [Some(&*self.partial), line, Some(&*self.unread), Some(&*self.unwritten)] {
            text.push(' ');
            match bytes {
                Some(bytes) => {
                    text.push('x');
                    for byte in bytes {
                        let _ = write!(text, "{byte:02x}");
                    }
                }
                None => text.push('-'),
            }
        }
        text.push('\n');
    }

    /// Reads a [line](Self::write), but for its first word.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (number, len) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mut next = || words.next().map(bytes);
        let (partial, line) = (next()??, next()?);
        let (unread, unwritten) = (next()??, next()??);
        words.next().is_none().then_some(Self { number, len, partial, line, unread, unwritten })
    }
}

fn bytes(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix('x')?.as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect()
}

/// Whether the input pauses, and what it had left when it did.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Debug, Default)]
struct State {
    is_wanted: bool,
    /// What is left, once the input has paused.
    rest: Option<Rest>,
    /// Whether the output has all that its room had for it.
    has_output: bool,
}

impl Pause {
    /// Asks for a pause; ready with what is left once the input has paused.
    pub(crate) async fn begin(&self) -> Rest {
        self.lock().is_wanted = true;
        self.changed.notify(usize::MAX);
        loop {
            let listener = self.changed.listen();
            if let Some(rest) = self.lock().rest.take() {
                return rest;
            }
            listener.await;
        }
    }

    /// Asks for a pause, where there is no input.
    pub(crate) fn want(&self) {
        self.lock().is_wanted = true;
        self.changed.notify(usize::MAX);
    }

    /// Says that the output has all that its room had for it; ready when the pause ends.
    pub(crate) async fn end_output(&self) {
        self.lock().has_output = true;
        self.changed.notify(usize::MAX);
        self.wait(|state| !state.is_wanted).await;
    }

    /// Ready once the output has all that its room had for it.
    pub(crate) async fn ended(&self) {
        self.wait(|state| state.has_output).await;
    }

    /// Ends the pause.
    pub(crate) fn end(&self) {
        *self.lock() = State::default();
        self.changed.notify(usize::MAX);
    }

    /// Ready once a pause is asked for.
    pub(crate) async fn wanted(&self) {
        self.wait(|state| state.is_wanted).await;
    }

    /// Pauses with what is left, until the pause ends.
    pub(crate) async fn take(&self, rest: Rest) {
        self.lock().rest = Some(rest);
        self.changed.notify(usize::MAX);
        self.wait(|state| !state.is_wanted).await;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.lock().is_wanted
    }

    async fn wait(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let listener = self.changed.listen();
            if is_so(&self.lock()) {
                return;
            }
            listener.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_back() {
        let rest = Rest {
            number: 7,
            len: 3,
            partial: b"abc".to_vec(),
            line: Some(vec![0, 255, b'\n']),
            unread: b"one\ntwo".to_vec(),
            unwritten: Vec::new(),
        };
        for rest in [rest, Rest::default()] {
            let mut text = String::new();
            rest.write(&mut text);
            let line = text.strip_prefix("pipe ").and_then(|text| text.strip_suffix('\n'));
            assert_eq!(Rest::read(line.expect("a line")), Some(rest));
        }
        for text in
            ["", "1", "1 2 x - x", "1 2 x - x xz0", "1 2 x - x x0", "1 2 - - x x", "1 2 x - x x x"]
        {
            assert_eq!(Rest::read(text), None, "{text:?}");
        }
    }
}
