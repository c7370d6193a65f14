//! SIGTERM with 2,000 clients: they get all their messages, and their close frames are spread.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Executor};

use crate::support::{BINARY, CLOSE, DEADLINE, Folder, Peer, Server};

const CLIENTS: usize = 2000;

/// One of this many clients never answers its close frame.
const RUDE: usize = 100;

/// The window of the drain at the defaults.
const WINDOW: Duration = Duration::from_secs(5);

/// The longest drain at the defaults: the window, 2 s to write queued messages, and 2 s for the
/// answer to a close frame.
const DRAIN_MAX: Duration = Duration::from_secs(9);

/// Additional time on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// Clients that are behind when the signal comes, and the messages for each: more than the buffer
/// of a Unix socket holds, so that the rest is in the queue.
const BEHIND: usize = 5;
const MESSAGES: usize = 30;
const MESSAGE_BYTES: usize = 60_000;

/// Columns of the histogram.
const COLUMNS: usize = 20;

#[test]
fn drain_of_2000_clients_is_even_and_complete() {
    raise_fd_limit();
    let folder = Folder::new("drain");
    let (path, unix) = folder.socket();
    let flags = ["--listen", &unix, "--queue-bytes", "4m", "--log", "warn"];
    let (mut server, address) = Server::start(&flags);
    let peers: Vec<_> =
        (0..CLIENTS).map(|_| Peer::<TcpStream>::connect(&address, "/ws/many")).collect();

    let behind: Vec<_> =
        (0..BEHIND).map(|_| Peer::<UnixStream>::dial(&path).join("/ws/behind")).collect();
    let _deaf = Peer::<UnixStream>::dial(&path).join("/ws/behind");
    let mut publisher = Peer::<TcpStream>::connect(&address, "/ws/behind?echo=0");
    for nth in 0..MESSAGES {
        publisher.send(BINARY, &[nth as u8; MESSAGE_BYTES]);
    }
    // The publisher gets its answer only when all its messages are queued.
    let mut last = Peer::<TcpStream>::connect(&address, "/ws/last");
    publisher.send(CLOSE, &1000u16.to_be_bytes());
    publisher.is_closed(1000);
    last.say("queued");
    last.hears("queued");
    drop((publisher, last));

    let begin = Instant::now();
    server.signal(Signal::TERM);
    let readers: Vec<_> =
        behind.into_iter().map(|peer| std::thread::spawn(|| hear(peer))).collect();
    let refused = std::thread::spawn(move || refused(&address, begin));
    let mut times = close_times(peers, begin);
    for reader in readers {
        reader.join().expect("all messages, then 1012");
    }
    assert_eq!(server.exit_code(), Some(0));
    let took = begin.elapsed();
    assert!(took <= DRAIN_MAX + SLACK, "it took {took:?}, though some never answer");
    let closed_after = refused.join().expect("refused, and for good");

    times.sort();
    let histogram = histogram(&times);
    println!("1012 to {CLIENTS} clients over {WINDOW:?}:\n{histogram}");
    println!("nothing accepted after {closed_after:.1?}, exit code 0 after {took:.1?}");
    // The largest difference between the share of closed clients and the share of the window that
    // has passed (Kolmogorov-Smirnov). A stall of half a second adds a tenth.
    let stray = times
        .iter()
        .enumerate()
        .map(|(nth, time)| (nth as f64 / CLIENTS as f64 - time.div_duration_f64(WINDOW)).abs())
        .fold(0.0, f64::max);
    assert!(stray < 0.15, "uneven by {stray:.3}:\n{histogram}");
}

/// Waits for the close frames of all, answers most of them, and returns when they came.
fn close_times(peers: Vec<Peer<TcpStream>>, begin: Instant) -> Vec<Duration> {
    let executor = Arc::new(Executor::new());
    let tasks: Vec<_> = peers
        .into_iter()
        .enumerate()
        .map(|(nth, peer)| {
            executor.spawn(async move {
                let mut stream = Async::new(peer.into_stream()).expect("a socket");
                let mut frame = [0; 4];
                stream.read_exact(&mut frame).await.expect("a close frame");
                assert_eq!(frame[0], CLOSE, "nothing was queued for it");
                assert_eq!(frame[2..], 1012u16.to_be_bytes());
                let time = begin.elapsed();
                // The drain also ends clients that never answer.
                if nth % RUDE != 0 {
                    let answer = [CLOSE, 0x82, 0, 0, 0, 0, frame[2], frame[3]];
                    stream.write_all(&answer).await.expect("sent");
                }
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.expect("an orderly end");
                time
            })
        })
        .collect();
    let all = async {
        let mut times = Vec::with_capacity(CLIENTS);
        for task in tasks {
            times.push(task.await);
        }
        Some(times)
    };
    let late = async {
        smol::Timer::after(DEADLINE).await;
        None
    };
    smol::block_on(executor.run(smol::future::or(all, late))).expect("all are closed in time")
}

/// Receives all queued messages in order, and then the close frame.
fn hear(mut peer: Peer<UnixStream>) {
    for nth in 0..MESSAGES {
        assert_eq!(peer.receive(), (BINARY, vec![nth as u8; MESSAGE_BYTES]), "message {nth}");
    }
    peer.is_closed(1012);
    peer.goodbye(1012);
}

/// Connects until a connection is refused, and once more. Returns how long that took.
fn refused(address: &str, begin: Instant) -> Duration {
    loop {
        match TcpStream::connect(address) {
            // The signal has not arrived yet.
            Ok(mut stream) if begin.elapsed() < DEADLINE => {
                let _ = stream.write_all(b"x");
            }
            Ok(_) => panic!("it goes on accepting"),
            // The connection was in the backlog when the socket was closed.
            Err(error)
                if error.kind() == ErrorKind::ConnectionReset && begin.elapsed() < DEADLINE => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                break;
            }
        }
    }
    let took = begin.elapsed();
    let error = TcpStream::connect(address).expect_err("still");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    took
}

fn histogram(times: &[Duration]) -> String {
    let column = WINDOW / COLUMNS as u32;
    let mut counts = vec![0; COLUMNS];
    for time in times {
        let nth = time.div_duration_f64(column) as usize;
        counts.resize(counts.len().max(nth + 1), 0);
        counts[nth] += 1;
    }
    let rows = counts.iter().enumerate().map(|(nth, count)| {
        let from = (column * nth as u32).as_secs_f64();
        format!("{from:5.2} s {count:5} {}\n", "#".repeat(count / 5))
    });
    rows.collect()
}

/// The clients of the test are descriptors of this process too, and shells set a limit of 1,024.
fn raise_fd_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard one");
}
