//! Fuzzes the reader of the state that a hub hands to another process: any text is refused or read,
//! and what was read is written and read back as the same.

use std::fs::File;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hublet::{Config, HistoryRule, Hub};

/// Connections of a run at most, each with a descriptor.
const CONNECTIONS_MAX: usize = 16;

/// Polls until the hub has handed itself over, at most.
const POLLS: usize = 1_000;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if has_high_slot(text) {
        return;
    }
    let Some(first) = pass_on(text) else { return };
    let second = pass_on(&first).expect("it reads what it has written");
    assert_eq!(sorted(&first), sorted(&second));
}

/// Whether a client has a high slot: the registry has a place for each slot below, as the one before
/// had.
fn has_high_slot(text: &str) -> bool {
    let digits = |rest: &str| rest.bytes().take_while(u8::is_ascii_digit).count();
    text.split(" id=").skip(1).any(|rest| digits(rest) > 3)
}

/// Makes a hub of a state, and returns the state that it hands on; `None` if the state is refused.
/// No connection is served, so that its client stays behind.
fn pass_on(text: &str) -> Option<String> {
    let rule = |text: &str| text.parse::<HistoryRule>().expect("a rule");
    // Rooms that are never over: a run must not depend on its time.
    let config = Config::default()
        .history(vec![rule("8"), rule("quiet*=0")])
        .history_bytes(400)
        .history_age(Duration::ZERO);
    let is_connection =
        |line: &&str| ["http ", "websocket ", "events "].iter().any(|kind| line.starts_with(kind));
    let connections = text.lines().filter(is_connection).take(CONNECTIONS_MAX).count();
    let open = |_| OwnedFd::from(File::open("/dev/null").expect("it is there"));
    let taken = Hub::take_over(config, text, (0..connections).map(open).collect());
    let (hub, manager, _connections) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            assert!(error.is_config(), "{error}");
            return None;
        }
    };
    let (mut manager, mut handing) = (pin!(manager), pin!(hub.hand_over()));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..POLLS {
        assert!(manager.as_mut().poll(&mut cx).is_pending(), "a manager does not end");
        if let Poll::Ready(handed) = handing.as_mut().poll(&mut cx) {
            return Some(handed.expect("the manager runs").state().to_owned());
        }
    }
    panic!("it is not handed over");
}

/// The state without what depends on the time, and its rooms in one order.
fn sorted(state: &str) -> (Vec<&str>, Vec<Vec<&str>>) {
    let mut lines = state.lines();
    let hub = lines.next().unwrap_or_default().split(' ');
    let hub = hub.filter(|word| !word.starts_with("uptime=")).collect();
    let mut rooms: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        if line.starts_with("room ") {
            // Behind the number.
            rooms.push(vec![line.splitn(3, ' ').nth(2).unwrap_or_default()]);
        } else if let Some(room) = rooms.last_mut() {
            room.push(line);
        }
    }
    rooms.sort();
    (hub, rooms)
}
