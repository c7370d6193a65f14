//! Tests of `net/epoll.rs`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use std::time::Duration;

use futures_lite::future::{or, poll_fn, yield_now};

use super::*;
use crate::time::clock::Clock;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A poller, a registered socket, and the socket's other end.
fn pair() -> (Arc<Poller>, EpollSource<UnixStream>, UnixStream) {
    let poller = Arc::new(Poller::new().expect("descriptors"));
    let (ours, theirs) = UnixStream::pair().expect("descriptors");
    ours.set_nonblocking(true).expect("a socket");
    let socket = EpollSource::new(&poller, ours).expect("room in epoll");
    (poller, socket, theirs)
}
fn run<F: Future>(poller: &Poller, future: F) -> F::Output {
    poller.block_on(future)
}
async fn readable(socket: &EpollSource<UnixStream>) {
    poll_fn(|cx| socket.poll_readable(cx)).await;
}
/// Whether a socket is still not ready after the poller has fetched events.
async fn is_quiet(socket: &EpollSource<UnixStream>) -> bool {
    // A task that wakes itself is polled again after the poller has fetched events.
    yield_now().await;
    poll_fn(|cx| Poll::Ready(socket.poll_readable(cx).is_pending())).await
}
#[test]
fn data_from_before_and_after_registration_is_reported_once() {
    let poller = Arc::new(Poller::new().expect("descriptors"));
    let (ours, mut peer) = UnixStream::pair().expect("descriptors");
    peer.write_all(b"early data").expect("room");
    let socket = EpollSource::new(&poller, ours).expect("room in epoll");
    run(&poller, async {
        readable(&socket).await;
        assert!(is_quiet(&socket).await, "reported twice");
        for _ in 0..3 {
            peer.write_all(b"data").expect("room");
            readable(&socket).await;
            assert!(is_quiet(&socket).await, "reported twice");
        }
    });
}
#[test]
fn read_that_filled_its_buffer_is_followed_by_another() {
    let (poller, socket, mut peer) = pair();
    peer.write_all(b"data").expect("room");
    run(&poller, async {
        readable(&socket).await;
        assert!(is_quiet(&socket).await);
        socket.expect_more();
        assert!(!is_quiet(&socket).await);
        assert!(is_quiet(&socket).await);
    });
}
#[test]
fn end_of_the_stream_is_reported_for_ever() {
    let (poller, socket, mut peer) = pair();
    peer.write_all(b"data").expect("room");
    peer.shutdown(Shutdown::Write).expect("connected");
    run(&poller, async {
        readable(&socket).await;
        yield_now().await;
        // The end came with the last bytes; reading them does not consume the end.
        for _ in 0..3 {
            assert!(!is_quiet(&socket).await);
        }
    });
}
#[test]
fn full_socket_is_reported_when_it_has_room() {
    let (poller, socket, mut peer) = pair();
    let fill = || {
        let mut written = 0;
        loop {
            match socket.get_ref().write(&[7; 4096]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return written,
                Err(error) => panic!("{error}"),
            }
        }
    };
    run(&poller, async {
        let mut left = 3 * fill();
        let reader = thread::spawn(move || {
            let mut read = 0;
            let mut bytes = [0; 65536];
            loop {
                match peer.read(&mut bytes).expect("connected") {
                    0 => return read,
                    n => read += n,
                }
            }
        });
        let total = left;
        left -= left / 3;
        while left > 0 {
            poll_fn(|cx| socket.poll_writable(cx)).await.expect("epoll takes it");
            left = left.saturating_sub(fill());
        }
        socket.get_ref().shutdown(Shutdown::Write).expect("connected");
        assert!(reader.join().expect("it read") >= total);
    });
}
#[test]
fn event_of_a_dropped_socket_does_not_reach_the_next_one_with_its_key() {
    let (poller, socket, _peer) = pair();
    let token = socket.registration.token().u64();
    drop(socket);
    let (ours, _theirs) = UnixStream::pair().expect("descriptors");
    let socket = EpollSource::new(&poller, ours).expect("room in epoll");
    assert_eq!(socket.registration.token().u64() as u32, token as u32, "the key");
    assert_ne!(socket.registration.token().u64(), token);
    poller.dispatch(token, EventFlags::IN | EventFlags::RDHUP);
    assert!(run(&poller, is_quiet(&socket)));
    poller.dispatch(socket.registration.token().u64(), EventFlags::IN);
    assert!(!run(&poller, is_quiet(&socket)));
}
#[test]
fn shared_socket_is_deregistered_when_it_is_dropped() {
    let poller = Arc::new(Poller::new().expect("descriptors"));
    let (ours, mut peer) = UnixStream::pair().expect("descriptors");
    for _ in 0..3 {
        let copy = ours.try_clone().expect("descriptors");
        let socket = EpollSource::shared(&poller, copy).expect("the last one is deregistered");
        run(&poller, async {
            peer.write_all(b"data").expect("room");
            readable(&socket).await;
        });
    }
    assert_eq!(poller.registrations().len(), 0);
}
#[test]
fn wake_from_another_thread_ends_the_wait() {
    let (poller, _socket, _peer) = pair();
    for _ in 0..1000 {
        let mut waker = None;
        let woken = Arc::new(AtomicBool::new(false));
        run(&poller, async {
            let waits = poll_fn(|cx| {
                if woken.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                if waker.is_none() {
                    let (waking, woken) = (cx.waker().clone(), Arc::clone(&woken));
                    waker = Some(thread::spawn(move || {
                        woken.store(true, Ordering::SeqCst);
                        waking.wake();
                    }));
                }
                Poll::Pending
            });
            waits.await;
        });
        waker.expect("it waited").join().expect("it woke");
    }
}
#[test]
fn alarm_ends_the_wait() {
    let poller = Arc::new(Poller::new().expect("descriptors"));
    let clock = Clock::Reactor(Arc::clone(poller.alarms()));
    let begin = now();
    for nth in 1..=10 {
        run(&poller, clock.at(begin + nth * MILLISECOND));
        assert!(now() >= begin + nth * MILLISECOND, "too early");
    }
}
#[test]
fn earlier_alarm_of_another_thread_ends_the_wait() {
    let (poller, ..) = pair();
    let clock = Clock::Reactor(Arc::clone(poller.alarms()));
    let (leave, left) = async_channel::bounded::<()>(1);
    thread::scope(|scope| {
        // It waits for sockets, and for a time that does not come.
        let first = scope.spawn(|| {
            let never = clock.after(1_000_000 * MILLISECOND);
            let left = async {
                let _ = left.recv().await;
            };
            poller.block_on(or(left, never));
        });
        for _ in 0..20 {
            let other = scope.spawn(|| run(&poller, clock.after(MILLISECOND)));
            other.join().expect("no panic");
        }
        drop(leave);
        first.join().expect("it leaves");
    });
}
#[test]
fn parked_thread_takes_over_when_the_poller_leaves() {
    let (poller, socket, mut peer) = pair();
    let (leave, left) = async_channel::bounded::<()>(1);
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            poller.block_on(async {
                ready.send(()).expect("the test waits");
                left.recv().await
            })
        });
        is_ready.recv().expect("it runs");
        let second = scope.spawn(|| run(&poller, readable(&socket)));
        while poller.parked().is_empty() && !second.is_finished() {
            thread::yield_now();
        }
        drop(leave);
        assert!(first.join().expect("it leaves").is_err());
        peer.write_all(b"data").expect("room");
        second.join().expect("it was woken");
    });
    assert!(poller.parked().is_empty());
}
#[test]
fn parked_thread_is_woken() {
    let (poller, _socket, _peer) = pair();
    let (leave, left) = async_channel::bounded::<()>(1);
    thread::scope(|scope| {
        let first = scope.spawn(|| poller.block_on(async { left.recv().await }));
        for _ in 0..100 {
            let (sender, receiver) = async_channel::bounded(1);
            let other = scope.spawn(|| poller.block_on(async move { receiver.recv().await }));
            sender.send_blocking(7).expect("room");
            assert_eq!(other.join().expect("it returns"), Ok(7));
        }
        drop(leave);
        assert!(first.join().expect("it leaves").is_err());
    });
}
#[test]
fn waker_does_not_outlive_its_socket() {
    let (poller, socket, _peer) = pair();
    let parker = Arc::new(());
    struct Unwoken(#[allow(dead_code, reason = "it is counted")] Arc<()>);
    impl Wake for Unwoken {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Unwoken(Arc::clone(&parker))));
    let mut cx = Context::from_waker(&waker);
    assert!(socket.poll_readable(&mut cx).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&parker), 2);
    drop(socket);
    assert_eq!(Arc::strong_count(&parker), 1);
    assert_eq!(Arc::strong_count(&poller), 1);
}
