//! How the manager ends, and what its end does to clients and callers.

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::queue_state::Phase;
use crate::hub::tests::support::{Stage, finished, numbered};

#[test]
fn dropping_the_manager_closes_every_queue_with_1001() {
    let stage = Stage::new(Config::default());
    let peers: Vec<_> = (0..3).map(|_| stage.client(None, &["main"])).collect();
    let pumps: Vec<_> = peers.iter().map(|peer| stage.start(peer.pump())).collect();
    let Stage { executor, hub, manager } = stage;
    drop(manager);
    while executor.try_tick() {}
    for (peer, pump) in peers.iter().zip(pumps) {
        assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
        assert_eq!(finished(pump), Phase::Closing, "its task was woken");
    }
    assert_eq!((hub.stats().clients, hub.stats().rooms), (0, 0));
}

#[test]
fn dropping_the_manager_fails_every_verb() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(Some("ada"), &["main"]);
    let (id, client) = (peer.id(), peer.client.clone());
    let Stage { executor, hub, manager } = stage;
    drop(manager);
    while executor.try_tick() {}
    let error = hub.try_publish("main", "x").expect_err("the manager has ended");
    assert!(error.is_closed());
    assert_eq!(error.into_message(), Some("x".into()));
    assert!(hub.try_broadcast("x").is_err_and(|error| error.is_closed()));
    let verbs = executor.spawn(async move {
        let back = hub.broadcast("back").await.expect_err("closed");
        assert!(back.is_closed());
        assert_eq!(back.into_message(), Some("back".into()));
        [
            hub.publish("main", "x").await.is_err_and(|error| error.is_closed()),
            hub.send(id, "x").await.is_err_and(|error| error.is_closed()),
            hub.send_to_user("ada", "x").await.is_err_and(|error| error.is_closed()),
            hub.join(id, "main").await.is_err_and(|error| error.is_closed()),
            hub.leave(id, "main").await.is_err_and(|error| error.is_closed()),
            hub.disconnect(id, Disconnect::NORMAL).await.is_err_and(|error| error.is_closed()),
            hub.clients().await.is_err_and(|error| error.is_closed()),
            hub.presence("main").await.is_err_and(|error| error.is_closed()),
            client.rooms().await.is_err_and(|error| error.is_closed()),
        ]
    });
    while executor.try_tick() {}
    assert_eq!(finished(verbs), [true; 9]);
}

#[test]
fn dropping_the_manager_fails_verbs_that_wait() {
    let (hub, manager) = Hub::new(Config::default().inbox(2)).expect("valid");
    let executor = smol::Executor::new();
    // Two wait for an answer, the others for a place in the inbox.
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let hub = hub.clone();
            executor.spawn(async move { hub.publish("main", "x").await })
        })
        .collect();
    while executor.try_tick() {}
    assert!(waiting.iter().all(|task| !task.is_finished()));
    drop(manager);
    while executor.try_tick() {}
    for task in waiting {
        assert!(finished(task).expect_err("the manager has ended").is_closed());
    }
    assert_eq!(hub.stats().held_bytes, 0);
}

#[test]
fn manager_ends_when_the_last_hub_and_client_are_gone() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    let (executor, manager) = (stage.executor, stage.manager);
    drop(stage.hub);
    while executor.try_tick() {}
    assert!(!manager.is_finished(), "a client is a handle as well");
    drop(peer.client);
    while executor.try_tick() {}
    assert!(manager.is_finished());
    assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
}

#[test]
fn manager_does_what_waits_before_it_ends_with_the_last_handle() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    for number in 0..100 {
        stage.hub.try_publish("main", numbered(number, 4)).expect("there is room");
    }
    let Stage { executor, hub, manager } = stage;
    let crate::hub::tests::support::Peer { client, sink, .. } = peer;
    drop((hub, client));
    while executor.try_tick() {}
    assert!(manager.is_finished());
    assert_eq!(sink.numbers().len(), 100);
}

#[test]
fn stop_ends_the_manager() {
    let stage = Stage::new(Config::default());
    let peer = stage.client(None, &["main"]);
    stage
        .call(|hub| async move { hub.send_command(Command::Stop).await })
        .expect("the manager runs");
    assert!(stage.has_ended());
    assert_eq!(peer.queue.reason(), Some(Disconnect::GOING_AWAY));
    let late = stage.call(|hub| async move { hub.publish("main", "x").await });
    assert!(late.is_err_and(|error| error.is_closed()));
}
