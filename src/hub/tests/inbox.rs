//! The inbox's bounds, and the order in which senders continue.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::config::Config;
use crate::hub::client_id::Target;
use crate::hub::command::{Command, Publish};
use crate::hub::handle::Hub;
use crate::hub::inbox::{CommandReceiver, Inbox, inbox};
use crate::hub::tests::support::{Stage, Wakes, finished, numbered};
use crate::message::Message;

fn publish(message: Message) -> Command {
    Command::Publish { publish: Publish::by_hub(Target::All, message), reply: None }
}

/// The number of the next command's message.
fn take(commands: &CommandReceiver) -> Option<u32> {
    match commands.try_next()? {
        Command::Publish { publish, .. } => {
            Some(crate::hub::tests::support::number_of(publish.message.as_bytes()))
        }
        _ => None,
    }
}

/// An inbox of 8 commands for two messages of 100 bytes.
fn two_fit() -> (Inbox, CommandReceiver) {
    inbox(8, 2 * (100 + 2))
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Invariant 3: no more commands wait than the configuration says; the refused message comes back.
#[test]
fn try_publish_is_full_at_as_many_commands_as_allowed() {
    let (hub, _manager) = Hub::new(Config::default().inbox(3)).expect("valid");
    for _ in 0..3 {
        hub.try_publish("main", "x").expect("there is room");
    }
    let error = hub.try_publish("main", "refused").expect_err("no room");
    assert!(error.is_full());
    assert_eq!(error.into_message(), Some("refused".into()));
}

/// Invariant 3: nor more bytes.
#[test]
fn try_publish_is_full_at_as_many_bytes_as_allowed() {
    let config = Config::default().max_message(100).inbox_bytes(2 * (100 + 2) + 50);
    let (hub, _manager) = Hub::new(config).expect("valid");
    for number in 0..2 {
        hub.try_publish("main", numbered(number, 100)).expect("there is room");
    }
    let error = hub.try_publish("main", numbered(2, 100)).expect_err("no room");
    assert!(error.is_full());
    assert_eq!(error.into_message(), Some(numbered(2, 100)));
    hub.try_publish("main", numbered(3, 40)).expect("a shorter one fits");
}

#[test]
fn taking_a_command_frees_its_bytes() {
    let (inbox, commands) = two_fit();
    for number in 0..10 {
        inbox.try_send(publish(numbered(number, 100))).expect("there is room");
        assert_eq!(inbox.bytes(), 102);
        assert_eq!(take(&commands), Some(number));
        assert_eq!(inbox.bytes(), 0);
    }
}

#[test]
fn command_without_a_message_needs_no_bytes() {
    let (inbox, _outbox) = two_fit();
    inbox.try_send(publish(numbered(0, 100))).expect("there is room");
    inbox.try_send(publish(numbered(1, 100))).expect("there is room");
    inbox.try_send(Command::Wake).expect("there is room");
}

/// Polls the manager's side for its next command; counts its wakes.
fn poll_next(commands: &CommandReceiver, wakes: &Arc<Wakes>) -> Poll<Option<Command>> {
    let waker = Waker::from(Arc::clone(wakes));
    pin!(commands.next(false, None)).poll(&mut Context::from_waker(&waker))
}

#[test]
fn manager_that_waits_is_woken_by_a_command_and_by_the_end() {
    let (inbox, commands) = two_fit();
    let wakes = Arc::new(Wakes::default());
    assert!(poll_next(&commands, &wakes).is_pending());
    inbox.try_send(Command::Wake).expect("there is room");
    inbox.try_send(Command::Wake).expect("there is room");
    assert_eq!(wakes.take(), 1, "it has not looked since");
    for _ in 0..2 {
        assert!(matches!(poll_next(&commands, &wakes), Poll::Ready(Some(Command::Wake))));
    }
    assert!(poll_next(&commands, &wakes).is_pending());
    drop(inbox);
    assert_eq!(wakes.take(), 1);
    assert!(matches!(poll_next(&commands, &wakes), Poll::Ready(None)));
}

#[test]
fn publishers_that_wait_for_bytes_continue_in_order() {
    let (inbox, commands) = two_fit();
    let executor = smol::LocalExecutor::new();
    let inbox = &inbox;
    let mut order = Vec::new();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let task = executor
                .spawn(async move { inbox.send(publish(numbered(number, 100))).await.is_ok() });
            while executor.try_tick() {}
            task
        })
        .collect();
    while order.len() < 20 {
        order.push(take(&commands).expect("the next one waits"));
        while executor.try_tick() {}
    }
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    assert!(tasks.iter().all(smol::Task::is_finished));
}

#[test]
fn publishers_that_wait_for_the_inbox_continue_in_order() {
    let (inbox, commands) = inbox(2, 1 << 20);
    let executor = smol::LocalExecutor::new();
    let inbox = &inbox;
    for number in 0..20 {
        executor.spawn(async move { inbox.send(publish(numbered(number, 4))).await }).detach();
        while executor.try_tick() {}
    }
    for number in 0..20 {
        assert_eq!(take(&commands), Some(number));
        while executor.try_tick() {}
    }
}

/// When a long message leaves, all the short ones that now fit come in, not just one.
#[test]
fn bytes_that_are_freed_let_in_as_many_as_fit() {
    let (inbox, commands) = inbox(64, 1_000);
    let executor = smol::LocalExecutor::new();
    let inbox = &inbox;
    inbox.try_send(publish(numbered(0, 990))).expect("there is room");
    let tasks: Vec<_> =
        (1..9).map(|number| executor.spawn(inbox.send(publish(numbered(number, 60))))).collect();
    while executor.try_tick() {}
    assert_eq!(take(&commands), Some(0));
    while executor.try_tick() {}
    assert_eq!(tasks.iter().filter(|task| task.is_finished()).count(), 8);
}

/// A long message is not passed over for ever by short ones.
#[test]
fn long_message_is_not_starved_by_short_ones() {
    let (inbox, commands) = inbox(64, 1_000);
    let executor = smol::LocalExecutor::new();
    let inbox = &inbox;
    let send = |number, len| {
        let task = executor.spawn(inbox.send(publish(numbered(number, len))));
        while executor.try_tick() {}
        task
    };
    let mut short: Vec<_> = (0..4).map(|number| send(number, 300)).collect();
    let long = send(1_000, 900);
    for number in 4..20 {
        take(&commands).expect("there is always one");
        while executor.try_tick() {}
        short.push(send(number, 300));
    }
    assert!(long.is_finished(), "16 others were let in");
}

/// Invariant 3: bytes set aside by a publisher that gave up are not lost.
#[test]
fn cancelled_publishers_leak_no_bytes() {
    let (inbox, commands) = inbox(1, 1_000);
    inbox.try_send(publish(numbered(0, 4))).expect("there is room");
    for number in 1..50 {
        // It has its bytes and waits for a place, or waits for bytes.
        let mut first = Box::pin(inbox.send(publish(numbered(number, 900))));
        assert!(poll(first.as_mut()).is_pending());
        let mut second = Box::pin(inbox.send(publish(numbered(number, 900))));
        assert!(poll(second.as_mut()).is_pending());
        if number % 2 == 0 {
            drop(first);
            drop(second);
        } else {
            drop(second);
            drop(first);
        }
        assert_eq!(inbox.bytes(), 6);
    }
    assert_eq!(take(&commands), Some(0));
    assert_eq!(inbox.bytes(), 0);
}

/// A publisher that gives up between its wake and its next poll hands the wake on.
#[test]
fn cancelled_publisher_passes_its_wake_on() {
    let (inbox, commands) = inbox(8, 102);
    inbox.try_send(publish(numbered(0, 100))).expect("there is room");
    let mut first = Box::pin(inbox.send(publish(numbered(1, 100))));
    assert!(poll(first.as_mut()).is_pending());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut second = pin!(inbox.send(publish(numbered(2, 100))));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(take(&commands), Some(0));
    drop(first);
    assert_eq!(wakes.take(), 1);
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn waiting_publishers_fail_when_the_manager_ends() {
    let (inbox, commands) = two_fit();
    let executor = smol::LocalExecutor::new();
    let inbox = &inbox;
    let tasks: Vec<_> =
        (0..10).map(|number| executor.spawn(inbox.send(publish(numbered(number, 100))))).collect();
    while executor.try_tick() {}
    drop(commands);
    while executor.try_tick() {}
    let outcomes: Vec<_> = tasks.into_iter().map(finished).collect();
    assert!(outcomes[..2].iter().all(Result::is_ok), "sent before the end");
    let refused =
        outcomes[2..].iter().all(|outcome| matches!(outcome, Err(error) if error.is_closed()));
    assert!(refused, "the others hear of it");
}

/// The command that the manager has taken and not begun goes with it, and frees no bytes.
#[test]
fn waiting_publishers_fail_when_the_manager_ends_before_it_begins_a_command() {
    let (inbox, outbox) = inbox(8, 102);
    inbox.try_send(publish(numbered(0, 100))).expect("there is room");
    let mut waiting = pin!(inbox.send(publish(numbered(1, 100))));
    assert!(poll(waiting.as_mut()).is_pending());
    let mut manager = Box::pin(outbox.next(true, None));
    assert!(poll(manager.as_mut()).is_pending(), "behind a batch it lets the others run");
    drop(manager);
    drop(outbox);
    let Poll::Ready(Err(error)) = poll(waiting.as_mut()) else { panic!("it waits for ever") };
    assert!(error.is_closed());
}

/// Invariant 6: the news that a connection is gone needs no place in the inbox.
#[test]
fn departure_is_heard_through_a_full_inbox() {
    let stage = Stage::new(Config::default().inbox(2));
    let peer = stage.client(None, &["main"]);
    stage.hub.try_publish("other", "x").expect("there is room");
    stage.hub.try_publish("other", "x").expect("there is room");
    assert!(stage.hub.try_publish("other", "x").is_err(), "the inbox is full");
    let id = peer.queue.disconnect().expect("the registry holds it");
    stage.hub.report_gone(id);
    stage.rest();
    assert_eq!(stage.hub.stats().clients, 0);
}

/// Invariant 6: nor does an idle manager need a publish to notice.
#[test]
fn departure_wakes_an_idle_manager() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    let id = peer.queue.disconnect().expect("the registry holds it");
    stage.hub.report_gone(id);
    stage.rest();
    assert_eq!(stage.hub.stats().clients, 0);
    assert_eq!(stage.hub.stats().rooms, 0);
}
