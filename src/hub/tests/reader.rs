//! Readers with `since` on a stage, and what tests do with them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use smol::Task;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::backlog::Taken;
use crate::hub::cursor::{Reader, Reading};
use crate::hub::queue_state::Phase;
use crate::hub::since::{Begin, Since};
use crate::hub::tests::support::{Peer, Stage, fates, number_of, numbered};

/// Every room keeps so many messages.
pub(super) fn keeping(messages: usize) -> Config {
    Config::default().history(vec![messages.to_string().parse().expect("a rule")])
}

/// A reader with `since`, as a WebSocket is one.
pub(super) fn counting(since: Since) -> Reading {
    Reading { reader: Reader::Counting, since: Some(since), ends: false }
}

/// A reader that is told each position, as a stream of events is one.
pub(super) fn numbering(since: Since) -> Reading {
    Reading { reader: Reader::Numbered, since: Some(since), ends: false }
}

/// Publishes messages with these numbers to the room, one after another.
pub(super) fn publish(stage: &Stage, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        stage
            .call(move |hub| async move { hub.publish("main", numbered(number, 4)).await })
            .expect("it runs");
    }
}

pub(super) fn position(stage: &Stage, room: &'static str) -> Option<u64> {
    stage.call(move |hub| async move { hub.position(room).await }).expect("the hub runs")
}

/// A reader with a socket that takes everything, and its task; where it begins.
pub(super) fn reader(stage: &Stage, since: Since) -> (Peer, Task<Phase>, Begin) {
    let (peer, begin) = stage.client_as(Some("ada"), &["main"], counting(since));
    peer.open();
    let pump = stage.start(peer.reader_pump());
    (peer, pump, begin.expect("it is told where it begins"))
}

/// What a client without a stream has been handed, with positions.
pub(super) type Heard = Arc<Mutex<Vec<(u32, Option<u64>)>>>;

/// A reader that is told each position and has no stream: a subscription is one.
pub(super) fn subscribe(stage: &Stage, reading: Reading) -> (Peer, Heard, Task<Disconnect>, Begin) {
    let (peer, begin) = stage.client_as(None, &["main"], reading);
    peer.queue.open(None);
    let taken = Heard::default();
    let (queue, hub, heard) = (Arc::clone(&peer.queue), stage.hub.clone(), Arc::clone(&taken));
    let task = stage.start(async move {
        loop {
            let next = poll_fn(|cx| {
                let next = queue.poll_take(cx);
                queue.take_request().into_iter().for_each(|id| hub.request_more(id));
                next
            });
            match next.await {
                Ok(Taken { message, position, .. }) => {
                    let number = number_of(message.as_bytes());
                    heard.lock().expect("not poisoned").push((number, position));
                }
                Err(reason) => return reason,
            }
        }
    });
    (peer, taken, task, begin.expect("it is told where it begins"))
}

/// Every recipient has one fate.
pub(super) fn check_fates(stage: &Stage) {
    let recipients = stage.hub.stats().recipients;
    let fates: u64 = fates(&stage.hub.shared().queue_config.counters).iter().sum();
    assert_eq!(recipients, fates, "each recipient is delivered, dropped or lost");
}
