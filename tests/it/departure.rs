//! What `on_disconnect` knows of a client: the rooms that it has left, its user and its address.

use std::sync::mpsc::{Receiver, Sender, channel};

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Handler, Message, Peer as Source, room_of};
use smol::block_on;

use crate::peer::{DEADLINE, Peer};
use crate::support::{TestHub, until};

/// The code of the end, and the rooms.
type End = (u16, Vec<String>);

/// A client is in the room of its path and in `hall`. A text is one more room, or a command.
struct Doorman(Sender<End>);

impl Handler for Doorman {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        Ok(Admission::user("ada").room(room).room("hall").extension(7u8))
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        match message.as_text().unwrap_or_default() {
            "leave" => client.leave("hall").await?,
            "end" => return Err(Disconnect::new(4000, "as you wish")),
            room => client.join(room).await?,
        }
        client.send("done").await?;
        Ok(())
    }

    async fn on_disconnect(&self, client: &Client, reason: &Disconnect) {
        assert_eq!((client.user(), client.extension::<u8>()), (Some("ada"), Some(&7)));
        assert!(client.extension::<String>().is_none());
        let rooms = client.rooms().await.expect("they are known");
        for room in &rooms {
            // An error means that the hub has ended.
            let _ = client.publish(room, format!("ada left {room}")).await;
        }
        let rooms = rooms.iter().map(ToString::to_string).collect();
        // The test may have dropped the receiver.
        let _ = self.0.send((reason.code(), rooms));
    }
}

fn door(config: Config) -> (TestHub, Receiver<End>) {
    let (sender, ends) = channel();
    (TestHub::serving(config.http(true), Doorman(sender)), ends)
}

#[track_caller]
fn next(ends: &Receiver<End>) -> End {
    ends.recv_timeout(DEADLINE).expect("the hook ran")
}

fn rooms(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn the_others_in_the_rooms_can_be_told_of_each_end() {
    let (hub, ends) = door(Config::default());
    let mut bob = hub.join_at("/ws/bar");
    let said = |ada: &mut Peer<_>, text: &str| {
        ada.say(text);
        ada.hears("done");
    };
    // By its peer.
    let mut ada = hub.join_at("/ws/bar");
    said(&mut ada, "more");
    said(&mut ada, "leave");
    drop(ada);
    assert_eq!(next(&ends), (1006, rooms(&["bar", "more"])));
    bob.hears("ada left bar");
    // By a hook.
    let mut ada = hub.join_at("/ws/bar");
    ada.say("end");
    ada.is_closed(4000);
    ada.goodbye(4000);
    assert_eq!(next(&ends), (4000, rooms(&["bar", "hall"])));
    bob.hears("ada left bar");
    bob.hears("ada left hall");
    // By the program.
    let mut ada = hub.join_at("/ws/elsewhere");
    let id = hub.ask(hub.hub.presence("elsewhere"))[0].id;
    hub.ask(hub.hub.disconnect(id, Disconnect::new(4001, "go")));
    ada.is_closed(4001);
    ada.goodbye(4001);
    assert_eq!(next(&ends), (4001, rooms(&["elsewhere", "hall"])));
    bob.hears("ada left hall");
    // A stream of events.
    let mut events = hub.dial();
    events.request("GET /sse/bar HTTP/1.1\r\nHost: localhost\r\n\r\n");
    until("it is in", || hub.hub.stats().clients == 2);
    drop(events);
    assert_eq!(next(&ends), (1006, rooms(&["bar", "hall"])));
    bob.hears("ada left bar");
    bob.hears("ada left hall");
}

#[test]
fn an_evicted_client_has_left_its_rooms_too() {
    for threads in [1, 2] {
        let (sender, ends) = channel();
        let config = Config::default().queue(4).queue_bytes(Config::MAX_MESSAGE + 14);
        let hub = TestHub::on_threads(threads, config, Doorman(sender));
        for _ in 0..20 {
            let _slow = hub.dial().join("/ws/bar");
            until("it is evicted", || {
                hub.broadcast(vec![0xa5; Config::MAX_MESSAGE]);
                hub.hub.stats().clients == 0
            });
            assert_eq!(next(&ends), (4108, rooms(&["bar", "hall"])));
        }
    }
}

#[test]
fn a_drain_and_the_end_of_the_manager_are_ends_too() {
    let (hub, ends) = door(Config::default());
    let mut ada = hub.join_at("/ws/bar");
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(hub.hub.drain(Disconnect::RESTART)));
        ada.is_closed(1012);
        ada.goodbye(1012);
    });
    assert_eq!(next(&ends), (1012, rooms(&["bar", "hall"])));
}
