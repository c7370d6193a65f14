//! Tasks and threads of the process.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::thread::JoinHandle;

use futures_lite::future::FutureExt as _;
use smol::{Executor, Task};

use crate::failure::Failure;

/// The type of all tasks. One type keeps the executor's code for a task in the binary once.
pub(crate) type Work = Task<Result<(), Failure>>;

/// Spawns a task.
pub(crate) fn spawn(
    executor: &Executor<'static>,
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Work {
    executor.spawn(work.boxed())
}

/// Waits for the end of a task, and removes it. Pending for ever if there is none.
pub(crate) async fn end_of(task: &mut Option<Work>) -> Result<(), Failure> {
    let ended = poll_fn(|cx| match task {
        Some(task) => Pin::new(task).poll(cx),
        None => Poll::Pending,
    });
    let ended = ended.await;
    *task = None;
    ended
}

/// Starts a thread.
pub(crate) fn thread(work: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new()
        .spawn(work)
        .map_err(|error| Failure::running(format!("a thread cannot be started: {error}")))
}
