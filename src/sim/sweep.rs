//! Which seeds are run, on how many threads, and what is said of those that fail.

use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fastrand::Rng;

use crate::sim::journal;
use crate::stats::Stats;
use crate::sync::AtomicU64;

/// Seeds between two lines that say how far a sweep has come that keeps going.
const PROGRESS: u64 = 10_000;

/// The seeds of one test, and how they are run.
pub(super) struct Sweep {
    /// The name of the test, for the command that replays a seed.
    test: &'static str,
    seeds: Range<u64>,
    threads: usize,
    /// A seed that fails does not end the sweep.
    keeps_going: bool,
    /// It is one seed, all of whose events are printed.
    replays: bool,
}

/// What one run came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) stats: Stats,
    /// Messages that requests have waited for or found.
    pub(super) polled: u64,
}

impl From<Stats> for Outcome {
    fn from(stats: Stats) -> Self {
        Self { stats, polled: 0 }
    }
}

/// What the runs of a sweep came to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) runs: u64,
    pub(super) upgrades: u64,
    pub(super) recipients: u64,
    pub(super) evicted: u64,
    pub(super) compressed: u64,
    pub(super) polled: u64,
    /// Each seed that failed, and what its failure says.
    failed: Vec<(u64, String)>,
}

impl Sweep {
    /// As the environment asks: HUBLET_SIM_SEEDS, HUBLET_SIM_KEEP_GOING, HUBLET_SIM_THREADS, and
    /// HUBLET_TEST_SEED, which goes before them all.
    pub(super) fn from_environment(test: &'static str) -> Self {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        if let Ok(seed) = env::var("HUBLET_TEST_SEED") {
            let seed = number(&seed);
            let seeds = seed..seed + 1;
            return Self { test, seeds, threads: 1, keeps_going: false, replays: true };
        }
        let seeds = env::var("HUBLET_SIM_SEEDS").unwrap_or_else(|_| "0..300".to_owned());
        let (from, to) = seeds.split_once("..").expect("HUBLET_SIM_SEEDS is A..B");
        let keeps_going = env::var_os("HUBLET_SIM_KEEP_GOING").is_some_and(|set| set != "0");
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let threads = match env::var("HUBLET_SIM_THREADS") {
            Ok(threads) => number(&threads) as usize,
            Err(_) if keeps_going => cores(),
            Err(_) => 1,
        };
        let seeds = number(from)..number(to);
        Self { test, seeds, threads, keeps_going, replays: false }
    }

    pub(super) fn replays(&self) -> bool {
        self.replays
    }

    /// Runs `one` with each seed; panics with the first that failed, or with all of them.
    pub(super) fn run(&self, one: impl Fn(&mut Rng) -> Outcome + Sync) -> Totals {
        let hook = self.keeps_going.then(take_hook);
        if hook.is_some() {
            // What is said of a failure is said below.
            set_hook(Box::new(|_| {}));
        }
        let totals = self.run_all(&one);
        if let Some(hook) = hook {
            set_hook(hook);
        }
        totals.check();
        totals
    }

    fn run_all(&self, one: &(impl Fn(&mut Rng) -> Outcome + Sync)) -> Totals {
        let (next, stop) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let totals = Mutex::new(Totals::default());
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    break;
                }
                let run = self.run_one(seed, one);
                stop.fetch_or(run.is_err() && !self.keeps_going, Ordering::Relaxed);
                let mut totals = totals.lock().expect("not poisoned");
                totals.add(seed, run, self.keeps_going);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(work);
            }
            work();
        });
        totals.into_inner().expect("not poisoned")
    }

    /// Runs one seed; an error is what its failure says.
    fn run_one(&self, seed: u64, one: &impl Fn(&mut Rng) -> Outcome) -> Result<Outcome, String> {
        if self.replays {
            journal::open(true);
        }
        let run = || catch_unwind(AssertUnwindSafe(|| one(&mut Rng::with_seed(seed))));
        let panic = match run() {
            Ok(run) => return Ok(run),
            Err(panic) => panic,
        };
        let promise = panic.downcast_ref::<String>().cloned();
        let promise =
            promise.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let promise = promise.unwrap_or_else(|| "a panic without a message".to_owned());
        if !self.replays {
            // Once more, to write down what happens.
            journal::open(false);
            drop(run());
        }
        Err(journal::message(self.test, seed, &promise, &journal::close()))
    }
}

impl Totals {
    fn add(&mut self, seed: u64, run: Result<Outcome, String>, is_logged: bool) {
        self.runs += 1;
        match run {
            Ok(Outcome { stats, polled }) => {
                self.upgrades += stats.upgrades_accepted;
                self.recipients += stats.recipients;
                self.evicted += stats.clients_evicted;
                self.compressed += stats.messages_compressed;
                self.polled += polled;
            }
            Err(message) => {
                if is_logged {
                    println!("HUBLET_TEST_SEED={seed}: {message}");
                }
                self.failed.push((seed, message));
            }
        }
        if is_logged && self.runs % PROGRESS == 0 {
            println!("{} seeds, {} of them failed", self.runs, self.failed.len());
        }
    }

    /// Panics if a seed has failed: with what is said of the first, and the promises of all.
    fn check(&self) {
        let mut failed: Vec<_> = self.failed.iter().collect();
        failed.sort_unstable();
        let Some((seed, message)) = failed.first() else { return };
        if failed.len() == 1 {
            panic!("with HUBLET_TEST_SEED={seed}: {message}");
        }
        let promises = failed.iter().map(|(seed, message)| {
            format!("HUBLET_TEST_SEED={seed}: {}\n", message.lines().next().unwrap_or_default())
        });
        let promises: String = promises.collect();
        panic!("{} of {} seeds failed:\n{promises}", failed.len(), self.runs);
    }
}

#[test]
fn a_sweep_that_keeps_going_lists_each_seed_that_fails() {
    let sweep = Sweep { test: "sim", seeds: 10..20, threads: 2, keeps_going: true, replays: false };
    let totals = sweep.run_all(&|rng: &mut Rng| {
        let seed = (10..20).find(|&seed| rng.get_seed() == Rng::with_seed(seed).get_seed());
        assert!(seed != Some(12) && seed != Some(17), "peer 3 is unlucky");
        Outcome::default()
    });
    assert_eq!(totals.runs, 10);
    let said = catch_unwind(|| totals.check()).expect_err("two seeds failed");
    let said = said.downcast_ref::<String>().expect("a message");
    assert_eq!(
        said,
        "2 of 10 seeds failed:\nHUBLET_TEST_SEED=12: peer 3 is unlucky\n\
         HUBLET_TEST_SEED=17: peer 3 is unlucky\n"
    );
}

#[test]
fn a_sweep_ends_with_the_first_seed_that_fails() {
    let sweep =
        Sweep { test: "sim", seeds: 0..1000, threads: 1, keeps_going: false, replays: false };
    let totals = sweep.run_all(&|rng: &mut Rng| {
        assert!(rng.get_seed() != Rng::with_seed(3).get_seed(), "peer 3 is unlucky");
        Outcome::default()
    });
    assert_eq!((totals.runs, totals.failed.len()), (4, 1));
}
