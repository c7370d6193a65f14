//! What each verb does and what it refuses.

use std::sync::Arc;

use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::hub::backlog::backlog_size;
use crate::hub::client_id::{ClientId, Refusal};
use crate::hub::manager::FANOUT;
use crate::hub::queue::Queue;
use crate::hub::tests::support::Stage;
use crate::message::Message;

#[test]
fn send_reaches_one_client() {
    let stage = Stage::new(Config::default());
    let (ada, bob) = (stage.client(None, &["main"]), stage.client(None, &["main"]));
    let id = ada.id();
    let sent = stage.call(|hub| async move { hub.send(id, "x").await });
    assert_eq!(sent.expect("the hub runs"), 1);
    assert_eq!(ada.texts(), ["x"]);
    assert!(bob.texts().is_empty());
}

#[test]
fn client_can_send_to_itself() {
    let stage = Stage::new(Config::default());
    let ada = stage.client(None, &[]);
    let client = ada.client.clone();
    assert_eq!(stage.run(async move { client.send("x").await }).expect("the hub runs"), 1);
    assert_eq!(ada.texts(), ["x"]);
}

#[test]
fn send_to_a_client_that_has_gone_reaches_none_and_is_no_error() {
    let stage = Stage::new(Config::default());
    let id = stage.client(None, &[]).id();
    stage
        .call(|hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
        .expect("it is there");
    let sent = stage.call(|hub| async move { hub.send(id, "x").await });
    assert_eq!(sent.expect("the hub runs"), 0);
}

#[test]
fn send_to_user_reaches_each_of_its_clients() {
    let stage = Stage::new(Config::default());
    let phone = stage.client(Some("ada"), &[]);
    let laptop = stage.client(Some("ada"), &["main"]);
    let bob = stage.client(Some("bob"), &["main"]);
    let anonymous = stage.client(None, &["main"]);
    let sent = stage.call(|hub| async move { hub.send_to_user("ada", "x").await });
    assert_eq!(sent.expect("the hub runs"), 2);
    assert_eq!((phone.texts(), laptop.texts()), (vec!["x".into()], vec!["x".into()]));
    assert!(bob.texts().is_empty() && anonymous.texts().is_empty());
    let none = stage.call(|hub| async move { hub.send_to_user("eve", "x").await });
    assert_eq!(none.expect("no such user is no error"), 0);
}

#[test]
fn join_and_leave_change_the_clients_that_are_reached() {
    let stage = Stage::new(Config::default());
    let ada = stage.client(None, &[]);
    let client = ada.client.clone();
    let counts = stage.run(async move {
        let mut counts = Vec::new();
        let hub = client.hub();
        counts.push(hub.publish("main", "0").await.expect("the hub runs"));
        client.join("main").await.expect("there is a place");
        client.join("main").await.expect("being there is no error");
        counts.push(hub.publish("main", "1").await.expect("the hub runs"));
        client.leave("main").await.expect("it is there");
        client.leave("main").await.expect("not being there is no error");
        counts.push(hub.publish("main", "2").await.expect("the hub runs"));
        counts
    });
    assert_eq!(counts, [0, 1, 0]);
    assert_eq!(ada.texts(), ["1"]);
    assert_eq!(stage.hub.stats().rooms, 0);
}

#[test]
fn join_refuses_a_name_that_is_no_name() {
    let stage = Stage::new(Config::default());
    let id = stage.client(None, &[]).id();
    for name in [String::new(), "a\nb".into(), "x".repeat(129)] {
        let refused = stage.call(|hub| async move { hub.join(id, &name).await });
        assert!(refused.is_err_and(|error| error.is_name()));
    }
    let longest = "x".repeat(128);
    stage.call(|hub| async move { hub.join(id, &longest).await }).expect("128 bytes are allowed");
}

#[test]
fn join_is_refused_at_each_limit_and_changes_nothing() {
    let stage = Stage::new(Config::default().max_rooms(2).max_rooms_per_client(2));
    let (ada, bob) = (stage.client(None, &["a", "b"]), stage.client(None, &["a"]));
    let (full, other) = (ada.client.clone(), bob.client.clone());
    let (per_client, rooms) =
        stage.run(async move { (full.join("c").await, other.join("c").await) });
    let per_client = per_client.expect_err("it is in 2 rooms");
    assert!(per_client.is_limit());
    assert_eq!(per_client.to_string(), "the client is in 2 rooms, the limit");
    let rooms = rooms.expect_err("2 rooms exist");
    assert!(rooms.is_limit());
    assert_eq!(rooms.to_string(), "2 rooms exist, the limit");
    assert_eq!(stage.hub.stats().rooms, 2);
    let client = bob.client.clone();
    stage.run(async move { client.join("b").await }).expect("a room that exists has no limit");
}

#[test]
fn register_is_refused_at_the_room_limit() {
    let stage = Stage::new(Config::default().max_rooms(1));
    let _ada = stage.client(None, &["a"]);
    let queue = Queue::new(&stage.hub.shared().queue_config);
    assert_eq!(stage.register(&queue, None, &["b"]), Err(Refusal::Rooms));
    assert_eq!(stage.hub.stats().clients, 1);
}

/// Invariant 6: a connection that ended while its client was being registered is not kept.
#[test]
fn register_of_one_that_is_gone_already_is_refused() {
    let stage = Stage::new(Config::default());
    let queue = Queue::new(&stage.hub.shared().queue_config);
    assert_eq!(queue.disconnect(), None);
    assert_eq!(stage.register(&queue, None, &["main"]), Err(Refusal::Gone));
    assert_eq!(stage.hub.stats().clients, 0);
}

#[test]
fn rooms_presence_and_clients_list_each_client_where_it_is() {
    let stage = Stage::new(Config::default());
    let ada = stage.client(Some("ada"), &["a", "b"]);
    let bob = stage.client(None, &["b"]);
    let client = ada.client.clone();
    let rooms = stage.run(async move { client.rooms().await }).expect("it is there");
    assert_eq!(rooms, ["a".into(), "b".into()] as [Arc<str>; 2]);

    let present = stage.call(|hub| async move { hub.presence("b").await }).expect("it runs");
    let present: Vec<_> = present.iter().map(|m| (m.id, m.user.as_deref())).collect();
    assert_eq!(present, [(ada.id(), Some("ada")), (bob.id(), None)]);

    let none = stage.call(|hub| async move { hub.presence("c").await }).expect("it runs");
    assert!(none.is_empty());

    let clients = stage.call(|hub| async move { hub.clients().await }).expect("it runs");
    let clients: Vec<_> = clients.iter().map(|member| member.id).collect();
    assert_eq!(clients, [ada.id(), bob.id()]);
}

#[test]
fn presence_shows_what_waits() {
    let stage = Stage::new(Config::default());
    let slow = stage.client_with_room(0, None, &["main"]);
    let sent = stage.call(|hub| async move { hub.publish("main", "x").await });
    assert_eq!(sent.expect("it runs"), 1);
    let present = stage.call(|hub| async move { hub.presence("main").await }).expect("it runs");
    assert_eq!((present[0].id, present[0].waiting, present[0].missed), (slow.id(), 1, 0));
}

#[test]
fn disconnect_closes_the_queue_with_its_reason() {
    let stage = Stage::new(Config::default());
    let ada = stage.client(None, &["main"]);
    let id = ada.id();
    let reason = Disconnect::new(4000, "kicked");
    let kick = reason.clone();
    stage.call(|hub| async move { hub.disconnect(id, kick).await }).expect("it is there");
    assert_eq!(ada.queue.reason(), Some(reason));
    assert_eq!((stage.hub.stats().clients, stage.hub.stats().rooms), (0, 0));
}

#[test]
fn verbs_on_the_gone_say_so() {
    let stage = Stage::new(Config::default());
    let ada = stage.client(None, &["main"]);
    let (id, client) = (ada.id(), ada.client.clone());
    stage
        .call(|hub| async move { hub.disconnect(id, Disconnect::NORMAL).await })
        .expect("it is there");
    let unknown = stage.run(async move {
        [
            client
                .hub()
                .disconnect(id, Disconnect::NORMAL)
                .await
                .map_err(|e| e.is_unknown_client()),
            client.join("main").await.map_err(|error| error.is_unknown_client()),
            client.leave("main").await.map_err(|error| error.is_unknown_client()),
            client.rooms().await.map(drop).map_err(|error| error.is_unknown_client()),
        ]
    });
    assert_eq!(unknown, [Err(true); 4]);
}

#[test]
fn message_over_the_limit_comes_back() {
    let stage = Stage::new(Config::default().max_message(5));
    let error = stage.hub.try_broadcast("123456").expect_err("6 bytes");
    assert!(error.is_too_long());
    assert_eq!(error.to_string(), "message of 6 bytes exceeds the limit of 5");
    assert_eq!(error.into_message(), Some("123456".into()));
    stage.hub.try_broadcast("12345").expect("5 bytes");
    let message = Message::from("123456");
    let error = stage.call(|hub| async move { hub.publish("main", message).await });
    assert!(error.is_err_and(|error| error.is_too_long()));
}

/// What the hub holds is known, each message once, and let go with its last recipient.
#[test]
fn memory_counts_a_message_once_for_all_its_recipients() {
    let stage = Stage::new(Config::default());
    let slow: Vec<_> = (0..3).map(|_| stage.client_with_room(0, None, &["main"])).collect();
    let message = Message::from("hello");
    let size = message.size();
    let sent = stage.call(|hub| async move { hub.publish("main", message).await });
    assert_eq!(sent.expect("it runs"), 3);
    let channels = slow.len() * backlog_size(Config::QUEUE);
    assert_eq!(stage.hub.stats().held_bytes, size + channels);
    for peer in &slow {
        peer.queue.disconnect();
    }
    assert_eq!(stage.hub.stats().held_bytes, 0);
    assert_eq!(stage.hub.stats().messages_lost, 3);
}

#[test]
fn user_clients_and_rooms_are_listed() {
    let stage = Stage::new(Config::default());
    let phone = stage.client(Some("ada"), &["news"]);
    let laptop = stage.client(Some("ada"), &["lobby", "news"]);
    let _bob = stage.client(Some("bob"), &["news"]);
    let clients = stage.call(|hub| async move { hub.user_clients("ada").await }).expect("it runs");
    let ids: Vec<_> = clients.iter().map(|member| member.id).collect();
    assert_eq!(ids, [phone.id(), laptop.id()]);
    let none = stage.call(|hub| async move { hub.user_clients("eve").await }).expect("it runs");
    assert!(none.is_empty());
    let rooms = stage.call(|hub| async move { hub.rooms().await }).expect("it runs");
    let rooms: Vec<_> = rooms.iter().map(|room| (&*room.name, room.members)).collect();
    assert_eq!(rooms, [("lobby", 1), ("news", 3)]);
}

/// More clients than the manager ends in one step, among others.
#[test]
fn disconnect_user_ends_each_of_its_clients_and_no_other() {
    let stage = Stage::new(Config::default());
    let bob = stage.client(Some("bob"), &["main"]);
    let adas: Vec<_> = (0..2 * FANOUT + 1).map(|_| stage.client(Some("ada"), &["main"])).collect();
    let last = stage.client(None, &["main"]);
    let reason = Disconnect::new(4000, "logged out");
    let logout = reason.clone();
    let ended = stage.call(|hub| async move { hub.disconnect_user("ada", logout).await });
    assert_eq!(ended.expect("it runs"), adas.len());
    assert!(adas.iter().all(|ada| ada.queue.reason().as_ref() == Some(&reason)));
    assert_eq!((bob.queue.reason(), last.queue.reason()), (None, None));
    assert_eq!(stage.hub.stats().clients, 2);
    let again = Disconnect::NORMAL;
    let none = stage.call(|hub| async move { hub.disconnect_user("ada", again).await });
    assert_eq!(none.expect("no such user is no error"), 0);
    let refused = stage.call(|hub| async move { hub.disconnect_user("", reason).await });
    assert!(refused.is_err_and(|error| error.is_name()));
}

#[test]
fn what_does_not_wait_reaches_one_client_or_one_user() {
    let stage = Stage::new(Config::default());
    let (ada, bob) = (stage.client(Some("ada"), &[]), stage.client(Some("bob"), &[]));
    stage.hub.try_send(bob.id(), "to bob").expect("there is room");
    stage.hub.try_send_to_user("ada", "to ada").expect("there is room");
    stage.call(|hub| async move { hub.publish("main", "x").await }).expect("it runs");
    assert_eq!((ada.texts(), bob.texts()), (vec!["to ada".into()], vec!["to bob".into()]));
}

#[test]
fn client_ids_are_read_as_they_are_written() {
    let stage = Stage::new(Config::default());
    let id = stage.client(None, &[]).id();
    assert_eq!(id.to_string().parse::<ClientId>().ok(), Some(id));
    for text in ["", "1", "1-", "-1", "+1-2", "1-+2", "1-2-3", "1-4294967296", "a-b", " 1-2"] {
        let refused = text.parse::<ClientId>();
        assert!(refused.is_err_and(|error| error.is_unknown_client()), "{text:?}");
    }
}
