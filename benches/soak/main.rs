//! A soak test: a mixed load at a moderate rate, for any time.
//!
//! `cargo bench --bench soak -- [--seconds N] [--rate N] [BINARY]`
//!
//! Starts BINARY (default: the binary of this build) on a free port of 127.0.0.1 and loads it for N
//! seconds (default 60): readers in rooms that must miss no message, publishers with N messages a
//! second each (default 5), clients that connect and leave in every way, clients that never read,
//! and peers that break every rule. It fails if a reader missed a message, if memory, descriptors
//! or threads grew after the first half, if anything is left when all clients have left, or if a
//! recipient is none of delivered, dropped and lost.

mod hostile;
mod load;
mod peer;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_lite::future::or;
use smol::{Executor, Task, Timer};

use server::{Outcome, Sample, Server};

/// How long anything may take before the run fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Samples of a run, and how many of them are printed.
const SAMPLES: u32 = 120;
const LINES: u32 = 12;

/// Growth of resident bytes from the second quarter to the last, at most: the allocator keeps some.
const GROWTH_MAX: u64 = 768 * 1024;

/// Resident bytes at the end, less those at the start, at most.
const REST_MAX: u64 = 2 * 1024 * 1024;

/// Growth of descriptors from the second quarter to the last, at most: their number varies.
const FDS_MAX: u64 = 40;

struct Options {
    binary: String,
    length: Duration,
    /// Messages a second of each publisher.
    rate: f64,
}

/// The state that all tasks of a run share.
struct World {
    address: String,
    rate: f64,
    /// Set when publishers, guests and hostile peers must stop.
    ended: AtomicBool,
    counts: Counts,
}

/// Events, as counted by the clients.
#[derive(Debug, Default)]
struct Counts {
    published: AtomicU64,
    heard: AtomicU64,
    came_and_went: AtomicU64,
    evicted: AtomicU64,
    hostile: AtomicU64,
}

impl World {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Outcome<()> {
    let options = options()?;
    server::raise_fd_limit();
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(soak(&executor, &options)))
}

fn options() -> Outcome<Options> {
    let binary = env!("CARGO_BIN_EXE_hublet").to_owned();
    let mut options = Options { binary, length: Duration::from_secs(60), rate: 5.0 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a number"));
        match arg.as_str() {
            // Cargo passes this to every bench.
            "--bench" => {}
            "--seconds" => options.length = Duration::from_secs(value()?.parse()?),
            "--rate" => options.rate = value()?.parse()?,
            _ => options.binary = arg,
        }
    }
    Ok(options)
}

async fn soak(executor: &Executor<'static>, options: &Options) -> Outcome<()> {
    let mut server = Server::start(&options.binary)?;
    let at_start = server.sample()?;
    let world = Arc::new(World {
        address: server.address().to_owned(),
        rate: options.rate,
        ended: AtomicBool::new(false),
        counts: Counts::default(),
    });
    println!("{} for {:?}; at start {at_start}", options.binary, options.length);

    let readers = load::readers(executor, &world).await?;
    let mut others = load::publishers(executor, &world);
    others.extend(load::guests(executor, &world));
    others.extend(hostile::all(executor, &world));
    let watched = watch(&server, &world, options.length);
    let samples = or(watched, first_failure(&mut others)).await?;
    world.ended.store(true, Ordering::Relaxed);
    for task in others {
        within("the end of the load", task).await??;
    }
    // The publishers have sent their last messages, which the readers wait for.
    for task in readers {
        within("the end of the readers", task).await??;
    }

    settle(&server, &at_start).await?;
    let at_end = server.sample()?;
    println!("when all have gone: {at_end}");
    println!("{:?}", world.counts);
    judge(&samples, &at_start, &at_end)?;
    server.account().await?;
    server.stop()?;
    println!("nothing missed, nothing grown, nothing left, every recipient accounted for");
    Ok(())
}

/// Takes samples over `length`.
async fn watch(server: &Server, world: &World, length: Duration) -> Outcome<Vec<Sample>> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    for nth in 1..=SAMPLES {
        Timer::at(begin + length * nth / SAMPLES).await;
        let sample = server.sample()?;
        if nth % (SAMPLES / LINES) == 0 {
            let heard = world.counts.heard.load(Ordering::Relaxed);
            println!("{:5} s: {sample}, {heard} heard", begin.elapsed().as_secs());
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Waits for the first task that fails. Removes tasks that end well.
async fn first_failure<T>(tasks: &mut Vec<Task<Outcome<()>>>) -> Outcome<T> {
    loop {
        let ended = std::future::poll_fn(|cx| {
            for nth in 0..tasks.len() {
                let task = std::pin::pin!(&mut tasks[nth]);
                if let std::task::Poll::Ready(ended) = task.poll(cx) {
                    drop(tasks.swap_remove(nth));
                    return std::task::Poll::Ready(ended);
                }
            }
            std::task::Poll::Pending
        });
        ended.await?;
    }
}

/// Waits until no descriptor of a client is left.
async fn settle(server: &Server, at_start: &Sample) -> Outcome<()> {
    let end = Instant::now() + PATIENCE;
    while server.sample()?.fds > at_start.fds {
        if Instant::now() > end {
            return Err(format!("descriptors are left: {}", server.sample()?).into());
        }
        Timer::after(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What is compared, and what it may have grown and what may be left of it.
struct Check(&'static str, fn(&Sample) -> u64, u64, u64);

/// Compares the highest of the second quarter with the highest of the last, and the end with the
/// start.
fn judge(samples: &[Sample], at_start: &Sample, at_end: &Sample) -> Outcome<()> {
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let highest =
        |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
    let checks = [
        Check("resident bytes", |sample| sample.rss, GROWTH_MAX, REST_MAX),
        Check("descriptors", |sample| sample.fds, FDS_MAX, 0),
        Check("threads", |sample| sample.threads, 0, 1),
    ];
    for Check(what, of, growth_max, rest_max) in checks {
        let (before, after) = (highest(second, of), highest(last, of));
        println!("{what}: at most {before} in the second quarter, {after} in the last");
        if after > before + growth_max {
            return Err(format!("{what} grew").into());
        }
        if of(at_end) > of(at_start) + rest_max {
            return Err(format!("{what} are left over the start").into());
        }
    }
    Ok(())
}

/// Gives a step its time.
async fn within<T>(what: &str, step: impl Future<Output = T>) -> Outcome<T> {
    server::within(PATIENCE, what, step).await
}
