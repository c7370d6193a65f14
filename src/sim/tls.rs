//! The streams of TLS: one connection, its queue's pushes and a client, with the bytes between them in
//! any pieces.
//!
//! The task of the connection runs only when it was woken, or when what it waits for has come, so a wake
//! that is lost leaves something behind. Whatever happens, each side hears what the other has said, whole
//! and in order, and the end of the stream is said.
//!
//! The keys of TLS are not drawn from the seed. A replay may find a signature a byte longer.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;
use rustls::{ClientConnection, version};

use crate::hub::direct_writer::DirectWriter;
use crate::memory::budget::MemoryBudget;
use crate::net::tls::certificate::Tls;
use crate::net::tls::pair::{CERTIFICATE, KEY};
use crate::net::tls::session::{INCOMING_MAX, SESSION_BYTES};
use crate::net::tls::stream::TlsStream;
use crate::net::tls::trusting_client::trusting_client;
use crate::net::tls::wire::Wire;
use crate::sim::journal::event;
use crate::sim::sweep::{Outcome, Sweep};

/// Bytes of one frame, and of what the client says at once, at most: more than two records.
const LONGEST: usize = 40_000;

/// Bytes that a connection may hold at once: its session, a record that is not whole, what one write has
/// made and what one read has become, and what the allocator adds to each.
const CHARGED_MAX: usize = SESSION_BYTES + INCOMING_MAX + 3 * 34 * 1024;

/// Rounds until nothing moves, at most: a round reads a byte at least.
const ROUNDS_MAX: usize = 10_000_000;

/// The bytes between a connection and its client, as a kernel has them.
#[derive(Debug)]
struct Cable(Mutex<Kernel>);

#[derive(Debug, Default)]
struct Kernel {
    to_hub: VecDeque<u8>,
    /// The client has shut its side down.
    has_ended: bool,
    /// Bytes have come since the last read that did not fill its buffer.
    has_news: bool,
    to_client: VecDeque<u8>,
    /// Bytes that are taken for the client before a write would block.
    room: usize,
    /// The connection waits for room, and room has come since.
    wants_room: bool,
    has_room_news: bool,
    /// The connection has shut its side down.
    is_shut: bool,
    waker: Option<Waker>,
}

impl Cable {
    fn lock(&self) -> MutexGuard<'_, Kernel> {
        // A run that fails while it holds the lock still drops the connection.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client sends.
    fn send(&self, bytes: &[u8]) {
        let mut kernel = self.lock();
        kernel.to_hub.extend(bytes);
        kernel.has_news = true;
        Self::wake(kernel);
    }

    /// The client shuts its side down.
    fn end(&self) {
        let mut kernel = self.lock();
        kernel.has_ended = true;
        Self::wake(kernel);
    }

    /// There is room for `bytes` more. Only a connection that waits for room is woken.
    fn grant(&self, bytes: usize) {
        let mut kernel = self.lock();
        kernel.room += bytes;
        if std::mem::take(&mut kernel.wants_room) {
            kernel.has_room_news = true;
            Self::wake(kernel);
        }
    }

    fn wake(mut kernel: MutexGuard<'_, Kernel>) {
        let waker = kernel.waker.take();
        drop(kernel);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The connection's end.
#[derive(Debug)]
struct End(Arc<Cable>);

impl Wire for End {
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.0.lock();
        assert!(!kernel.is_shut, "nothing is written behind the end");
        let n = bytes.len().min(kernel.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        kernel.room -= n;
        kernel.to_client.extend(&bytes[..n]);
        event!("the hub writes {n} bytes of {}", bytes.len());
        Ok(n)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut kernel = self.0.lock();
        if std::mem::take(&mut kernel.has_room_news) {
            return Poll::Ready(Ok(()));
        }
        kernel.waker = Some(cx.waker().clone());
        kernel.wants_room = true;
        let has_room = kernel.room > 0;
        drop(kernel);
        if has_room {
            self.0.grant(0);
        }
        Poll::Pending
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut kernel = self.0.lock();
        if std::mem::take(&mut kernel.has_news) || kernel.has_ended {
            return Poll::Ready(());
        }
        kernel.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut kernel = self.0.lock();
        if kernel.to_hub.is_empty() && !kernel.has_ended {
            kernel.has_news = false;
            kernel.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = kernel.to_hub.len().min(into.len());
        for (byte, room) in kernel.to_hub.drain(..n).zip(&mut *into) {
            *room = byte;
        }
        kernel.has_news |= n == into.len();
        event!("the hub reads {n} bytes");
        Poll::Ready(Ok(n))
    }

    fn shut_down(&self) -> io::Result<()> {
        self.0.lock().is_shut = true;
        Ok(())
    }
}

/// Whether the task is to run.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The connection as its task has it, with what its queue holds.
struct Connection {
    stream: TlsStream<End>,
    writer: Arc<dyn DirectWriter>,
    woken: Arc<Woken>,
    is_open: bool,
    /// Frames that wait for the task, and how far the first is written.
    waiting: VecDeque<Vec<u8>>,
    at: usize,
    /// The end of the stream is to be written, and is.
    closes: bool,
    has_closed: bool,
    /// What the client has said, and whether it has ended.
    heard: Vec<u8>,
    has_ended: bool,
    rng: Rng,
}

impl Connection {
    /// What a queue does with messages: they are written at once if nothing waits.
    fn push(&mut self, frames: Vec<Vec<u8>>) {
        let was_empty = self.waiting.is_empty();
        self.waiting.extend(frames);
        if was_empty {
            let slices: Vec<_> = self.waiting.iter().map(|frame| IoSlice::new(frame)).collect();
            match self.writer.try_write(&slices) {
                Ok(n) => self.advance(n),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if !self.waiting.is_empty() {
                self.woken.0.store(true, Ordering::Relaxed);
            }
        }
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n > 0, "a write makes progress or fails");
        while n > 0 {
            let rest = self.waiting[0].len() - self.at;
            if n < rest {
                self.at += n;
                return;
            }
            n -= rest;
            (self.at, _) = (0, self.waiting.pop_front());
        }
    }

    /// One poll of the task, as that of a client.
    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let cx = &mut Context::from_waker(&waker);
        if !self.is_open {
            match self.stream.poll_handshake(cx) {
                Poll::Ready(done) => done.expect("the client keeps the rules"),
                Poll::Pending => return,
            }
            event!("the handshake is over");
            self.is_open = true;
        }
        self.poll_write(cx);
        while !self.has_ended && self.stream.poll_readable(cx).is_ready() {
            let most = self.rng.usize(1..LONGEST);
            let mut into = vec![0; if self.rng.bool() { most } else { most % 100 + 1 }];
            match self.stream.poll_read(cx, &mut into) {
                Poll::Ready(read) => {
                    let n = read.expect("the client keeps the rules");
                    self.has_ended = n == 0;
                    self.heard.extend_from_slice(&into[..n]);
                    // Another task runs meanwhile.
                    if self.rng.bool() {
                        cx.waker().wake_by_ref();
                        break;
                    }
                }
                Poll::Pending => break,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() {
            let mut slices: Vec<_> = self.waiting.iter().map(|frame| IoSlice::new(frame)).collect();
            slices[0] = IoSlice::new(&self.waiting[0][self.at..]);
            match self.stream.poll_write(cx, &slices) {
                Poll::Ready(written) => self.advance(written.expect("the client is there")),
                Poll::Pending => return,
            }
        }
        if self.closes {
            if let Poll::Ready(closed) = self.stream.poll_close(cx) {
                closed.expect("the client is there");
                self.has_closed = true;
            }
        }
    }
}

/// A connection, its client, and what each has said.
struct Scene {
    cable: Arc<Cable>,
    connection: Connection,
    client: ClientConnection,
    /// What the client has written and the cable does not have yet.
    unsent: Vec<u8>,
    said: Vec<u8>,
    pushed: Vec<u8>,
    /// What the client has heard of it.
    heard: Vec<u8>,
    memory: Arc<MemoryBudget>,
    rng: Rng,
}

impl Scene {
    fn new(rng: &mut Rng) -> Self {
        let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("a pair");
        let memory = Arc::<MemoryBudget>::default();
        let cable = Arc::new(Cable(Mutex::default()));
        let stream = TlsStream::new(&tls, &memory, End(Arc::clone(&cable))).expect("valid");
        let connection = Connection {
            writer: stream.direct_writer(),
            stream,
            woken: Arc::new(Woken(AtomicBool::new(true))),
            is_open: false,
            waiting: VecDeque::new(),
            at: 0,
            closes: false,
            has_closed: false,
            heard: Vec::new(),
            has_ended: false,
            rng: rng.fork(),
        };
        let version = if rng.bool() { &version::TLS13 } else { &version::TLS12 };
        let mut client = trusting_client(version, &[b"h2", b"http/1.1"]);
        client.set_buffer_limit(None);
        let (unsent, said, pushed, heard) = Default::default();
        Self { cable, connection, client, unsent, said, pushed, heard, memory, rng: rng.fork() }
    }

    fn step(&mut self) {
        let rng = &mut self.rng;
        match rng.u8(..9) {
            0 => {
                let text = bytes(rng);
                event!("the client says {} bytes", text.len());
                self.client.writer().write_all(&text).expect("into memory");
                self.said.extend(text);
            }
            1 | 2 => {
                let most = if rng.bool() { usize::MAX } else { rng.usize(1..600) };
                self.carry(most);
            }
            3 => {
                let room = if rng.bool() { rng.usize(1..50_000) } else { rng.usize(1..400) };
                self.cable.grant(room);
            }
            4 | 5 => {
                let most = if rng.bool() { usize::MAX } else { rng.usize(1..600) };
                self.hear(most);
            }
            6 | 7 if self.connection.is_open => {
                let frames: Vec<_> = (0..rng.usize(1..5)).map(|_| bytes(rng)).collect();
                self.pushed.extend(frames.iter().flatten());
                event!("the hub pushes {} frames", frames.len());
                self.connection.push(frames);
            }
            // The hub answers with keys of its own.
            8 if self.connection.is_open && !self.client.is_handshaking() => {
                event!("the client changes its keys");
                let _ = self.client.refresh_traffic_keys();
            }
            _ => {}
        }
        if self.rng.bool() {
            self.poll();
        }
        assert!(self.memory.charged() <= CHARGED_MAX, "{} bytes are held", self.memory.charged());
        assert!(self.pushed.starts_with(&self.heard), "the client hears what is pushed, in order");
        assert!(
            self.said.starts_with(&self.connection.heard),
            "the hub hears what is said, in order"
        );
    }

    fn poll(&mut self) -> bool {
        let woken = self.connection.woken.0.swap(false, Ordering::Relaxed);
        if woken {
            self.connection.poll();
        }
        woken
    }

    /// Some of what the client has written comes to the hub.
    fn carry(&mut self, most: usize) -> bool {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.unsent).expect("into memory");
        }
        let piece: Vec<u8> = self.unsent.drain(..most.min(self.unsent.len())).collect();
        if !piece.is_empty() {
            self.cable.send(&piece);
        }
        !piece.is_empty()
    }

    /// The client reads some of what has come to it.
    fn hear(&mut self, most: usize) -> bool {
        let mut kernel = self.cable.lock();
        let n = most.min(kernel.to_client.len());
        let piece: Vec<u8> = kernel.to_client.drain(..n).collect();
        drop(kernel);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("from memory");
            self.client.process_new_packets().expect("the hub keeps the rules");
            // With an error at a place where nothing has come yet.
            let _ = self.client.reader().read_to_end(&mut self.heard);
        }
        n > 0
    }

    /// Lets everything go on until nothing moves.
    fn rest(&mut self) {
        let mut rounds = 0;
        self.cable.grant(1 << 30);
        while [self.carry(usize::MAX), self.poll(), self.hear(usize::MAX)] != [false; 3] {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "the task runs again and again");
        }
    }
}

/// What is said at once: mostly little.
fn bytes(rng: &mut Rng) -> Vec<u8> {
    let most = if rng.u8(..4) == 0 { LONGEST } else { 300 };
    let first = rng.u8(..);
    (0..rng.usize(1..most)).map(|n| first.wrapping_add(n as u8)).collect()
}

#[test]
fn every_stream_keeps_its_promises() {
    Sweep::from_environment("sim::tls::every").run(|rng| {
        let mut scene = Scene::new(rng);
        for _ in 0..rng.usize(1..200) {
            scene.step();
        }
        scene.rest();
        assert!(scene.connection.is_open, "the handshake ends");
        assert_eq!(scene.client.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(scene.pushed == scene.heard, "the client hears all that is pushed");
        assert!(scene.said == scene.connection.heard, "the hub hears all that is said");
        assert_eq!(scene.memory.charged(), SESSION_BYTES, "at rest nothing is held");
        // One side ends, and the other says so too.
        if rng.bool() {
            scene.client.send_close_notify();
            scene.rest();
            assert!(scene.connection.has_ended, "the hub hears the end");
        }
        scene.connection.closes = true;
        scene.connection.woken.0.store(true, Ordering::Relaxed);
        scene.rest();
        assert!(scene.connection.has_closed && scene.cable.lock().is_shut);
        let end = scene.client.reader().read(&mut [0]);
        assert!(matches!(end, Ok(0)), "the client hears the end: {end:?}");
        scene.cable.end();
        scene.rest();
        assert!(scene.connection.has_ended);
        drop(scene.connection);
        assert_eq!(scene.memory.charged(), 0);
        Outcome::default()
    });
}

/// It may have mistaken the port. What it says shows whether it speaks HTTP, and so can read an answer.
#[test]
fn a_peer_without_tls_is_refused() {
    for (said, answer) in [("GET / HTTP/1.1\r\n", "HTTP/1.1 400 "), ("\0", "")] {
        let mut scene = Scene::new(&mut Rng::with_seed(1));
        scene.cable.grant(1 << 30);
        scene.cable.send(said.as_bytes());
        let cx = &mut Context::from_waker(Waker::noop());
        let ended = scene.connection.stream.poll_handshake(cx);
        assert!(matches!(ended, Poll::Ready(Err(_))), "{ended:?}");
        let answered: Vec<u8> = scene.cable.lock().to_client.drain(..).collect();
        assert!(
            answered.starts_with(answer.as_bytes()) && answered.is_empty() == answer.is_empty()
        );
    }
}
