//! A value that one thread leaves for a task of another.

use std::sync::{Mutex, PoisonError};

use event_listener::Event;

/// Holds one value until it is taken.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    value: Mutex<Option<T>>,
    is_there: Event,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), is_there: Event::new() }
    }
}

impl<T> Mailbox<T> {
    /// Leaves a value, in place of one that waits.
    pub(crate) fn put(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.is_there.notify(usize::MAX);
    }

    /// Waits for a value. Cancel safe.
    pub(crate) async fn take(&self) -> T {
        loop {
            let listener = self.is_there.listen();
            if let Some(value) = self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return value;
            }
            listener.await;
        }
    }
}
