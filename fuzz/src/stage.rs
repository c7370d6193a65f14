//! A hub, a connection to it, and a peer that has sent all its bytes before the connection starts.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::io::{AsyncRead, AsyncWrite};
use hublet::{Config, Hub};

/// Polls that each byte may cost, and polls that a run may cost in addition.
const POLLS_PER_BYTE: usize = 64;
const POLLS: usize = 10_000;

/// A generator of small numbers from a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `n`.
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

/// The peer's end of the stream: sends its bytes in pieces and ends, and records what the hub
/// sends.
pub struct Peer {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    at: usize,
    /// Whether the next read is pending.
    early: bool,
    dice: Dice,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Peer {
    /// A peer that sends `bytes` in pieces of up to `piece` bytes, and the buffer of the bytes that
    /// it receives.
    pub fn new(bytes: &[u8], piece: usize, mut dice: Dice) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let mut pieces = VecDeque::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + dice.roll(piece)));
            pieces.push_back(now.to_vec());
            rest = later;
        }
        let heard = Arc::default();
        (Self { pieces, at: 0, early: false, dice, heard: Arc::clone(&heard) }, heard)
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.early) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let at = self.at;
        let Some(piece) = self.pieces.front() else { return Poll::Ready(Ok(0)) };
        let n = into.len().min(piece.len() - at);
        into[..n].copy_from_slice(&piece[at..at + n]);
        self.at += n;
        if self.at == self.pieces[0].len() {
            self.pieces.pop_front();
            self.at = 0;
            self.early = self.dice.roll(2) == 0;
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.dice.roll(8) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = bytes.len().min(1 + self.dice.roll(4096));
        self.heard.lock().expect("one thread").extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the future of `connection` to its end. It must not wait for a timer, and `len`, the bytes
/// of the peer, bounds its polls. No client, room or message may be left.
pub fn run<T, F>(config: Config, len: usize, connection: impl FnOnce(Hub) -> F) -> T
where
    F: Future<Output = T>,
{
    let (hub, manager) = Hub::new(config).expect("a valid configuration");
    let mut manager = pin!(manager);
    let outcome = {
        let mut connection = pin!(connection(hub.clone()));
        // One waker for both futures: a wake of the other one costs a poll.
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        loop {
            polls += 1;
            assert!(polls < POLLS + POLLS_PER_BYTE * len, "too many polls");
            if let Poll::Ready(outcome) = connection.as_mut().poll(&mut cx) {
                break outcome;
            }
            assert!(manager.as_mut().poll(&mut cx).is_pending(), "the hub is here");
            assert!(woken.0.swap(false, Ordering::Relaxed), "it waits and nothing will wake it");
        }
    };
    let mut cx = Context::from_waker(Waker::noop());
    // Enough polls to handle all commands that one client may have left in the inbox.
    for _ in 0..len + 64 {
        assert!(manager.as_mut().poll(&mut cx).is_pending(), "the hub is here");
    }
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.rooms, stats.connections), (0, 0, 0), "a client is left");
    assert_eq!(stats.held_bytes, 0, "no message is left");
    let fates = stats.messages_delivered + stats.messages_dropped + stats.messages_lost;
    assert_eq!(stats.recipients, fates, "a recipient is not counted once");
    outcome
}
