//! What valgrind and strace count of a hublet that serves clients.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Options, Outcome, PATIENCE, Server, masked};

/// Clients that get each message.
pub(crate) const CLIENTS: usize = 100;
/// Messages of the shorter of two runs.
const MESSAGES_MIN: usize = 32;
/// Nothing is late, and no client is pinged, however slow the tool is.
const PATIENT: [&str; 4] = ["--ping-interval", "1h", "--handshake-timeout", "10m"];
/// Attempts to measure the same with valgrind.
const TRIES: usize = 3;

/// A way to publish, and the budgets of its figures.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Bytes of payload.
    pub(crate) size: usize,
    /// The difference of messages between two runs.
    pub(crate) messages: usize,
    /// Messages that are sent at once. The next follow when every client has received them.
    pub(crate) burst: usize,
    pub(crate) instructions_max: f64,
    pub(crate) system_calls_max: f64,
    /// Flags of the server.
    pub(crate) flags: &'static [&'static str],
}

impl Case {
    pub(crate) const SHORT: Self = Self {
        name: "64 B, one at a time",
        size: 64,
        messages: 192,
        burst: 1,
        instructions_max: f64::INFINITY,
        system_calls_max: f64::INFINITY,
        flags: &[],
    };
    pub(crate) const BURSTS: Self = Self { name: "64 B, bursts of 32", burst: 32, ..Self::SHORT };
    pub(crate) const LONG: Self =
        Self { name: "16 KiB, one at a time", size: 16 * 1024, ..Self::SHORT };

    /// With budgets for each delivery.
    pub(crate) const fn at_most(self, instructions: f64, system_calls: f64) -> Self {
        Self { instructions_max: instructions, system_calls_max: system_calls, ..self }
    }
}

/// Counts the deliveries of a hublet to clients of one kind.
pub(crate) struct Counting<'a, C> {
    pub(crate) options: &'a Options,
    /// Flags of the server in each case.
    pub(crate) flags: &'a [&'a str],
    /// Opens so many clients.
    pub(crate) connect: fn(&Server, usize) -> Outcome<Vec<C>>,
    pub(crate) report: Report,
}

impl<C: Read + Write> Counting<'_, C> {
    /// Counts and prints each case, and returns its instructions and system calls for each delivery.
    pub(crate) fn print(&self, cases: &[Case]) -> Outcome<Vec<[f64; 2]>> {
        println!("{:<24}{:>14}{:>14}", "for each delivery", "instructions", "system calls");
        let mut figures = Vec::new();
        for case in cases {
            let instructions = for_each(case, |messages| self.instructions(case, messages))?;
            let calls = for_each(case, |messages| self.system_calls(case, messages))?;
            println!("{:<24}{instructions:>14.0}{calls:>14.3}", case.name);
            figures.push([instructions, calls]);
        }
        Ok(figures)
    }

    fn instructions(&self, case: &Case, messages: usize) -> Outcome<f64> {
        let log = format!("--log-file={}", self.report.path());
        let tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log];
        self.run(&tool, case, messages)?;
        let (_, collected) = number_behind(&self.report.whole("Collected :")?, "Collected :")?;
        Ok(collected)
    }

    fn system_calls(&self, case: &Case, messages: usize) -> Outcome<f64> {
        // With -D the hublet is the child of this process, and strace its grandchild.
        self.run(&["strace", "-D", "-f", "-c", "-o", self.report.path()], case, messages)?;
        let table = self.report.whole(" total\n")?;
        let total = table.lines().last().ok_or("strace counted nothing")?;
        // The share of time, seconds, microseconds a call, calls.
        Ok(total.split_whitespace().nth(3).ok_or("strace has another table here")?.parse()?)
    }

    fn run(&self, tool: &[&str], case: &Case, messages: usize) -> Outcome<()> {
        let command = [tool, &[&self.options.binary], &PATIENT, self.flags, case.flags].concat();
        let server = Server::start(&command)?;
        let mut clients = (self.connect)(&server, CLIENTS)?;
        deliver(&mut clients, case, messages)?;
        drop(clients);
        end(server, Signal::TERM)
    }

    /// Counts and prints bytes and allocations on the heap for each idle client.
    pub(crate) fn print_heap(&self) -> Outcome<[f64; 2]> {
        let [few_bytes, few_blocks] = self.heap(CLIENTS)?;
        let [bytes, blocks] = self.heap(3 * CLIENTS)?;
        let each = |more: f64, less: f64| (more - less) / (2 * CLIENTS) as f64;
        let (bytes, blocks) = (each(bytes, few_bytes), each(blocks, few_blocks));
        println!("for each idle client    {bytes:.0} bytes on the heap in {blocks:.1} allocations");
        Ok([bytes, blocks])
    }

    /// Bytes and allocations on the heap with this many idle clients.
    fn heap(&self, clients: usize) -> Outcome<[f64; 2]> {
        // valgrind must stop every thread of a process that a signal kills, and rarely misses one.
        for _ in 1..TRIES {
            match self.heap_once(clients) {
                Ok(found) => return Ok(found),
                Err(error) => eprintln!("once more, since {error}"),
            }
        }
        self.heap_once(clients)
    }

    fn heap_once(&self, clients: usize) -> Outcome<[f64; 2]> {
        let log = format!("--log-file={}", self.report.path());
        let binary = env!("CARGO_BIN_EXE_hublet");
        let tool = ["valgrind", "--leak-check=no", &log, binary];
        let command = [&tool[..], &PATIENT, self.flags].concat();
        let server = Server::start(&command)?;
        let open = (self.connect)(&server, clients)?;
        // It is killed while all clients are connected, so it has freed nothing. SIGUSR1, since the
        // hublet does not handle it; SIGHUP may be ignored, as under nohup.
        end(server, Signal::USR1)?;
        drop(open);
        let summary = self.report.whole("blocks")?;
        let (rest, bytes) = number_behind(&summary, "in use at exit:")?;
        let (_, blocks) = number_behind(rest, "bytes in")?;
        Ok([bytes, blocks])
    }
}

/// What a tool counts for each delivery: the difference of two runs.
fn for_each(case: &Case, mut count: impl FnMut(usize) -> Outcome<f64>) -> Outcome<f64> {
    let more = count(MESSAGES_MIN + case.messages)? - count(MESSAGES_MIN)?;
    Ok(more / (case.messages * CLIENTS) as f64)
}

/// The first client sends messages, and every client receives them.
pub(crate) fn deliver(
    clients: &mut [impl Read + Write],
    case: &Case,
    messages: usize,
) -> Outcome<()> {
    let burst = masked(0x81, &vec![b'x'; case.size]).repeat(case.burst);
    for _ in 0..messages / case.burst {
        clients[0].write_all(&burst)?;
        for client in &mut *clients {
            receive(client, case)?;
        }
    }
    Ok(())
}

/// Receives the frames of a burst.
fn receive(client: &mut impl Read, case: &Case) -> Outcome<()> {
    let frame = if case.size > 125 { 4 } else { 2 } + case.size;
    let mut frames = vec![0; frame * case.burst];
    client.read_exact(&mut frames)?;
    if frames.chunks(frame).any(|frame| frame[0] != 0x81) {
        return Err("something else than the message came back".into());
    }
    Ok(())
}

/// Sends a signal and waits for the end.
fn end(mut server: Server, signal: Signal) -> Outcome<()> {
    let pid = i32::try_from(server.child.id())?;
    kill_process(Pid::from_raw(pid).ok_or("no process id")?, signal)?;
    let begin = Instant::now();
    while server.child.try_wait()?.is_none() {
        if begin.elapsed() > PATIENCE {
            return Err("the server does not end".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The number (with commas) after `words`, and the text that follows it.
fn number_behind<'a>(text: &'a str, words: &str) -> Outcome<(&'a str, f64)> {
    let (_, rest) = text.split_once(words).ok_or_else(|| format!("no {words:?} in {text}"))?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len());
    Ok((&rest[end..], rest[..end].replace(',', "").parse()?))
}

/// The file that a tool writes its figures to. Dropping it removes the file.
pub(crate) struct Report(PathBuf);

impl Report {
    pub(crate) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hublet-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap_or("hublet-report")
    }

    /// The text of the tool, once it contains `mark`: the tool may end a little after the server.
    fn whole(&self, mark: &str) -> Outcome<String> {
        let begin = Instant::now();
        loop {
            let text = fs::read_to_string(&self.0)?;
            if text.contains(mark) {
                fs::remove_file(&self.0)?;
                return Ok(text);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("no {mark:?} in {text:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // The file exists only if something failed.
        drop(fs::remove_file(&self.0));
    }
}
