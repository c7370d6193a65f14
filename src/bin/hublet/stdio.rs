//! Bytes between the hub and a thread that reads or writes a stream for it.
//!
//! Standard streams may be files, which no reactor can wait for, so a thread waits for each. What
//! is between the two is bounded in both directions.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

/// Bytes that are read at a time. Three times that is held: what is being read, what waits, and
/// what the hub has taken.
const CHUNK: usize = 32 * 1024;

/// Bytes that wait to be written, about: four times what a pipe of Linux holds. Beyond it whoever
/// has more waits.
const UNWRITTEN_MAX: usize = 256 * 1024;

/// Where a thread and the hub hand bytes over, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    /// Tells the thread that bytes came or were taken, or that none come any more.
    thread: Condvar,
    /// Tells the hub's side the same, and that the thread has ended.
    hub: Event,
}

#[derive(Debug, Default)]
struct State {
    /// What waits: a chunk that was read, or little over [`UNWRITTEN_MAX`].
    bytes: Vec<u8>,
    /// Whether the thread has bytes in hand that are not yet written.
    writing: bool,
    /// Bytes beyond [`UNWRITTEN_MAX`] that may wait to be written, the last; none before a drain.
    last: usize,
    /// Whether no more bytes come to be written.
    ended: bool,
    /// How the thread's work ended.
    result: Option<io::Result<()>>,
}

impl Handover {
    /// The thread that reads a stream, to its end or until it fails.
    pub(crate) fn read(&self, mut stream: impl Read) {
        let mut buffer = vec![0; CHUNK];
        let result = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    let mut state = self.lock();
                    while !state.bytes.is_empty() {
                        state = self.wait_for_hub(state);
                    }
                    state.bytes.extend_from_slice(&buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            self.hub.notify(usize::MAX);
        };
        self.finish(result);
    }

    /// The thread that writes a stream, until no more comes or nobody reads it.
    pub(crate) fn write(&self, mut stream: impl Write) {
        let mut batch = Vec::new();
        let result = loop {
            let mut state = self.lock();
            state.writing = false;
            self.hub.notify(usize::MAX);
            while state.bytes.is_empty() && !state.ended {
                state = self.wait_for_hub(state);
            }
            if state.bytes.is_empty() {
                break Ok(());
            }
            state.writing = true;
            std::mem::swap(&mut batch, &mut state.bytes);
            drop(state);
            if let Err(error) = stream.write_all(&batch).and_then(|()| stream.flush()) {
                break Err(error);
            }
            batch.clear();
            batch.shrink_to(UNWRITTEN_MAX);
        };
        self.finish(result);
    }

    /// Takes what was read; `None` at the end.
    pub(crate) async fn take(&self) -> Option<Vec<u8>> {
        self.wait(&|state| !state.bytes.is_empty()).await;
        let bytes = std::mem::take(&mut self.lock().bytes);
        self.thread.notify_one();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Appends bytes to be written, once there is room; `false` if nobody writes any more.
    pub(crate) async fn put(&self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.wait(&|state| state.bytes.len() < UNWRITTEN_MAX + state.last).await;
        let mut state = self.lock();
        if state.result.is_some() {
            return false;
        }
        append(&mut state.bytes);
        self.thread.notify_one();
        true
    }

    /// Waits until all is written; `false` if nothing more is to come, or nobody writes any more.
    pub(crate) async fn written(&self) -> bool {
        self.wait(&|state| (state.bytes.is_empty() && !state.writing) || state.last > 0).await;
        let state = self.lock();
        state.result.is_none() && state.last == 0
    }

    /// Makes room for so many bytes more, the last to come.
    pub(crate) fn drain(&self, bytes: usize) {
        self.lock().last = bytes;
        self.hub.notify(usize::MAX);
    }

    /// Says that nothing more comes to be written.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.thread.notify_one();
    }

    /// Waits for the end of the thread.
    pub(crate) async fn over(&self) {
        self.wait(&|_| false).await;
    }

    /// How the thread's work ended, once it has; told once.
    pub(crate) fn result(&self) -> io::Result<()> {
        self.lock().result.replace(Ok(())).unwrap_or(Ok(()))
    }

    /// Waits until something is so, or the thread has ended.
    async fn wait(&self, is_so: &(dyn Fn(&State) -> bool + Sync)) {
        let look = || {
            let state = self.lock();
            state.result.is_some() || is_so(&state)
        };
        while !look() {
            let listener = self.hub.listen();
            if look() {
                return;
            }
            listener.await;
        }
    }

    fn wait_for_hub<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.thread.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: io::Result<()>) {
        self.lock().result = Some(result);
        self.hub.notify(usize::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
