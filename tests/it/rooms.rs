//! Rooms: by path, by verb, and as long as they have members.

use hublet::{Client, Config, Disconnect, Error, Handler, Message};
use smol::future::block_on;

use crate::peer::Peer;
use crate::support::{TestHub, gone, until};

/// `+room` and `-room` change rooms; any other text goes to the other members of the sender's
/// rooms.
struct Rooms;

impl Rooms {
    async fn obey(client: &Client, text: &str) -> Result<(), Error> {
        match text.split_at(1) {
            ("+", room) => client.join(room).await?,
            ("-", room) => client.leave(room).await?,
            _ => {
                for room in client.rooms().await? {
                    client.publish(&room, text).await?;
                }
                return Ok(());
            }
        }
        client.send("done").await.map(drop)
    }
}

impl Handler for Rooms {
    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let text = message.as_text().ok_or(Disconnect::UNSUPPORTED)?;
        match Self::obey(client, text).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_limit() || error.is_name() => {
                client.send(error.to_string()).await.map(drop).map_err(gone)
            }
            Err(error) => Err(gone(error)),
        }
    }
}

fn rooms(config: Config) -> TestHub {
    TestHub::serving(config, Rooms)
}

#[test]
fn a_message_stays_in_the_room_that_the_path_names() {
    let hub = rooms(Config::default());
    let mut here = [hub.join_at("/ws/here"), hub.join_at("/ws/here?x=y")];
    let mut there = hub.join_at("/ws/there");
    let mut main = hub.join_at("/ws");
    here[0].say("only here");
    here[1].hears("only here");
    assert_eq!(hub.ask(hub.hub.publish("there", "only there")), 1);
    there.hears("only there");
    assert_eq!(hub.ask(hub.hub.publish("main", "only in main")), 1);
    main.hears("only in main");
    // Any other message would have arrived before this one.
    assert_eq!(hub.broadcast("everywhere"), 4);
    here.iter_mut().chain([&mut there, &mut main]).for_each(|peer| peer.hears("everywhere"));
}

#[test]
fn a_room_is_one_path_segment_decoded_once() {
    let hub = rooms(Config::default().http(true));
    let mut peer = hub.join_at("/ws/caf%C3%A9%2F%2541");
    assert_eq!(hub.ask(hub.hub.publish("café/%41", "found")), 1);
    peer.hears("found");
    for path in ["/ws/", "/ws/a/b", "/ws/.", "/ws/%2e%2E", "/ws/%00", "/ws/%ff", "/wss", "/ws/%"] {
        assert_eq!(Peer::ask(&hub.address, path).1, 404, "{path}");
    }
    let longest = "x".repeat(128);
    let _peer = hub.join_at(&format!("/ws/{longest}"));
    assert_eq!(Peer::ask(&hub.address, &format!("/ws/{longest}x")).1, 404);
}

#[test]
fn clients_join_and_leave_rooms() {
    let hub = rooms(Config::default());
    let mut ada = hub.join();
    let mut bob = hub.join_at("/ws/elsewhere");
    bob.say("+main");
    bob.hears("done");
    ada.say("welcome");
    bob.hears("welcome");
    bob.say("-main");
    bob.hears("done");
    ada.say("no other member");
    // The manager handles this after the message before.
    ada.say("+elsewhere");
    ada.hears("done");
    bob.say("hello in elsewhere");
    ada.hears("hello in elsewhere");
}

#[test]
fn hub_moves_clients_between_rooms() {
    let hub = rooms(Config::default());
    let mut peer = hub.join();
    let id = hub.ask(hub.hub.clients())[0].id;
    hub.ask(hub.hub.join(id, "news"));
    assert_eq!(hub.ask(hub.hub.presence("news")).len(), 1);
    assert_eq!(hub.ask(hub.hub.publish("news", "extra")), 1);
    peer.hears("extra");
    hub.ask(hub.hub.leave(id, "news"));
    assert_eq!(hub.ask(hub.hub.publish("news", "no member")), 0);
}

/// Invariant 5, over sockets: a room ends when its last member leaves, in whatever way.
#[test]
fn a_room_ends_with_its_last_member() {
    let hub = rooms(Config::default().max_rooms(2));
    let closes = hub.join_at("/ws/a");
    let resets = hub.join_at("/ws/a");
    let mut leaves = hub.join_at("/ws/b");
    assert_eq!(hub.hub.stats().rooms, 2);
    assert_eq!(Peer::ask(&hub.address, "/ws/c").1, 503, "a third room is one too many");
    drop(closes);
    resets.reset();
    until("the first room is gone", || hub.hub.stats().rooms == 1);
    let _third = hub.join_at("/ws/c");
    leaves.say("-b");
    leaves.hears("done");
    assert_eq!(hub.hub.stats().rooms, 1);
}

#[test]
fn limits_on_rooms_are_reported_to_the_caller() {
    let hub = rooms(Config::default().max_rooms(3).max_rooms_per_client(2));
    let mut peer = hub.join_at("/ws/1");
    peer.say("+2");
    peer.hears("done");
    peer.say("+3");
    peer.hears("the client is in 2 rooms, the limit");
    let mut other = hub.join_at("/ws/3");
    other.say("+4");
    other.hears("3 rooms exist, the limit");
    other.say("+1");
    other.hears("done");
    other.say(&format!("+{}", "x".repeat(129)));
    assert!(String::from_utf8_lossy(&other.receive().1).contains("1 to 128 bytes"));
}

/// Invariant 4, over sockets: a client's slot is used again, its id is not.
#[test]
fn id_of_a_client_that_left_names_no_other() {
    let hub = rooms(Config::default());
    let first = hub.join();
    let old = hub.ask(hub.hub.clients())[0].id;
    drop(first);
    hub.empties();
    let mut second = hub.join();
    let new = hub.ask(hub.hub.clients())[0].id;
    assert_ne!(old, new);
    assert_eq!(hub.ask(hub.hub.send(old, "for the first")), 0);
    let moved = block_on(hub.hub.join(old, "news")).expect_err("it is gone");
    assert!(moved.is_unknown_client());
    let kicked = block_on(hub.hub.disconnect(old, Disconnect::NORMAL)).expect_err("it is gone");
    assert!(kicked.is_unknown_client());
    assert_eq!(hub.ask(hub.hub.send(new, "for the second")), 1);
    second.hears("for the second");
}
