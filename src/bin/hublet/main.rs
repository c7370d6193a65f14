//! The `hublet` binary: a hub on a port, until a signal.

mod flags;
mod fold;
mod log;
mod relay;
mod socket;

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;

use async_signal::{Signal, Signals};
use event_listener::Event;
use futures_lite::StreamExt;
use futures_lite::future::{FutureExt, or};
use hublet::{Disconnect, Hub};
use smol::{Executor, Task};

use flags::{Options, Wish};
use fold::Fold;
use relay::Relay;

/// A part of the hub that runs while it serves: the manager, an accept loop, the folded log.
type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why the process ends with a code other than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1 for a failure while running, 2 for a flag or value that is not allowed.
    code: u8,
    /// What was wrong and what is allowed or can be done.
    sentence: String,
}

impl Failure {
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self { code: 2, sentence: sentence.into() }
    }

    pub(crate) fn running(sentence: impl Into<String>) -> Self {
        Self { code: 1, sentence: sentence.into() }
    }
}

fn main() -> ExitCode {
    let outcome = match flags::parse(std::env::vars_os(), std::env::args_os()) {
        Ok(Wish::Serve(options)) => serve(*options),
        Ok(Wish::Say(text)) => io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| Failure::running(format!("standard output failed: {error}"))),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is gone too, the exit code has to say it all.
            drop(writeln!(io::stderr(), "hublet: {}", failure.sentence));
            ExitCode::from(failure.code)
        }
    }
}

/// Serves until a signal has drained the hub, or something failed.
fn serve(options: Options) -> Result<(), Failure> {
    log::start(options.level);
    for unknown in &options.unknown {
        ::log::warn!("{unknown} names no flag and is ignored");
    }
    raise_fd_limit();
    let executor = Arc::new(Executor::new());
    let stop = Event::new();
    let mut threads = Vec::new();
    for _ in 1..options.threads {
        let (executor, stopped) = (Arc::clone(&executor), stop.listen());
        let thread = std::thread::Builder::new()
            .spawn(move || smol::block_on(executor.run(stopped)))
            .map_err(|error| Failure::running(format!("a thread cannot be started: {error}")))?;
        threads.push(thread);
    }
    let outcome = smol::block_on(executor.run(run(&executor, options)));
    stop.notify(usize::MAX);
    for thread in threads {
        if thread.join().is_err() {
            return Err(Failure::running("an executor thread panicked"));
        }
    }
    outcome
}

async fn run(executor: &Arc<Executor<'static>>, options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])
        .map_err(|error| Failure::running(format!("signals cannot be caught: {error}")))?;
    let (hub, manager) = Hub::new(options.config)
        .map_err(|error| Failure::usage(flags::in_flags(&error.to_string())))?;
    // The files of Unix sockets are removed when this is dropped.
    let bound = options.listen.iter().map(socket::bind).collect::<Result<Vec<_>, _>>()?;
    let (listeners, _files): (Vec<_>, Vec<_>) = bound.into_iter().unzip();

    let fold = Arc::new(Fold::new(hub.clone()));
    let relay = Arc::new(Relay::new(options.echo, Arc::clone(&fold)));
    let names: Vec<_> = listeners.iter().map(ToString::to_string).collect();
    let folding = Arc::clone(&fold);
    // Of one type, so that the executor's code for a task is there once for them.
    let mut parts: Vec<Part> = vec![manager.boxed(), async move { folding.run().await }.boxed()];
    for listener in listeners {
        let (hub, relay) = (hub.clone(), Arc::clone(&relay));
        let spawner = Arc::clone(executor);
        // An error would end the accept loop, and with it the process.
        parts.push(async move { drop(hub.serve(&spawner, listener, relay).await) }.boxed());
    }
    let mut tasks: Vec<_> = parts.into_iter().map(|part| executor.spawn(part)).collect();
    announce(&names);

    let signal = async {
        signals.next().await;
        Ok(())
    };
    let ended = async {
        first_end(&mut tasks).await?;
        Err(Failure::running("the manager or an accept loop ended too early"))
    };
    or(ended, signal).await?;

    ::log::info!("draining: {} clients are told to come back", hub.stats().clients);
    let drained = async {
        hub.drain(Disconnect::RESTART).await;
        Ok(())
    };
    let impatient = async {
        signals.next().await;
        Err(Failure::running("stopped at once by a second signal"))
    };
    // They may end now, but not by a panic.
    let failed = async {
        loop {
            first_end(&mut tasks).await?;
        }
    };
    let outcome = or(or(failed, drained), impatient).await;
    // Those who left in the last second are told of before the end.
    fold.flush();
    outcome
}

/// Tells standard output where connections are accepted, a line for each listener.
fn announce(names: &[String]) {
    let mut stdout = io::stdout().lock();
    let written = names
        .iter()
        .try_for_each(|name| writeln!(stdout, "listening on {name}"))
        .and_then(|()| stdout.flush());
    if let Err(error) = written {
        ::log::warn!("standard output failed, the hub serves all the same: {error}");
    }
}

/// Waits for a part of the hub to end and takes it off the list; for ever, if none is left.
///
/// # Errors
///
/// If it panicked: async-task hands a panic on to whoever awaits the task.
async fn first_end(tasks: &mut Vec<Task<()>>) -> Result<(), Failure> {
    let ended = poll_fn(|cx| {
        for nth in 0..tasks.len() {
            let task = AssertUnwindSafe(&mut tasks[nth]).catch_unwind();
            if let Poll::Ready(ended) = pin!(task).poll(cx) {
                drop(tasks.swap_remove(nth));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    });
    ended.await.map_err(|_| Failure::running("the manager or an accept loop panicked"))
}

/// Raises the soft limit on file descriptors to the hard one: most shells give 1,024.
fn raise_fd_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            ::log::warn!("the limit on file descriptors stays as it is: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_task_is_told_from_its_panic() {
        let executor = Executor::new();
        let mut tasks = vec![
            executor.spawn(std::future::pending()),
            executor.spawn(async { panic!("as a test") }),
            executor.spawn(async {}),
        ];
        let mut ends = Vec::new();
        while tasks.len() > 1 {
            let end = smol::block_on(executor.run(first_end(&mut tasks)));
            ends.push(end.map_err(|failure| failure.sentence));
        }
        ends.sort();
        assert_eq!(ends, [Ok(()), Err("the manager or an accept loop panicked".to_owned())]);
    }
}
