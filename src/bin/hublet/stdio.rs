//! Passes bytes between the hub and a thread that reads or writes a standard stream.
//!
//! A standard stream may be a file, which a reactor cannot wait for. So a thread blocks on each
//! stream. The bytes between the hub and the thread are bounded in both directions.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

/// Bytes of one read. Up to three chunks exist at once: one is being read, one waits, and the hub
/// has one.
const CHUNK: usize = 32 * 1024;

/// Bytes that may wait to be written, about: four times what a pipe of Linux holds. Beyond it
/// [`put`](StreamBuffer::put) waits.
const UNWRITTEN_MAX: usize = 256 * 1024;

/// A bounded buffer between a thread and the hub, in one direction.
#[derive(Debug, Default)]
pub(crate) struct StreamBuffer {
    state: Mutex<State>,
    /// Wakes the thread when bytes were added or taken, and at the end.
    thread: Condvar,
    /// Wakes the hub's side when bytes were added or taken, and when the thread has ended.
    hub: Event,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes that wait: one chunk for the hub, or about [`UNWRITTEN_MAX`] bytes for the thread.
    bytes: Vec<u8>,
    /// Whether the thread is reading, or writing bytes that it has taken.
    is_busy: bool,
    /// Whether the thread begins nothing: a restart is under way.
    is_held: bool,
    /// Bytes beyond [`UNWRITTEN_MAX`] that may wait during a drain; 0 before it.
    last: usize,
    /// Bytes beyond it that may wait during a restart; 0 before it.
    more: usize,
    /// Whether no more bytes are added.
    ended: bool,
    /// The result of the thread; `None` while it runs.
    result: Option<io::Result<()>>,
}

impl StreamBuffer {
    /// Reads a stream to its end or until it fails, in a thread of its own. `until_ready` waits until
    /// a read returns at once.
    pub(crate) fn read<S: Read>(&self, mut stream: S, until_ready: impl Fn(&S)) {
        let mut buffer = vec![0; CHUNK];
        let result = loop {
            until_ready(&stream);
            {
                let mut state = self.lock();
                while !state.bytes.is_empty() || state.is_held {
                    state = self.wait_for_hub(state);
                }
                state.is_busy = true;
            }
            let read = stream.read(&mut buffer);
            let mut state = self.lock();
            state.is_busy = false;
            match read {
                Ok(0) => {
                    drop(state);
                    break Ok(());
                }
                Ok(n) => {
                    state.bytes.extend_from_slice(&buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    drop(state);
                    break Err(error);
                }
            }
            drop(state);
            self.hub.notify(usize::MAX);
        };
        self.finish(result);
    }

    /// Writes a stream until [`end`](Self::end) or until the stream fails, in a thread of its own.
    pub(crate) fn write(&self, mut stream: impl Write) {
        let mut batch = Vec::new();
        let result = loop {
            let mut state = self.lock();
            state.is_busy = false;
            self.hub.notify(usize::MAX);
            while state.is_held || (state.bytes.is_empty() && !state.ended) {
                state = self.wait_for_hub(state);
            }
            if state.bytes.is_empty() {
                break Ok(());
            }
            state.is_busy = true;
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

    /// Takes the bytes that were read; `None` at the end.
    pub(crate) async fn take(&self) -> Option<Vec<u8>> {
        self.wait(&|state| !state.bytes.is_empty()).await;
        let bytes = std::mem::take(&mut self.lock().bytes);
        self.thread.notify_one();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Appends bytes to write, once there is room; `false` if the thread has ended.
    pub(crate) async fn put(&self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.wait(&|state| state.bytes.len() < UNWRITTEN_MAX + state.last + state.more).await;
        let mut state = self.lock();
        if state.result.is_some() {
            return false;
        }
        append(&mut state.bytes);
        self.thread.notify_one();
        true
    }

    /// Waits until all is written. `false` if a drain has begun or the thread has ended.
    pub(crate) async fn written(&self) -> bool {
        self.wait(&|state| (state.bytes.is_empty() && !state.is_busy) || state.last > 0).await;
        let state = self.lock();
        state.result.is_none() && state.last == 0
    }

    /// Lets the thread begin nothing more; ready once it is at rest. What it has read waits for
    /// [`take`](Self::take).
    pub(crate) async fn hold(&self) {
        self.lock().is_held = true;
        self.wait(&|state| !state.is_busy).await;
    }

    /// Lets the thread go on.
    pub(crate) fn release(&self) {
        self.lock().is_held = false;
        self.thread.notify_all();
    }

    /// A copy of the bytes that wait.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Adds bytes that waited in another process, before the thread runs.
    pub(crate) fn put_back(&self, bytes: &[u8]) {
        self.lock().bytes.extend_from_slice(bytes);
    }

    /// Makes room for more bytes than may wait otherwise; 0 takes it back.
    pub(crate) fn more(&self, bytes: usize) {
        self.lock().more = bytes;
        self.hub.notify(usize::MAX);
    }

    /// Makes room for the last bytes of a drain.
    pub(crate) fn drain(&self, bytes: usize) {
        self.lock().last = bytes;
        self.hub.notify(usize::MAX);
    }

    /// Ends the thread once it has written all bytes.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.thread.notify_one();
    }

    /// Waits until the thread has ended.
    pub(crate) async fn over(&self) {
        self.wait(&|_| false).await;
    }

    /// The result of the thread, after it has ended. Returns an error once, and `Ok` afterwards.
    pub(crate) fn result(&self) -> io::Result<()> {
        self.lock().result.replace(Ok(())).unwrap_or(Ok(()))
    }

    /// Waits until `is_so` is true or the thread has ended.
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
        // Code under the lock cannot panic between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
