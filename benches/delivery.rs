//! The cost of a delivery and of an idle client, counted and not timed.
//!
//! `cargo bench --bench delivery -- [--gate] [BINARY]`
//!
//! Counts user-space instructions and system calls for each delivery to one of 100 clients, and the
//! heap of an idle client. BINARY (default: the binary of this build) runs under valgrind and
//! strace, which must be installed. The difference of two runs is taken, so that start, handshakes
//! and end do not count. The heap is always that of the binary of this build, since valgrind cannot
//! follow the allocator of a static one. With `--gate` a figure over its budget fails.
//!
//! A busy machine changes little here.

mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use server::{Options, Outcome, PATIENCE, Server, masked};

/// Clients that get each message.
const CLIENTS: usize = 100;
/// The difference of messages between two runs.
const MESSAGES: usize = 192;

/// A way to publish, and the budgets of its figures. A budget is the current figure and a little
/// more, since another compiler inlines differently. The aims are 400 and 1,000 instructions and
/// 1.03 system calls, one at a time.
struct Case {
    name: &'static str,
    /// Bytes of payload.
    size: usize,
    /// Messages that are sent at once. The next follow when every client has received them.
    burst: usize,
    instructions_max: f64,
    system_calls_max: f64,
    /// Flags of the server.
    flags: &'static [&'static str],
}

const CASES: [Case; 4] = [
    Case {
        name: "64 B, one at a time",
        size: 64,
        burst: 1,
        instructions_max: PLAIN_MAX,
        system_calls_max: 1.03,
        flags: &[],
    },
    Case {
        name: "the same, history on",
        size: 64,
        burst: 1,
        instructions_max: PLAIN_MAX + HISTORY_MAX,
        system_calls_max: 1.03,
        flags: &["--history", "100"],
    },
    Case {
        name: "64 B, bursts of 32",
        size: 64,
        burst: 32,
        instructions_max: 48.0,
        system_calls_max: 0.06,
        flags: &[],
    },
    Case {
        name: "16 KiB, one at a time",
        size: 16 * 1024,
        burst: 1,
        instructions_max: 400.0,
        system_calls_max: 1.04,
        flags: &[],
    },
];

/// Instructions for each delivery of a short message that is sent alone.
const PLAIN_MAX: f64 = 264.0;

/// Instructions for each delivery that history may add.
const HISTORY_MAX: f64 = 60.0;

/// Attempts to measure the same with valgrind.
const TRIES: usize = 3;

/// Bytes on the heap for each idle client, at most.
const HEAP_MAX: f64 = 1190.0;
/// Allocations for each idle client, at most.
const BLOCKS_MAX: f64 = 9.0;

fn main() -> Outcome<()> {
    let options = Options::parse(CLIENTS)?;
    let report = Report(std::env::temp_dir().join(format!("hublet-{}", std::process::id())));
    println!("{:<24}{:>14}{:>14}", "for each delivery", "instructions", "system calls");
    let mut figures = Vec::new();
    for case in &CASES {
        let instructions = for_each(|messages| instructions(&options, case, messages, &report))?;
        let calls = for_each(|messages| system_calls(&options, case, messages, &report))?;
        println!("{:<24}{instructions:>14.0}{calls:>14.3}", case.name);
        figures.push((case, instructions, calls));
    }
    let (few_bytes, few_blocks) = heap(CLIENTS, &report)?;
    let (bytes, blocks) = heap(3 * CLIENTS, &report)?;
    let each = |more: f64, less: f64| (more - less) / (2 * CLIENTS) as f64;
    let (bytes, blocks) = (each(bytes, few_bytes), each(blocks, few_blocks));
    println!("for each idle client    {bytes:.0} bytes on the heap in {blocks:.1} allocations");
    let history = figures[1].1 - figures[0].1;
    println!("for each delivery history adds {history:.0} instructions");
    options.gate("instructions that history adds", history, HISTORY_MAX)?;
    for (case, instructions, calls) in figures {
        let name = case.name;
        options.gate(&format!("instructions, {name}"), instructions, case.instructions_max)?;
        options.gate(&format!("system calls, {name}"), calls, case.system_calls_max)?;
    }
    options.gate("bytes on the heap", bytes, HEAP_MAX)?;
    options.gate("allocations", blocks, BLOCKS_MAX)
}

/// What a tool counts for each delivery: the difference of two runs.
fn for_each(mut count: impl FnMut(usize) -> Outcome<f64>) -> Outcome<f64> {
    Ok((count(MESSAGES + 32)? - count(32)?) / (MESSAGES * CLIENTS) as f64)
}

fn instructions(options: &Options, case: &Case, messages: usize, report: &Report) -> Outcome<f64> {
    let log = format!("--log-file={}", report.path());
    let tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log];
    run(&[&tool[..], &[&options.binary]].concat(), case, messages)?;
    let (_, collected) = number_behind(&report.whole("Collected :")?, "Collected :")?;
    Ok(collected)
}

fn system_calls(options: &Options, case: &Case, messages: usize, report: &Report) -> Outcome<f64> {
    // With -D the hublet is the child of this process, and strace its grandchild.
    let tool = ["strace", "-D", "-f", "-c", "-o", report.path(), &options.binary];
    run(&tool, case, messages)?;
    let table = report.whole(" total\n")?;
    let total = table.lines().last().ok_or("strace counted nothing")?;
    // The share of time, seconds, microseconds a call, calls.
    Ok(total.split_whitespace().nth(3).ok_or("strace has another table here")?.parse()?)
}

/// One client sends messages, and every client receives them.
fn run(command: &[&str], case: &Case, messages: usize) -> Outcome<()> {
    let server = Server::start(&[command, case.flags].concat())?;
    let mut clients = server.connect(CLIENTS)?;
    let burst = masked(0x81, &vec![b'x'; case.size]).repeat(case.burst);
    for _ in 0..messages / case.burst {
        clients[0].write_all(&burst)?;
        for client in &mut clients {
            receive(client, case)?;
        }
    }
    drop(clients);
    end(server, Signal::TERM)
}

/// Receives the frames of a burst.
fn receive(client: &mut TcpStream, case: &Case) -> Outcome<()> {
    let frame = if case.size > 125 { 4 } else { 2 } + case.size;
    let mut frames = vec![0; frame * case.burst];
    client.read_exact(&mut frames)?;
    if frames.chunks(frame).any(|frame| frame[0] != 0x81) {
        return Err("something else than the message came back".into());
    }
    Ok(())
}

/// Bytes and allocations on the heap with this many idle clients.
fn heap(clients: usize, report: &Report) -> Outcome<(f64, f64)> {
    // valgrind must stop every thread of a process that a signal kills, and rarely misses one.
    for _ in 1..TRIES {
        match heap_once(clients, report) {
            Ok(found) => return Ok(found),
            Err(error) => eprintln!("once more, since {error}"),
        }
    }
    heap_once(clients, report)
}

fn heap_once(clients: usize, report: &Report) -> Outcome<(f64, f64)> {
    let log = format!("--log-file={}", report.path());
    let binary = env!("CARGO_BIN_EXE_hublet");
    let server = Server::start(&["valgrind", "--leak-check=no", &log, binary])?;
    let open = server.connect(clients)?;
    // It is killed while all clients are connected, so it has freed nothing. SIGUSR1, since the
    // hublet does not handle it; SIGHUP may be ignored, as under nohup.
    end(server, Signal::USR1)?;
    drop(open);
    let summary = report.whole("blocks")?;
    let (rest, bytes) = number_behind(&summary, "in use at exit:")?;
    let (_, blocks) = number_behind(rest, "bytes in")?;
    Ok((bytes, blocks))
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
struct Report(PathBuf);

impl Report {
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
