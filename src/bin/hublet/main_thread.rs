//! Work for the main thread, from a task that any thread may run.

use std::sync::{Arc, Mutex, PoisonError};

use event_listener::Event;

type Job = Box<dyn FnOnce() -> String + Send>;

/// Hands a job to the main thread, which runs it between two tasks; one at a time.
#[derive(Default)]
pub(crate) struct MainThread {
    job: Mutex<Option<Job>>,
    result: Mutex<Option<String>>,
    /// Notified when there is a job, or a result.
    changed: Event,
}

impl MainThread {
    /// Runs jobs, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let job = self.wait(&self.job).await;
            let result = job();
            *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            self.changed.notify(usize::MAX);
        }
    }

    /// Has the main thread do something.
    pub(crate) async fn call(&self, job: Job) -> String {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        self.changed.notify(usize::MAX);
        self.wait(&self.result).await
    }

    async fn wait<T>(&self, slot: &Mutex<Option<T>>) -> T {
        let take = || slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        loop {
            if let Some(there) = take() {
                return there;
            }
            let listener = self.changed.listen();
            if let Some(there) = take() {
                return there;
            }
            listener.await;
        }
    }
}
