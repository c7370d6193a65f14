//! Work for the main thread, from a task that any thread may run.

use std::sync::Arc;

use crate::mailbox::Mailbox;

type Job = Box<dyn FnOnce() -> String + Send>;

/// Hands a job to the main thread, which runs it between two tasks; one at a time.
#[derive(Default)]
pub(crate) struct MainThread {
    job: Mailbox<Job>,
    result: Mailbox<String>,
}

impl MainThread {
    /// Runs jobs, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let job = self.job.take().await;
            self.result.put(job());
        }
    }

    /// Has the main thread do something.
    pub(crate) async fn call(&self, job: Job) -> String {
        self.job.put(job);
        self.result.take().await
    }
}
