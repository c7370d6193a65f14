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

/// A stream of at most this many pieces is cut as finely as its run asks for. A stream of more pieces
/// is cut so in one part, which the seed chooses, and coarsely before and after it. Each piece costs
/// a poll or two, and polls are most of the cost of a run.
const PIECES: usize = 24;

/// One in so many of the streams of more pieces is cut finely from end to end.
const IN_FULL: usize = 8;

/// One turn in so many polls both futures, woken or not: a poll without a wake must change nothing.
const IN_VAIN: usize = 16;

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
    bytes: Vec<u8>,
    /// The ends of the pieces that are not read yet.
    ends: VecDeque<usize>,
    /// Bytes that the hub has read.
    at: usize,
    /// Whether the next read is pending.
    early: bool,
    dice: Dice,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Peer {
    /// A peer that sends the first `whole` bytes in one piece and the others in pieces of up to
    /// `piece` bytes, and the buffer of the bytes that it receives.
    pub fn new(
        bytes: Vec<u8>,
        whole: usize,
        piece: usize,
        mut dice: Dice,
    ) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let mut ends = VecDeque::new();
        let mut end = whole;
        while end < bytes.len() {
            end += (bytes.len() - end).min(1 + dice.roll(piece));
            ends.push_back(end);
        }
        let pieces = ends.len();
        if pieces > PIECES && dice.roll(IN_FULL) != 0 {
            let fine = dice.roll(pieces - PIECES + 1);
            let coarse = pieces.div_ceil(PIECES);
            let mut index = 0;
            ends.retain(|_| {
                let is_fine = (fine..fine + PIECES).contains(&index);
                index += 1;
                is_fine || index % coarse == 0 || index == pieces
            });
        }
        if whole > 0 {
            ends.push_front(whole);
        }
        let heard = Arc::default();
        (Self { bytes, ends, at: 0, early: false, dice, heard: Arc::clone(&heard) }, heard)
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
        let Some(&end) = self.ends.front() else { return Poll::Ready(Ok(0)) };
        let (begin, n) = (self.at, into.len().min(end - self.at));
        self.at += n;
        into[..n].copy_from_slice(&self.bytes[begin..self.at]);
        if self.at == end {
            self.ends.pop_front();
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

/// Whether a future was woken since it was last polled.
struct Woken(AtomicBool);

impl Woken {
    /// A future that has begun: nothing else polls it first.
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the future of `connection` to its end. It must not wait for a timer, and `len`, the bytes
/// of the peer, bounds its polls. No client, room or message may be left.
///
/// Each run has a hub of its own, so that no state of a run reaches the next one. The connection and
/// the manager have a waker each, so that neither wakes the other by chance.
pub fn run<T, F>(config: Config, len: usize, connection: impl FnOnce(Hub) -> F) -> T
where
    F: Future<Output = T>,
{
    let (hub, manager) = Hub::new(config).expect("a valid configuration");
    let mut manager = pin!(manager);
    let manager_woken = Woken::new();
    let waker = Waker::from(Arc::clone(&manager_woken));
    let mut manager_cx = Context::from_waker(&waker);
    let mut dispatch = || {
        assert!(manager.as_mut().poll(&mut manager_cx).is_pending(), "the hub is here");
    };
    let mut dice = Dice::new(len as u64);
    let outcome = {
        let mut connection = pin!(connection(hub.clone()));
        let woken = Woken::new();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        loop {
            polls += 1;
            assert!(polls < POLLS + POLLS_PER_BYTE * len, "too many polls");
            let in_vain = dice.roll(IN_VAIN) == 0;
            let its_turn = woken.take();
            if its_turn || in_vain {
                if let Poll::Ready(outcome) = connection.as_mut().poll(&mut cx) {
                    break outcome;
                }
            }
            let managers_turn = manager_woken.take();
            if managers_turn || in_vain {
                dispatch();
            }
            assert!(its_turn || managers_turn, "it waits and nothing will wake it");
        }
    };
    // The end of the connection has woken the manager, and each poll of the manager does a batch.
    let mut polls = 0;
    while manager_woken.take() {
        polls += 1;
        assert!(polls < len + 64, "too many polls of the manager");
        dispatch();
    }
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.rooms, stats.connections), (0, 0, 0), "a client is left");
    assert_eq!(stats.held_bytes, 0, "no message is left");
    let fates = stats.messages_delivered + stats.messages_dropped + stats.messages_lost;
    assert_eq!(stats.recipients, fates, "a recipient is not counted once");
    outcome
}
