//! If a part of the hub ends, by a panic or without one, the process ends.
//!
//! Only another process can observe that. So the tests start this test program again for the one
//! ignored test, which serves a hub with an injected fault.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::*;

/// The variable that names the part that must fail.
const FAULT: &str = "TEST_FAULT";

/// The variable that makes the part panic; without it the part just ends.
const PANIC: &str = "TEST_FAULT_PANIC";

/// Injects the fault that the environment asks for into a part. It happens when standard input
/// ends.
pub(super) async fn or_fault(name: String, part: impl Future<Output = ()>) {
    let Some(fault) = std::env::var(FAULT).ok().filter(|fault| name.starts_with(fault)) else {
        return part.await;
    };
    let trigger = smol::unblock(|| std::io::stdin().read_to_end(&mut Vec::new()));
    or(part, async { drop(trigger.await) }).await;
    assert!(std::env::var_os(PANIC).is_none(), "a fault injected into {fault}");
}

/// The process with the fault: a hub on a free port.
#[test]
#[ignore = "started by another test, in a process of its own"]
fn process_with_a_fault() {
    let arguments = ["hublet", "--listen", "127.0.0.1:0", "--threads", "2"];
    let action = parse([], arguments.map(Into::into)).expect("valid flags");
    let Action::Serve(options) = action else { unreachable!("nothing else was asked for") };
    std::process::exit(code(Before::take().and_then(|before| serve(*options, before))).into());
}

/// Kills the process when dropped, also if the test fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // If the test passes, the process has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes a part fail in a process that has a client. Returns the exit code and standard error.
fn end_by(fault: &str, panics: bool) -> (Option<i32>, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "tests::process_with_a_fault", "--ignored", "--nocapture"]);
    command.env(FAULT, fault).env_remove(PANIC);
    if panics {
        command.env(PANIC, "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.spawn().expect("it starts"));
    let stdout = BufReader::new(process.0.stdout.take().expect("piped"));
    let address = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listening on ").map(|(_, address)| address.to_owned()))
        .expect("it serves");
    let mut client = TcpStream::connect(address).expect("it accepts");
    client
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("sent");
    let mut status = [0; 12];
    client.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 101");
    // The end of standard input triggers the fault.
    drop(process.0.stdin.take());
    let mut stderr = String::new();
    let mut pipe = process.0.stderr.take().expect("piped");
    pipe.read_to_string(&mut stderr).expect("it ends, and its standard error with it");
    (process.0.wait().expect("its end").code(), stderr)
}

#[test]
fn the_process_ends_with_any_part_of_the_hub() {
    for part in ["the manager", "the accept loop", "the log of joins and leaves"] {
        for (panics, how) in [(true, "panicked"), (false, "ended too early")] {
            let (code, stderr) = end_by(part, panics);
            assert_eq!(code, Some(1), "{part}: {stderr}");
            let last = stderr.lines().last().expect("a sentence");
            assert!(last.starts_with(&format!("hublet: {part}")), "{stderr}");
            assert!(last.ends_with(how), "{stderr}");
            let panicked = stderr.lines().filter(|line| line.starts_with("ERROR panicked at "));
            assert_eq!(panicked.count(), usize::from(panics), "{stderr}");
        }
    }
}

#[test]
fn first_end_distinguishes_the_end_of_a_part_from_its_panic() {
    let executor = Executor::new();
    let mut tasks = vec![
        Part::start(&executor, "waits", std::future::pending()),
        Part::start(&executor, "panics", async { panic!("as a test") }),
        Part::start(&executor, "ends", async {}),
    ];
    let mut ends = Vec::new();
    while tasks.len() > 1 {
        let end = smol::block_on(executor.run(first_end(&mut tasks)));
        ends.push(end.map_err(|failure| failure.sentence));
    }
    ends.sort();
    assert_eq!(ends, [Ok("ends".to_owned()), Err("panics panicked".to_owned())]);
}

#[test]
fn low_limit_on_descriptors_is_refused_with_a_remedy() {
    check_fd_limit(None, Some(1_000_000)).expect("no limit");
    check_fd_limit(Some(1064), Some(1000)).expect("just enough");
    check_fd_limit(Some(65), None).expect("enough for one");
    let failure = check_fd_limit(Some(1063), Some(1000)).expect_err("one short");
    assert_eq!(failure.code, 1);
    assert_eq!(
        failure.sentence,
        "1000 clients need 1064 file descriptors and the limit is 1063: raise it (LimitNOFILE= in \
         a unit, ulimit -Hn in a shell), or lower --max-clients"
    );
}
